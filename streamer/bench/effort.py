"""What following activity saves, and what it costs in confidence, on real footage."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.calibrate import PRIOR
from models.encoders import Encoders
from models.load import load_chosen
from streamer.align import AlignStage, PromptEmbedder
from streamer.bench.footage import CAMERA, room, street
from streamer.decode import DecodeOptions, decode_chunk
from streamer.encode import EncodeStage
from streamer.ingest.session import Session
from streamer.ingest.spec import SourceSpec
from streamer.prompts import parse_prompt
from streamer.settings import Settings
from streamer.types import Batch, MediaChunk, Window
from streamer.window import Windower

Say = Callable[[str], None]
PROMPTS = (  # some that match the built-in films, some that do not
    *("bicycle", "car", "street", "person", "bus", "traffic light", "road", "building", "tree", "window"),
    *("table", "floor", "wall", "door", "chair", "room", "fire", "smoke", "dog", "crowd"),
)


@dataclass(frozen=True, slots=True, eq=False)
class Watched:
    """How one film was watched.

    Attributes:
        decoded: Frames.
        encoded: Frames; the others were still.
        cpu_s: Processor time of decoding, aligning and, on a CPU, encoding.
        confidence: float32 ``(P,)`` by window start.
    """

    decoded: int
    encoded: int
    cpu_s: float
    confidence: Mapping[int, NDArray[np.float32]]


def measure_effort(settings: Settings, say: Say, films: Sequence[Path]) -> dict[str, Any]:
    """Watch each film with full effort and by activity, and compare.

    Full effort is every frame of the motion rate decoded and encoded.
    """
    encoders = load_chosen(settings.encode)
    rows = {}
    for name, chunks in _films(settings, films).items():
        full = _watch(_full(settings), encoders, chunks)
        by_activity = _watch(settings, encoders, chunks)
        rows[name] = _compare(full, by_activity)
        say(f"{name}: {rows[name]}")
    return {"prompts": len(PROMPTS), "films": rows}


def _films(settings: Settings, films: Sequence[Path]) -> Mapping[str, Sequence[MediaChunk]]:
    if not films:
        return {"street, busy": street(CAMERA, settings), "room, quiet": room(CAMERA, settings)}
    return {film.name: _cut(film, settings) for film in films}


def _cut(film: Path, settings: Settings) -> Sequence[MediaChunk]:
    session = Session("bench", SourceSpec(str(film), rate=None), settings, threading.Event(), lambda *_: None)
    return tuple(session.chunks())


def _full(settings: Settings) -> Settings:
    return settings.model_copy(
        update={
            "decode": settings.decode.model_copy(update={"effort": "motion"}),
            "encode": settings.encode.model_copy(update={"rate_hz": 1000.0, "reuse_max_age_s": 0.0}),
        }
    )


def _watch(settings: Settings, encoders: Encoders, chunks: Sequence[MediaChunk]) -> Watched:
    window = settings.window
    windower = Windower(window.span_s, window.hop_s, window.join_wait_s, window.idle_flush_s, time.monotonic)
    stage = EncodeStage(
        encoders,
        hop_s=window.hop_s,
        reuse_max_age_s=settings.encode.reuse_max_age_s,
        reuse_noise=settings.encode.reuse_noise,
        rate_hz=settings.encode.rate_hz,
    )
    prompts = PromptEmbedder(encoders, PRIOR).embed(1, [parse_prompt(text) for text in PROMPTS])
    align = AlignStage(lambda: prompts, PRIOR, encoders.picture.grid)
    options = DecodeOptions.of(settings.decode, encoders.picture.size)
    decoded = encoded = 0
    confidence: dict[int, NDArray[np.float32]] = {}

    def take(windows: Sequence[Window]) -> int:
        fresh = 0
        for cut in windows:
            tokens = stage.encode(Batch((cut,), 0.0, (0.0,)))
            fresh += 0 if tokens.fresh_frames is None else len(tokens.fresh_frames.items) - len(tokens.audits)
            confidence[cut.start_us] = align.align(tokens)[0].confidence[0]
        return fresh

    began_s = time.process_time()
    for chunk in chunks:
        made = decode_chunk(chunk, options)
        decoded += len(made.times_us)
        encoded += take(windower.push(made))
    encoded += take(windower.flush(chunks[0].stream))
    return Watched(decoded, encoded, time.process_time() - began_s, confidence)


def _compare(full: Watched, by_activity: Watched) -> dict[str, Any]:
    shared = sorted(full.confidence.keys() & by_activity.confidence.keys())
    difference = np.abs(np.stack([full.confidence[at] - by_activity.confidence[at] for at in shared]))
    return {
        "windows": len(shared),
        "decoded_frames": [full.decoded, by_activity.decoded],
        "encoded_frames": [full.encoded, by_activity.encoded],
        "cpu_ratio": round(by_activity.cpu_s / full.cpu_s, 3),
        "confidence_error_mean": round(float(np.nanmean(difference)), 4),
        "confidence_error_p99": round(float(np.nanpercentile(difference, 99)), 4),
        "confidence_error_max": round(float(np.nanmax(difference)), 4),
    }
