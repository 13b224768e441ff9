"""Turns a checkpoint into an artefact: builds it, compares the answers of both, and writes it if they agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch

from .._version import __version__
from ..artefact.format import Metadata, Stats, Validation, artefact_bytes
from ..artefact.runtime import StreamModel, open_session
from ..config import SAMPLE_RATE, DetectorConfig
from ..errors import KwsError, UsageError
from ..evaluation.clips import BATCH_CLIPS, ClipSet, measure
from ..files import write_bytes
from ..training.checkpoint import Checkpoint, ClipNetwork
from ..training.features import LogMel, normalize
from ..training.networks import CausalCNN, count_macs, count_parameters
from .onnx_models import clip_graph, quantized_clip, quantized_stream, stream_graph

TOLERANCE = 1e-4
"""The largest difference of a probability between checkpoint and artefact that is allowed for a float32 export."""
INT8_TOLERANCE = 0.003
"""The largest loss of accuracy against the checkpoint that is allowed for an int8 export."""
CALIBRATION_CLIPS = 512
SYNTHETIC_CLIPS = 64
Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Parity:
    """An artefact and its checkpoint on the same clips; figures that need labels are None without labels."""

    clips: str
    n_clips: int
    largest_difference: float
    checkpoint_accuracy: float | None = None
    validation: Validation | None = None
    """The artefact's."""

    @property
    def accuracy(self) -> float | None:
        """The artefact's."""
        return self.validation.accuracy if self.validation else None

    @property
    def loss(self) -> float:
        """Accuracy lost against the checkpoint; 0 if unknown."""
        if self.validation is None or self.checkpoint_accuracy is None:
            return 0.0
        return self.checkpoint_accuracy - self.validation.accuracy


