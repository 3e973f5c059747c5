"""A prompt: what is watched for, where, when, and from which confidence on.

A document is what users write and Redis holds; `parse_prompt` is the one way from it to a `Prompt`.
"""

import base64
import difflib
import hashlib
import json
import re
import unicodedata
from collections.abc import Container, Mapping
from decimal import Decimal, InvalidOperation
from functools import cached_property
from reprlib import Repr
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from streamer.errors import PromptError, SettingsError
from streamer.schedule import EXAMPLE, Schedule, parse_schedule
from streamer.selector import ALLOWED as SELECTOR_ALLOWED
from streamer.selector import Selector, checked_selector

MAX_TEXT = 200
MAX_VARIANTS = 16
MAX_LABELS = 16
MAX_CORNERS = 64
MAX_DURATION_MS = 24 * 3600 * 1000
MIN_DIM, MAX_DIM = 64, 4096  # of a query
DEFAULT_THRESHOLD = 0.5
LEAST_ALERTS, MOST_ALERTS = 0.1, 500.0  # a day
MIN_AREA = 1e-6  # of the picture; less than a pixel of any camera
ID_LENGTH = 63
MAX_SHOWN = 80  # characters of a value in a message
RESERVED = "system-"

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_LABEL_KEY = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*(ms|s|m|h|)")
_UNIT_MS = {"ms": 1, "s": 1000, "": 1000, "m": 60_000, "h": 3_600_000}
_Cut = Repr()  # never walks all of a value, which may be huge or hold itself
_Cut.maxstring = _Cut.maxother = 60
_HIDDEN = frozenset("\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # breaks, direction overrides

ALLOWED: Final[Mapping[str, str]] = {
    "id": "allowed is 1 to 63 of a-z 0-9 -, starting with a letter or digit, not 'system-...'",
    "text": f"allowed is one line of 1 to {MAX_TEXT} characters",
    "phrasings": f"allowed is a list of at most {MAX_VARIANTS} lines, each 1 to {MAX_TEXT} characters",
    "contrast": f"allowed is a list of at most {MAX_VARIANTS} lines, each 1 to {MAX_TEXT} characters",
    "examples": "allowed is what `watchword prompts add --example FILE` makes of files; leave it out otherwise",
    "modality": "allowed is video, audio, any or both",
    "streams": SELECTOR_ALLOWED,
    "region": f"allowed is a simple polygon of 3 to {MAX_CORNERS} corners [x, y], each 0 to 1",
    "schedule": f"allowed is like {EXAMPLE}",
    "marked": "allowed is what `watchword events mark` makes of marks; leave it out otherwise",
    "threshold": "allowed is a number from 0 to 1",
    "alerts_per_day": f"allowed is a number from {LEAST_ALERTS:g} to {MOST_ALERTS:g}, for each stream that is watched",
    "min_duration": "allowed is '500ms', '2s', '1m' or seconds, up to 24h",
    "cooldown": "allowed is '500ms', '2s', '1m' or seconds, up to 24h",
    "severity": "allowed is info, warning or critical",
    "labels": f"allowed are at most {MAX_LABELS} pairs of a name (a-z 0-9 . _ -) and a line of at most 64 characters",
    "enabled": "allowed is true or false",
    "version": "the store sets it; leave it out",
}


def _line(text: str) -> str:
    text = text.strip()
    if not text or len(text) > MAX_TEXT:
        raise ValueError(f"it has {len(text)} characters")
    if any(unicodedata.category(char) in ("Cc", "Cs") or char in _HIDDEN for char in text):
        raise ValueError("it holds a control character")
    return text


def _label_value(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key):
            raise ValueError(f"{_short(key)} is not a label's name")
        if len(value) > 64 or any(unicodedata.category(char) in ("Cc", "Cs") for char in value):
            raise ValueError(f"the value of {key!r} is too long or holds a control character")
    return labels


def _duration(value: object) -> str:
    """Any way of writing a duration, as the largest unit that holds it whole."""
    match = _DURATION.fullmatch(str(value).strip()) if isinstance(value, str | int | float) else None
    if match is None or isinstance(value, bool):
        raise ValueError("it is not a duration")
    try:
        duration_ms = Decimal(match[1]) * _UNIT_MS[match[2]]
    except InvalidOperation as error:
        raise ValueError("it is not a duration") from error
    if duration_ms != int(duration_ms):
        raise ValueError("it is finer than a millisecond")
    if duration_ms > MAX_DURATION_MS:
        raise ValueError("it is too long")
    if not duration_ms:
        return "0s"
    unit = next(unit for unit in ("h", "m", "s", "ms") if duration_ms % _UNIT_MS[unit] == 0)
    return f"{int(duration_ms) // _UNIT_MS[unit]}{unit}"


def _streams(text: str) -> str:
    try:
        return checked_selector(text)
    except SettingsError as error:
        raise ValueError("it is not a list of globs of stream ids, nor of name=value") from error


def _schedule(text: str) -> str:
    try:
        parse_schedule(text)
    except PromptError as error:
        raise ValueError(str(error)) from error
    return " ".join(text.split())


Corners = tuple[tuple[float, float], ...]


def _region(corners: Corners) -> Corners:
    """A polygon that closes itself loses its repeated corner; one that crosses itself is refused."""
    if len(corners) > 3 and corners[0] == corners[-1]:
        corners = corners[:-1]
    if len(corners) > MAX_CORNERS:
        raise ValueError(f"it has {len(corners)} corners")
    edges = [(corners[i], corners[(i + 1) % len(corners)]) for i in range(len(corners))]
    for i, (a, b) in enumerate(edges):
        c = edges[(i + 1) % len(edges)][1]
        if a == b:
            raise ValueError(f"corner {i + 1} is there twice in a row")
        if _turn(a, b, c) == 0 and (b[0] - a[0]) * (c[0] - b[0]) + (b[1] - a[1]) * (c[1] - b[1]) < 0:
            raise ValueError(f"it turns back on itself at corner {(i + 1) % len(edges) + 1}")
        for j in range(i + 2, len(edges) - (i == 0)):
            if _touch(a, b, *edges[j]):
                raise ValueError(f"edges {i + 1} and {j + 1} meet")
    area = abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in edges)) / 2
    if area < MIN_AREA:
        raise ValueError("it has no area")
    return corners


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _touch(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float], d: tuple[float, float]) -> bool:
    """Whether the closed segments ab and cd share a point (their bounding boxes meet and neither lies on one side)."""
    boxes = all(max(a[k], b[k]) >= min(c[k], d[k]) and max(c[k], d[k]) >= min(a[k], b[k]) for k in (0, 1))
    return boxes and _turn(a, b, c) * _turn(a, b, d) <= 0 and _turn(c, d, a) * _turn(c, d, b) <= 0


