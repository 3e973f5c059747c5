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
    end_us = began_us + round(orders["duration_s"] * 1e6)
    # Cameras are not in step: the k-th begins k/n of a chunk later.
    shifts_us = [began_us + round(k / len(cameras) * 1e6) for k in range(len(cameras))]
    due = [_due(shifts_us[k], films[film], 0, k) for k, (_, film) in enumerate(cameras)]
    sys.stdout.write("playing\n")
    sys.stdout.flush()
    while due:
        due.sort()
        due_us, k, number = due.pop(0)
        if due_us > end_us:
            break
        stream, film = cameras[k]
        time.sleep(max(0.0, due_us / 1e6 - time.time()))
        chunk = films[film][number % len(films[film])]
        capture_us = shifts_us[k] + offset_us(films[film], number)
        _send(producer, orders["topic"], replace(chunk, stream=stream, capture_us=capture_us))
        due.append(_due(shifts_us[k], films[film], number + 1, k))
    producer.close()


def offset_us(film: Sequence[MediaChunk], number: int) -> int:
    """When a chunk of a film begins that is played over and over, from the start of the first, microseconds.

    Chunks overlap by a fraction of a packet of sound, so their durations don't add up to that.
    """
    length_us = film[-1].capture_us + (film[-1].duration_us or 1_000_000) - film[0].capture_us
    rounds, place = divmod(number, len(film))
    return rounds * length_us + film[place].capture_us - film[0].capture_us


def _due(shift_us: int, film: Sequence[MediaChunk], number: int, camera: int) -> tuple[int, int, int]:
    """When the last sample of a chunk is captured; the camera; the chunk."""
    length_us = film[number % len(film)].duration_us or 1_000_000
    return shift_us + offset_us(film, number) + length_us, camera, number


def _send(producer: BoundedProducer, topic: str, chunk: MediaChunk) -> None:
    producer.send(topic, chunk.stream.encode(), chunk.payload, headers_of(chunk))


def fill(
    producer: BoundedProducer, topic: str, streams: Sequence[str], chunks: Sequence[MediaChunk], rounds: int
) -> int:
    """Send everything at once, for measuring how fast it is worked off; gives how many chunks."""
    start_us = time.time_ns() // 1000 - 3_600_000_000
    count = 0
    for number in range(rounds):
        chunk, capture_us = chunks[number % len(chunks)], start_us + offset_us(chunks, number)
        for stream in streams:
            _send(producer, topic, replace(chunk, stream=stream, capture_us=capture_us))
            count += 1
    producer.flush(60)
    return count


if __name__ == "__main__":
    play(json.loads(sys.argv[1]))
