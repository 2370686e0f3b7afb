"""`looms models`: the catalogue of a day as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date
from decimal import Decimal
from itertools import chain
from typing import TypeAlias

import rich_click as click

from loom.catalog.lookup import TASKS, Catalog
from loom.cli.options import as_of_option, common_options, pass_terminal
from loom.cli.terminal import Terminal
from loom.config.assemble import load_catalog
from loom.config.load import load_settings
from loom.config.vendors import VENDORS
from loom.core.ambient import SystemClock
from loom.core.model import ModelCard, Price

__all__ = ["models"]

_Column: TypeAlias = tuple[str, Callable[[ModelCard], str]]
_Sheet: TypeAlias = tuple[str, tuple[str, ...], Sequence[tuple[str, ...]]]

# In a narrow window these columns go first, one after the other; ids and prices stay.
_DROP = (
    "Architecture", "Licence", "Parameters", "Model", "Longest", "State", "Can", "Best for",
    "Cached",
)  # fmt: skip
_FOLD = frozenset({"Best for", "Why", "Can"})
_RIGHT = frozenset({"Input", "Cached", "Output", "Context", "Longest"})


@click.command()
@as_of_option
@click.option(
    "--for",
    "task",
    type=click.Choice(TASKS, case_sensitive=False),
    metavar="TASK",
    help=f"Name the one model to take for a task: {', '.join(TASKS)}.",
)
@click.option(
    "--provider", metavar="NAME", help="List another vendor's models: openai; `all` for all."
)
@click.option("--retired", is_flag=True, help="List models too that are served no more.")
@common_options
@pass_terminal
def models(
    terminal: Terminal,
    as_of: date | None,
    task: str | None,
    provider: str | None,
    retired: bool,  # noqa: FBT001 - click passes flags by name
) -> None:
    """List models with prices, windows and what each is best for."""
    catalog = load_catalog()
    vendors = _vendors(catalog, provider or "mistral")
    on = as_of or load_settings().as_of or SystemClock().now().date()
    if task is not None:
        _recommend(terminal, catalog, task, on)
        return
    cards = {vendor: catalog.cards(on, vendor, retired=retired) for vendor in vendors}
    if terminal.json:
        every = [card for listed in cards.values() for card in listed]
        advice = {branch.task: branch.model for branch in catalog.advice(on)}
        terminal.write_json(
            {
                "as_of": on,
                "models": every,
                "recommended": advice if "mistral" in vendors else {},
            }
        )
        return
    left_out: set[str] = set()
    sheets: list[Iterable[_Sheet]] = []
    if "mistral" in vendors:
        sheets.append(_tables(catalog, cards.pop("mistral"), on))
    sheets += [[_sheet(_titled(vendor), _FOREIGN, listed)] for vendor, listed in cards.items()]
    for title, headers, rows in chain.from_iterable(sheets):
        if rows:
            left_out |= terminal.table(title, headers, rows, drop=_DROP, fold=_FOLD, right=_RIGHT)
    if left_out:
        wide = "widen the window, or add `| cat`"
        terminal.say(f"Left out for room: {', '.join(sorted(left_out))} ({wide}).")
    terminal.say(f"Prices in US dollars, as of {on}. Correct or add rows: prices.toml.")


def _vendors(catalog: Catalog, named: str) -> tuple[str, ...]:
    known = catalog.providers()
    if named == "all":
        return known
    if named not in known:
        raise click.UsageError(
            f"no models of {named!r} are known: use one of {', '.join(known)}, or all"
        )
    return (named,)


def _titled(vendor: str) -> str:
    found = VENDORS.get(vendor)
    return f"Models of {vendor if found is None else found.title}"


def _recommend(terminal: Terminal, catalog: Catalog, task: str, on: date) -> None:
    card = catalog.recommend(task, on)
    branch = next(branch for branch in catalog.advice(on) if branch.task == task)
    if terminal.json:
        terminal.write_json(
            {"as_of": on, "task": task, "id": branch.model, "reason": branch.reason, "model": card}
        )
        return
    terminal.out.print(branch.model)
    price = f"{_input(card)} in, {_output(card)} out"
    terminal.say(f"{branch.reason} · {price} · {_window(card)} window · as of {on}")


def _tables(catalog: Catalog, cards: Sequence[ModelCard], on: date) -> Iterable[_Sheet]:
    chat = [card for card in cards if "chat" in card.abilities]
    yield _sheet("Open models", _OPEN, [card for card in chat if card.open_weights])
    yield _sheet("Commercial models", _COMMERCIAL, [card for card in chat if not card.open_weights])
    yield _sheet("Other models", _OTHER, [card for card in cards if "chat" not in card.abilities])
    legacy = [
        (name, card.id, f"{_amount(card, 'input')}/{_amount(card, 'output')}")
        for card in cards
        for name in card.legacy_ids
    ]
    yield "Legacy ids", ("Legacy ID", "Maps to", "Input / Output"), legacy
    advice = [(branch.task, branch.model, branch.reason) for branch in catalog.advice(on)]
    yield "Which one", ("Task", "Model", "Why"), advice


def _sheet(title: str, columns: Sequence[_Column], cards: Iterable[ModelCard]) -> _Sheet:
    rows = [tuple(cell(card) for _, cell in columns) for card in cards]
    return title, tuple(header for header, _ in columns), rows


def _amount(card: ModelCard, side: str) -> str:
    value: Decimal | None = getattr(card.price, f"{side}_usd_per_mtok", None)
    return "-" if value is None else _money(value)


def _money(value: Decimal) -> str:
    # Two places as the vendor prints them, more only where a price has more.
    exact = value.normalize()
    return f"${exact:f}" if -int(exact.as_tuple().exponent) > 2 else f"${value:.2f}"


def _per_million(amount: str) -> str:
    return amount if amount == "-" else f"{amount}/1M"


def _input(card: ModelCard) -> str:
    return _per_million(_amount(card, "input"))


def _cached(card: ModelCard) -> str:
    return _per_million(_amount(card, "cached_input"))


def _tokens(number: int | None) -> str:
    # Not in thousands: 128,000 of this vendor's tokens are no 125K.
    return "-" if number is None else f"{number:,}"


def _output(card: ModelCard) -> str:
    return _per_million(_amount(card, "output"))


def _window(card: ModelCard) -> str:
    tokens = card.context_window
    if tokens is None:
        return "-"
    if tokens % 1024**2 == 0:
        return f"{tokens // 1024**2}M"
    return f"{tokens // 1024}K" if tokens % 1024 == 0 else f"{tokens:,}"


def _parameters(card: ModelCard) -> str:
    active = f" ({card.active_parameters} active)" if card.active_parameters else ""
    return f"{card.parameters or '-'}{active}"


def _state(card: ModelCard) -> str:
    if card.state != "deprecated" or card.retires_on is None:
        return "" if card.state == "ga" else card.state
    return f"ends {card.retires_on}"


def _any_price(card: ModelCard) -> str:
    price: Price | None = card.price
    if price is None:
        return "-"
    parts: list[str] = []
    # What is billed by the page or the second has token prices of 0, which say nothing.
    if price.input_usd_per_mtok or (price.input_usd_per_mtok == 0 and _only_tokens(price)):
        parts.append(f"{_input(card)} in")
    if price.output_usd_per_mtok:
        parts.append(f"{_output(card)} out")
    if price.usd_per_page is not None:
        parts.append(f"{_money(price.usd_per_page)}/page")
    if price.usd_per_audio_second is not None:
        parts.append(f"{_money(price.usd_per_audio_second * 60)}/min")
    return ", ".join(parts) or "-"


def _only_tokens(price: Price) -> bool:
    return price.usd_per_page is None and price.usd_per_audio_second is None


def _can(card: ModelCard) -> str:
    return ", ".join(sorted(card.abilities)).replace("_", " ")


_NAME: tuple[_Column, ...] = (
    ("Model", lambda card: card.title),
    ("ID", lambda card: card.id),
)
_OPEN: tuple[_Column, ...] = (
    *_NAME,
    ("Input", _input),
    ("Output", _output),
    ("Parameters", _parameters),
    ("Architecture", lambda card: card.architecture or "-"),
    ("Context", _window),
    ("Licence", lambda card: card.licence),
    ("State", _state),
    ("Best for", lambda card: card.best_for),
)
_COMMERCIAL: tuple[_Column, ...] = (
    *_NAME,
    ("Input", _input),
    ("Output", _output),
    ("Context", _window),
    ("State", _state),
    ("Best for", lambda card: card.best_for),
)
_FOREIGN: tuple[_Column, ...] = (
    *_NAME,
    ("Input", _input),
    ("Cached", _cached),
    ("Output", _output),
    ("Context", lambda card: _tokens(card.context_window)),
    ("Longest", lambda card: _tokens(card.max_output)),
    ("State", _state),
    ("Can", _can),
)
_OTHER: tuple[_Column, ...] = (*_NAME, ("Price", _any_price), ("State", _state), ("Can", _can))
