"""A head with a hidden layer, trained for minutes on thousands of spoken variants: what `enroll --thorough` makes.

It begins with the head of logistic regression, and its logit is the mean of that one's and of what it has learnt: on
words that people say otherwise than voices do, the one misses less in quiet, the other in noise. Windows of the bank
are drawn anew in each step, half of those that are not the word from its hardest; noise on the vectors and units left
out at random (Srivastava 2014) keep it from learning the voices by heart. It is trained by Adam (Kingma & Ba 2015) with
weight decay (Loshchilov & Hutter 2019).
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..files import remove_abandoned_files, write_bytes
from .bank import Bank, Stretch
from .head import Head, Hidden, Rows, windows
from .learn import NEAR_WEIGHT, Heard, Teacher
from .takes import Take

Indices = npt.NDArray[np.intp]
UNITS = 48
EPOCHS, STEPS = 5, 150
"""Epochs of a head, and steps of an epoch; with each epoch the hardest windows are looked for again."""
BATCH = (256, 512, 256, 128)
"""Windows of a step: of the word, drawn from the bank, of its hardest, and of recordings around the word."""
HARDEST = 20_000
LEARNING_RATE, WEIGHT_DECAY = 2e-3, 1e-2
MOMENTS = (0.9, 0.999)
NOISE = 0.6
"""The deviation of the noise on each number of a vector, whose own deviation is 1."""
DROPPED = 0.2
"""The share of inputs, and of units, that a step does without."""
FIRST_GAINS = 0.1
"""Of the units at first, against what is usual: the linear head is nearly right already."""
DIGEST_BYTES = hashlib.sha256().digest_size
"""At the end of what is kept."""
TIMED_STEPS = 20
"""After which the time of all is told."""


@dataclass
class Progress:
    """Where a training is kept until its model is written, and who is told of it, in sentences."""

    path: Path | None = None
    tell: Callable[[str], object] = field(default=lambda _: None)

    def forget(self) -> None:
        """The model is there, and what was kept is not needed."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
            remove_abandoned_files(self.path)


def fingerprint_of(recorded: Sequence[Take], voiced: Sequence[Take]) -> str:
    """What tells takes from all others: the sound of recorded ones, the speaker and the length of those of voices.

    A voice need not say a text alike to the last bit each time, and Pico does not.
    """
    found = hashlib.sha256()
    for take in recorded:
        found.update(take.audio.tobytes() + repr((take.start, take.stop)).encode())
    found.update(repr([(take.name, len(take.audio)) for take in voiced]).encode())
    return found.hexdigest()


