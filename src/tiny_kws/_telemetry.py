"""Libraries are told, before they are imported, not to report to their vendors.

Left alone, newer versions of onnxruntime write a device id and a database of events under HOME and send them;
huggingface_hub tells the Hub what uses it. This room comes first in the package, so that no other can import them
before it. Who set a variable keeps what it says.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