Line = Annotated[str, AfterValidator(_line)]
Lines = Annotated[tuple[Line, ...], Field(max_length=MAX_VARIANTS)]
Unit = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
Duration = Annotated[str, BeforeValidator(_duration)]
Region = Annotated[
    tuple[tuple[Unit, Unit], ...], Field(min_length=3, max_length=MAX_CORNERS + 1), AfterValidator(_region)
]
Labels = Annotated[
    Mapping[str, Annotated[str, BeforeValidator(_label_value)]], Field(max_length=MAX_LABELS), AfterValidator(_labels)
]


def _packed(text: str) -> str:
    try:
        count = len(base64.b64decode(text, validate=True))
    except ValueError as error:
        raise ValueError("it is not base64") from error
    if not MIN_DIM <= count <= MAX_DIM:
        raise ValueError(f"it holds {count} values")
    return text


def _rising(curve: tuple[float, float]) -> tuple[float, float]:
    if not curve[0] > 0:
        raise ValueError("it does not rise")
    return curve


Finite = Annotated[float, Field(ge=-1e3, le=1e3, allow_inf_nan=False)]
Packed = Annotated[str, Field(max_length=2 * MAX_DIM), AfterValidator(_packed)]


class Drawn(BaseModel):
    """What is kept of a prompt's examples.

    Attributes:
        of: Which encoders drew it; others go by the text alone.
        count: Examples there were.
        seen: The query for pictures, signed bytes in base64; None: the examples showed nothing.
        heard: Likewise for sound.
        looks: How the examples depart from ordinary pictures, likewise; None: nothing was shown, or it cannot be told.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    of: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    count: Annotated[int, Field(strict=True, ge=1, le=16)]
    seen: Packed | None = None
    heard: Packed | None = None
    looks: Packed | None = None


Curve = Annotated[tuple[Finite, Finite], AfterValidator(_rising)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
Tally = Annotated[int, Field(strict=True, ge=0)]


class Marked(BaseModel):
    """What marks of a prompt's events came to: its own curve, ``scale * log-odds + shift`` a sense.

    Attributes:
        of: Which models judged what was marked; the curve counts under these alone.
        asks: `Prompt.asks` when it was marked; a prompt that asks something else has no curve.
        right: Events marked right.
        wrong: Events marked wrong.
        seen: Scale and shift of what is seen; None: as it is.
        heard: Likewise of what is heard.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    of: Digest
    asks: Digest
    right: Tally = 0
    wrong: Tally = 0
    seen: Curve | None = None
    heard: Curve | None = None