class ThoroughTeacher(Teacher):
    """A Teacher whose heads have a hidden layer.

    `n_heads` is how many of them will be asked for, `fingerprint` tells what they learn from, apart from the bank.
    """

    def __init__(
        self,
        bank: Bank,
        heard: Sequence[Heard],
        n_bins: int,
        rng: np.random.Generator,
        clips: Sequence[Heard] = (),
        near: Sequence[Heard] = (),
        progress: Progress | None = None,
        n_heads: int = 1,
        fingerprint: str = "",
    ) -> None:
        super().__init__(bank, heard, n_bins, rng, clips, near)
        self._progress = progress or Progress()
        self._seed = int(rng.integers(2**32))
        self._steps = _Steps(n_heads, self._progress)
        settings = (fingerprint, self._seed, n_bins, UNITS, EPOCHS, STEPS, NEAR_WEIGHT)
        key = hashlib.sha256(bank.vectors.tobytes() + repr(settings).encode())
        self._saved = _Saved(self._progress.path, key.hexdigest())

    def learn(self) -> Head:
        """The head of all examples and the whole bank."""
        return self._trained(super().learn(), [], [])

    def without(self, takes: Sequence[int], stretches: Sequence[Stretch]) -> Head:
        """The head that knows neither some takes or clips, by number, nor some stretches of the bank."""
        return self._trained(super().without(takes, stretches), takes, stretches)

    def _trained(self, start: Head, takes: Sequence[int], stretches: Sequence[Stretch]) -> Head:
        number = self._steps.begin()
        training = _Training(start, np.random.default_rng((self._seed, number)))
        self._saved.restore(number, training)
        known = ~np.isin(self._take_of, list(takes))
        of_word = np.flatnonzero(known[: self._n_word])
        around = self._n_word + np.flatnonzero(known[self._n_word :])
        of_bank = self._bank_without(stretches)
        while training.epoch < EPOCHS:
            hardest = self._hardest(training.head(), of_bank)
            for _ in range(STEPS):
                training.step(self._drawn(training.rng, of_word, of_bank, hardest, around), BATCH[0])
                self._steps.done()
            self._saved.keep(number, training)
        return _halfway(start, training.head())

    def _bank_without(self, stretches: Sequence[Stretch]) -> Indices:
        """The rows of the bank at which a window ends, but for those of some stretches."""
        free = np.arange(len(self.bank.vectors)) >= self.n_bins - 1
        for stretch in stretches:
            free[stretch.start : stretch.stop] = False
        return np.flatnonzero(free)

    def _hardest(self, head: Head, of_bank: Indices) -> Indices:
        scores = head.score(self.bank.vectors)[of_bank]
        return of_bank[np.argsort(-scores, kind="stable")[:HARDEST]]

    def _drawn(
        self, rng: np.random.Generator, of_word: Indices, of_bank: Indices, hardest: Indices, around: Indices
    ) -> Rows:
        """The windows of a step, those of the word first."""
        n_word, n_bank, n_hardest, n_around = BATCH
        at = np.concatenate([rng.choice(of_bank, n_bank), rng.choice(hardest, n_hardest)])
        counts = np.where(around < len(self._take_of) - self._n_near, 1.0, NEAR_WEIGHT)
        drawn = rng.choice(around, n_around, p=counts / counts.sum()) if len(around) else around
        examples = [rng.choice(of_word, n_word), drawn]
        of_takes = self._rows[np.concatenate(examples)]
        return np.concatenate([of_takes, windows(self.bank.vectors, at, self.n_bins)])


def _halfway(linear: Head, trained: Head) -> Head:
    """The head whose logit is the mean of both."""
    assert trained.hidden is not None
    half = np.float32(0.5)
    hidden = replace(trained.hidden, gains=half * trained.hidden.gains)
    return Head(half * (linear.weights + trained.weights), (linear.bias + trained.bias) / 2, hidden)


class _Training:
    """A head that is being trained: its parameters, the moments of their slopes, and the numbers drawn so far."""

    def __init__(self, start: Head, rng: np.random.Generator) -> None:
        size, self.shape, self.rng, self.steps = start.weights.size, start.weights.shape, rng, 0
        units = rng.standard_normal((size, UNITS)) * np.sqrt(2 / size)
        gains = rng.standard_normal(UNITS) * FIRST_GAINS * np.sqrt(2 / UNITS)
        first = (start.weights.ravel(), np.array([start.bias]), units, np.zeros(UNITS), gains)
        self.values = [value.astype(np.float32) for value in first]
        self.means = [np.zeros_like(value) for value in self.values]
        self.squares = [np.zeros_like(value) for value in self.values]

    @property
    def epoch(self) -> int:
        """Whole epochs so far."""
        return self.steps // STEPS

    def head(self) -> Head:
        """The head as it is now."""
        weights, bias, units, biases, gains = (value.copy() for value in self.values)
        return Head(weights.reshape(self.shape), float(bias[0]), Hidden(units, biases, gains))

    def step(self, rows: Rows, n_word: int) -> None:
        """Learn from windows (n, bins * size), of which the first `n_word` are of the word."""
        rows += np.float32(NOISE) * self.rng.standard_normal(rows.shape, np.float32)
        weights, bias, units, biases, gains = self.values
        seen = rows * self._kept(rows.shape)
        active = seen @ units + biases
        passes = (active > 0) * self._kept(active.shape)
        active *= passes
        logits = rows @ weights + bias + active @ gains
        targets = (np.arange(len(rows)) < n_word).astype(np.float32)
        errors = ((1 / (1 + np.exp(-logits)) - targets) / np.float32(len(rows))).astype(np.float32)
        back = errors[:, None] * gains * passes
        self._follow([rows.T @ errors, errors.sum(keepdims=True), seen.T @ back, back.sum(0), active.T @ errors])

    def _kept(self, shape: tuple[int, ...]) -> Rows:
        """A mask that leaves out DROPPED of what it is put over, and makes up for it."""
        kept: Rows = (self.rng.random(shape, np.float32) >= DROPPED).astype(np.float32)
        return kept / np.float32(1 - DROPPED)

    def _follow(self, slopes: Sequence[Rows]) -> None:
        rate = LEARNING_RATE * 0.5 * (1 + np.cos(np.pi * self.steps / (EPOCHS * STEPS)))
        self.steps += 1
        first, second = MOMENTS
        for i, slope in enumerate(slopes):
            self.means[i] += (1 - first) * (slope - self.means[i])
            self.squares[i] += (1 - second) * (slope * slope - self.squares[i])
            if slope.ndim > 1:
                self.values[i] *= np.float32(1 - rate * WEIGHT_DECAY)
            size = np.sqrt(self.squares[i] / np.float32(1 - second**self.steps)) + np.float32(1e-8)
            self.values[i] -= np.float32(rate / (1 - first**self.steps)) * self.means[i] / size


