"""The content of `manifest.json`: where prepared clips come from, how they were drawn, how many there are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import DataError
from ..json_form import from_json, to_json
from ..training_config import PrepareConfig

FORMAT = 3
OF_TRAINING = ("source", "licence", "prepare", "clips", "clips_sha256", "sources")
"""What a checkpoint says about the data that it was trained on."""


@dataclass(frozen=True)
class Bill:
    """A line of the bill of materials: a source, how many recordings are used by licence, and left out by reason."""

    name: str
    use: str
    attribution: str
    folder: str
    used: Mapping[str, int]
    left_out: Mapping[str, int]


@dataclass(frozen=True)
class Excerpt:
    """A recording of another source, in a file with several: where it is from, its group, and its length in samples."""

    file: str
    group: str
    samples: int


@dataclass(frozen=True)
class Missing:
    """How many clips are missing from an archive, by split: compared with the official one, and with its own lists."""

    clips: Mapping[str, int] = field(default_factory=dict)
    listed: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """Everything known about prepared data besides its clips. Counts are by split; `clips` counts labels within it.

    `division` says by what the clips were divided into splits, `notes` are to be told whoever prepares,
    `unreadable` names what was left out as damaged, `window` is the length of a clip in samples.
    """

    source: str
    licence: str
    folder: str
    labels: Sequence[str]
    window: int
    prepare: PrepareConfig
    division: str
    recordings: Mapping[str, int]
    missing: Missing
    notes: Sequence[str]
    unreadable: Sequence[str]
    clips: Mapping[str, Mapping[str, int]]
    unknown_words: Mapping[str, Mapping[str, int]]
    speakers: Mapping[str, int]
    noise_seconds: Mapping[str, float]
    noise_stretches: Mapping[str, tuple[float, float]]
    clips_sha256: Mapping[str, str]
    sources: Sequence[Bill]
    material: Mapping[str, Sequence[Excerpt]]
    format: int = FORMAT

    def to_json(self) -> str:
        """The text of `manifest.json`."""
        values = to_json(self)
        return json.dumps({"format": values.pop("format"), **values}, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> Manifest:
        """Parse the text of a manifest that was found in `where`.

        Raises DataError if it has another format, and ValueError, saying what was found, if it is not a manifest.
        """
        values = json.loads(text)
        if isinstance(values, dict) and values.get("format") != FORMAT:
            raise DataError(
                f"{where}: prepared in format {values.get('format')}, expected {FORMAT}; prepare the data again"
            )
        return from_json(cls, values)

    def of_training(self) -> dict[str, Any]:
        """What a checkpoint says about the data that it was trained on, as plain values."""
        values = to_json(self)
        return {key: values[key] for key in OF_TRAINING}
