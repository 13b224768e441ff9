"""The words of a model: its labels by name and by column, and the two labels that are no words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from unicodedata import normalize

from .errors import UsageError

SILENCE = "silence"
"""The label of sound in which nobody speaks."""

UNKNOWN = "unknown"
"""The label of speech that holds none of the words."""

NOT_WORDS = (SILENCE, UNKNOWN)
"""The labels that are no words, in any model."""


def is_word(label: str) -> bool:
    """Whether a label is a word: every label but `silence` and `unknown`.

    >>> [is_word(label) for label in ("silence", "unknown", "computer")]
    [False, False, True]
    """
    return label not in NOT_WORDS


def label_of(text: str, labels: Iterable[str]) -> str | None:
    """The one of `labels` that `text` writes, or None: Unicode has several forms of many letters, all of them right.

    >>> label_of("cafe\\u0301", ["tea", "caf\\u00e9"]) == "caf\\u00e9"
    True
    """
    wanted = normalize("NFC", text)
    return next((label for label in labels if normalize("NFC", label) == wanted), None)


@dataclass(frozen=True)
class Vocabulary:
    """The labels of a model in the order of its columns, whatever that is.

    Ask for columns by name: two models may have the same labels in another order.
    Raises UsageError for no labels, or one that is there twice.

    >>> vocabulary = Vocabulary(("unknown", "stop", "silence", "go"))
    >>> vocabulary.words, vocabulary.word_columns, vocabulary.column("silence")
    (('stop', 'go'), (1, 3), 2)
    """

    labels: tuple[str, ...]

    def __post_init__(self) -> None:  # noqa: D105
        twice = sorted({label for label in self.labels if self.labels.count(label) > 1})
        if twice or not self.labels:
            found = f"{', '.join(twice)} more than once" if twice else "no labels"
            raise UsageError(f"found {found}, expected one or more labels, each once")

    @classmethod
    def of_words(cls, words: Iterable[str]) -> Vocabulary:
        """`silence`, `unknown` and then `words`: the order that training uses."""
        return cls((*NOT_WORDS, *words))

    def __len__(self) -> int:  # noqa: D105
        return len(self.labels)

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The labels that are words, in the order of their columns."""
        return tuple(label for label in self.labels if is_word(label))

    @cached_property
    def word_columns(self) -> tuple[int, ...]:
        """The columns of `words`."""
        return self.columns(self.words)

    @cached_property
    def other_columns(self) -> tuple[int, ...]:
        """The columns of the labels that are no words."""
        return tuple(i for i, label in enumerate(self.labels) if not is_word(label))

    def column(self, label: str) -> int:
        """The column of a label. Raises UsageError if there is none."""
        try:
            return self.labels.index(label)
        except ValueError:
            raise UsageError(f"found the label {label!r}, expected one of {', '.join(self.labels)}") from None

    def columns(self, labels: Sequence[str]) -> tuple[int, ...]:
        """The columns of `labels`, in their order. Raises UsageError if one is not there."""
        return tuple(self.column(label) for label in labels)