class Exporter:
    """Writes artefacts of one checkpoint, each only if its answers agree with the checkpoint's.

    They are compared on `clips`, whose accuracy goes into the metadata, or on seeded synthetic sound if there are none.
    `licence` is the weights', `detector` holds the settings for listening that the artefacts are to carry.
    Raises UsageError for clips of another length than the checkpoint's window.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        clips: ClipSet | None = None,
        licence: str = "",
        progress: Progress = lambda done, total: None,
        detector: DetectorConfig | None = None,
    ) -> None:
        self.checkpoint, self.licence, self.clips = checkpoint, licence, clips
        self.detector = {} if detector is None else asdict(detector)
        self.audio = np.concatenate(list(clips.batches())) if clips else _synthetic_sound(checkpoint.window)
        check_window(checkpoint, self.audio)
        self.expected = _answers_of_checkpoint(checkpoint, self.audio, progress)

    def clip(self, out: Path) -> Parity:
        """`audio` (batch, window) to `probabilities` (batch, classes) and `embedding` (batch, width), in float32.

        Raises KwsError, and writes nothing, if it differs from the checkpoint by more than TOLERANCE.
        """
        model = clip_graph(self.checkpoint)
        parity = self.compare(_answers_of_clips(model, self.audio, out), self.expected)
        require_closeness(parity, out)
        write_bytes(out, artefact_bytes(model, self.metadata(out, parity)))
        return parity

    def stream(self, out: Path, hop: int) -> Parity:
        """A step of a stream: `audio` (1, hop) and states to the same outputs and the next states.

        Compared at every hop of every clip; with some silence before, so that the last hop ends with the clip.
        Raises UsageError if the network does not stream in such hops, and KwsError as `clip` does.
        """
        return self._stream(stream_graph(self.checkpoint, hop), out, hop, require_closeness)

    def stream_int8(self, out: Path, hop: int, calibration: Array) -> Parity:
        """The stream artefact with the layers in int8, per channel, calibrated on audio (clips, window).

        Front end and states stay in float, as `int8` leaves the front end. Raises as `int8` and `stream` do.
        """
        self._check_int8(calibration)
        model = quantized_stream(stream_graph(self.checkpoint, hop, half_filters=True), calibration)
        more = {"precision": "int8", "calibration_clips": len(calibration)}
        return self._stream(model, out, hop, require_accuracy, more)

    def _stream(
        self,
        model: onnx.ModelProto,
        out: Path,
        hop: int,
        require: Callable[[Parity, Path], None],
        more: Mapping[str, Any] | None = None,
    ) -> Parity:
        """Write a stream's graph, with `more` fields of Metadata, if it answers as is required."""
        kind: dict[str, Any] = {"kind": "stream", "hop": hop, "look_back": self.checkpoint.look_back, **(more or {})}
        untried = artefact_bytes(model, describe(self.checkpoint, base_name(out), **kind))
        audio = np.pad(self.audio, ((0, 0), (-self.checkpoint.window % hop, 0)))
        expected = _answers_of_streaming_checkpoint(self.checkpoint, audio, hop)
        parity = self.compare(_answers_of_streams(untried, audio, out.name), expected)
        require(parity, out)
        write_bytes(out, artefact_bytes(model, self.metadata(out, parity, **kind)))
        return parity

    def int8(self, out: Path, calibration: Array) -> Parity:
        """The clip artefact with the network in int8, per channel, calibrated on audio (clips, window).

        The front end stays in float, its mel filters stored in half precision. Raises KwsError if it loses more
        accuracy than INT8_TOLERANCE, and UsageError without clips, because then the loss cannot be measured.
        """
        self._check_int8(calibration)
        model = quantized_clip(clip_graph(self.checkpoint, half_filters=True), calibration)
        parity = self.compare(_answers_of_clips(model, self.audio, out), self.expected)
        require_accuracy(parity, out)
        metadata = self.metadata(out, parity, precision="int8", calibration_clips=len(calibration))
        write_bytes(out, artefact_bytes(model, metadata))
        return parity

    def _check_int8(self, calibration: Array) -> None:
        if self.clips is None:
            raise UsageError("int8 needs recordings to calibrate and to measure on; give --data PREPARED")
        check_window(self.checkpoint, calibration)

    def compare(self, found: Array, expected: Array) -> Parity:
        """Both are probabilities (clips, classes) or (clips, hops, classes); accuracy is that of the last hop."""
        name = self.clips.name if self.clips else "synthetic noise"
        difference = float(np.abs(found - expected).max())
        if self.clips is None:
            return Parity(name, len(found), difference)
        validation, reference = (_validation(self.clips, x, self.checkpoint.labels) for x in (found, expected))
        return Parity(name, len(found), difference, reference.accuracy, validation)

    def metadata(self, out: Path, parity: Parity, **of_its_kind: Any) -> Metadata:
        """The metadata of the artefact at `out`; `of_its_kind` are fields of Metadata that its kind sets."""
        measured = {"licence": self.licence, "detector": self.detector, "validation": parity.validation}
        return describe(self.checkpoint, base_name(out), **measured, **of_its_kind)


def describe(checkpoint: Checkpoint, name: str, **more: Any) -> Metadata:
    """The metadata of a float32 clip artefact made from `checkpoint`, with `more` fields where it is not just that."""
    config = checkpoint.feature_config
    features = torch.zeros(1, 1, config.n_mels, config.n_frames(checkpoint.window))
    return Metadata(
        name=name,
        architecture=checkpoint.architecture,
        labels=list(checkpoint.labels),
        parameters=count_parameters(checkpoint.model),
        macs=count_macs(checkpoint.model, features),
        stats=Stats(**checkpoint.stats),
        model_config=asdict(checkpoint.model.config),
        feature_config=asdict(config),
        window=checkpoint.window,
        train_config=checkpoint.train_config,
        data=checkpoint.data,
        version=__version__,
        checkpoint_sha256=checkpoint.sha256,
        **more,
    )


def check_window(checkpoint: Checkpoint, audio: Array) -> None:
    """Raise UsageError unless `audio` (clips, samples) is as long as the checkpoint's window."""
    if audio.shape[1] != checkpoint.window:
        found_ms, expected_ms = (1000 * samples / SAMPLE_RATE for samples in (audio.shape[1], checkpoint.window))
        raise UsageError(
            f"found clips of {found_ms:g} ms, expected {expected_ms:g} ms, the window of the checkpoint; prepare the "
            f"data with --window-ms {expected_ms:g}"
        )


