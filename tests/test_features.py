"""The front end against librosa, against physics, and against itself in other forms."""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path

import librosa
import numpy as np
import numpy.typing as npt
import pytest
import soundfile as sf
import torch

from tiny_kws.config import CLIP_SAMPLES, SAMPLE_RATE, FeatureConfig
from tiny_kws.data.speech_commands import LABELS
from tiny_kws.training.features import LogMel, hz_to_mel, mel_to_hz, normalize

Samples = npt.NDArray[np.float32]
CAUSAL = FeatureConfig(centered=False)


def librosa_log_mel(audio: Samples) -> npt.NDArray[np.float64]:
    """The front end as librosa computes it in double precision, (64, frames)."""
    mel = librosa.feature.melspectrogram(
        y=audio.astype(np.float64),
        sr=16000,
        n_fft=400,
        hop_length=160,
        window="hann",
        center=True,
        pad_mode="reflect",
        power=2.0,
        n_mels=64,
        fmin=20.0,
        fmax=7600.0,
        htk=True,
        norm=None,
        dtype=np.float64,
    )
    return np.log(mel + 1e-6)


def difference(audio: Samples) -> float:
    """Largest difference between librosa's features and ours."""
    ours = LogMel()(torch.from_numpy(audio))[0, 0].numpy()
    return float(np.abs(ours - librosa_log_mel(audio)).max())


def tone(frequency_hz: float, amplitude: float = 0.5, samples: int = CLIP_SAMPLES) -> Samples:
    return (amplitude * np.sin(2 * np.pi * frequency_hz * np.arange(samples) / SAMPLE_RATE)).astype(np.float32)


def sounds() -> dict[str, Samples]:
    """Synthetic sound of every kind, each (16000,)."""
    rng = np.random.default_rng(0)
    clicks = np.zeros(CLIP_SAMPLES, np.float32)
    clicks[[0, 1, 5000, 9999, CLIP_SAMPLES - 1]] = [1, -1, 0.5, -1, 1]
    chirp_phase = 2 * np.pi * np.cumsum(np.linspace(20, 7900, CLIP_SAMPLES)) / SAMPLE_RATE
    return {
        "silence": np.zeros(CLIP_SAMPLES, np.float32),
        "low tone": tone(60.0),
        "tone": tone(1000.0),
        "high tone": tone(7500.0),
        "full-scale tone": tone(440.0, amplitude=1.0),
        "full-scale square": np.sign(tone(997.0)),
        "faint tone": tone(1000.0, amplitude=1e-5),
        "constant": np.full(CLIP_SAMPLES, 0.9, np.float32),
        "noise": rng.normal(0, 0.1, CLIP_SAMPLES).astype(np.float32),
        "full-scale noise": rng.uniform(-1, 1, CLIP_SAMPLES).astype(np.float32),
        "faint noise": rng.normal(0, 1e-4, CLIP_SAMPLES).astype(np.float32),
        "clicks": clicks,
        "chirp": np.sin(chirp_phase).astype(np.float32),
    }


@pytest.mark.parametrize("name", sounds())
def test_librosa_agrees(name: str) -> None:
    """On synthetic sound of any kind, no value differs from librosa's by more than 1e-4."""
    assert difference(sounds()[name]) < 1e-4


@pytest.mark.parametrize("samples", [400, 15_999, 16_001, 40_000])
def test_librosa_agrees_on_other_lengths(samples: int) -> None:
    """Frames of longer and shorter recordings are librosa's too."""
    noise = np.random.default_rng(samples).normal(0, 0.1, samples).astype(np.float32)
    assert difference(noise) < 1e-4


@pytest.mark.data
def test_librosa_agrees_on_recordings(shared_data: Path) -> None:
    """On ten recordings of each of the twelve labels, no value differs from librosa's by more than 1e-4."""
    clips_of: dict[str, int] = dict.fromkeys(LABELS, 0)
    worst = 0.0
    with zipfile.ZipFile(shared_data / "speech_commands-test-sample.zip") as archive:
        for name in archive.namelist():
            audio, rate = sf.read(io.BytesIO(archive.read(name)), dtype="float32")
            assert rate == SAMPLE_RATE
            clips_of[name.split("/")[-2].strip("_")] += 1
            worst = max(worst, difference(audio))
    assert set(clips_of.values()) == {10}
    assert worst < 1e-4


def test_a_tone_lands_in_its_own_band() -> None:
    """A tone at a band's centre is loudest in that band, in every frame that lies wholly in it."""
    edges = torch.linspace(*hz_to_mel(torch.tensor([20.0, 7600.0])).tolist(), 66)
    centres = mel_to_hz(edges)[1:-1]
    audio = torch.stack([torch.from_numpy(tone(float(hz))) for hz in centres])
    loudest = LogMel()(audio)[:, 0, :, 2:-2].argmax(1)
    assert torch.equal(loudest, torch.arange(64)[:, None].expand_as(loudest))


def test_mel_scale() -> None:
    """1000 Hz is 1000 mel to within a tenth, and mel_to_hz undoes hz_to_mel."""
    hertz = torch.tensor([0.0, 20.0, 440.0, 1000.0, 7600.0], dtype=torch.float64)
    assert float(hz_to_mel(hertz)[3]) == pytest.approx(1000.0, abs=0.1)
    torch.testing.assert_close(mel_to_hz(hz_to_mel(hertz)), hertz)


