"""
The ledger against the vendor's invoice: what differs, and whether it is known why.

Lines are compared by period and model. A difference is explained when the ledger itself says where
it comes from; all others are for somebody to look at, with what can be said about them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from itertools import combinations
from typing import Literal, TypeAlias

import msgspec

from loom.ledger.entry import Entry
from loom.ledger.invoice import InvoiceLine
from loom.ledger.money import ZERO, add, less, total

__all__ = ["EXPLAINED", "Finding", "Kind", "Side", "factor_of", "reconcile"]

Kind: TypeAlias = Literal[
    "same",
    "rounding",
    "uncertain",
    "unpriced",
    "other_key",
    "other_day",
    "price_differs",
    "tokens_differ",
    "missing_in_ledger",
    "missing_in_invoice",
]
"""
How a line of the invoice and the ledger's calls compare.

`same`: to the last digit. `rounding`: less than a cent apart. `uncertain`: calls that may have been
billed, or whose cost is an estimate, explain it. `unpriced`: calls at a price that the ledger did
not know do. `other_key`: calls of a key that the invoice does not speak of. `other_day`: the days
differ and their sum does not, as with days of another time zone. `price_differs`: the same tokens
at another price. `tokens_differ`: other tokens, or only another amount where the invoice names no
tokens.
"""

EXPLAINED: frozenset[Kind] = frozenset(
    {"same", "rounding", "uncertain", "unpriced", "other_key", "other_day"}
)
"""Kinds of which the ledger itself says where they come from."""

_CENT = Decimal("0.01")
_MOST_KEYS = 6  # of more than these not every set is tried
_FACTORS = {Decimal("0.5"): "batch", Decimal("1.75"): "priority", Decimal("0.875"): "both"}
_CLOSE = Decimal("0.01")
_LONGEST_MONTH = timedelta(days=31)


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """
    One side of a comparison.

    Attributes:
        calls: How many; None: the invoice does not say.
        input_tokens: Prompt tokens; None: the invoice does not say.
        output_tokens: Answer tokens; None: the invoice does not say.
        amount_usd: US dollars.
    """

    calls: int | None
    input_tokens: int | None
    output_tokens: int | None
    amount_usd: Decimal


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """
    How a period and model compare.

    Attributes:
        period: A day or a month; empty: all of the invoice.
        model: The model.
        kind: How they compare.
        invoice: What the vendor says; None: no line.
        ledger: What the ledger says; None: no calls.
        lines: Lines of the invoice.
        price_ids: Rows of the price list that the calls were priced with.
        uncertain_usd: The most that uncertain calls of it can have cost.
        note: What can be said of the difference.
    """

    period: str
    model: str
    kind: Kind
    invoice: Side | None = None
    ledger: Side | None = None
    lines: tuple[int, ...] = ()
    price_ids: tuple[str, ...] = ()
    uncertain_usd: Decimal = ZERO
    note: str = ""

    @property
    def difference_usd(self) -> Decimal:
        """What the invoice asks for beyond the ledger."""
        billed = ZERO if self.invoice is None else self.invoice.amount_usd
        written = ZERO if self.ledger is None else self.ledger.amount_usd
        return less(billed, written)

    @property
    def explained(self) -> bool:
        """Whether the ledger itself says where the difference comes from."""
        return self.kind in EXPLAINED


class _Sum:
    """The calls of a period, model and key."""

    def __init__(self) -> None:
        self.calls = self.input = self.output = self.unsure = self.unpriced = 0
        self.cost = self.guessed = self.worst = ZERO
        self.prices: set[str] = set()

    def add(self, entry: Entry) -> None:
        cost = entry.cost_usd or ZERO
        if entry.state in ("uncertain", "estimated"):
            # Its cost is likely, nothing and the worst case are possible.
            self.unsure += 1
            self.guessed = add(self.guessed, cost)
            self.worst = add(self.worst, max(ZERO, less(entry.reserved_usd or ZERO, cost)))
        self.calls += 1
        self.input += entry.input_tokens
        self.output += entry.output_tokens
        self.cost = add(self.cost, cost)
        self.unpriced += entry.unpriced
        if entry.price_id:
            self.prices.add(entry.price_id)

    def side(self) -> Side:
        return Side(
            calls=self.calls,
            input_tokens=self.input,
            output_tokens=self.output,
            amount_usd=self.cost,
        )


def reconcile(
    lines: Sequence[InvoiceLine], entries: Iterable[Entry], name: Callable[[str, str], str]
) -> tuple[Finding, ...]:
    """
    Compare an invoice with a ledger.

    Args:
        lines: The invoice; all of its periods are of one kind.
        entries: The ledger's calls in the invoice's time; open and released ones do not count.
        name: Gives the one name of a model from any of its names, in a period.

    Returns:
        One for each period and model, in their order.
    """
    digits = len(lines[0].period) if lines else 0
    billed: dict[tuple[str, str], list[InvoiceLine]] = {}
    for line in lines:
        billed.setdefault((line.period, name(line.model, line.period)), []).append(line)
    written: dict[tuple[str, str], dict[str, _Sum]] = {}
    for entry in entries:
        if entry.state in ("open", "released"):
            continue
        period = entry.at.isoformat()[:digits]
        model = name(entry.model or entry.asked_model, period)
        keys = written.setdefault((period, model), {})
        keys.setdefault(entry.key, _Sum()).add(entry)
    findings = [
        _compared(place, billed.get(place, ()), written.get(place, {}))
        for place in sorted({*billed, *written})
    ]
    return tuple(_moved(findings))


def factor_of(finding: Finding) -> str:
    """
    What another price implies.

    Args:
        finding: One with both sides.

    Returns:
        The factor, and what is billed by it; empty if nothing can be said.
    """
    if finding.ledger is None or finding.invoice is None or finding.ledger.amount_usd <= 0:
        return ""
    factor = finding.invoice.amount_usd / finding.ledger.amount_usd
    for known, what in _FACTORS.items():
        if abs(factor - known) <= known * _CLOSE:
            return f"{known} times, as for {what}"
    return f"{factor:.4g} times"


def _compared(
    place: tuple[str, str], lines: Sequence[InvoiceLine], keys: Mapping[str, _Sum]
) -> Finding:
    whole = _plus(keys.values())
    finding = Finding(
        period=place[0],
        model=place[1],
        kind="same",
        invoice=_billed(lines),
        ledger=whole.side() if keys else None,
        lines=tuple(line.line for line in lines),
        price_ids=tuple(sorted(whole.prices)),
        uncertain_usd=whole.worst,
    )
    kind, note = _kind(finding, whole, keys)
    return msgspec.structs.replace(finding, kind=kind, note=note)


def _kind(finding: Finding, whole: _Sum, keys: Mapping[str, _Sum]) -> tuple[Kind, str]:
    invoice, apart = finding.invoice, finding.difference_usd
    if invoice is None:
        if abs(apart) < _CENT and not whole.unpriced:
            return "rounding", "less than a cent: the vendor need not name it"
        return "missing_in_invoice", f"{_calls(whole.calls)} that nobody billed"
    if finding.ledger is None:
        return ("missing_in_ledger", "no call of it in the ledger") if apart else ("same", "")
    same_tokens = _same_tokens(invoice, whole)
    if same_tokens is not False and abs(apart) < _CENT:
        return ("rounding" if apart else "same"), ""
    return _why(invoice, whole, keys, apart) or _unexplained(finding, invoice, whole)


def _why(
    invoice: Side, whole: _Sum, keys: Mapping[str, _Sum], apart: Decimal
) -> tuple[Kind, str] | None:
    """Find what of the ledger explains a difference."""
    if key := _other_keys(invoice, keys):
        return "other_key", f"without the calls of key {', '.join(key)} it is the same"
    if whole.unpriced and apart > 0 and _same_tokens(invoice, whole) is not False:
        return "unpriced", f"the ledger had no price for {_calls(whole.unpriced)}"
    if whole.unsure and less(ZERO, add(whole.guessed, _CENT)) < apart < add(whole.worst, _CENT):
        return "uncertain", f"{_calls(whole.unsure)} may have been billed, or cost an estimate"
    return None


def _unexplained(finding: Finding, invoice: Side, whole: _Sum) -> tuple[Kind, str]:
    if _same_tokens(invoice, whole):
        rows = ", ".join(finding.price_ids) or "no price row"
        return "price_differs", f"priced by {rows}; the invoice asks {factor_of(finding)}"
    return "tokens_differ", _tokens_note(invoice, whole)


def _tokens_note(invoice: Side, whole: _Sum) -> str:
    if invoice.input_tokens is None or invoice.output_tokens is None:
        return "another amount; the invoice names no tokens"
    parts = [
        f"{invoice.input_tokens - whole.input:+,} in",
        f"{invoice.output_tokens - whole.output:+,} out",
    ]
    if invoice.calls is not None:
        parts.insert(0, f"{invoice.calls - whole.calls:+,} calls")
    return f"invoice less ledger: {', '.join(parts)}"


def _same_tokens(invoice: Side, whole: _Sum) -> bool | None:
    """Whether both sides have the same tokens; None: the invoice does not say."""
    if invoice.input_tokens is None or invoice.output_tokens is None:
        return None
    return (invoice.input_tokens, invoice.output_tokens) == (whole.input, whole.output)


def _other_keys(invoice: Side, keys: Mapping[str, _Sum]) -> tuple[str, ...]:
    """Give the keys without whose calls both sides are the same."""
    if not 1 < len(keys) <= _MOST_KEYS:
        return ()
    # Where no tokens are named, many sets of keys may cost the same by chance.
    most = 2 if invoice.input_tokens is None else len(keys)
    for count in range(1, most):
        for left_out in combinations(sorted(keys), count):
            rest = _plus(part for key, part in keys.items() if key not in left_out)
            close = abs(less(invoice.amount_usd, rest.cost)) < _CENT
            if close and _same_tokens(invoice, rest) is not False:
                return left_out
    return ()


def _moved(findings: list[Finding]) -> list[Finding]:
    """Find models whose days differ while all days together do not."""
    open_ones: dict[str, list[int]] = {}
    for i, finding in enumerate(findings):
        if finding.kind in ("tokens_differ", "missing_in_ledger", "missing_in_invoice"):
            open_ones.setdefault(finding.model, []).append(i)
    runs = [run for places in open_ones.values() for run in _runs(findings, places)]
    for places in runs:
        if len(places) > 1 and _cancel([findings[i] for i in places]):
            for i in places:
                note = "other days, and the same in all: days of another time zone?"
                findings[i] = msgspec.structs.replace(findings[i], kind="other_day", note=note)
    return findings


def _runs(findings: Sequence[Finding], places: Sequence[int]) -> Iterator[list[int]]:
    """Part the findings of a model where a day, or a month, lies between them."""
    run: list[int] = []
    for i in places:
        if run and not _adjacent(findings[run[-1]].period, findings[i].period):
            yield run
            run = []
        run.append(i)
    if run:
        yield run


def _adjacent(one: str, other: str) -> bool:
    days = [date.fromisoformat(f"{period}-01"[:10]) for period in (one, other) if period]
    if len(days) < 2:
        return False
    longest = _LONGEST_MONTH if len(one) < 10 else timedelta(days=1)
    return days[1] - days[0] <= longest


def _cancel(findings: Sequence[Finding]) -> bool:
    sums = [ZERO, ZERO]
    for finding in findings:
        for side, sign in ((finding.invoice, 1), (finding.ledger, -1)):
            if side is None:
                continue
            if side.input_tokens is None or side.output_tokens is None:
                return False
            sums[0] += sign * side.input_tokens
            sums[1] += sign * side.output_tokens
    apart = total(abs(finding.difference_usd) for finding in findings)
    whole = abs(sum((finding.difference_usd for finding in findings), ZERO))
    return not any(sums) and apart > 0 and whole < _CENT * len(findings)


def _billed(lines: Sequence[InvoiceLine]) -> Side | None:
    if not lines:
        return None
    amount = ZERO
    for line in lines:
        amount = add(amount, line.amount_usd)
    return Side(
        calls=_known(line.requests for line in lines),
        input_tokens=_known(line.input_tokens for line in lines),
        output_tokens=_known(line.output_tokens for line in lines),
        amount_usd=amount,
    )


def _known(counts: Iterable[int | None]) -> int | None:
    """
    The sum of what is known: some invoices have a line for input and one for output.

    Args:
        counts: Numbers; None: the line does not say.

    Returns:
        The sum; None if no line says it.
    """
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _calls(count: int) -> str:
    return f"{count:,} call{'' if count == 1 else 's'}"


def _plus(sums: Iterable[_Sum]) -> _Sum:
    whole = _Sum()
    for one in sums:
        for name in ("calls", "input", "output", "unsure", "unpriced"):
            setattr(whole, name, getattr(whole, name) + getattr(one, name))
        whole.cost = add(whole.cost, one.cost)
        whole.guessed = add(whole.guessed, one.guessed)
        whole.worst = add(whole.worst, one.worst)
        whole.prices |= one.prices
    return whole
