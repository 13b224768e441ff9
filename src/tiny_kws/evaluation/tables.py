"""Tables of what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    pass


def metrics_table(metrics: Mapping[str, Any]) -> str:
    """An evaluation as Markdown: a line of totals and a table by class."""

    def percent(key: str) -> str:
        low, high = metrics[f"{key}_interval"]
        return f"{100 * metrics[key]:.2f} % (95 % interval {100 * low:.2f} to {100 * high:.2f})"

    lines = [
        f"{metrics['model']['name']} on {metrics['data']['name']}, {metrics['data']['clips']} clips:",
        f"accuracy {percent('accuracy')}, macro-F1 {percent('macro_f1')}, "
        f"expected calibration error {metrics['calibration_error']:.3f}",
        "",
        "| label | precision | recall | F1 | clips |",
        "|---|---|---|---|---|",
    ]
    for label, row in metrics["per_class"].items():
        shares = " | ".join(f"{100 * row[key]:.1f}" for key in ("precision", "recall", "f1"))
        lines.append(f"| {label} | {shares} | {row['support']} |")
    return "\n".join(lines)


def unknown_table(metrics: Mapping[str, Any]) -> str:
    """Recall of unknown by word as Markdown; words that no training heard come last and say so."""
    unknown = metrics["unknown"]
    never = set(unknown["left_out"])
    lines = ["| word of unknown | recall | 95 % | clips |", "|---|---|---|---|"]
    for word, row in sorted(unknown["by_word"].items(), key=lambda item: (item[0] in never, item[0])):
        lines.append(_share_line(f"{word} (never heard)" if word in never else word, row, "recall"))
    for name, key in (("all heard in training", "heard"), ("all never heard", "never_heard")):
        if unknown[key]["clips"]:
            lines.append(_share_line(name, unknown[key], "recall"))
    return "\n".join(lines)


def robustness_table(metrics: Mapping[str, Any]) -> str:
    """Accuracy by condition, by room, and by kind of noise at each SNR, as Markdown."""
    found = metrics["robustness"]
    lines = ["| condition | accuracy | 95 % | clips |", "|---|---|---|---|"]
    for name, row in found["conditions"].items():
        lines.append(_share_line(condition_name(name), row, "accuracy"))
    lines += [_share_line(f"room: {room}", row, "accuracy") for room, row in found["by_room"].items()]
    if found["by_noise"]:
        names = list(next(iter(found["by_noise"].values())))
        lines += ["", f"| accuracy in | {' | '.join(map(condition_name, names))} | mean | clips each |"]
        lines.append("|---" * (len(names) + 3) + "|")
    for kind, row in by_accuracy(found["by_noise"]):
        shares = [100 * one["accuracy"] for one in row.values()]
        clips = next(iter(row.values()))["clips"]
        lines.append(f"| {kind} | {' | '.join(f'{x:.1f}' for x in shares)} | {np.mean(shares):.1f} | {clips} |")
    return "\n".join(lines)


def windows_table(metrics: Mapping[str, Any]) -> str:
    """How many windows without keywords are called one, by threshold, as Markdown."""
    lines = ["| windows called a keyword | above | share | 95 % | of |", "|---|---|---|---|---|"]
    for name, title, groups in (("speech", "speech without keywords", "speakers"), ("noise", "noise", "sources")):
        found = metrics["keyword_free"].get(name)
        for key, row in found["called_keyword"].items() if found else ():
            level = f"detector's {found['detector']['threshold']:g}" if key == "detector" else key
            interval = row["share_interval"]
            spread = f"{100 * interval[0]:.3f} to {100 * interval[1]:.3f}" if interval else f"one of the {groups}"
            of = f"{found['windows']} of {found['groups']} {groups}"
            lines.append(f"| {title} | {level} | {100 * row['share']:.3f} % | {spread} | {of} |")
    return "\n".join(lines)


def by_accuracy(by_noise: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Kinds of noise, the easiest first."""
    return sorted(by_noise.items(), key=lambda item: (-sum(row["accuracy"] for row in item[1].values()), item[0]))


def condition_name(name: str) -> str:
    """How a condition is called in tables and figures."""
    if name.startswith("snr"):
        return f"{name.removeprefix('snr')} dB"
    return {"room": "in rooms"}.get(name, name)


