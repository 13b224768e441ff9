"""Thresholds for your own room: moved from the model's only as far as the room and spoken examples justify.

Ten minutes in which nothing was reported still allow 22 false alarms per hour (the exact Poisson interval), so a room
alone never shows that a threshold may be lowered. A label keeps the model's threshold unless it fired in the room, or
missed an example; and an example lowers it by LARGEST_STEP in logit at most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..artefact.runtime import Classifier, Probabilities, StreamModel
from ..audio import find_sound_files, is_sound_name
from ..config import DetectorConfig
from ..errors import AudioError, DataError, KwsError
from ..json_form import INLINE
from ..words import is_word
from .clips import rounded, share_interval
from .metrics import FalseAlarms, Interval
from .rates import false_alarms, threshold_for
from .streams import (
    RULES,
    Posteriors,
    Recording,
    Stretch,
    logit,
    posteriors_of,
    read_manifest,
    score,
    sigmoid,
    sweep,
    threshold_grid,
)

MIN_EXAMPLES = 3
"""The fewest examples of a label that can move its threshold."""

LARGEST_STEP = 1.0
"""How far, in logit, examples may lower a threshold; on development streams, false alarms doubled at this distance."""

RULE = RULES["tiny-kws"]


@dataclass(frozen=True)
class Choice:
    """A label's threshold, and the reason for it."""

    threshold: float
    reason: str


@dataclass(frozen=True)
class Evidence:
    """What room and examples say about one label; `thresholds` (n,) rise and include the model's own, `start`."""

    thresholds: Sequence[float]
    room_alarms: Sequence[int]
    """False alarms in the room at each threshold."""
    example_scores: Sequence[float]
    """For each example the highest threshold at which it is found; 0 if it never is."""
    start: float


@dataclass(frozen=True)
class LabelExpectation:
    """A label's threshold and the model's, the reason, and how many of its examples are missed."""

    threshold: float
    model_threshold: float
    examples: int
    misses: int
    reason: str


@dataclass(frozen=True)
class Expectation:
    """What to expect of calibrated settings.

    Misses are counted on each example with thresholds from the others, false alarms on each half of the room with
    thresholds from the other half. The miss rate is None without examples.
    """

    rate_per_hour_asked: float
    room_hours: float
    examples: int
    misses: int
    miss_rate: float | None
    miss_rate_interval: Interval | None
    by_label: dict[str, LabelExpectation]
    alarms: FalseAlarms = field(metadata=INLINE)


def read_examples(
    path: Path, model: StreamModel | Classifier, config: DetectorConfig, on_error: Callable[[KwsError], None]
) -> list[Posteriors]:
    """Spoken examples, each file run from its start: a folder LABEL/*.wav, one word per file, or a JSON-lines manifest.

    Examples of words that `config` does not listen for are skipped. `on_error` is called for files and folders that
    cannot be used. Raises DataError if there are none at all.
    """
    if path.is_dir():
        heard = _examples_of_folder(path, model, config, on_error)
    else:
        recordings, problems = read_manifest(path, model.labels, config.words)
        for problem in problems:
            on_error(DataError(problem))
        heard = posteriors_of(model, recordings, config, on_error)
    if not any(one.recording.words for one in heard):
        raise DataError(f"{path}: holds no examples that can be used, expected LABEL/*.wav or a manifest of keywords")
    return heard


def _examples_of_folder(
    path: Path, model: StreamModel | Classifier, config: DetectorConfig, on_error: Callable[[KwsError], None]
) -> list[Posteriors]:
    heard = []
    loose = [file for file in path.iterdir() if is_sound_name(file.name)]
    if loose:
        on_error(DataError(f"{loose[0]}: is not in a folder named after its word, expected {path}/LABEL/*.wav"))
    for folder in sorted(folder for folder in path.iterdir() if folder.is_dir()):
        try:
            recordings = _examples_of_word(folder, words_of(model.labels, DetectorConfig()))
        except (AudioError, DataError) as error:
            on_error(error)
            continue
        if folder.name not in words_of(model.labels, config):
            continue
        for one in posteriors_of(model, recordings, config, on_error):
            word = Stretch(folder.name, 0.0, one.seconds)
            heard.append(replace(one, recording=Recording(one.recording.path, (word,))))
    return heard


