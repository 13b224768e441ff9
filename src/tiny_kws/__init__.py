"""tiny-kws: software that hears a few chosen words.

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
"""What is imported when it is asked for, since it needs an extra, and where it is."""


def load(path: str | Path | None = None, threads: int = 1) -> Classifier:
    """A classifier from an artefact, a bundled model's name, the Hub, or (default) the package's own model.

    On the Hub it is `hf://USER/NAME`, where `@REVISION` and `/FILE` may follow; see `tiny_kws.artefact.hub.fetch`.
    `threads` are those of onnxruntime.
    Raises ModelError if the artefact is missing, foreign, altered or too new, and KwsError if it cannot be fetched.
    """
    return Classifier(path, threads)


def __getattr__(name: str) -> Any:
    """Networks, LogMel and normalize need torch, which `tiny-kws[train]` brings, listening needs `tiny-kws[mic]`."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    return getattr(import_module(f".{_LATE[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
