"""Prompts word by word into English: a small dictionary, read before any network.

``words.tsv`` is ours; ``emoji.tsv`` are the Unicode CLDR's names of emoji. Every row is one English term and its
German, Spanish, Chinese and Hindi ones, ``|`` between alternatives; what stands higher wins. ``-`` is a word that
English needs no word for. ``hindi.tsv`` are single Hindi words, aligned with English by machine, used where nothing
else is known.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

LANGUAGES = ("de", "es", "zh", "hi")
SILENT = "-"
MOST_WORDS = 6  # of a phrase in the dictionary
MOST_SIGNS = 8  # of a Chinese one
# Endings that inflect, longest first; what is left of a word must have this many letters.
ENDINGS = {
    "de": ("ern", "en", "er", "es", "em", "e", "n", "s"),
    "es": ("es", "as", "os", "a", "o", "s"),
    "hi": ("ियाँ", "ियों", "ों", "ें", "ाएँ", "ा", "े", "ी"),
}
SHORTEST_STEM = {"de": 3, "es": 3, "hi": 2}
WORD = re.compile(r"[^\W\d_](?:[^\W_]|[\u0900-\u0963\u200c\u200d'\u2019-](?=[^\W_]|[\u0900-\u0963]|$|\s))*", re.UNICODE)
_NUKTA = "\u093c"
_BINDU = {"\u0901": "\u0902", "\u200c": "", "\u200d": ""}


@dataclass(frozen=True, slots=True)
class Gloss:
    """A text as far as the dictionary reads it.

    Attributes:
        english: What the words read say, in their order.
        unread: Words that are not in the dictionary.
        read: How many words were; particles do not count.
    """

    english: str
    unread: tuple[str, ...]
    read: int


class Lexicon:
    """One language's words in English."""

    def __init__(self, language: str, rows: Iterable[tuple[str, str]]) -> None:
        """Take rows of ``(term, english)``, the preferred first."""
        self.language = language
        self._terms: dict[str, str] = {}
        self._plain: dict[str, str] = {}
        self._stems: dict[str, str] = {}
        for term, english in rows:
            key = key_of(term)
            self._terms.setdefault(key, english)
            self._plain.setdefault(plain(key), english)
            if " " not in key and english != SILENT:
                self._stems.setdefault(self._stem(key), english)

    @property
    def terms(self) -> frozenset[str]:
        """Every term, as `key_of` gives it."""
        return frozenset(self._terms)

    def find(self, word: str) -> str | None:
        """One word in English: as it stands, without accents, or by its stem."""
        key = key_of(word)
        for known, form in ((self._terms, key), (self._plain, plain(key)), (self._plain, _umlauts(key))):
            if form in known:
                return known[form]
        return self._stems.get(self._stem(key))

    def read(self, text: str) -> Gloss:
        """Read a text, the longest phrases first."""
        words = list(text) if self.language == "zh" else words_of(text)
        english: list[str] = []
        unread: list[str] = []
        read = 0
        for found, length, start in self._pieces(words):
            if found is None:
                unread.extend(words[start : start + length])
            elif found != SILENT:
                english.append(found)
                read += found not in _PARTICLES
        if self.language == "zh":
            unread = [sign for sign in unread if is_han(sign)]
        return Gloss(" ".join(english), tuple(unread), read)

    def _pieces(self, words: list[str]) -> Iterator[tuple[str | None, int, int]]:
        """``(English, words used, first word)`` of one phrase after the other; None: not known."""
        joint, most = ("", MOST_SIGNS) if self.language == "zh" else (" ", MOST_WORDS)
        start = 0
        while start < len(words):
            for length in range(min(most, len(words) - start), 0, -1):
                phrase = joint.join(words[start : start + length])
                found = self._terms.get(key_of(phrase)) if length > 1 else self.find(phrase)
                if found is not None:
                    break
            else:
                length, found = 1, None
            yield found, length, start
            start += length

    def _stem(self, key: str) -> str:
        bare = plain(key)
        for ending in ENDINGS.get(self.language, ()):
            if bare.endswith(ending) and len(bare) - len(ending) >= SHORTEST_STEM[self.language]:
                return bare.removesuffix(ending)
        return bare


_PARTICLES = frozenset({"of", "to", "in", "on", "at", "from", "and", "or", "with"})


@cache
def lexicons() -> dict[str, Lexicon]:
    """The shipped dictionary, by language."""
    rows: dict[str, list[tuple[str, str]]] = {language: [] for language in LANGUAGES}
    for name in ("words.tsv", "emoji.tsv"):
        for english, *terms in rows_of(name):
            for language, cell in zip(LANGUAGES, terms, strict=False):
                rows[language].extend((term, english) for term in cell.split("|") if term)
    rows["hi"].extend((term, english) for english, term in rows_of("hindi.tsv"))
    return {language: Lexicon(language, pairs) for language, pairs in rows.items()}


def words_of(text: str) -> list[str]:
    """The words of a text in a script that puts blanks between them."""
    return WORD.findall(unicodedata.normalize("NFC", text))


def key_of(term: str) -> str:
    """How a term is looked up: case, blanks, Hindi's dots and nasal signs do not count."""
    folded = unicodedata.normalize("NFC", " ".join(term.split(" "))).casefold()
    if not any("\u0900" <= sign <= "\u097f" for sign in folded):
        return folded
    spread = unicodedata.normalize("NFD", folded).replace(_NUKTA, "")
    return "".join(_BINDU.get(sign, sign) for sign in spread)


def plain(key: str) -> str:
    """Latin letters without their accents."""
    if key.isascii() or any("\u0900" <= sign <= "\u097f" for sign in key):
        return key
    return "".join(sign for sign in unicodedata.normalize("NFD", key) if not unicodedata.combining(sign))


def is_han(sign: str) -> bool:
    """Whether a sign is a Chinese character."""
    return "\u4e00" <= sign <= "\u9fff" or "\u3400" <= sign <= "\u4dbf"


def _umlauts(key: str) -> str:
    """German as it is typed without umlauts: ``Pruegelei``."""
    return key.replace("ae", "a").replace("oe", "o").replace("ue", "u")


def rows_of(name: str) -> list[list[str]]:
    """The cells of a shipped table, ``words.tsv`` for one."""
    text = (files("models.languages") / name).read_text(encoding="utf-8")
    return [line.split("\t") for line in text.splitlines() if line and not line.startswith("#")]
