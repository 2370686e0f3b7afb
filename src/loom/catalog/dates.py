"""The day of which a question is asked: `as_of`."""

from __future__ import annotations

import calendar
import contextlib
import re
from datetime import UTC, date, datetime

from loom.core.errors import ConfigInvalid

__all__ = ["parse_as_of"]

_MONTH_OR_DAY = re.compile(r"([0-9]{4})-([0-9]{2})(?:-([0-9]{2}))?")


def parse_as_of(as_of: str | date) -> date:
    """
    The day that a month or a day in words means, UTC.

    Args:
        as_of: "2024-11" (its last day), "2024-11-05", or a date. A datetime with a time zone is
            taken to UTC first.

    Returns:
        The day.

    Raises:
        ConfigInvalid: If it is neither a month nor a day.
    """
    if isinstance(as_of, datetime):
        return (as_of if as_of.tzinfo is None else as_of.astimezone(UTC)).date()
    if isinstance(as_of, date):
        return as_of
    match = _MONTH_OR_DAY.fullmatch(str(as_of).strip())
    if match is not None:
        year, month, day = int(match[1]), int(match[2]), match[3]
        with contextlib.suppress(ValueError):
            first = date(year, month, 1)
            last = calendar.monthrange(year, month)[1]
            return first.replace(day=last if day is None else int(day))
    raise ConfigInvalid(
        f"as_of is {as_of!r}: give a month such as '2024-11' or a day such as '2024-11-05'"
    )
