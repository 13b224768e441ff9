"""Words of `enroll` to LiteRT, in float and int8, and to a C header, for microcontrollers.

The model is like the others for microcontrollers (`litert`): it keeps no state, and takes as many frames of log-mel as
an answer depends on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from ..artefact.format import Metadata
from ..artefact.runtime import StreamModel
from ..audio import Samples
from ..config import SAMPLE_RATE, FeatureConfig
from ..data.mixing import faint_noise
from ..enrolment.bank import Bank
from ..enrolment.enroll import ground_of
from ..enrolment.head import Head
from ..enrolment.predict import REFRACTORY_S, peaks_of, word_score
from ..enrolment.say import Say, spoken
from ..enrolment.ship import GAINS, HIDDEN_BIASES, HIDDEN_WEIGHTS, joined_hidden, joined_weights, names_of, read_words
from ..enrolment.takes import Take, read_takes
from ..enrolment.vary import Variant, as_it_is, under_noise
from ..errors import KwsError, UsageError
from ..files import write_bytes
from ..training.features import LogMel, normalize
from ..training.networks import BandBlock, CausalBlock, CausalCNN, count_macs
from ..training_config import CausalCNNConfig
from .litert import Array, c_header, converted, properties_of, quantization_of, quantized, run, with_metadata

SPOKEN = 28
"""Takes of each word by synthetic voices."""
MOST_TAKES = 200
SNR_DB = 10.0
"""At which each take is heard in noise too."""
TAIL_S = 0.5
"""Behind a take, beside what `as_it_is` puts there."""
CALIBRATION = 1000
"""Windows that ranges of integers are taken from, at most: half with words, half without."""
TOLERANCE = 0.01
"""The largest difference of a probability allowed in float: the artefact has its mel filters in half precision."""
LOST = 0.03
"""The share of takes that an int8 model may miss beside those that the artefact misses, and one more."""


class OwnWords(nn.Module):
    """Normalised log-mel (1, mels, frames, 1) to the probabilities of *unknown* and the words, (1, 1 + words).

    `n_frames` is how many frames an answer depends on.
    """

    def __init__(self, network: CausalCNN, heads: Sequence[Head]) -> None:
        super().__init__()
        self.network = network.eval()
        self.n_bins = max(len(head.weights) for head in heads)
        step = network.config.window_frames
        self.n_frames = (self.n_bins + -(-network.look_back_frames // step)) * step
        biases = np.array([head.bias for head in heads], np.float32)
        self.linear = _linear(_behind_unknown(joined_weights(heads)), _behind_unknown(biases))
        self.units: nn.Sequential | None = None
        if hidden := joined_hidden(heads):
            gains = _behind_unknown(hidden[GAINS].T)
            first = _linear(hidden[HIDDEN_WEIGHTS].T, hidden[HIDDEN_BIASES])
            self.units = nn.Sequential(first, nn.ReLU(), _linear(gains, np.zeros(len(gains), np.float32)))

    def forward(self, features: Tensor) -> Tensor:
        pooled = self.network.config.pooled_frames
        frames = self.network.trunk(features.permute(0, 3, 1, 2))[..., -self.n_bins * pooled :]
        means = frames.reshape(len(frames), -1, self.n_bins, pooled).mean(-1)
        window = self.network.fc(means.transpose(1, 2)).flatten(1)
        logits = self.linear(window) if self.units is None else self.linear(window) + self.units(window)
        return torch.softmax(logits, -1)


def _behind_unknown(rows: Array) -> Array:
    """Rows for words with zeros before them for *unknown*, whose logit is 0."""
    return np.concatenate([np.zeros_like(rows[:1]), rows])


def _linear(weights: Array, biases: Array) -> nn.Linear:
    layer = nn.Linear(weights.shape[1], weights.shape[0])
    with torch.no_grad():
        _fill(layer.weight, weights)
        _fill(layer.bias, biases)
    return layer


def network_of(bank: Bank) -> CausalCNN:
    """The trunk of a bank as a network, with the weights of its graph, into which batch norm is folded."""
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT16)
    found = iter(
        numpy_helper.to_array(tensor).astype(np.float32)
        for tensor in onnx.load_model_from_string(bank.trunk).graph.initializer
        if tensor.name.startswith("network/") and tensor.data_type in kinds
    )
    network = CausalCNN(CausalCNNConfig(**bank.trunk_facts["model_config"])).eval()
    mixed = network.config.mixed_frames
    with torch.no_grad():
        _fill(network.stem.weight, next(found))
        _only_add(network.stem_bn, next(found))
        for band in network.bands:
            assert isinstance(band, BandBlock)
            _fill(band.conv.weight, next(found))
            _only_add(band.bn, next(found))
        rows = next(found)
        _fill(network.mix.weight, rows.reshape(len(rows), mixed, -1).transpose(0, 2, 1))
        _only_add(network.mix_bn, next(found))
        for block in network.blocks:
            assert isinstance(block, CausalBlock)
            _fill(block.depthwise.weight, next(found).T[:, None])
            _fill(block.pointwise.weight, next(found)[:, :, None])
            _only_add(block.bn, next(found))
        _fill(network.fc.weight, next(found))
        _fill(network.fc.bias, next(found))
    return network


def _fill(parameter: Tensor, values: Array) -> None:
    assert parameter.shape == values.shape
    parameter.copy_(torch.from_numpy(np.ascontiguousarray(values)))


def _only_add(norm: nn.BatchNorm1d | nn.BatchNorm2d, values: Array) -> None:
    """Have a batch norm add `values`, and nothing else."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.weight.fill_(1.0)
    norm.running_mean.fill_(0.0)
    norm.running_var.fill_(1.0 - norm.eps)
    _fill(norm.bias, values)


