"""Is the evidence true? Clips in which it is known where an event is, and which sense carries it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.evaluate.manifest import EvaluationError, Item, read_manifest
from streamer.evaluate.again import score_window
from streamer.evaluate.clips import Clip
from streamer.evaluate.compose import Box, Composed, accompany, plant
from streamer.evaluate.questions import ask_texts
from streamer.evaluate.replay import Shown, prompt_set, show
from streamer.evaluate.report import THRESHOLD
from streamer.prompts import Prompt
from streamer.stages import Stages

Progress = Callable[[str, int, int], None]
SEEN = "fire"
HEARD = ("gunshot", "siren", "scream", "explosion")
_SIDES = (0.25, 0.5)  # of the picture, least and most, of what is planted


def measure_evidence(  # noqa: PLR0913  # what a manifest needs, by name
    stages: Stages,
    manifest: Path,
    root: Path,
    folder: Path,
    *,
    split: str | None = "dev",
    count: int = 60,
    seed: int = 1,
    seen: str = SEEN,
    heard: Sequence[str] = HEARD,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Plant photos and films of fire in ordinary films, put sounds under others, and look at the evidence.

    Args:
        stages: The worker's.
        manifest: Labelled files, with fire among photos or films and the sounds of `HEARD`.
        root: Folder that its paths are relative to.
        folder: Where the composed clips are written.
        split: Only items of this split; None: all.
        count: Of planted clips, and of those with other sounds.
        seed: Of places and pairs.
        seen: Label of what is planted.
        heard: Labels of the sounds.
        progress: Told about each clip.

    Raises:
        EvaluationError: The manifest lacks what is needed.
    """
    items = read_manifest(manifest, split)
    rng = np.random.default_rng(seed)
    planted = _planted(items, root, folder, count, seen, rng, progress)
    carried = _carried(items, root, folder, count, (seen, heard), rng, progress)
    texts = [seen, *heard]
    prompts = prompt_set(stages, ask_texts(texts))
    clips = [Clip(f"planted-{number}", one.path) for number, one in enumerate(planted)]
    progress("looking at planted fire", 0, 1)
    shown = show(stages, dict.fromkeys(clips, ("seen", (0,))), prompts)
    pointing = _pointing([(one, shown[clip.name, 0]) for one, clip in zip(planted, clips, strict=True)])
    columns = {text: column for column, text in enumerate(texts)}
    wanted = {
        Clip(f"carried-{number}", one.path): ("confidence", (columns[text],))
        for number, (one, text, _) in enumerate(carried)
    }
    progress("which sense carries it", 0, 1)
    shown = show(stages, wanted, prompts)
    senses = [
        (text, sense, shown[f"carried-{number}", columns[text]]) for number, (_, text, sense) in enumerate(carried)
    ]
    progress("scoring again", 0, 1)
    by_name = {clip.name: clip for clip in wanted}
    again = [_again(stages, by_name[name], one, prompts.table.prompts[column]) for (name, column), one in shown.items()]
    return {
        "split": split,
        "composed": True,
        "pointing": pointing,
        "senses": _senses(senses),
        "again": {"windows": len(again), "largest_difference": round(max(again), 6)},
    }


def _again(stages: Stages, clip: Clip, shown: Shown, prompt: Prompt) -> float:
    """By how much a window's confidences differ when it is scored again from what evidence keeps."""
    found = score_window(stages, clip.name, shown.evidence, list(clip.chunks(stages.settings)), prompt)
    pairs = ((found.seen, shown.seen), (found.heard, shown.heard))
    return max(abs((own or 0.0) - (told or 0.0)) for own, told in pairs)


def ordinary(items: Sequence[Item], kind: str) -> list[Item]:
    """Items of a kind without any label.

    Raises:
        EvaluationError: There are none.
    """
    return _some([item for item in items if item.kind == kind and not item.labels], f"{kind} without a label")


def labelled(items: Sequence[Item], kinds: Sequence[str], label: str) -> list[Item]:
    """Items of some kinds with a label.

    Raises:
        EvaluationError: There are none.
    """
    some = [item for item in items if item.kind in kinds and label in item.labels]
    return _some(some, f"{' or '.join(kinds)} with label {label!r}")


