"""What went wrong with a word, takes that were missed and clips that set it off, and whether a new model is better."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from ..audio import read_mono
from ..errors import AudioError, UsageError
from ..json_form import from_json
from .bank import ENGLISH, Bank
from .head import OwnWord
from .learn import Heard, Teacher
from .predict import PARTS, Evidence, Expected, Misses, clip_score, misses_of, word_score
from .takes import Take, sound_files
from .told import Told, point_of

CLIPS = "sounds that set the word off"
LONGEST_CLIP_S = 10.0
"""Of what set a word off. What is longer is not about one mistake."""
QUIETEST = 1e-4
"""The loudest sample of a clip, at least."""
LEAST_ALIKE = 3
"""So many clips, and at least half of them, that sound like the word are perhaps the word."""
MIXED_UP = "was taught that sounds of --not that sound like the word are not it"
"""In what a new model is worse if `check_not_mixed_up` has a note."""
LOWER_QUARTILE = 0.25
"""A sound whose logit is above this quantile of the recordings' is like them: three of four takes are."""


@dataclass(frozen=True)
class Mistakes:
    """What a model is made better by: more recordings of the word, and sounds that set it off without being it.

    `before` is the word as it was.
    """

    before: OwnWord
    also: Sequence[str | Path] = ()
    not_: Sequence[str | Path] = ()


@dataclass(frozen=True)
class Compared:
    """Of so many recordings, how many the old model and the new one took for the word."""

    before: int
    after: int
    of: int


@dataclass(frozen=True)
class Improvement:
    """An old model beside the new one.

    `also` and `not_` are counts on the recordings of these names. The old model was asked as it is, the new one
    through heads that did not know what they were asked about. `misses` are those of the other recordings, old and new;
    `told` is what the old model tells of its false alarms, and `expected` what is to be expected of the new one.
    `worse` says in what the new one is worse, each a part of a sentence. `may_know` is whether the old model was made
    better before, and may know the recordings that it was asked about.
    """

    also: Compared
    not_: Compared
    misses: tuple[Misses | None, Misses | None]
    told: Expected | None
    expected: Expected
    worse: tuple[str, ...]
    may_know: bool


def read_clips(paths: Sequence[str | Path], takes: Sequence[Take], passed_over: dict[str, str]) -> list[Take]:
    """Sounds that set a word off, each once and as a whole; what is not used goes into `passed_over`.

    Raises UsageError if there is none that can be used, or if one is among the recordings of the word too.
    """
    of_word = {_fingerprint(take): take.name for take in takes}
    clips: dict[bytes, Take] = {}
    for file in sound_files(paths, CLIPS, passed_over):
        try:
            audio = read_mono(file)
        except AudioError as error:
            passed_over[str(file)] = str(error)
            continue
        clip = Take(str(file), audio, 0, len(audio))
        if twin := of_word.get(_fingerprint(clip)):
            raise UsageError(
                f"{file}: is among the recordings of the word too ({twin}), expected in one; leave one out"
            )
        first = clips.get(_fingerprint(clip))
        if reason := f"is the same sound as {first.name}" if first else _trouble(clip):
            passed_over[str(file)] = reason
        else:
            clips[_fingerprint(clip)] = clip
    if paths and not clips:
        name, reason = list(passed_over.items())[-1]
        raise UsageError(f"found no sound in --not that can be used ({name}: {reason}), expected what set the word off")
    return list(clips.values())


def new_takes(takes: Sequence[Take], known: Sequence[Take], passed_over: dict[str, str]) -> list[Take]:
    """Those whose recording is not among known ones; a head that knows a take must not be asked about it."""
    of_known = {_fingerprint(take): take.name for take in known}
    passed_over |= {
        take.name: f"is the same recording as {of_known[_fingerprint(take)]}"
        for take in takes
        if _fingerprint(take) in of_known
    }
    return [take for take in takes if _fingerprint(take) not in of_known]


def _fingerprint(take: Take) -> bytes:
    return sha256(take.audio.tobytes()).digest()


def _trouble(clip: Take) -> str:
    if clip.seconds > LONGEST_CLIP_S:
        return f"lasts {clip.seconds:.0f} s, expected {LONGEST_CLIP_S:g} s at most; name it with --negatives"
    return "is silent" if float(np.abs(clip.audio).max(initial=0.0)) < QUIETEST else ""


