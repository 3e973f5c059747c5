"""Which streams are meant: globs of ids, of which one must fit, or labels, which all must."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import translate
from functools import cached_property

from streamer.errors import SettingsError

EVERYTHING = "*"
ALLOWED = "allowed are globs of stream ids ('yard-*,dock-?') or labels that must all fit ('site=north,floor=*')"

_LABEL_KEY = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_GLOB = re.compile(r"[a-z0-9._*?\[\]!-]{1,128}")
_LABEL_GLOB = re.compile(r"[^,=\s\ud800-\udfff]{1,64}")  # half a character cannot be stored
_MAX_PARTS = 1024


def checked_selector(text: str) -> str:
    """A selector without needless spaces.

    Raises:
        SettingsError: It is none.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > _MAX_PARTS:
        raise SettingsError(f"selector has {len(parts)} parts; at most {_MAX_PARTS} are allowed")
    if "=" in text:
        pairs = [part.partition("=") for part in parts]
        is_good = all(sep and _LABEL_KEY.fullmatch(key) and _LABEL_GLOB.fullmatch(value) for key, sep, value in pairs)
    else:
        is_good = all(_GLOB.fullmatch(part) for part in parts)
    if not is_good:
        raise SettingsError(f"selector {text[:80]!r} is not one; {ALLOWED}")
    return ",".join(parts)


@dataclass(frozen=True)
class Selector:
    """A checked selector; see `checked_selector`."""

    text: str = EVERYTHING

    def fits(self, stream: str, labels: Mapping[str, str]) -> bool:
        """Whether it means a stream with these labels."""
        if self.text == EVERYTHING:
            return True
        if "=" in self.text:
            return all(key in labels and glob.match(labels[key]) for key, glob in self._parts)
        return any(glob.match(stream) for _, glob in self._parts)

    @cached_property
    def _parts(self) -> tuple[tuple[str, re.Pattern[str]], ...]:
        split = (part.rpartition("=") for part in self.text.split(","))
        return tuple((key, re.compile(translate(glob))) for key, _, glob in split)
