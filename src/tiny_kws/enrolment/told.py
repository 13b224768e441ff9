"""What is told of a word, as a table for the terminal, the card and the documents."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..evaluation.tables import Table
from ..json_form import from_json
from .bank import CHILDREN, HOMES, LANGUAGES, OWN, READERS
from .predict import Alarms, Expected, Misses

if TYPE_CHECKING:
    from .advise import Advice
    from .improve import Improvement

NAMES = {
    READERS: "adults reading books",
    HOMES: "adults at home",
    CHILDREN: "children and learners",
    LANGUAGES: "other languages",
    OWN: "your own",
}
LEAST_HOURS = 0.05
"""Hours of speech from which a rate per hour is given; with less, the interval would be 0 to hundreds."""
EXPLANATION = (
    "Misses were counted on takes that were left out when the model for them was made, false alarms per hour on "
    "speakers whom the model had not heard. Brackets hold 95 % intervals."
)
OLD_AND_NEW = (
    "The old model was asked as it is, the new one through models that did not know the recording. What the old one "
    "misses of other takes, and its false alarms, are what was told when it was made."
)


@dataclass(frozen=True)
class Told:
    """What an artefact says of an enrolled word."""

    word: str
    takes: int
    threshold: float
    expected: tuple[Expected, ...]
    spoken: int = 0


def told_of(own_words: Sequence[Any]) -> list[Told]:
    """What the metadata of an artefact say of its enrolled words; of which they say nothing, those are left out."""
    found = []
    for facts in own_words:
        with suppress(ValueError):
            found.append(from_json(Told, facts))
    return [told for told in found if told.expected]


def point_of(told: Told) -> Expected:
    """What is told at the word's threshold, or else at the first one."""
    return next((point for point in told.expected if point.threshold == told.threshold), told.expected[0])


def told_line(told: Told) -> str:
    """What to expect of a word at the threshold that it has, or at the first one told of."""
    point = point_of(told)
    missed = f"missed {_misses(point.misses)}, at 10 dB SNR {_misses(point.misses_in_noise)}"
    alarms = ", ".join(f"{NAMES.get(kind, kind)} {_alarms(alarms)}" for kind, alarms in _rated(point))
    return f"{made_of(told.takes, told.spoken)}; {missed}; false alarms per hour: {alarms or 'not known'}"


def told_table(points: Sequence[Expected], chosen: float, *, voices: bool = False) -> Table:
    """A row for each threshold; `chosen` is the one that the model has. With `voices` misses are told of them alone."""
    missed = "voices missed" if voices else "missed"
    kinds = [kind for kind, _ in _rated(points[0])]
    hours = (f"{NAMES.get(kind, kind)} ({points[0].alarms[kind].hours:.1f} h)" for kind in kinds)
    return Table(
        ("threshold", missed, f"{missed} at 10 dB SNR", *hours),
        [
            (
                f"{point.threshold:.2f}{' (used by the model)' if point.threshold == chosen else ''}",
                _misses(point.misses),
                _misses(point.misses_in_noise),
                *(_alarms(point.alarms[kind]) for kind in kinds),
            )
            for point in points
        ],
    )


def improvement_table(found: Improvement) -> Table:
    """An old model beside a new one, a row for each figure; of recordings that there are none of, none."""
    rows = [
        (f"of {count.of} {what}", str(count.before), str(count.after))
        for count, what in ((found.also, "takes of --also, heard"), (found.not_, "sounds of --not, set off by"))
        if count.of
    ]
    before, after = found.misses
    rates = [f"{point.alarms_per_hour:.2f}" if point else "not known" for point in (found.told, found.expected)]
    return Table(
        ("", "old model", "new model"),
        [
            *rows,
            *([("other takes, missed", _misses(before), _misses(after))] if after else []),
            ("false alarms per hour of English", *rates),
        ],
    )


def advice_table(found: Sequence[Advice]) -> Table:
    """A row for each candidate."""
    return Table(
        ("word", "sounds", "syllables", "said per hour", "false alarms per hour"),
        [(one.word, one.sounds, str(one.syllables), f"{one.per_hour:.1f}", _alarms(one.alarms)) for one in found],
    )


def n_takes(count: int) -> str:
    """How many takes, in words.

    >>> n_takes(1), n_takes(10)
    ('1 take', '10 takes')
    """
    return "1 take" if count == 1 else f"{count} takes"


def made_of(takes: int, spoken: int) -> str:
    """What a word was learnt from, in words.

    >>> made_of(10, 0), made_of(0, 140), made_of(1, 140)
    ('10 takes', '140 takes by synthetic voices', '1 take and 140 by synthetic voices')
    """
    if not spoken:
        return n_takes(takes)
    return f"{n_takes(takes)} and {spoken} by synthetic voices" if takes else f"{n_takes(spoken)} by synthetic voices"


def _rated(point: Expected) -> list[tuple[str, Alarms]]:
    """Whose false alarms there is enough speech of to tell a rate."""
    return [(kind, alarms) for kind, alarms in point.alarms.items() if alarms.hours >= LEAST_HOURS]


def _misses(misses: Misses | None) -> str:
    if misses is None:
        return "not known"
    low, high = misses.interval
    return f"{misses.missed} of {misses.takes} ({100 * low:.0f} to {100 * high:.0f} %)"


def _alarms(alarms: Alarms) -> str:
    low, high = alarms.interval
    return f"{alarms.rate:.1f} ({low:.1f} to {high:.1f})"
