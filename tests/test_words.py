"""Labels by name, whatever their order."""

from __future__ import annotations

import itertools

import pytest

from tiny_kws.errors import UsageError
from tiny_kws.words import SILENCE, UNKNOWN, Vocabulary, is_word

LABELS = (SILENCE, UNKNOWN, "computer", "lumière")


@pytest.mark.parametrize("labels", list(itertools.permutations(LABELS)))
def test_columns_follow_the_labels(labels: tuple[str, ...]) -> None:
    """In any order of labels each column is where its label stands, and words come in that order."""
    vocabulary = Vocabulary(labels)
    assert [labels[vocabulary.column(label)] for label in LABELS] == list(LABELS)
    assert vocabulary.words == tuple(label for label in labels if label not in (SILENCE, UNKNOWN))
    assert tuple(labels[i] for i in vocabulary.word_columns) == vocabulary.words
    assert sorted((*vocabulary.word_columns, *vocabulary.other_columns)) == [0, 1, 2, 3]
    assert {labels[i] for i in vocabulary.other_columns} == {SILENCE, UNKNOWN}


def test_a_model_may_have_words_alone() -> None:
    """Labels that are all words have no other columns."""
    assert Vocabulary(("a", "b")).other_columns == ()


def test_training_puts_the_words_last() -> None:
    """A vocabulary of words has silence and unknown before them."""
    assert Vocabulary.of_words(["b", "a"]).labels == (SILENCE, UNKNOWN, "b", "a")
    assert len(Vocabulary.of_words(["b", "a"])) == 4


@pytest.mark.parametrize("labels", [(), ("a", "a"), (SILENCE, "a", SILENCE)])
def test_labels_that_cannot_be(labels: tuple[str, ...]) -> None:
    """No labels, or one twice, make no vocabulary."""
    with pytest.raises(UsageError, match="expected one or more labels, each once"):
        Vocabulary(labels)


def test_a_label_that_is_not_there() -> None:
    """Asking for a label that is not there names those that are."""
    with pytest.raises(UsageError, match="found the label 'stop', expected one of silence, unknown, computer, lumière"):
        Vocabulary(LABELS).columns(["computer", "stop"])


def test_what_is_a_word() -> None:
    """Every label but silence and unknown is a word; case counts."""
    assert [is_word(label) for label in (*LABELS, "Silence")] == [False, False, True, True, True]
