"""Checkpoint to LiteRT (.tflite), float and full int8, and to a C header, for microcontrollers.

A microcontroller computes its own log-mel: the model's input is the normalised log-mel (1, mels, frames, 1), its output
the probabilities (1, classes). The metadata, and the header, say how log-mel values become int8 inputs.
"""

from __future__ import annotations

import json
import logging
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..artefact.format import METADATA_KEY, Metadata, Stats, parse_metadata
from ..config import FeatureConfig
from ..errors import ModelError
from ..evaluation.clips import BATCH_CLIPS
from ..files import write_bytes
from ..training.checkpoint import Checkpoint
from ..training.features import LogMel, normalize
from .exporter import Exporter, Parity, check_window, require_accuracy, require_closeness

Array = npt.NDArray[Any]
BYTES_A_LINE = 16


@dataclass(frozen=True)
class Quantization:
    """value = (integer - zero_point) * scale, of a model's int8 input and output."""

    input_scale: float
    input_zero_point: int
    output_scale: float
    output_zero_point: int

    def log_mel_affine(self, stats: Stats) -> tuple[float, float]:
        """(gain, offset): a natural-log mel value x is the int8 input round(x * gain + offset), clipped."""
        gain = 1.0 / (self.input_scale * stats.std)
        return gain, self.input_zero_point - stats.mean * gain


class _FromFeatures(nn.Module):
    """Normalised log-mel (1, mels, frames, 1) to probabilities."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor) -> Tensor:
        return torch.softmax(self.model(features.permute(0, 3, 1, 2)), -1)


def export_litert(exporter: Exporter, out: Path, calibration: Array) -> Iterator[tuple[Path, Parity]]:
    """Write NAME.tflite in float32, NAME.int8.tflite, int8 from input to output, and NAME.h, its bytes as a C array.

    `out` is NAME.tflite. Int8 ranges are taken from audio (clips, window). Gives each model that is written. Raises
    KwsError if a model differs too much from the checkpoint, UsageError for audio of another length.
    """
    checkpoint = exporter.checkpoint
    check_window(checkpoint, calibration)
    features = features_of(checkpoint, exporter.audio)
    config = checkpoint.feature_config
    example = torch.zeros(1, config.n_mels, config.n_frames(checkpoint.window), 1)
    model = converted(_FromFeatures(checkpoint.model), example)
    parity = exporter.compare(run(model, features), exporter.expected)
    require_closeness(parity, out)
    write_bytes(out, with_metadata(model, properties_of(exporter.metadata(out, parity, kind="features"))))
    yield out, parity

    int8_out = out.with_suffix(".int8.tflite")
    int8_model = quantized(model, features_of(checkpoint, calibration))
    parity = exporter.compare(run(int8_model, features), exporter.expected)
    require_accuracy(parity, int8_out)
    metadata = exporter.metadata(
        int8_out, parity, kind="features", precision="int8", calibration_clips=len(calibration)
    )
    quantization = quantization_of(int8_model)
    whole = with_metadata(int8_model, properties_of(metadata, quantization))
    write_bytes(int8_out, whole)
    write_bytes(out.with_suffix(".h"), c_header(whole, metadata, quantization).encode())
    yield int8_out, parity


def features_of(checkpoint: Checkpoint, audio: Array) -> Array:
    """Normalised log-mel of audio (clips, window) as the model takes it, (clips, mels, frames, 1)."""
    log_mel = LogMel(checkpoint.feature_config)
    with torch.inference_mode():
        parts = [normalize(log_mel(x), checkpoint.stats) for x in torch.split(torch.from_numpy(audio), BATCH_CLIPS)]
        return torch.cat(parts).permute(0, 2, 3, 1).numpy()


def quantization_of(model: bytes) -> Quantization:
    """Scales and zero points of an int8 model's input and output."""
    interpreter = _interpreter(model)
    (input_scale, input_zero), (output_scale, output_zero) = (
        details[0]["quantization"] for details in (interpreter.get_input_details(), interpreter.get_output_details())
    )
    return Quantization(float(input_scale), int(input_zero), float(output_scale), int(output_zero))


