"""What ten thousand prompts cost beside encoding, and whether the prefilter loses a match. On real frames."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray

from models.aligner import Aligner
from models.encoders import PictureTokens
from models.normalise import Scaling
from models.queries import Queries
from streamer.bench.prompts import distinct_prompts
from streamer.demo import street_footage
from streamer.settings import Settings
from streamer.stages import open_stages

Say = Callable[[str], None]
BLOCK = 16  # frames that are aligned at once
RATE_HZ = 8.0
MOST = 48  # frames of a film


def measure_prefilter(
    settings: Settings, say: Say, films: Sequence[Path], texts: Sequence[str], threshold: float
) -> dict[str, Any]:
    """Align each film's frames with and without the prefilter.

    Args:
        settings: Name the encoders.
        say: Told about progress.
        films: None given: a street and a room.
        texts: Prompts; none: 10,000 made from words.
        threshold: Of every prompt.
    """
    encode = settings.encode.model_copy(update={"device": "cpu", "threads": 1})
    stages = open_stages(settings.model_copy(update={"encode": encode}))
    encoders, ordinary = stages.encoders, stages.normaliser.seen
    torch.set_num_threads(1)
    texts = texts or [str(prompt["text"]) for prompt in distinct_prompts(10_000)]
    began_s = time.perf_counter()
    queries = Queries.plain(torch.from_numpy(encoders.picture_text.encode(texts)))
    say(f"{len(texts)} prompts embedded in {time.perf_counter() - began_s:.1f} s")
    lowest = np.full(len(texts), settings.track.exit_ratio * threshold, np.float32)
    scaling = Scaling.none(len(texts)) if ordinary is None else ordinary.scaling(queries.vectors)
    floors = scaling.back(torch.from_numpy(stages.calibrations.seen.score(lowest)))
    rows = {}
    blocks: list[PictureTokens] = []
    for name, path in _films(films):
        pixels = film_pictures(path, encoders.picture.size, MOST)
        encoders.picture.encode(pixels[:2])
        began_s = time.process_time()
        made = encoders.picture.encode(pixels)
        encode_ms = (time.process_time() - began_s) * 1e3 / len(pixels)
        rows[name] = _compare(made, queries, floors, encode_ms)
        blocks.append(made)
        say(f"{name}: {rows[name]}")
    together = PictureTokens(_shuffled([made.cells for made in blocks]), _shuffled([made.whole for made in blocks]))
    mean_ms = float(np.mean([row["encode_ms"] for row in rows.values()]))
    rows["all, mixed"] = _compare(together, queries, floors, mean_ms)
    return {"prompts": len(texts), "floor": round(float(floors.median()), 4), "films": rows}


def film_pictures(path: Path, size: int, most: int) -> NDArray[np.uint8]:
    """Pictures of a film, about `RATE_HZ` a second, uint8 ``(N, size, size, 3)`` RGB, ``N <= most``."""
    pictures: list[NDArray[np.uint8]] = []
    with av.open(str(path)) as film:
        stream = film.streams.video[0]
        step = max(1, round(float(stream.average_rate or RATE_HZ) / RATE_HZ))
        for number, frame in enumerate(film.decode(stream)):
            if number % step == 0:
                pictures.append(np.asarray(frame.reformat(size, size, "rgb24").to_ndarray(), np.uint8))
            if len(pictures) == most:
                break
    return np.stack(pictures)


def _films(films: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    if films:
        yield from ((film.name, film) for film in films)
        return
    yield "street, busy", street_footage()
    with as_file(files("streamer.bench") / "data" / "room.mp4") as path:
        yield "room, quiet", path


def _shuffled(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Frames of all films in one fixed random order: as if each came from another camera."""
    frames = torch.cat(list(parts))
    return frames[torch.randperm(len(frames), generator=torch.Generator().manual_seed(1))]


def _compare(made: PictureTokens, queries: Queries, floors: torch.Tensor, encode_ms: float) -> Mapping[str, Any]:
    aligner = Aligner()
    aligner.pictures(made.cells[:BLOCK], made.whole[:BLOCK], queries, floors=floors)  # what is made only once
    spent_s, matches, lost, lifted, exact_pairs = 0.0, 0, 0, 0, 0
    for start in range(0, len(made.cells), BLOCK):
        cells, whole = made.cells[start : start + BLOCK], made.whole[start : start + BLOCK]
        began_s = time.thread_time()
        filtered = aligner.pictures(cells, whole, queries, floors=floors)
        spent_s += time.thread_time() - began_s
        exact = aligner.pictures(cells, whole, queries)
        is_match = exact >= floors
        matches += int(is_match.sum())
        lost += int((is_match & (filtered < floors)).sum())
        lifted += int((~is_match & (filtered >= floors)).sum())
        exact_pairs += int(((filtered - exact).abs() < 1e-5).sum())
    frames = len(made.cells)
    align_ms = spent_s * 1e3 / frames
    return {
        "frames": frames,
        "encode_ms": round(encode_ms, 3),
        "align_ms": round(align_ms, 3),
        "cost": round(align_ms / encode_ms, 4),
        "looked_at": round(exact_pairs / (frames * len(queries)), 5),
        "matches": matches,
        "lost": lost,
        "lifted": lifted,
    }
