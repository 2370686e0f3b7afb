"""Which ledger a command reads, and which of its rows."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import rich_click as click

from loom.catalog.dates import parse_as_of
from loom.cli.options import with_options
from loom.config.load import load_settings
from loom.core.ambient import SystemClock
from loom.core.errors import ConfigInvalid, LedgerUnavailable
from loom.ledger.contract import Ledger, Query
from loom.ledger.entry import Entry

if TYPE_CHECKING:
    from loom.cli.terminal import Terminal

__all__ = [
    "TAG",
    "default_path",
    "ledger_option",
    "ledger_path",
    "opened",
    "period_options",
    "rows_of",
    "selected",
    "selection_options",
    "wait_for",
]

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_PAGE = 2000
_PATIENCE_S = 0.2
_AGO = re.compile(r"([0-9]{1,5})([hdw])")
_HOURS = {"h": 1, "d": 24, "w": 168}


class _Moment(click.ParamType[datetime]):
    """
    A time as people write it.

    Args:
        end: Whether a day or a month stands for its end.
    """

    name = "time"

    def __init__(self, *, end: bool) -> None:
        self._end = end

    def convert(
        self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Read `7d`, `24h`, `2026-11`, `2026-11-01` or `2026-11-01T12:00`."""
        if isinstance(value, datetime):
            return value
        text = value.strip()
        ago = _AGO.fullmatch(text)
        if ago is not None:
            return self._ago(int(ago[1]), ago[2])
        try:
            with suppress(ConfigInvalid):
                return self._day(text)
            moment = datetime.fromisoformat(text)
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is no time: give 7d, 24h, 2026-11, 2026-11-01 or 2026-11-01T12:00",
                param,
                ctx,
            )

    def _ago(self, count: int, unit: str) -> datetime:
        now = SystemClock().now()
        if unit == "h" or self._end:
            return now - timedelta(hours=count * _HOURS[unit])
        # Whole days, today among them: half a day would look like a cheap one.
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        return midnight - timedelta(hours=count * _HOURS[unit] - 24)

    def _day(self, text: str) -> datetime:
        last = parse_as_of(text)
        first = last.replace(day=1) if text.count("-") == 1 else last
        return _midnight(last + timedelta(days=1)) if self._end else _midnight(first)


class _Tag(click.ParamType[tuple[str, str]]):
    name = "tag"

    def convert(
        self,
        value: str | tuple[str, str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[str, str]:
        """Read `project=shop`."""
        if isinstance(value, tuple):
            return value
        name, parted, label = value.partition("=")
        if not parted or not name:
            self.fail(f"{value!r} is no tag: give NAME=VALUE, for example project=shop", param, ctx)
        return name, label


TAG = _Tag()
"""A tag and its value, as an option takes them."""

ledger_option = click.option(
    "--ledger",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Another ledger than the one in the data folder.",
)

_SINCE = click.option(
    "--since",
    type=_Moment(end=False),
    metavar="TIME",
    help="From then on: 7d (with today), 24h, 2026-11, 2026-11-01; days are UTC.",
)
_UNTIL = click.option(
    "--until", type=_Moment(end=True), metavar="TIME", help="Up to then, a day with its end."
)
_KEY = click.option("--key", metavar="FINGERPRINT", help="Calls with this key.")
_SELECTION = (
    _SINCE,
    _UNTIL,
    click.option("-m", "--model", metavar="ID", help="Calls that this model answered."),
    click.option("--session", metavar="NAME", help="Calls of this session."),
    click.option("--client", metavar="NAME", help="Calls of this client."),
    click.option("--tenant", metavar="NAME", help="Calls of this tenant."),
    _KEY,
    click.option("--tag", type=TAG, metavar="NAME=VALUE", help="Calls with this tag."),
)


def selection_options(command: F) -> F:
    """
    Add the options that choose rows: `--ledger`, `--since`, `--model`, `--tag`, ...

    Args:
        command: A command's function.

    Returns:
        The same, with the options.
    """
    return with_options(command, (ledger_option, *_SELECTION))


def period_options(command: F) -> F:
    """
    Add the options that choose rows by time: `--ledger`, `--since`, `--until`, `--key`.

    Args:
        command: A command's function.

    Returns:
        The same, with the options.
    """
    return with_options(command, (ledger_option, _SINCE, _UNTIL, _KEY))


def selected(given: Mapping[str, Any]) -> Query:
    """
    What `selection_options` or `period_options` took.

    Args:
        given: The command's options by name.

    Returns:
        The query, a large page at a time.
    """
    names = ("since", "until", "model", "session", "client", "tenant", "key", "tag")
    chosen: dict[str, Any] = {name: given.get(name) for name in names}
    return Query(**chosen, limit=_PAGE)


def default_path() -> Path:
    """The ledger that `looms chat` writes: `ledger.db` in the data folder."""
    folder = load_settings().data_dir
    if folder is None:  # pragma: no cover - `load_settings` always fills it
        raise ConfigInvalid("there is no data folder: set LOOM_DATA_DIR")
    return folder / "ledger.db"


def ledger_path(given: Path | None) -> Path:
    """
    The file of a ledger.

    Args:
        given: The flag, a path or `sqlite:///FILE`; None: the one in the data folder.

    Returns:
        Its path.
    """
    if given is None:
        return default_path()
    text = str(given)
    # A `Path` has made one slash of three.
    return Path(text.removeprefix("sqlite:/")) if text.startswith("sqlite:/") else given


def opened(terminal: Terminal, given: Path | None, *, take_in: bool = True) -> Ledger | None:
    """
    The ledger that a command reads.

    Args:
        terminal: Where the ledger's log goes.
        given: The flag; None: the one in the data folder.
        take_in: Whether rows that wait beside the file come in first, if they can.

    Returns:
        The ledger; None when nothing was ever written to the one in the data folder.

    Raises:
        UsageError: If there is no such file.
    """
    terminal.start_log()
    path = ledger_path(given)
    if path.exists():
        from loom.ledger.open import open_ledger  # noqa: PLC0415 - start-up time

        if take_in:
            _take_in(terminal, path)
        return open_ledger(path)
    if given is not None:
        raise click.UsageError(f"there is no ledger {str(path)!r}")
    return None


def rows_of(ledger: Ledger, query: Query) -> Iterator[Entry]:
    """
    Go through rows, a page at a time.

    Args:
        ledger: Whose rows.
        query: Which ones; `limit` is the size of a page.

    Yields:
        Each row.
    """
    while page := wait_for(ledger.entries(query)):
        yield from page
        if len(page) < query.limit:
            return
        query = msgspec.structs.replace(query, after=page[-1].id)


def wait_for(question: Coroutine[Any, Any, T]) -> T:
    """
    Wait for a ledger's answer.

    Args:
        question: One of its methods, called.

    Returns:
        The answer.
    """
    return asyncio.run(question)


def _take_in(terminal: Terminal, path: Path) -> None:
    waiting = [*path.parent.glob(f"{escape(path.name)}.emergency*")]
    if not waiting:
        return
    try:
        wait_for(_brought_in(path))
    except LedgerUnavailable as error:
        terminal.warn(f"rows wait beside the ledger, and are not counted here: {error.message}")


async def _brought_in(path: Path) -> None:
    from loom.ledger.sqlite.brief import BriefLedger  # noqa: PLC0415 - start-up time

    ledger = BriefLedger(path, patience_s=_PATIENCE_S)
    try:
        await ledger.take_in()
    finally:
        await ledger.aclose()


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
