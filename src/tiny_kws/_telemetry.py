"""onnxruntime is told, before it is imported, not to report to its vendor.

Left alone, its newer versions write a device id and a database of events under HOME and send them. This room comes
first in the package, so that no other can import onnxruntime before it. Who set the variable keeps what it says.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