def _examples_of_word(folder: Path, words: Sequence[str]) -> list[Recording]:
    if folder.name not in words:
        raise DataError(f"{folder}: is not named after a keyword of the model, expected one of {', '.join(words)}")
    return [Recording(file) for file in find_sound_files(folder)]


def words_of(labels: Sequence[str], config: DetectorConfig) -> list[str]:
    """The words that can be events with a model's labels: those that the settings name, or else all of them."""
    return [label for label in labels if is_word(label) and (not config.words or label in config.words)]


def calibrate(
    labels: Sequence[str],
    room: Sequence[Posteriors],
    examples: Sequence[Posteriors],
    config: DetectorConfig,
    rate_per_hour: float = 1.0,
) -> tuple[DetectorConfig, Expectation]:
    """Settings with a threshold for each word that is listened for, and the error rates to expect.

    `room` holds no keywords; `config` is what the model carries, with the words that count.
    Raises DataError without any sound of the room.
    """
    hours = sum(one.seconds for one in room) / 3600
    if hours == 0:
        raise DataError("found no recording of the room, expected about ten minutes without keywords")
    words = words_of(labels, config)
    allowed = rate_per_hour * hours / len(words)
    evidence = {label: gather(label, room, examples, config) for label in words}
    choices = {label: choose(evidence[label], allowed) for label in words}
    settings = _with_thresholds(config, choices)
    missed = _left_out_misses(evidence, settings, examples, allowed)
    n_examples = sum(map(len, missed.values()))
    misses = sum(map(sum, missed.values()))
    return settings, Expectation(
        rate_per_hour_asked=rate_per_hour,
        room_hours=rounded(hours),
        alarms=false_alarms(_crossed_false_alarms(evidence, room, config, rate_per_hour), hours),
        examples=n_examples,
        misses=misses,
        miss_rate=rounded(misses / n_examples) if n_examples else None,
        miss_rate_interval=share_interval(misses, n_examples) if n_examples else None,
        by_label={
            label: LabelExpectation(
                choice.threshold, evidence[label].start, len(missed[label]), sum(missed[label]), choice.reason
            )
            for label, choice in choices.items()
        },
    )


def gather(label: str, room: Sequence[Posteriors], examples: Sequence[Posteriors], config: DetectorConfig) -> Evidence:
    """Count one label's false alarms in the room, and score its examples, by the detector with that label alone."""
    start = config.thresholds.get(label, config.threshold)
    thresholds = sorted({*threshold_grid().tolist(), start})
    spoken = sweep([_only(label, one) for one in examples], _alone(config, start), RULE, thresholds)
    found = np.array([[hit is not None for one in point.scores for hit in one.hits] for point in spoken])
    scores = (found * np.array(thresholds)[:, None]).max(0)
    return gather_room(label, room, config, Evidence(thresholds, [], scores.tolist(), start))


def gather_room(label: str, room: Sequence[Posteriors], config: DetectorConfig, evidence: Evidence) -> Evidence:
    """The same evidence with the false alarms of this room."""
    quiet = sweep([_only(label, one) for one in room], _alone(config, evidence.start), RULE, evidence.thresholds)
    return replace(evidence, room_alarms=[sum(len(one.false_alarms) for one in point.scores) for point in quiet])


def _alone(config: DetectorConfig, start: float) -> DetectorConfig:
    return replace(config, threshold=start, thresholds={}, words=())


def _only(label: str, one: Posteriors) -> Posteriors:
    """The same with no other keyword than `label`, heard or said."""
    columns = [i for i, name in enumerate(one.labels) if name == label or not is_word(name)]
    words = tuple(word for word in one.recording.words if word.label == label)
    labels = tuple(one.labels[i] for i in columns)
    return replace(one, recording=replace(one.recording, stretches=words), labels=labels, rows=one.rows[:, columns])


