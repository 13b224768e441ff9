"""Recordings of a word to a model that hears it, and a report of what is to be expected of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np

from ..artefact.store import find_model
from ..audio import read_mono
from ..config import SAMPLE_RATE
from ..data.word_folders import composed
from ..errors import AudioError, ModelError, UsageError, install_hint
from ..files import check_writable
from ..json_form import to_json
from ..words import NOT_WORDS
from .bank import OWN, Bank, Stretch, Trunk, bank_of_size, read_bank, size_of_trunk
from .head import THRESHOLD, Head, OwnWord
from .improve import CLIPS, MIXED_UP, Improvement, Mistakes, check_not_mixed_up, compare, new_takes, read_clips
from .learn import Heard, Teacher, hear, hear_clips, hear_variants, n_bins_for, voices_weight
from .near import near_phrases
from .predict import RATES, Evidence, Expected, expected, gather, logit_for, n_parts
from .say import LONGEST_TEXT, Say, spoken
from .takes import Take, read_takes, sound_files
from .thorough import Progress, ThoroughTeacher, fingerprint_of
from .vary import Surroundings, in_noise

NOISE_DRAWS = 4
"""How many draws of noise at 10 dB are mixed with each take, to count misses in noise."""
NOISE_SNR_DB = 10.0
MISFIT_RATE = 10.0
"""A take that its own word would not find at so many false alarms per hour does not fit the others."""
LEAST_MISFITS = 3
"""So many misfits, and at least half of the takes, mean that the recordings are of different words."""
LENGTHS = (0.5, 1.8)
"""A take's length against the median, outside of which it is set aside: half a word, or more than one."""
SHORT_S = 0.35
OFTEN_PER_HOUR, COMMON_PER_HOUR = 1.0, 3.0
"""From which on it is noted how often a word is said, and that it is common, as *home* or *side* is."""
MOST_TAKES = 2000
FIRED_AT = 10
"""Rows before an event in which the words end that it is of."""
FIRES_AT = 8
"""Phrases that are told at which a word fires."""
THOROUGH_TAKES = 1000
"""That synthetic voices say for a thorough model."""
RATE, RATE_LIMITS = 0.5, (0.01, 100.0)
"""False alarms per hour, if no rate is asked for, and the lowest and highest that can be."""


@dataclass(frozen=True)
class Report:
    """What came of an enrolment. `expected` has error rates by rising threshold; `chosen` is the model's threshold.

    `takes` counts recorded takes, `spoken` those of synthetic voices; misses are counted on recorded takes if there are
    any. `passed_over` names files that were not used, with the reason. `misfits` are recordings that do not sound like
    the others. `fires_at` lists phrases of other people that set the word off. `notes` are pieces of advice, each one
    sentence. `improvement` compares the model with the one that it is to replace; if it is worse, that one stays, and
    `path` is None.
    """

    word: str
    takes: int
    spoken: int
    seconds: float
    chosen: Expected
    expected: tuple[Expected, ...]
    passed_over: dict[str, str]
    misfits: tuple[str, ...]
    fires_at: tuple[str, ...]
    notes: tuple[str, ...]
    path: Path | None = None
    improvement: Improvement | None = None


@dataclass(frozen=True)
class Enrolled:
    """A word with its head."""

    own_word: OwnWord
    report: Report


@dataclass(frozen=True)
class Request:
    """A word that can be enrolled: the artefact to write, the bank, and the words that are in the artefact before.

    `mistakes` are those of a model that is to be made better; `keeps_better` is whether it stays if it is not.
    """

    word: str
    path: Path
    bank: Bank
    others: tuple[OwnWord, ...]
    false_alarms_per_hour: float
    mistakes: Mistakes | None = None
    keeps_better: bool = False


