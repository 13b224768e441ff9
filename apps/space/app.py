"""A Hugging Face Space that hears a few chosen words. All of it is `tiny_kws.apps.space`."""

import threading
from pathlib import Path

from tiny_kws.apps.space import launch

launch("0.0.0.0", 7860, folder=Path(__file__).parent)  # noqa: S104  (in the Space's own container)
threading.Event().wait()
