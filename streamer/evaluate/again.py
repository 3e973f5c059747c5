"""An event's confidence once more, from the media that it names: what an event says can be checked later."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from kafka import TopicPartition
from numpy.typing import NDArray

from models.evaluate.exact import ExactAligner
from models.evaluate.manifest import EvaluationError
from streamer.decode import decode_chunk
from streamer.errors import ChunkError
from streamer.evaluate.replay import patient
from streamer.events import Event, from_rfc3339, to_rfc3339
from streamer.kafka_client import make_consumer, translated
from streamer.media import parse_message
from streamer.prompts import Prompt
from streamer.settings import Settings
from streamer.soundtrack import SoundTrack, sample_at
from streamer.stages import Stages
from streamer.track import known
from streamer.types import SAMPLE_RATE_HZ, THUMB_SIDE, Batch, Decoded, Evidence, MediaChunk, Position, Window

_BACK = 2_000  # messages before the named one that may hold the media; of one partition
_ALSO = 2_000  # and after it, in other topics
_POLL_MS = 500
_SLACK_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Again:
    """A window's confidences, computed once more; None for a sense that is absent."""

    confidence: float
    seen: float | None
    heard: float | None


def score_again(stages: Stages, event: Event, chunks: Sequence[MediaChunk], prompt: Prompt) -> Again:
    """Decode, encode and align an event's best window again.

    Args:
        stages: With the settings and models of the worker that judged.
        event: With evidence.
        chunks: Of its stream; all that overlap the time from `since` to `window_end`. Others are left alone.
        prompt: As it stood, by `event.prompt.version`.

    Raises:
        EvaluationError: The event names no window, or media of that time are missing or do not decode.
    """
    told = event.evidence
    if told is None or told.window_start is None or told.window_end is None or told.since is None:
        raise EvaluationError(f"event {event.id} names no window that could be scored again")
    evidence = Evidence(
        region=None,
        frame_time_us=None if told.frame_time is None else from_rfc3339(told.frame_time),
        attention=(),
        window_us=(from_rfc3339(told.window_start), from_rfc3339(told.window_end)),
        since_us=from_rfc3339(told.since),
        seen_usual=told.seen_usual,
        heard_usual=told.heard_usual,
    )
    return score_window(stages, event.stream, evidence, chunks, prompt)


def score_window(
    stages: Stages, stream: str, evidence: Evidence, chunks: Sequence[MediaChunk], prompt: Prompt
) -> Again:
    """The same from evidence that is no document yet; see `score_again`.

    Raises:
        EvaluationError: Media of that time are missing or do not decode.
    """
    assert evidence.window_us is not None
    assert evidence.since_us is not None
    (start_us, end_us), since_us = evidence.window_us, evidence.since_us
    content = _Content.of(_decoded(stages, stream, chunks, since_us, end_us))
    if evidence.frame_time_us is not None and not content.has(since_us, evidence.frame_time_us):
        raise EvaluationError(
            f"media of stream {stream!r} are incomplete: from {to_rfc3339(since_us)} to {to_rfc3339(end_us)} they are"
            " needed"
        )
    # The frames before the window are those whose tokens still ones in it took.
    spans = [span for span in ((since_us, start_us), (start_us, end_us)) if span[0] < span[1]]
    windows = tuple(content.window(stream, *span) for span in spans)
    prompts = stages.embedder().embed(1, (prompt,))
    tokens = stages.encode(lambda: prompts).encode(Batch(windows, 0.0, (0.0,) * len(windows)))
    alignment, _ = stages.align(lambda: prompts, ExactAligner()).align(tokens)
    confidence, seen, heard = prompts.judge(
        alignment.seen_raw[-1] - np.float32(evidence.seen_usual),
        alignment.heard_raw[-1] - np.float32(evidence.heard_usual),
    )
    return Again(float(confidence[0]), known(seen[0]), known(heard[0]))


