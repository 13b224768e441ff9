"""What is told of a word, as a table for the terminal, the card and the documents."""

from __future__ import annotations

from collections.abc import Sequence

from ..evaluation.tables import Table
from .bank import CHILDREN, HOMES, LANGUAGES, OWN, READERS
from .predict import Alarms, Expected, Misses

NAMES = {
    READERS: "adults reading books",
    HOMES: "adults at home",
    CHILDREN: "children and learners",
    LANGUAGES: "other languages",
    OWN: "your own",
}
EXPLANATION = (
    "Missed are takes that the model tried on them was made without; false alarms an hour come from speakers that it "
    "was made without. In brackets 95 % intervals."
)


def told_table(points: Sequence[Expected], chosen: float) -> Table:
    """A row for each threshold; `chosen` is the one that the model has, marked with a star."""
    kinds = [kind for kind, alarms in points[0].alarms.items() if alarms.hours]
    hours = (f"{NAMES[kind]} ({points[0].alarms[kind].hours:.1f} h)" for kind in kinds)
    return Table(
        ("threshold", "missed", "missed at 10 dB SNR", *hours),
        [
            (
                f"{point.threshold:.2f}{' (the model has it)' if point.threshold == chosen else ''}",
                _misses(point.misses),
                _misses(point.misses_in_noise),
                *(_alarms(point.alarms[kind]) for kind in kinds),
            )
            for point in points
        ],
    )


def _misses(misses: Misses | None) -> str:
    if misses is None:
        return "not known"
    low, high = misses.interval
    return f"{misses.missed} of {misses.takes} ({100 * low:.0f} to {100 * high:.0f} %)"


def _alarms(alarms: Alarms) -> str:
    low, high = alarms.interval
    return f"{alarms.rate:.1f} ({low:.1f} to {high:.1f})"
