"""Tokens of the API in Redis: what each may do and whose streams it may see. The tokens themselves are never stored.

Under the prefix, ``tokens``: hash, id -> JSON document with the SHA-256 of the token's secret. A token is
``ww_ID_SECRET``; the secret has 256 random bits, so a plain digest cannot be guessed back and needs no salt.
"""

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis import Redis

from streamer.errors import SettingsError, WatchwordError
from streamer.events import to_rfc3339
from streamer.redis_client import reaching
from streamer.selector import EVERYTHING, Selector, checked_selector

SCOPES: Final = ("prompts:write", "events:read", "events:write", "streams:write", "admin")
_TOKEN: Final = re.compile(r"ww_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_NAME: Final = re.compile(r"[^\W_][\w .@-]{0,62}")
_DUMMY: Final = "0" * 64


@dataclass(frozen=True, slots=True)
class Token:
    """What is stored of a token.

    Attributes:
        id: Public; names it in lists and in the audit log.
        name: Who or what uses it.
        scopes: What it may do, of `SCOPES`; ``admin`` may do everything.
        streams: Whose events and pictures it may see.
        created: When, RFC 3339.
    """

    id: str
    name: str
    scopes: tuple[str, ...]
    streams: Selector
    created: str

    def may(self, scope: str) -> bool:
        """Whether it has a scope."""
        return scope in self.scopes or "admin" in self.scopes


class TokenStore:
    """Tokens under a prefix. Safe to share between threads; every method may raise `UnavailableError`."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._key = f"{prefix}tokens"

    def add(self, name: str, scopes: Collection[str], streams: str, now_us: int) -> tuple[Token, str]:
        """Make a token.

        Returns:
            What is stored, and the token itself, which cannot be had again.

        Raises:
            SettingsError: The name, a scope or the selector is refused.
        """
        if not _NAME.fullmatch(name):
            raise SettingsError(f"token name {name[:80]!r} is not allowed; use 1 to 63 letters, digits and ' . @ - _'")
        unknown = sorted(set(scopes) - set(SCOPES))
        if unknown or not scopes:
            given = f"scope {unknown[0]!r} is unknown" if unknown else "a token needs a scope"
            raise SettingsError(f"{given}; there are {', '.join(SCOPES)}")
        kept = tuple(scope for scope in SCOPES if scope in scopes)
        token = Token(secrets.token_hex(6), name, kept, Selector(checked_selector(streams)), to_rfc3339(now_us))
        secret = secrets.token_urlsafe(32)
        document = {
            "name": name,
            "scopes": kept,
            "streams": token.streams.text,
            "created": token.created,
            "sha256": _digest(secret),
        }
        with reaching(self._redis):
            self._redis.hset(self._key, token.id, json.dumps(document))
        return token, f"ww_{token.id}_{secret}"

    def list(self) -> Sequence[Token]:
        """All tokens, oldest first."""
        with reaching(self._redis):
            found: Any = self._redis.hgetall(self._key)
        tokens = (_parsed(token_id.decode(), raw) for token_id, raw in found.items())
        known = [token for token, _ in (pair for pair in tokens if pair is not None)]
        return sorted(known, key=lambda token: (token.created, token.id))

    def remove(self, token_id: str) -> None:
        """Take a token out of use; whoever holds it is refused within a second.

        Raises:
            WatchwordError: There is none with this id.
        """
        with reaching(self._redis):
            removed: Any = self._redis.hdel(self._key, token_id)
        if not removed:
            raise WatchwordError(f"there is no token {token_id[:32]!r}; `watchword tokens list` shows the ids")

    def verify(self, text: str) -> Token | None:
        """Who holds a token; None: nobody. Takes as long for an unknown id as for a wrong secret."""
        match = _TOKEN.fullmatch(text)
        if match is None:
            return None
        with reaching(self._redis):
            raw: Any = self._redis.hget(self._key, match[1])
        parsed = None if raw is None else _parsed(match[1], raw)
        is_right = hmac.compare_digest(_digest(match[2]), _DUMMY if parsed is None else parsed[1])
        return parsed[0] if parsed is not None and is_right else None


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _parsed(token_id: str, raw: bytes) -> tuple[Token, str] | None:
    """The token and its digest; None: someone wrote something else there."""
    try:
        document = json.loads(raw)
        streams = Selector(checked_selector(str(document.get("streams", EVERYTHING))))
        scopes = tuple(scope for scope in SCOPES if scope in document["scopes"])
        return Token(token_id, document["name"], scopes, streams, document["created"]), str(document["sha256"])
    except (ValueError, KeyError, TypeError, AttributeError, SettingsError):
        return None
