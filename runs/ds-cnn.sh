#!/usr/bin/env bash
# `ds-cnn`, the reference, from download to its published number: 95.24 % of the validation clips.
#
# On a CPU an hour and twenty minutes: two cores of an Intel Xeon with AMX, beside other work (docs/LOG.md, "The reference,
# trained"). Makes the published weights again, but for rounding. Options go to `train`: runs/ds-cnn.sh --resume
set -euo pipefail
cd "$(dirname "$0")/.."
runs/data.sh
tiny-kws train prepared --out runs/ds-cnn "$@"
tiny-kws evaluate runs/ds-cnn/best.pt --data prepared --out runs/ds-cnn/validation
tiny-kws export runs/ds-cnn/best.pt --out runs/ds-cnn/ds-cnn.onnx --data prepared --int8 --licence MIT
