"""Whether a text is English: by its script, then by its words, then by the letters of the words that nobody knows.

The rule leans to English, because an English prompt must mean exactly what it always meant.
"""

import gzip
import unicodedata
import zlib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from models.languages.lexicon import key_of, lexicons, plain, words_of

BUCKETS = 1 << 14
LONGEST_GRAM = 4
LETTERS_MARGIN = 0.0  # log-odds from which an unknown word counts as foreign
ENDINGS = (("ies", "y"), ("es", ""), ("s", ""), ("ied", "y"), ("ed", ""), ("ed", "e"), ("ing", ""), ("ing", "e"))
ENDINGS_TOO = (("er", ""), ("er", "e"), ("est", ""), ("ly", ""), ("'s", ""), ("\u2019s", ""), ("s'", "s"), ("n't", ""))


def scripts_of(text: str) -> set[str]:
    """Scripts of a text's letters, as Unicode names them: ``LATIN``, ``CJK``, ``DEVANAGARI``."""
    return {unicodedata.name(sign, "?").split()[0] for sign in text if sign.isalpha()}


def is_english(text: str) -> bool:
    """Whether a text is read as English: unless more of its words speak for another language than for English."""
    if not scripts_of(text) <= {"LATIN", "MODIFIER", "FULLWIDTH"}:
        return False
    return sum(foreignness(word) for word in words_of(text)) <= 0


def foreignness(word: str) -> int:
    """1: the word is of another language; -1: it is English; 0: both, or nobody knows."""
    key = key_of(word)
    abroad = key in foreign_terms()
    if knows_english(key):
        return 0 if abroad else -1
    if abroad:
        return 1
    if not key.isascii():
        return int(not knows_english(plain(key)))
    return int(len(key) > 3 and oddness(key) > LETTERS_MARGIN)


def knows_english(word: str) -> bool:
    """Whether a word, lower case, is in the list, or an inflection of one that is."""
    words = _words()
    return (
        word in words
        or any(part and all(piece in words for piece in part) for part in ([*word.split("-")],) if len(part) > 1)
        or any(
            word.endswith(ending) and word.removesuffix(ending) + instead in words
            for ending, instead in (*ENDINGS, *ENDINGS_TOO)
        )
        or _is_doubled(word)
    )


def oddness(word: str) -> float:
    """Log-odds that a word, lower case, is not English, by its letters."""
    weights = _letters()
    return float(weights[grams_of(word)].sum() + weights[-1])


def grams_of(word: str) -> list[int]:
    """The buckets of a word's runs of two to four letters."""
    return [zlib.crc32(gram.encode()) % BUCKETS for gram in _grams(f"^{word}$")]


def _grams(framed: str) -> Iterator[str]:
    for length in range(2, LONGEST_GRAM + 1):
        for start in range(len(framed) - length + 1):
            yield framed[start : start + length]


def _is_doubled(word: str) -> bool:
    """``running`` of ``run``."""
    for ending in ("ing", "ed", "er"):
        stem = word.removesuffix(ending)
        if stem != word and len(stem) > 2 and stem[-1] == stem[-2] and stem[:-1] in _words():
            return True
    return False


@cache
def _words() -> frozenset[str]:
    packed = (files("models.languages") / "english.txt.gz").read_bytes()
    lines = (files("models.languages") / "english_too.txt").read_text(encoding="ascii").splitlines()
    ours = {word for line in lines if not line.startswith("#") for word in line.split()}
    return frozenset(gzip.decompress(packed).decode("ascii").split("\n")) | frozenset(ours)


@cache
def foreign_terms() -> frozenset[str]:
    """Every German and Spanish term of the dictionary, as `key_of` gives it."""
    return frozenset(key for language in ("de", "es") for key in lexicons()[language].terms)


@cache
def _letters() -> NDArray[np.float32]:
    with (files("models.languages") / "letters.npy").open("rb") as file:
        weights: NDArray[np.float32] = np.load(file, allow_pickle=False).astype(np.float32)
    return weights
