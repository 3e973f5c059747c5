"""What the parts of calibration contribute that learn from a stream: its background, and a budget of alerts.

No stream of days comes with the data, so cameras are composed: short files looped, or drawn by lot. Prompts are names
of kinds of event, by the bridge alone.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.background import EVERY_S, WARM_UP_S, Background, update, usual_lead
from models.budget import DAY_S, Past
from models.evaluate.metrics import roc_auc
from models.prompts import PromptText

if TYPE_CHECKING:
    from models.train.ablation import Sense

FALSE_SHARE = 0.03
THRESHOLD = 0.5
CAMERAS_AN_EVENT = 3  # each event happens under so many cameras, drawn by lot
HOP_S = 60.0  # of windows of a composed day
EVENTS_A_DAY = 4
DAYS = 8
COOLDOWN_US = 32_000_000

Floats = NDArray[np.float64]


def background(sense: "Sense") -> Iterator[str]:
    """A camera shows the first half of an ordinary file for long, then its second half or an event's file."""
    kinds = [kind for kind in sense.kinds if any(kind in c.labels and c.kind != "image" for c in sense.cases)]
    least = 4 if sense.name == "seen" else 2
    cameras = [
        row
        for row, case in enumerate(sense.cases)
        if not case.labels and case.kind != "image" and len(sense.tokens[row].whole) >= least
    ]
    events = {kind: [r for r, c in enumerate(sense.cases) if kind in c.labels and c.kind != "image"] for kind in kinds}
    rng = np.random.default_rng(0)
    leads, calm = _watched(sense, kinds, cameras)
    for name, share in (("without", 0.0), ("with", 1.0)):
        found = []
        for column, kind in enumerate(kinds):
            scores = sense.normalised([PromptText(kind)], events[kind])[:, 0].repeat(CAMERAS_AN_EVENT)
            there = scores - share * leads[rng.integers(0, len(cameras), len(scores)), column]
            found.append(_told(sense, there, calm[:, column] - share * leads[:, column]))
        yield f"{sense.name} {name} background, {len(cameras)} looped cameras: {_line(found)}"


def own_camera(sense: "Sense", kind: str = "fight") -> Iterator[str]:
    """The same where the event happens on the very camera that was watched: it must not be taken for usual."""
    groups = {case.group for case in sense.cases if kind in case.labels}
    cameras = [
        row for row, case in enumerate(sense.cases) if not case.labels and case.kind == "video" and case.group in groups
    ]
    leads, calm = _watched(sense, [kind], cameras)
    place = {sense.cases[row].group: number for number, row in enumerate(cameras)}
    rows = [row for row, case in enumerate(sense.cases) if kind in case.labels and case.group in place]
    scores = sense.normalised([PromptText(kind)], rows)[:, 0]
    own = leads[[place[sense.cases[row].group] for row in rows], 0]
    for name, share in (("without", 0.0), ("with", 1.0)):
        told = _told(sense, scores - share * own, calm[:, 0] - share * leads[:, 0])
        yield f"{sense.name} {name} background, {kind} on {len(cameras)} cameras of its own: {_line([told])}"


def budget(sense: "Sense") -> Iterator[str]:
    """One day of ordinary files drawn by lot, then another of other ones with a few events in it."""
    ordinary = np.array([row for row, case in enumerate(sense.cases) if not case.labels])
    first = np.array([hash_of(sense.cases[row].group) for row in ordinary]) % 2 == 0
    kinds = [kind for kind in sense.kinds if sense.labels(kind).sum() >= EVENTS_A_DAY]
    rng = np.random.default_rng(0)
    rows: dict[str, list[tuple[float, float]]] = {f"threshold {THRESHOLD}": [], f"{EVENTS_A_DAY} alerts a day": []}
    for kind in kinds:
        scores = sense.prior.probability(sense.normalised([PromptText(kind)])[:, 0].astype(np.float32))
        events = np.flatnonzero(sense.labels(kind))
        for _ in range(DAYS):
            past = Past()
            _day(past, rng.choice(scores[ordinary[first]], round(DAY_S / HOP_S)))
            learnt = past.threshold(float(EVENTS_A_DAY))
            second = rng.choice(scores[ordinary[~first]], round(DAY_S / HOP_S))
            shown = rng.choice(scores[events], EVENTS_A_DAY, replace=False)
            for name, threshold in zip(rows, (THRESHOLD, learnt or THRESHOLD), strict=True):
                rows[name].append((float((second >= threshold).sum()), float((shown >= threshold).mean())))
    for name, told in rows.items():
        alerts, recall = np.array(told).T
        over = float((alerts > 2 * EVENTS_A_DAY).mean())
        yield (
            f"{sense.name} {name}: false alerts a day, median {np.median(alerts):.0f}, mean {alerts.mean():.1f}, "
            f"{over:.0%} of days over twice the budget; recall {recall.mean():.2f}"
        )


def hash_of(group: str) -> int:
    """The same lot for a group in every run."""
    return sum(group.encode())


def _day(past: Past, confidences: NDArray[np.float32]) -> None:
    for confidence in confidences.tolist():
        start_us = max(past.until_us, 0)
        past.add(confidence, start_us, start_us + round(HOP_S * 1e6), COOLDOWN_US, is_active=True)


def _watched(sense: "Sense", kinds: Sequence[str], cameras: Sequence[int]) -> tuple[Floats, Floats]:
    """What each camera takes away from each prompt, and what its second half scores: both ``(cameras, kinds)``."""
    texts = [PromptText(kind) for kind in kinds]
    queries = sense.queries(texts)
    scaling = sense.ordinary.scaling(queries.vectors)
    leads, calm = [], []
    for row in cameras:
        whole = sense.tokens[row].whole
        half = len(whole) // 2
        state = Background.empty(whole.shape[1])
        for turn in range(round(2 * WARM_UP_S / EVERY_S)):
            state = update(state, [whole[turn % half]], round((turn + 1) * EVERY_S * 1e6), is_alert=False)
        leads.append(usual_lead(state, queries.vectors, sense.ordinary, scaling).double().numpy())
        calm.append(sense.normalised(texts, [row], slice(half, None))[0])
    return np.stack(leads), np.stack(calm)


def _told(sense: "Sense", events: Floats, calm: Floats) -> tuple[float, float, float, float]:
    """AUC, recall at `FALSE_SHARE`, and recall and false share at `THRESHOLD`."""
    truth = np.arange(len(events) + len(calm)) < len(events)
    sure = [sense.prior.probability(part.astype(np.float32)) >= THRESHOLD for part in (events, calm)]
    auc = roc_auc(truth, np.concatenate((events, calm))) or 0.0
    recall = float((events > np.quantile(calm, 1 - FALSE_SHARE)).mean())
    return auc, recall, float(sure[0].mean()), float(sure[1].mean())


def _line(found: Sequence[tuple[float, float, float, float]]) -> str:
    auc, recall, sure, false = np.mean(found, axis=0)
    return (
        f"AUC {auc:.3f}, recall at {FALSE_SHARE:.0%} false {recall:.3f}; at {THRESHOLD} recall {sure:.3f}, "
        f"false {false:.3f}"
    )
