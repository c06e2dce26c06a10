"""How a text becomes the terms that are counted: scikit-learn's analyzers as values.

Words, or the characters of a text or of its words, and n-grams of them. A callable of the user's is
called as it is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from skserve.estimators.methods import look

Analyzer = Callable[[str], Sequence[Any]]

_SPACES = re.compile(r"\s\s+")


def without_accents(text: str) -> str:
    """Take the marks off letters, as `strip_accents="unicode"` does."""
    if text.isascii():
        return text
    return "".join(
        one for one in unicodedata.normalize("NFKD", text) if not unicodedata.combining(one)
    )


def ascii_only(text: str) -> str:
    """Take the marks off letters and leave out what is not ASCII, as `strip_accents="ascii"`."""
    return unicodedata.normalize("NFKD", text).encode("ASCII", "ignore").decode("ASCII")


_ACCENTS: dict[Any, Callable[[str], str] | None] = {
    None: None,
    "ascii": ascii_only,
    "unicode": without_accents,
}


@dataclass(frozen=True, eq=False)
class Prepared:
    """The text in lower case, without accents, or as a function of the user's leaves it."""

    lowercase: bool
    accents: Callable[[str], str] | None

    def __call__(self, text: str) -> str:
        if self.lowercase:
            text = text.lower()
        return self.accents(text) if self.accents else text


@dataclass(frozen=True, eq=False)
class Words:
    """The words of a text and their n-grams, from `least` to `most` words."""

    prepare: Callable[[str], str]
    split: Callable[[str], list[str]]
    stop_words: frozenset[str]
    least: int
    most: int

    def __call__(self, text: str) -> list[str]:
        words = self.split(self.prepare(text))
        if self.stop_words:
            words = [word for word in words if word not in self.stop_words]
        if self.most == 1:
            return words
        terms = list(words) if self.least == 1 else []
        for n in range(max(self.least, 2), min(self.most, len(words)) + 1):
            terms += map(" ".join, zip(*(words[at:] for at in range(n)), strict=False))
        return terms


@dataclass(frozen=True, eq=False)
class Characters:
    """The n-grams of the characters of a text."""

    prepare: Callable[[str], str]
    least: int
    most: int

    def __call__(self, text: str) -> list[str]:
        text = _SPACES.sub(" ", self.prepare(text))
        terms = []
        for n in range(self.least, min(self.most, len(text)) + 1):
            terms += [text[at : at + n] for at in range(len(text) - n + 1)]
        return terms


@dataclass(frozen=True, eq=False)
class CharactersOfWords:
    """The n-grams of the characters of each word, with a space before and after it."""

    prepare: Callable[[str], str]
    least: int
    most: int

    def __call__(self, text: str) -> list[str]:
        terms = []
        for word in _SPACES.sub(" ", self.prepare(text)).split():
            word = f" {word} "
            for n in range(self.least, self.most + 1):
                terms += [word[at : at + n] for at in range(max(len(word) - n + 1, 1))]
                if n >= len(word):  # a short word counts once
                    break
        return terms


def analyzer(vectorizer: Any) -> Analyzer | None:
    """Return the analyzer of a fitted vectorizer, or None where it reads anything but texts."""
    kind = vectorizer.analyzer
    if vectorizer.input != "content":
        return None
    if callable(kind):
        return kind  # type: ignore[no-any-return]
    prepare: Any = vectorizer.preprocessor
    if prepare is None:
        accents = vectorizer.strip_accents
        if not callable(accents):
            if accents not in _ACCENTS:
                return None
            accents = _ACCENTS[accents]
        prepare = Prepared(bool(vectorizer.lowercase), accents)
    least, most = vectorizer.ngram_range
    if kind in ("char", "char_wb"):
        return (Characters if kind == "char" else CharactersOfWords)(prepare, least, most)
    split = vectorizer.tokenizer
    if split is None:
        pattern = re.compile(vectorizer.token_pattern)
        if pattern.groups > 1:
            return None
        split = pattern.findall
    words = look(vectorizer, "get_stop_words")() or ()
    return Words(prepare, split, frozenset(words), least, most)