class _Steps:
    """Counts the steps of all heads, and tells how long they will take once that is known."""

    def __init__(self, n_heads: int, progress: Progress) -> None:
        self._heads, self._progress = n_heads, progress
        self._number = self._timed = 0
        self._began = 0.0

    def begin(self) -> int:
        """Another head; its number."""
        self._number += 1
        self._timed, self._began = 0, time.monotonic()
        return self._number

    def done(self) -> None:
        """Another step."""
        self._timed += 1
        if self._timed == TIMED_STEPS:
            left = (self._heads - self._number + 1) * EPOCHS * STEPS
            minutes = (time.monotonic() - self._began) / TIMED_STEPS * left / 60
            self._progress.tell(f"network {self._number} of {self._heads}, about {max(1, round(minutes))} min left")


class _Saved:
    """What the heads of one request have reached, in a file; another request begins anew."""

    def __init__(self, path: Path | None, key: str) -> None:
        self._path, self._key = path, key
        self._states: dict[str, npt.NDArray[Any]] = {}
        if path is not None:
            self._read(path)

    def restore(self, number: int, training: _Training) -> None:
        """Bring a training to where it was when it was kept, if it was."""
        if f"{number}/facts" not in self._states:
            return
        facts = json.loads(str(self._states[f"{number}/facts"]))
        for name, values in _arrays(training):
            values[...] = self._states[f"{number}/{name}"]
        training.steps = facts["steps"]
        training.rng.bit_generator.state = facts["rng"]

    def keep(self, number: int, training: _Training) -> None:
        """Write down where a training is; whole or not at all."""
        if self._path is None:
            return
        facts = {"steps": training.steps, "rng": training.rng.bit_generator.state}
        self._states[f"{number}/facts"] = np.array(json.dumps(facts))
        self._states |= {f"{number}/{name}": values.copy() for name, values in _arrays(training)}
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, key=np.array(self._key), **self._states)
        write_bytes(self._path, content.getvalue() + hashlib.sha256(content.getvalue()).digest())

    def _read(self, path: Path) -> None:
        """Of a file that is damaged, or is another one, nothing is read."""
        if not path.is_file():
            return
        data = path.read_bytes()
        content, digest = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
        if hashlib.sha256(content).digest() != digest:
            return
        with np.load(io.BytesIO(content), allow_pickle=False) as found:
            if str(found["key"]) == self._key:
                self._states = {name: found[name] for name in found.files if name != "key"}


def _arrays(training: _Training) -> Iterator[tuple[str, Rows]]:
    for kind in ("values", "means", "squares"):
        for i, values in enumerate(getattr(training, kind)):
            yield f"{kind}{i}", values
