from __future__ import annotations

from datetime import UTC, datetime

import pytest

from kernloom import Kernel, ModelRetry
from kernloom.plugins.time import Time

#: A Saturday, late enough that it is Sunday further east.
NOON = datetime(2025, 3, 1, 20, 30, tzinfo=UTC)


@pytest.fixture
def time() -> Time:
    return Time(clock=lambda: NOON)


def test_now_and_today_are_those_of_the_time_zone(time: Time) -> None:
    assert time.now() == "2025-03-01T20:30:00+00:00"
    assert time.now("Asia/Tokyo") == "2025-03-02T05:30:00+09:00"
    assert time.today() == "2025-03-01 Saturday"
    assert time.today("Asia/Tokyo") == "2025-03-02 Sunday"


@pytest.mark.parametrize(
    ("moment", "change", "expected"),
    [
        ("2024-02-28", {"days": 1}, "2024-02-29"),
        ("2025-02-28", {"days": 1}, "2025-03-01"),
        ("2025-03-01", {"weeks": -1}, "2025-02-22"),
        ("2025-03-01", {"hours": 36}, "2025-03-02T12:00:00"),
        ("2025-12-31T23:30", {"minutes": 45}, "2026-01-01T00:15:00"),
        ("2025-03-01T09:00+01:00", {"days": 1}, "2025-03-02T09:00:00+01:00"),
    ],
)
def test_adding_knows_the_calendar(
    time: Time, moment: str, change: dict[str, float], expected: str
) -> None:
    assert time.add(moment, **change) == expected


@pytest.mark.parametrize(
    ("start", "end", "days", "text"),
    [
        ("2025-03-01", "2025-12-24", 298, "298 days"),
        ("2025-03-01T12:00", "2025-03-01T13:30:05", 5405 / 86400, "1 hour 30 minutes 5 seconds"),
        ("2025-03-02", "2025-03-01", -1, "minus 1 day"),
        ("2025-03-01T12:00+02:00", "2025-03-01T10:00Z", 0, "0 seconds"),
    ],
)
def test_differences_are_exact_and_said_in_words(
    time: Time, start: str, end: str, days: float, text: str
) -> None:
    difference = time.difference(start, end)
    assert (difference["days"], difference["text"]) == (days, text)


def test_conversion_follows_summer_time(time: Time) -> None:
    assert time.convert("2025-01-15T12:00", "Europe/Oslo") == "2025-01-15T13:00:00+01:00"
    assert time.convert("2025-07-15T12:00", "Europe/Oslo") == "2025-07-15T14:00:00+02:00"
    assert time.convert("2025-07-15T09:00", "UTC", "America/New_York") == "2025-07-15T13:00:00+00:00"
    assert time.convert("2025-07-15T09:00+05:30", "UTC", "Europe/Oslo") == "2025-07-15T03:30:00+00:00"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda time: time.now("Europe/Olso"), "Did you mean 'Europe/Oslo'"),
        (lambda time: time.now("../../etc/passwd"), "no time zone"),
        (lambda time: time.now(""), "no time zone"),
        (lambda time: time.now("\0"), "no time zone"),
        (lambda time: time.weekday("March 1st"), "is no ISO 8601 date"),
        (lambda time: time.add("2025-01-01", days=1e9), "years 1 to 9999"),
        (lambda time: time.add("2025-01-01", days=1e300), "years 1 to 9999"),
        (lambda time: time.difference("2025-01-01", "2025-01-01T00:00Z"), "only one has a time zone"),
        (lambda time: time.convert("0001-01-01T00:00", "America/New_York"), "outside the calendar"),
    ],
)
def test_what_cannot_be_is_said_so_that_the_caller_can_mend_it(
    time: Time, call: object, words: str
) -> None:
    with pytest.raises(ModelRetry, match=words):
        call(time)  # type: ignore[operator]


async def test_it_comes_with_a_kernel() -> None:
    async with Kernel() as kernel:
        assert await kernel.invoke("time.weekday", date="2000-01-01") == "Saturday"
        assert datetime.fromisoformat(await kernel.invoke("time.now")).tzinfo is not None
