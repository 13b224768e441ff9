"""tiny-kws hears a few chosen words, built in or your own.

>>> import tiny_kws, numpy
>>> tiny_kws.load().classify(numpy.zeros(16000)).label
'silence'
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _telemetry  # noqa: F401  (before whatever imports onnxruntime)
from ._version import __version__
from .artefact.runtime import Classification, Classifier, Stream, StreamModel
from .config import DetectorConfig
from .errors import AudioError, DataError, KwsError, ModelError, UsageError
from .listening.decoder import Detection
from .listening.detector import Detector

if TYPE_CHECKING:
    from .enrolment.enroll import combine, enroll
    from .listening.microphone import listen, listen_async
    from .training.features import LogMel, normalize
    from .training.networks import DSCNN, CausalCNN

__all__ = [
    "DSCNN",
    "AudioError",
    "CausalCNN",
    "Classification",
    "Classifier",
    "DataError",
    "Detection",
    "Detector",
    "DetectorConfig",
    "KwsError",
    "LogMel",
    "ModelError",
    "Stream",
    "StreamModel",
    "UsageError",
    "__version__",
    "combine",
    "enroll",
    "listen",
    "listen_async",
    "load",
    "normalize",
]

_LATE = {
    "CausalCNN": "training.networks",
    "DSCNN": "training.networks",
    "combine": "enrolment.enroll",
    "enroll": "enrolment.enroll",
    "LogMel": "training.features",
    "normalize": "training.features",
    "listen": "listening.microphone",
    "listen_async": "listening.microphone",
}
"""What is imported only on demand, because it needs an extra, and from where."""


def load(path: str | Path | None = None, threads: int = 1) -> Classifier:
    """A classifier from an artefact, a bundled model's name, the Hub, or (default) the package's own model.

    A model on the Hub is `hf://USER/NAME`, optionally followed by `@REVISION` and `/FILE`; see
    `tiny_kws.artefact.hub.fetch`. `threads` is the number of threads of onnxruntime.
    Raises ModelError if the artefact is missing, of another kind, altered or too new, and KwsError if it cannot be
    downloaded.
    """
    return Classifier(path, threads)


def __getattr__(name: str) -> Any:
    """Networks, LogMel and normalize need torch (`tiny-kws[train]`), and listening needs `tiny-kws[mic]`."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    return getattr(import_module(f".{_LATE[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
