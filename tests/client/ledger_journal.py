"""
Many calls, some of which fail, are cancelled or left; then the ledger beside the journal.

    python -m tests.client.ledger_journal --calls 10000 --kind embeddings

The ledger is what we believe, the journal of the simulators is what was. Calls are matched by a tag
and by their prompt, answers by the vendor's id of the request.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import date
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from loom import AsyncMistral, EmbeddingsResponse, Fallback, LoomError, Route
from loom.core.faults import fault_matrix
from loom.core.request import Kind, Timeouts
from loom.core.response import LLMResponse
from loom.ledger.contract import Ledger, Query, all_entries
from loom.ledger.entry import Entry
from loom.ledger.money import total
from loom.ledger.open import open_ledger
from loom.server.simulator import Simulator
from loom.server.simulator.faults import fault_table, parse_fault
from loom.server.simulator.journal import Entry as Request
from loom.testing import turn
from loom.testing.chance import Chance
from loom.testing.matrix_sight import HastyClock

MODEL = "mistral-small-latest"
# Both sides have the same prices, whatever day it is.
DAY = date(2024, 11, 15)
# Their models have no row on that day.
DAYS: dict[Kind, date] = {"fim": date(2026, 8, 21), "embeddings": date(2026, 8, 21)}
ABREAST = 16
# As they come these take long, and show nothing else.
QUICK = {
    "25-comments-only": "25-comments-only;seconds=0.05",
    "26-gzip-bomb": "26-gzip-bomb:66",
    "toxic-bandwidth": "toxic-bandwidth:10000000",
    "toxic-latency": "toxic-latency:0",
    "toxic-slow_close": "toxic-slow_close:0",
}
# The answer's tokens, or its model, are not what the vendor counts for itself.
UNTRUE = frozenset({"46-usage-zero", "50-model"})
OUTSIDE = ("cancelled", "left")
IN_DOUBT = ("estimated", "uncertain")
# Row "toxic" is not in the matrix.
TOXIC = frozenset({"toxic-timeout", "toxic-reset_peer", "toxic-limit_data"})


class Told(NamedTuple):
    """How a call ended for its caller."""

    how: str
    response: LLMResponse | EmbeddingsResponse | None = None


class Books(NamedTuple):
    """What is compared."""

    told: dict[str, Told]
    rows: dict[str, list[Entry]]
    journal: dict[str, list[Request]]
    ledger_usd: Decimal
    damage: tuple[str, ...]

    def table(self) -> str:
        """How many rows are in which state, and why."""
        counts: Counter[tuple[str, str]] = Counter(
            (row.state, row.code) for rows in self.rows.values() for row in rows
        )
        counts[("no row", "never accepted")] = sum(not rows for rows in self.rows.values())
        lines = [
            f"{count:7,}  {state:10} {code}" for (state, code), count in sorted(counts.items())
        ]
        requests = sum(len(requests) for requests in self.journal.values())
        faults = sum(one.fault is not None for many in self.journal.values() for one in many)
        lines.append(f"{len(self.told):7,}  calls, {requests:,} requests, {faults:,} faults")
        return "\n".join(lines)


async def keep_books(
    calls: int, share: float, folder: Path, *, seed: int = 0, kind: Kind = "chat"
) -> Books:
    """Make so many calls, of which a share meets a fault on each server."""
    day = DAYS.get(kind, DAY)
    names = [QUICK.get(row.id, row.id) for row in fault_table().rows]
    chances = {name: share / len(names) for name in names}
    options: dict[str, Any] = {"faults": chances, "as_of": day, "journal_size": 4 * calls}
    first = Simulator(seed=2 * seed + 1, **options)
    second = Simulator(seed=2 * seed + 2, any_key=True, **options)
    ledger = open_ledger(folder / "calls.db")
    for simulator in (first, second):
        await asyncio.to_thread(simulator.start)
    try:
        told = await _make(calls, ledger, (first, second), Chance(seed), kind)
        await _written(ledger)
        rows: dict[str, list[Entry]] = {name: [] for name in told}
        async for row in all_entries(ledger):
            rows[row.tags["call"]].append(row)
        (sums,) = await ledger.totals()
        damage = await ledger.check()
    finally:
        await ledger.aclose()
        for simulator in (first, second):
            await asyncio.to_thread(simulator.stop)
    journal: dict[str, list[Request]] = {name: [] for name in told}
    for simulator in (first, second):
        for request in simulator.journal:
            journal[_prompt(json.loads(request.body)).split()[1]].append(request)
    return Books(told, rows, journal, sums.cost_usd, damage)


def _prompt(body: dict[str, Any]) -> str:
    """What a request of any kind says."""
    messages = body.get("messages") or [{"content": body.get("prompt") or body["input"][0]}]
    prompt: str = messages[-1]["content"]
    return prompt


async def _written(ledger: Ledger) -> None:
    """Calls that were left are written behind their callers' backs."""
    for _ in range(1000):
        if not await ledger.entries(Query(states=("open",))):
            return


