"""What a graph takes and gives, held against its metadata when it is opened: nothing can go wrong when it is fed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..errors import ModelError
from .format import Metadata

Shape = tuple[Any, ...]
"""Sizes; in the place of one that is not settled stands a name or None."""
NEXT = "next_"
"""Before the name of a stream's state, the name of its next value."""


@dataclass(frozen=True)
class Ends:
    """Shapes of a graph's inputs and outputs by name; what is not float32 has none."""

    inputs: Mapping[str, Shape]
    outputs: Mapping[str, Shape]

    @property
    def states(self) -> dict[str, Shape]:
        """What a stream hands on from hop to hop, by the names of the inputs."""
        return {name.removeprefix(NEXT): shape for name, shape in self.outputs.items() if name.startswith(NEXT)}


def ends_of(session: Any) -> Ends:
    """Those of an onnxruntime session."""
    inputs, outputs = (
        {value.name: tuple(value.shape) if value.type == "tensor(float)" else () for value in values}
        for values in (session.get_inputs(), session.get_outputs())
    )
    return Ends(inputs, outputs)


def check_ends(ends: Ends, metadata: Metadata, where: str) -> None:
    """Raise ModelError, naming `where`, if a clip's or a stream's graph is unlike its metadata.

    >>> metadata = Metadata("m", "ds-cnn", ["yes", "no"], 1, 1, Stats(0.0, 1.0), {}, {})
    >>> check_ends(Ends({"audio": ("batch", 16000)}, {"probabilities": ("batch", 12)}), metadata, "m.onnx")
    Traceback (most recent call last):
    tiny_kws.errors.ModelError: m.onnx: its graph gives probabilities of shape (batch, 12), expected (batch, 2) by the \
labels in its metadata; export it again
    """
    length, name = (metadata.hop, "hop") if metadata.kind == "stream" else (metadata.window, "window")
    for verb, shapes, end, size, why in (
        ("takes", ends.inputs, "audio", length, name),
        ("gives", ends.outputs, "probabilities", len(metadata.labels), "labels"),
    ):
        shape = shapes.get(end, ())
        if len(shape) != 2 or shape[1] != size:
            raise ModelError(
                f"{where}: its graph {verb} {end} of shape {_text(shape)}, expected (batch, {size}) by the {why} in "
                "its metadata; export it again"
            )
    states = ends.states if metadata.kind == "stream" else {}
    expected = {"audio": ends.inputs["audio"], **states}
    if dict(ends.inputs) != expected:
        found, wanted = (
            ", ".join(f"{name} {_text(shape)}" for name, shape in x.items()) for x in (ends.inputs, expected)
        )
        raise ModelError(f"{where}: its graph takes {found}, expected {wanted}; export it again")
    if metadata.kind == "stream":
        _check_is_settled({**ends.inputs, "embedding": (), **ends.outputs}, where)


def _check_is_settled(shapes: Mapping[str, Shape], where: str) -> None:
    """Raise ModelError unless all sizes are numbers: memory for a stream is set aside once."""
    for name, shape in shapes.items():
        if not shape or not all(isinstance(size, int) for size in shape):
            raise ModelError(f"{where}: its graph's {name} has shape {_text(shape)}, expected numbers; export it again")


@contextmanager
def explained(where: str, deed: str) -> Iterator[None]:
    """Say, as a ModelError that names `where`, why onnxruntime cannot do a `deed` to a model: load it, run it."""
    try:
        yield
    except Exception as error:  # onnxruntime's errors share no base class but Exception
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"{where}: onnxruntime cannot {deed} it ({reason}); export it again") from error


def _text(shape: Shape) -> str:
    return f"({', '.join(map(str, shape))})" if shape else "none"
