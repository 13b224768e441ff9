#!/usr/bin/env bash
# Data for the published models: downloaded and prepared once, into `data` and `prepared`. The other scripts call this.
#
# The two official archives come by themselves, 2.5 GB. What else the published networks heard lies beside them if you have
# it, under the names of src/tiny_kws/data/sources.toml (words, synthetic, noise, rooms): models/*/credits.csv lists every
# recording with whom to ask for it. Without these folders the same commands train on Speech Commands alone. The published
# networks had a part of its training clips (models/data.json); on all of them figures differ.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ ! -e prepared/manifest.json ]; then
  tiny-kws data download data
  tiny-kws data prepare data --out prepared
fi
