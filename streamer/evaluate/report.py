"""What the scores of labelled files come to, as one document."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.evaluate.manifest import Item
from models.evaluate.metrics import (
    BINS,
    COVERAGE,
    REPLICATES,
    Interval,
    average_precision,
    bootstrap,
    calibration_error,
    decide,
    most_events,
    recall_at,
    reliability,
    roc_auc,
)
from streamer.align import PromptSet
from streamer.evaluate.questions import SENSE, Question
from streamer.evaluate.replay import Watched, track
from streamer.stages import Stages
from streamer.worker import model_of

VERSION = 1
THRESHOLD = 0.5
FALSE_RATE = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """A file, watched.

    Attributes:
        item: Its row of the manifest.
        watched: Its windows.
        scores: float64 ``(P,)``, of its best window by the sense that its kind is judged by.
        prompts: Of the columns.
    """

    item: Item
    watched: Watched
    scores: NDArray[np.float64]
    prompts: PromptSet

    @property
    def sense(self) -> NDArray[np.float32]:
        """Confidences of every window by that sense, ``(W, P)``."""
        part: NDArray[np.float32] = getattr(self.watched, SENSE[self.item.kind])
        return part


def make_report(
    results: Sequence[Result], questions: Sequence[Question], stages: Stages, split: str | None
) -> dict[str, Any]:
    """The document of `report.json`; see docs/evaluation.md."""
    kinds = {}
    for kind in ("video", "image", "audio"):
        mine = [result for result in results if result.item.kind == kind]
        asked = [(place, question) for place, question in enumerate(questions) if kind in question.kinds]
        if mine and asked:
            kinds[kind] = _kind(mine, asked, stages)
    model = model_of(stages.encoders, stages.calibrations)
    return {
        "version": VERSION,
        "split": split,
        "threshold": THRESHOLD,
        "interval": {"coverage": COVERAGE, "replicates": REPLICATES, "resampled": "groups"},
        "model": model.model_dump(mode="json"),
        "window": stages.settings.window.model_dump(mode="json"),
        "kinds": kinds,
        "ordinary": _ordinary(results, questions, stages),
    }


def _kind(results: Sequence[Result], asked: Sequence[tuple[int, Question]], stages: Stages) -> dict[str, Any]:
    hours = sum(result.watched.duration_s for result in results) / 3600
    is_still = results[0].item.kind == "image"
    opened = [] if is_still else [_opened(result, stages) for result in results]
    prompts = {}
    for place, question in asked:
        prompts[question.text] = _prompt(results, place, question)
        if not is_still:
            prompts[question.text] |= _alerts(results, opened, question)
    for figures in prompts.values():
        if figures["text"] != figures["label"] and figures["label"] in prompts:
            own, other = figures["ap"]["value"], prompts[figures["label"]]["ap"]["value"]
            figures["ap_against_label"] = _rounded(own - other) if None not in (own, other) else None
    return {
        "items": len(results),
        "groups": len({result.item.group for result in results}),
        "hours": None if is_still else round(hours, 9),
        "composed": sum(bool(result.item.note) for result in results),
        "prompts": prompts,
        "confusion": _confusion(results, [(place, one) for place, one in asked if not one.is_paraphrase]),
    }


def _prompt(results: Sequence[Result], place: int, question: Question) -> dict[str, Any]:
    labels = np.array([question.label in result.item.labels for result in results])
    scores = np.array([result.scores[place] for result in results])
    groups = [result.item.group for result in results]
    ap, auc, at_rate = bootstrap(
        (average_precision, roc_auc, lambda truth, given: recall_at(truth, given, FALSE_RATE)), labels, scores, groups
    )
    made = decide(labels, scores, THRESHOLD)
    bins = reliability(labels, scores, BINS)
    return {
        "text": question.text,
        "label": question.label,
        "n": len(labels),
        "n_pos": int(labels.sum()),
        "n_neg": int((~labels).sum()),
        "groups_pos": len({group for group, label in zip(groups, labels, strict=True) if label}),
        "accuracy": _rounded(made.accuracy),
        "precision": _rounded(made.precision),
        "recall": _rounded(made.recall),
        "f1": _rounded(made.f1),
        "false_rate": _rounded(made.false_rate),
        "tp": made.tp,
        "fp": made.fp,
        "fn": made.fn,
        "tn": made.tn,
        "ap": _interval(ap),
        "roc_auc": _interval(auc),
        "recall_at_fpr10": _interval(at_rate),
        "ece": _rounded(calibration_error(bins)),
        "reliability": [{key: _rounded(value) for key, value in asdict(part).items()} for part in bins],
        "histogram": {
            "positive": np.histogram(scores[labels], 20, (0, 1))[0].tolist(),
            "negative": np.histogram(scores[~labels], 20, (0, 1))[0].tolist(),
        },
        "precision_recall": _curve(labels, scores),
    }


def _curve(labels: NDArray[np.bool_], scores: NDArray[np.float64]) -> list[list[float]]:
    """Recall and precision at every score that a positive has."""
    points = []
    for threshold in sorted(set(scores[labels].tolist()), reverse=True):
        made = decide(labels, scores, threshold)
        points.append([round(made.recall or 0.0, 4), round(made.precision or 0.0, 4)])
    return points


def _alerts(
    results: Sequence[Result], opened: Sequence[Mapping[str, Sequence[float]]], question: Question
) -> dict[str, Any]:
    """Events that a worker would open by this sense alone: how often wrongly, and how soon rightly."""
    false, false_s, missed = 0, 0.0, 0
    waits: list[float] = []
    for result, mine in zip(results, opened, strict=True):
        waited = mine.get(question.prompt.id, ())
        if question.label not in result.item.labels:
            false += len(waited)
            false_s += result.watched.duration_s
        elif waited:
            waits.append(min(waited))
        else:
            missed += 1
    return {
        "false_alerts": _rate(false, false_s / 3600),
        "time_to_alert": {
            "alerted": len(waits),
            "missed": missed,
            "median_s": _rounded(float(np.median(waits))) if waits else None,
            "p90_s": _rounded(float(np.quantile(waits, 0.9))) if waits else None,
        },
    }


def _opened(result: Result, stages: Stages) -> dict[str, list[float]]:
    """By prompt id, seconds from the file's start to each event that its own sense would open."""
    opened: dict[str, list[float]] = {}
    for change, at_us in track(result.watched, result.sense, result.prompts, stages):
        opened.setdefault(change.prompt.id, []).append((at_us - result.watched.begins_us) / 1e6)
    return opened