def enroll(
    word: str,
    recordings: str | Path | Sequence[str | Path] = (),
    out: str | Path | None = None,
    *,
    say: Say | bool = False,
    false_alarms_per_hour: float | None = None,
    negatives: Sequence[str | Path] = (),
    add_to: str | Path | None = None,
    improve: str | Path | None = None,
    also: Sequence[str | Path] = (),
    not_: Sequence[str | Path] = (),
    thorough: bool = False,
    size: str | None = None,
    bank: str | Path | None = None,
    seed: int = 0,
) -> Report:
    """Make a model that hears `word`, and estimate its error rates before it is used.

    `recordings` are sound files, or folders of them, in any format; each contains the word once, or several times with
    pauses between. With `say`, synthetic voices say the word too, or alone if there are no recordings. `out` is the
    artefact to write (default: WORD.onnx), which is written only at the end. `negatives` are files or folders of sound
    without the word, in addition to the package's bank. With `add_to`, an artefact of `enroll`, the new word is added
    to the words of that artefact. `false_alarms_per_hour` is 0.5 if it is not given.

    With `improve`, an artefact of `enroll` that hears `word`, the word is made again from its `recordings`, from more
    of them in `also`, and against the sounds in `not_`, which set it off: files or folders. The report compares both
    models. The new one replaces the old one unless it is worse in anything, or is written to another `out`. If the
    rate of false alarms is not given, it is that of the old one.

    A `thorough` model takes minutes instead of seconds, and hears more in noise. What was reached is kept beside the
    artefact until it is written, so that the same call goes on where a killed one ended.

    `size` is that of the network under the word: `base` (the default), or `micro`, a tenth of it, which hears less. A
    word that is added to a model, or made better, has the model's.

    Raises UsageError for a word or recordings that cannot be used, DataError for a missing or damaged bank, ModelError
    for an artefact to which words cannot be added.
    """
    sources = [recordings] if isinstance(recordings, (str, Path)) else recordings
    asked = check_request(word, out, false_alarms_per_hour, add_to, bank, improve, also, not_, size)
    voices = (Say() if say is True else say) or None
    return fulfil(asked, sources, voices, negatives, seed, Progress(partly(asked.path)) if thorough else None)


def fulfil(
    asked: Request,
    recordings: Sequence[str | Path],
    say: Say | None = None,
    negatives: Sequence[str | Path] = (),
    seed: int = 0,
    thorough: Progress | None = None,
) -> Report:
    """What `enroll` does after checking a request."""
    if asked.mistakes and not recordings and say is None:
        raise UsageError(
            "found no recordings, expected those that the model was made from, or --say; a model does not contain them"
        )
    made = learn(
        asked.word, recordings, asked.bank, asked.false_alarms_per_hour, say, negatives, seed, asked.mistakes, thorough
    )
    compared = made.report.improvement
    stays = compared is not None and bool(compared.worse) and asked.keeps_better
    if not stays:
        words = {word.word: word for word in (*asked.others, made.own_word)}
        _ship().write_model(asked.path, asked.bank, list(words.values()))
    if thorough:
        thorough.forget()
    return made.report if stays else replace(made.report, path=asked.path)


def partly(path: Path) -> Path:
    """Where the training of a thorough model is kept until the model is written."""
    return path.with_name(f"{path.name}.partly.npz")


def check_request(
    word: str,
    out: str | Path | None = None,
    false_alarms_per_hour: float | None = None,
    add_to: str | Path | None = None,
    bank: str | Path | None = None,
    improve: str | Path | None = None,
    also: Sequence[str | Path] = (),
    not_: Sequence[str | Path] = (),
    size: str | None = None,
) -> Request:
    """Check what can be checked before there are recordings, so that nobody records in vain; raises as `enroll`."""
    name = check_word(word)
    low, high = RATE_LIMITS
    if false_alarms_per_hour is not None and not low <= false_alarms_per_hour <= high:
        raise UsageError(f"found {false_alarms_per_hour!r} false alarms per hour, expected {low:g} to {high:g}")
    _check_improvement(improve, add_to, also, not_)
    ship = _ship()
    path = Path(out or improve or f"{name.replace(' ', '-')}.onnx")
    check_writable(path)
    source = add_to or improve
    ground = ground_of(bank, size, [source] if source else [])
    others = ship.read_words(find_model(source, "stream"), ground) if source else []
    before = next((other for other in others if other.word == name), None)
    if before and add_to:
        raise UsageError(f"{add_to}: already hears {name!r}, expected another word; make it again without --add")
    if improve is None:
        return Request(name, path, ground, tuple(others), false_alarms_per_hour or RATE)
    if before is None:
        known = ", ".join(other.word for other in others)
        raise UsageError(f"{improve}: does not hear {name!r}, expected one of its words: {known}")
    rate = false_alarms_per_hour or float(before.facts.get("false_alarms_per_hour", RATE))
    mistakes = Mistakes(before, also, not_)
    return Request(name, path, ground, tuple(others), rate, mistakes, path.resolve() == Path(improve).resolve())