def stored_chunks(settings: Settings, event: Event) -> list[MediaChunk]:
    """The chunks of an event's stream around the one that it names, from Kafka.

    Raises:
        EvaluationError: The event names none.
        UnavailableError: Kafka does not answer.
    """
    if event.media is None:
        raise EvaluationError(f"event {event.id} names no media")
    kafka = settings.kafka
    consumer = make_consumer(
        kafka.bootstrap, group=None, message_max_bytes=kafka.message_max_bytes, poll_max_bytes=kafka.poll_max_bytes
    )
    found: list[MediaChunk] = []
    try:
        with translated(kafka.bootstrap, "reading media again"):
            for topic in {event.media.topic, *kafka.topics}:
                place = TopicPartition(topic, event.media.partition)
                first, after = consumer.beginning_offsets([place])[place], consumer.end_offsets([place])[place]
                begin = max(first, event.media.offset - _BACK)
                found += _read(consumer, place, begin, min(after, event.media.offset + _ALSO), event.stream, settings)
    finally:
        consumer.close()
    return found


def _read(
    consumer: object, place: TopicPartition, begin: int, end: int, stream: str, settings: Settings
) -> Iterator[MediaChunk]:
    consumer.assign([place])  # type: ignore[attr-defined]  # kafka-python has no types
    consumer.seek(place, begin)  # type: ignore[attr-defined]
    while begin < end:
        for records in consumer.poll(timeout_ms=_POLL_MS).values():  # type: ignore[attr-defined]
            for record in records:
                begin = record.offset + 1
                if record.key != stream.encode():
                    continue
                position = Position(record.topic, record.partition, record.offset)
                try:
                    yield parse_message(
                        record.key,
                        record.headers,
                        record.value,
                        position,
                        record.timestamp,
                        settings.decode.max_future_s,
                    )
                except ChunkError:
                    continue  # nor did the worker use it
        begin = max(begin, consumer.position(place))  # type: ignore[attr-defined]


def _decoded(stages: Stages, stream: str, chunks: Sequence[MediaChunk], since_us: int, end_us: int) -> list[Decoded]:
    options = patient(stages.decode_options(stream))
    decoded = []
    for chunk in sorted(chunks, key=lambda chunk: chunk.capture_us):
        is_over = chunk.duration_us is not None and chunk.capture_us + chunk.duration_us < since_us - _SLACK_US
        if chunk.stream != stream or chunk.capture_us >= end_us or is_over:
            continue
        try:
            decoded.append(decode_chunk(chunk, options))
        except ChunkError:
            continue
    return decoded


@dataclass(frozen=True, slots=True, eq=False)
class _Content:
    """Frames and sound of some chunks."""

    times_us: NDArray[np.int64]
    pixels: tuple[NDArray[np.uint8], ...]
    thumbs: tuple[NDArray[np.uint8], ...]
    sound: SoundTrack
    has_sound: bool

    @classmethod
    def of(cls, decoded: Sequence[Decoded]) -> "_Content":
        frames = {
            int(at_us): (one.pixels[place], one.thumbs[place])
            for one in reversed(decoded)  # of a repeated time the first one stays
            for place, at_us in enumerate(one.times_us)
        }
        times_us = sorted(frames)
        sound = SoundTrack()
        for one in decoded:
            if one.samples.size:
                sound.add(sample_at(one.samples_start_us), one.samples)
        return cls(
            np.array(times_us, np.int64),
            tuple(frames[at_us][0] for at_us in times_us),
            tuple(frames[at_us][1] for at_us in times_us),
            sound,
            any(one.samples.size for one in decoded),
        )

    def has(self, since_us: int, frame_us: int) -> bool:
        """Whether there is that very frame, and picture from about ``since_us`` on, which may be a window's start."""
        if not self.times_us.size:
            return False
        return since_us >= int(self.times_us[0]) - _SLACK_US and bool((self.times_us == frame_us).any())

    def window(self, stream: str, start_us: int, end_us: int) -> Window:
        """What lies in a span."""
        first, last = np.searchsorted(self.times_us, (start_us, end_us))
        count = (end_us - start_us) * SAMPLE_RATE_HZ // 1_000_000
        samples = self.sound.cut(sample_at(start_us), count) if self.has_sound else np.empty(0, np.float32)
        return Window(
            stream=stream,
            partition=0,
            start_us=start_us,
            end_us=end_us,
            pixels=self.pixels[first:last],
            times_us=self.times_us[first:last],
            thumbs=np.array(self.thumbs[first:last], np.uint8).reshape(-1, THUMB_SIDE, THUMB_SIDE),
            samples=samples,
            chunks=(),
            has_picture=last > first,
            has_sound=samples.size > 0,
        )