def choose(evidence: Evidence, allowed: float) -> Choice:
    """A label's threshold, from the model's on.

    With more than `allowed` false alarms in the room it rises to the lowest threshold without, and on to the middle, in
    logit, between that and the weakest example above it. If the room allows it and an example within LARGEST_STEP is
    missed, it falls to the middle between the weakest such example and the lowest threshold that may be. Otherwise it
    stays. Fewer than MIN_EXAMPLES do not count.

    >>> choose(Evidence([0.3, 0.5, 0.8, 0.9], [4, 2, 1, 0], [0.9, 0.9, 0.9], start=0.5), allowed=0.5)
    Choice(threshold=0.9, reason='raised: it fired in the room')
    """
    index, start = threshold_for(evidence.room_alarms, allowed), evidence.start
    quiet = float(evidence.thresholds[-1 if index is None else index])
    lowest = quiet if quiet > start else max(quiet, float(sigmoid(logit(start) - LARGEST_STEP)))
    enough = len(evidence.example_scores) >= MIN_EXAMPLES
    weakest = min((s for s in evidence.example_scores if s >= lowest and enough), default=None)
    middle = lowest if weakest is None else round(float(sigmoid((logit(lowest) + logit(weakest)) / 2)), 6)
    if index is None:
        return Choice(quiet, "raised to the limit, but still fires in the room")
    if quiet > start:
        return Choice(middle, "raised: it fired in the room")
    if not enough:
        return Choice(start, f"kept: {len(evidence.example_scores)} examples, {MIN_EXAMPLES} needed")
    if weakest is not None and weakest < start:
        return Choice(middle, "lowered: quiet room, examples missed")
    if min(evidence.example_scores) < start:
        return Choice(start, "kept: the missed examples are too weak to lower it")
    return Choice(start, "kept: quiet room, examples found")


def _with_thresholds(config: DetectorConfig, choices: dict[str, Choice]) -> DetectorConfig:
    return replace(config, thresholds={label: choice.threshold for label, choice in choices.items()})


def _left_out_misses(
    evidence: dict[str, Evidence], settings: DetectorConfig, examples: Sequence[Posteriors], allowed: float
) -> dict[str, list[bool]]:
    """For each example, whether it is missed if its label's threshold is chosen on the others."""
    missed: dict[str, list[bool]] = {label: [] for label in evidence}
    for one in examples:
        words = [word for word in one.recording.words if word.label in evidence]
        for i, word in enumerate(words):
            known = evidence[word.label]
            place = len(missed[word.label])
            others = [*known.example_scores[:place], *known.example_scores[place + 1 :]]
            threshold = choose(replace(known, example_scores=others), allowed).threshold
            without = replace(settings, thresholds={**settings.thresholds, word.label: threshold})
            missed[word.label].append(score(one.events(without), words, RULE).hits[i] is None)
    return missed


def _crossed_false_alarms(
    evidence: dict[str, Evidence], room: Sequence[Posteriors], config: DetectorConfig, rate_per_hour: float
) -> int:
    """False alarms on each half of the room with thresholds that were chosen on the other."""
    halves = [[_part(one, part) for one in room] for part in (0, 1)]
    total = 0
    for choosing, counted in (halves, halves[::-1]):
        allowed = rate_per_hour * sum(one.seconds for one in choosing) / 3600 / len(evidence)
        chosen = {
            label: choose(gather_room(label, choosing, config, known), allowed) for label, known in evidence.items()
        }
        settings = _with_thresholds(config, chosen)
        total += sum(len(one.events(settings)) for one in counted)
    return total


def _part(one: Posteriors, part: int) -> Posteriors:
    """The first (0) or the second half of a recording."""
    middle = len(one.rows) // 2
    rows: Probabilities = one.rows[middle:] if part else one.rows[:middle]
    return replace(one, rows=rows, seconds=one.seconds / 2)