def require_closeness(parity: Parity, out: Path) -> None:
    """Raise KwsError if the answers of a float32 artefact differ too much from the checkpoint's."""
    if not parity.largest_difference <= TOLERANCE:
        raise KwsError(
            f"{out}: not written, because its probabilities differ from the checkpoint's by "
            f"{parity.largest_difference:.1e} on {parity.clips}, expected at most {TOLERANCE:.0e}; please report this"
        )
    require_accuracy(parity, out)


def require_accuracy(parity: Parity, out: Path) -> None:
    """Raise KwsError if an artefact is too much less accurate than the checkpoint."""
    if not parity.loss <= INT8_TOLERANCE:
        raise KwsError(
            f"{out}: not written, because it loses {100 * parity.loss:.2f} points of accuracy on {parity.clips}, "
            f"expected at most {100 * INT8_TOLERANCE:.1f}; calibrate on more clips or keep it in float32"
        )


def base_name(out: Path) -> str:
    """base of base.int8.onnx."""
    return out.name.split(".")[0]


def _answers_of_checkpoint(checkpoint: Checkpoint, audio: Array, progress: Progress) -> Array:
    """The checkpoint's probabilities (clips, classes)."""
    network = ClipNetwork(checkpoint)
    rows = []
    with torch.inference_mode():
        for batch in torch.split(torch.from_numpy(audio), BATCH_CLIPS):
            rows.append(network(batch).numpy())
            progress(sum(map(len, rows)), len(audio))
    return np.concatenate(rows)


def _answers_of_streaming_checkpoint(checkpoint: Checkpoint, audio: Array, hop: int) -> Array:
    """The checkpoint's probabilities (clips, hops, classes) at the end of every hop of audio (clips, hops * hop)."""
    model, log_mel, per_hop = checkpoint.model, LogMel(checkpoint.feature_config), hop // checkpoint.hop
    assert isinstance(model, CausalCNN)
    rows = []
    with torch.inference_mode():
        for batch in torch.split(torch.from_numpy(audio), BATCH_CLIPS):
            pooled = model.embed_all(normalize(log_mel(batch), checkpoint.stats))
            rows.append(torch.softmax(model.fc(pooled[:, per_hop - 1 :: per_hop]), -1).numpy())
    return np.concatenate(rows)


def _answers_of_clips(model: onnx.ModelProto, audio: Array, out: Path) -> Array:
    """The probabilities (clips, classes) of a clip artefact's graph."""
    session = open_session(model.SerializeToString(), torch.get_num_threads(), str(out))
    starts = range(0, len(audio), BATCH_CLIPS)
    return np.concatenate([session.run(["probabilities"], {"audio": audio[i : i + BATCH_CLIPS]})[0] for i in starts])


def _answers_of_streams(artefact: bytes, audio: Array, name: str) -> Array:
    """The probabilities (clips, hops, classes) of a stream artefact, run the way a user runs it."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        write_bytes(path, artefact)
        stream = StreamModel(path).stream()
    answers = []
    for clip in audio:
        stream.reset()
        answers.append(stream.process(clip))
    return np.stack(answers)


def _validation(clips: ClipSet, probabilities: Array, labels: tuple[str, ...]) -> Validation:
    """The accuracy of probabilities (clips, classes), or (clips, hops, classes), of which the last hop counts."""
    last = probabilities if probabilities.ndim == 2 else probabilities[:, -1]
    scores = measure(last, np.array([labels.index(label) for label in clips.labels]), labels)
    return Validation(
        clips=len(clips.labels),
        clips_name=clips.name,
        clips_sha256=clips.sha256,
        accuracy=scores.accuracy,
        accuracy_interval=scores.accuracy_interval,
        macro_f1=scores.macro_f1,
        macro_f1_interval=scores.macro_f1_interval,
    )


def _synthetic_sound(n_samples: int) -> Array:
    """Noise of many levels, (SYNTHETIC_CLIPS, n_samples)."""
    rng = np.random.default_rng(0)
    loudness = 10.0 ** rng.uniform(-5, 0, (SYNTHETIC_CLIPS, 1))
    return (loudness * rng.uniform(-1, 1, (SYNTHETIC_CLIPS, n_samples))).astype(np.float32)
