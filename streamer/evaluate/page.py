"""The report as one page that needs nothing else: style, charts and pictures are in it."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from streamer.evaluate import charts
from streamer.evaluate.examples import Example, find_examples
from streamer.evaluate.questions import Question
from streamer.evaluate.report import Result
from streamer.stages import Stages

_KINDS = {"video": "Videos", "image": "Photos", "audio": "Sounds"}
_VERDICTS = {"hit": "found", "missed": "missed or least sure", "false": "surest without it"}
_HEADER = (
    *("prompt", "files with / without", "AP", "ROC AUC", "recall at 10 % false", "precision", "recall", "F1"),
    *("accuracy", "ECE", "false alerts an hour", "alert after"),
)


def make_page(
    report: Mapping[str, Any],
    results: Sequence[Result],
    questions: Sequence[Question],
    stages: Stages,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> str:
    """HTML, UTF-8, without scripts and without anything from elsewhere."""
    progress("pictures of examples", 0, 1)
    examples = find_examples(results, questions, stages)
    parts = [_head(report)]
    for kind, figures in report["kinds"].items():
        parts.append(f"<h2>{_KINDS[kind]}</h2>")
        parts.append(_facts(kind, figures))
        parts.append(_summary(figures["prompts"]))
        parts += [_card(name, one, examples.get((kind, name), [])) for name, one in figures["prompts"].items()]
        parts.append(_confusion(figures["confusion"]))
    parts += [_ordinary(report["ordinary"]), _reading(report)]
    style = (files("streamer.evaluate") / "page.css").read_text(encoding="utf-8")
    progress("pictures of examples", 1, 1)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="color-scheme" '
        f'content="light dark"><title>Watchword: evaluation</title><style>{style}</style></head>'
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _head(report: Mapping[str, Any]) -> str:
    model = report["model"]
    facts = {
        "split": report["split"] or "all",
        "model": model["name"],
        "SHA-256": model["sha256"][:16],
        "threshold": f"{report['threshold']:g}",
        "window": f"{report['window']['span_s']:g} s, every {report['window']['hop_s']:g} s",
    }
    note = f'<p class="soft">Of the model: {escape(model["note"])}.</p>' if model["note"] else ""
    return f"<h1>Watchword: evaluation</h1>{_listed(facts)}{note}"


def _facts(kind: str, figures: Mapping[str, Any]) -> str:
    facts = {"files": str(figures["items"]), "groups": str(figures["groups"])}
    if kind != "image":
        facts["length"] = f"{figures['hours'] * 60:.1f} min"
    composed = figures["composed"]
    warning = f'<p><span class="note">{composed} of them composed or synthetic</span></p>' if composed else ""
    return _listed(facts) + warning


def _listed(facts: Mapping[str, str]) -> str:
    pairs = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    return f'<dl class="facts">{pairs}</dl>'


def _summary(prompts: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for name, one in prompts.items():
        is_paraphrase = one["text"] != one["label"]
        shown = escape(name) + (f" <small>for {escape(one['label'])}</small>" if is_paraphrase else "")
        cells = [
            shown,
            f"{one['n_pos']} / {one['n_neg']}",
            *(_ranged(one[key]) for key in ("ap", "roc_auc", "recall_at_fpr10")),
            *(_number(one[key]) for key in ("precision", "recall", "f1", "accuracy", "ece")),
            _rate(one.get("false_alerts")),
            _wait(one.get("time_to_alert")),
        ]
        line = "".join(f"<td>{cell}</td>" for cell in cells)
        rows.append(f'<tr class="para">{line}</tr>' if is_paraphrase else f"<tr>{line}</tr>")
    return _table(_HEADER, rows)


def _table(header: Sequence[str], rows: Sequence[str]) -> str:
    titles = "".join(f"<th>{escape(title)}</th>" for title in header)
    body = "".join(rows)
    return f'<div class="scroll"><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'


def _card(name: str, one: Mapping[str, Any], examples: Sequence[Example]) -> str:
    if one["text"] != one["label"]:
        return ""
    histogram = one["histogram"]
    drawn = (
        charts.reliability(one["reliability"])
        + charts.histogram(histogram["positive"], histogram["negative"])
        + charts.precision_recall(one["precision_recall"])
    )
    counts = f"found {one['tp']} of {one['n_pos']}, wrongly reported {one['fp']} of {one['n_neg']}"
    shots = "".join(_shot(example) for example in examples)
    return (
        f'<article><div class="head"><h3>{escape(name)}</h3><span>AP <b>{_number(one["ap"]["value"])}</b></span>'
        f"<span>AUC <b>{_number(one['roc_auc']['value'])}</b></span><span>ECE <b>{_number(one['ece'])}</b></span>"
        f'<span class="soft">{counts}</span></div><div class="charts">{drawn}</div><div class="shots">{shots}</div>'
        "</article>"
    )


def _shot(example: Example) -> str:
    labels = ", ".join(example.labels) or "no label"
    note = f'<br><span class="note">{escape(example.note)}</span>' if example.note else ""
    told = f"{escape(example.path)}, {escape(labels)}"
    source = f"data:image/jpeg;base64,{example.jpeg}"
    picture = f'<img loading="lazy" alt="{told}" src="{source}">' if example.jpeg else ""
    return (
        f'<figure class="shot {example.verdict}">{picture}<figcaption><span class="tag">{example.score:.3f}</span> '
        f"{_VERDICTS[example.verdict]}<br>{escape(labels)}, at {example.at_s:.0f} s<br>{escape(example.path)}{note}"
        "</figcaption></figure>"
    )


def _confusion(confusion: Mapping[str, Any]) -> str:
    rows = []
    for row in confusion["rows"]:
        cells = "".join(_heat(share) for share in row["reported"])
        rows.append(f"<tr><td>{escape(row['label'] or 'no label')} <small>{row['items']}</small></td>{cells}</tr>")
    return (
        '<h3>What was reported of which files</h3><p class="soft">Share of the files with a label (rows) of which a '
        "prompt (columns) was reported.</p>" + _table(("files with", *confusion["prompts"]), rows)
    )


def _heat(share: float | None) -> str:
    if share is None:
        return '<td class="heat">-</td>'
    return f'<td class="heat" style="background:rgba(var(--tint),{0.75 * share:.2f})">{share:.2f}</td>'


def _ordinary(ordinary: Mapping[str, Any]) -> str:
    rows = []
    for kind, one in ordinary.items():
        guilty = ", ".join(f"{escape(name)} {count}" for name, count in one["by_prompt"].items() if count) or "none"
        rates = (_number(one["per_hour"], 1), _number(one["at_most_per_hour"], 1))
        cells = (_KINDS[kind], one["items"], f"{one['hours'] * 60:.1f}", one["events"], *rates, guilty)
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    header = ("files without any label", "files", "minutes", "events", "an hour", "at most, 95 %", "by prompt")
    return "<h2>Ordinary footage and sound, every prompt standing</h2>" + _table(header, rows)


def _reading(report: Mapping[str, Any]) -> str:
    coverage = f"{report['interval']['coverage']:.0%}"
    lines = (
        "A file's score is the confidence of its best window, from the same stages that a worker runs.",
        f"Ranges hold {coverage} of {report['interval']['replicates']} bootstrap replicates, drawn by group.",
        "Expected calibration error: mean distance of confidence and share that held, in ten bins of equal width.",
        "False alerts are events that the tracker opens on files without the label; with few minutes of footage the "
        "rate is rough, and its upper limit says how rough.",
        "Boxes hold most of the attention in the best frame; in a spectrogram the best window is bright.",
        "A file has one label or none for each prompt, as its list says; what nobody labelled counts as absent.",
    )
    return "<h2>How to read this</h2>" + "".join(f"<p>{line}</p>" for line in lines)


def _ranged(figure: Mapping[str, float | None]) -> str:
    if figure["low"] is None or figure["high"] is None:
        return _number(figure["value"])
    span = f"<small>{figure['low']:.2f} to {figure['high']:.2f}</small>"
    return f"{_number(figure['value'])} {span}{charts.interval(figure)}"


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _rate(rate: Mapping[str, Any] | None) -> str:
    if rate is None or rate["per_hour"] is None:
        return "-"
    return f"{rate['per_hour']:.1f} <small>{rate['events']} in {rate['hours'] * 60:.1f} min</small>"


def _wait(wait: Mapping[str, Any] | None) -> str:
    return "-" if wait is None or wait["median_s"] is None else f"{wait['median_s']:.1f} s"
