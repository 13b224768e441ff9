"""Write the figures of the documents from the files they were measured into: `write_figures.py [--check]`.

A document marks what is written here, `<!-- figures: NAME -->` before it and `<!-- end -->` behind; the model cards are
written whole. Nothing is measured here: figures come from the metrics files and artefacts of `models/` and the package,
and from `benchmarks/results/`. With --check nothing is written, and what is out of date is named.
"""

import argparse
import json
import math
import re
import statistics
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tiny_kws.artefact.format import Metadata
from tiny_kws.artefact.runtime import read_metadata
from tiny_kws.artefact.store import bundled_models, find_model
from tiny_kws.enrolment.bank import ENGLISH
from tiny_kws.enrolment.told import NAMES
from tiny_kws.evaluation.clips import wilson_interval
from tiny_kws.evaluation.speed import Benchmark, speed_table
from tiny_kws.evaluation.tables import markdown
from tiny_kws.json_form import from_json
from tiny_kws.sharing.card import RATES_PER_HOUR, missed, model_card
from tiny_kws.sharing.publish import collect
from tiny_kws.training.networks import DSCNN, CausalCNN, count_parameters
from tiny_kws.training_config import CAUSAL_SIZES, TRUNK_SIZES, CausalCNNConfig
from tiny_kws.words import is_word

