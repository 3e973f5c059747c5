"""One frozen object with every setting, checked together at start.

Weakest first: ``config/default.yaml``, the user's file, the environment (``WATCHWORD_SECTION__KEY``), flags.
"""

import difflib
import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from streamer.errors import SettingsError
from streamer.types import Polygon

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(gt=0)]
Unit = Annotated[float, Field(ge=0, le=1)]
Corner = Annotated[tuple[Unit, Unit], Field()]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Kafka(_Section):
    """Where media comes from."""

    bootstrap: str
    topics: Annotated[tuple[str, ...], Field(min_length=1)]
    dead_topic: str
    group: str
    partitions: Count
    message_max_bytes: Count
    poll_max_bytes: Count
    session_timeout_s: Positive


class Redis(_Section):
    """Where prompts, events and progress live."""

    url: str
    prefix: str


class Ingest(_Section):
    """Sources into Kafka."""

    chunk_s: Positive
    chunk_max_bytes: Count
    spool_max_bytes: Count
    reconnect_initial_s: Positive
    reconnect_max_s: Positive
    open_timeout_s: Positive


class Decode(_Section):
    """Chunks into frames and sound, and the limits that hostile ones meet."""

    threads: Count
    queue_chunks: Count
    motion_rate_hz: Positive
    quiet_rate_hz: Positive
    effort: Literal["auto", "motion", "keyframes"]
    activity_threshold: Positive
    max_side_px: Count
    max_streams: Count
    max_duration_s: Positive
    max_frames: Count
    timeout_s: Positive
    max_future_s: NonNegative


class WindowSpan(_Section):
    """Frames and sound into windows."""

    span_s: Positive
    hop_s: Positive
    join_wait_s: NonNegative
    idle_flush_s: Positive


class Batch(_Section):
    """Windows into batches."""

    max_frames: Count
    max_wait_s: NonNegative


class Encode(_Section):
    """Encoders and where they run."""

    picture: Literal["compact", "clip", "siglip2"]
    picture_model: str
    sound: Literal["compact", "clap", "yamnet"]
    sound_model: str
    runtime: Literal["auto", "openvino", "torch"]
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "bfloat16", "float32"]
    threads: Count
    rate_hz: Positive
    reuse_max_age_s: NonNegative
    reuse_noise: NonNegative


class Calibrate(_Section):
    """Scores into confidences."""

    normalise: bool
    background: bool
    contrast: tuple[str, ...]


class Track(_Section):
    """Confidences into events."""

    exit_ratio: Annotated[float, Field(gt=0, le=1)]
    merge_gap_s: NonNegative
    update_interval_s: NonNegative


class Overload(_Section):
    """What happens when workers are slower than cameras."""

    policy: Literal["live", "lossless"]
    max_age_s: Positive


class System(_Section):
    """Events about the cameras themselves."""

    enabled: bool
    silent_after_s: Positive
    dark_below: NonNegative
    frozen_after_s: Positive
    hold_s: NonNegative


class Events(_Section):
    """How long results are kept."""

    max_length: Count
    max_age_s: Count
    snapshot_ttl_s: Count
    live_ttl_s: Count


class StreamSettings(_Section):
    """What is known of one stream, or of all that match a glob."""

    labels: Mapping[str, str] = {}
    masks: tuple[Annotated[tuple[Corner, ...], Field(min_length=3, max_length=64)], ...] = ()


class Api(_Section):
    """The HTTP API: where it listens, whom it lets in, and its bounds."""

    host: str
    port: Annotated[int, Field(ge=0, le=65535)]
    auth: Literal["auto", "on", "off"]
    threads: Count
    rate_per_s: Positive
    rate_burst: Count
    max_body_bytes: Count
    max_import_bytes: Count
    max_feeds: Count
    feed_queue: Count
    feed_ping_s: Positive
    audit_length: Count
    allowed_networks: tuple[str, ...]
    trusted_proxies: tuple[str, ...]
    tls_certificate: str
    tls_key: str


class Metrics(_Section):
    """The Prometheus endpoint and the bounds of its labels."""

    host: str
    port: Annotated[int, Field(ge=0, le=65535)]
    max_streams: Count
    max_prompts: Count


class Log(_Section):
    """Log lines."""

    level: Literal["debug", "info", "warning", "error"]
    format: Literal["auto", "text", "json"]


class Settings(BaseSettings):
    """Every setting. Made by `load_settings`; frozen."""

    model_config = SettingsConfigDict(
        env_prefix="WATCHWORD_",
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        nested_model_default_partial_update=True,
    )
    _layers: ClassVar[tuple[dict[str, Any], ...]] = ()

    kafka: Kafka
    redis: Redis
    ingest: Ingest
    decode: Decode
    window: WindowSpan
    batch: Batch
    encode: Encode
    calibrate: Calibrate
    track: Track
    overload: Overload
    system: System
    events: Events
    streams: Mapping[str, StreamSettings]
    api: Api
    metrics: Metrics
    log: Log

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only the merged layers count; `load_settings` has merged them already."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.window.hop_s > self.window.span_s:
            raise ValueError("window.hop_s must not exceed window.span_s, or parts of the stream are never looked at")
        if self.ingest.chunk_max_bytes > self.kafka.message_max_bytes - 65_536:
            raise ValueError(
                "ingest.chunk_max_bytes must stay 64 KiB under kafka.message_max_bytes, or Kafka refuses chunks"
            )
        if self.encode.device == "cuda" and self.encode.runtime == "openvino":
            raise ValueError(
                "encode.runtime openvino runs on the CPU; use encode.runtime torch with encode.device cuda"
            )
        for part, families in (("picture", ("clip", "siglip2")), ("sound", ("clap", "yamnet"))):
            if getattr(self.encode, part) in families and not getattr(self.encode, f"{part}_model"):
                raise ValueError(
                    f"encode.{part} {getattr(self.encode, part)} needs encode.{part}_model, an id, a folder or a file"
                )
        return self

    def stream(self, stream: str) -> StreamSettings:
        """What is set for a stream: the masks and labels of every entry whose id or glob matches it."""
        from fnmatch import fnmatchcase  # noqa: PLC0415

        hits = [entry for pattern, entry in self.streams.items() if fnmatchcase(stream, pattern)]
        labels = {key: value for entry in hits for key, value in entry.labels.items()}
        return StreamSettings(labels=labels, masks=tuple(mask for entry in hits for mask in entry.masks))


