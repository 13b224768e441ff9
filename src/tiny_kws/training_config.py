"""What networks and trainings are made of, without torch: sizes, recipes, and every default of them once."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .config import FeatureConfig


@dataclass(frozen=True)
class DSCNNConfig:
    """The depthwise-separable CNN of Zhang et al. 2017 (arXiv:1711.07128) in the reference's size."""

    n_classes: int = 12
    width: int = 160
    n_blocks: int = 4
    dropout: float = 0.2


FRAMES_OF_STEM = 2
"""Frames of features that the streaming network's first layer makes one of."""


@dataclass(frozen=True)
class CausalCNNConfig:
    """The streaming network: convolutions over frequency and time, then depthwise-separable ones over time.

    After Choi et al. 2019 (TC-ResNet, arXiv:1904.03814) and Zhang et al. 2017, made causal. `kernel` counts frames of
    20 ms. With `n_band_blocks` the frequency bands are halved once more, and looked at in so many 3 x 3 convolutions of
    `band_channels`, before they are mixed. Width 32 with 4 blocks and 8 channels has about 10,000 parameters, width 184
    with 7 blocks 300,000.
    """

    n_classes: int = 12
    n_mels: int = FeatureConfig.n_mels
    stem_channels: int = 16
    width: int = 112
    n_blocks: int = 6
    kernel: int = 9
    dropout: float = 0.0
    n_band_blocks: int = 0
    band_channels: int = 24
    mixed_frames: int = 1
    """Frames of 20 ms that are mixed into one, so that the layers over time have fewer of them to look at."""
    pooled_frames: int = 50
    """Frames, after they are mixed, that a clip answer is the mean of: the window.

    Training takes it, and `n_classes`, from the data.
    """

    @property
    def frames_per_answer(self) -> int:
        """Frames of features from one answer to the next."""
        return FRAMES_OF_STEM * self.mixed_frames

    @property
    def window_frames(self) -> int:
        """Frames of features that a clip answer is the mean over."""
        return self.pooled_frames * self.frames_per_answer


TRUNK = CausalCNNConfig(
    n_classes=64, n_band_blocks=3, band_channels=24, width=152, n_blocks=8, kernel=5, mixed_frames=2, pooled_frames=2
)
"""The network whose frames tell any words apart: its answers are vectors, each the mean over 80 ms."""
TRUNK_SIZES = {
    "base": TRUNK,
    "micro": replace(TRUNK, n_classes=32, stem_channels=8, n_band_blocks=2, band_channels=12, width=40, n_blocks=6),
}
"""The trunk in its sizes: about 276,000 and 23,000 parameters."""

NetworkConfig = DSCNNConfig | CausalCNNConfig
"""What a network is made of; which one it is of follows from its type."""

CAUSAL_SIZES = {
    "micro": CausalCNNConfig(stem_channels=8, n_band_blocks=2, band_channels=12, width=28, n_blocks=4),
    "small": CausalCNNConfig(stem_channels=12, n_band_blocks=3, band_channels=16, width=72, n_blocks=5),
    "base": CausalCNNConfig(stem_channels=16, n_band_blocks=3, band_channels=24, width=108),
    "large": CausalCNNConfig(stem_channels=24, n_band_blocks=3, band_channels=40, width=184, n_blocks=7),
}
"""The streaming network in its sizes: about 10,000, 50,000, 115,000 and 350,000 parameters.

The largest shows what more parameters bring (`docs/LOG.md`); no weights of it are published.
"""


@dataclass(frozen=True)
class SoundRecipe:
    """How the sound of training is varied (`training/composing`); what single windows and streams have in common."""

    rare_word_clips: int = 60
    """Every other word is drawn as often as every other; one with fewer clips than this by its clips."""
    speeds: tuple[float, float] = (0.9, 1.1)
    fluent_speeds: tuple[float, float] = (0.9, 1.3)
    running_share: float = 0.5
    """Of fluent speech, where there is running speech; the rest is words end to end."""
    pause_share: float = 0.2
    """Of the words in fluent speech that a pause follows."""
    spliced_share: float = 0.0
    """Of the words in fluent speech that begin as a keyword does and go on as another word."""
    level_db: tuple[float, float] = (-12.0, 6.0)
    room_share: float = 0.35
    made_rooms: int = 300
    noise_share: float = 0.55
    """Noise at an SNR drawn from `snr_db`; in the others it is faint, but for `clean_share` without any."""
    snr_db: tuple[float, float] = (-3.0, 30.0)
    clean_share: float = 0.08
    noise_speeds: tuple[float, ...] = (1.0, 0.7, 1.4)
    """Every noise is there at each of them."""
    babble_share: float = 0.15
    """Of the noises: several voices at once."""
    warp: float = 0.08
    """Frequencies are moved by a factor of up to so much, as by another length of the vocal tract."""
    colour: float = 0.2
    """Spread of what a microphone adds to mel bands, in standard deviations of the features."""
    limited_share: float = 0.3
    """Of what is heard as through a narrow line, which takes high mel bands away; half as much loses low ones."""
    masked_bands: int = 0
    """Of the mel bands, a stretch of up to so many is masked in half; so are frames (SpecAugment)."""
    masked_frames: int = 0