def _share_line(name: str, row: Mapping[str, Any], what: str) -> str:
    low, high = (100 * x for x in row[f"{what}_interval"])
    return f"| {name} | {100 * row[what]:.2f} % | {low:.2f} to {high:.2f} | {row['clips']} |"


def streams_table(metrics: Mapping[str, Any]) -> str:
    """An `evaluate_streams` as Markdown: what it rests on, misses by rate of false alarms, and a table by label."""
    facts, held_out = metrics["audio"], metrics["held_out"]
    lines = [
        f"{metrics['model']['name']}, rule {metrics['rule']['name']}: {facts['keywords']} keywords of "
        f"{facts['speakers']} speakers in {facts['recordings']} recordings, {facts['speech_hours']:.2f} hours of "
        f"speech and {facts['noise_hours']:.2f} of noise; {metrics['cpu_s_per_s']:.5f} s of CPU a second",
        "",
    ]
    if held_out["in_sample"]:
        lines.append("All recordings share speakers, so thresholds come from the very recordings they are reported on:")
    else:
        lines.append("Thresholds chosen on one half of the speakers, reported on the other, both ways:")
    lines += _rates_table(held_out["rates"])
    if not held_out["in_sample"]:
        lines += ["", "Thresholds from the very recordings they are reported on (in-sample):"]
        lines += _rates_table(metrics["everything"]["rates"])
    return "\n".join(lines + _operating_lines(metrics["operating_point"]))


def _rates_table(rates: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        "",
        "| wanted an hour | threshold | missed | 95 % | false alarms | an hour | 95 % |",
        "|---|---|---|---|---|---|---|",
    ]
    for point in rates:
        wanted = f"{point['rate_per_hour']:g}{'' if point['resolvable'] else ' *'}"
        if not point["reached"]:
            lines.append(f"| {wanted} | not reached | | | | | |")
            continue
        thresholds = ", ".join(f"{t:.4f}" for t in point["thresholds"])
        low, high = point["false_alarms_per_hour_interval"]
        alarms = f"{point['false_alarms']} | {point['false_alarms_per_hour']:.2f} | {low:.2f} to {high:.2f}"
        missed = f"{100 * point['miss_rate']:.1f} %" if point["words"] else ""
        spread = point["miss_rate_interval"]
        interval = f"{100 * spread[0]:.1f} to {100 * spread[1]:.1f}" if spread else "one speaker"
        lines.append(f"| {wanted} | {thresholds} | {missed} | {interval} | {alarms} |")
    if not all(point["resolvable"] for point in rates):
        lines += [
            "",
            "\\* too little sound to tell it from a lower rate: no false alarm at all where the threshold was chosen",
        ]
    return lines


def _operating_lines(point: Mapping[str, Any]) -> list[str]:
    if not point["reached"]:
        return ["", f"No threshold gives as few as {point['rate_per_hour']:g} false alarms an hour."]
    lines = [
        "",
        f"At {point['rate_per_hour']:g} an hour, with the thresholds of the first table:",
        "",
        "| label | words | missed | false alarms |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {label} | {row['words']} | {row['misses']} | {row['false_alarms']} |"
        for label, row in point["by_label"].items()
    ]
    lines.append("")
    for where in ("speech", "noise"):
        row = point[f"in_{where}"]
        if row["false_alarms_per_hour"] is not None:
            low, high = row["false_alarms_per_hour_interval"]
            lines.append(
                f"false alarms in {where}: {row['false_alarms']}, {row['false_alarms_per_hour']:.2f} an hour of it "
                f"(95 % interval {low:.2f} to {high:.2f})"
            )
    if point["confusions"]:
        pairs = (f"{pair['said']} heard as {pair['heard']} {pair['count']}" for pair in point["confusions"])
        lines.append(f"confusions: {', '.join(pairs)}")
    if late := point["latency_from_word_end_s"]:
        lines.append(
            f"latency from the end of the word: p50 {1000 * late['p50']:.0f} ms, p95 {1000 * late['p95']:.0f} ms "
            f"({late['hits']} hits)"
        )
    return lines
