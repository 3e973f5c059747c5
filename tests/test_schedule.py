import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.errors import PromptError
from streamer.schedule import DAYS, parse_schedule

HOUR_US = 3_600_000_000
MINUTE_US = 60_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def at_us(text: str, zone: str = "UTC", fold: int = 0) -> int:
    local = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return (local.astimezone(UTC) - EPOCH) // timedelta(microseconds=1)


def is_open(schedule: str, text: str, zone: str = "UTC") -> bool:
    return parse_schedule(schedule).is_open(at_us(text, zone))


@pytest.mark.parametrize(
    ("schedule", "at", "expected"),
    [  # 1 January 2024 is a Monday
        ("Mo-Fr 08:00-17:00", "2024-01-01T08:00", True),
        ("Mo-Fr 08:00-17:00", "2024-01-01T07:59:59.999999", False),
        ("Mo-Fr 08:00-17:00", "2024-01-01T16:59:59.999999", True),
        ("Mo-Fr 08:00-17:00", "2024-01-01T17:00", False),
        ("Mo-Fr 08:00-17:00", "2024-01-06T12:00", False),
        ("mo,WE,Fr 08:00-17:00", "2024-01-03T12:00", True),
        ("mo,WE,Fr 08:00-17:00", "2024-01-02T12:00", False),
        ("Fr-Mo 08:00-17:00", "2024-01-07T12:00", True),
        ("Fr-Mo 08:00-17:00", "2024-01-03T12:00", False),
        ("08:00-17:00", "2024-01-06T12:00", True),
        ("Sa,Su", "2024-01-06T00:00", True),
        ("Sa,Su", "2024-01-08T00:00", False),
        ("Mo 00:00-24:00", "2024-01-01T23:59", True),
        ("Mo 00:00-24:00", "2024-01-02T00:00", False),
        ("Mo 8:00-12:00, 13:00-17:00", "2024-01-01T12:30", False),
        ("Mo 8:00-12:00, 13:00-17:00", "2024-01-01T13:30", True),
        ("Mo 8:00-12:00; Tu 13:00-17:00", "2024-01-02T08:30", False),
        ("Mo 8:00-12:00, Tu 13:00-17:00", "2024-01-02T13:30", True),
        ("Mo 8:00-12:00 Tu 13:00-17:00;", "2024-01-02T13:30", True),
        ("Mo - We 8:00 - 9:00", "2024-01-02T08:30", True),
        ("Mo 08:00\N{EN DASH}09:00", "2024-01-01T08:30", True),
    ],
)
def test_days_and_hours(schedule: str, at: str, expected: bool) -> None:
    assert is_open(schedule, at) is expected


def test_a_span_over_midnight_belongs_to_the_day_it_starts_on() -> None:
    assert is_open("Fr 20:00-06:00", "2024-01-05T23:00")
    assert is_open("Fr 20:00-06:00", "2024-01-06T05:59")
    assert not is_open("Fr 20:00-06:00", "2024-01-06T06:00")
    assert not is_open("Fr 20:00-06:00", "2024-01-05T05:00")
    assert is_open("Su 20:00-06:00", "2024-01-08T01:00")  # into Monday


def test_the_wall_clock_of_the_zone_counts() -> None:
    assert is_open("Mo 08:00-09:00 Asia/Tokyo", "2023-12-31T23:30")
    assert not is_open("Mo 08:00-09:00 Asia/Tokyo", "2024-01-01T08:30")
    assert is_open("Mo 08:00-09:00 UTC", "2024-01-01T08:30")


@pytest.mark.parametrize(
    ("evening", "hours"), [("2024-03-30T12:00", 9), ("2024-10-26T12:00", 11), ("2024-06-01T12:00", 10)]
)
def test_a_night_lasts_as_long_as_its_wall_clock_says(evening: str, hours: int) -> None:
    schedule = parse_schedule("Mo-Su 20:00-06:00 Europe/Berlin")
    noon = at_us(evening, "Europe/Berlin")
    minutes = sum(schedule.is_open(noon + minute * MINUTE_US) for minute in range(24 * 60))
    assert minutes == hours * 60