class Prompt(BaseModel):
    """A checked prompt. Made by `parse_prompt`; equal when every field is equal.

    Attributes:
        id: Slug; unique in a store.
        text: What to watch for.
        phrasings: Other ways to say it, averaged with ``text``.
        contrast: "Rather this than that": what it must not be mistaken for.
        examples: What it shall be like beside its text; made from files by `watchword prompts add --example`.
        modality: Which sense decides; ``any``: either, ``both``: each must agree.
        streams: Comma-separated globs of stream ids, of which one must fit, or ``name=value`` labels, which all must.
        region: Corners ``(x, y)``, 0..1 of the picture's width and height, or None: everywhere.
        schedule: When it watches (`streamer.schedule`), or None: always.
        marked: What marks of its events came to; made by `watchword events mark`.
        threshold: Confidence from which it matches; with ``alerts_per_day`` until enough was seen.
        alerts_per_day: On each stream at most about so many; the threshold follows from what it was confident of there.
        min_duration: How long the match must hold.
        cooldown: No second event this soon after one ends.
        severity: Goes into its events.
        labels: Go into its events.
        enabled: Whether it is watched for at all.
        version: Set by the store, 1 at first and higher with each change, never reused; 0: not stored.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(pattern=f"^{_ID.pattern}$")]
    text: Line
    phrasings: Lines = ()
    contrast: Lines = ()
    examples: Drawn | None = None
    modality: Literal["video", "audio", "any", "both"] = "any"
    streams: Annotated[str, AfterValidator(_streams)] = "*"
    region: Region | None = None
    schedule: Annotated[str, AfterValidator(_schedule)] | None = None
    marked: Marked | None = None
    threshold: Unit = DEFAULT_THRESHOLD
    alerts_per_day: Annotated[float, Field(strict=True, ge=LEAST_ALERTS, le=MOST_ALERTS)] | None = None
    min_duration: Duration = "2s"
    cooldown: Duration = "30s"
    severity: Literal["info", "warning", "critical"] = "warning"
    labels: Labels = {}
    enabled: Annotated[bool, Field(strict=True)] = True
    version: Annotated[int, Field(strict=True, ge=0)] = 0

    def __hash__(self) -> int:
        return hash((self.id, self.version))

    @property
    def system(self) -> bool:
        """Whether it is one of `SYSTEM_PROMPTS`, which watch the cameras themselves and need no model."""
        return self.id.startswith(RESERVED)

    @cached_property
    def min_duration_us(self) -> int:
        """``min_duration`` in microseconds."""
        return _duration_us(self.min_duration)

    @cached_property
    def cooldown_us(self) -> int:
        """``cooldown`` in microseconds."""
        return _duration_us(self.cooldown)

    @cached_property
    def opening(self) -> Schedule | None:
        """The parsed schedule; None: always open."""
        return parse_schedule(self.schedule) if self.schedule else None

    @cached_property
    def asks(self) -> str:
        """Digest of what its scores hang on: 16 hex digits, the same while they do not change."""
        parts = self.model_dump(
            mode="json", include={"text", "phrasings", "contrast", "examples", "modality", "region"}
        )
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode(errors="replace")).hexdigest()[:16]

    @cached_property
    def answers(self) -> str:
        """Digest of what its confidences hang on: likewise."""
        marked = None if self.marked is None or self.marked.asks != self.asks else self.marked.model_dump(mode="json")
        parts = [self.asks, marked, self.schedule]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def is_open(self, at_us: int) -> bool:
        """Whether the schedule lets it match at an instant, microseconds since 1970 UTC."""
        return self.opening is None or self.opening.is_open(at_us)

    def applies_to(self, stream: str, labels: Mapping[str, str]) -> bool:
        """Whether it watches a stream with these labels. Neither ``enabled`` nor the schedule counts here."""
        return self._selector.fits(stream, labels)

    @cached_property
    def _selector(self) -> Selector:
        return Selector(self.streams)

    def to_document(self) -> dict[str, Any]:
        """The document, ready for JSON or YAML, without what is empty; `parse_prompt` gives an equal prompt back."""
        document = {key: value for key, value in self.model_dump(mode="json").items() if value not in (None, [], {})}
        if not self.version:
            del document["version"]
        if self.alerts_per_day is not None and self.threshold == DEFAULT_THRESHOLD:
            del document["threshold"]
        return document


def parse_prompt(document: Mapping[str, Any] | str, taken: Container[str] = ()) -> Prompt:
    """Check a document.

    Args:
        document: Keys and values of `Prompt`; ``None`` stands for the default. A text alone is short for
            ``{"text": ...}``.
        taken: Ids in use. Only an id that is made from the text avoids them, with ``-2``, ``-3``, ...

    Raises:
        PromptError: With every key that is unknown or refused, its value, and what is allowed.
    """
    if isinstance(document, str):
        document = {"text": document}
    if not isinstance(document, Mapping):
        raise PromptError(f"prompt refused: {_short(document)} is not a document; give it keys, at least 'text'")
    problems = _misplaced(document)
    values = {key: value for key, value in document.items() if key in Prompt.model_fields and value is not None}
    if "id" not in values:
        values["id"] = slug(str(values.get("text", "")), taken)
    elif str(values["id"]).startswith(RESERVED):
        problems.append(f"id = {_short(values['id'])}: {ALLOWED['id']}")
    try:
        prompt = Prompt(**values)
    except ValidationError as error:
        raise _refusal(document, problems + _explain(error)) from error
    if problems:
        raise _refusal(document, problems)
    return prompt


def slug(text: str, taken: Container[str] = ()) -> str:
    """An id made from a text: ``"Glass breaking!"`` becomes ``glass-breaking``, or ``glass-breaking-2`` if taken."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    base = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    if not base:
        base = hashlib.sha256(text.encode(errors="replace")).hexdigest()[:8]
    if base.startswith(RESERVED) or not re.search(r"[a-z]", base):
        base = f"prompt-{base}"
    base = base[:ID_LENGTH].rstrip("-")
    candidate, count = base, 1
    while candidate in taken:
        count += 1
        suffix = f"-{count}"
        candidate = base[: ID_LENGTH - len(suffix)].rstrip("-") + suffix
    return candidate


