"""Augmentation: bounds, statistics, and draws that follow from the generator alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tiny_kws.config import CLIP_SAMPLES
from tiny_kws.training.augment import (
    add_noise,
    augment,
    colour_bands,
    limit_bands,
    mask_bands,
    mask_frames,
    random_shift,
    warp_bands,
)
from tiny_kws.training.features import hz_to_mel
from tiny_kws.training_config import TrainConfig

from .tones import seeded


def sound(rows: int, samples: int = CLIP_SAMPLES, seed: int = 1) -> Tensor:
    """Uniform noise in [-0.5, 0.5], (rows, samples)."""
    return torch.rand(rows, samples, generator=seeded(seed)) - 0.5


def noise(seconds: int = 3) -> Tensor:
    return sound(1, seconds * CLIP_SAMPLES, seed=2)[0]


def find_shift(before: Tensor, after: Tensor, max_shift: int) -> int:
    """The one shift by which `after` is `before`, with zeros filled in."""
    found = []
    for shift in range(-max_shift, max_shift + 1):
        expected = torch.zeros_like(before)
        if shift >= 0:
            expected[shift:] = before[: len(before) - shift]
        else:
            expected[:shift] = before[-shift:]
        if torch.equal(expected, after):
            found.append(shift)
    assert len(found) == 1, found
    return found[0]


def test_shift_moves_and_fills_with_zeros() -> None:
    """Each row is moved whole, later or earlier, and digital silence fills the gap."""
    audio = sound(8, 300)
    shifted = random_shift(audio, 20, seeded())
    assert shifted.shape == audio.shape
    for before, after in zip(audio, shifted, strict=True):
        find_shift(before, after, 20)


def test_every_shift_occurs() -> None:
    """Shifts are uniform from -max_shift to max_shift, both ends included."""
    audio = torch.arange(1.0, 21.0).repeat(7000, 1)
    middle = random_shift(audio, 3, seeded())[:, 10]
    counts = torch.bincount((11 - middle).long() + 3, minlength=7)
    assert len(counts) == 7
    assert bool(((counts > 850) & (counts < 1150)).all())


def test_shift_by_nothing() -> None:
    """A largest shift of zero leaves the audio as it is."""
    audio = sound(2, 100)
    assert torch.equal(random_shift(audio, 0, seeded()), audio)


def test_rows_shift_on_their_own() -> None:
    """Equal rows get different shifts."""
    audio = sound(1, 300).repeat(16, 1)
    shifts = {find_shift(audio[0], row, 50) for row in random_shift(audio, 50, seeded())}
    assert len(shifts) > 8


def test_noise_comes_with_its_probability() -> None:
    """Of many rows, the asked share gets noise and the others stay as they are."""
    audio = torch.zeros(4000, 50)
    noisy = add_noise(audio, noise()[:2000], 0.8, 0.1, seeded())
    share = float((noisy != 0).any(1).float().mean())
    assert abs(share - 0.8) < 0.025


@pytest.mark.parametrize(("probability", "expected"), [(0.0, 0), (1.0, 500)])
def test_never_and_always(probability: float, expected: int) -> None:
    """A probability of zero adds noise to no row, one to all."""
    noisy = add_noise(torch.zeros(500, 50), noise()[:2000], probability, 0.1, seeded())
    assert int((noisy != 0).any(1).sum()) == expected


def test_volume_is_uniform() -> None:
    """Volumes are uniform between zero and the largest."""
    volume = add_noise(torch.zeros(4000, 10), torch.ones(100), 1.0, 0.1, seeded())[:, 0]
    counts = torch.histc(volume, 10, 0.0, 0.1)
    assert float(volume.max()) <= 0.1
    assert bool(((counts > 320) & (counts < 480)).all())


def test_noise_is_a_stretch_of_the_recording() -> None:
    """What is added is one contiguous stretch of the noise times one volume, anywhere from its start to its end."""
    ramp = torch.linspace(0.1, 1.0, 200)
    noisy = add_noise(torch.zeros(3000, 100), ramp, 1.0, 1.0, seeded())
    loud = noisy[noisy[:, 0] > 1e-3].double()
    # The first and last sample of a ramp give volume and start away: w * (a + b s), w * (a + b (s + 99)).
    volume = (loud[:, 99] - loud[:, 0]) / (ramp[99] - ramp[0])
    starts = ((loud[:, 0] / volume - ramp[0]) / (ramp[1] - ramp[0])).round().long()
    assert int(starts.min()) == 0
    assert int(starts.max()) == 100
    stretches = ramp.unfold(0, 100, 1)[starts]
    torch.testing.assert_close(loud, volume[:, None] * stretches, rtol=1e-3, atol=1e-5)


def test_noise_as_long_as_a_row() -> None:
    """Noise of exactly a row's length has one stretch: all of it."""
    stretch = noise()[:100]
    noisy = add_noise(torch.zeros(1, 100), stretch, 1.0, 1.0, seeded())[0]
    volume = float(noisy[0] / stretch[0])
    torch.testing.assert_close(noisy, stretch * volume, rtol=1e-5, atol=1e-7)


