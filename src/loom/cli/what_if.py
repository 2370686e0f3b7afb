"""`looms what-if`: the ledger's calls through other limits, budgets, models and prices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from loom.cli.book import ledger_path, opened, period_options, rows_of, selected
from loom.cli.keep import BUDGET, RATE_LIMIT
from loom.cli.options import as_of_option, common_options, pass_terminal
from loom.cli.reprice import prices
from loom.cli.sums import bar, usd_text
from loom.cli.terminal import Terminal
from loom.cli.whose import whose
from loom.config.assemble import load_catalog
from loom.core.ambient import SystemClock
from loom.core.errors import ModelNotFound
from loom.ledger.money import ZERO, less, total

if TYPE_CHECKING:
    from loom.catalog.lookup import Catalog
    from loom.cli.replay import Outcome

__all__ = ["what_if"]

_EPILOG = (
    "Nothing is sent. Each call comes when it came, waits its turn, takes as long as it took, and"
    " uses the tokens that it used: another model may take others, and answer sooner or later."
    " Limits hold for each key and model; what other programs use of them is not known."
)
_REFUSALS = {
    "limit": "refused: no room before the deadline",
    "budget": "refused by the budget",
    "window": "longer than the model's window",
}
_HOUR = "%Y-%m-%d %H:00"
_HOURS = 48  # a plot of more lines is one of days
_BAR = 30
_SHORT_BAR = 12
_WIDE = 90


@click.command("what-if", epilog=_EPILOG)
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--rate-limit", type=RATE_LIMIT, metavar="PLAN", help="free, starter, pro, RPM/TPM.")
@click.option("-m", "--model", metavar="ID", help="Who would have answered.")
@as_of_option
@click.option("--budget", type=BUDGET, metavar="USD", help="5 in all, 5/day, 5/week or 5/month.")
@click.option(
    "--deadline",
    type=click.FloatRange(min=0),
    default=600.0,
    show_default=True,
    metavar="S",
    help="Seconds that a call may take: what would wait longer is refused.",
)
@click.option(
    "--max-tokens",
    type=click.IntRange(min=1),
    default=4096,
    show_default=True,
    metavar="N",
    help="The longest answer that calls asked for; the ledger does not know it.",
)
@period_options
@common_options
@pass_terminal
def what_if(terminal: Terminal, /, **given: Any) -> None:
    """Replay the ledger through other limits, models and prices, offline."""
    from loom.cli.replay import Scene, replay  # noqa: PLC0415 - start-up time

    chosen = given["file"] or given["ledger"]
    ledger = opened(terminal, chosen)
    catalog = load_catalog()
    vendor, model = None, None
    if given["model"] is not None:
        vendor, model = _whose(catalog, given["model"], given["as_of"])
    scene = Scene(
        rate_limit=given["rate_limit"],
        budget=given["budget"],
        model=model,
        provider=vendor,
        on=given["as_of"],
        deadline_s=given["deadline"],
        max_tokens=given["max_tokens"],
    )
    rows = () if ledger is None else rows_of(ledger, selected({**given, "model": None}))
    entries = [entry for entry in rows if entry.state != "open"]
    with terminal.waiting("replaying"):
        outcomes = replay(
            entries,
            scene,
            prices(),
            lambda provider, model, on: catalog.find(model, on, provider=provider),
        )
    if terminal.json:
        terminal.write_json({"ledger": str(ledger_path(chosen)), **_object(outcomes)})
    elif not outcomes:
        terminal.say("No calls match.")
    else:
        _show(terminal, outcomes, limited=scene.rate_limit is not None)
        if scene.model is not None:
            terminal.say("Another model counts other tokens, and takes another time.")


def _whose(catalog: Catalog, name: str, as_of: date | None) -> tuple[str, str]:
    """Vendor and model of a name; a model that has no price cannot be asked for."""
    vendor, model = whose(name, as_of)
    on = as_of or SystemClock().now().date()
    if catalog.find(model, on, vendor) is None:
        near = ", ".join(repr(name) for name in catalog.nearest(model, on, provider=vendor))
        wish = f"; did you mean {near}?" if near else ""
        raise ModelNotFound(f"{model!r} has no price on {on}{wish}", model=model)
    return vendor, model


def _show(terminal: Terminal, outcomes: Sequence[Outcome], *, limited: bool) -> None:
    facts = _object(outcomes)
    if limited:
        _plot(terminal, outcomes)
    wait_s = facts["wait_s"]
    terminal.write(f"{facts['calls']:,} calls · {facts['answered']:,} answered{_refused(facts)}\n")
    if limited:
        terminal.write(
            f"{facts['waited']:,} would wait · p50 {_seconds(wait_s['p50'])}"
            f" · p95 {_seconds(wait_s['p95'])} · longest {_seconds(wait_s['max'])}\n"
        )
    was, would = Decimal(facts["was_usd"]), Decimal(facts["would_be_usd"])
    apart = less(would, was)
    share = f" ({apart / was:+.0%})" if was else ""
    answered = ", of those answered" if facts["answered"] < facts["calls"] else ""
    sign = "+" if apart > 0 else ""
    terminal.write(
        f"cost: {usd_text(was)} as written · {usd_text(would)} then{answered}"
        f" · {sign}{usd_text(apart)}{share}\n"
    )
    if facts["unpriced"]:
        terminal.write(f"{facts['unpriced']:,} calls have no price then: it cost more than that\n")


def _plot(terminal: Terminal, outcomes: Sequence[Outcome]) -> None:
    by_hour = len({f"{one.entry.at:{_HOUR}}" for one in outcomes}) <= _HOURS
    groups = _grouped(outcomes, _HOUR if by_hour else "%Y-%m-%d")
    # Where nobody waits there is nothing to see.
    shown = {name: group for name, group in groups.items() if _disturbed(group)}
    if not shown:
        return
    most = Decimal(str(max(_longest(group) for group in shown.values())))
    width = _BAR if terminal.out.width > _WIDE else _SHORT_BAR
    terminal.table(
        "Waits by hour (UTC)" if by_hour else "Waits by day (UTC)",
        ("Hour" if by_hour else "Day", "Calls", "Refused", "p50", "p95", "Longest", " "),
        [
            (*_cells(name, group), bar(Decimal(str(_longest(group))), most, width))
            for name, group in shown.items()
        ],
        drop=(" ", "p50"),
        right={"Calls", "Refused", "p50", "p95", "Longest"},
    )


def _cells(name: str, group: Sequence[Outcome]) -> tuple[str, ...]:
    waits = _waits(group)
    refused = sum(bool(one.refused) for one in group)
    return (
        name,
        f"{len(group):,}",
        f"{refused:,}" if refused else "",
        _seconds(_quantile(waits, 0.5)),
        _seconds(_quantile(waits, 0.95)),
        _seconds(_longest(group)),
    )


def _grouped(outcomes: Iterable[Outcome], form: str) -> dict[str, list[Outcome]]:
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(f"{outcome.entry.at:{form}}", []).append(outcome)
    return groups


def _disturbed(group: Sequence[Outcome]) -> bool:
    return any(one.refused for one in group) or _longest(group) > 0


def _object(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    answered = [one for one in outcomes if not one.refused]
    waits = _waits(outcomes)
    return {
        "calls": len(outcomes),
        "answered": len(answered),
        "refused": {why: sum(one.refused == why for one in outcomes) for why in _REFUSALS},
        "waited": sum(wait_s > 0 for wait_s in waits),
        "wait_s": {
            "p50": _quantile(waits, 0.5),
            "p95": _quantile(waits, 0.95),
            "max": max(waits, default=0.0),
        },
        "was_usd": f"{_sum(one.entry.cost_usd for one in outcomes):f}",
        "would_be_usd": f"{_sum(one.cost_usd for one in answered):f}",
        "unpriced": sum(
            one.cost_usd is None and one.entry.state in ("settled", "estimated") for one in answered
        ),
        "hours": _hours(outcomes),
    }


def _hours(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    return [
        {
            "hour": hour,
            "calls": len(group),
            "refused": sum(bool(one.refused) for one in group),
            "p95_s": _quantile(_waits(group), 0.95),
            "max_s": _longest(group),
        }
        for hour, group in _grouped(outcomes, "%Y-%m-%dT%H:00:00Z").items()
    ]


def _refused(facts: dict[str, Any]) -> str:
    return "".join(
        f" · {count:,} {_REFUSALS[why]}" for why, count in facts["refused"].items() if count
    )


def _waits(outcomes: Iterable[Outcome]) -> list[float]:
    # A thousandth of a second is the timer's, and no wait.
    return sorted(round(one.wait_s, 3) for one in outcomes if one.wait_s is not None)


def _longest(outcomes: Iterable[Outcome]) -> float:
    return max(_waits(outcomes), default=0.0)


def _quantile(ordered: Sequence[float], part: float) -> float:
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def _sum(amounts: Iterable[Decimal | None]) -> Decimal:
    return total(ZERO if amount is None else amount for amount in amounts)


def _seconds(wait_s: float) -> str:
    if wait_s >= 120:
        return f"{wait_s / 60:,.1f} min"
    return f"{wait_s:.1f} s"
