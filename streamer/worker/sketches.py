"""Snapshots of events: drawn off the batch loop, one pass over a chunk for all that it shows."""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import structlog

from streamer.errors import ChunkError
from streamer.snapshot import render
from streamer.still import decode_stills
from streamer.types import MediaChunk, Polygon

_log = structlog.get_logger(__name__)
SIDE_PX = 640


@dataclass(frozen=True, slots=True)
class Sketch:
    """What a snapshot is to show.

    Attributes:
        chunk: Holds the frame.
        at_us: Capture time of the frame.
        masks: Privacy masks of the stream.
        region: ``(x0, y0, x1, y1)``, 0..1 of the picture; None: no box.
        caption: One line.
    """

    chunk: MediaChunk
    at_us: int
    masks: tuple[Polygon, ...]
    region: tuple[float, float, float, float] | None
    caption: str


Drawn = Sequence["Future[dict[str, bytes]]"]


class Artists:
    """Threads that draw.

    Args:
        threads: How many chunks are decoded at once.
    """

    def __init__(self, threads: int = 2) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="snapshot")
        self._is_closed = False
        self._closing = threading.Lock()

    def draw(self, sketches: Mapping[str, Sketch]) -> Drawn:
        """Begin to draw; each result holds JPEGs by event id, without those whose frame does not decode.

        Once closed nothing is drawn: who draws for what nobody writes any more must not fail for it.
        """
        by_chunk: dict[MediaChunk, dict[str, Sketch]] = {}
        for event_id, sketch in sketches.items():
            by_chunk.setdefault(sketch.chunk, {})[event_id] = sketch
        with self._closing:
            if self._is_closed:
                return ()
            return [self._pool.submit(_draw_chunk, chunk, mine) for chunk, mine in by_chunk.items()]

    def close(self) -> None:
        """Draw no more."""
        with self._closing:
            self._is_closed = True
            self._pool.shutdown(wait=False, cancel_futures=True)


def _draw_chunk(chunk: MediaChunk, sketches: Mapping[str, Sketch]) -> dict[str, bytes]:
    ids, wanted = list(sketches), list(sketches.values())
    jpegs: dict[str, bytes] = {}
    try:
        # The masks are the stream's, the same for all of a chunk.
        for places, still in decode_stills(chunk, [sketch.at_us for sketch in wanted], SIDE_PX, wanted[0].masks):
            for place in places:
                jpegs[ids[place]] = render(still, wanted[place].region, wanted[place].caption)
    except ChunkError as error:
        _log.warning("no snapshot", stream=chunk.stream, error=str(error))
    return jpegs
