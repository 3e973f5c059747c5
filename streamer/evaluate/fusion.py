"""What two senses are worth together, and what it costs when one is lost. On clips put together from labelled ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.evaluate.manifest import Item, read_manifest
from models.evaluate.metrics import average_precision
from streamer.evaluate.clips import Clip
from streamer.evaluate.compose import accompany, without
from streamer.evaluate.evidence import HEARD, SEEN, labelled, ordinary
from streamer.evaluate.questions import ask_texts
from streamer.evaluate.replay import prompt_set, watch
from streamer.stages import Stages

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class _Case:
    """A film, what is heard under it, and which sense carries an event, if one does."""

    film: Path
    sound: Path | None
    carried_by: str


def measure_fusion(  # noqa: PLR0913  # what a manifest needs, by name
    stages: Stages,
    manifest: Path,
    root: Path,
    folder: Path,
    *,
    split: str | None = "dev",
    count: int = 32,
    seed: int = 1,
    seen: str = SEEN,
    heard: Sequence[str] = HEARD,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Watch for fire and for the sounds of `HEARD` at once, in clips in which one sense alone carries an event.

    A third of the clips are films of fire with silence or ordinary sound, a third ordinary films with one of the
    sounds, the rest ordinary films with ordinary sound. A clip's score is that of its best prompt.

    Args:
        stages: The worker's.
        manifest: Labelled files.
        root: Folder that its paths are relative to.
        folder: Where the composed clips are written.
        split: Only items of this split; None: all.
        count: Of clips of each third.
        seed: Of the pairs.
        seen: Label of what only pictures carry.
        heard: Labels of what only sounds carry.
        progress: Told about each clip.

    Raises:
        EvaluationError: The manifest lacks what is needed.
    """
    cases = _cases(read_manifest(manifest, split), root, count, (seen, heard), np.random.default_rng(seed))
    clips: dict[str, list[Clip]] = {"both": [], "picture": [], "sound": []}
    for number, case in enumerate(cases):
        both = accompany(case.film, case.sound, folder / f"both-{number}.mp4")
        made = {
            "both": both,
            "picture": without(both, "sound", folder / f"picture-{number}.mp4"),
            "sound": without(both, "picture", folder / f"sound-{number}.mp4"),
        }
        for name, one in made.items():
            clips[name].append(Clip(f"{name}-{number}", one.path))
        progress(made["both"].note, number + 1, len(cases))
    prompts = prompt_set(stages, ask_texts([seen, *heard]))
    scores: dict[tuple[str, str], NDArray[np.float64]] = {}
    for name, some in clips.items():
        progress(f"watching {name}", 0, 1)
        watched = list(watch(stages, some, prompts))
        for sense in ("confidence", *(("seen", "heard") if name == "both" else ())):
            scores[name, sense] = np.array([float(one.best(sense).max()) for one in watched])
    return {"split": split, "composed": True, "prompts": [seen, *heard], **_compare(cases, scores)}


def _cases(
    items: Sequence[Item], root: Path, count: int, labels: tuple[str, Sequence[str]], rng: np.random.Generator
) -> list[_Case]:
    label, loud = labels
    films, sounds = ordinary(items, "video"), ordinary(items, "audio")
    fires = labelled(items, ("video",), label)
    cases = []
    for number in range(count):
        fire, film = fires[number % len(fires)], films[number % len(films)]
        sources = labelled(items, ("audio",), loud[number % len(loud)])
        quiet = [root / sounds[int(rng.integers(len(sounds)))].path for _ in range(2)]
        sound = root / sources[int(rng.integers(len(sources)))].path
        cases.append(_Case(root / fire.path, None if number % 2 else quiet[0], "picture"))
        cases.append(_Case(root / film.path, sound, "sound"))
        cases.append(_Case(root / film.path, quiet[1], ""))
    return cases


def _compare(cases: Sequence[_Case], scores: dict[tuple[str, str], NDArray[np.float64]]) -> dict[str, Any]:
    carried = np.array([case.carried_by for case in cases])
    everything = np.ones(len(cases), np.bool_)

    def precision(name: str, sense: str, among: NDArray[np.bool_]) -> float:
        value = average_precision(carried[among] != "", scores[name, sense][among])
        return round(float(value or 0.0), 4)

    fused, seen, heard = (precision("both", sense, everything) for sense in ("confidence", "seen", "heard"))
    lost = {}
    for left, sense, gone in (("picture", "seen", "sound"), ("sound", "heard", "picture")):
        among = (carried == left) | (carried == "")
        alone = precision("both", sense, among)
        without, beside = precision(left, "confidence", among), precision("both", "confidence", among)
        lost[gone] = {
            "alone": alone,
            "fused_without_it": without,
            "cost": round(alone - without, 4),
            "fused_beside_it": beside,
            "cost_of_its_presence": round(alone - beside, 4),
        }
    return {
        "clips": len(cases),
        "fused_ap": fused,
        "seen_ap": seen,
        "heard_ap": heard,
        "gain": round(fused - max(seen, heard), 4),
        "lost": lost,
    }
