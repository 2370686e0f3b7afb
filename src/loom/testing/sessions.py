"""
The contract of a store of sessions: its laws as functions that any store can be put to.

    @pytest.mark.parametrize("law", SESSION_STORE_LAWS)
    @pytest.mark.anyio
    async def test_my_store_keeps_the_law(law, tmp_path):
        names = itertools.count()
        await law(lambda clock: MyStore(tmp_path / f"{next(names)}.db", clock))
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any, TypeAlias

from loom.agent.session import (
    Begun,
    Condensed,
    Entry,
    Said,
    SessionInfo,
    SessionStore,
    Withdrawn,
)
from loom.core.ambient import Clock
from loom.core.errors import Conflict, InvalidRequest
from loom.core.messages import (
    AudioPart,
    DocumentPart,
    FilePart,
    ImagePart,
    Message,
    RawPart,
    ReferencePart,
    TextPart,
    ThinkingPart,
    ToolCall,
)
from loom.core.model import Price
from loom.core.response import Usage
from loom.testing.cancel import cancel_everywhere
from loom.testing.clock import FakeClock
from loom.testing.ledger_kit import must, same

__all__ = [
    "SESSION_STORE_LAWS",
    "SessionStoreLaw",
    "SessionStoreMaker",
    "a_cancelled_append_is_whole_or_nothing",
    "a_closed_store_does_nothing",
    "a_deleted_session_is_gone",
    "a_session_is_its_own",
    "a_title_is_one_plain_line",
    "entries_come_back_as_they_were",
    "every_loop_and_thread_is_served",
    "nothing_that_cannot_be_kept_is_taken",
    "of_many_writers_one_wins",
    "pages_begin_with_the_newest",
    "session_store_contract",
    "sums_are_those_of_the_entries",
    "what_is_kept_does_not_change",
    "what_was_said_is_found",
]

SessionStoreMaker: TypeAlias = Callable[[Clock], SessionStore]
"""Makes a store that is empty and has never been used; the clock dates its entries."""

SessionStoreLaw: TypeAlias = Callable[[SessionStoreMaker], Coroutine[Any, Any, None]]

_PARTS = (
    TextPart("a \0 \U0001f9f6 text"),
    ImagePart("https://example.org/cat.png", "low"),
    DocumentPart("data:application/pdf;base64,AA==", "report.pdf"),
    AudioPart("AA==", "wav"),
    FilePart("file-1"),
    ReferencePart((1, "two")),
    ThinkingPart(
        (TextPart("Let me see."), ReferencePart((1,))), closed=True, extra={"signature": "s"}
    ),
    RawPart("video", {"type": "video", "kind": "text", "frames": [1, 2.5, None]}),
)
_USAGE = Usage(
    input_tokens=7,
    output_tokens=3,
    total_tokens=10,
    cost_usd=Decimal("0.0000000375"),
    price=Price(id="model-1@2026-01-01", input_usd_per_mtok=Decimal("0.1")),
)
_EVERY_KIND: tuple[Entry, ...] = (
    Said(message=Message.system("Be brief.")),
    Said(message=Message(role="user", content=_PARTS)),
    Said(
        message=Message.assistant(
            tool_calls=(
                ToolCall("a", "look", {"at": "x", "n": 2**70, "none": None}),
                ToolCall("a", "look", arguments='{"at": "unfinished'),
            )
        ),
        model="model-1",
        usage=_USAGE,
    ),
    Begun(call_id="a", name="look", position=1),
    Said(message=Message.tool("a", _PARTS[:1])),
    Condensed(until=2, summary="It began.", model="model-1", usage=_USAGE),
    Withdrawn(since=3),
    Said(message=Message.assistant("", prefix=True)),
)


async def session_store_contract(make: SessionStoreMaker) -> None:
    """
    Put a store to every law.

    Args:
        make: Makes an empty store.

    Raises:
        AssertionError: If a law is broken; the message says how.
    """
    for law in SESSION_STORE_LAWS:
        await law(make)


async def entries_come_back_as_they_were(make: SessionStoreMaker) -> None:
    """Every kind of entry, with every kind of part, is read as it was written, in its order."""
    async with _a_store(make) as (store, _):
        same((), await store.read("abc"), "a session that is not there")
        same(None, await store.info("abc"), "its sums")
        same(len(_EVERY_KIND), await store.append("abc", _EVERY_KIND, expected=0), "the count")
        same(_EVERY_KIND, await store.read("abc"), "entries")
        count = await store.append("abc", _EVERY_KIND[:2], expected=len(_EVERY_KIND))
        same(len(_EVERY_KIND) + 2, count, "the count")
        same(_EVERY_KIND + _EVERY_KIND[:2], await store.read("abc"), "entries")


async def a_session_is_its_own(make: SessionStoreMaker) -> None:
    """Sessions share nothing, however alike their ids are."""
    async with _a_store(make) as (store, _):
        ids = ["a", "A", "a ", "%", "_", "a'; --", "\u00e4", "a\u0308", "/../x", "x" * 200]
        for number, session in enumerate(ids):
            await store.append(session, [_user(str(number))], expected=0)
        for number, session in enumerate(ids):
            same((_user(str(number)),), await store.read(session), f"entries of {session!r}")


async def of_many_writers_one_wins(make: SessionStoreMaker) -> None:
    """Who knows another number of entries than there are writes nothing, and is told so."""
    async with _a_store(make) as (store, _):
        writers = [store.append("abc", [_user(str(n))], expected=0) for n in range(20)]
        results = await asyncio.gather(*writers, return_exceptions=True)
        same(1, results.count(1), "writers that won")
        same(19, sum(isinstance(result, Conflict) for result in results), "conflicts")
        same(1, len(await store.read("abc")), "entries")
        for expected in (0, 2, -1):
            error = await _refused(store, "abc", [_user()], expected=expected)
            must(isinstance(error, Conflict), f"{error!r} is no conflict")
            must("'abc'" in str(error), f"{error} does not name the session")
        must(
            isinstance(await _refused(store, "new", [_user()], expected=1), Conflict),
            "a session that is not there has no entries",
        )
        same(None, await store.info("new"), "a session that was not made")


async def nothing_that_cannot_be_kept_is_taken(make: SessionStoreMaker) -> None:
    """Halves of characters and ids that nobody can print are refused, and nothing is written."""
    async with _a_store(make) as (store, _):
        half = Said(message=Message.user("\ud800"))
        error = await _refused(store, "abc", [_user(), half], expected=0)
        must(isinstance(error, InvalidRequest), f"{error!r} is no InvalidRequest")
        must("entries[1]" in str(error), f"{error} does not say which entry")
        for session in ("", "x" * 201, "a\nb", "a\0b", "\x1b[2J", "\ud800", "\u202e"):
            error = await _refused(store, session, [_user()], expected=0)
            must(isinstance(error, InvalidRequest), f"the id {session!r} was taken")
        deep: Any = []
        for _ in range(100_000):
            deep = [deep]
        wrong: tuple[Any, ...] = (
            Said(message=Message.user(RawPart("x", {"deep": deep}))),
            Said(message=Message.user(RawPart("x", {"thing": object()}))),
            Said(message=Message(role="user", content=7)),  # type: ignore[arg-type] # it is refused
            Begun(call_id="a", name="look", position="x"),  # type: ignore[arg-type] # it is refused
            _answer(cost="-1"),
            Said(message=Message.assistant("x"), usage=Usage(input_tokens=-1)),
        )
        for number, entry in enumerate(wrong):
            error = await _refused(store, "abc", [entry], expected=0)
            must(isinstance(error, InvalidRequest), f"number {number} of what is wrong was taken")
        same((), await store.list(), "sessions")
        same(0, await store.append("abc", [], expected=0), "the count without entries")
        same(None, await store.info("abc"), "a session without entries")


async def what_is_kept_does_not_change(make: SessionStoreMaker) -> None:
    """A value that is changed after it was written, or read, changes nothing that is kept."""
    async with _a_store(make) as (store, _):
        call = ToolCall("a", "look", {"at": "x"})
        await store.append("abc", [_answer(tool_calls=(call,))], expected=0)
        call.input["at"] = "y"
        for _ in range(2):
            (entry,) = await store.read("abc")
            must(isinstance(entry, Said), f"{entry!r} was said")
            if isinstance(entry, Said):
                found = entry.message.tool_calls[0].input
                same({"at": "x"}, found, "what was kept")
                found["at"] = "z"


async def sums_are_those_of_the_entries(make: SessionStoreMaker) -> None:
    """Turns, tokens and exact cost are running sums; unknown prices are counted, not guessed."""
    async with _a_store(make) as (store, clock):
        began = clock.now()
        entries: list[Entry] = [_user("Hello"), _answer(cost="0.1"), _answer(cost="0.2")]
        await store.append("abc", entries, expected=0)
        clock.advance(60)
        more: list[Entry] = [_answer(cost=None), Condensed(until=1, summary="S", usage=_USAGE)]
        await store.append("abc", more, expected=3)
        expected = SessionInfo(
            id="abc",
            title="Hello",
            created_at=began,
            updated_at=began + timedelta(seconds=60),
            entries=5,
            turns=1,
            input_tokens=28,
            output_tokens=12,
            cost_usd=Decimal("0.3000000375"),
            unpriced_calls=1,
        )
        same(expected, await store.info("abc"), "sums")
        await store.append("abc", [Withdrawn(since=0), _user("Again")], expected=5)
        info = await store.info("abc")
        found = None if info is None else (info.title, info.turns, info.cost_usd)
        same(("Hello", 2, expected.cost_usd), found, "sums after a withdrawal")
        same((info,), await store.list(), "the list")


async def a_title_is_one_plain_line(make: SessionStoreMaker) -> None:
    """It is the first words of the first user's turn that has any, without control characters."""
    async with _a_store(make) as (store, _):
        image = Said(message=Message.user(ImagePart("https://example.org/cat.png")))
        for number, (said, title) in enumerate(
            (
                ([_answer("No"), image, _user(" \n"), _user("Yes"), _user("No")], "Yes"),
                ([_user("a\n\n\tb\x1b[31m \u202ec\0d")], "a b [31m c d"),
                ([image], ""),
            )
        ):
            session = f"s{number}"
            await store.append(session, said, expected=0)
            info = await store.info(session)
            same(title, None if info is None else info.title, f"the title of {said}")
        await store.append("long", [_user("many words " * 1000)], expected=0)
        info = await store.info("long")
        length = 0 if info is None else len(info.title)
        must(0 < length <= 80, f"a title of {length} characters")