@dataclass(frozen=True)
class StreamRecipe(SoundRecipe):
    """How streams to train on are composed. Shares are of streams unless said otherwise."""

    seconds: float = 3.4
    """For a window of up to a second; for a longer one, streams are longer in proportion."""
    keyword_share: float = 0.5
    """Of the slots of a window in streams of single words; the rest holds other words or nothing."""
    empty_share: float = 0.4
    """Of the slots that hold no keyword."""
    fluent_share: float = 0.25
    """Streams of other words end to end, as in fluent speech."""
    spliced_share: float = 0.3
    latency_ms: float = 80.0
    """After the end of a keyword, from which on it is to be heard."""
    hard_negatives: int = 0
    """Streams without keywords kept for an epoch: those in which the network was nearest to hear one; 0 for none."""
    candidates: int = 1536
    """Streams without keywords that they are chosen from."""
    hard_negative_share: float = 0.5
    """Of the fluent streams, which give way to them."""
    hard_share: float = 0.05
    """Of a stream's answers; those at which a keyword was nearest to be heard where there is none are trained on."""
    no_keyword_weight: float = 2.0


@dataclass(frozen=True)
class WindowRecipe(SoundRecipe):
    """How windows to train on are composed: a keyword, another word, fluent speech, or no word at all.

    Shares are of the windows of a batch; what is left holds no word.
    """

    keyword_share: float = 0.7
    other_share: float = 0.14
    fluent_share: float = 0.08
    shift_ms: float = 150.0
    """Words lie off the middle of the window by up to so much, but whole within it."""


@dataclass(frozen=True)
class TrunkRecipe(SoundRecipe):
    """How the trunk of own words is trained, on running speech whose phones and words are known in time."""

    epochs: int = 32
    batch_size: int = 32
    seconds: float = 4.0
    """Of a row of a batch."""
    learning_rate: float = 4e-3
    weight_decay: float = 1e-3
    warmup_steps: int = 300
    max_gradient_norm: float = 5.0
    delay_frames: int = 6
    """Frames of 10 ms that a phone is told after it was said."""
    word_weight: float = 1.0
    """Of telling words, against telling phones."""
    fewest: int = 3
    """Words said less often are not told."""
    word_bins: int = 15
    """Vectors of 80 ms that a word is told from."""
    word_size: int = 192
    word_delay: tuple[int, int] = (8, 24)
    """Frames of 10 ms after its end at which a word is told, drawn."""
    clip_share: float = 0.35
    """Of the rows that hold words said alone."""
    speeds: tuple[float, float] = (0.88, 1.14)
    room_share: float = 0.4
    noise_share: float = 0.8
    snr_db: tuple[float, float] = (-5.0, 25.0)
    masked_bands: int = 12
    masked_frames: int = 8
    seed: int = 0


HARD_NEGATIVES = 384
"""As many as are kept where they are asked for."""


@dataclass(frozen=True)
class TrainConfig:
    """The reference recipe: AdamW, cosine to zero, shift and background noise."""

    epochs: int = 30
    batch_size: int = 128
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    label_smoothing: float = 0.1
    shift_ms: float = 100.0
    noise_probability: float = 0.8
    noise_volume: float = 0.1
    seed: int = 0
    precision: str = "auto"
    """`float32`, `bfloat16` (autocast) or `auto`: bfloat16 where the processor multiplies in it."""
    warmup_steps: int = 0
    max_gradient_norm: float = 0.0
    """Longer gradients are shortened to it; 0 leaves them."""
    average_decay: float = 0.0
    """Of the moving average of the weights that is validated and kept; 0 keeps the weights themselves."""
    keep_last: bool = False
    """Keep the last epoch as the best, instead of the one with the highest validation accuracy, which is of clips."""
    frozen_batch_norm: bool = False
    """Normalise by the statistics that the first checkpoint came with, and leave them as they are."""
    teacher_weight: float = 0.5
    """Of a teacher's logits, where there is one, against the labels."""
    temperature: float = 2.0
    """That divides the logits of teacher and network before they are compared."""
    windows: WindowRecipe | None = None
    """Train on composed windows by this recipe instead of single clips."""
    streams: StreamRecipe | None = None
    """Train on composed streams by this recipe instead of single clips; beside `windows`, if both are given."""
    left_out: tuple[str, ...] = ()
    """Other words that training does not hear, so that words never heard can be measured."""


STREAM_TRAINING = TrainConfig(
    epochs=60,
    batch_size=64,
    learning_rate=4e-3,
    weight_decay=1e-3,
    label_smoothing=0.0,
    warmup_steps=300,
    max_gradient_norm=5.0,
    average_decay=0.999,
    keep_last=True,
    streams=StreamRecipe(fluent_share=0.4, running_share=0.75, latency_ms=200.0, candidates=3072),
)
"""The recipe of a network that listens; a batch is of streams, an epoch a pass over the keyword clips.

It answers 0.2 s after a word, so that what follows counts: *off* is not *office*."""
WINDOW_TRAINING = replace(
    STREAM_TRAINING, epochs=40, learning_rate=0.012, keep_last=False, streams=None, windows=WindowRecipe()
)
"""The recipe of the causal networks' first training; a batch is of windows, an epoch a pass over the keyword clips."""
MIXED_TRAINING = replace(
    WINDOW_TRAINING,
    epochs=10,
    learning_rate=1.5e-3,
    warmup_steps=100,
    keep_last=True,
    frozen_batch_norm=True,
    streams=StreamRecipe(),
)
"""Their second: on windows and half as many streams in each step, from the weights of the first."""


@dataclass(frozen=True)
class PrepareConfig:
    """How a task is drawn from recordings; shares are of the clips of a split's words.

    A share of None gives as many clips as a word has on average: a tenth for ten words.
    """

    unknown_share: float | None = None
    silence_share: float | None = None
    seed: int = 0
    window_ms: float = 1000.0
    """Of a clip: what a network hears at once. Longer for phrases."""


CLIPS_PER_SHARD = 2048
"""Of prepared data written as tar archives: about 66 MB each."""
