import threading

from hypothesis import given
from hypothesis import strategies as st

from streamer.errors import ChunkError, UnavailableError
from streamer.ingest.backoff import BackOff
from streamer.ingest.counters import SourceCounters
from streamer.ingest.sender import Sender
from streamer.ingest.spool import Spool
from streamer.kafka_producer import Headers, OnDelivery
from streamer.types import MediaChunk, Position

NEVER = threading.Event()


def a_chunk(seq: int, size: int = 10) -> MediaChunk:
    return MediaChunk("yard", "video/mp2t", bytes(size), seq * 1_000_000, Position("t", -1, -1), 1_000_000, "s", seq)


def a_spool(max_bytes: int = 1000) -> Spool:
    return Spool(max_bytes, threading.Condition())


def drained(spool: Spool) -> list[int | None]:
    seqs = []
    while (chunk := spool.take()) is not None:
        seqs.append(chunk.seq)
        spool.settle(chunk, keep=False)
    return seqs


def test_a_full_spool_gives_up_the_oldest() -> None:
    spool = a_spool(30)
    assert [spool.put(a_chunk(seq), may_wait=False, stop=NEVER) for seq in range(5)] == [0, 0, 0, 1, 1]
    assert spool.size_bytes == 30
    assert drained(spool) == [2, 3, 4]
    assert spool.is_empty


def test_what_is_in_flight_counts_and_is_not_given_up() -> None:
    spool = a_spool(20)
    spool.put(a_chunk(0), may_wait=False, stop=NEVER)
    spool.put(a_chunk(1), may_wait=False, stop=NEVER)
    sent = [spool.take(), spool.take()]
    assert spool.put(a_chunk(2), may_wait=False, stop=NEVER) == 1
    assert [chunk.seq for chunk in sent if chunk] == [0, 1]


def test_one_chunk_always_fits() -> None:
    spool = a_spool(5)
    assert spool.put(a_chunk(0, 50), may_wait=True, stop=NEVER) == 0
    assert drained(spool) == [0]


def test_a_file_waits_for_room_until_there_is_some() -> None:
    spool = a_spool(10)
    spool.put(a_chunk(0), may_wait=True, stop=NEVER)
    given_up: list[int] = []
    thread = threading.Thread(target=lambda: given_up.append(spool.put(a_chunk(1), may_wait=True, stop=NEVER)))
    thread.start()
    chunk = spool.take()
    assert chunk is not None
    assert thread.is_alive()
    spool.settle(chunk, keep=False)
    thread.join(5)
    assert given_up == [0]
    assert drained(spool) == [1]


def test_a_wait_for_room_ends_with_the_source() -> None:
    spool = a_spool(10)
    stop = threading.Event()
    spool.put(a_chunk(0), may_wait=True, stop=stop)
    stop.set()
    assert spool.put(a_chunk(1), may_wait=True, stop=stop) == 1


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_failures_are_sent_again_in_order_and_nothing_is_lost(outcomes: list[bool]) -> None:
    spool = a_spool(10_000)
    for seq in range(12):
        spool.put(a_chunk(seq), may_wait=False, stop=NEVER)
    delivered = []
    answers = iter(outcomes)
    while not spool.is_empty:
        batch = []
        while (chunk := spool.take()) is not None:
            batch.append(chunk)
        assert [chunk.seq for chunk in batch] == sorted(chunk.seq or 0 for chunk in batch)
        for chunk in batch:
            is_taken = next(answers, True)
            spool.settle(chunk, keep=not is_taken)
            if is_taken:
                delivered.append(chunk.seq)
    assert sorted(seq for seq in delivered if seq is not None) == list(range(12))
    assert spool.size_bytes == 0


class FlakyProducer:
    """Fails as told, then takes everything."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.taken: list[bytes] = []

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes,
        headers: Headers = (),
        on_delivery: OnDelivery | None = None,
        *,
        timeout_s: float = 10.0,
    ) -> None:
        del topic, key, value, timeout_s
        if self.failures:
            raise self.failures.pop(0)
        self.taken.append(dict(headers)["seq"])
        assert on_delivery is not None
        on_delivery(Position("t", 0, len(self.taken)), None)


def send_all(producer: FlakyProducer, count: int) -> SourceCounters:
    changed = threading.Condition()
    spool = Spool(10_000, changed)
    counters = SourceCounters("yard", "clip.mp4")
    sender = Sender(producer, {"yard": spool}, {"yard": counters}, changed, BackOff(0.01, 0.05))
    for seq in range(count):
        spool.put(a_chunk(seq), may_wait=False, stop=NEVER)
    sender.start()
    try:
        assert sender.drain(10.0)
    finally:
        sender.close()
    return counters


def test_while_kafka_is_away_chunks_wait_and_then_come_in_order() -> None:
    away = UnavailableError("Kafka at x:1 is away")
    producer = FlakyProducer(away, away, away)
    facts = send_all(producer, 5).facts()
    assert producer.taken == [b"0", b"1", b"2", b"3", b"4"]
    assert (facts.chunks, facts.dropped, facts.bytes) == (5, 0, 50)
    assert facts.errors == 3
    assert facts.last_capture_us == 5_000_000
    assert facts.spooled_bytes == 0


def test_a_chunk_that_kafka_will_never_take_is_given_up_and_the_rest_goes_on() -> None:
    facts = send_all(FlakyProducer(ChunkError("too large", reason="oversize")), 3).facts()
    assert (facts.chunks, facts.dropped, facts.last_error) == (2, 1, "too large")


def test_waits_double_up_to_a_limit_and_start_over_once_it_works() -> None:
    backoff = BackOff(1.0, 8.0)
    waits = [backoff.next_s() for _ in range(6)]
    for wait_s, limit_s in zip(waits, (1, 2, 4, 8, 8, 8), strict=True):
        assert limit_s / 2 <= wait_s <= limit_s
    backoff.reset()
    assert backoff.next_s() <= 1.0
    assert [BackOff(1.0, 8.0).next_s() for _ in range(5)] != [waits[0]] * 5