async def what_was_said_is_found(make: SessionStoreMaker) -> None:
    """A search finds words in any case and order, anywhere in a session, and takes no signs."""
    async with _a_store(make) as (store, _):
        entries = [_user("Stra\u00dfe nach BERLIN"), _answer("100% _sure_"), _user("caf\u00e9")]
        secret = Said(message=Message.tool("a", "classified"))
        await store.append("one", [*entries, secret], expected=0)
        await store.append("two", [_user("Berlin")], expected=0)
        for search, found in (
            (None, ["two", "one"]),
            ("", ["two", "one"]),
            ("berlin", ["two", "one"]),
            ("STRASSE", ["one"]),
            ("sure berlin", ["one"]),
            ("cafe\u0301", ["one"]),
            ("erli", ["two", "one"]),
            ("100%", ["one"]),
            ("1%", []),
            ("b_rlin", []),
            ("_sure_", ["one"]),
            ("' OR 1=1 --", []),
            ("classified", []),
            ("nothing", []),
        ):
            page = await store.list(search=search)
            same(found, [info.id for info in page], f"sessions with {search!r}")


async def pages_begin_with_the_newest(make: SessionStoreMaker) -> None:
    """Sessions stand in the order of their last entries, also when the clock stands or jumps."""
    async with _a_store(make) as (store, _):
        for number in range(5):
            await store.append(f"s{number}", [_user()], expected=0)
        await store.append("s1", [_user()], expected=1)
        order = ["s1", "s4", "s3", "s2", "s0"]
        same(order, [info.id for info in await store.list()], "the list")
        pages = [await store.list(limit=2, offset=offset) for offset in (0, 2, 4, 6)]
        same([2, 2, 1, 0], [len(page) for page in pages], "sizes of pages")
        same(order, [info.id for page in pages for info in page], "all pages")
        for limit, offset in ((0, 0), (-1, 0), (1, -1)):
            try:
                await store.list(limit=limit, offset=offset)
            except InvalidRequest:
                continue
            raise AssertionError(f"limit {limit} and offset {offset} were taken")