def masks_of(settings: Settings, stream: str) -> tuple[Polygon, ...]:
    """The privacy masks of a stream."""
    return settings.stream(stream).masks


def default_settings_text() -> str:
    """The commented file of defaults."""
    packaged = files("streamer") / "default.yaml"
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(__file__).parent.parent / "config" / "default.yaml").read_text(encoding="utf-8")


def load_settings(
    path: Path | None = None, flags: Mapping[str, Any] | None = None, defaults: Mapping[str, Any] | None = None
) -> Settings:
    """Merge and check every layer.

    Args:
        path: The user's file; None: ``WATCHWORD_CONFIG``, if set.
        flags: Dotted keys from the command line, ``{"kafka.bootstrap": "host:9092"}``.
        defaults: Dotted keys that a command sets unless the file, the environment or a flag says otherwise.

    Raises:
        SettingsError: A file cannot be read, a key is unknown, a value is out of range or contradicts another.
    """
    merged = yaml.safe_load(default_settings_text())
    _merge_dotted(merged, defaults or {}, "defaults")
    named = path or (Path(os.environ["WATCHWORD_CONFIG"]) if os.environ.get("WATCHWORD_CONFIG") else None)
    if named is not None:
        _merge(merged, _read(named), str(named))
    _merge(merged, _environment(merged), "environment")
    _merge_dotted(merged, flags or {}, "flags")
    try:
        return Settings(**merged)
    except ValidationError as error:
        raise SettingsError(_explain(error)) from error


def _merge_dotted(base: dict[str, Any], values: Mapping[str, Any], where: str) -> None:
    for dotted, value in values.items():
        layer: dict[str, Any] = {}
        here = layer
        *parents, leaf = dotted.split(".")
        for key in parents:
            here = here.setdefault(key, {})
        here[leaf] = value
        _merge(base, layer, where)


def _read(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"settings file {path} cannot be read: {error.strerror}; check --config") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings file {path} is not YAML: {' '.join(str(error).split())}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise SettingsError(f"settings file {path} holds a {type(document).__name__}; sections with keys are expected")
    return document


def _environment(known: Mapping[str, Any]) -> dict[str, Any]:
    """What the environment sets: YAML, but for settings that are text, such as ``ww:``, exactly what stands there."""
    layer: dict[str, Any] = {}
    prefix = "WATCHWORD_"
    for name, text in os.environ.items():
        if not name.startswith(prefix) or "__" not in name:
            continue
        section, _, key = name.removeprefix(prefix).lower().partition("__")
        group = known.get(section)
        is_text = not text or (isinstance(group, Mapping) and isinstance(group.get(key), str))
        try:
            layer.setdefault(section, {})[key] = text if is_text else yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise SettingsError(f"environment variable {name} is not YAML: {' '.join(str(error).split())}") from error
    return layer


def _merge(base: dict[str, Any], layer: Mapping[str, Any], where: str, prefix: str = "") -> None:
    for key, value in layer.items():
        dotted = f"{prefix}{key}"
        if key not in base:
            raise SettingsError(f"unknown setting {dotted!r} ({where}); {_nearest(dotted)}")
        if isinstance(base[key], dict) and dotted != "streams":
            if not isinstance(value, Mapping):
                raise SettingsError(f"setting {dotted!r} ({where}) is a section, not a value; give it keys")
            _merge(base[key], value, where, f"{dotted}.")
        else:
            base[key] = value


def _nearest(dotted: str) -> str:
    known = _dotted_keys(yaml.safe_load(default_settings_text()))
    close = difflib.get_close_matches(dotted, known, n=1, cutoff=0.5)
    by_leaf = [key for key in known if key.rpartition(".")[2] == dotted.rpartition(".")[2]]
    if by_leaf or close:
        return f"did you mean {(by_leaf or close)[0]!r}?"
    return "see config/default.yaml for all of them"


def _dotted_keys(document: Mapping[str, Any], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for key, value in document.items():
        keys.append(f"{prefix}{key}")
        if isinstance(value, Mapping):
            keys.extend(_dotted_keys(value, f"{prefix}{key}."))
    return keys


def _explain(error: ValidationError) -> str:
    parts = []
    for problem in error.errors(include_url=False):
        where = ".".join(str(step) for step in problem["loc"])
        reason = problem["msg"].removeprefix("Value error, ")
        parts.append(f"{where} = {problem['input']!r}: {reason}" if where else reason)
    return "settings refused: " + "; ".join(parts)
