"""What a pause asked for after each word brings: `pauses.py NAME=MANIFEST... [--model NAME] [--pause MS] [--out FILE]`.

MANIFESTs are of streams that `tiny-kws make-stream` built. The threshold for a rate of false alarms is chosen on one
half of the speakers and measured on the other, without and with the pause. Its length, and how much quieter it must be
(`listening.pause`), were chosen on streams of seed 0; those of models/streams/, of seed 1, are to measure on.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from tiny_kws.artefact.runtime import open_model
from tiny_kws.config import DetectorConfig
from tiny_kws.evaluation.rates import evaluate_streams
from tiny_kws.evaluation.streams import RULES, Posteriors, posteriors_of, read_manifest
from tiny_kws.files import sha256_of, write_json
from tiny_kws.json_form import to_json
from tiny_kws.listening.detector import config_of
from tiny_kws.sharing.card import RATES_PER_HOUR, missed

RESULTS = Path(__file__).parent / "results" / "pauses.json"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("streams", nargs="+", metavar="NAME=MANIFEST")
    parser.add_argument("--model", default="listener")
    parser.add_argument("--pause", type=float, default=280.0, help="Its length in milliseconds.")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    model = open_model(asked.model)
    config = config_of(model)
    found: dict[str, Any] = {}
    for name, _, path in (named.partition("=") for named in asked.streams):
        recordings, _ = read_manifest(Path(path), model.labels, config.words)
        heard = posteriors_of(model, recordings)
        found[name] = {"manifest_sha256": sha256_of(Path(path))}
        for way, pause_ms in (("without", 0.0), ("with", asked.pause)):
            found[name][way] = measured(heard, replace(config, pause_ms=pause_ms))
            print(name, way, *(missed(found[name][way], rate) for rate in RATES_PER_HOUR), sep=", ", flush=True)
    facts = {"model": asked.model, "sha256": sha256_of(model.path), "pause_ms": asked.pause}
    write_json(asked.out, {**facts, "streams": found})


def measured(heard: list[Posteriors], config: DetectorConfig) -> dict[str, Any]:
    """Misses and false alarms at RATES_PER_HOUR, as in metrics of streams, and how late answers come."""
    result = to_json(evaluate_streams(heard, config, RULES["tiny-kws"]))
    rates = [one for one in result["held_out"]["rates"] if one["rate_per_hour"] in RATES_PER_HOUR]
    return {"latency_s": result["operating_point"].get("latency_from_word_end_s"), "held_out": {"rates": rates}}


if __name__ == "__main__":
    main()