@dataclass(frozen=True)
class Hearing:
    """What a model hears: `heard` of so many takes, `events` in so many seconds of sound without a word."""

    heard: int
    takes: int
    events: int
    seconds: float


@dataclass(frozen=True)
class Written:
    """A model that was written, what it hears, and what the artefact hears that it was made from."""

    path: Path
    found: Hearing
    expected: Hearing
    largest_difference: float


def takes_of(artefact: Path, recordings: Sequence[Path], seed: int = 0) -> tuple[list[Take], dict[str, str]]:
    """Takes in recordings, or else of the artefact's words by synthetic voices; what is not used, with the reason.

    Raises ModelError for another artefact, UsageError if there are none.
    """
    names = names_of(artefact)
    if recordings:
        found = read_takes(recordings)
        takes, passed_over = list(found.takes), dict(found.passed_over)
    else:
        rng, takes, passed_over = np.random.default_rng(seed), [], {}
        for name in names:
            said, failed = spoken(name, Say(takes=SPOKEN), rng)
            takes += said
            passed_over |= failed
    if not takes:
        name, reason = next(iter(passed_over.items()))
        raise UsageError(f"found no take of the words ({name}: {reason}), expected recordings of them")
    if len(takes) > MOST_TAKES:
        passed_over[f"{len(takes) - MOST_TAKES} of {len(takes)} takes"] = f"{MOST_TAKES} are enough"
    return takes[:MOST_TAKES], passed_over


