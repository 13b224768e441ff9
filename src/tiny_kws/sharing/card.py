"""The model card of a repository on the Hub, written from the artefacts' metadata and their measurements.

Every number comes from there; the card says what was not measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..artefact.format import Metadata, Validation
from ..artefact.hub import CHECKPOINT, SUMS, import_hub
from ..enrolment.told import EXPLANATION, made_of, told_of, told_table
from ..evaluation import tables
from ..evaluation.metrics import ClipMetrics, StreamMetrics
from ..json_form import from_json
from ..words import SILENCE, UNKNOWN, is_word

SPEECH_COMMANDS = "Speech Commands"
CLEAN = "clean"
CHOSEN_ON = "chosen_on"
"""The folder of the streams on which the detector's settings, or the model itself, were chosen."""
RATES_PER_HOUR = (10.0, 2.0, 1.0)
WEAKEST = 3


@dataclass(frozen=True)
class Described:
    """An artefact of a repository: its name there, its size, its metadata."""

    file: str
    n_bytes: int
    metadata: Metadata


@dataclass(frozen=True)
class Reproduction:
    """Whether a `script` makes exactly these weights again; if not, why, and the validation accuracy that it reached.

    `how` says what was trained then, `log` is the heading in docs/LOG.md that describes it.
    """

    script: str
    same_weights: bool
    why: str = ""
    accuracy: float | None = None
    how: str = ""
    log: str = ""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Reproduction:
        """What `reproduce.json` holds; raises KeyError, TypeError or AttributeError if it holds something else."""
        reached = values.get("reached", {})
        if not values["same_weights"] and not values["why"]:
            raise KeyError("why")
        return cls(
            str(values["script"]),
            bool(values["same_weights"]),
            str(values.get("why", "")),
            None if "accuracy" not in reached else float(reached["accuracy"]),
            str(reached.get("how", "")),
            str(reached.get("log", "")),
        )


@dataclass(frozen=True)
class CardFacts:
    """Everything that a card is made from. Measurements are by the name of their folder in the repository."""

    name: str
    artefacts: Sequence[Described]
    clips: Mapping[str, Mapping[str, Any]]
    streams: Mapping[str, Mapping[str, Any]]
    files: Sequence[str]
    reproduction: Reproduction | None = None