def _some(items: list[Item], what: str) -> list[Item]:
    if not items:
        raise EvaluationError(f"the manifest has no {what}, which clips are composed of")
    return items


def _planted(
    items: Sequence[Item],
    root: Path,
    folder: Path,
    count: int,
    label: str,
    rng: np.random.Generator,
    progress: Progress,
) -> list[Composed]:
    films, fires = ordinary(items, "video"), labelled(items, ("image", "video"), label)
    made = []
    for number in range(count):
        film, fire = films[number % len(films)], fires[int(rng.integers(len(fires)))]
        made.append(plant(root / film.path, root / fire.path, _place(rng), folder / f"planted-{number}.mp4"))
        progress(made[-1].note, number + 1, count)
    return made


def _place(rng: np.random.Generator) -> Box:
    """Somewhere wholly within the picture."""
    width, height = rng.uniform(*_SIDES, 2)
    left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    return float(left), float(top), float(left + width), float(top + height)


def _carried(
    items: Sequence[Item],
    root: Path,
    folder: Path,
    count: int,
    labels: tuple[str, Sequence[str]],
    rng: np.random.Generator,
    progress: Progress,
) -> list[tuple[Composed, str, str]]:
    """Clips, the prompt that holds, and the sense that carries it."""
    label, loud = labels
    films, sounds = ordinary(items, "video"), ordinary(items, "audio")
    fires = labelled(items, ("video",), label)
    made = []
    for number in range(count):
        target = folder / f"carried-{number}.mp4"
        if number % 2:
            text, sense = loud[number // 2 % len(loud)], "heard"
            sources = labelled(items, ("audio",), text)
            film, sound = films[int(rng.integers(len(films)))], sources[int(rng.integers(len(sources)))]
            made.append((accompany(root / film.path, root / sound.path, target), text, sense))
        else:
            fire = fires[number // 2 % len(fires)]
            under = None if number % 4 else root / sounds[int(rng.integers(len(sounds)))].path
            made.append((accompany(root / fire.path, under, target), label, "seen"))
        progress(made[-1][0].note, number + 1, count)
    return made


def _pointing(pairs: Sequence[tuple[Composed, Shown]]) -> dict[str, Any]:
    """Pointing game: where is the maximum? Zhang et al., "Top-down Neural Attention by Excitation Backprop", 2016."""
    hits, centres, overlaps, areas, reported = [], [], [], [], []
    for one, shown in pairs:
        assert one.box is not None
        evidence = shown.evidence
        if evidence.region is None:
            continue
        grid = np.array(evidence.attention)
        row, column = np.unravel_index(int(grid.argmax()), grid.shape)
        hits.append(_inside(((column + 0.5) / grid.shape[1], (row + 0.5) / grid.shape[0]), one.box))
        if (shown.seen or 0.0) >= THRESHOLD:
            reported.append(hits[-1])
        left, top, right, bottom = evidence.region
        centres.append(_inside(((left + right) / 2, (top + bottom) / 2), one.box))
        overlaps.append(_overlap(evidence.region, one.box))
        areas.append((one.box[2] - one.box[0]) * (one.box[3] - one.box[1]))
    return {
        "clips": len(hits),
        "hits": round(float(np.mean(hits)), 4),
        "reported": len(reported),
        "hits_of_reported": round(float(np.mean(reported)), 4) if reported else None,
        "region_centre_hits": round(float(np.mean(centres)), 4),
        "region_overlap": round(float(np.mean(overlaps)), 4),
        "chance": round(float(np.mean(areas)), 4),
    }


def _inside(point: tuple[float, float], box: Box) -> bool:
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]


def _overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (areas - shared)


def _senses(cases: Sequence[tuple[str, str, Shown]]) -> dict[str, Any]:
    """How often the sense that carries an event is the surer one."""
    right: dict[str, list[bool]] = {}
    for text, sense, shown in cases:
        seen, heard = shown.seen or 0.0, shown.heard or 0.0
        right.setdefault(text, []).append((seen > heard) if sense == "seen" else (heard > seen))
    every = [one for some in right.values() for one in some]
    return {
        "clips": len(every),
        "right": round(float(np.mean(every)), 4),
        "by_prompt": {
            text: {"clips": len(some), "right": round(float(np.mean(some)), 4)} for text, some in right.items()
        },
    }
