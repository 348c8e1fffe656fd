"""Dates and times: models do not know what day it is and are poor at calendars."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, available_timezones

from ..kernel.errors import ModelRetry, did_you_mean, nearest
from ..kernel.functions import function


class Time:
    """The current time, and arithmetic on dates and time zones.

    Args:
        clock: gives the present moment, with a time zone; the system's clock by default.
    """

    name = "time"

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock

    @function(effects={"read"})
    def now(self, timezone: str = "UTC") -> str:
        """The current date and time, in ISO 8601.

        Args:
            timezone: IANA name such as Europe/Oslo.
        """
        return self._clock().astimezone(_zone(timezone)).isoformat(timespec="seconds")

    @function(effects={"read"})
    def today(self, timezone: str = "UTC") -> str:
        """Today's date and weekday, e.g. "2025-03-01 Saturday".

        Args:
            timezone: IANA name such as Europe/Oslo.
        """
        return f"{self._clock().astimezone(_zone(timezone)):%Y-%m-%d %A}"

    @function(inline=True)
    def weekday(self, date: str) -> str:
        """The day of the week, in English.

        Args:
            date: ISO 8601 date, e.g. 2025-03-01.
        """
        return f"{_moment(date):%A}"

    @function(inline=True)
    def add(
        self, moment: str, weeks: float = 0, days: float = 0, hours: float = 0, minutes: float = 0
    ) -> str:
        """Move a date or time forward, or back with negative numbers.

        A date stays a date as long as whole days are added. With a time zone offset, hours are real
        hours; a day is 24 of them.

        Args:
            moment: ISO 8601 date or time, e.g. 2025-03-01 or 2025-03-01T09:00+01:00.
            weeks: Weeks to add.
            days: Days to add.
            hours: Hours to add.
            minutes: Minutes to add.
        """
        try:
            result = _moment(moment) + timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes)
        except OverflowError as exc:
            raise ModelRetry(f"That is outside the calendar's years 1 to 9999: {exc}.") from exc
        if _is_date(moment) and result.time() == datetime.min.time():
            return result.date().isoformat()
        return result.isoformat()

    @function(inline=True)
    def difference(self, start: str, end: str) -> dict[str, float | str]:
        """How much time lies between two dates or times, negative when end is earlier.

        Gives days (whole and parts), hours, seconds, and the same in words.

        Args:
            start: ISO 8601 date or time, e.g. 2025-03-01.
            end: ISO 8601 date or time, e.g. 2025-12-24T18:00.
        """
        first, last = _moment(start), _moment(end)
        if (first.tzinfo is None) != (last.tzinfo is None):
            raise ModelRetry(
                f"{start!r} and {end!r} cannot be compared: only one has a time zone.",
                hint="Give both an offset such as +01:00, or neither.",
            )
        seconds = (last - first).total_seconds()
        return {
            "days": seconds / 86400,
            "hours": seconds / 3600,
            "seconds": seconds,
            "text": _in_words(seconds),
        }

    @function(effects={"read"})
    def convert(self, moment: str, to_timezone: str, from_timezone: str = "UTC") -> str:
        """The same moment on the clocks of another time zone, in ISO 8601.

        Args:
            moment: ISO 8601 time, e.g. 2025-03-01T09:00; an offset in it wins over from_timezone.
            to_timezone: IANA name of the zone wanted, such as Asia/Tokyo.
            from_timezone: IANA name of the zone it is given in.
        """
        given = _moment(moment)
        if given.tzinfo is None:
            given = given.replace(tzinfo=_zone(from_timezone))
        try:
            return given.astimezone(_zone(to_timezone)).isoformat()
        except OverflowError as exc:
            raise ModelRetry(f"{moment!r} is outside the calendar in {to_timezone}.") from exc


def _zone(name: str) -> tzinfo:
    if name.upper() in ("UTC", "Z", "GMT"):
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as exc:  # also odd names, which zoneinfo takes for paths
        raise ModelRetry(
            f"There is no time zone {name!r}.",
            hint=did_you_mean(nearest(name, available_timezones()))
            or "Use an IANA name such as Europe/Oslo.",
        ) from exc


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError as exc:
        raise ModelRetry(
            f"{text!r} is no ISO 8601 date or time: {exc}.",
            hint="Write it like 2025-03-01 or 2025-03-01T09:00.",
        ) from exc


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text.strip())
    except ValueError:
        return False
    return True


def _in_words(seconds: float) -> str:
    sign = "minus " if seconds < 0 else ""
    minutes, rest = divmod(round(abs(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "day"), (hours, "hour"), (minutes, "minute"), (rest, "second")]
    said = [f"{amount} {unit}{'' if amount == 1 else 's'}" for amount, unit in parts if amount]
    return sign + (" ".join(said) or "0 seconds")