def test_an_hour_that_comes_twice_is_open_twice_and_one_that_is_skipped_never() -> None:
    schedule = parse_schedule("02:00-03:00 Europe/Berlin")
    first = at_us("2024-10-27T02:30", "Europe/Berlin", fold=0)
    second = at_us("2024-10-27T02:30", "Europe/Berlin", fold=1)
    assert second - first == HOUR_US
    assert schedule.is_open(first)
    assert schedule.is_open(second)
    spring_day = at_us("2024-03-31T00:00", "Europe/Berlin")
    assert not any(schedule.is_open(spring_day + minute * MINUTE_US) for minute in range(20 * 60))


def test_zones_are_known_on_a_machine_without_a_zone_database() -> None:
    program = "from streamer.schedule import parse_schedule as parse; print(parse('Mo Europe/Berlin').zone)"
    environment = {**os.environ, "PYTHONTZPATH": ""}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "Europe/Berlin\n"


@pytest.mark.parametrize(
    ("schedule", "says"),
    [
        ("", "should follow"),
        (";", "should follow"),
        ("Europe/Berlin", "should follow"),
        ("Mo 08:00-09:00,", "should follow"),
        ("Mo,,Tu", "missing before ','"),
        ("Mo 25:00-26:00", "'25:00' is not a time of day"),
        ("Mo 08:60-09:00", "'08:60' is not a time of day"),
        ("Mo 20:00-24:01", "'24:01' is not a time of day"),
        ("Mo 08:00-08:00", "has no length"),
        ("Mo 24:00-06:00", "has no length"),
        ("Monday 08:00-09:00", "'Monday 08:00-09:00' is neither a day"),
        ("at night", "time zone 'night' is unknown"),
        ("Mo 08:00-09:00 europe/berlin", "did you mean 'Europe/Berlin'?"),
        ("Mo 08:00-09:00 Europe/Berlim", "did you mean 'Europe/Berlin'?"),
        ("Mo 08:00-09:00 Europe", "is unknown"),
        ("Mo 08:00-09:00 ../../etc/passwd", "is neither"),
        ("Mo 08:00-09:00 a/../../../etc/passwd", "is neither"),
        ("Mo-Fr; 08:00-12:00", "name the days of each"),
        ("Mo 08:00-09:000", "is neither"),
        ("Mo 08:00-09:00 " * 30, "at most 300 characters"),
    ],
)
def test_what_is_no_schedule_is_refused_with_the_place(schedule: str, says: str) -> None:
    with pytest.raises(PromptError) as caught:
        parse_schedule(schedule)
    assert says in str(caught.value)


@given(
    st.sets(st.integers(0, 6), min_size=1),
    st.integers(0, 1439),
    st.integers(0, 1439),
    st.integers(0, 7 * 1440 - 1),
)
def test_it_is_open_exactly_from_start_to_end_of_its_days(days: set[int], start: int, end: int, minute: int) -> None:
    if start == end:
        return
    names = ",".join(DAYS[day].title() for day in sorted(days))
    schedule = parse_schedule(f"{names} {start // 60:02}:{start % 60:02}-{end // 60:02}:{end % 60:02}")
    length = (end - start) % 1440
    expected = any((minute - day * 1440 - start) % (7 * 1440) < length for day in days)
    monday = at_us("2024-01-01T00:00")
    assert schedule.is_open(monday + minute * MINUTE_US) is expected
    assert schedule.is_open(monday + minute * MINUTE_US + MINUTE_US - 1) is expected


@given(st.text(alphabet="MoTuSa08:-,; /UTCEurope", max_size=40) | st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        schedule = parse_schedule(text)
    except PromptError:
        return
    quarters = range(8 * 24 * 4)
    assert any(schedule.week)
    assert all(schedule.is_open(quarter * HOUR_US // 4) in (True, False) for quarter in quarters)
