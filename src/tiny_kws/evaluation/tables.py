"""Tables of what was measured: rows of text, for a card or a terminal to draw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .compare import Comparison
from .metrics import (
    Accuracy,
    CalledKeywords,
    ClipMetrics,
    FalseAlarms,
    Interval,
    KeywordFree,
    OperatingDetails,
    RatePoint,
    Recall,
    Robustness,
    StreamMetrics,
    TraitCounts,
    UnknownRecall,
)


@dataclass(frozen=True)
class Table:
    """Rows of text under the names of their columns."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


Block = str | Table
"""A paragraph, of one line or several, or a table."""


def markdown(blocks: Iterable[Block]) -> str:
    """Blocks as Markdown, with a blank line between them.

    >>> print(markdown(["Found:", Table(("word", "clips"), [("stop", "3")])]))
    Found:
    <BLANKLINE>
    | word | clips |
    |---|---|
    | stop | 3 |
    """
    return "\n\n".join(
        _markdown_table(block) if isinstance(block, Table) else block.replace("* ", "\\* ") for block in blocks
    )


def _markdown_table(table: Table) -> str:
    rule = "|" + "---|" * len(table.columns)
    lines = [[cell.replace("|", "\\|") for cell in row] for row in (table.columns, *table.rows)]
    head, *rows = (f"| {' | '.join(cells)} |" for cells in lines)
    return "\n".join([head, rule, *rows])


def metrics_table(metrics: ClipMetrics) -> list[Block]:
    """An evaluation on clips: the totals, and a table by label."""
    scores = metrics.scores
    totals = (
        f"{metrics.model.name} on {metrics.data.name}, {metrics.data.clips} clips:\n"
        f"accuracy {_share(scores.accuracy, scores.accuracy_interval)}, "
        f"macro-F1 {_share(scores.macro_f1, scores.macro_f1_interval)}, "
        f"expected calibration error {scores.calibration_error:.3f}"
    )
    rows = [
        (label, f"{100 * row.precision:.1f}", f"{100 * row.recall:.1f}", f"{100 * row.f1:.1f}", str(row.support))
        for label, row in scores.per_class.items()
    ]
    return [totals, Table(("label", "precision", "recall", "F1", "clips"), rows)]


def _share(share: float, interval: Interval) -> str:
    low, high = interval
    return f"{100 * share:.2f} % (95 % interval {100 * low:.2f} to {100 * high:.2f})"


def unknown_table(unknown: UnknownRecall) -> list[Block]:
    """Recall of unknown by word; words that no training heard come last and say so."""
    never = set(unknown.left_out)
    words = sorted(unknown.by_word, key=lambda word: (word in never, word))
    rows = [_recall_row(f"{word} (never heard)" if word in never else word, unknown.by_word[word]) for word in words]
    for name, recall in (
        ("all words heard in training", unknown.heard),
        ("all words never heard", unknown.never_heard),
    ):
        if recall.clips:
            rows.append(_recall_row(name, recall))
    return [Table(("word of unknown", "recall", "95 %", "clips"), rows)]


def _recall_row(name: str, row: Recall) -> tuple[str, ...]:
    assert row.recall is not None
    assert row.recall_interval is not None
    return (name, f"{100 * row.recall:.2f} %", _spread(row.recall_interval), str(row.clips))


def _accuracy_row(name: str, row: Accuracy) -> tuple[str, ...]:
    return (name, f"{100 * row.accuracy:.2f} %", _spread(row.accuracy_interval), str(row.clips))


def _spread(interval: Interval, digits: int = 2) -> str:
    """An interval of a share, in percent."""
    low, high = interval
    return f"{100 * low:.{digits}f} to {100 * high:.{digits}f}"