def with_metadata(model: bytes, properties: dict[str, Any]) -> bytes:
    """`model` with one more metadata buffer: `properties` as JSON under the name tiny_kws."""
    from ai_edge_litert.tools import flatbuffer_utils as flat  # noqa: PLC0415

    parsed = flat.read_model_from_bytearray(bytearray(model))
    buffer = flat.BufferT()
    buffer.data = np.frombuffer(json.dumps(properties).encode(), np.uint8)
    parsed.buffers.append(buffer)
    entry = flat.schema_fb.MetadataT()
    entry.name, entry.buffer = METADATA_KEY, len(parsed.buffers) - 1
    parsed.metadata = [*(parsed.metadata or []), entry]
    return bytes(flat.convert_object_to_bytearray(parsed))


def require_litert() -> None:
    """Raise ModuleNotFoundError if a package that this needs is not installed."""
    for name in ("litert_torch", "ai_edge_quantizer", "ai_edge_litert"):
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def read_metadata(path: Path) -> Metadata:
    """The metadata of a LiteRT model of ours. Raises ModelError if it is not ours."""
    try:
        properties = read_properties(path.read_bytes())
    except (OSError, ValueError, TypeError, AttributeError, struct.error) as error:
        raise ModelError(
            f"{path}: is not a LiteRT model ({error}), expected a file written by `tiny-kws export --litert`"
        ) from error
    return parse_metadata({METADATA_KEY: json.dumps(properties)} if properties else {}, str(path))


def read_properties(model: bytes) -> dict[str, Any]:
    """The metadata that `with_metadata` put into a model; empty if there is none."""
    from ai_edge_litert.tools import flatbuffer_utils as flat  # noqa: PLC0415

    parsed = flat.read_model_from_bytearray(bytearray(model))
    for entry in parsed.metadata or []:
        if entry.name == METADATA_KEY.encode():
            found: dict[str, Any] = json.loads(bytes(parsed.buffers[entry.buffer].data))
            return found
    return {}


def c_header(model: bytes, metadata: Metadata, quantization: Quantization) -> str:
    """The model as a C array, with its labels and what int8 values mean."""
    config = FeatureConfig(**metadata.feature_config)
    frames = "frames lie around their time, edges reflected" if config.centered else "a frame ends at its time"
    gain, offset = quantization.log_mel_affine(metadata.stats)
    rows = (model[i : i + BYTES_A_LINE] for i in range(0, len(model), BYTES_A_LINE))
    body = ",\n  ".join(", ".join(f"0x{byte:02x}" for byte in row) for row in rows)
    labels = ", ".join(map(c_string, metadata.labels))
    licence = metadata.licence or "licence not stated"
    name, licence = (text.replace("*/", "* /") for text in (metadata.name, licence))  # it ends a comment
    return f"""/* {name}: a keyword spotter, made by tiny-kws {metadata.version}. Weights: {licence}.
   Input: int8 (1, {config.n_mels}, {config.n_frames(metadata.window + metadata.look_back)}, 1), the natural log of
   (mel power + {config.log_offset:g}) of {config.rate} Hz audio in [-1, 1]: periodic Hann window and
   FFT of {config.n_fft}, hop {config.hop}, {config.n_mels} HTK mel filters of height one
   from {config.f_min:g} to {config.f_max:g} Hz; {frames}.
   A value x becomes round(x * KWS_INPUT_GAIN + KWS_INPUT_OFFSET), clipped to -128..127.
   Output: int8 (1, {len(metadata.labels)}); a probability is (q - KWS_OUTPUT_ZERO_POINT) * KWS_OUTPUT_SCALE. */
#ifndef TINY_KWS_MODEL_H
#define TINY_KWS_MODEL_H

#define KWS_INPUT_GAIN {gain:.9g}f
#define KWS_INPUT_OFFSET {offset:.9g}f
#define KWS_OUTPUT_SCALE {quantization.output_scale:.9g}f
#define KWS_OUTPUT_ZERO_POINT ({quantization.output_zero_point})
#define KWS_N_LABELS {len(metadata.labels)}

static const char *const kws_labels[KWS_N_LABELS] = {{{labels}}};

static const unsigned int kws_model_len = {len(model)};
static const unsigned char kws_model[] __attribute__((aligned(16))) = {{
  {body}
}};

#endif
"""


