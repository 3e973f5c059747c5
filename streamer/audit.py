"""Who changed what: a bounded Redis stream, ``audit`` under the prefix."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis import Redis

from streamer.events import to_rfc3339
from streamer.redis_client import reaching

NEWEST: Final = "+"


@dataclass(frozen=True, slots=True)
class Change:
    """One change.

    Attributes:
        id: Of the entry; entries before it are read on from it.
        time: When, RFC 3339.
        who: Id and name of the token, or ``local``.
        address: Where the request came from.
        action: What was done, such as ``prompt.update``.
        subject: To what: an id.
        detail: A few words, such as the new version. Never a credential.
    """

    id: str
    time: str
    who: str
    address: str
    action: str
    subject: str
    detail: str


class AuditLog:
    """Appends and reads. Safe to share between threads; every method may raise `UnavailableError`.

    Args:
        redis: Client that answers in bytes.
        prefix: Before every key.
        length: Entries kept, about.
    """

    def __init__(self, redis: Redis, prefix: str, length: int) -> None:
        self._redis = redis
        self._key = f"{prefix}audit"
        self._length = length

    def write(self, who: str, address: str, action: str, subject: str, detail: str = "") -> None:
        """Append a change that was made."""
        fields: Any = {"who": who, "address": address, "action": action, "subject": subject, "detail": detail}
        with reaching(self._redis):
            self._redis.xadd(self._key, fields, maxlen=self._length, approximate=True)

    def read(self, count: int, before: str = NEWEST) -> Sequence[Change]:
        """The newest changes that are older than an entry, newest first."""
        latest = NEWEST if before == NEWEST else f"({before}"
        with reaching(self._redis):
            raw: Any = self._redis.xrevrange(self._key, max=latest, count=count)
        return [_change(entry_id.decode(), fields) for entry_id, fields in raw]


def _change(entry_id: str, fields: dict[bytes, bytes]) -> Change:
    texts = {key.decode("utf-8", "replace"): value.decode("utf-8", "replace") for key, value in fields.items()}
    told_us = int(entry_id.partition("-")[0]) * 1000
    names = ("who", "address", "action", "subject", "detail")
    return Change(entry_id, to_rfc3339(told_us), *(texts.get(name, "") for name in names))
