#!/usr/bin/env bash
# Makes the trunk and the bank for own words, from speech to the figures in docs/own-words.md.
#
#     runs/trunk.sh DATA [base|micro]
#
# On two cores with bfloat16 an epoch takes 70 seconds, and everything three quarters of an hour (models/trunk/history.json;
# models/trunk-micro/history.json is of one core beside other work). DATA has folders, each with a manifest.csv: the running
# speech of scripts/make_bank.py (speech_libri, speech_cv, speech, speech_world), words said alone (clips), noise, rooms, and wake_words to measure with. All of it is licensed CC0, CC BY, MIT or Apache-2.0. Needs espeak-ng, flite,
# pip install '.[say]' and, for the alignment, pip install pocketsphinx==5.1.1.
set -euo pipefail
cd "$(dirname "$0")/.."
data=${1:?usage: runs/trunk.sh DATA [base|micro]}
size=${2:-base}
case $size in
  base) run=runs/trunk results=own-words ;;
  micro) run=runs/trunk-micro results=own-words-micro ;;
  *) echo "expected base or micro, found $size" >&2 && exit 2 ;;
esac
for folder in speech_libri speech_cv speech; do
  [ -e "$data/$folder/alignments.jsonl" ] || python scripts/align_speech.py "$data/$folder"
done
[ -e "$data/clips/alignments.jsonl" ] || python scripts/align_speech.py "$data/clips" --clips
# A third of the speakers is kept to measure with; some of the others are only in the bank (running_speech.is_unheard).
learnt=("$data/speech:12" "$data/speech_cv:2" "$data/speech_libri:12" "$data/clips:012")
if [ ! -e "$data/voices/alignments.jsonl" ]; then
  python scripts/speak_words.py "$data/voices" "${learnt[@]}"
  python scripts/align_speech.py "$data/voices" --clips
fi
python scripts/train_trunk.py "$run" "${learnt[@]}" "$data/voices:012" \
  --noise "$data/noise" --rooms "$data/rooms" --out "$run/trunk.pt" --size "$size"
python scripts/make_bank.py "$run/trunk.pt" "$data" "$run/own-words.bank"
python benchmarks/own_words.py "$data" "$run/$results.json" --bank "$run/own-words.bank"
[ "$size" = base ] || exit 0
# Makes the model for the ten commands on the same trunk.
python scripts/make_commands.py "$data/speech_commands_v0.02" runs/trunk/commands.stream.onnx --bank runs/trunk/own-words.bank
tiny-kws info runs/trunk/commands.stream.onnx
