import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamer.backlog import Assigned, Backlog, Item, Refused, Revoked
from streamer.errors import UnavailableError
from streamer.kafka_client import make_consumer
from streamer.source import ChunkSource
from streamer.types import Claim, MediaChunk
from tests.builders import a_chunk
from tests.site import Site, until


class Claims:
    """Grants claims as told."""

    def __init__(self) -> None:
        self.offsets: dict[str, int] = {}
        self.refusals = 0
        self.given: list[Claim] = []

    def __call__(self, partition: int) -> Claim:
        if self.refusals:
            self.refusals -= 1
            raise UnavailableError("redis is away")
        self.given.append(Claim(partition, len(self.given) + 1, self.offsets, None))
        return self.given[-1]


class Reading:
    """A source, what it claims, and what came of it."""

    def __init__(self, site: Site, *, policy: str = "lossless", max_bytes: int = 1 << 20) -> None:
        kafka = site.settings.kafka
        self.claims = Claims()
        self.backlog = Backlog(policy=policy, max_bytes=max_bytes, max_age_s=10)  # type: ignore[arg-type]  # a test's
        consumer = make_consumer(
            kafka.bootstrap, group=kafka.group, message_max_bytes=1 << 20, poll_max_bytes=1 << 20, session_timeout_s=1.0
        )
        self.source = ChunkSource(consumer, kafka.topics, self.backlog, self.claims, max_future_s=3600)
        self.items: list[Item] = []

    def take(self, count: int) -> list[Item]:
        """So many items more."""
        taken: list[Item] = []
        deadline_s = time.monotonic() + 15
        while len(taken) < count:
            assert time.monotonic() < deadline_s, taken
            if (item := self.backlog.take(0.1)) is not None:
                taken.append(item)
        return taken


@pytest.fixture
def site(broker: str, redis_url: str, tmp_path: Path) -> Site:
    return Site(broker, redis_url, tmp_path, partitions=1)


@pytest.fixture
def reading(site: Site) -> Iterator[Reading]:
    made = Reading(site)
    yield made
    made.source.close()


def send(site: Site, count: int, *, first: int = 0) -> None:
    site.send(a_chunk(payload=b"%d" % number, capture_us=number) for number in range(first, first + count))


def payloads(items: list[Item]) -> list[bytes]:
    return [item.payload for item in items if isinstance(item, MediaChunk)]


def test_a_partition_is_read_from_the_start_once_it_is_claimed(site: Site, reading: Reading) -> None:
    send(site, 3)
    assert reading.source.why_not_ready() is not None
    reading.source.start()
    first, *rest = reading.take(4)
    assert isinstance(first, Assigned)
    assert payloads(rest) == [b"0", b"1", b"2"]
    assert reading.source.why_not_ready() is None


def test_it_goes_on_where_the_claim_says(site: Site, reading: Reading) -> None:
    send(site, 5)
    reading.claims.offsets = {site.topic: 3}
    reading.source.start()
    assert payloads(reading.take(3)) == [b"3", b"4"]


def test_nothing_is_read_before_a_claim_that_fails_at_first(site: Site, reading: Reading) -> None:
    send(site, 2)
    reading.claims.refusals = 2
    reading.source.start()
    until(lambda: reading.claims.refusals < 2, "it was refused")
    assert len(reading.backlog) == 0
    assert "not claimed yet" in (reading.source.why_not_ready() or "")
    first, *rest = reading.take(3)
    assert isinstance(first, Assigned)
    assert payloads(rest) == [b"0", b"1"]


def test_a_lost_claim_is_made_anew_and_an_older_loss_changes_nothing(site: Site, reading: Reading) -> None:
    send(site, 2)
    reading.source.start()
    reading.take(3)
    reading.source.reclaim(0, 99)  # a claim that was replaced long ago
    send(site, 1, first=2)
    assert payloads(reading.take(1)) == [b"2"]
    reading.claims.offsets = {site.topic: 1}
    reading.source.reclaim(0, 1)
    revoked, assigned, *rest = reading.take(4)
    assert isinstance(revoked, Revoked)
    assert isinstance(assigned, Assigned)
    assert assigned.claim.epoch == 2
    assert payloads(rest) == [b"1", b"2"]


def test_while_it_is_held_or_full_nothing_is_read_and_the_group_is_kept(site: Site) -> None:
    reading = Reading(site, max_bytes=1)
    try:
        reading.source.start()
        until(lambda: reading.source.why_not_ready() is None, "joined")
        send(site, 1)
        until(lambda: reading.backlog.is_full, "full")
        send(site, 1, first=1)
        time.sleep(1.5)  # longer than the group waits for a member that is silent
        assert len(reading.backlog) == 2
        assert reading.source.is_behind(0)
        reading.take(2)
        assert payloads(reading.take(1)) == [b"1"]
        reading.source.hold(is_held=True)
        time.sleep(0.3)
        send(site, 1, first=2)
        time.sleep(0.5)
        assert len(reading.backlog) == 0
        reading.source.hold(is_held=False)
        assert payloads(reading.take(1)) == [b"2"]
        assert len(reading.claims.given) == 1
    finally:
        reading.source.close()


def test_a_message_that_breaks_the_contract_is_handed_on_as_it_came(site: Site, reading: Reading) -> None:
    site.send_raw([(b"Yard", b"x", [("content-type", b"video/mp2t"), ("mine", b"\xff")])])
    reading.source.start()
    refused = reading.take(2)[1]
    assert isinstance(refused, Refused)
    assert (refused.stream, refused.key, refused.value, refused.error.reason) == ("", b"Yard", b"x", "key")
    assert ("mine", b"\xff") in refused.headers


def test_the_lag_is_what_is_not_committed(site: Site, reading: Reading) -> None:
    send(site, 4)
    reading.source.start()
    reading.take(5)
    reading.source.processed(0, {site.topic: 1})
    until(lambda: list(reading.source.lag.values()) == [3], "it is told")
    until(lambda: not reading.source.is_behind(0), "all was read")
