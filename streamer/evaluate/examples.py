"""The files that a prompt did best and worst on, drawn with the evidence."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from models.evaluate.media import read_sound, spectrogram
from streamer.evaluate.questions import SENSE, Question
from streamer.evaluate.replay import Shown, show
from streamer.evaluate.report import THRESHOLD, Result
from streamer.snapshot import render
from streamer.stages import Stages
from streamer.still import decode_still
from streamer.types import MediaChunk

EACH = 3
_SIDE_PX = 288
_BAND_PX = 2  # a mel band's height
_QUALITY = 72
_VEIL = 0.35  # brightness of what lies outside the best window


@dataclass(frozen=True, slots=True)
class Example:
    """A file as the page shows it.

    Attributes:
        verdict: ``hit``, ``missed`` or ``false``.
        path: Of the manifest.
        score: Of its best window.
        at_s: Where that window begins, seconds from the file's start.
        labels: That it has.
        note: Of the manifest; composed media say so there.
        jpeg: The best frame with its region, or the spectrogram with the best window bright. Base64.
    """

    verdict: str
    path: str
    score: float
    at_s: float
    labels: tuple[str, ...]
    note: str
    jpeg: str


def find_examples(
    results: Sequence[Result], questions: Sequence[Question], stages: Stages
) -> dict[tuple[str, str], list[Example]]:
    """By kind and prompt: the surest positives, the least sure ones, and the surest negatives."""
    chosen: dict[tuple[str, str], list[tuple[str, Result, int]]] = {}
    for place, question in enumerate(questions):
        for kind in question.kinds if not question.is_paraphrase else ():
            mine = [result for result in results if result.item.kind == kind]
            chosen[kind, question.text] = _extremes(mine, place, question)
    shown = _show([part for parts in chosen.values() for part in parts], stages)
    return {
        key: [
            _drawn(verdict, result, place, shown[result.watched.clip.name, place])
            for verdict, result, place in parts
            if (result.watched.clip.name, place) in shown
        ]
        for key, parts in chosen.items()
    }


def _extremes(results: Sequence[Result], place: int, question: Question) -> list[tuple[str, Result, int]]:
    ranked = sorted(results, key=lambda result: -result.scores[place])
    own = [result for result in ranked if question.label in result.item.labels]
    other = [result for result in ranked if question.label not in result.item.labels]
    hits = [result for result in own if result.scores[place] >= THRESHOLD][:EACH]
    missed = [result for result in reversed(own) if result not in hits][:EACH]
    parts = (("hit", hits), ("missed", missed), ("false", other[:EACH]))
    return [(verdict, result, place) for verdict, some in parts for result in some]


def _show(chosen: Sequence[tuple[str, Result, int]], stages: Stages) -> Mapping[tuple[str, int], Shown]:
    columns: dict[str, set[int]] = {}
    by_name = {result.watched.clip.name: result for _, result, _ in chosen}
    for _, result, place in chosen:
        columns.setdefault(result.watched.clip.name, set()).add(place)
    wanted = {
        by_name[name].watched.clip: (SENSE[by_name[name].item.kind], sorted(some)) for name, some in columns.items()
    }
    return show(stages, wanted, next(iter(by_name.values())).prompts) if by_name else {}


def _drawn(verdict: str, result: Result, place: int, shown: Shown) -> Example:
    item, watched = result.item, result.watched
    at_s = max(0.0, (shown.start_us - watched.begins_us) / 1e6)
    is_sound = SENSE[item.kind] == "heard"
    jpeg = _heard(read_sound(watched.clip.path), at_s) if is_sound else _seen(shown)
    encoded = base64.b64encode(jpeg).decode()
    return Example(verdict, item.path, float(result.scores[place]), at_s, item.labels, item.note, encoded)


def _seen(shown: Shown) -> bytes:
    evidence = shown.evidence
    if evidence.frame_time_us is None:
        return b""
    return render(
        decode_still(_chunk_at(shown.chunks, evidence.frame_time_us), evidence.frame_time_us, _SIDE_PX, ()),
        evidence.region,
        "",
    )


def _chunk_at(chunks: Sequence[MediaChunk], at_us: int) -> MediaChunk:
    pictures = [chunk for chunk in chunks if not chunk.content_type.startswith("audio/")]
    return max(
        (chunk for chunk in pictures if chunk.capture_us <= at_us),
        key=lambda chunk: chunk.capture_us,
        default=pictures[0],
    )


def _heard(samples: NDArray[np.float32], at_s: float, span_s: float = 2.0) -> bytes:
    """The whole sound as a spectrogram, low notes at the bottom, the best window bright."""
    bands = spectrogram(samples)
    low, high = float(bands.min()), float(bands.max())
    grey = ((bands.T[::-1] - low) / max(high - low, 1e-6) * 255).astype(np.uint8)
    coloured = cv2.applyColorMap(grey, cv2.COLORMAP_MAGMA).astype(np.float32)
    columns = np.arange(coloured.shape[1]) / 100
    is_inside = (columns >= at_s) & (columns < at_s + span_s)
    coloured[:, ~is_inside] *= _VEIL
    size = (_SIDE_PX, grey.shape[0] * _BAND_PX)
    picture = cv2.resize(coloured, size, interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode(".jpg", picture.astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return bytes(jpeg.tobytes())
