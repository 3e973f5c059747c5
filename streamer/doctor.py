"""What a working installation needs, checked one by one, and how to mend what is missing."""

import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Literal

from streamer.errors import WatchwordError
from streamer.settings import Settings

Status = Literal["ok", "warn", "fail"]
_PACKAGES = ("torch", "openvino", "av", "opencv-python", "kafka-python", "redis", "transformers")


@dataclass(frozen=True, slots=True)
class Finding:
    """One check.

    Attributes:
        name: What was looked at.
        status: ``fail``: something will not work; ``warn``: it works, less well.
        found: What is there.
        mend: What to do; empty where nothing needs doing.
    """

    name: str
    status: Status
    found: str
    mend: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Every check in turn. A check that breaks is a finding, not an error."""
    for check in (_python, _packages, _crc32c, _sizes, _kafka, _redis, _models, _device, _embedded):
        yield from _guarded(check, settings)


def _guarded(check: Callable[[Settings], Iterator[Finding]], settings: Settings) -> Iterator[Finding]:
    try:
        yield from check(settings)
    except WatchwordError as error:
        message, _, mend = str(error).rpartition("; ")
        yield Finding(check.__name__.strip("_"), "fail", message or mend, mend if message else "")
    except ImportError as error:
        yield Finding(check.__name__.strip("_"), "fail", f"cannot be imported: {error}", "make setup")


def _python(settings: Settings) -> Iterator[Finding]:
    del settings
    is_new_enough = sys.version_info >= (3, 11)
    mend = "" if is_new_enough else "install Python 3.11 or newer and make .venv again: make clean setup"
    yield Finding("python", "ok" if is_new_enough else "fail", platform.python_version(), mend)


def _packages(settings: Settings) -> Iterator[Finding]:
    del settings
    for package in _PACKAGES:
        try:
            yield Finding(package, "ok", version(package))
        except PackageNotFoundError:
            yield Finding(package, "fail", "not installed", "make setup")


def _crc32c(settings: Settings) -> Iterator[Finding]:
    del settings
    if find_spec("crc32c") is not None:
        yield Finding("crc32c", "ok", version("crc32c"))
    else:
        yield Finding("crc32c", "warn", "not installed: Kafka is 20 times slower", "pip install crc32c")


def _sizes(settings: Settings) -> Iterator[Finding]:
    kafka = settings.kafka
    yield Finding(
        "size limits, ours",
        "ok",
        f"chunks up to {settings.ingest.chunk_max_bytes} B, messages up to {kafka.message_max_bytes} B",
    )


def _kafka(settings: Settings) -> Iterator[Finding]:
    from streamer.kafka_client import topic_facts

    kafka = settings.kafka
    if not kafka.bootstrap:
        yield Finding("kafka", "warn", "none set: `run` and `up` bring their own", "set kafka.bootstrap for a site")
        return
    facts = topic_facts(kafka.bootstrap, [*kafka.topics, kafka.dead_topic])
    yield Finding("kafka", "ok", f"{kafka.bootstrap} answers")
    counts = {facts[topic].partitions for topic in kafka.topics if topic in facts}
    for topic in (*kafka.topics, kafka.dead_topic):
        if topic not in facts:
            yield Finding(f"topic {topic}", "warn", "not there yet", "the first worker creates it")
            continue
        limit = facts[topic].message_max_bytes
        found = f"{facts[topic].partitions} partitions, messages up to {limit or 'an unknown number of'} B"
        if limit is not None and limit < kafka.message_max_bytes:
            mend = f"set max.message.bytes of {topic} to at least {kafka.message_max_bytes}, or lower ours"
            yield Finding(f"topic {topic}", "fail", found, mend)
        else:
            yield Finding(f"topic {topic}", "ok", found)
    if len(counts) > 1:
        yield Finding("partitions", "fail", f"topics differ: {sorted(counts)}", "make the counts equal")


def _redis(settings: Settings) -> Iterator[Finding]:
    from streamer.redis_client import address_of, connect_redis, reaching

    if not settings.redis.url:
        yield Finding("redis", "warn", "none set: `run` and `up` bring their own", "set redis.url for a site")
        return
    client = connect_redis(settings.redis.url)
    with reaching(client):
        server = client.info("server")
        memory = client.info("memory")
    release = str(server["redis_version"])
    is_new_enough = tuple(int(part) for part in release.split(".")[:2]) >= (6, 2)
    mend = "" if is_new_enough else "upgrade to Redis 6.2 or Valkey"
    yield Finding("redis", "ok" if is_new_enough else "fail", f"{release} at {address_of(client)}", mend)
    policy = str(memory.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        yield Finding("redis eviction", "warn", policy, "set maxmemory-policy noeviction, or offsets may be evicted")


def _models(settings: Settings) -> Iterator[Finding]:
    from models.load import load_chosen

    encoders = load_chosen(settings.encode)
    for part in ("picture", "picture_text", "sound", "sound_text"):
        model = getattr(encoders, part)
        yield Finding(f"model, {part.replace('_', ' ')}", "ok", f"{model.name}, SHA-256 {model.sha256[:12]}")


def _device(settings: Settings) -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        yield Finding("gpu", "ok", torch.cuda.get_device_name())
    elif settings.encode.device == "cuda":
        yield Finding("gpu", "fail", "encode.device is cuda, but there is none", "set encode.device auto")
    else:
        yield Finding("gpu", "ok", "none; the CPU does it")


def _embedded(settings: Settings) -> Iterator[Finding]:
    del settings
    from streamer.embedded.tansu import tansu_program
    from streamer.embedded.valkey import redis_program

    yield Finding("embedded redis", "ok", redis_program().name)
    yield Finding("embedded broker", "ok", tansu_program().name)
    has_java = shutil.which("java") is not None
    mend = "" if has_java else "install Java 17 and Maven for `watchword up --broker kafka`"
    yield Finding("java", "ok" if has_java else "warn", "found" if has_java else "not found", mend)
