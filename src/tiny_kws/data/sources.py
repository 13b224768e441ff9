"""Where training sound comes from: one file names every source with its licence, counts and use (`sources.toml`)."""

from __future__ import annotations

import csv
import io
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import DataError
from .held_out import noise_source, part_of
from .manifest import Bill
from .material import holds_word

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SOURCES = Path(__file__).with_name("sources.toml")
"""The file with which the published networks were trained."""
USES = ("keywords", "other words", "words", "noise", "rooms", "speech")
"""The task's own recordings; words of which keywords are left out; words of which keywords are taken as such."""
RESTRICTIONS = ("-SA", "-NC", "-ND", "ShareAlike", "NonCommercial", "NoDerivatives")
"""Parts of a licence that rule a recording out for weights that are free for any use."""
COLUMNS = {"other words": {"word"}, "words": {"word"}, "rooms": {"label"}, "speech": {"speaker"}}
"""What the manifest of a source for each use must say beside file and licence.

Speech without the column label has no transcripts, and each recording is left out for that."""
HELD_OUT = 0
"""The third of speakers of speech, noises and rooms that is kept for measurements; see `data.held_out`."""


@dataclass(frozen=True)
class Source:
    """A folder of recordings. `recordings` counts them by licence."""

    name: str
    folder: str
    use: str
    attribution: str
    recordings: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Sources:
    """All sources, and the beginnings of the licences that weights may be trained on; if empty, any licence."""

    sources: tuple[Source, ...]
    licences: tuple[str, ...] = ()

    def of_use(self, use: str) -> list[Source]:
        """The sources for one purpose of USES."""
        return [source for source in self.sources if source.use == use]

    def permits(self, licence: str) -> bool:
        """Whether weights may be trained on a recording of `licence`; on a share-alike one only if on any.

        >>> sources = Sources((), ("CC BY",))
        >>> [sources.permits(licence) for licence in ("CC BY 4.0 (VCTK)", "CC BY-SA 3.0", "CC BY-NC 4.0")]
        [True, False, False]
        """
        if not self.licences:
            return True
        restricted = any(word in licence for word in RESTRICTIONS)
        return not restricted and licence.startswith(self.licences)


@dataclass(frozen=True)
class Recording:
    """A line of a source's manifest. `group` is what must not be divided over training and measurement."""

    path: Path
    file: str
    source: str
    licence: str
    group: str
    word: str = ""
    speaker: str = ""
    text: str = ""
    attribution: str = ""


