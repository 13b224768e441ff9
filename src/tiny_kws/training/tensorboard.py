"""TensorBoard events of a training."""

from __future__ import annotations

import io
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from ..files import cannot_write


def write_scalars(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Write the epochs of `history` as scalars to an event file, anew. Raises KwsError if it cannot be written."""
    begin = Event(wall_time=time.time(), file_version="brain.Event:2")
    _write([begin, *map(_event_of, history)], path, "wb")


def append_scalars(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Write the epochs of `history` behind those that an event file holds. Raises KwsError if it cannot be written.

    TensorBoard keeps the file open and reads on, so the file is not replaced; it ignores a record that was cut short.
    """
    _write(map(_event_of, history), path, "ab")


def _event_of(epoch: Mapping[str, float]) -> Event:
    values = [Summary.Value(tag=name, simple_value=value) for name, value in epoch.items()]
    return Event(wall_time=time.time(), step=int(epoch["epoch"]), summary=Summary(value=values))


def _write(events: Iterable[Event], path: Path, mode: str) -> None:
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    for event in events:
        writer.write(event.SerializeToString())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open(mode) as file:
            file.write(buffer.getvalue())
    except OSError as error:
        raise cannot_write(path, error) from error