def c_string(text: str) -> str:
    r"""A C literal of the UTF-8 bytes of `text`, whatever the compiler takes its source for.

    >>> print(c_string("stop"), c_string('é"'))
    "stop" "\303\251\042"
    """
    plain = set(range(32, 127)) - set(b'"?\\')
    inside = "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text.encode())
    return f'"{inside}"'


def properties_of(metadata: Metadata, quantization: Quantization | None = None) -> dict[str, Any]:
    """What a LiteRT model says about itself."""
    properties = metadata.to_dict()
    properties.pop("artefact_sha256")  # of ONNX files only
    if quantization:
        gain, offset = quantization.log_mel_affine(metadata.stats)
        properties["quantization"] = {**asdict(quantization), "log_mel_gain": gain, "log_mel_offset": offset}
    return properties


def converted(network: nn.Module, example: Tensor) -> bytes:
    """`network` as a LiteRT model in float32, for inputs of the shape of `example`."""
    with _quiet(), TemporaryDirectory() as folder:
        import litert_torch  # noqa: PLC0415

        path = Path(folder) / "model.tflite"
        litert_torch.convert(network.eval(), (example,)).export(str(path))
        return path.read_bytes()


def quantized(model: bytes, features: Array) -> bytes:
    """`model` in int8 from input to output, ranges taken from `features` (n, *input)."""
    with _quiet(), TemporaryDirectory() as folder:
        from ai_edge_quantizer import calibrator, quantizer, recipe, recipe_manager  # noqa: PLC0415
        from ai_edge_quantizer.utils import qsv_utils  # noqa: PLC0415

        manager = recipe_manager.RecipeManager()
        manager.load_quantization_recipe(recipe.static_wi8_ai8())
        # The tool's own choice, a moving average of the ranges, cuts off loud clips: it cost 2.8 points of accuracy.
        ranges = calibrator.Calibrator(model, num_threads=1, qsv_update_func=qsv_utils.min_max_update)
        signature, names = next(iter(_interpreter(model).get_signature_list().items()))
        ranges.calibrate({signature: [{names["inputs"][0]: row[None]} for row in features]}, manager)
        path = Path(folder) / "int8.tflite"
        tool = quantizer.Quantizer(model, recipe.static_wi8_ai8())
        tool.quantize(ranges.get_model_qsvs()).export_model(path, overwrite=True)
        return path.read_bytes()


def run(model: bytes, features: Array) -> Array:
    """Probabilities (n, classes) of a float or int8 model."""
    interpreter = _interpreter(model)
    given, answered = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    rows = []
    for row in features:
        interpreter.set_tensor(given["index"], _to_integers(row[None], given))
        interpreter.invoke()
        rows.append(_to_floats(interpreter.get_tensor(answered["index"])[0], answered))
    return np.stack(rows)


def _to_integers(values: Array, details: dict[str, Any]) -> Array:
    if details["dtype"] == np.float32:
        return values
    scale, zero_point = details["quantization"]
    integers: Array = np.clip(np.rint(values / scale + zero_point), -128, 127).astype(np.int8)
    return integers


def _to_floats(values: Array, details: dict[str, Any]) -> Array:
    if details["dtype"] == np.float32:
        return values
    scale, zero_point = details["quantization"]
    floats: Array = (values.astype(np.float32) - zero_point) * scale
    return floats


def _interpreter(model: bytes) -> Any:
    with _quiet():
        from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415

        interpreter = Interpreter(model_content=model, num_threads=1)
        interpreter.allocate_tensors()
        return interpreter


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the converter, whose reports, in Python and below it, are of no use to the user."""
    saved = [os.dup(1), os.dup(2)]
    level = logging.root.level
    try:
        with Path(os.devnull).open("w") as null, redirect_stdout(null), redirect_stderr(null):
            os.dup2(null.fileno(), 1)
            os.dup2(null.fileno(), 2)
            logging.disable(logging.ERROR)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
    finally:
        logging.disable(logging.NOTSET)
        logging.root.setLevel(level)
        for number, copy in enumerate(saved, 1):
            os.dup2(copy, number)
            os.close(copy)