def robustness_table(found: Robustness) -> list[Block]:
    """Accuracy by condition, by room, and by kind of noise at each SNR."""
    rows = [_accuracy_row(condition_name(name), row) for name, row in found.conditions.items()]
    rows += [_accuracy_row(f"room: {room}", row) for room, row in found.by_room.items()]
    blocks: list[Block] = [Table(("condition", "accuracy", "95 %", "clips"), rows)]
    if found.by_noise:
        names = map(condition_name, next(iter(found.by_noise.values())))
        kinds = [_kind_row(kind, list(row.values())) for kind, row in by_accuracy(found.by_noise)]
        blocks.append(Table(("accuracy in", *names, "mean", "clips each"), kinds))
    return blocks


def _kind_row(kind: str, row: Sequence[Accuracy]) -> tuple[str, ...]:
    shares = [100 * one.accuracy for one in row]
    return (kind, *(f"{share:.1f}" for share in shares), f"{np.mean(shares):.1f}", str(row[0].clips))


def windows_table(found: KeywordFree) -> list[Block]:
    """How many windows without keywords are taken for one, by threshold."""
    rows: list[tuple[str, ...]] = []
    if found.speech:
        rows += _window_rows("speech without keywords", "speakers", found.speech)
    if found.noise:
        rows += _window_rows("noise", "sources", found.noise)
    return [Table(("windows mistaken for a keyword", "threshold", "share", "95 %", "out of"), rows)]


def _window_rows(title: str, groups: str, found: CalledKeywords) -> Sequence[tuple[str, ...]]:
    of = f"{found.windows} of {found.groups} {groups}"
    rows = []
    for name, row in found.called_keyword.items():
        level = f"detector's {found.detector.threshold:g}" if name == "detector" else name
        spread = _spread(row.share_interval, 3) if row.share_interval else f"one of the {groups}"
        rows.append((title, level, f"{100 * row.share:.3f} %", spread, of))
    return rows


def by_accuracy(by_noise: Mapping[str, Mapping[str, Accuracy]]) -> list[tuple[str, Mapping[str, Accuracy]]]:
    """Kinds of noise, the easiest first."""
    return sorted(by_noise.items(), key=lambda item: (-sum(row.accuracy for row in item[1].values()), item[0]))


def condition_name(name: str) -> str:
    """The name of a condition in tables and figures."""
    if name.startswith("snr"):
        return f"{name.removeprefix('snr')} dB"
    return {"room": "in rooms"}.get(name, name)


def comparison_table(comparison: Comparison) -> list[Block]:
    """A comparison, a row for each condition."""
    rows = []
    for name, pair in comparison.conditions.items():
        ratio = "none by A" if pair.error_ratio is None else f"{pair.error_ratio:.3f}"
        p = f"{pair.p:.3f}" if pair.p >= 0.001 else f"{pair.p:.1e}"
        shares = (f"{100 * one.accuracy:.2f}" for one in (pair.a, pair.b))
        rows.append((name, str(pair.clips), *shares, ratio, str(pair.only_a_right), str(pair.only_b_right), p))
    columns = ("condition", "clips", "A %", "B %", "B's errors by A's", "only A right", "only B right", "p (McNemar)")
    return [f"A: {comparison.a}\nB: {comparison.b}", Table(columns, rows)]


def streams_table(metrics: StreamMetrics) -> list[Block]:
    """An evaluation in streams: what it is based on, misses by rate of false alarms, and a table by label."""
    scores = metrics.scores
    facts, held_out = scores.audio, scores.held_out
    blocks: list[Block] = [
        f"{metrics.model.name}, rule {scores.rule.name}: {facts.keywords} keywords of {facts.speakers} speakers in "
        f"{facts.recordings} recordings, {facts.speech_hours:.2f} hours of speech and {facts.noise_hours:.2f} of "
        f"noise; {scores.cpu_s_per_s:.5f} s of CPU per second"
    ]
    if held_out.in_sample:
        blocks += [
            "All recordings share speakers, so thresholds were chosen on the same recordings (in-sample):",
            *_rates_table(held_out.rates),
        ]
    else:
        blocks += [
            "Thresholds chosen on one half of the speakers, reported on the other, both ways:",
            *_rates_table(held_out.rates),
            "Thresholds chosen on the same recordings (in-sample):",
            *_rates_table(scores.everything.rates),
        ]
    rate = f"{scores.operating_point.rate_per_hour:g}"
    details = scores.operating_point.details
    if details is None:
        return [*blocks, f"No threshold gives as few as {rate} false alarms per hour."]
    return [*blocks, f"At {rate} per hour, with the thresholds of the first table:", *_operating_blocks(details)]