ROOT = Path(__file__).resolve().parents[1]
LISTENERS = ("listener", "listener-small", "listener-micro")
MODELS = ("ds-cnn", "base", "small", "micro", *LISTENERS)
INT8 = ("ds-cnn", "base", "small", "micro")
ADULTS = "adults/"
MISSED = {"missed": "as recorded", "missed_in_noise": "in noise at 10 dB"}
TOLD_PAUSES_S = (0.4, 0.6, 0.7, 0.8, 0.9)
WIDTH = 120
ORDINALS = {10: "tenth", 11: "eleventh", 12: "twelfth", 13: "thirteenth"}
BLOCK = re.compile(r"(<!-- figures: ([\w-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
Metrics = Mapping[str, Any]
Way = tuple[int, bool, bool]


def main() -> None:
    """Bring every document up to date, or with --check name those that are not and fail."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a document is out of date")
    check = parser.parse_args().check
    outdated = {path: text for path, text in documents().items() if path.read_text(encoding="utf-8") != text}
    for path, text in outdated.items():
        if not check:
            path.write_text(text, encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {'is out of date; run `make figures`' if check else 'written'}")
    sys.exit(check and bool(outdated))


def documents() -> dict[Path, str]:
    """Every document with figures, as it is to read."""
    pages = [ROOT / "README.md", ROOT / "models" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    cards = {ROOT / "models" / name / "README.md": card(name) for name in MODELS}
    return {page: filled(page.read_text(encoding="utf-8")) for page in pages} | cards


def card(name: str) -> str:
    """The model card of a published model."""
    return model_card(collect(name, ROOT / "models" / name).facts, f"tiny-kws/{name}")


def filled(text: str) -> str:
    """A page with each of its marked blocks written anew; raises KeyError for a block that nobody writes."""
    return BLOCK.sub(lambda found: f"{found[1]}{wrapped(BLOCKS[found[2]]())}\n{found[4]}", text)


def wrapped(text: str) -> str:
    """Paragraphs and points of lists in lines of WIDTH; tables as they are."""
    parts = []
    for part in text.split("\n\n"):
        indent = "  " if part.startswith("- ") else ""
        fitted = textwrap.fill(part, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        parts.append(part if part.startswith("|") else fitted)
    return "\n\n".join(parts)


# What was measured


def read(*parts: str) -> Any:
    """A committed JSON file."""
    return json.loads(ROOT.joinpath(*parts).read_text(encoding="utf-8"))


def clips_of(name: str) -> Metrics:
    """What `tiny-kws evaluate` measured of a published model."""
    return dict(read("models", name, "metrics.json"))


def streams_of(name: str, condition: str) -> Metrics:
    """What `tiny-kws evaluate-stream` measured of a published model; raises AssertionError if on other streams."""
    metrics = dict(read("models", name, "streams", *condition.split("/"), "metrics.json"))
    made = made_of(condition)
    assert metrics["manifest"]["sha256"] == made["manifest_sha256"], f"{name}: {condition} is of other streams"
    return metrics


def made_of(condition: str) -> Metrics:
    """How streams were made, and what was chosen on them."""
    return dict(read("models", "streams", f"{condition.rpartition('/')[0] or 'fresh'}.json"))


def about(name: str, kind: str = "clip", precision: str = "") -> Metadata:
    """What a bundled artefact says of itself."""
    path = find_model(name, kind, "stream")
    return read_metadata(path.with_name(f"{name}.int8.onnx") if precision == "int8" else path)


# How it reads


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [" | ".join(head), "|".join("---" for _ in head), *(" | ".join(row) for row in rows)]
    return "\n".join(f"|{line}|" if set(line) <= {"-", "|"} else f"| {line} |" for line in lines)


def percent(share: float, digits: int = 1) -> str:
    """0.1234 as 12.3 %."""
    return f"{100 * share:.{digits}f} %"


def with_interval(share: float, interval: Sequence[float], digits: int) -> str:
    """A share with its interval, all in percent."""
    low, high = (f"{100 * end:.{digits}f}" for end in interval)
    return f"{percent(share, digits)} ({low} to {high})"


def listed(parts: Sequence[str]) -> str:
    """a, b and c."""
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]


# README: what matters


def in_short() -> str:
    """Misses at false alarms per hour, and what listening costs."""
    built_in = [
        [f"built-in, {who.removeprefix('among ')}, {strictness}", *(missed(metrics, rate) for metrics in found)]
        for who, found in ((SPOKEN_BY[kind], streams_by(kind)) for kind in SPOKEN_BY)
        for strictness, rate in (("lenient", max(RATES_PER_HOUR)), ("strict", min(RATES_PER_HOUR)))
    ]
    draws = read("benchmarks", "results", "own_words_fresh.json")["draws"]
    ways = {"ten recordings": (10, False, False), "typing alone": (0, True, False)}
    own = [[f"yours, from {name}", *(own_words_cell(draws, way, key) for key in MISSED)] for name, way in ways.items()]
    head = ["words missed, at false alarms per hour", "in quiet", "in noise at 10 dB"]
    words = listed([f"*{word}*" for word in sorted({draw["word"] for draw in draws})])
    return f"""\
{table(head, built_in + own)}

Built-in words (`listener`): lenient or strict thresholds, chosen on one half of the speakers and measured on the other,
with 95 % intervals. Your word: the mean of {words}, on which nothing was tuned, with the best and the worst of them.

{cost_in_short()}"""


def cost_in_short() -> str:
    """Size and processor time of what listens."""
    speeds = read("benchmarks", "results", "speed.json")
    stream = next(model for model in speeds["models"] if model["name"] == "listener.stream.onnx")
    small = find_model("listener-micro", "stream").stat().st_size
    web, install = read("benchmarks", "results", "page.json"), read("benchmarks", "results", "install.json")
    cpu = stream["stream_cpu_ms_per_s"]
    return (
        f"The listening model is a file of {stream['file_bytes'] / 1000:.0f} kB and takes {cpu:.1f} ms of processor "
        f"time for each second of sound ({percent(cpu / 1000)} of a core of an {speeds['processor']}). The "
        f"smallest, `listener-micro`, takes {small / 1000:.0f} kB. The plain install takes "
        f"{install['site_packages_mb']:.0f} MB. The page loads {web['compressed_mb']:.1f} MB once and answers "
        f"{web['answer_ms']:.0f} ms after the sound. `base` recognises {percent(clips_of('base')['accuracy'])} of "
        "one-second clips."
    )


# docs/results.md: listening

SPOKEN_BY = {ADULTS: "among adults", "": "among children and learners"}


def streams_by(kind: str) -> list[Metrics]:
    """What `listener` did among adults or among children and learners, in quiet and at 10 dB."""
    return [streams_of("listener", f"{kind}{condition}") for condition in ("clean", "snr10")]


def misses_by_speakers() -> str:
    """Words that each listener missed among adults and among children and learners, and `base` beside them."""
    conditions = [f"{kind}{condition}" for kind in SPOKEN_BY for condition in ("clean", "snr10")]
    rows = []
    for name in (*LISTENERS, "base"):
        found = [streams_of(name, condition) if has_streams(name, condition) else None for condition in conditions]
        for rate in RATES_PER_HOUR:
            cells = ["not measured" if metrics is None else missed(metrics, rate) for metrics in found]
            rows.append([f"`{name}`, {rate:g}", *cells])
    head = [f"{who}, {noise}" for who in SPOKEN_BY.values() for noise in ("clean", "10 dB SNR")]
    return table(["model, false alarms per hour aimed at", *head], rows)


def has_streams(name: str, condition: str) -> bool:
    """Whether a model was measured on these streams."""
    return ROOT.joinpath("models", name, "streams", *condition.split("/"), "metrics.json").exists()


def by_word() -> str:
    """What `listener` missed of each word at the strictest rate, and the false alarms of each."""
    parts = [streams_of("listener", f"{kind}clean")["operating_point"]["by_label"] for kind in SPOKEN_BY]
    rows = []
    for word in (label for label in parts[0] if is_word(label)):
        said = sum(part[word]["words"] for part in parts)
        misses = sum(part[word]["misses"] for part in parts)
        alarms = [str(part[word]["false_alarms"]) for part in parts]
        rows.append([word, str(said), with_interval(misses / said, wilson_interval(misses, said), 0), *alarms])
    head = ["word", "said", "missed", *(f"false alarms {who}" for who in SPOKEN_BY.values())]
    return table(head, rows)


def by_accent() -> str:
    """False alarms of `listener` by the accent of adults, at the strictest rate, if there is a minute of it."""
    found = streams_of("listener", f"{ADULTS}clean")["operating_point"]["by_trait"]["accent"]
    rows = []
    long = {accent: its for accent, its in found.items() if its["hours"] >= 1 / 60}
    for accent, its in sorted(long.items(), key=lambda item: -item[1]["hours"]):
        low, high = its["false_alarms_per_hour_interval"]
        rate = f"{its['false_alarms_per_hour']:.1f} ({low:.1f} to {high:.1f})"
        rows.append([accent, f"{60 * its['hours']:.0f} min", str(its["false_alarms"]), rate])
    return table(["accent", "speech", "false alarms", "per hour"], rows)


def fairness() -> str:
    """By word and by accent."""
    quiet = [(streams_of("listener", f"{kind}clean"), who) for kind, who in SPOKEN_BY.items()]
    by_age = [
        f"{metrics['operating_point']['in_speech']['false_alarms']} in "
        f"{metrics['audio']['speech_hours']:.1f} hours with speech {who}"
        for metrics, who in quiet
    ]
    return f"""\
`listener` in quiet, with thresholds for {min(RATES_PER_HOUR):g} false alarm per hour, chosen on the other half of the
speakers. The keywords are from the same clips in both kinds of streams.

{by_word()}

False alarms in speech: {listed(by_age)}. By the accent that speakers of Common Voice stated:

{by_accent()}

Other accents have less than a minute, and even these have too little to compare. The keywords' speakers have no stated
age, gender or accent, and nor have the readers of LibriSpeech here, so misses cannot be told apart by them."""


def inside_sentences() -> str:
    """How often a keyword inside a sentence fires."""
    found = read("benchmarks", "results", "inside_sentences.json")
    kinds = {"readers": "adults reading books", "homes": "adults at home", "children": "children and learners"}
    parts = [f"{one['heard']} of {one['said']} by {kinds[kind]}" for kind, one in found["by_kind"].items()]
    most = max(found["by_word"].items(), key=lambda item: item[1]["heard"])
    return (
        "A keyword inside a sentence is rarely heard. In sentences of speakers kept out of training, "
        f"`{found['model']}` reported {found['heard']} of {found['said']} keywords at its default threshold, "
        f"{with_interval(found['heard'] / found['said'], found['interval'], 1)}: {listed(parts)}; "
        f"{most[1]['heard']} of them were *{most[0]}* (`benchmarks/inside_sentences.py`). Sentences with keywords are "
        "left out of training and of the streams above."
    )


def pauses() -> str:
    """What each rate misses with and without a pause that must follow."""
    found = read("benchmarks", "results", "pauses.json")
    rows = [
        [f"{name}, {rate:g}", *(missed(its[way], rate) for way in ("without", "with"))]
        for name, its in found["streams"].items()
        for rate in RATES_PER_HOUR
    ]
    late = [
        max(its[way]["latency_s"]["p95"] for its in found["streams"].values() if its[way]["latency_s"])
        for way in ("without", "with")
    ]
    head = table(["streams, false alarms per hour aimed at", "missed, without a pause", "missed, with `--pause`"], rows)
    return (
        f"With `--pause {found['pause_ms']:g}` a word counts only if a pause follows it, so that words which somebody "
        "goes on talking after are not taken for commands. Among children and learners, who read slowly, fewer words "
        "are then missed at the same rate of false alarms in quiet; among adults there is no difference beyond chance. "
        f"On the streams above, with the rate that came (`benchmarks/pauses.py`):\n\n{head}\n\n"
        f"95 % of the answers come within {late[1]:.2f} s of the end of the word, and within {late[0]:.2f} s without a "
        "pause. The threshold in `listener` is for listening without one; `tiny-kws calibrate --pause` finds yours. "
        "Where people go on talking after a command, leave the option out."
    )


def sound(prefix: str) -> str:
    """What streams hold: words, speakers, hours, noises, rooms."""
    made, audio = made_of(prefix), streams_of("listener", f"{prefix}clean")["audio"]
    hours, sources, share = made["hours"], made["sources"], made["settings"]["room_share"]
    rooms = "one room" if sources["rooms"]["groups"] == 1 else f"{sources['rooms']['groups']} rooms"
    speech = made.get("speech", f"speechocean762, {sources['speech']['groups']} speakers")
    return (
        f"{audio['keywords']} keywords by {audio['speakers']} speakers, {hours['running_speech']:.1f} hours of running "
        f"speech without keywords ({speech}) and "
        f"{hours['recordings_of_noise']:.1f} hours of noise alone (from {sources['noises']['groups']} recordings), "
        f"with {percent(share, 0)} of the recordings in {rooms}: {audio['hours']:.1f} hours in all"
    )


def listening() -> str:
    """Misses on streams on which nothing was chosen, and then on those on which the settings were."""
    found = [streams_of(name, f"{ADULTS}clean") for name in LISTENERS]
    late = found[0]["operating_point"]["latency_from_word_end_s"]
    sizes = [f"`{name}` has {about(name, 'stream').parameters:,} parameters" for name in LISTENERS]
    return f"""\
Words missed (with 95 % intervals over speakers), and the false alarms per hour that were measured. Thresholds were
chosen on one half of the speakers and measured on the other. The streams of adults contain {sound(ADULTS)}. The streams
of children and learners of English contain {sound("")}. None of it was used in training, except that the speakers of
Common Voice have no names, so some of them may have been heard in other sentences. {made_of("")["chosen"]} The
keywords are from the same clips in both. Epochs and seeds of the networks were chosen on clips of the same speakers.

{misses_by_speakers()}

*Not reached*: no threshold gave so few false alarms on the half on which it was chosen.

{falls_short()}

{listed(sizes)}. They were trained on streams, `base` on windows. With thresholds for one false alarm per hour,
`listener` answers {late["p50"]:.2f} s after the end of a word (median; 95th percentile {late["p95"]:.2f} s). Its [model
card](../models/listener/README.md) shows more levels of noise, and each word by itself. Its settings were chosen on
streams made in the same way with another seed (`runs/listener.sh`)."""


def falls_short() -> str:
    """How the rates that came differ from those that were wanted."""
    counts = []
    for kind, who in SPOKEN_BY.items():
        points = streams_of("listener", f"{kind}clean")["held_out"]["rates"]
        strict = next(point for point in points if point["rate_per_hour"] == min(RATES_PER_HOUR))
        low, high = strict["false_alarms_per_hour_interval"]
        counts.append(
            f"{strict['false_alarms']} {who}, or {strict['false_alarms_per_hour']:.1f} per hour "
            f"({low:.1f} to {high:.1f}),"
        )
    return (
        f"At {min(RATES_PER_HOUR):g} per hour the result depends on very few alarms: in quiet there were "
        f"{listed(counts).removesuffix(',')}."
    )


def default_threshold() -> str:
    """What `listener` does at the threshold that its artefact carries."""
    wanted = read("models", "listener", "detector.json")["expected"]["in_sample"]["false_alarms_per_hour"]
    cells = []
    for kind, who in SPOKEN_BY.items():
        metrics = streams_of("listener", f"{kind}clean")
        threshold, curve = metrics["detector"]["threshold"], metrics["det"]
        nearest = min(range(len(curve["threshold"])), key=lambda i: abs(curve["threshold"][i] - threshold))
        rate, share = curve["false_alarms_per_hour"][nearest], curve["miss_rate"][nearest]
        cells.append(f"{rate:.0f} per hour and misses {percent(share, 0)} {who}")
    return (
        f"The default threshold of `listener` is the one that gave {wanted:g} false alarms per hour on the streams on "
        f"which its settings were chosen. In quiet it gives about {listed(cells)}. `--threshold 0.99` is stricter; "
        "`calibrate` fits the threshold to your room."
    )


def limit_of_listening() -> str:
    """How far listening is from its aim."""
    found = [metrics for kind in SPOKEN_BY for metrics in streams_by(kind)]
    quiet, noisy, others, others_noisy = (missed(metrics, min(RATES_PER_HOUR)) for metrics in found)
    return (
        "The aim is to miss a tenth of the words at one false alarm per hour. `listener` does not reach it: among "
        f"adults it missed {quiet} per hour in quiet, and {noisy} in noise at 10 dB; among children and learners "
        f"{others}, and {others_noisy}."
    )


# docs/results.md: clips


def clips() -> str:
    """The accuracy of every published model on validation clips, and whether its weights can be made again."""
    data, rows = read("models", "data.json"), []
    for name in MODELS:
        metrics, its = clips_of(name), about(name)
        shape = [f"{its.parameters:,}", f"{its.macs / 1e6:.1f} M", accuracy(metrics), percent(metrics["macro_f1"], 2)]
        rows.append([f"`{name}`", *shape, made_again(name)])
        if name in INT8:
            size = find_model(name, "clip").with_name(f"{name}.int8.onnx").stat().st_size
            validation = about(name, precision="int8").validation
            assert validation is not None
            measured = with_interval(validation.accuracy, validation.accuracy_interval, 2)
            rows.append([f"the same in int8, {size / 1000:.0f} kB", "", "", measured, "", ""])
    head = [
        "model",
        "parameters",
        "multiply-accumulates per second",
        "accuracy (95 % interval)",
        "macro-F1",
        "reproduced",
    ]
    return f"""\
Measured on the validation split: {data["clips"]["validation"]:,} clips by {data["speakers"]["validation"]} speakers,
none of whom is in the training data. Epochs and seeds were chosen on it too, which favours the models a little. The
training data are {data["clips"]["training"]:,} clips, most of them from the older, less clean release;
{data["lacking"]["training"]:,} training clips of the official archive were not available, so these are not the figures
that the whole archive would give. The official test set was not used. `base` is the default for clips, `listener` for
streams. All networks stream except `ds-cnn` (Zhang et al. 2017), which takes one second at a time.

{table(head, rows)}

*Reproduced*: the script that trains the model again and, unless it gives exactly the published weights, the accuracy
that it, or the training nearest to it in the [log](LOG.md), reached; [details](../models/README.md)."""


def accuracy(metrics: Metrics) -> str:
    """Accuracy with its interval."""
    return with_interval(metrics["accuracy"], metrics["accuracy_interval"], 2)


def made_again(name: str) -> str:
    """Which script makes the weights again, or what it reached instead."""
    told = read("models", name, "reproduce.json")
    link = f"[{Path(told['script']).name}](../{told['script']})"
    return f"{link}, the same weights" if told["same_weights"] else f"{link}, {percent(told['reached']['accuracy'], 2)}"


def robustness() -> str:
    """Accuracy in noise and rooms, windows of speech called a keyword, and errors against the reference."""
    names = ("clean", "snr20", "snr10", "snr5", "snr0", "room")
    rows = []
    for name in MODELS:
        metrics = clips_of(name)
        shares = [percent(metrics["robustness"]["conditions"][condition]["accuracy"]) for condition in names]
        called = (metrics["keyword_free"]["speech"]["called_keyword"][level] for level in ("0.5", "0.8"))
        windows = [with_interval(found["share"], found["share_interval"], 1) for found in called]
        rows.append([f"`{name}`", *shares, *windows])
    rooms, speech = clips_of("base")["robustness"], clips_of("base")["keyword_free"]["speech"]
    head = ["", "clean", *(f"{name.removeprefix('snr')} dB" for name in names[1:-1]), "in one room"]
    return f"""\
{table([*head, "windows mistaken for a keyword at 0.5", "at 0.8"], rows)}

{rooms["conditions"]["clean"]["clips"]:,} clips; {rooms["noises"]} recordings of noise; one room
({listed(list(rooms["by_room"]))}, {rooms["room_responses"]} responses); {speech["windows"]:,} windows of
{speech["groups"]} speakers. {fewer_errors()} Clips and streams make different demands: `listener`,
trained on streams, stays silent where the others do not."""


def fewer_errors() -> str:
    """How many fewer errors the default model makes than the reference."""

    def ratio(condition: str) -> float:
        ours, theirs = (clips_of(name)["robustness"]["conditions"][condition] for name in ("base", "ds-cnn"))
        return float(1 - (1 - ours["accuracy"]) / (1 - theirs["accuracy"]))

    clean, noisy, room = (percent(ratio(condition), 0) for condition in ("clean", "snr0", "room"))
    times = about("ds-cnn").parameters / about("micro").parameters
    return (
        f"`base` makes {clean} fewer errors than the reference, `ds-cnn`, in quiet, {noisy} fewer at 0 dB and {room} "
        f"fewer in the room. `micro` has a {ORDINALS[round(times)]} of the reference's parameters."
    )


def seeds() -> str:
    """Which seed is published, and what the others reached."""
    told = read("models", "seeds.json")
    parts = []
    for name in ("base", "small", "micro"):
        row = told[name]
        measured, written = clips_of(name)["accuracy"], row["accuracy"][str(row["published"])]
        assert abs(measured - written) < 6e-5, f"{name}: {measured} measured, {written} in models/seeds.json"
        assert written == max(row["accuracy"].values()), f"{name}: the other seed is better on validation clips"
        parts.append(f"`{name}` {listed([f'{100 * share:.2f}' for share in row['accuracy'].values()])} %")
    return (
        "`base`, `small` and `micro` were trained with two seeds each. The rule is to publish the seed with the higher "
        f"clean accuracy on this split, which favours them a little: {', '.join(parts)} ([log](LOG.md))."
    )


# docs/results.md: speed and size


def speed() -> str:
    """The table of `tiny-kws benchmark --json`, and on what it was measured."""
    result = read("benchmarks", "results", "speed.json")
    return f"{markdown(speed_table(from_json(Benchmark, result)))} {result['about']}"


def page() -> str:
    """What the page in the browser costs."""
    found = read("benchmarks", "results", "page.json")
    core = 100 * (found["worker_core_share"] + found["audio_thread_core_share"])
    return (
        f"The page loads {found['compressed_mb']:.1f} MB (compressed) before it can listen, and works without a "
        f"network from then on. In Chromium on {found['processor']} it is ready in {found['ready_warm_s']:.1f} s (warm "
        f"cache), answers {found['answer_ms']:.0f} ms after the last sample of a hop, and uses {core:.0f} % of a core "
        "to listen, plus what drawing takes (`benchmarks/page_listening.py`)."
    )


def event_times() -> str:
    """How far events lie from their words, and when a word said twice is two."""
    found = read("benchmarks", "results", "event_times.json")
    assert all(one["manifest_sha256"] == made_of(name)["manifest_sha256"] for name, one in found["bounds"].items())

    def row(name: str, key: str) -> list[str]:
        errors = found["bounds"][name][key]
        late = [f"{errors[way]:.2f} s" for way in ("median_size", "size_90")]
        return ["clean" if name == "clean" else "10 dB", key.removesuffix("_s"), *late, f"{errors['median']:+.2f} s"]

    head = ["streams", "time of", "half are within", "90 % are within", "median (+ is late)"]
    rows = [row(name, key) for name in found["bounds"] for key in ("start_s", "end_s")]
    words = " and ".join(str(one["words"]) for one in found["bounds"].values())
    said = "; ".join(
        f"after {one['pause_s']:g} s {percent(one['twice'] / (one['once'] + one['twice']), 0)}"
        for one in found["repeated"]
        if one["pause_s"] in TOLD_PAUSES_S
    )
    return (
        f"For the {words} words that `{found['model']}` detects in the streams, clean and at 10 dB:\n\n"
        f"{table(head, rows)}\n\nIf a word is repeated after a pause, it gives two events by default in this share of "
        f"{found['repeated'][0]['once']} or more clips: {said}. Repetitions that are closer together give one event. "
        f"`refractory_ms` ({found['refractory_ms']:g} from one event to the next) is not the cause: a smaller value "
        "changes none of this."
    )


def narrow_band() -> str:
    """Misses by the rate of a recording."""
    found = read("benchmarks", "results", "narrow_band.json")["missed"]
    rates = list(next(iter(found.values())))

    def row(name: str) -> list[str]:
        cells = []
        for rate in rates:
            one = found[name][rate]
            low, high = (percent(end, 0).removesuffix(" %") for end in one["interval"])
            cells.append(f"{percent(one['missed'] / one['recordings'], 1)} ({low} to {high})")
        return [
            f"`{name}`" if name in bundled_models("stream") else f"*{name}*, enrolled",
            str(found[name][rates[0]]["recordings"]),
            *cells,
        ]

    head = ["model", "recordings", *(f"missed at {int(rate) / 1000:g} kHz" for rate in rates)]
    return table(head, [row(name) for name in found])


HELD_MS = 150  # from a chunk to its event, of which more means that sound waits


def serving() -> str:
    """Streams that one core held."""
    found = read("benchmarks", "results", "serving.json")
    day = read("benchmarks", "results", "serving_day.json")
    held = [row for row in found["rows"] if row["p99_ms"] < HELD_MS]
    rows = [
        [
            f"`{row['model']}`",
            str(row["streams"]),
            f"{row['cpu_ms_per_stream_second']:.2f} ms",
            f"{row['kb_per_stream'] / 1000:.2f} MB",
            f"{row['p50_ms']:.0f} ms",
            f"{row['p99_ms']:.0f} ms",
        ]
        for row in held
    ]
    other = found["pyopen_wakeword_cpu_ms_per_stream_second"]
    most = {model: max(row["streams"] for row in held if row["model"] == model) for model in ("listener", "micro")}
    busiest = next(row for row in held if row["model"] == "listener" and row["streams"] == most["listener"])
    over = min(row["streams"] for row in found["rows"] if row["p99_ms"] >= HELD_MS)
    clients = day["clients"]
    wrong = sum(count for end, count in clients.items() if end.startswith("wrong"))
    bad = sum(clients.get(way, 0) for way in ("stall", "garbage", "vanish", "vanish at once"))
    memory = day["resident_kb"]
    return (
        table(["model", "streams", "CPU per stream-second", "memory per stream", "median", "99 %"], rows) + "\n\n"
        f"It held {most['listener']} streams of `listener` and {most['micro']} of `micro`; with the next number tried, "
        f"{over}, sound waited for seconds. One stream alone costs more than one of many, since the processor's caches "
        "fill with other things between its hops.\n\n"
        f"The engine of wyoming-openwakeword (pyopen-wakeword) takes {other:.0f} ms for one word on the same core, fed "
        f"without a pause: {other / busiest['cpu_ms_per_stream_second']:.0f} times as much as one of "
        f"{most['listener']} streams here.\n\n"
        f"{day['streams']} clients each sent {day['hours'] * 60:.0f} minutes of sound as fast as the server takes it "
        f"(`benchmarks/serving_day.py`): {clients['right']:,} minutes were answered with exactly the events that a "
        f"`Detector` finds, and {wrong} with others, while {bad:,} clients stalled, sent garbage or vanished. The "
        f"server's memory was {memory[len(memory) // 3] / 1000:.0f} MB after a third of that, "
        f"{memory[2 * len(memory) // 3] / 1000:.0f} MB after two thirds and {memory[-1] / 1000:.0f} MB at the end."
    )


def sizes() -> str:
    """What an install takes."""
    found = read("benchmarks", "results", "install.json")
    return (
        f"The plain install takes {found['site_packages_mb']:.0f} MB ({found['about']}), of which this package is "
        f"{found['package_mb']:.0f} MB: {found['models_mb']:.1f} MB for its models and {found['page_mb']:.1f} MB for "
        "the page of `tiny-kws demo`."
    )


def calibration_limit() -> str:
    """How sure the networks are against how often they are right."""
    errors = {name: clips_of(name)["calibration_error"] for name in MODELS}
    others = [error for name, error in errors.items() if name != "ds-cnn"]
    return (
        "`ds-cnn` was trained with label smoothing and is less confident than it should be: its expected calibration "
        f"error is {errors['ds-cnn']:.2f}, and {min(others):.2f} to {max(others):.2f} for the others. It labels "
        "digital silence as *silence*, but only just."
    )


# docs/train.md


def networks() -> str:
    """The sizes that can be trained."""
    sizes = {name: count_parameters(CausalCNN(size)) for name, size in CAUSAL_SIZES.items()}
    sizes["causal-cnn"] = count_parameters(CausalCNN(CausalCNNConfig()))
    times = sizes["large"] / sizes["base"]
    unlike = {
        "large": f"; hardly better than `base`, with {times:.0f} times its parameters ([log](LOG.md)); its weights are "
        "not published",
        "causal-cnn": "; like `base`, but without convolutions over frequency bands",
    }
    reference = "the reference (Zhang et al. 2017): one second at a time, does not stream"
    rows = [["`ds-cnn` (the default)", f"{count_parameters(DSCNN()):,}", reference]]
    names = ("micro", "small", "base", "large", "causal-cnn")
    rows += [[f"`{name}`", f"{sizes[name]:,}", f"streams{unlike.get(name, '')}"] for name in names]
    return table(["`--model`", "parameters", "what"], rows)


def listening_by_recipe() -> str:
    """What a training on streams is worth."""
    most = max(RATES_PER_HOUR)
    ours, theirs = (missed(streams_of(name, "clean"), most) for name in ("listener", "base"))
    other = f"missed {theirs} per hour" if theirs[0].isdigit() else "had no threshold that gave so few"
    return (
        f"`listener` was trained in this way, `base` was not. With thresholds for {most:g} false alarms per hour, "
        f"`listener` missed {ours} per hour and `base` {other}. [Results](results.md#listening) has stricter "
        "thresholds."
    )


# models/README.md


def published() -> str:
    """Accuracy and the way to each published model."""
    rows = []
    for name in MODELS:
        told = read("models", name, "reproduce.json")
        link = f"[`{told['script']}`](../{told['script']})"
        again = f"{link} makes exactly these"
        if not told["same_weights"]:
            reached = f"{link} reached {percent(told['reached']['accuracy'], 2)} ({told['reached']['how']})"
            again = f"cannot be reproduced: {told['why']}; {reached}"
        rows.append([f"`{name}`", accuracy(clips_of(name)), again])
    measured = clips_of("base")["data"]["clips"]
    return table(["folder", f"accuracy on {measured:,} validation clips (95 % interval)", "the weights"], rows)


def training_data() -> str:
    """What the published models were trained on."""
    data = read("models", "data.json")
    return (
        f"Trained on {data['clips']['training']:,} clips by {data['speakers']['training']:,} speakers of Google Speech "
        "Commands v0.02 (Pete Warden 2018, arXiv:1804.03209, CC BY 4.0), a part of what the task draws from the whole "
        "archive."
    )


# docs/own-words.md: words of one's own


def own_words() -> str:
    """Misses by what a word was made of, and how often what was told came."""
    measured = read("benchmarks", "results", "own_words.json")
    draws, hours = measured["draws"], measured["hours"]
    english = sum(hours[kind] for kind in ENGLISH)
    ten, typed = (
        statistics.median(draw["seconds"] for draw in draws if way_of(draw) == way)
        for way in ((10, False, False), (0, True, False))
    )
    return "\n\n".join(
        [
            f"{own_words_heard(draws)} False alarms were counted in {english:.1f} hours of English "
            f"({hours['readers']:.1f} of adults reading books, {hours['homes']:.1f} of adults at home, "
            f"{hours['children']:.1f} of children and learners) by speakers who are in neither the trunk's training "
            "data nor the bank. The training of heads was tuned on these words:",
            own_words_table(draws),
            "The false alarm rates are those measured. The voices were "
            f"{listed(measured['voices'])}. A model took {ten:.0f} s to make "
            f"from ten recordings on two cores, and {typed:.0f} s from voices.",
            told_and_came([draw for draw in draws if not draw["spoken"]]),
        ]
    )


def own_words_fresh() -> str:
    """The same of words on which nothing was chosen."""
    draws = read("benchmarks", "results", "own_words_fresh.json")["draws"]
    return f"{own_words_heard(draws)}\n\n{own_words_table(draws)}"


def ways_to_a_word() -> str:
    """Steps, time and size of this project and of others, by what they say of themselves."""
    told = read("benchmarks", "results", "others.json")
    draws = read("benchmarks", "results", "own_words_fresh.json")["draws"]
    quick = statistics.median(draw["seconds"] for draw in draws if not way_of(draw)[2])
    ours = {
        "brings": "the word, recordings, or both",
        "steps": "one command",
        "voices": f"{len(read('benchmarks', 'results', 'own_words_fresh.json')['voices'])} voices, from pip and apt",
        "takes": f"{quick:.0f} s on two cores; `--thorough` some minutes",
        "told": "yes, with intervals, before use",
        "size": f"{find_model('commands', 'stream').stat().st_size / 1e6:.2f} MB for ten words",
        "runs": "Linux, macOS, Windows, browsers; microcontrollers through LiteRT",
        "licence": "MIT; MIT",
    }
    rows = [[name, ours[key], *(project[key] for project in told["projects"])] for key, name in told["columns"].items()]
    names = [f"[{project['name']}]({project['url']})" for project in told["projects"]]
    return f"{table(['', 'tiny-kws', *names], rows)}\n\n{told['about']}"


def beside_others() -> str:
    """Misses of one word by models of other projects and by ours."""
    found = read("benchmarks", "results", "beside_others.json")
    keys = {"as_recorded": "as recorded", "in_noise": "in noise at 10 dB"}
    rates = ("0.5", "0.2")

    def row(name: str) -> list[str]:
        model = found["models"][name]
        cells = (model[key][rate] for rate in rates for key in keys)
        return [name, *(with_interval(cell["share"], cell["interval"], 1) for cell in cells)]

    theirs = [name for name in found["models"] if name.endswith("WakeWord")]
    ours = [name for name in found["models"] if name not in theirs]
    head = ["", *(f"{rate} per hour, {key}" for rate in rates for key in keys.values())]
    rows = [row(name) for name in theirs] + [[f"tiny-kws, {cells[0]}", *cells[1:]] for cells in map(row, ours)]
    return (
        f"*{found['word']}*, missed of {found['recordings']} recordings, with thresholds that give so many false "
        f"alarms per hour in {found['hours']:.1f} hours of English (`benchmarks/beside_others.py`):\n\n"
        f"{table(head, rows)}"
    )


def own_words_typed() -> str:
    """Misses of words that were only typed, by word, quick and thorough."""
    draws = read("benchmarks", "results", "own_words_typed.json")["draws"]
    words = sorted({draw["word"] for draw in draws if way_of(draw)[2]})
    ways = {"quick": (0, True, False), "thorough": (0, True, True)}
    rate = min(draws[0]["missed"], key=float)

    def shares(word: str) -> list[float]:
        found = {way_of(draw): draw for draw in draws if draw["word"] == word}
        return [found[way][key][rate] for way in ways.values() for key in MISSED]

    of_words = [shares(word) for word in words]
    means = [sum(column) / len(column) for column in zip(*of_words, strict=True)]
    rows = [[word, *map(percent, its)] for word, its in zip(words, of_words, strict=True)]
    head = ["typed", *(f"{name}, {how}" for name in ways for how in MISSED.values())]
    tested = sum(draw["came"]["takes"] for draw in draws if way_of(draw)[2])
    return (
        f"Missed at {rate} false alarms per hour, of {tested} recordings of {len(words)} words and phrases of that "
        f"collection, one draw:\n\n{table(head, [*rows, ['mean', *map(percent, means)]])}"
    )


def own_words_spelt() -> str:
    """Words that no voice reads as people say them, typed, and typed with how they sound."""
    plain, spelt = (
        {
            (draw["word"], way_of(draw)): draw
            for draw in read("benchmarks", "results", f"own_words_{name}.json")["draws"]
        }
        for name in ("typed", "spelt")
    )
    rate = min(next(iter(spelt.values()))["missed"], key=float)
    rows = []
    for (word, way), draw in spelt.items():
        name = "thorough" if way[2] else "quick"
        spellings = listed([f"`{text}`" for text in draw["sounds_like"]])
        cells = [percent(found[key][rate]) for key in MISSED for found in (plain[word, way], draw)]
        rows.append([f"{word} ({spellings}), {name}", *cells])
    kinds = [f"{how}, {what}" for how in MISSED.values() for what in ("as written", "with `--sounds-like`")]
    return f"Missed at {rate} false alarms per hour, one draw:\n\n{table(['typed', *kinds], rows)}"


def own_words_micro() -> str:
    """Misses on the small network beside those on the usual one, of words on which nothing was chosen."""
    small, usual = (read("benchmarks", "results", f"own_words_{name}.json")["draws"] for name in ("micro", "fresh"))
    rate = min(small[0]["missed"], key=float)
    ways = list(dict.fromkeys(map(way_of, small)))
    rows = [
        [
            own_words_row(small, way, "missed", [rate])[0],
            *(mean_over_words(draws, way, key, rate) for key in MISSED for draws in (usual, small)),
        ]
        for way in ways
    ]
    kinds = [f"{how}, {size}" for how in MISSED.values() for size in ("base", "micro")]
    sizes = {name: count_parameters(CausalCNN(config)) for name, config in TRUNK_SIZES.items()}
    words = sorted({draw["word"] for draw in small})
    return (
        f"The network of `--size micro` has {sizes['micro']:,} parameters, the usual one {sizes['base']:,}. Missed at "
        f"{rate} false alarms per hour, of the {recordings_of(small)} recordings of "
        f"{listed([f'*{word}*' for word in words])}, on which nothing was tuned; "
        f"{len({draw['draw'] for draw in small})} draws (one for thorough models), in brackets the best and the worst "
        f"word:\n\n{table(['made from', *kinds], rows)}"
    )


def own_words_languages() -> str:
    """False alarms of typed words of other languages, in their own language and in others."""
    found = read("benchmarks", "results", "own_words_languages.json")
    names = {"de": "German", "es": "Spanish", "fr": "French", "it": "Italian"}
    rates = sorted(
        (key for key in next(iter(found.values()))["own"] if key.replace(".", "").isdigit()), key=float, reverse=True
    )

    def cell(told: Metrics, rate: str) -> str:
        low, high = told[rate]["interval"]
        return f"{told[rate]['per_hour']:.1f} ({low:.1f} to {high:.1f})"

    rows = [
        [
            names[language],
            f"{60 * one['own']['hours']:.0f} min",
            *(cell(one[where], rate) for rate in rates for where in ("own", "others")),
        ]
        for language, one in found.items()
    ]
    head = [f"{where}, {rate} aimed at" for rate in rates for where in ("in the language itself", "in other languages")]
    return (
        f"False alarms per hour and word, of ten typed words of each language, with thresholds for "
        f"{listed(rates)} per hour of English (`benchmarks/own_words_languages.py`):\n\n"
        f"{table(['words', 'speech of the language', *head], rows)}"
    )


def own_words_heard(draws: Sequence[Metrics]) -> str:
    """What was measured."""
    words = sorted({draw["word"] for draw in draws})
    return (
        f"Share missed: the mean of the words {listed([f'*{word}*' for word in words])}, each said by many people, "
        f"over {len({draw['draw'] for draw in draws})} draws of the recordings that a model is made from (one for "
        "thorough models); in brackets the best and the worst word. The models were tested on the rest of the "
        f"{recordings_of(draws)} recordings."
    )


def own_words_table(draws: Sequence[Metrics]) -> str:
    """A row for each way to make a model, as recorded and in noise."""
    rates = list(draws[0]["missed"])
    ways = list(dict.fromkeys(map(way_of, draws)))
    rows = [own_words_row(draws, way, key, rates) for way in ways for key in MISSED]
    return table(["made from", "tested", *(f"{rate} per hour" for rate in rates)], rows)


def way_of(draw: Metrics) -> Way:
    """How many recordings a word was made of, whether voices said it too, and whether the model is thorough."""
    return draw["recordings"], bool(draw["spoken"]), bool(draw.get("thorough"))


def own_words_row(draws: Sequence[Metrics], way: Way, key: str, rates: Sequence[str]) -> list[str]:
    """Means over draws and words at each rate."""
    parts = [f"{way[0]} recordings"] * bool(way[0]) + ["voices"] * way[1]
    cells = [mean_over_words(draws, way, key, rate) for rate in rates]
    made_from = " and ".join(parts) + (", thorough" if way[2] else "")
    return [made_from, MISSED[key], *cells]


def own_words_cell(draws: Sequence[Metrics], way: Way, key: str) -> str:
    """The mean at the strictest rate, with that rate."""
    rate = min(draws[0][key], key=float)
    return f"{mean_over_words(draws, way, key, rate)} at {rate}"


def mean_over_words(draws: Sequence[Metrics], way: Way, key: str, rate: str) -> str:
    """The mean over draws and words, with the best and the worst word."""
    by_word: dict[str, list[float]] = {}
    for draw in draws:
        if way_of(draw) == way:
            by_word.setdefault(draw["word"], []).append(draw[key][rate])
    means = [sum(shares) / len(shares) for shares in by_word.values()]
    low, high = (f"{100 * end:.1f}" for end in (min(means), max(means)))
    return f"{percent(sum(means) / len(means))} ({low} to {high})"


def recordings_of(draws: Sequence[Metrics]) -> str:
    """How many recordings there are of each word."""
    return listed([str(one) for one in sorted({draw["came"]["takes"] + draw["recordings"] for draw in draws})])


def told_and_came(draws: Sequence[Metrics]) -> str:
    """How often what came lies in the interval that was told, and is no further from what was told than by chance."""
    inside: dict[str, list[bool]] = {"misses": [], **{kind: [] for kind in ENGLISH}}
    by_chance: dict[str, list[bool]] = {kind: [] for kind in ENGLISH}
    for draw in draws:
        told, came = draw["told"], draw["came"]
        low, high = told["misses"]["interval"]
        inside["misses"].append(low <= came["missed"] / came["takes"] <= high)
        for kind in ENGLISH:
            expected, counted = told["alarms"][kind], came["alarms"][kind]
            low, high = expected["interval"]
            inside[kind].append(low <= counted["count"] / counted["hours"] <= high)
            share = counted["hours"] / (counted["hours"] + expected["hours"])
            by_chance[kind].append(chance(counted["count"], counted["count"] + expected["count"], share) > 0.05)
    names = {kind: f"false alarms for {NAMES[kind]}" for kind in ENGLISH}
    parts = [f"{name} {sum(inside[kind])}" for kind, name in {"misses": "misses", **names}.items()]
    agree = [f"{sum(by_chance[kind])}" for kind in ENGLISH]
    return (
        f"At the chosen threshold, the measured rate was within the interval that `enroll` had reported this often, of "
        f"{len(draws)} times: {listed(parts)}. The hours are so few that one false alarm more or less can leave the "
        f"interval; by an exact test of two counts (at 5 %), the false alarms agree with the report {listed(agree)} "
        "times."
    )


def chance(count: int, total: int, share: float) -> float:
    """Of a count as unlikely as this one or more, of `total` that fall here with a probability of `share`, exactly."""
    each = [math.comb(total, n) * share**n * (1 - share) ** (total - n) for n in range(total + 1)]
    return sum(one for one in each if one <= each[count] * (1 + 1e-9))


BLOCKS: dict[str, Callable[[], str]] = {
    "beside-others": beside_others,
    "calibration": calibration_limit,
    "clips": clips,
    "default-threshold": default_threshold,
    "event-times": event_times,
    "fairness": fairness,
    "in-short": in_short,
    "inside-sentences": inside_sentences,
    "pauses": pauses,
    "limit-of-listening": limit_of_listening,
    "listening": listening,
    "listening-by-recipe": listening_by_recipe,
    "narrow-band": narrow_band,
    "networks": networks,
    "own-words": own_words,
    "own-words-fresh": own_words_fresh,
    "own-words-languages": own_words_languages,
    "own-words-micro": own_words_micro,
    "own-words-spelt": own_words_spelt,
    "own-words-typed": own_words_typed,
    "page": page,
    "published": published,
    "robustness": robustness,
    "seeds": seeds,
    "serving": serving,
    "sizes": sizes,
    "speed": speed,
    "training-data": training_data,
    "ways-to-a-word": ways_to_a_word,
}

if __name__ == "__main__":
    main()
