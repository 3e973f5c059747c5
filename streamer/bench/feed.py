"""Plays cameras into Kafka: `python -m streamer.bench.feed ORDERS`, a process of its own, its orders as JSON."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from streamer.bench.footage import Shape, room, street
from streamer.kafka_producer import BoundedProducer
from streamer.media import headers_of
from streamer.settings import load_settings
from streamer.types import MediaChunk

FILMS = {"street": street, "room": room}


def play(orders: Mapping[str, Any]) -> None:
    """Send each camera's chunks when a camera would: as soon as their last sample was captured.

    Orders: ``bootstrap``, ``topic``, ``duration_s``, ``shape``, and ``cameras``: stream id to film.
    """
    settings = load_settings()
    shape = Shape(**orders["shape"])
    films = {name: FILMS[name](shape, settings) for name in set(orders["cameras"].values())}
    cameras = sorted(orders["cameras"].items())
    producer = BoundedProducer(orders["bootstrap"], message_max_bytes=settings.kafka.message_max_bytes)
    began_us = time.time_ns() // 1000
    # Cameras are not in step: the k-th begins k/n of a chunk later.
    due = [(began_us + round(k / len(cameras) * 1e6), k, 0) for k in range(len(cameras))]
    end_us = began_us + round(orders["duration_s"] * 1e6)
    sys.stdout.write("playing\n")
    sys.stdout.flush()
    while due:
        due.sort()
        start_us, k, number = due.pop(0)
        if start_us > end_us:
            break
        stream, film = cameras[k]
        chunk = films[film][number % len(films[film])]
        next_us = start_us + (chunk.duration_us or 1_000_000)
        time.sleep(max(0.0, next_us / 1e6 - time.time()))
        _send(producer, orders["topic"], replace(chunk, stream=stream, capture_us=start_us))
        due.append((next_us, k, number + 1))
    producer.close()


def _send(producer: BoundedProducer, topic: str, chunk: MediaChunk) -> None:
    producer.send(topic, chunk.stream.encode(), chunk.payload, headers_of(chunk))


def fill(
    producer: BoundedProducer, topic: str, streams: Sequence[str], chunks: Sequence[MediaChunk], rounds: int
) -> int:
    """Send everything at once, for measuring how fast it is worked off; gives how many chunks."""
    start_us = time.time_ns() // 1000 - 3_600_000_000
    count = 0
    for number in range(rounds):
        chunk = chunks[number % len(chunks)]
        for stream in streams:
            _send(producer, topic, replace(chunk, stream=stream, capture_us=start_us))
            count += 1
        start_us += chunk.duration_us or 1_000_000
    producer.flush(60)
    return count


if __name__ == "__main__":
    play(json.loads(sys.argv[1]))
