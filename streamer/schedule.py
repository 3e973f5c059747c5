"""When a prompt watches: ``"Mo-Fr 20:00-06:00; Sa,Su 00:00-24:00 Europe/Berlin"``.

Grammar, spaces free between tokens::

    schedule = rule {(";" | ",") rule} [zone]
    rule     = days [times] | times
    days     = day ["-" day] {"," day ["-" day]}        Mo Tu We Th Fr Sa Su, a range may wrap (Sa-Mo)
    times    = time "-" time {"," time "-" time}        local wall clock; the end is exclusive, 24:00 is midnight

No times: the whole day. No days: every day, where that is the only rule. No zone: UTC. A span whose end is not after
its start runs over midnight and belongs to the day it starts on. Only the wall clock counts: ``20:00-06:00`` lasts nine
hours in the night clocks go forward and eleven in the night they go back.
"""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from streamer.errors import PromptError

DAYS = ("mo", "tu", "we", "th", "fr", "sa", "su")
DAY_MIN = 24 * 60
MAX_LENGTH = 300
EXAMPLE = "'Mo-Fr 08:00-12:00,13:00-17:00; Sa 20:00-06:00 Europe/Berlin'"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = r"(?:mo|tu|we|th|fr|sa|su)"
_PART = re.compile(
    rf"\s*(?:(?P<days>{_DAY}(?:\s*-\s*{_DAY})?)\b|(?P<times>\d{{1,2}}:\d{{2}}\s*-\s*\d{{1,2}}:\d{{2}})\b|(?P<mark>[,;]))",
    re.IGNORECASE,
)
_ZONE = re.compile(r"(?:^|(?<=[\s;,]))(?P<zone>[A-Za-z][A-Za-z0-9_+/-]*)$")
_ONLY_DAYS = re.compile(rf"{_DAY}(?:-{_DAY})?", re.IGNORECASE)

Span = tuple[int, int]  # minutes of the local day, end exclusive


@dataclass(frozen=True, slots=True)
class Schedule:
    """The open minutes of a week in one time zone.

    Attributes:
        week: Per weekday, Monday first, its spans in minutes of the local day; none runs over midnight.
        zone: Where the wall clock hangs.
    """

    week: tuple[tuple[Span, ...], ...]
    zone: ZoneInfo

    def is_open(self, at_us: int) -> bool:
        """Whether the schedule is open at an instant.

        Args:
            at_us: Microseconds since 1970 UTC.
        """
        local = (_EPOCH + timedelta(microseconds=at_us)).astimezone(self.zone)
        minute = local.hour * 60 + local.minute
        return any(start <= minute < end for start, end in self.week[local.weekday()])


def parse_schedule(text: str) -> Schedule:
    """Read a schedule.

    Raises:
        PromptError: It does not follow the grammar, a time does not exist or the zone is unknown.
    """
    if len(text) > MAX_LENGTH:
        raise PromptError(f"a schedule has at most {MAX_LENGTH} characters, this one {len(text)}")
    rules_text, zone = _split_zone(text.strip().replace("\N{EN DASH}", "-"))
    week: list[list[Span]] = [[] for _ in DAYS]
    for days, spans in _rules(rules_text):
        for day in days:
            for start, end in spans:
                if start < end:
                    week[day].append((start, end))
                else:
                    week[day].append((start, DAY_MIN))
                    week[(day + 1) % len(DAYS)].append((0, end))
    return Schedule(week=tuple(tuple(sorted(set(spans))) for spans in week), zone=zone)


def _rules(text: str) -> list[tuple[list[int], list[Span]]]:
    rules: list[tuple[list[int], list[Span]]] = [([], [])]
    expects_item = True
    for kind, part in _parts(text):
        days, spans = rules[-1]
        if kind == "mark":
            if expects_item:
                raise PromptError(f"a day or a time is missing before {part!r}")
            if part == ";":
                rules.append(([], []))
        elif kind == "days":
            if spans:  # days after times open the next rule, whatever stands between
                rules.append((_day_range(part), []))
            else:
                days.extend(_day_range(part))
        else:
            spans.append(_span(part))
        expects_item = kind == "mark"
    if expects_item:
        raise PromptError("it ends where a day or a time should follow")
    if len(rules) > 1 and not all(days for days, _ in rules):
        raise PromptError("hours without days stand beside days; name the days of each")
    return [(days or list(range(len(DAYS))), spans or [(0, DAY_MIN)]) for days, spans in rules]


def _parts(text: str) -> Iterator[tuple[str, str]]:
    at = 0
    text = text.rstrip().rstrip(";").rstrip()
    while at < len(text):
        match = _PART.match(text, at)
        if match is None or match.lastgroup is None:
            raise PromptError(
                f"{text[at:].strip()[:40]!r} is neither a day (Mo-Su), nor hours (20:00-06:00), nor a zone"
            )
        yield match.lastgroup, match[match.lastgroup]
        at = match.end()


def _day_range(text: str) -> list[int]:
    first, _, last = (part.strip() for part in text.lower().partition("-"))
    start = DAYS.index(first)
    length = (DAYS.index(last or first) - start) % len(DAYS)
    return [(start + step) % len(DAYS) for step in range(length + 1)]


def _span(text: str) -> Span:
    start, end = (_minute(part.strip()) for part in text.split("-"))
    if start in (DAY_MIN, end):
        raise PromptError(f"{text!r} has no length; the whole day is 00:00-24:00")
    return start, end


def _minute(text: str) -> int:
    hour, minute = (int(part) for part in text.split(":"))
    if hour > 24 or minute > 59 or (hour == 24 and minute):
        raise PromptError(f"{text!r} is not a time of day, 00:00 to 24:00")
    return hour * 60 + minute


def _split_zone(text: str) -> tuple[str, ZoneInfo]:
    match = _ZONE.search(text)
    if match is None or _ONLY_DAYS.fullmatch(match["zone"]):
        return text, ZoneInfo("UTC")
    name = match["zone"]
    try:
        return text[: match.start()], ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise PromptError(f"time zone {name!r} is unknown; {_nearest_zone(name)}") from error


def _nearest_zone(name: str) -> str:
    by_lower = {zone.lower(): zone for zone in available_timezones()}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return f"did you mean {by_lower[close[0]]!r}?" if close else "write an IANA name such as 'Europe/Berlin'"
