"""Compares a graph's inputs and outputs with its metadata when it is opened, so that nothing fails when it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..errors import ModelError
from .format import Metadata

Shape = tuple[Any, ...]
"""Sizes; a size that is not fixed is a name or None."""
NEXT = "next_"
"""The prefix that, before the name of a stream's state, names its next value."""


@dataclass(frozen=True)
class Ends:
    """Shapes of a graph's inputs and outputs by name; an input or output that is not float32 has no shape."""

    inputs: Mapping[str, Shape]
    outputs: Mapping[str, Shape]

    @property
    def states(self) -> dict[str, Shape]:
        """The states that a stream passes on from hop to hop, by the names of their inputs."""
        return {name.removeprefix(NEXT): shape for name, shape in self.outputs.items() if name.startswith(NEXT)}

    @property
    def has_batch(self) -> bool:
        """Whether the first axis of a stream's graph is open, so that many streams can advance in one run."""
        return not isinstance(self.inputs["audio"][0], int)

    def of_batch(self, shape: Shape, size: int) -> Shape:
        """A shape of a stream's graph for this many streams."""
        return (size, *shape[1:]) if self.has_batch else shape


def ends_of(session: Any) -> Ends:
    """Read them from an onnxruntime session."""
    inputs, outputs = (
        {value.name: tuple(value.shape) if value.type == "tensor(float)" else () for value in values}
        for values in (session.get_inputs(), session.get_outputs())
    )
    return Ends(inputs, outputs)


def check_ends(ends: Ends, metadata: Metadata, where: str) -> None:
    """Raise ModelError, naming `where`, if the graph of a clip or stream artefact does not match its metadata."""
    is_stream = metadata.kind == "stream"
    length, why = (metadata.hop, "hop") if is_stream else (metadata.window, "window")
    states = ends.states if is_stream else {}
    _check_shape(where, "takes audio", ends.inputs.get("audio"), is_stream, length, why)
    _check_shape(
        where, "gives probabilities", ends.outputs.get("probabilities"), is_stream, len(metadata.labels), "labels"
    )
    expected = {"audio": ends.inputs["audio"], **states}
    if dict(ends.inputs) != expected:
        found, wanted = (
            ", ".join(f"{name} {_text(shape)}" for name, shape in shapes.items()) for shapes in (ends.inputs, expected)
        )
        raise ModelError(f"{where}: its graph takes {found}, expected {wanted}; export it again")
    if is_stream:
        others = {"embedding": ends.outputs.get("embedding", ()), "probabilities": ends.outputs["probabilities"]}
        _check_is_settled({**states, **others}, ends.has_batch, where)


def _check_shape(where: str, deed: str, shape: Shape | None, is_stream: bool, size: int, why: str) -> None:
    """Raise ModelError unless a shape is (batch, size); that of a stream's graph may be (1, size)."""
    found = shape or ()
    fits = len(found) == 2 and found[1] == size and (not isinstance(found[0], int) or (is_stream and found[0] == 1))
    if not fits:
        raise ModelError(
            f"{where}: its graph {deed} of shape {_text(found)}, expected (batch, {size}) by the {why} in its "
            "metadata; export it again"
        )


def _check_is_settled(shapes: Mapping[str, Shape], has_batch: bool, where: str) -> None:
    """Raise ModelError unless all sizes but the batch's are numbers, because a stream's memory is allocated once."""
    for name, shape in shapes.items():
        open_axes = [i for i, size in enumerate(shape) if not isinstance(size, int)]
        if not shape or open_axes != ([0] if has_batch else []):
            wanted = "numbers behind the batch" if has_batch else "numbers"
            raise ModelError(
                f"{where}: its graph's {name} has shape {_text(shape)}, expected {wanted}; export it again"
            )


@contextmanager
def explained(where: str, deed: str) -> Iterator[None]:
    """Raise a ModelError that says why onnxruntime cannot do `deed` (load, run) with the model at `where`."""
    try:
        yield
    except Exception as error:  # onnxruntime's errors share no base class but Exception
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"{where}: onnxruntime cannot {deed} it ({reason}); export it again") from error


def _text(shape: Shape) -> str:
    return f"({', '.join(map(str, shape))})" if shape else "none"
