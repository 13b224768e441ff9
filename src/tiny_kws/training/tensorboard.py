"""TensorBoard events of a training."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from ..files import cannot_write


def write_events(history: Sequence[Mapping[str, float]], path: Path, append: bool) -> None:
    """Write the epochs of `history` as scalars to an event file, anew, or with `append` behind those it holds.

    TensorBoard keeps the file open and reads on, so it is not replaced; of a record cut short it makes nothing.
    Raises KwsError if it cannot be written.
    """
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    if not append:
        writer.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
    for line in history:
        values = [Summary.Value(tag=name, simple_value=value) for name, value in line.items()]
        event = Event(wall_time=time.time(), step=int(line["epoch"]), summary=Summary(value=values))
        writer.write(event.SerializeToString())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab" if append else "wb") as file:
            file.write(buffer.getvalue())
    except OSError as error:
        raise cannot_write(path, error) from error