async def _make(
    calls: int, ledger: Ledger, servers: tuple[Simulator, Simulator], chance: Chance, kind: Kind
) -> dict[str, Told]:
    first, second = servers
    common: dict[str, Any] = {
        "base_url": first.base_url,
        "model": MODEL,
        "ledger": ledger,
        "clock": HastyClock(),
        "as_of": DAYS.get(kind, DAY),
        "max_tokens": 20,
        "timeouts": Timeouts(connect_s=10, write_s=1, first_byte_s=1, idle_s=1, total_s=1e6),
    }
    routes = Fallback([Route(base_url=second.base_url, api_key="another-key")])
    ways: list[dict[str, Any]] = [
        {}, {"retry": None}, {"fallback": routes}, {"fallback": routes, "rescue": True}
    ]  # fmt: skip
    told: dict[str, Told] = {}
    left = iter(range(calls))
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(AsyncMistral(first.api_key, **common, **way))
            for way in ways
        ]

        async def worker(chance: Chance) -> None:
            for number in left:
                name = str(number)
                told[name] = await _call(clients[number % len(clients)], name, chance, kind)

        await asyncio.gather(*(worker(chance.fork()) for _ in range(ABREAST)))
    return told


async def _call(client: AsyncMistral, name: str, chance: Chance, kind: Kind) -> Told:
    plain, leaves = chance.happens(0.5), chance.pick((0, 0, 0, 0, 1, 2, 4, 8))
    task = asyncio.ensure_future(
        _ask(client, name, leaves=leaves, plain=plain)
        if kind == "chat"
        else _ask_otherwise(client, name, kind)
    )
    if chance.happens(0.1):
        await turn(chance.whole(0, 60))
        task.cancel()
    await asyncio.wait([task])
    return Told("cancelled") if task.cancelled() else task.result()


async def _ask(client: AsyncMistral, name: str, *, leaves: int, plain: bool) -> Told:
    prompt, tags = f"Call {name} says something", {"call": name}
    try:
        if plain:
            return Told("answer", await client.chat(prompt, tags=tags))
        async with client.stream(prompt, tags=tags) as events:
            if not leaves:
                return Told("answer", await events.final())
            seen = 0
            async for event in events:
                seen += 1
                response = getattr(event, "response", None)
                if response is not None:
                    return Told("answer", response)
                if seen == leaves:
                    break
    except LoomError as error:
        return Told(error.code)
    return Told("left")


async def _ask_otherwise(client: AsyncMistral, name: str, kind: Kind) -> Told:
    prompt, tags = f"Call {name} says something", {"call": name}
    try:
        if kind == "fim":
            return Told("answer", await client.fim(prompt, "the end", tags=tags))
        return Told("answer", await client.embeddings([prompt, "another"], tags=tags))
    except LoomError as error:
        return Told(error.code)


def differences(books: Books) -> Iterator[str]:
    """Everything in which the ledger and the journal do not agree."""
    yield from books.damage
    for name, told in books.told.items():
        requests, rows = books.journal[name], books.rows[name]
        if len(rows) == 1:
            yield from _judged(name, rows[0], told, requests)
        # Cancelled before the ledger took it: there was no call.
        elif rows or requests or told.how != "cancelled":
            yield f"call {name} ({told.how}) has {len(rows)} rows"
    every = [row for rows in books.rows.values() for row in rows]
    settled = total(row.cost_usd for row in every if row.cost_usd and row.state == "settled")
    if settled != (expected := total(_delivered(books))):
        yield f"{expected} USD were delivered, {settled} USD are settled"
    if (expected := total(row.cost_usd for row in every if row.cost_usd)) != books.ledger_usd:
        yield f"the rows cost {expected} USD, and the ledger's sum is {books.ledger_usd} USD"


def _delivered(books: Books) -> Iterator[Decimal]:
    """What the vendor counted for each answer that came whole, by its own journal."""
    for name, requests in books.journal.items():
        told = books.told[name].response
        for one in requests:
            mine = told is not None and _id(one) == told.request_id and not told.usage.estimated
            # Cancelled when it was there: the row alone knows.
            alone = told is None and any(
                row.state == "settled" and _id(one) == row.request_id for row in books.rows[name]
            )
            if not mine and not alone:
                continue
            lies = one.fault in UNTRUE and told is not None
            usd = told.usage.cost_usd if lies and told is not None else one.cost_usd
            yield usd or Decimal(0)


