"""A month or a day in words."""

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.catalog.dates import parse_as_of
from loom.core.errors import ConfigInvalid


@pytest.mark.parametrize(
    ("written", "day"),
    [
        ("2024-11", date(2024, 11, 30)),
        ("2024-02", date(2024, 2, 29)),
        ("2026-12", date(2026, 12, 31)),
        ("2024-11-05", date(2024, 11, 5)),
        (" 2024-11 ", date(2024, 11, 30)),
    ],
)
def test_words(written: str, day: date) -> None:
    """A month means its last day, a day itself."""
    assert day == parse_as_of(written)


@given(st.dates())
def test_days_stay_what_they_are(day: date) -> None:
    """A date passes, as itself and in words."""
    assert day == parse_as_of(day)
    assert day == parse_as_of(day.isoformat())


def test_moments_become_days_of_utc() -> None:
    """A moment counts by the day in UTC, where it has a time zone."""
    east = timezone(timedelta(hours=9))
    assert date(2024, 11, 5) == parse_as_of(datetime(2024, 11, 6, 8, tzinfo=east))
    assert date(2024, 11, 6) == parse_as_of(datetime(2024, 11, 6, 8, tzinfo=UTC))
    assert date(2024, 11, 6) == parse_as_of(datetime(2024, 11, 6, 8))  # noqa: DTZ001 - a naive one


@pytest.mark.parametrize(
    "written",
    ["", "2024", "2024-13", "2024-00", "2024-11-31", "24-11", "2024-1", "November", "0000-01",
     "2024-11-05T00:00", "2024-11-05-1", "\uff12024-11"],
)  # fmt: skip
def test_anything_else_is_refused(written: str) -> None:
    """What is neither is refused with the two forms."""
    with pytest.raises(ConfigInvalid, match="'2024-11' or a day such as '2024-11-05'") as caught:
        parse_as_of(written)
    assert repr(written) in caught.value.message