def read_sources(path: Path = SOURCES) -> Sources:
    """The sources that a file names. Raises DataError if it is not such a file, or names an unknown use."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        sources = tuple(Source(**entry) for entry in content.pop("source"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: names no sources ({error}), expected a file like the package's sources.toml"
        ) from error
    licences = content.pop("licences", [])
    # What is misspelt or out of place must not pass for what is not there: then any licence would do.
    if content:
        raise DataError(
            f"{path}: found the settings {', '.join(content)}, expected licences, and source for each source"
        )
    if not (isinstance(licences, list) and all(isinstance(licence, str) for licence in licences)):
        raise DataError(f"{path}: found the licences {licences!r}, expected a list of strings")
    for source in sources:
        _check(source, path)
    return Sources(sources, tuple(licences))


def _check(source: Source, path: Path) -> None:
    if not all(isinstance(text, str) for text in (source.name, source.folder, source.use, source.attribution)):
        raise DataError(f"{path}: name, folder, use or attribution of {source.name!r} is not text, expected text")
    if source.use not in USES:
        raise DataError(f"{path}: {source.name} has the use {source.use!r}, expected one of {', '.join(USES)}")
    counts = source.recordings
    if not (isinstance(counts, dict) and all(isinstance(count, int) for count in counts.values())):
        raise DataError(f"{path}: {source.name} has the recordings {counts!r}, expected how many by licence")


def gather(
    root: Path, sources: Sources, own: Mapping[str, int], words: Collection[str]
) -> tuple[dict[str, list[Recording]], list[Bill]]:
    """What training may use below `root` beside the task's own clips, by use, and the bill of materials.

    `own` counts the task's own training clips by licence, `words` are those that the task is to hear. A source's line
    in the bill says how many recordings of each licence are used, and how many are left out, by the reason.
    """
    found: dict[str, list[Recording]] = {use: [] for use in USES}
    bills = []
    for source in sources.sources:
        if source.use == "keywords":
            bills.append(_bill(source, own, {}))
            continue
        used, bill = list_source(root, source, sources, words)
        found[source.use] += used
        bills.append(bill)
    return found, bills


def list_source(root: Path, source: Source, sources: Sources, words: Collection[str]) -> tuple[list[Recording], Bill]:
    """What training may use of a source below `root`, and its line in the bill of materials.

    Left out: licences that `sources` does not permit, the third kept for measurements (of noises, rooms and speech),
    of other words those that are keywords or were heard as one, of words those that were heard as another where either
    is a keyword, and speech in which a keyword is or may be said. An absent folder gives none, and says so. Raises
    DataError if there is no manifest that can be read.
    """
    folder = root / source.folder
    if not folder.is_dir():
        return [], _bill(source, {}, {"the folder is missing": sum(source.recordings.values())})
    used, left_out = [], Counter[str]()
    for line in _read_manifest(folder / "manifest.csv", {"file", "licence"} | COLUMNS.get(source.use, set())):
        recording = _recording(folder, source, line)
        reason = _objection(recording, source, sources, line.get("heard", ""), words)
        if reason:
            left_out[reason] += 1
        else:
            used.append(recording)
    return used, _bill(source, Counter(recording.licence for recording in used), left_out)


def credits_csv(sources: Sources, found: Mapping[str, Sequence[Recording]], own: Mapping[str, int]) -> bytes:
    """Whom to credit for weights trained on what `gather` found: source, licence, attribution, number of recordings."""
    counts = Counter((r.source, r.licence, r.attribution) for recordings in found.values() for r in recordings)
    for source in sources.of_use("keywords"):
        counts.update({(source.name, licence, source.attribution): count for licence, count in own.items()})
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["source", "licence", "attribution", "recordings"])
    writer.writerows([*whom, counts[whom]] for whom in sorted(counts))
    return text.getvalue().encode()


def _bill(source: Source, used: Mapping[str, int], left_out: Mapping[str, int]) -> Bill:
    counts = (dict(sorted(count.items())) for count in (used, left_out))
    return Bill(source.name, source.use, source.attribution, source.folder, *counts)


def _recording(folder: Path, source: Source, line: dict[str, str]) -> Recording:
    speaker = line.get("speaker") or line.get("voice") or ""
    label = line.get("label", "")
    group = {"noise": noise_source(line["file"]), "rooms": label}.get(source.use, speaker)
    return Recording(
        path=folder / line["file"],
        file=f"{source.folder}/{line['file']}",
        source=source.name,
        licence=line["licence"],
        group=group,
        word=line.get("word", ""),
        speaker=f"{source.folder}:{speaker}",
        text=label if source.use == "speech" else "",
        attribution=line.get("attribution") or source.attribution,
    )


def _objection(recording: Recording, source: Source, sources: Sources, heard: str, words: Collection[str]) -> str:
    """Why a recording is left out, or nothing."""
    kept = source.use in ("noise", "rooms", "speech") and part_of(recording.group) == HELD_OUT
    is_keyword = bool({recording.word, heard} & set(words))
    speech = source.use == "speech"
    objections = {
        recording.licence.strip() or "no licence": not sources.permits(recording.licence),
        "kept for measurements": kept,
        "a keyword, or heard as one": source.use == "other words" and is_keyword,
        "heard as another word": source.use == "words" and is_keyword and heard not in ("", recording.word),
        "no transcript": speech and not recording.text.strip(),
        "holds a keyword": speech and holds_word(recording.text, words),
    }
    return next((reason for reason, holds in objections.items() if holds), "")


def _read_manifest(path: Path, columns: set[str]) -> Sequence[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error}), expected one line per recording") from error
    missing = sorted(columns - set(lines[0] if lines else ()))
    if missing:
        raise DataError(f"{path}: has no column {', '.join(missing)}, expected {', '.join(sorted(columns))}")
    odd = next((line for line in lines if None in line or None in line.values()), None)
    if odd is not None:
        raise DataError(f"{path}: the line of {odd['file']} has more or fewer values than the first, expected as many")
    return lines