def test_shapes() -> None:
    """A batch gives (batch, 1, 64, 101), a single recording a batch of one, both the same values."""
    audio = torch.from_numpy(np.stack([sounds()["noise"], sounds()["tone"]]))
    features = LogMel()(audio)
    assert features.shape == (2, 1, 64, 101)
    single = LogMel()(audio[0])
    assert single.shape == (1, 1, 64, 101)
    torch.testing.assert_close(single, features[:1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(), (2, 1, 16000)])
def test_a_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    """Anything but one or two dimensions is a ValueError that says what was expected."""
    with pytest.raises(ValueError, match=r"audio is \(.*\), expected \(samples,\) or \(batch, samples\)"):
        LogMel()(torch.zeros(shape))


@pytest.mark.parametrize("config", [FeatureConfig(), CAUSAL])
def test_silence(config: FeatureConfig) -> None:
    """Digital silence is log(1e-6) everywhere."""
    features = LogMel(config)(torch.zeros(CLIP_SAMPLES))
    torch.testing.assert_close(features, torch.full_like(features, math.log(1e-6)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_features_are_float32(dtype: torch.dtype) -> None:
    """Features are float32 whatever floats come in."""
    assert LogMel()(torch.zeros(CLIP_SAMPLES, dtype=dtype)).dtype == torch.float32


def test_autocast_changes_nothing() -> None:
    """Under autocast to bfloat16 the features are the same bit for bit."""
    audio = torch.from_numpy(sounds()["chirp"])
    log_mel = LogMel()
    expected = log_mel(audio)
    with torch.autocast("cpu", torch.bfloat16):
        found = log_mel(audio)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_single_precision_is_close() -> None:
    """The quick front end of training is within 4e-3 of the exact one, even beside a loud tone."""
    time_s = torch.arange(CLIP_SAMPLES) / SAMPLE_RATE
    loud_tone = 0.9 * torch.sin(2 * math.pi * 440 * time_s)
    noise = 0.1 * torch.randn(CLIP_SAMPLES, generator=torch.Generator().manual_seed(0))
    for audio in (loud_tone, noise, torch.zeros(CLIP_SAMPLES)):
        quick, exact = LogMel(precision=torch.float32)(audio), LogMel()(audio)
        assert quick.dtype == torch.float32
        assert (quick - exact).abs().max() < 4e-3


def test_front_end_has_no_weights() -> None:
    """The front end adds nothing to a state dict, so it never disagrees with the code."""
    assert LogMel().state_dict() == {}


@pytest.mark.parametrize("config", [FeatureConfig(), CAUSAL])
@pytest.mark.parametrize("samples", [400, 1599, 1600, 16_000, 23_456])
def test_number_of_frames(config: FeatureConfig, samples: int) -> None:
    """A recording of any length has as many frames as its config says."""
    assert LogMel(config)(torch.zeros(samples)).shape[3] == config.n_frames(samples)


@pytest.mark.parametrize("frame", [0, 1, 2, 50, 98])
def test_causal_frames_know_no_future(frame: int) -> None:
    """Causal frame t does not depend on any sample after 160 (t + 1)."""
    audio = torch.from_numpy(sounds()["noise"])
    changed = audio.clone()
    changed[160 * (frame + 1) :] = torch.from_numpy(sounds()["full-scale noise"])[160 * (frame + 1) :]
    log_mel = LogMel(CAUSAL)
    before, after = log_mel(audio), log_mel(changed)
    assert before.shape == (1, 1, 64, 100)
    assert torch.equal(before[..., : frame + 1], after[..., : frame + 1])
    assert not torch.equal(before[..., frame + 1], after[..., frame + 1])


def test_causal_frames_use_all_they_may() -> None:
    """Causal frame t does depend on samples just before 160 (t + 1)."""
    audio = torch.from_numpy(sounds()["noise"])
    changed = audio.clone()
    changed[160 * 50 + 100 : 160 * 51] = 1.0
    before, after = LogMel(CAUSAL)(audio), LogMel(CAUSAL)(changed)
    assert not torch.equal(before[..., 50], after[..., 50])


def test_causal_frames_are_centred_frames_later() -> None:
    """Away from the edges a causal frame is a centred one: both cut the same samples when moved by 120 samples."""
    audio = torch.from_numpy(sounds()["noise"])
    centred = LogMel()(audio)  # frame t is samples 160 t - 200 to 160 t + 200
    causal = LogMel(CAUSAL)(torch.nn.functional.pad(audio, (120, 0))[:CLIP_SAMPLES])  # 160 t - 360 to 160 t + 40
    torch.testing.assert_close(causal[..., 3:99], centred[..., 2:98], rtol=1e-5, atol=1e-5)


def test_causal_start_is_silence() -> None:
    """Before the start lies digital silence: a recording that begins with silence has the same later frames."""
    audio = torch.from_numpy(sounds()["noise"])
    later = torch.nn.functional.pad(audio, (1600, 0))
    torch.testing.assert_close(LogMel(CAUSAL)(later)[..., 10:], LogMel(CAUSAL)(audio), rtol=1e-5, atol=1e-5)


def test_normalize() -> None:
    """Features of the given mean and standard deviation come out with mean 0 and deviation 1."""
    features = torch.randn(10, 1, 64, 101, generator=torch.Generator().manual_seed(0)) * 4.0 - 6.5
    stats = {"mean": float(features.mean()), "std": float(features.std())}
    normalized = normalize(features, stats)
    assert normalized.shape == features.shape
    assert float(normalized.mean()) == pytest.approx(0.0, abs=1e-4)
    assert float(normalized.std()) == pytest.approx(1.0, abs=1e-4)
