"""Labels and privacy masks of streams in Redis, where they can be changed while workers run.

Under the prefix, ``streams:settings``: hash, stream id -> JSON document with ``labels``, ``masks`` and ``version``;
``streams:serial`` counts all changes. What the settings file says of a stream holds beside it: its masks always, its
labels unless the same name stands here.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from redis import Redis

from streamer.errors import ChangedError, SettingsError
from streamer.prompts import Labels, Unit
from streamer.redis_client import reaching
from streamer.settings import Settings, StreamSettings
from streamer.types import Polygon

MAX_MASKS: Final = 32
MAX_CORNERS: Final = 64
MAX_KNOWN: Final = 4096  # streams whose settings are remembered; names are made up by whoever sends

# Compare and set. Answers the version now, and 1 where it was written, 0 where another version lay there.
_PUT = """
local raw = redis.call('HGET', KEYS[1], ARGV[1])
local version = raw and tonumber(string.match(raw, '^{"version":(%d+)')) or 0
if ARGV[3] ~= '' and tonumber(ARGV[3]) ~= version then return {version, 0} end
version = version + 1
redis.call('HSET', KEYS[1], ARGV[1], '{"version":' .. version .. ',' .. string.sub(ARGV[2], 2))
redis.call('INCR', KEYS[2])
return {version, 1}
"""

Mask = Annotated[tuple[tuple[Unit, Unit], ...], Field(min_length=3, max_length=MAX_CORNERS)]
Masks = Annotated[tuple[Mask, ...], Field(max_length=MAX_MASKS)]


class StreamEntry(BaseModel):
    """What Redis says of a stream; checked.

    Attributes:
        version: Higher with each change; 0: nothing was ever set.
        labels: For prompts and tokens that select by label; also on events.
        masks: Polygons of corners ``(x, y)``, 0..1, that are blacked out before anything else sees the picture.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = 0
    labels: Labels = {}
    masks: Masks = ()


EMPTY: Final = StreamEntry()
_LABELS: Final[TypeAdapter[Mapping[str, str]]] = TypeAdapter(Labels)
_MASKS: Final[TypeAdapter[tuple[Polygon, ...]]] = TypeAdapter(Masks)


class StreamStore:
    """Under a prefix. Safe to share between threads; every method may raise `UnavailableError`."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._key = f"{prefix}streams:settings"
        self._serial_key = f"{prefix}streams:serial"
        self._put = redis.register_script(_PUT)

    def serial(self) -> int:
        """How many changes were ever made."""
        with reaching(self._redis):
            found: Any = self._redis.get(self._serial_key)
        return int(found or 0)

    def load(self) -> tuple[int, dict[str, StreamEntry]]:
        """The count of changes and everything at that moment.

        Raises:
            SettingsError: A document cannot be read. It may hold a mask: go on with what stood before.
        """
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.get(self._serial_key)
        pipeline.hgetall(self._key)
        with reaching(self._redis):
            serial, raws = pipeline.execute()
        return int(serial or 0), {key.decode(): _parsed(key.decode(), raw) for key, raw in raws.items()}

    def get(self, stream: str) -> StreamEntry:
        """What is said of one stream; `EMPTY` where nothing is."""
        with reaching(self._redis):
            raw: Any = self._redis.hget(self._key, stream)
        return EMPTY if raw is None else _parsed(stream, raw)

    def set(
        self,
        stream: str,
        *,
        labels: Mapping[str, str] | None = None,
        masks: tuple[Polygon, ...] | None = None,
        expected_version: int | None = None,
    ) -> StreamEntry:
        """Replace labels, masks or both; workers follow within a second.

        Raises:
            ChangedError: It is at another version than ``expected_version``.
            ValidationError: A label or mask is refused.
        """
        while True:
            before, stood = self._before(stream)
            if expected_version is not None and before.version != expected_version:
                raise _moved_on(stream, before.version, expected_version)
            entry = StreamEntry(
                labels=before.labels if labels is None else _LABELS.validate_python(labels),
                masks=before.masks if masks is None else _MASKS.validate_python(masks),
            )
            body = entry.model_dump_json(exclude={"version"})
            with reaching(self._redis):
                version, is_written = self._put(keys=[self._key, self._serial_key], args=[stream, body, stood])
            if is_written:
                return entry.model_copy(update={"version": int(version)})

    def _before(self, stream: str) -> tuple[StreamEntry, str]:
        """What lies there, and the version to expect; what cannot be read is replaced, whatever it is."""
        try:
            entry = self.get(stream)
        except SettingsError:
            return EMPTY, ""
        return entry, str(entry.version)


@dataclass(frozen=True)
class StreamTable:
    """What is known of every stream, from the settings and from Redis together."""

    settings: Settings
    entries: Mapping[str, StreamEntry]
    _known: dict[str, StreamSettings] = field(default_factory=dict)

    def of(self, stream: str) -> StreamSettings:
        """Labels and masks of a stream."""
        known = self._known.get(stream)
        if known is None:
            base, entry = self.settings.stream(stream), self.entries.get(stream, EMPTY)
            known = StreamSettings(labels={**base.labels, **entry.labels}, masks=(*base.masks, *entry.masks))
            if len(self._known) < MAX_KNOWN:
                self._known[stream] = known
        return known


def _parsed(stream: str, raw: bytes) -> StreamEntry:
    try:
        return StreamEntry.model_validate(json.loads(raw))
    except (ValueError, ValidationError) as error:
        raise SettingsError(
            f"what redis says of stream {stream[:64]!r} cannot be read; set its masks and labels again"
        ) from error


def _moved_on(stream: str, version: int, expected_version: int) -> ChangedError:
    return ChangedError(
        f"stream {stream!r} is at version {version}, not {expected_version}: it was changed meanwhile; look at it "
        "again and repeat the change"
    )