def test_noise_is_added() -> None:
    """The row itself is still there below the noise."""
    audio = sound(4, 100) * 0.5
    alone = add_noise(torch.zeros_like(audio), noise()[:200], 1.0, 0.1, seeded())
    torch.testing.assert_close(add_noise(audio, noise()[:200], 1.0, 0.1, seeded()), audio + alone)


def test_sums_are_clipped() -> None:
    """Full-scale sound with full-scale noise stays in [-1, 1]."""
    loud = torch.sign(sound(16, 500))
    noisy = add_noise(loud, torch.sign(noise()[:5000]), 1.0, 1.0, seeded())
    assert float(noisy.abs().max()) == 1.0


def test_rows_draw_noise_on_their_own() -> None:
    """Equal rows get different noise."""
    noisy = add_noise(torch.zeros(16, 100), noise(), 1.0, 0.1, seeded())
    assert len({tuple(row.tolist()) for row in noisy}) == 16


def test_same_seed_same_result() -> None:
    """The generator alone decides: equal seeds give equal batches, another seed another."""
    audio = sound(8)
    first, again, other = (augment(audio, noise(), TrainConfig(), seeded(seed)) for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_torchs_own_generator_is_left_alone() -> None:
    """Nothing is drawn from the process-wide generator."""
    before = torch.random.get_rng_state()
    augment(sound(2), noise(), TrainConfig(), seeded())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_inputs_are_not_changed() -> None:
    """Audio and noise are as they were before."""
    audio, recording = sound(8), noise()
    copies = audio.clone(), recording.clone()
    augment(audio, recording, TrainConfig(noise_probability=1.0), seeded())
    assert torch.equal(audio, copies[0])
    assert torch.equal(recording, copies[1])


def test_the_recipe_shifts_by_100_ms() -> None:
    """By default a row moves by at most 1,600 samples; without noise it is the row, moved."""
    audio = sound(6)
    config = TrainConfig(noise_probability=0.0)
    for before, after in zip(audio, augment(audio, noise(), config, seeded()), strict=True):
        assert abs(find_shift(before, after, 1650)) <= 1600


def test_the_recipe_keeps_shape_and_type() -> None:
    """(batch, 16000) float32 in [-1, 1] stays that."""
    after = augment(sound(3) * 2, noise(), TrainConfig(noise_volume=5.0), seeded())
    assert after.shape == (3, CLIP_SAMPLES)
    assert after.dtype == torch.float32
    assert float(after.abs().max()) <= 1.0


def features(rows: int, n_mels: int = 64) -> Tensor:
    """Features without any zero, (rows, 1, n_mels, 7)."""
    return 1.0 + torch.rand(rows, 1, n_mels, 7, generator=seeded(3))


def masks(most: int, rows: int = 3000, seed: int = 0) -> Tensor:
    """Which mel bands of each row were masked, (rows, 64)."""
    before = features(rows)
    after = mask_bands(before, most, seeded(seed))
    masked = (after == 0).all(3)[:, 0]
    assert torch.equal(after, before.masked_fill(masked[:, None, :, None], 0.0))
    return masked


def test_half_of_the_rows_are_masked() -> None:
    """About half of the rows lose bands, for all of their frames; everything else stays as it is."""
    share = float(masks(8).any(1).float().mean())
    assert abs(share - 0.5) < 0.03


def test_masks_are_one_stretch_of_bands() -> None:
    """What a row loses is one stretch of neighbouring bands, of every width up to the largest, anywhere."""
    masked = masks(8)
    changes = (masked[:, 1:] != masked[:, :-1]).sum(1)
    assert int(changes.max()) == 2
    widths = masked.sum(1)[~masked[:, -1] & masked.any(1)]  # those at the upper end are cut
    assert bool((torch.bincount(widths, minlength=9)[1:] > 120).all())
    assert int(widths.max()) == 8
    assert bool(masked.any(0).all())


def test_no_bands_to_mask() -> None:
    """With a width of zero nothing is masked, and nothing drawn."""
    generator = seeded()
    state = generator.get_state()
    before = features(5)
    assert torch.equal(mask_bands(before, 0, generator), before)
    assert torch.equal(generator.get_state(), state)


def test_masks_follow_from_the_generator() -> None:
    """Equal seeds mask the same bands, another seed others; the features given are left as they were."""
    assert torch.equal(masks(8, seed=1), masks(8, seed=1))
    assert not torch.equal(masks(8, seed=1), masks(8, seed=2))
    before = features(6)
    copy = before.clone()
    mask_bands(before, 8, seeded())
    assert torch.equal(before, copy)


def test_frames_are_masked_as_bands_are() -> None:
    """The same draws mask frames in place of bands: half of the rows, one stretch, in all bands."""
    before = torch.ones(400, 1, 64, 64)
    bands, frames = mask_bands(before, 10, seeded()), mask_frames(before, 10, seeded())
    assert torch.equal(frames, bands.transpose(2, 3))
    wide = mask_frames(torch.ones(4000, 1, 64, 100), 10, seeded())
    masked = (wide == 0).all(2)[:, 0]
    assert masked.sum(1).max() == 10
    assert bool(masked.any(0).all())
    assert torch.equal(mask_frames(before, 0, seeded()), before)


def peaks(rows: int, band: int) -> Tensor:
    """Features of one band that sounds, (rows, 1, 64, 2)."""
    lone = torch.zeros(rows, 1, 64, 2)
    lone[:, :, band] = 1.0
    return lone


def test_frequencies_are_moved_by_up_to_the_factor() -> None:
    """A band is heard where its frequency times or over a factor within the bounds lies, higher and lower alike."""
    low, high = hz_to_mel(torch.tensor([20.0, 7600.0])).tolist()
    mel_of = torch.arange(1, 65) * (high - low) / 65 + low
    hz = 700 * (10 ** (mel_of / 2595) - 1)
    warped = warp_bands(peaks(2000, 40), 0.1, seeded())[:, 0, :, 0]
    found = (warped * torch.arange(64)).sum(1) / warped.sum(1)
    bounds = [float((hz - hz[40] / factor).abs().argmin()) for factor in (1.1, 0.9)]
    assert bounds[0] <= 38
    assert bounds[1] >= 42
    assert bounds[0] - 1 <= float(found.min()) < bounds[0] + 1
    assert bounds[1] - 1 < float(found.max()) <= bounds[1] + 1
    assert 0.4 < float((found > 40).float().mean()) < 0.6


def test_what_is_even_over_the_bands_stays() -> None:
    """Moved bands are weighted means of their neighbours, at the ends too."""
    even = torch.rand(50, 1, 1, 5, generator=seeded(1)).expand(-1, -1, 64, -1)
    assert torch.allclose(warp_bands(even, 0.3, seeded()), even, atol=1e-5)


def test_half_of_the_rows_are_coloured() -> None:
    """The same curve for all frames of a row, without jumps, of the spread asked for; silence stays silence."""
    before = 1.0 + torch.rand(3000, 1, 64, 3, generator=seeded(1))
    curves = colour_bands(before, 0.2, seeded()) - before
    assert torch.allclose(curves, curves[..., :1].expand_as(curves), atol=1e-6)
    curves = curves[:, 0, :, 0]
    coloured = (curves != 0).any(1)
    assert abs(float(coloured.float().mean()) - 0.5) < 0.03
    assert abs(float(curves[coloured][:, [0, -1]].std()) - 0.2) < 0.02
    assert float((curves[:, 1:] - curves[:, :-1]).abs().max()) < 0.2
    assert not colour_bands(torch.zeros(9, 1, 64, 3), 0.2, seeded()).any()


def test_narrow_lines_take_the_ends() -> None:
    """High bands of a third of the rows, low ones of a sixth, ever more to the end, the same in all frames."""
    before = 3.0 + torch.rand(3000, 1, 64, 3, generator=seeded(1))
    lost = before - limit_bands(before, 1 / 3, seeded())
    assert torch.allclose(lost, lost[..., :1].expand_as(lost), atol=1e-6)
    lost = lost[:, 0, :, 0]
    assert abs(float((lost[:, -1] > 0).float().mean()) - 1 / 3) < 0.03
    assert abs(float((lost[:, 0] > 0).float().mean()) - 1 / 6) < 0.03
    assert float((lost[:, -1] * lost[:, 0] > 0).float().mean()) > 0.05
    assert float(lost.min()) > -1e-6
    assert float((lost[:, 16:-1] - lost[:, 17:]).max()) < 1e-6
    assert float((lost[:, 1:17] - lost[:, :16]).max()) < 1e-6
    assert 2.0 < float(lost.max()) < 2.4 + 1e-6


def test_silence_stays_on_a_narrow_line() -> None:
    """Where there is no sound none is taken, and no more than there is."""
    silent = -torch.rand(50, 1, 64, 3, generator=seeded(1))
    assert torch.equal(limit_bands(silent, 1.0, seeded()), silent)
    faint = torch.full((50, 1, 64, 3), 0.1)
    limited = limit_bands(faint, 1.0, seeded())
    assert float(limited.min()) == 0.0
    assert bool((limited <= faint).all())


@pytest.mark.parametrize("vary", [warp_bands, colour_bands, limit_bands])
def test_bands_that_are_not_varied(vary: Callable[..., Tensor]) -> None:
    """With zero nothing is changed and nothing drawn."""
    generator, before = seeded(), features(8)
    state = generator.get_state()
    assert torch.equal(vary(before, 0.0, generator), before)
    assert torch.equal(generator.get_state(), state)
    assert not torch.equal(vary(before, 0.1, seeded()), before)