async def a_deleted_session_is_gone(make: SessionStoreMaker) -> None:
    """It is not read, listed or found any more; others stay, and its id can begin anew."""
    async with _a_store(make) as (store, _):
        await store.append("abc", [_user("secret"), _answer(cost="0.1")], expected=0)
        await store.append("xyz", [_user("other")], expected=0)
        must(await store.delete("abc"), "it was there, and that was not said")
        must(not await store.delete("abc"), "it is there still, or that was said")
        same(((), None), (await store.read("abc"), await store.info("abc")), "what is left")
        same((), await store.list(search="secret"), "what is found")
        same(["xyz"], [info.id for info in await store.list()], "the list")
        same(1, await store.append("abc", [_user("new")], expected=0), "the count")
        info = await store.info("abc")
        found = None if info is None else (info.title, info.entries, info.cost_usd)
        same(("new", 1, Decimal(0)), found, "sums of the new one")
        same((_user("new"),), await store.read("abc"), "entries of the new one")


async def a_cancelled_append_is_whole_or_nothing(make: SessionStoreMaker) -> None:
    """Whoever is cancelled, once or twice and anywhere, has written all or nothing."""
    async with _a_store(make) as (store, _):
        three = [_user("one"), _answer("two"), _user("three")]

        async def write() -> None:
            known = len(await store.read("abc"))
            same(0, known % 3, "entries beyond whole appends")
            await store.append("abc", three, expected=known)

        await cancel_everywhere(write, probes={})
        entries = await store.read("abc")
        same(tuple(three) * (len(entries) // 3), entries, "entries")
        info = await store.info("abc")
        same(len(entries), 0 if info is None else info.entries, "the count in the sums")


async def every_loop_and_thread_is_served(make: SessionStoreMaker) -> None:
    """One store serves several event loops in several threads."""
    async with _a_store(make) as (store, _):

        async def some(name: str) -> None:
            for number in range(5):
                await store.append(name, [_user(str(number))], expected=number)

        async def each(name: str) -> None:
            await asyncio.gather(some(name), some(f"{name}-too"))

        names = ["a", "b", "c"]
        await asyncio.gather(*(asyncio.to_thread(asyncio.run, each(name)) for name in names))
        every = sorted([*names, *(f"{name}-too" for name in names)])
        same(every, sorted(info.id for info in await store.list()), "sessions")
        expected = tuple(_user(str(number)) for number in range(5))
        for name in every:
            same(expected, await store.read(name), f"entries of {name}")


async def a_closed_store_does_nothing(make: SessionStoreMaker) -> None:
    """After closing, which may be done twice, every call is a plain error of the program."""
    store = make(FakeClock())
    await store.append("abc", [_user()], expected=0)
    await store.aclose()
    await store.aclose()
    calls: tuple[Callable[[], Coroutine[Any, Any, object]], ...] = (
        lambda: store.append("abc", [_user()], expected=1),
        lambda: store.read("abc"),
        lambda: store.info("abc"),
        store.list,
        lambda: store.delete("abc"),
    )
    for call in calls:
        try:
            await call()
        except RuntimeError:
            continue
        raise AssertionError("a closed store did something")


SESSION_STORE_LAWS: tuple[SessionStoreLaw, ...] = (
    entries_come_back_as_they_were,
    a_session_is_its_own,
    of_many_writers_one_wins,
    nothing_that_cannot_be_kept_is_taken,
    what_is_kept_does_not_change,
    sums_are_those_of_the_entries,
    a_title_is_one_plain_line,
    what_was_said_is_found,
    pages_begin_with_the_newest,
    a_deleted_session_is_gone,
    a_cancelled_append_is_whole_or_nothing,
    every_loop_and_thread_is_served,
    a_closed_store_does_nothing,
)
"""Every law, for `pytest.mark.parametrize`."""


@asynccontextmanager
async def _a_store(
    make: SessionStoreMaker,
) -> AsyncGenerator[tuple[SessionStore, FakeClock], None]:
    clock = FakeClock()
    store = make(clock)
    try:
        yield store, clock
    finally:
        await store.aclose()


async def _refused(
    store: SessionStore, session: str, entries: Sequence[Entry], *, expected: int
) -> Exception:
    try:
        await store.append(session, entries, expected=expected)
    except (Conflict, InvalidRequest) as error:
        return error
    raise AssertionError(f"something was added to {session!r} after {expected} entries")


def _user(text: str = "Hello") -> Said:
    return Said(message=Message.user(text))


def _answer(text: str | None = None, *, cost: str | None = "0", **fields: Any) -> Said:
    cost_usd = None if cost is None else Decimal(cost)
    return Said(
        message=Message.assistant(text, **fields),
        model="model-1",
        usage=Usage(input_tokens=7, output_tokens=3, cost_usd=cost_usd),
    )
