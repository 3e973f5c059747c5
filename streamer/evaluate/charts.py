"""Small charts as inline SVG; colours come from the page's style, so that they follow light and dark."""

from collections.abc import Mapping, Sequence
from typing import Any

_SIDE = 180
_LEFT, _TOP, _PLOT = 26, 8, 144


def reliability(bins: Sequence[Mapping[str, Any]]) -> str:
    """Mean confidence against share of positives; a dot's area is how many files it stands for."""
    most = max((part["count"] for part in bins), default=1) or 1
    marks = [f'<path class="ideal" d="M{_x(0)} {_y(0)}L{_x(1)} {_y(1)}"/>']
    for part in bins:
        if part["count"]:
            radius = 2 + 7 * (part["count"] / most) ** 0.5
            told = f"{part['count']} files: said {part['mean']:.2f}, held {part['share']:.2f}"
            marks.append(
                f'<path class="gap" d="M{_x(part["mean"])} {_y(part["mean"])}L{_x(part["mean"])} {_y(part["share"])}"/>'
                f'<circle class="dot" cx="{_x(part["mean"])}" cy="{_y(part["share"])}" r="{radius:.1f}">'
                f"<title>{told}</title></circle>"
            )
    return _framed("".join(marks), "confidence", "share that held", "Reliability diagram")


def histogram(positive: Sequence[int], negative: Sequence[int]) -> str:
    """How many files got which score: those with the label upwards, those without downwards; roots of counts."""
    most = max([*positive, *negative, 1]) ** 0.5
    width = _PLOT / len(positive)
    middle = _TOP + _PLOT / 2
    bars = []
    for number, (up, down) in enumerate(zip(positive, negative, strict=True)):
        left = _LEFT + number * width
        for count, name in ((up, "own"), (down, "other")):
            height = (count**0.5) / most * _PLOT / 2
            top = middle - height if name == "own" else middle
            if count:
                bars.append(
                    f'<rect class="{name}" x="{left + 0.5:.1f}" y="{top:.1f}" width="{width - 1:.1f}" '
                    f'height="{height:.1f}"><title>{count}</title></rect>'
                )
    line = f'<path class="axis" d="M{_LEFT} {middle}H{_LEFT + _PLOT}"/>'
    threshold = f'<path class="ideal" d="M{_x(0.5)} {_TOP}V{_TOP + _PLOT}"/>'
    return _framed(threshold + "".join(bars) + line, "confidence", "files", "Scores of files", with_scale=False)


def precision_recall(points: Sequence[Sequence[float]]) -> str:
    """Precision at each recall."""
    if not points:
        return ""
    path = "".join(
        f"{'M' if not number else 'L'}{_x(recall)} {_y(precision)}" for number, (recall, precision) in enumerate(points)
    )
    return _framed(f'<path class="line" d="{path}"/>', "recall", "precision", "Precision and recall")


def interval(figure: Mapping[str, float | None]) -> str:
    """A value between 0 and 1 with its range, on a line."""
    value, low, high = figure["value"], figure["low"], figure["high"]
    if value is None:
        return ""
    span = "" if low is None or high is None else f'<path class="span" d="M{4 + 72 * low:.1f} 7H{4 + 72 * high:.1f}"/>'
    return (
        f'<svg class="spark" viewBox="0 0 80 14" aria-hidden="true"><path class="axis" d="M4 7H76M40 4V10"/>{span}'
        f'<circle class="dot" cx="{4 + 72 * value:.1f}" cy="7" r="3"/></svg>'
    )


def _framed(marks: str, across: str, up: str, title: str, *, with_scale: bool = True) -> str:
    ticks = "".join(
        f'<text x="{_x(at)}" y="{_TOP + _PLOT + 11}" text-anchor="middle">{at:g}</text>'
        + (f'<text x="{_LEFT - 4}" y="{float(_y(at)) + 3}" text-anchor="end">{at:g}</text>' if with_scale else "")
        for at in (0, 0.5, 1)
    )
    middle = _TOP + _PLOT / 2
    return (
        f'<figure class="chart"><figcaption>{title}</figcaption>'
        f'<svg viewBox="0 0 {_SIDE} {_SIDE + 4}" role="img" aria-label="{title}">'
        f'<rect class="frame" x="{_LEFT}" y="{_TOP}" width="{_PLOT}" height="{_PLOT}"/>{marks}{ticks}'
        f'<text x="{_LEFT + _PLOT / 2}" y="{_SIDE + 1}" text-anchor="middle">{across}</text>'
        f'<text transform="translate(8 {middle}) rotate(-90)" text-anchor="middle">{up}</text></svg></figure>'
    )


def _x(share: float) -> str:
    return f"{_LEFT + share * _PLOT:.1f}"


def _y(share: float) -> str:
    return f"{_TOP + (1 - share) * _PLOT:.1f}"
