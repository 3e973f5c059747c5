"""A prompt in any language, as the English text encoder can take it.

English goes through untouched. Else the dictionary is asked; where it has every word, the encoder gets what they say
in English, so that ``Feuer`` is exactly ``fire``. Where it has not, and the multilingual sentence encoder knows the
language, that one reads the whole sentence. Hindi it does not know: there the words that were found must do.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from models.languages.english import foreign_terms, is_english, knows_english, scripts_of
from models.languages.lexicon import Gloss, key_of, lexicons, words_of

Way = Literal["english", "words", "sentence", "nothing"]
REMEMBERED = 4096  # texts
# Of the languages that the multilingual encoder was trained with.
SCRIPTS = frozenset(
    {"LATIN", "CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HANGUL", "CYRILLIC", "ARABIC", "THAI"}
)


@dataclass(frozen=True, slots=True)
class Reading:
    """How a prompt is read.

    Attributes:
        way: ``english``: as it is. ``words``: through the dictionary, as `english` says. ``sentence``: by the
            multilingual encoder. ``nothing``: no word of it is known; it is taken as it is, for what that is worth.
        english: What it says in English, where the dictionary read it, else the text itself.
        unread: Words that the dictionary lacks and that therefore count for nothing.
    """

    way: Way
    english: str
    unread: tuple[str, ...] = ()

    @property
    def warning(self) -> str | None:
        """What the prompt's author should know, in one sentence."""
        if self.way == "nothing":
            return (
                f"no word of the prompt {self.english!r} is known, so it will match nothing sensible; "
                "write it in English, or in one of the languages of docs/languages.md"
            )
        if self.unread:
            return (
                f"the prompt is read as {self.english!r}, without {', '.join(map(repr, self.unread))}, "
                "which the dictionary lacks; say it in other words, or in English"
            )
        return None


@lru_cache(REMEMBERED)
def read_prompt(text: str) -> Reading:
    """Read a prompt. No network is loaded for it; the dictionary is, once, in a tenth of a second."""
    if is_english(text):
        return Reading("english" if _says_something(text) else "nothing", text)
    scripts = scripts_of(text)
    gloss = _gloss(text, scripts)
    if gloss.read and (not gloss.unread or "DEVANAGARI" in scripts):
        return Reading("words", gloss.english, gloss.unread)
    if scripts <= SCRIPTS:
        return Reading("sentence", text)
    return Reading("nothing", text)


def _gloss(text: str, scripts: set[str]) -> Gloss:
    """What the dictionary makes of a text, in the language it knows the most words of."""
    if "DEVANAGARI" in scripts:
        languages: tuple[str, ...] = ("hi",)
    elif "CJK" in scripts and not scripts & {"HIRAGANA", "KATAKANA"}:
        languages = ("zh",)
    else:
        languages = ("de", "es") if scripts == {"LATIN"} else ()
    found = [lexicons()[language].read(text) for language in languages]
    return max(found, key=lambda gloss: (gloss.read, -len(gloss.unread)), default=Gloss("", (), 0))


def _says_something(text: str) -> bool:
    """Whether a text that is read as English has a word that is; a text without words is left alone."""
    words = words_of(text)
    if not words:
        return True
    return any(knows_english(key) or key in foreign_terms() for key in map(key_of, words))