def _judged(name: str, row: Entry, told: Told, requests: list[Request]) -> Iterator[str]:
    if row.state == "open":
        yield f"call {name} ({told.how}) is still open"
    elif told.response is not None:
        usage = told.response.usage
        state = "estimated" if usage.estimated else "settled"
        if (state, "", usage.cost_usd) != (row.state, row.code, row.cost_usd):
            yield f"call {name} cost {usage.cost_usd} USD ({state}); its row says {row}"
        yield from _counted(name, row, requests)
    elif told.how in OUTSIDE and row.code == "":
        # Cancelled while its row was written: at the beginning, or when the answer was there.
        if row.state != "released":
            yield from _counted(name, row, requests)
        elif requests or row.cost_usd:
            yield f"call {name} was sent, and its row is {row.state}"
    else:
        yield from _unanswered(name, row, told, requests)


def _counted(name: str, row: Entry, requests: list[Request]) -> Iterator[str]:
    """The row of an answer is what the vendor counted, to the last digit."""
    sources = [one for one in requests if _id(one) == row.request_id]
    if len(sources) != 1 or sources[0].status != 200:
        yield f"call {name} was answered by {row.request_id}, which {len(sources)} requests have"
    elif row.state == "settled":
        (one,) = sources
        told = (row.input_tokens, row.output_tokens, row.cached_tokens, row.cost_usd)
        counted = (one.prompt_tokens, one.completion_tokens, one.cached_tokens, one.cost_usd)
        # What these told is not what the vendor counts.
        if one.fault == "46-usage-zero" and one.path != "/v1/embeddings":
            counted = (0, 0, 0, Decimal(0))
        if one.fault == "50-model":
            counted = (*counted[:3], row.cost_usd)
        if told != counted:
            yield f"call {name}: the row says {told}, the vendor counted {counted}"


def _unanswered(name: str, row: Entry, told: Told, requests: list[Request]) -> Iterator[str]:
    """The row of a call without an answer is in doubt exactly if the vendor may bill it."""
    if row.state == "settled" or row.code == "":
        yield f"call {name} ended as {told.how}; its row is {row.state}"
        return
    # On a kept socket that turned out to be closed, one attempt is two requests, and one charge
    # (fault matrix, row 9).
    resent = sum(attempt.sends - 1 for attempt in row.attempts if attempt.sends)
    unread = [one for one in requests if one.status is None and may_be_billed(one)][:resent]
    doubtful = [one for one in requests if may_be_billed(one) and one not in unread]
    # An error that came first is what the row tells.
    outside = told.how in OUTSIDE and row.code == "cancelled"
    if doubtful and row.state not in IN_DOUBT:
        why = [(one.status, one.fault) for one in doubtful]
        yield f"call {name} ({told.how}) is {row.state}, and may be billed: {why}"
    # Who goes before the answer begins does not know which it would have been.
    elif not doubtful and row.state in IN_DOUBT and not outside:
        why = [(one.status, one.fault) for one in requests]
        yield f"call {name} ({told.how}) is {row.state}, and no request was billed: {why}"
    if row.state == "released" and row.cost_usd != 0:
        yield f"call {name} costs nothing, and {row.cost_usd} USD are written"
    if row.state in IN_DOUBT and not row.cost_usd:
        yield f"call {name} is {row.state} at no cost"


def may_be_billed(request: Request) -> bool:
    """Whether a request that was not answered to its end may be billed, by the fault matrix."""
    if request.fault is None:
        return request.status in (None, 200)
    stream = b'"stream":true' in request.body
    return _doubtful(request.fault, stream=stream)


@cache
def _doubtful(fault: str, *, stream: bool) -> bool:
    row = parse_fault(fault).row
    if not (row.raises if stream or row.plain is None else row.plain):
        return True  # it leaves the answer whole
    if row.row == "toxic":
        return row.id in TOXIC
    cases = [
        (case, one) for one in fault_matrix() for case in one.cases
        if case.fault and parse_fault(case.fault).row.id == row.id and not case.skip
    ]  # fmt: skip
    mode = "stream" if stream else "plain"
    fitting = [pair for pair in cases if pair[0].mode in ("", mode)] or cases
    charges = {one.charge if case.charge is None else case.charge for case, one in fitting}
    return bool(charges & {"estimated", "unknown"})


def _id(request: Request) -> str:
    return request.answer_headers.get("mistral-correlation-id", "")


def main() -> int:
    """Make many calls and print the table of states."""
    logging.getLogger("loom").addHandler(logging.NullHandler())
    parser = argparse.ArgumentParser(description="The ledger beside the journal.")
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--faults", type=float, default=0.05, help="share of requests (0.05)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=["chat", "fim", "embeddings"], default="chat")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        books = asyncio.run(
            keep_books(given.calls, given.faults, Path(folder), seed=given.seed, kind=given.kind)
        )
    found = list(differences(books))
    sys.stdout.write("\n".join([*found, books.table(), f"{len(found)} differences", ""]))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