def model_card(facts: CardFacts, repo: str) -> str:
    """The README.md of the model repository `repo`, in Markdown with YAML in front."""
    metadata = facts.artefacts[0].metadata
    parts = [
        f"---\n{_front_matter(facts)}\n---\n\n# {facts.name}",
        _summary(metadata),
        _use(facts, repo),
        _intended(metadata),
        _limits(facts),
        _files(facts),
        _measured_on_clips(facts),
        _measured_on_streams(facts),
        _told_of_own_words(metadata),
        _data(facts),
        _made(metadata, facts.reproduction),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(facts: CardFacts) -> str:
    hub = import_hub()
    metadata = facts.artefacts[0].metadata
    of_speech_commands = SPEECH_COMMANDS in metadata.source
    known = {"language": "en", "datasets": ["google/speech_commands"]} if of_speech_commands else {}
    results = _results(facts) if of_speech_commands else []
    card = hub.ModelCardData(
        **known,
        license="mit" if metadata.licence.startswith("MIT") else "other" if metadata.licence else None,
        library_name="tiny-kws",
        pipeline_tag="audio-classification",
        tags=["keyword-spotting", "speech-commands" if of_speech_commands else "audio", "onnx"],
        model_name=facts.name if results else None,
        eval_results=results or None,
    )
    return str(card.to_yaml())


def _results(facts: CardFacts) -> list[Any]:
    """The accuracies, each with what it was measured on."""
    measured = {m["data"]["name"]: (m["accuracy"], m["macro_f1"]) for m in facts.clips.values()}
    validation = facts.artefacts[0].metadata.validation
    if validation:
        measured.setdefault(validation.clips_name, (validation.accuracy, validation.macro_f1))
    hub = import_hub()
    return [
        hub.EvalResult(
            task_type="audio-classification",
            dataset_type="google/speech_commands",
            dataset_name=name,
            metric_type=kind,
            metric_name=title,
            metric_value=value,
        )
        for name, values in measured.items()
        for kind, title, value in zip(("accuracy", "f1"), ("accuracy", "macro-F1"), values, strict=True)
    ]


def _summary(metadata: Metadata) -> str:
    facts = (
        f"A `{metadata.architecture}` with {metadata.parameters:,} parameters and {metadata.macs / 1e6:.1f} million "
        f"multiply-accumulates per second of sound. It hears {_list_of(_words(metadata))}. An artefact takes samples "
        f"at {metadata.rate} Hz and gives probabilities: front end, normalisation and labels are inside."
    )
    return f"{facts} Made with tiny-kws {metadata.version}."


def _use(facts: CardFacts, repo: str) -> str:
    kinds = {artefact.metadata.kind for artefact in facts.artefacts}
    command = "classify recording.wav" if "clip" in kinds else "listen"
    classify = f"""
classifier = tiny_kws.load("hf://{repo}")
print(classifier.classify("recording.wav").label)
"""
    detect = f"""
for event in tiny_kws.Detector("hf://{repo}").detect("meeting.mp3"):
    print(event.label, event.end_s)
"""
    return f"""## Use

```
pip install 'tiny-kws[hub]'
tiny-kws {command} --model hf://{repo}
```

```python
import tiny_kws
{classify if "clip" in kinds else ""}{detect if "stream" in kinds else ""}```

`hf://{repo}@COMMIT` always loads the files of one commit; `tiny-kws info hf://{repo}` shows the newest commit."""


def _intended(metadata: Metadata) -> str:
    return (
        f"## Intended use\n\nStarting something on the device by saying {_list_of(_words(metadata), 'or')}, and "
        "experiments with keyword spotting. It is not meant for transcribing speech, for recognising speakers, or for "
        "anything in which a missed word or a false alarm does harm."
    )


def _limits(facts: CardFacts) -> str:
    metadata = facts.artefacts[0].metadata
    others = [label for label in metadata.labels if label in (SILENCE, UNKNOWN)]
    rest = (
        f"anything else should be labelled {_list_of(others, 'or')}" if others else "it has no label for anything else"
    )
    limits = [f"It knows only these words; {rest}."]
    if SPEECH_COMMANDS in metadata.source:
        limits.append("It was trained on English words that volunteers read aloud one by one.")
    for metrics in facts.clips.values():
        weakest = sorted(metrics["per_class"].items(), key=lambda item: item[1]["recall"])[:WEAKEST]
        shares = ", ".join(f"*{label}* ({100 * row['recall']:.1f} %)" for label, row in weakest)
        limits.append(f"Labels recognised least often on {metrics['data']['name']}: {shares} of their clips.")
        limits.append(f"Expected calibration error on the same clips: {metrics['calibration_error']:.3f}.")
    if facts.streams:
        limits += _false_alarms(*next(iter(facts.streams.items())))
    if metadata.own_words:
        limits += [
            "It was made from a few recordings, and works best for voices, rooms and microphones like theirs. The miss "
            "rate below says nothing about other people's voices.",
            "Its false alarms were counted in read sentences. Television, music and several people talking at once "
            "may cause more.",
        ]
        return "## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits)
    if not facts.clips:
        limits.append("Precision and recall for each label on single clips were not measured.")
    if not any("robustness" in metrics for metrics in facts.clips.values()) and all(
        _is_clean(name) for name in facts.streams
    ):
        limits.append("Its accuracy in noise was not measured.")
    if not facts.streams:
        limits.append("Its miss rate and false alarms per hour on streams were not measured.")
    return "## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits)


def _false_alarms(name: str, metrics: Mapping[str, Any]) -> list[str]:
    point = metrics["operating_point"]
    if not point["reached"] or point["in_speech"]["false_alarms_per_hour"] is None:
        return []
    made = f"{point['in_speech']['false_alarms_per_hour']:.1f} false alarms per hour"
    kind = name.rpartition("/")[0]
    where = f"{_condition(name)}, {kind}" if kind else _condition(name)
    return [
        f"Running speech without its words caused {made} ({where}), with thresholds chosen for "
        f"{point['rate_per_hour']:g} per hour of all sound."
    ]


def _condition(name: str) -> str:
    """The name of a condition of streams: snr20 is noise at 20 dB."""
    name = name.rpartition("/")[2]
    return f"{name.removeprefix('snr')} dB SNR" if name.startswith("snr") else name


def _is_clean(name: str) -> bool:
    return name.rpartition("/")[2] == CLEAN


def _files(facts: CardFacts) -> str:
    head = "| file | takes | precision | kB | accuracy on validation clips (95 %) |"
    lines = ["## Files", "", head, "|---|---|---|---|---|"]
    for artefact in facts.artefacts:
        metadata = artefact.metadata
        size = f"{artefact.n_bytes / 1000:.0f}"
        takes = "one window" if metadata.kind == "clip" else f"hops of {1000 * metadata.hop / metadata.rate:.0f} ms"
        accuracy = _accuracy(metadata.validation)
        lines.append(f"| `{artefact.file}` | {takes} | {metadata.precision} | {size} | {accuracy} |")
    rest = [f"`{file}`" for file in facts.files if file == CHECKPOINT or file.endswith((".tflite", ".h", ".csv"))]
    also = ", ".join([*rest, f"`{SUMS}`"])
    lines += ["", f"Also {also}. An artefact also holds its own SHA-256, and is refused if it does not match."]
    return "\n".join(lines)


def _accuracy(validation: Validation | None) -> str:
    if validation is None:
        return "not measured"
    low, high = validation.accuracy_interval
    return f"{100 * validation.accuracy:.2f} % of {validation.clips} ({100 * low:.2f} to {100 * high:.2f})"


def _measured_on_clips(facts: CardFacts) -> str:
    if not facts.clips:
        return ""
    parts = ["## Single clips"]
    for where, metrics in facts.clips.items():
        found = from_json(ClipMetrics, metrics)
        parts.append(tables.markdown(tables.metrics_table(found)))
        if found.robustness:
            parts.append(tables.markdown(tables.robustness_table(found.robustness)))
        if found.keyword_free:
            parts.append(tables.markdown(tables.windows_table(found.keyword_free)))
        parts += _pictures(facts, where, ("confusion_matrix.png", "robustness.png"))
    parts += _pictures(facts, "", ("learning_curve.png",))
    return "\n\n".join(parts)


def _measured_on_streams(facts: CardFacts) -> str:
    if not facts.streams:
        return ""
    kinds: dict[str, dict[str, Mapping[str, Any]]] = {}
    for name, metrics in facts.streams.items():
        kinds.setdefault(name.rpartition("/")[0], {})[name] = metrics
    parts = ["## Words in streams of sound"]
    for kind, streams in kinds.items():
        if kind == CHOSEN_ON:
            heading = "### On the recordings on which settings were chosen"
            chosen = "Settings of the detector were chosen on these recordings, which favours it."
        else:
            heading = f"### {kind.capitalize()}" if kind else ""
            chosen = "No setting of the detector was chosen on these recordings." if CHOSEN_ON in kinds else ""
        parts += [heading] * bool(heading and len(kinds) > 1)
        parts += _streams(facts, streams, chosen)
    return "\n\n".join(parts)


def _streams(facts: CardFacts, streams: Mapping[str, Mapping[str, Any]], chosen: str) -> list[str]:
    """The table of misses for streams of one kind, what these are, and each full measurement folded away."""
    in_sample = any(metrics["held_out"]["in_sample"] for metrics in streams.values())
    where = "the recordings they are reported on" if in_sample else "the other half of the speakers"
    spread = "" if in_sample else " (95 % interval over speakers)"
    parts = [
        " ".join(filter(None, [_sound_of(next(iter(streams.values()))["audio"]), chosen])),
        f"Words missed{spread} at the false alarms per hour that were measured, with thresholds chosen on {where}:",
        table_of_misses(streams),
    ]
    for name, metrics in streams.items():
        table = tables.markdown(tables.streams_table(from_json(StreamMetrics, metrics)))
        parts.append(f"<details><summary>{_condition(name)}</summary>\n\n{table}\n\n</details>")
        parts += _pictures(facts, name, ("det.png",)) if len(parts) == 4 else []
    return parts


def _sound_of(audio: Mapping[str, Any]) -> str:
    return (
        f"{audio['keywords']} keywords by {audio['speakers']} speakers in {audio['hours']:.1f} hours of sound: "
        f"{audio['speech_hours']:.1f} hours with speech and {audio['noise_hours']:.1f} hours of noise."
    )


def table_of_misses(streams: Mapping[str, Mapping[str, Any]]) -> str:
    """A Markdown table of measurements on streams, by condition: words missed at each rate, and the measured rate."""
    lines = [
        f"| false alarms per hour aimed at | {' | '.join(map(_condition, streams))} |",
        "|---" * (len(streams) + 1) + "|",
    ]
    for rate in RATES_PER_HOUR:
        cells = [missed(metrics, rate) for metrics in streams.values()]
        lines.append(f"| {rate:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def missed(metrics: Mapping[str, Any], rate: float) -> str:
    """The words missed if `rate` false alarms per hour are wanted, and the measured rate, if a threshold gives it."""
    for point in metrics["held_out"]["rates"]:
        if point["rate_per_hour"] == rate and point["reached"] and point["words"]:
            interval = point["miss_rate_interval"]
            spread = f" ({100 * interval[0]:.0f} to {100 * interval[1]:.0f})" if interval else ""
            return f"{100 * point['miss_rate']:.1f} %{spread} at {point['false_alarms_per_hour']:.1f}"
    return "not reached"


def _pictures(facts: CardFacts, where: str, names: Sequence[str]) -> list[str]:
    found = [file for file in facts.files if file.rpartition("/")[2] in names and _place(file) == where]
    return [f"![{file.rpartition('/')[2].removesuffix('.png').replace('_', ' ')}]({file})" for file in found]


def _place(file: str) -> str:
    """The name of the measurements in a file's folder; those of streams lie one level deeper."""
    return file.rpartition("/")[0].removeprefix("streams/")


def _told_of_own_words(metadata: Metadata) -> str:
    """For each enrolled word, the report that its maker got; nothing for other models."""
    if not metadata.own_words:
        return ""
    blocks: list[tables.Block] = [
        f"{EXPLANATION} These estimates were made when the word was enrolled, before it was used."
    ]
    for told in told_of(metadata.own_words):
        table = told_table(told.expected, told.threshold, voices=not told.takes)
        blocks += [f"*{told.word}*, from {made_of(told.takes, told.spoken)}:", table]
    return f"## What to expect\n\n{tables.markdown(blocks)}"


def _data(facts: CardFacts) -> str:
    metadata = facts.artefacts[0].metadata
    data = metadata.data
    lines = ["## Data and licence", "", f"Licence of the weights: {metadata.licence or 'not stated'}."]
    lines.append(f"Training data: {data.get('source', 'not stated')}.")
    clips = {split: sum(counts.values()) for split, counts in data.get("clips", {}).items() if counts}
    if clips:
        lines.append(f"Clips: {', '.join(f'{split} {count:,}' for split, count in clips.items())}.")
    if left_out := data.get("left_out"):
        lines.append(f"Kept out of training: {', '.join(map(str, left_out))}.")
    sources = data.get("sources", [])
    if sources:
        lines += ["", "| source | for | licences (recordings used) | credit |", "|---|---|---|---|"]
    for source in sources:
        used = "; ".join(f"{licence} ({count:,})" for licence, count in source.get("used", {}).items())
        if "used" not in source:
            used = data.get("licence", "not stated")
        lines.append(f"| {source['name']} | {source['use']} | {used or 'none used'} | {source['attribution']} |")
    if "credits.csv" in facts.files:
        lines += ["", "Credits for each recording: [credits.csv](credits.csv)."]
    return "\n".join(lines)


def _made(metadata: Metadata, reproduction: Reproduction | None) -> str:
    lines = [f"- front end: {_settings(metadata.feature_config)}", f"- network: {_settings(metadata.model_config)}"]
    if metadata.train_config:
        recipes = {name: metadata.train_config.get(name) or {} for name in ("windows", "streams")}
        composed = {name: recipe for name, recipe in recipes.items() if recipe}
        heard = f"composed {' and '.join(composed)}" if composed else "single clips"
        settings = _settings({key: value for key, value in metadata.train_config.items() if key not in recipes})
        chosen = "; the epoch was chosen on the validation clips, which makes their accuracy a little too high"
        last = bool(metadata.train_config.get("keep_last"))
        lines.append(f"- training on {heard}: {settings}{'; the last epoch was kept' if last else chosen}")
        lines += [f"- {name}: {_settings(recipe)}" for name, recipe in composed.items()]
        first, teachers = metadata.data.get("first_sha256"), metadata.data.get("teachers_sha256")
        if first:
            lines.append(f"- started from the weights of another training, the checkpoint with SHA-256 `{first}`")
        if teachers:
            lines.append(
                f"- teachers: the checkpoints with SHA-256 {', '.join(f'`{teacher}`' for teacher in teachers)}"
            )
        mean_of = metadata.data.get("mean_of_sha256")
        if mean_of:
            hashes = ", ".join(f"`{one}`" for one in mean_of)
            lines.append(
                f"- weights: the mean of several checkpoints, the last of which was trained like this; SHA-256 {hashes}"
            )
    if metadata.detector:
        lines.append(f"- detector: {_settings(metadata.detector)}")
    lines.append(f"- SHA-256 of the checkpoint: `{metadata.checkpoint_sha256}`")
    if reproduction is not None:
        lines.append(f"- {again(reproduction)}")
    return "## How it was made\n\n" + "\n".join(lines)


def again(reproduction: Reproduction) -> str:
    """A sentence that says whether the weights can be reproduced."""
    if reproduction.same_weights:
        return f"`{reproduction.script}` of tiny-kws reproduces these weights, except for rounding."
    parts = [f"These weights cannot be reproduced: {reproduction.why}."]
    if reproduction.accuracy is not None:
        parts.append(
            f"`{reproduction.script}` of tiny-kws reached {100 * reproduction.accuracy:.2f} % on the validation clips "
            f"({reproduction.how}; in the log, *{reproduction.log}*)."
        )
    return " ".join(parts)


def _settings(values: Mapping[str, Any]) -> str:
    """The settings in one line; lists as their items."""
    texts = {key: " / ".join(map(str, v)) if isinstance(v, (list, tuple)) else v for key, v in values.items()}
    return ", ".join(f"{key} {text}" for key, text in texts.items() if text not in ("", None, {}))


def _words(metadata: Metadata) -> list[str]:
    return [label for label in metadata.labels if is_word(label)]


def _list_of(words: Sequence[str], joined_by: str = "and") -> str:
    *most, last = (f"*{word}*" for word in words)
    return f"{', '.join(most)} {joined_by} {last}" if most else last
