"""Scheduled scaling: cron(...), rate(...) and at(...) as Application Auto Scaling reads them.

cron and at name times of the day, which pass as they do; the pause of a rate is sped up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from .errors import invalid, not_modelled
from .services import Services
from .speed import Speed

_FORM = re.compile(r"(cron|rate|at)\((.*)\)")
_RATE = re.compile(r"(\d+) (minute|hour|day)s?")
_UNITS = {"minute": 60, "hour": 3600, "day": 86400}  # seconds
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
# The six fields of AWS's cron: least, largest, and names in place of numbers.
_FIELDS: tuple[tuple[int, int, tuple[str, ...]], ...] = (
    (0, 59, ()), (0, 23, ()), (1, 31, ()), (1, 12, _MONTHS), (1, 7, _DAYS), (1970, 2199, ()),
)  # fmt: skip
_LONGEST = timedelta(hours=1)  # that is looked back over: a process that stood still


class Schedules:
    """Carries out the scheduled actions of scalable targets."""

    def __init__(
        self, services: Services, speed: Speed,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:  # fmt: skip
        self._services, self._speed, self._clock = services, speed, clock
        self._looked = clock()

    def look(self) -> None:
        """Give targets the bounds of the schedules that fell due since the last look."""
        since, self._looked = self._looked, self._clock()
        since = max(since, self._looked - _LONGEST)
        for action in self._services.scheduled():
            zone = ZoneInfo(action.timezone or "UTC")
            made = datetime.fromtimestamp(action.creation_time, UTC)
            if self._due(action.schedule, zone, max(since, made), made):
                self._services.bound(action)

    def _due(self, schedule: str, zone: ZoneInfo, since: datetime, made: datetime) -> bool:
        kind, text = _parts(schedule)
        if kind == "rate":
            number, unit = _RATE.fullmatch(text).groups()  # type: ignore[union-attr]
            pause = self._speed.seconds(int(number) * _UNITS[unit])
            turns = ((at - made).total_seconds() // pause for at in (since, self._looked))
            return next(turns) < next(turns)
        if kind == "at":
            return since < datetime.fromisoformat(text).replace(tzinfo=zone) <= self._looked
        minutes = cron(text)
        return any(minutes(at.astimezone(zone)) for at in _minutes(since, self._looked))


def check(given: Any) -> None:
    """Refuse a schedule that cannot be read, as PutScheduledAction does."""
    if "Schedule" not in given:
        return
    try:
        kind, text = _parts(given["Schedule"])
        if kind == "cron":
            cron(text)
        elif kind == "at":
            datetime.fromisoformat(text)
        elif not _RATE.fullmatch(text):
            raise ValueError(text)
    except ValueError as error:
        raise invalid(f"Schedule expression {given['Schedule']} is not valid: {error}") from error
    for field in ("StartTime", "EndTime"):
        if given.get(field):
            raise not_modelled(f"PutScheduledAction with {field}")


def _parts(schedule: str) -> tuple[str, str]:
    found = _FORM.fullmatch(schedule)
    if found is None:
        raise ValueError("it is none of cron(...), rate(...) and at(...)")
    return found[1], found[2]


def _minutes(since: datetime, until: datetime) -> Iterator[datetime]:
    """Yield the whole minutes after `since`, `until` included."""
    at = since.replace(second=0, microsecond=0)
    while (at := at + timedelta(minutes=1)) <= until:
        yield at


def cron(text: str) -> Any:
    """Return whether a minute is one of the expression's, as a function of it."""
    fields = text.split()
    if len(fields) != len(_FIELDS):
        raise ValueError(f"cron has {len(_FIELDS)} fields: minutes, hours, day of month, month, "
                         "day of week, year")  # fmt: skip
    sets = [_numbers(field, *bounds) for field, bounds in zip(fields, _FIELDS, strict=True)]

    def matches(at: datetime) -> bool:
        told = (at.minute, at.hour, at.day, at.month, at.isoweekday() % 7 + 1, at.year)
        return all(number in allowed for number, allowed in zip(told, sets, strict=True))

    return matches


def _numbers(field: str, low: int, high: int, names: tuple[str, ...]) -> set[int]:
    """Return the numbers that a field of cron stands for."""
    if re.search(r"#|\d[LW]|^L", field):
        raise not_modelled(f"{field} in a cron expression")
    found: set[int] = set()
    for part in field.upper().split(","):
        span, _, step = part.partition("/")
        first, dash, last = ("*", "", "") if span in ("*", "?") else span.partition("-")
        begin = low if first == "*" else _number(first, names, low)
        end = high if first == "*" or (step and not dash) else _number(last or first, names, low)
        if not low <= begin <= end <= high:
            raise ValueError(f"{part} is not between {low} and {high}")
        found.update(range(begin, end + 1, int(step or 1)))
    return found


def _number(text: str, names: tuple[str, ...], low: int) -> int:
    return names.index(text) + low if text in names else int(text)