def _check_improvement(
    improve: str | Path | None, add_to: str | Path | None, also: Sequence[str | Path], not_: Sequence[str | Path]
) -> None:
    """Raise UsageError where what is to make a model better is not all there."""
    if improve is None:
        if also or not_:
            raise UsageError("found --also or --not without --improve, expected them with it; add --improve MODEL")
    elif add_to:
        raise UsageError("found --improve and --add, expected one of them; improve the model and then add a word")
    elif not (also or not_):
        raise UsageError("found --improve alone, expected what went wrong: --also, --not, or both")
    sound_files(also, "recordings of the word", {})
    sound_files(not_, CLIPS, {})


def ground_of(bank: str | Path | None, size: str | None = None, models: Sequence[str | Path] = ()) -> Bank:
    """The bank at a path, or the package's: with the trunk of the first of `models`, or else of a size.

    Raises UsageError for a size beside one of the others, DataError and ModelError for what cannot be read.
    """
    if size and (bank or models):
        raise UsageError("found --size with --bank, --add or --improve, which have a size; leave it out")
    if bank:
        return read_bank(Path(bank))
    if models:
        size = size_of_trunk(_ship().trunk_of(find_model(models[0], "stream")))
    return read_bank(bank_of_size(size) if size else None)


def combine(models: Sequence[str | Path], out: str | Path, bank: str | Path | None = None) -> list[str]:
    """Write one artefact with the words of several artefacts of `enroll`, and return these words.

    Raises UsageError for fewer than two or a word that is in two, ModelError for an artefact of another kind or trunk.
    """
    if len(models) < 2:
        raise UsageError(f"found {len(models)} model to combine, expected two or more")
    ship = _ship()
    check_writable(Path(out))
    ground = ground_of(bank, None, models)
    words = [word for model in models for word in ship.read_words(find_model(model, "stream"), ground)]
    ship.write_model(Path(out), ground, words)
    return [word.word for word in words]


def check_word(word: str) -> str:
    """`word` as a label. Raises UsageError if it is empty, a letter, longer than a phrase, or means something else."""
    name = " ".join(composed(word).split())
    if not any(letter.isalnum() for letter in name):
        raise UsageError(f"found the word {word!r}, expected one with letters in it")
    if len(name) == 1:
        raise UsageError(f"found the word {word!r}, expected more than one letter: it is too short to recognise")
    if len(name) > LONGEST_TEXT:
        raise UsageError(f"found a word of {len(name)} characters, expected {LONGEST_TEXT} at most; shorten it")
    if name in NOT_WORDS:
        raise UsageError(f"found the word {word!r}, which is the label for everything else; expected another name")
    if not name.isprintable() or any(sign in name for sign in ",/\\"):
        raise UsageError(f"found the word {word!r}, expected no commas, slashes or invisible characters")
    return name