def _rates_table(rates: Sequence[RatePoint]) -> list[Block]:
    columns = ("per hour, aimed at", "threshold", "missed", "95 %", "false alarms", "per hour", "95 %")
    blocks: list[Block] = [Table(columns, [_rate_row(point) for point in rates])]
    if not all(point.resolvable for point in rates):
        blocks.append(
            "* too little sound to tell this from a lower rate: no false alarms where the threshold was chosen"
        )
    return blocks


def _rate_row(point: RatePoint) -> tuple[str, ...]:
    wanted = f"{point.rate_per_hour:g}{'' if point.resolvable else ' *'}"
    counts = point.counts
    if counts is None:
        return (wanted, "not reached", "", "", "", "", "")
    thresholds = ", ".join(f"{threshold:.4f}" for threshold in point.thresholds if threshold is not None)
    missed = "" if counts.miss_rate is None else f"{100 * counts.miss_rate:.1f} %"
    spread = _spread(counts.miss_rate_interval, 1) if counts.miss_rate_interval else "one speaker"
    return (wanted, thresholds, missed, spread, *_alarm_cells(counts.alarms))


def _alarm_cells(alarms: FalseAlarms) -> tuple[str, str, str]:
    if alarms.false_alarms_per_hour is None or alarms.false_alarms_per_hour_interval is None:
        return (str(alarms.false_alarms), "", "")
    low, high = alarms.false_alarms_per_hour_interval
    return (str(alarms.false_alarms), f"{alarms.false_alarms_per_hour:.2f}", f"{low:.2f} to {high:.2f}")


def _operating_blocks(details: OperatingDetails) -> list[Block]:
    rows = [(label, str(row.words), str(row.misses), str(row.false_alarms)) for label, row in details.by_label.items()]
    lines = []
    for where, alarms in (("speech", details.in_speech), ("noise", details.in_noise)):
        if alarms.false_alarms_per_hour is not None:
            count, rate, spread = _alarm_cells(alarms)
            lines.append(f"false alarms in {where}: {count}, {rate} per hour (95 % interval {spread})")
    if details.confusions:
        pairs = (f"{pair.said} heard as {pair.heard} {pair.count}" for pair in details.confusions)
        lines.append(f"confusions: {', '.join(pairs)}")
    if late := details.latency_from_word_end_s:
        lines.append(
            f"latency from the end of the word: p50 {1000 * late.p50:.0f} ms, p95 {1000 * late.p95:.0f} ms "
            f"({late.hits} hits)"
        )
    blocks: list[Block] = [Table(("label", "words", "missed", "false alarms"), rows)]
    blocks += ["\n".join(lines)] if lines else []
    return [*blocks, *(_trait_table(name, values) for name, values in (details.by_trait or {}).items())]


def _trait_table(name: str, values: Mapping[str, TraitCounts]) -> Table:
    """Misses and false alarms of speakers by one of their traits."""
    columns = (name, "words", "missed", "95 %", "hours of other speech", "false alarms", "per hour", "95 %")
    return Table(columns, [(value, *_trait_cells(of_value)) for value, of_value in values.items()])


def _trait_cells(found: TraitCounts) -> tuple[str, ...]:
    counts = found.counts
    missed = "" if counts.miss_rate is None else f"{100 * counts.miss_rate:.1f} %"
    spread = _spread(counts.miss_rate_interval, 1) if counts.miss_rate_interval else ""
    return (str(counts.words), missed, spread, f"{found.hours:.2f}", *_alarm_cells(counts.alarms))
