#!/usr/bin/env bash
# Downloads and prepares the data for the published models, once, into `data` and `prepared`. The other scripts call this.
#
# It downloads the two official archives, 2.5 GB. The published networks were trained on more recordings. If you have them,
# put them beside the archives, under the names in src/tiny_kws/data/sources.toml (words, synthetic, noise, rooms);
# models/*/credits.csv lists every recording and where it is from. Without these folders the same commands train on Speech
# Commands alone. The published networks used part of its training clips (models/data.json); with all of them, figures differ.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ ! -e prepared/manifest.json ]; then
  tiny-kws data download data
  tiny-kws data prepare data --out prepared
fi