def learn(
    word: str,
    recordings: Sequence[str | Path],
    bank: Bank,
    false_alarms_per_hour: float,
    say: Say | None = None,
    negatives: Sequence[str | Path] = (),
    seed: int = 0,
    mistakes: Mistakes | None = None,
    thorough: Progress | None = None,
) -> Enrolled:
    """The head of a word and its report; no model is written."""
    passed_over: dict[str, str] = {}
    negative_files = sound_files(negatives, "sound without the word", passed_over)
    rng = np.random.default_rng(seed)
    recorded = _recorded(word, recordings, passed_over) if recordings or say is None else []
    also, clips = _learnt_from(word, mistakes, recorded, passed_over) if mistakes else ([], [])
    recorded += also
    if say and thorough:
        say = replace(say, takes=round(THOROUGH_TAKES * voices_weight(len(recorded))))
    voiced, silent = spoken(word, say, rng) if say else ([], {})
    near = near_phrases(word, say, rng, silent) if say and thorough else []
    trunk = Trunk(bank)
    bank, unheard = _with_negatives(bank, trunk, negative_files)
    study = study_of(bank, trunk, recorded, voiced, rng, clips, near, thorough)
    notes = _check_folders(study, len(recorded) or len(voiced), len(also), bank) if mistakes else []
    head, evidence = study.head, study.evidence
    logit = logit_for(evidence, false_alarms_per_hour)
    misfits = _misfits(recorded, evidence, notes) if recorded else ()
    points = [
        expected(evidence, at, logit)
        for at in sorted({logit_for(evidence, rate) for rate in (*RATES, false_alarms_per_hour)})
    ]
    chosen = next(point for point in points if point.threshold == THRESHOLD)
    improvement = _compared(mistakes, bank, study, len(recorded), len(also), chosen, logit) if mistakes else None
    if improvement and notes:
        improvement = replace(improvement, worse=(*improvement.worse, MIXED_UP))
    report = Report(
        word,
        len(recorded),
        len(voiced),
        float(np.median([take.seconds for take in recorded or voiced])),
        chosen,
        tuple(points),
        {**passed_over, **silent, **unheard},
        misfits,
        fires_at(bank, evidence),
        (*notes, *_notes(word, recorded, voiced, chosen, bank)),
        improvement=improvement,
    )
    facts = _facts(report, bank, head, false_alarms_per_hour)
    own_word = OwnWord(word, replace(head, bias=head.bias - logit), THRESHOLD, facts)
    return Enrolled(own_word, report)


def _learnt_from(
    word: str, mistakes: Mistakes, recorded: Sequence[Take], passed_over: dict[str, str]
) -> tuple[list[Take], list[Take]]:
    """New takes, and clips that set the word off."""
    unused: dict[str, str] = {}
    found = _recorded(word, mistakes.also, unused) if mistakes.also else []
    passed_over |= unused
    also = new_takes(found, recorded, passed_over)
    if mistakes.also and not also:
        raise UsageError("found no take in --also that is not among the recordings too, expected new ones; add some")
    return also, read_clips(mistakes.not_, [*recorded, *also], passed_over)


def _check_folders(study: Study, n_asked: int, n_also: int, bank: Bank) -> list[str]:
    """Notes on the folders of new takes and of clips. Raises UsageError if they seem to be the wrong way round."""
    takes = study.plain[:n_asked]
    first = len(takes) - n_also
    return check_not_mixed_up(bank, len(study.head.weights), takes[:first], takes[first:], study.clips)


def _compared(
    mistakes: Mistakes, bank: Bank, study: Study, n_recorded: int, n_also: int, chosen: Expected, logit: float
) -> Improvement:
    also = study.plain[n_recorded - n_also : n_recorded]
    return compare(mistakes, bank, study.evidence, also, study.clips, chosen, logit)


@dataclass(frozen=True)
class Study:
    """The head of a word, and what heads that knew less of it say of what they did not know.

    `plain` are the takes as they were recorded, `clips` the clips, as the trunk hears them.
    """

    head: Head
    evidence: Evidence
    plain: Sequence[Heard] = ()
    clips: Sequence[Heard] = ()


