"""Addresses without their secrets: nothing that is printed, logged or raised may show a password of a camera."""

import re
from typing import Final
from urllib.parse import unquote

_SCHEME: Final = r"\b([a-z][a-z0-9+.-]*://)"
# To the last @: cameras take passwords with / and @ in them, and people type them as they are.
_CREDENTIALS: Final = re.compile(_SCHEME + r"""[^\s"'<>]*@""", re.IGNORECASE)
_QUERY: Final = re.compile(_SCHEME + r"""([^\s"'<>?#]*)[?#][^\s"'<>,;]*""", re.IGNORECASE)
_MIN_SECRET: Final = 3  # a shorter one would blot out half of every message


def redact(text: str, url: str = "") -> str:
    """Take credentials and query strings out of every address in ``text``.

    Args:
        text: An address, or a message that may hold some.
        url: The address that the message is about: its user and password are also taken out where they stand alone.
    """
    for secret in sorted(_secrets(url), key=len, reverse=True):
        text = text.replace(secret, "***")
    text = _CREDENTIALS.sub(r"\1***@", text)
    return _QUERY.sub(r"\1\2?***", text)


def _secrets(url: str) -> set[str]:
    scheme, mark, rest = url.partition("://")
    if not mark:
        return set()
    del scheme
    userinfo, at, after = rest.rpartition("@")
    if not at:
        after = rest
    user, _, password = userinfo.partition(":")
    values = {part.partition("=")[2] for part in re.split(r"[&;]", after.partition("?")[2])}
    plain = {userinfo, user, password} | values
    return {form for secret in plain for form in (secret, unquote(secret)) if len(form) >= _MIN_SECRET}
