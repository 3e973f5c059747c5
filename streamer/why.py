"""Putting together why a prompt did not fire on a stream."""

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from streamer.errors import PromptError, WatchwordError
from streamer.events import to_rfc3339
from streamer.gates import MINUTES
from streamer.live import LiveBoard
from streamer.masks import rasterise
from streamer.prompts import SYSTEM_PROMPTS, Prompt
from streamer.types import Polygon

_GRID = 128  # cells a side on which a region is compared with masks

_EXPLANATIONS: Mapping[str | None, str] = {
    None: "It matched: see `watchword events list`.",
    "disabled": "It is disabled: `watchword prompts update ID --enable` lets it watch.",
    "selector": "Its `streams` selects other streams.",
    "mask": "All that it may look at is under the stream's privacy mask.",
    "region": "It matched better outside its region.",
    "schedule": "It came near while its schedule was closed.",
    "threshold": "It stayed under its threshold.",
    "duration": "It reached its threshold, but not for as long as `min_duration`.",
    "cooldown": "It matched again, but within the `cooldown` of the event before.",
}

OWN = "its own"
_UNLISTED = " Of very many prompts only the nearest are listed: its best is no more than this."


def explain(
    board: LiveBoard, prompts: Sequence[Prompt], stream: str, name: str, masks: Sequence[Polygon], now_us: int
) -> dict[str, Any]:
    """The document that `watchword why --json` prints.

    Args:
        board: Where workers write.
        prompts: All stored prompts.
        stream: Stream id.
        name: A prompt's id or text.
        masks: The stream's privacy masks.
        now_us: Microseconds since 1970 UTC.

    Raises:
        PromptError: There is no such prompt.
        WatchwordError: There is no such stream, or no worker wrote about it lately.
        UnavailableError: Redis is away.
    """
    prompt = _named(prompts, name)
    statuses = board.streams()
    if stream not in statuses:
        raise WatchwordError(f"no worker has seen a stream {stream!r}; {_nearest(stream, statuses)}")
    document = board.why(stream)
    gate = _standing_gate(prompt, stream, _labels(statuses[stream]), masks)
    if document is None:
        if gate is None:
            raise WatchwordError(
                f"no worker has looked at stream {stream!r} for a while; see `watchword streams`, and start a worker"
            )
        document = {"best": {}, "floor": 0.0, "near": {}}
    threshold, reason = document.get("thresholds", {}).get(prompt.id, (prompt.threshold, _reason(prompt)))
    windows = document["near"].get(prompt.id, [])
    is_listed = prompt.id in document["best"] or not document["floor"]
    best = document["best"].get(prompt.id, document["floor"])
    if gate is None:
        gate = windows[0][2] if windows else "threshold" if prompt.is_open(now_us) else "schedule"
    return {
        "stream": stream,
        "prompt": prompt.id,
        "best": best,
        "threshold": threshold,
        "threshold_why": reason,
        "gate": gate,
        "near_misses": [
            {"time": to_rfc3339(time_us), "confidence": confidence, "gate": stopped_by}
            for time_us, confidence, stopped_by in windows
            if stopped_by is not None
        ],
        "minutes": MINUTES,
        "explanation": _EXPLANATIONS[gate] + ("" if is_listed else _UNLISTED),
    }


def _reason(prompt: Prompt) -> str:
    return OWN if prompt.alerts_per_day is None else "the default until enough was watched"


def _named(prompts: Sequence[Prompt], name: str) -> Prompt:
    for prompt in prompts:
        if prompt.id == name:
            return prompt
    for prompt in prompts:
        if prompt.text == name:
            return prompt
    if name in SYSTEM_PROMPTS:
        raise PromptError(
            f"{name} watches the camera itself and has no near misses; settings system.* say when it fires"
        )
    raise PromptError(f"there is no prompt {name!r}; {_nearest(name, [prompt.id for prompt in prompts])}")


def _standing_gate(prompt: Prompt, stream: str, labels: Mapping[str, str], masks: Sequence[Polygon]) -> str | None:
    """What stops a prompt whatever is seen or heard."""
    if not prompt.enabled:
        return "disabled"
    if not prompt.applies_to(stream, labels):
        return "selector"
    if masks and prompt.modality in ("video", "both"):
        masked = rasterise(masks, _GRID, _GRID)
        looked_at = ~masked if prompt.region is None else rasterise([prompt.region], _GRID, _GRID) & ~masked
        if not looked_at.any():
            return "mask"
    return None


def _labels(status: Mapping[str, str]) -> Mapping[str, str]:
    labels: Mapping[str, str] = json.loads(status.get("labels", "{}"))
    return labels


def _nearest(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known are {', '.join(names[:10])}{' ...' if len(names) > 10 else ''}" if names else "there are none at all"