class Converter:
    """Writes LiteRT models of an artefact of `enroll`, each only if it hears what the artefact hears.

    `takes` are of the artefact's words. On them, as they are and in noise, and on the bank's sounds models are compared
    with the artefact; ranges of integers are taken from them too. The bank is the package's, unless it is named. Raises
    ModelError for another artefact or another bank than it was made with, UsageError if it hears less than half of the
    takes.
    """

    def __init__(self, artefact: Path, takes: Sequence[Take], bank_path: Path | None = None) -> None:
        bank = ground_of(bank_path, models=[artefact])
        words, self._model = read_words(artefact, bank), StreamModel(artefact)
        self._module = OwnWords(network_of(bank), [word.head for word in words])
        self._thresholds = np.array([word.threshold for word in words])
        self._config = FeatureConfig(**self._model.metadata.feature_config)
        self._hop = self._model.hop
        rng = np.random.default_rng(0)
        lead = (self._module.n_frames + self._first()) * self._config.hop
        self._takes = [one for take in takes for one in _in_quiet_and_noise(take, lead, bank, rng)]
        self._others = [np.concatenate(bank.speech), np.concatenate(bank.noises)]
        sounds = [*(take.audio for take in self._takes), *self._others]
        self._windows = [self._windows_of(sound) for sound in sounds]
        self._answers = [self._model.stream().process(sound) for sound in sounds]
        self.expected = self._hearing(self._answers)
        if 2 * self.expected.heard < self.expected.takes:
            raise UsageError(
                f"{artefact}: hears {self.expected.heard} of {self.expected.takes} takes, half of them in noise, "
                "expected at least half; give recordings of its words with --recordings"
            )

    def write(self, out: Path) -> Iterator[Written]:
        """Write `out`, NAME.tflite, in float32, NAME.int8.tflite, and NAME.h with the bytes of the latter.

        Gives each model that is written. Raises KwsError, and writes nothing more, if one differs too much.
        """
        model = converted(self._module, torch.zeros(1, self._config.n_mels, self._module.n_frames, 1))
        written = self._compared(out, model)
        if not written.largest_difference <= TOLERANCE:
            raise KwsError(
                f"{out}: not written, because its probabilities differ from the artefact's by "
                f"{written.largest_difference:.1e}, expected at most {TOLERANCE:g}; please report this"
            )
        metadata = self._metadata(out.stem)
        write_bytes(out, with_metadata(model, properties_of(metadata)))
        yield written

        small = out.with_suffix(".int8.tflite")
        calibration = self._calibration()
        model = quantized(model, calibration)
        written = self._compared(small, model)
        if written.found.heard < self.expected.heard - 1 - LOST * self.expected.takes:
            raise KwsError(
                f"{small}: not written, because it hears {written.found.heard} of {self.expected.takes} takes, where "
                f"the artefact hears {self.expected.heard}; keep it in float32, or give other recordings"
            )
        quantization = quantization_of(model)
        metadata = replace(metadata, precision="int8", calibration_clips=len(calibration))
        model = with_metadata(model, properties_of(metadata, quantization))
        write_bytes(small, model)
        write_bytes(out.with_suffix(".h"), c_header(model, metadata, quantization).encode())
        yield written

    def _first(self) -> int:
        """Frames at the start of a sound that reach back before it, in whole hops."""
        return -(-self._config.n_fft // self._hop) * self._hop // self._config.hop

    def _windows_of(self, sound: Samples) -> Array:
        """What a model takes at each hop of a sound that has all that it depends on before it."""
        whole = torch.from_numpy(sound[: len(sound) // self._hop * self._hop].astype(np.float32))
        with torch.inference_mode():
            features = normalize(LogMel(self._config)(whole), asdict(self._model.metadata.stats))[0, 0].numpy()
        late = features[:, self._first() :]
        found = np.lib.stride_tricks.sliding_window_view(late, self._module.n_frames, axis=1)
        windows: Array = found[:, :: self._hop // self._config.hop].transpose(1, 0, 2)[..., None]
        return windows

    def _calibration(self) -> Array:
        rng = np.random.default_rng(0)
        n_takes = len(self._takes)
        parts = []
        for windows in (self._windows[:n_takes], self._windows[n_takes:]):
            at = [(i, j) for i, one in enumerate(windows) for j in range(len(one))]
            chosen = rng.permutation(len(at))[: CALIBRATION // 2]
            parts += [windows[at[k][0]][at[k][1]] for k in chosen]
        return np.stack(parts)

    def _compared(self, path: Path, model: bytes) -> Written:
        """A model asked about every window."""
        answers, difference = [], 0.0
        for known, windows in zip(self._answers, self._windows, strict=True):
            found = run(model, windows)
            late = known[len(known) - len(found) :]
            difference = max(difference, float(np.abs(found - late).max()))
            answers.append(np.concatenate([np.zeros_like(known[: len(known) - len(found)]), found]))
        return Written(path, self._hearing(answers), self.expected, difference)

    def _hearing(self, answers: Sequence[Array]) -> Hearing:
        """What is heard where probabilities (hops, 1 + words) are these."""
        over = [(rows[:, 1:] - self._thresholds).max(1) for rows in answers]
        of_takes, of_others = over[: len(self._takes)], over[len(self._takes) :]
        ends = [take.stop / self._hop for take in self._takes]
        heard = sum(word_score(rows, end, self._hop) >= 0 for rows, end in zip(of_takes, ends, strict=True))
        apart = round(REFRACTORY_S * SAMPLE_RATE / self._hop)
        events = sum(int((rows[peaks_of(rows, apart)] >= 0).sum()) for rows in of_others)
        return Hearing(heard, len(self._takes), events, sum(map(len, self._others)) / SAMPLE_RATE)

    def _metadata(self, name: str) -> Metadata:
        features = torch.zeros(1, self._config.n_mels, self._module.n_frames, 1)
        return replace(
            self._model.metadata,
            name=name,
            kind="features",
            hop=0,
            look_back=self._module.n_frames * self._config.hop - self._model.metadata.window,
            macs=count_macs(self._module, features),
        )


def _in_quiet_and_noise(take: Take, lead: int, bank: Bank, rng: np.random.Generator) -> list[Variant]:
    """A take as it is, with `lead` samples and more before it, and the same in noise."""
    plain = as_it_is(take)
    audio = np.concatenate([faint_noise(lead, rng), plain.audio, faint_noise(round(TAIL_S * SAMPLE_RATE), rng)])
    quiet = Variant(audio, lead + plain.start, lead + plain.stop)
    noise = bank.noises[int(rng.integers(len(bank.noises)))]
    return [quiet, replace(quiet, audio=under_noise(quiet, noise, SNR_DB, rng))]