def _misplaced(document: Mapping[str, Any]) -> list[str]:
    problems = []
    for key in document:
        if key not in Prompt.model_fields:
            close = difflib.get_close_matches(str(key).replace("-", "_"), Prompt.model_fields, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(Prompt.model_fields)}"
            problems.append(f"unknown key {_short(key)}; {hint}")
    if document.get("threshold") is not None and document.get("alerts_per_day") is not None:
        problems.append("threshold and alerts_per_day: one of them decides; give one")
    return problems


def _explain(error: ValidationError) -> list[str]:
    """One line a key: the first of its problems, with the value and what is allowed."""
    problems: dict[str, str] = {}
    for problem in error.errors(include_url=False):
        key = str(problem["loc"][0])
        if key in problems:
            continue
        if problem["type"] == "missing":
            problems[key] = f"{key} is missing: {ALLOWED[key]}"
            continue
        where = key + "".join(f"[{step + 1 if isinstance(step, int) else step}]" for step in problem["loc"][1:])
        reason = str(problem["ctx"]["error"]) + "; " if problem["type"] == "value_error" else ""
        problems[key] = f"{where} = {_short(problem['input'])}: {reason}{ALLOWED[key]}"
    return list(problems.values())


def _refusal(document: Mapping[str, Any], problems: list[str]) -> PromptError:
    name = document.get("id") or document.get("text")
    return PromptError(
        f"prompt {_short(name)} refused: {'; '.join(problems)}" if name else f"prompt refused: {'; '.join(problems)}",
        problems,
    )


def _short(value: object) -> str:
    shown = _Cut.repr(value)
    return shown if len(shown) <= MAX_SHOWN else f"{shown[: MAX_SHOWN - 3]}..."


def _duration_us(text: str) -> int:
    match = _DURATION.fullmatch(text)
    assert match is not None  # `_duration` wrote it
    return int(match[1]) * _UNIT_MS[match[2]] * 1000


def _system(name: str, text: str, modality: Literal["video", "any"]) -> Prompt:
    # The settings' `system` section says how long each state must last, so nothing is waited for twice.
    return Prompt(id=f"{RESERVED}{name}", text=text, modality=modality, min_duration="0s", cooldown="0s", version=1)


SYSTEM_PROMPTS: Final[Mapping[str, Prompt]] = {
    prompt.id: prompt
    for prompt in (
        _system("silent", "the camera sends nothing", "any"),
        _system("dark", "the camera is dark or covered", "video"),
        _system("frozen", "the picture is frozen", "video"),
    )
}
