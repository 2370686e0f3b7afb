"""The options that say what a virtual key allows, and which file it is kept in."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import rich_click as click

from loom.catalog.dates import parse_as_of
from loom.cli.book import TAG
from loom.cli.keep import BUDGET
from loom.cli.options import with_options
from loom.config.folders import data_folder
from loom.core.ambient import SystemClock
from loom.core.errors import ConfigInvalid

__all__ = ["keys_option", "keys_path", "term_options", "terms_of"]

F = TypeVar("F", bound=Callable[..., Any])

_NONE: Final = "none"
"""The word that takes a limit away."""

_IN = re.compile(r"([0-9]{1,5})([hdw])")
_HOURS = {"h": 1, "d": 24, "w": 168}
_COUNTS = ("rpm", "tpm", "max_tokens", "concurrency")


class _OrNone(click.ParamType[Any]):
    """
    An option that may be taken away again.

    Args:
        inner: What it is otherwise.
    """

    def __init__(self, inner: click.ParamType[Any]) -> None:
        self._inner = inner
        self.name = inner.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read `none`, or what the option is."""
        if isinstance(value, str) and value.strip().lower() == _NONE:
            return _NONE
        return self._inner.convert(value, param, ctx)


class _End(click.ParamType[datetime]):
    name = "time"

    def convert(
        self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Read `90d`, `12h`, `4w`, `2027-01-31` (its end) or `2027-01-31T12:00`."""
        if isinstance(value, datetime):
            return value
        now = SystemClock().now()
        try:
            end = _moment(value.strip(), now)
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is no time: give 90d, 12h, 4w, 2027-01-31 or 2027-01-31T12:00",
                param,
                ctx,
            )
        if end <= now:
            self.fail(f"{value!r} is over: `looms keys revoke` ends a key now", param, ctx)
        return end


class _Patterns(click.ParamType[tuple[str, ...]]):
    name = "patterns"

    def convert(
        self,
        value: str | tuple[str, ...],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[str, ...]:
        """Read `mistral-*,codestral-latest`."""
        if not isinstance(value, str):
            return value
        patterns = tuple(part.strip() for part in value.split(",") if part.strip())
        # An empty variable of a shell must not open every model, and `none` could mean both.
        if not patterns or _NONE in patterns:
            self.fail(f"{value!r} names no models: '*' is every model", param, ctx)
        return patterns


_COUNT = _OrNone(click.IntRange(min=1))
_TERMS = (
    click.option(
        "--models",
        type=_Patterns(),
        multiple=True,
        metavar="PATTERNS",
        help="Models that may be asked: * is any text, ? one character; several with commas.",
    ),
    click.option("--rpm", type=_COUNT, metavar="N", help="Requests a minute."),
    click.option(
        "--tpm", type=_COUNT, metavar="N", help="Tokens a minute, prompts and answers together."
    ),
    click.option(
        "--budget",
        type=_OrNone(BUDGET),
        metavar="USD",
        help="What may be spent: 20 for all time, 20/day, 20/week or 20/month (UTC).",
    ),
    click.option(
        "--max-tokens", type=_COUNT, metavar="N", help="The longest answer of a request, in tokens."
    ),
    click.option("--concurrency", type=_COUNT, metavar="N", help="Requests on their way at once."),
    click.option(
        "--expires",
        type=_OrNone(_End()),
        metavar="TIME",
        help="When it ends: 90d, 12h, 4w from now, or a day with its end (UTC).",
    ),
    click.option(
        "--tag",
        "tags",
        type=TAG,
        multiple=True,
        metavar="NAME=VALUE",
        help="A label for costs; may be given several times.",
    ),
)

keys_option = click.option(
    "--keys",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Another file than keys.db in the data folder.",
)


def term_options(command: F) -> F:
    """
    Add the options that say what a key allows; `none` takes a limit away.

    Args:
        command: A command's function.

    Returns:
        The same, with the options.
    """
    return with_options(command, _TERMS)


def terms_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """
    What `term_options` took, as fields of `KeyTerms`.

    Args:
        given: The command's options by name.

    Returns:
        Only what was given; None for what is taken away.
    """
    names = {**dict.fromkeys((*_COUNTS, "budget")), "expires": None}
    chosen = {name: given[name] for name in names if given[name] is not None}
    terms = {name: None if value == _NONE else value for name, value in chosen.items()}
    if "expires" in terms:
        terms["expires_at"] = terms.pop("expires")
    if given["models"]:
        terms["models"] = tuple(pattern for group in given["models"] for pattern in group)
    if given["tags"]:
        terms["tags"] = dict(given["tags"])
    return terms


def keys_path(given: Path | None) -> Path:
    """
    The file of keys.

    Args:
        given: The flag; None: the one in the data folder.

    Returns:
        Its path.
    """
    return data_folder() / "keys.db" if given is None else given


def _moment(text: str, now: datetime) -> datetime:
    later = _IN.fullmatch(text)
    if later is not None:
        return now + timedelta(hours=int(later[1]) * _HOURS[later[2]])
    with suppress(ConfigInvalid):
        day = parse_as_of(text) + timedelta(days=1)
        return datetime(day.year, day.month, day.day, tzinfo=UTC)
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