def study_of(
    bank: Bank,
    trunk: Trunk,
    recorded: Sequence[Take],
    voiced: Sequence[Take],
    rng: np.random.Generator,
    clips: Sequence[Take] = (),
    near: Sequence[Take] = (),
    thorough: Progress | None = None,
) -> Study:
    """Train on recorded takes and on those of voices, and against clips and takes of what is near the word.

    Misses are of recorded takes, if there are any. Every head knows what is near; it is not asked about it.
    """
    takes = [*recorded, *voiced]
    around = Surroundings(bank.noises, bank.speech)
    heard = hear(trunk, recorded, voiced, around, rng, thorough=thorough is not None)
    heard_clips = hear_clips(trunk, clips, len(takes), around, rng)
    heard_near = hear_clips(trunk, near, len(takes) + len(clips), around, rng)
    asked = recorded or voiced
    speakers = [f"take {i}" for i in range(len(recorded))] + [take.name for take in voiced]
    n_bins = n_bins_for(takes, bank.hop / SAMPLE_RATE)
    if thorough:
        n_heads = 1 + n_parts(speakers, len(clips))
        told_apart = fingerprint_of([*recorded, *clips], [*voiced, *near])
        teacher: Teacher = ThoroughTeacher(
            bank, heard, n_bins, rng, heard_clips, heard_near, thorough, n_heads, told_apart
        )
    else:
        teacher = Teacher(bank, heard, n_bins, rng, heard_clips, heard_near)
    head = teacher.learn()
    plain, noisy = heard[: len(takes)], _in_noise(trunk, asked, bank, rng)
    evidence = gather(bank, teacher, plain, noisy, speakers, heard_clips[: len(clips)])
    return Study(head, replace(evidence, clean=evidence.clean[: len(asked)]), plain, heard_clips[: len(clips)])


def _recorded(word: str, recordings: Sequence[str | Path], passed_over: dict[str, str]) -> list[Take]:
    """The takes in recordings; what was not used goes into `passed_over`. Raises UsageError if there is none."""
    found = read_takes(recordings)
    takes, odd = _of_usual_length(found.takes)
    passed_over |= {**found.passed_over, **odd}
    if not takes:
        name, reason = next(iter(passed_over.items()))
        others = f"; and {len(passed_over) - 1} more" if len(passed_over) > 1 else ""
        raise UsageError(f"found no take of {word!r} ({name}: {reason}{others}), expected the word said aloud")
    if len(takes) > MOST_TAKES:
        raise UsageError(f"found {len(takes)} takes of {word!r}, expected at most {MOST_TAKES}; leave some out")
    return takes


def _of_usual_length(takes: Sequence[Take]) -> tuple[list[Take], dict[str, str]]:
    """Takes about as long as most, and why the others are none."""
    if len(takes) < 3:
        return list(takes), {}
    median = float(np.median([take.seconds for take in takes]))
    low, high = (limit * median for limit in LENGTHS)
    kept = [take for take in takes if low <= take.seconds <= high]
    odd = {
        take.name: f"lasts {take.seconds:.2f} s, where most takes last {median:.2f} s"
        for take in takes
        if not low <= take.seconds <= high
    }
    return kept, odd


def _with_negatives(bank: Bank, trunk: Trunk, files: Sequence[Path]) -> tuple[Bank, dict[str, str]]:
    """The bank with a user's own hours in it, and why files are not."""
    vectors, stretches = [bank.vectors], list(bank.stretches)
    at = len(bank.vectors)
    passed_over: dict[str, str] = {}
    for file in files:
        try:
            found = trunk.vectors(read_mono(file))
        except AudioError as error:
            passed_over[str(file)] = str(error)
            continue
        if len(found):
            vectors.append(found)
            stretches.append(Stretch(OWN, at, at + len(found)))
            at += len(found)
    if files and len(passed_over) == len(files):
        name, reason = next(iter(passed_over.items()))
        raise UsageError(f"{name}: cannot be learnt from ({reason}), expected sound without the word; leave it out")
    if len(vectors) == 1:
        return bank, passed_over
    return replace(bank, vectors=np.concatenate(vectors), stretches=tuple(stretches)), passed_over


