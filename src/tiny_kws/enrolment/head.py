"""The head of a word: logistic regression on the trunk's vectors of the last second or so, or a small network."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]
THRESHOLD = 0.5
"""The threshold of every word: its bias is set so that the word reaches it when it should."""
LATEST = 8
"""Steps that L-BFGS remembers."""
BLOCK = 8192
"""Windows that a hidden layer looks at together."""


@dataclass(frozen=True)
class Hidden:
    """Units of a hidden layer: their weights (bins * size, units), biases (units,) and gains in the logit (units,).

    A unit gives nothing below zero.
    """

    weights: Rows
    biases: Rows
    gains: Rows

    def score(self, windows: Rows) -> Rows:
        """What the units add to the logit of each window: (n, bins * size) to (n,)."""
        found: Rows = np.maximum(windows @ self.weights + self.biases, 0) @ self.gains
        return found


@dataclass(frozen=True)
class Head:
    """Weights (bins, size) of the latest vectors, the last row for the latest one, and a bias: to the word's logit.

    A thorough head has a hidden layer beside the linear one.
    """

    weights: Rows
    bias: float
    hidden: Hidden | None = None

    def score(self, vectors: Rows) -> Rows:
        """The logit after each of (n, size) vectors, (n,); before the first of them lie zeros.

        >>> Head(np.array([[1.0], [10.0]], np.float32), 0.0).score(np.array([[1.0], [2.0]], np.float32))
        array([10., 21.], dtype=float32)
        """
        n_bins = len(self.weights)
        products = vectors @ self.weights.T
        scores: Rows = (products[:, -1] + np.float32(self.bias)).astype(np.float32)
        for back in range(1, min(n_bins, len(vectors))):
            scores[back:] += products[:-back, n_bins - 1 - back]
        if self.hidden:
            for first in range(0, len(vectors), BLOCK):
                at = np.arange(first, min(first + BLOCK, len(vectors)))
                scores[at] += self.hidden.score(windows(vectors, at, n_bins))
        return scores


@dataclass(frozen=True)
class OwnWord:
    """A word with its head, its threshold and what its maker was told of it."""

    word: str
    head: Head
    threshold: float
    facts: dict[str, Any]


def windows(vectors: Rows, at: npt.NDArray[np.intp], n_bins: int) -> Rows:
    """The `n_bins` vectors up to each row of `at`, flattened: (len(at), n_bins * size); zeros before the first."""
    rows = at[:, None] + np.arange(1 - n_bins, 1)
    found: Rows = vectors[np.maximum(rows, 0)]
    found[rows < 0] = 0
    return found.reshape(len(at), n_bins * vectors.shape[1])


def fit(rows: Rows, targets: Rows, weights: Rows, decay: float, start: Rows | None = None, steps: int = 60) -> Rows:
    """Logistic regression: the coefficients (size + 1,), the bias last, that make the weighted loss least.

    `rows` (n, size), `targets` (n,) 0 or 1, `weights` (n,); `decay` times half the squared coefficients is added to
    the loss, which is a sum. By L-BFGS (Nocedal 1980) from `start`, or else zeros.
    """
    at = np.zeros(rows.shape[1] + 1, np.float32) if start is None else start.astype(np.float32)
    loss, slope = _loss(rows, targets, weights, decay, at)
    past: deque[tuple[Rows, Rows]] = deque(maxlen=LATEST)
    for _ in range(steps):
        way = -_preconditioned(slope, past)
        if float(way @ slope) >= 0:
            past.clear()
            way = -slope
        size = 1.0 if past else min(1.0, 1.0 / float(np.abs(slope).sum() + 1e-12))
        for _ in range(20):
            there = at + np.float32(size) * way
            new_loss, new_slope = _loss(rows, targets, weights, decay, there)
            if new_loss <= loss + 1e-4 * size * float(way @ slope):
                break
            size *= 0.5
        else:
            break
        if float((there - at) @ (new_slope - slope)) > 1e-10:
            past.append((there - at, new_slope - slope))
        gained, at, loss, slope = loss - new_loss, there, new_loss, new_slope
        if gained < 1e-5 * abs(loss):
            break
    return at


def _loss(rows: Rows, targets: Rows, weights: Rows, decay: float, at: Rows) -> tuple[float, Rows]:
    logits = rows @ at[:-1] + at[-1]
    losses = np.logaddexp(0.0, logits) - targets * logits
    errors = (weights * (1 / (1 + np.exp(-logits)) - targets)).astype(np.float32)
    slope = np.append(rows.T @ errors + decay * at[:-1], errors.sum()).astype(np.float32)
    return float(weights @ losses + 0.5 * decay * (at[:-1] @ at[:-1])), slope


def _preconditioned(slope: Rows, past: deque[tuple[Rows, Rows]]) -> Rows:
    """The slope times the inverse of the curvature that the `past` steps saw."""
    way = slope.copy()
    shares = []
    for step, change in reversed(past):
        share = float(step @ way) / float(step @ change)
        shares.append(share)
        way -= np.float32(share) * change
    if past:
        step, change = past[-1]
        way *= np.float32(float(step @ change) / float(change @ change))
    for (step, change), share in zip(past, reversed(shares), strict=True):
        way += step * np.float32(share - float(change @ way) / float(step @ change))
    return way