def _rate(events: int, hours: float) -> dict[str, Any]:
    if not hours:
        return {"events": events, "hours": 0.0, "per_hour": None, "at_most_per_hour": None}
    return {
        "events": events,
        "hours": round(hours, 9),
        "per_hour": _rounded(events / hours),
        "at_most_per_hour": _rounded(most_events(events) / hours),
    }


def _ordinary(results: Sequence[Result], questions: Sequence[Question], stages: Stages) -> dict[str, Any]:
    """Events on films and sounds without any label, all prompts standing and both senses fused, as installed."""
    own = {question.prompt.id: question.text for question in questions if not question.is_paraphrase}
    by_kind = {}
    for kind in ("video", "audio"):
        plain = [result for result in results if result.item.kind == kind and not result.item.labels]
        by_prompt: dict[str, int] = dict.fromkeys(own.values(), 0)
        for result in plain:
            for change, _ in track(result.watched, result.watched.confidence, result.prompts, stages):
                if change.prompt.id in own:
                    by_prompt[own[change.prompt.id]] += 1
        hours = sum(result.watched.duration_s for result in plain) / 3600
        if plain:
            by_kind[kind] = {"items": len(plain), **_rate(sum(by_prompt.values()), hours), "by_prompt": by_prompt}
    return by_kind


def _confusion(results: Sequence[Result], asked: Sequence[tuple[int, Question]]) -> dict[str, Any]:
    """Of the files with each label, and of those without any, the share over the threshold of each prompt."""
    rows = []
    for label in [*(question.label for _, question in asked), ""]:
        mine = [result for result in results if (label in result.item.labels if label else not result.item.labels)]
        over = [[bool(one.scores[place] >= THRESHOLD) for one in mine] for place, _ in asked]
        shares = [float(np.mean(part)) if part else None for part in over]
        rows.append({"label": label, "items": len(mine), "reported": [_rounded(share) for share in shares]})
    return {"prompts": [question.text for _, question in asked], "rows": rows}


def _interval(interval: Interval) -> dict[str, float | None]:
    return {key: _rounded(value) for key, value in asdict(interval).items()}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
