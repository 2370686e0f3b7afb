"""What a command that asks a model writes down, and what it may spend."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click

from loom.cli.book import TAG, ledger_path
from loom.cli.options import with_options
from loom.config.load import load_settings

if TYPE_CHECKING:
    from loom.layers.limit_rate import RateLimit
    from loom.ledger.budgets import Budget

__all__ = [
    "BUDGET",
    "BUDGET_PATIENCE_S",
    "CLIENT",
    "PATIENCE_S",
    "RATE_LIMIT",
    "RUN_TAG",
    "account_options",
    "accounts",
    "within_cost",
]

F = TypeVar("F", bound=Callable[..., Any])

CLIENT = "looms"
"""The name of the command line in the ledger; its budgets are those of this client."""

RUN_TAG = "looms.run"
"""The tag of calls that `--max-cost` limits together."""

PATIENCE_S = 3.0
"""How long a call waits for another program that writes the ledger, in seconds."""

BUDGET_PATIENCE_S = 10.0
"""The same for a call that must fit into a budget: it is refused if the ledger cannot be had."""


class _Budget(click.ParamType["Budget"]):
    name = "budget"

    def convert(
        self, value: str | Budget, param: click.Parameter | None, ctx: click.Context | None
    ) -> Budget:
        """Read `5` or `5/month`."""
        if not isinstance(value, str):
            return value
        from loom.ledger.budgets import parse_budget  # noqa: PLC0415 - start-up time

        budget = parse_budget(value)
        if budget is None:
            self.fail(
                f"{value!r} is no budget: give USD, USD/day, USD/week or USD/month", param, ctx
            )
        return budget


BUDGET = _Budget()
"""A budget of the command line, as an option takes it."""


class _RateLimit(click.ParamType["RateLimit"]):
    name = "rate limit"

    def convert(
        self, value: str | RateLimit, param: click.Parameter | None, ctx: click.Context | None
    ) -> RateLimit:
        """Read `starter`, `60/500000`, `60` or `/500000`."""
        from loom.layers.limit_rate import (  # noqa: PLC0415 - start-up time
            PLANS,
            RateLimit,
            parse_rate_limit,
        )

        if isinstance(value, RateLimit):
            return value
        limit = parse_rate_limit(value)
        if limit is None:
            self.fail(
                f"{value!r} is no rate limit: give {', '.join(PLANS)} or RPM/TPM, for example"
                " 60/500000",
                param,
                ctx,
            )
        return limit


RATE_LIMIT = _RateLimit()
"""A plan, or requests and tokens a minute, as an option takes them."""

_OPTIONS = (
    click.option(
        "--session",
        metavar="NAME",
        help="The conversation that this belongs to; `looms chat` keeps it and goes on with it.",
    ),
    click.option(
        "--tag",
        "tags",
        type=TAG,
        multiple=True,
        metavar="NAME=VALUE",
        help="A label for costs; may be given several times.",
    ),
    click.option(
        "--budget",
        type=BUDGET,
        metavar="USD",
        help="Send nothing that does not fit: 5 for all time, 5/day, 5/week or 5/month (UTC).",
    ),
    click.option(
        "--rate-limit",
        type=RATE_LIMIT,
        metavar="PLAN",
        help="Keep these limits: free, starter, pro or RPM/TPM, for example 60/500000.",
    ),
    click.option(
        "--ledger",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Write the call down there; the default is ledger.db in the data folder.",
    ),
    click.option("--no-ledger", is_flag=True, help="Write nothing down."),
)


def account_options(command: F) -> F:
    """
    Add the options of money: `--session`, `--tag`, `--budget`, `--rate-limit`, `--ledger`.

    Args:
        command: A command's function.

    Returns:
        The same, with the options.
    """
    return with_options(command, _OPTIONS)


@contextmanager
def accounts(given: Mapping[str, Any], *, offline: bool = False) -> Iterator[dict[str, Any]]:
    """
    What `account_options` took, as arguments of a client; the ledger is closed at the end.

    Args:
        given: The command's options by name.
        offline: Whether nothing is sent.

    Yields:
        Only what was given, and the ledger unless the call costs nothing.

    Raises:
        UsageError: If options contradict each other.
    """
    if given["no_ledger"] and (given["ledger"] is not None or given["budget"] is not None):
        other = "--ledger" if given["ledger"] is not None else "--budget"
        raise click.UsageError(f"{other} needs a ledger: leave out --no-ledger")
    chosen: dict[str, Any] = {"client_name": CLIENT}
    for name in ("session", "budget", "rate_limit"):
        if given[name] is not None:
            chosen[name] = given[name]
    if given["tags"]:
        chosen["tags"] = dict(given["tags"])
    # What the simulator answers costs nothing: it is written down only where somebody says so.
    free = offline or given["sim"] or load_settings().sim
    if given["no_ledger"] or offline or (free and given["ledger"] is None):
        yield chosen
        return
    from loom.ledger.sqlite.brief import BriefLedger  # noqa: PLC0415 - start-up time

    needed = given["ledger"] is not None or given["budget"] is not None
    patience_s = PATIENCE_S if given["budget"] is None else BUDGET_PATIENCE_S
    path = ledger_path(given["ledger"])
    ledger = BriefLedger(path, patience_s=patience_s, needed=needed)
    try:
        yield {**chosen, "ledger": ledger}
    finally:
        asyncio.run(ledger.aclose())


def within_cost(
    given: Mapping[str, Any], *, also: Budget | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """
    Let all calls of a command together cost no more than `--max-cost`.

    Args:
        given: The command's options by name.
        also: A budget beside that of the options; None: none.

    Returns:
        The options with every budget, and the tag that `--max-cost` is kept by; and arguments of
        the client, for when there is no ledger.
    """
    from loom.cli.session_store import fresh_session  # noqa: PLC0415 - start-up time
    from loom.ledger.budgets import Budget as Limit  # noqa: PLC0415 - the same

    limit: Decimal | None = given["max_cost"]
    budgets = [budget for budget in (given["budget"], also) if budget is not None]
    more = dict(given)
    if limit is not None:
        more["tags"] = (*given["tags"], (RUN_TAG, fresh_session()))
        budgets.append(Limit(limit_usd=limit, per=f"tag:{RUN_TAG}"))
    if given["no_ledger"] and given["budget"] is None:
        return more, {"budget": budgets} if budgets else {}
    return {**more, "budget": budgets or None}, {}