def _in_noise(trunk: Trunk, takes: Sequence[Take], bank: Bank, rng: np.random.Generator) -> list[Heard]:
    jobs = [
        (i, in_noise(take, bank.noises[int(rng.integers(len(bank.noises)))], NOISE_SNR_DB, rng))
        for i, take in enumerate(takes)
        for _ in range(NOISE_DRAWS)
    ]
    return hear_variants(trunk, jobs)


def _misfits(takes: Sequence[Take], evidence: Evidence, notes: Sequence[str] = ()) -> tuple[str, ...]:
    """Recordings that heads made without them do not take for the word. Raises UsageError if they are too many.

    If there are `notes` on the folder of what is not the word, that is why.
    """
    at = logit_for(evidence, MISFIT_RATE)
    names = [take.name for take, logit in zip(takes, evidence.clean, strict=True) if logit < at]
    if len(takes) > 3 and len(names) >= max(LEAST_MISFITS, len(takes) / 2):
        found = (
            f"{len(names)} of {len(takes)} recordings do not sound like the others, expected the same word in all of "
            "them; listen to them and leave out those with another word"
        )
        raise UsageError(notes[0] if notes else found)
    return tuple(dict.fromkeys(names))


def fires_at(bank: Bank, evidence: Evidence) -> tuple[str, ...]:
    """The words that are said where the word seems to be, in the bank's English; those of the surest first."""
    rows = np.array([row for row, _ in bank.words])
    said = []
    for row in evidence.surest:
        first, behind = np.searchsorted(rows, (row - FIRED_AT, row + 1))
        said.append(" ".join(word for _, word in bank.words[first:behind][-2:]))
    return tuple(dict.fromkeys(text for text in said if text))[:FIRES_AT]


def _notes(word: str, takes: Sequence[Take], voiced: Sequence[Take], chosen: Expected, bank: Bank) -> list[str]:
    notes = []
    said = bank.words_per_hour.get(word.casefold(), 0.0)
    if said >= OFTEN_PER_HOUR:
        what = "a common word, said" if said >= COMMON_PER_HOUR else "said"
        notes.append(f"{word!r} is {what} {said:.1f} times per hour of speech, and the model will fire each time")
    if float(np.median([take.seconds for take in takes or voiced])) < SHORT_S:
        notes.append("the word is short: three syllables or more, or a phrase, are recognised far better")
    clipped = sum(take.is_clipped for take in takes)
    if clipped:
        notes.append(f"{clipped} of {len(takes)} takes are clipped: record farther away or turn the microphone down")
    if voiced and not takes:
        notes.append("misses were counted on synthetic voices, and people are missed more often: add a few recordings")
    elif len(takes) < 5:
        notes.append("so few takes say little about other days and other people: ten or more are better")
    if chosen.misses and chosen.misses.rate > 0.3:
        notes.append("the word is often missed at this rate of false alarms: more recordings or a longer word help")
    return notes


def _facts(report: Report, bank: Bank, head: Head, rate: float) -> dict[str, object]:
    """What stands of a word in its artefact."""
    units = {"units": len(head.hidden.gains)} if head.hidden else {}
    improved = {"improved": True} if report.improvement else {}
    return {
        **improved,
        "false_alarms_per_hour": rate,
        "word": report.word,
        "takes": report.takes,
        "spoken": report.spoken,
        "bins": len(head.weights),
        **units,
        "trunk_sha256": bank.trunk_sha256,
        "threshold": THRESHOLD,
        "expected": [to_json(point) for point in report.expected],
    }


def _ship() -> ModuleType:
    """The room that writes artefacts. Raises ModelError where the extra that it needs is not installed."""
    try:
        from . import ship  # noqa: PLC0415  (needs an extra)
    except ImportError as error:
        raise ModelError(f"own words need onnx, which is not installed; {install_hint('enroll')}") from error
    return ship