def compare(
    mistakes: Mistakes,
    bank: Bank,
    evidence: Evidence,
    also: Sequence[Heard],
    clips: Sequence[Heard],
    expected: Expected,
    logit: float,
) -> Improvement:
    """The old word beside a new one, of which `evidence` is; its takes end with those of `also`."""
    old, first = mistakes.before, len(evidence.clean) - len(also)
    at = float(np.log(old.threshold / (1 - old.threshold)))
    heard = sum(word_score(old.head.score(one.vectors), one.end, bank.hop) >= at for one in also)
    fired = sum(clip_score(old.head.score(one.vectors)) >= at for one in clips)
    told = _told(old)
    found = Improvement(
        Compared(heard, int((evidence.clean[first:] >= logit).sum()), len(also)),
        Compared(fired, int((np.array(evidence.clips) >= logit).sum()), len(clips)),
        (told.misses if told else None, misses_of(evidence.clean[:first], logit)),
        told,
        expected,
        (),
        bool(old.facts.get("improved")),
    )
    return replace(found, worse=tuple(_worse(found)))


def _told(old: OwnWord) -> Expected | None:
    """What the old model tells of itself at its threshold, if it does."""
    with suppress(ValueError):
        told = from_json(Told, old.facts)
        return point_of(told) if told.expected else None
    return None


def _worse(found: Improvement) -> list[str]:
    """In what a new model is worse: by count on the same recordings, elsewhere by more than chance explains."""
    also, not_, (before, after) = found.also, found.not_, found.misses
    worse = []
    if also.after < also.before:
        worse.append(f"hears {also.after} of {also.of} takes of --also, and the old one {also.before}")
    if not_.after > not_.before:
        worse.append(f"is set off by {not_.after} of {not_.of} sounds of --not, and the old one by {not_.before}")
    if before and after and after.rate > before.interval[1]:
        worse.append(
            f"misses {after.missed} of the other {after.takes} takes, and the old one {before.missed} of {before.takes}"
        )
    if found.told and _is_over(found.expected, found.told):
        rates = (found.expected.alarms_per_hour, found.told.alarms_per_hour)
        worse.append("has {:.1f} false alarms per hour, and the old one {:.1f}".format(*rates))
    return worse


def _is_over(new: Expected, old: Expected) -> bool:
    """Whether the new false alarms in English are more than the interval of the old ones allows."""
    rates, highest = [], []
    for kind in (kind for kind in ENGLISH if kind in new.alarms and kind in old.alarms):
        rates.append(new.alarms[kind].rate)
        highest.append(old.alarms[kind].interval[1])
    return bool(rates) and float(np.mean(rates)) > float(np.mean(highest))


def check_not_mixed_up(
    bank: Bank, n_bins: int, takes: Sequence[Heard], also: Sequence[Heard], clips: Sequence[Heard]
) -> list[str]:
    """Raise UsageError if `clips` sound like the word of `takes`, and `also`, recordings of it, do not.

    Without `also` there is nothing to compare clips with; then a note is returned if they sound like the word.
    Clips set the word off by their nature, and takes that were missed are unlike the others by theirs. So both are
    given to heads as what is not the word: those that still sound like it when left out are it.
    """
    if len(takes) < LEAST_ALIKE or len(clips) < LEAST_ALIKE:
        return []
    alike = _alike(bank, n_bins, takes, [*clips, *also])
    of_clips, of_also = sum(alike[: len(clips)]), sum(alike[len(clips) :])
    if of_clips < max(LEAST_ALIKE, len(clips) / 2):
        return []
    sounding = f"{of_clips} of {len(clips)} sounds of --not sound like the word"
    if not also:
        return [f"{sounding}: play them, and give those that are the word with --also instead"]
    if of_also < len(also) / 2:
        raise UsageError(
            f"{sounding}, and {of_also} of {len(also)} takes of --also do, expected the reverse; check whether --also "
            "and --not are the wrong way round"
        )
    return []


def _alike(bank: Bank, n_bins: int, takes: Sequence[Heard], others: Sequence[Heard]) -> list[bool]:
    """Which of the others a head takes for the word that was taught all but them as what is not the word."""
    takes = [replace(one, take=i) for i, one in enumerate(takes)]
    others = [replace(one, take=len(takes) + i) for i, one in enumerate(others)]
    teacher = Teacher(bank, takes, n_bins, np.random.default_rng(0), others)
    scores = np.zeros(len(takes) + len(others))
    parts = min(PARTS, len(takes))
    for part in range(parts):
        left_out = [*takes[part::parts], *others[part::parts]]
        head = teacher.without([one.take for one in left_out], [])
        for one in left_out:
            scores[one.take] = clip_score(head.score(one.vectors))
    usual = float(np.quantile(scores[: len(takes)], LOWER_QUARTILE))
    return [bool(score >= usual) for score in scores[len(takes) :]]
