"""
The contract of a backend: its laws as functions that any backend can be put to.

    @pytest.mark.parametrize("law", BACKEND_LAWS)
    @pytest.mark.anyio
    async def test_my_backend_keeps_the_law(law):
        await law(BackendCase(make=MyBackend, query="SELECT 1", wrong="SELEC", resource="orders"))
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

import msgspec

from loom.agent.backend import Backend, Capabilities, QueryResult, Resource
from loom.agent.backend_tools import backend_prompt, backend_tools
from loom.core.errors import ToolError
from loom.shuttle.tool import tool_specs
from loom.testing.turns import turn

__all__ = [
    "BACKEND_LAWS",
    "BackendCase",
    "BackendLaw",
    "a_cancelled_query_leaves_nothing",
    "a_query_gives_rows",
    "backend_contract",
    "it_says_what_it_is",
    "its_schema_fits_a_prompt",
    "its_tools_can_be_offered",
    "queries_run_side_by_side",
    "what_is_wrong_is_told",
    "what_it_holds_is_listed",
    "who_is_closed_answers_nothing",
    "who_reads_changes_nothing",
]

# A prompt has a window; a schema may take this much of it (a thousand tokens or two).
_MOST_CHARS = 8000


class BackendCase(msgspec.Struct, frozen=True, kw_only=True):
    """
    A backend to be put to the laws.

    Attributes:
        make: Makes one that only reads; all of them hold the same.
        query: A query that gives at least one row.
        wrong: A query that nothing can answer.
        resource: The name of something that it holds.
        missing: A name of nothing that it holds.
        changes: Queries that would change something.
        endless: A query that would not end in a test's time; None if there is none.
        secret: A text that no error may hold, such as the path where the data lie.
    """

    make: Callable[[], Backend]
    query: str
    wrong: str
    resource: str
    missing: str = "nothing-of-this-name"
    changes: tuple[str, ...] = ()
    endless: str | None = None
    secret: str | None = None


BackendLaw: TypeAlias = Callable[[BackendCase], Coroutine[Any, Any, None]]


async def backend_contract(case: BackendCase) -> None:
    """
    Put a backend to every law.

    Args:
        case: The backend, and queries for it.

    Raises:
        AssertionError: If a law is broken; the message says how.
    """
    for law in BACKEND_LAWS:
        await law(case)


async def it_says_what_it_is(case: BackendCase) -> None:
    """It has a name and says what it can do; who only reads, says so."""
    backend = case.make()
    try:
        _hold(isinstance(backend, Backend), "it has not all methods of a backend")
        _hold(bool(backend.name), "its name is empty")
        _hold(isinstance(backend.capabilities, Capabilities), "capabilities are no Capabilities")
        _hold(not backend.capabilities.write, "made to read, it says that it may write")
        _hold(bool(backend.capabilities.language), "its language is empty")
        await backend.ping()
    finally:
        await backend.close()


async def a_query_gives_rows(case: BackendCase) -> None:
    """Each row has one value for each column, and the same query gives the same rows."""
    backend = case.make()
    try:
        first, second = [await backend.execute_query(case.query) for _ in range(2)]
        _hold(isinstance(first, QueryResult), "a query gave no QueryResult")
        _hold(bool(first.rows), "the query that gives rows gave none")
        widths = {len(row) for row in first.rows}
        _hold({len(first.columns)} == widths, "rows and columns have not the same width")
        _hold(first.rows == second.rows, "the same query gave other rows")
        _hold(first.truncated == bool(first.reason), "what is cut has a reason, and only that")
        _hold(first.duration_s >= 0, "it took less than no time")
        held = {word for row in first.rows for word in row if isinstance(word, str) and word}
        _hold(not any(word in repr(first) for word in held), "the repr holds what is in the rows")
    finally:
        await backend.close()


async def what_is_wrong_is_told(case: BackendCase) -> None:
    """A wrong query is a `ToolError` with words, and the next query works."""
    backend = case.make()
    try:
        for query in (case.wrong, ""):
            said = await _refused(backend, query)
            if query:
                _hold(bool(said), "a wrong query was answered")
            _hold(not case.secret or case.secret not in said, "an error holds what is secret")
        _hold(bool((await backend.execute_query(case.query)).rows), "it does not work afterwards")
    finally:
        await backend.close()


async def who_reads_changes_nothing(case: BackendCase) -> None:
    """Each query that would change something is refused, and nothing is changed."""
    backend = case.make()
    try:
        before = await backend.execute_query(case.query)
        listed = await backend.list_resources()
        for query in case.changes:
            _hold(bool(await _refused(backend, query)), "a change was not refused")
        _hold(before.rows == (await backend.execute_query(case.query)).rows, "rows have changed")
        _hold(listed == await backend.list_resources(), "what it holds has changed")
    finally:
        await backend.close()


async def what_it_holds_is_listed(case: BackendCase) -> None:
    """Resources are sorted, and each is told by `get_metadata` and `get_schema`."""
    backend = case.make()
    try:
        found = await backend.list_resources()
        _hold(all(isinstance(one, Resource) for one in found), "one of them is no Resource")
        names = [one.name for one in found]
        _hold(sorted(names) == names, "resources are not sorted by name")
        _hold(case.resource in names, "the resource is not listed")
        facts = await backend.get_metadata(case.resource)
        msgspec.json.encode(facts)
        _hold(facts.get("name") == case.resource, "metadata are of another resource")
        _hold(bool(await backend.get_schema(case.resource)), "the schema of a resource is empty")
        for ask in (backend.get_metadata, backend.get_schema):
            said = await _failure(ask(case.missing))
            _hold(bool(said), "what is not there was told")
            _hold(not case.secret or case.secret not in said, "an error holds what is secret")
    finally:
        await backend.close()


async def its_schema_fits_a_prompt(case: BackendCase) -> None:
    """The whole schema is short, names the resource, and can be sent."""
    backend = case.make()
    try:
        schema = await backend.get_schema()
        _hold(len(schema) <= _MOST_CHARS, f"the schema has more than {_MOST_CHARS:,} characters")
        _hold(case.resource in schema, "the schema does not name the resource")
        msgspec.json.encode(schema)
        prompt = await backend_prompt(backend)
        _hold(backend.name in prompt, "the prompt does not name it")
    finally:
        await backend.close()


async def its_tools_can_be_offered(case: BackendCase) -> None:
    """Its tools have good names and schemas, only read, and may be run twice."""
    backend = case.make()
    try:
        tools = backend_tools(backend)
        _hold(bool(tools), "it has no tools")
        tool_specs(tools)
        for tool in tools:
            _hold(getattr(tool, "repeatable", False) is True, f"{tool.name} may not be repeated")
            _hold(getattr(tool, "approval", "") == "allow", f"{tool.name} asks for approval")
            _hold(bool(tool.description), f"{tool.name} has no description")
        names = {tool.name for tool in backend_tools(backend, prefix="other")}
        _hold(not names & {tool.name for tool in tools}, "a prefix changes no name")
    finally:
        await backend.close()


async def queries_run_side_by_side(case: BackendCase) -> None:
    """Several tasks ask at once, and each gets the whole answer."""
    backend = case.make()
    try:
        alone = await backend.execute_query(case.query)
        together = await asyncio.gather(*(backend.execute_query(case.query) for _ in range(8)))
        _hold(all(one.rows == alone.rows for one in together), "one of them got other rows")
    finally:
        await backend.close()


async def a_cancelled_query_leaves_nothing(case: BackendCase) -> None:
    """A query that is cancelled ends, leaves no thread, and the next one works."""
    backend = case.make()
    try:
        before = set(threading.enumerate())
        task = asyncio.ensure_future(backend.execute_query(case.endless or case.query))
        await turn(2)
        task.cancel()
        await asyncio.wait({task})
        _hold(task.cancelled(), "a cancelled query was not cancelled")
        left = [one for one in threading.enumerate() if one not in before and one.is_alive()]
        _hold(not left, "a cancelled query left a thread")
        _hold(bool((await backend.execute_query(case.query)).rows), "it does not work afterwards")
    finally:
        await backend.close()


async def who_is_closed_answers_nothing(case: BackendCase) -> None:
    """Closing twice does nothing; a query afterwards is a `RuntimeError`."""
    backend = case.make()
    await backend.close()
    await backend.close()
    try:
        await backend.execute_query(case.query)
    except RuntimeError:
        return
    raise AssertionError("a closed backend answered")


BACKEND_LAWS: tuple[BackendLaw, ...] = (
    it_says_what_it_is,
    a_query_gives_rows,
    what_is_wrong_is_told,
    who_reads_changes_nothing,
    what_it_holds_is_listed,
    its_schema_fits_a_prompt,
    its_tools_can_be_offered,
    queries_run_side_by_side,
    a_cancelled_query_leaves_nothing,
    who_is_closed_answers_nothing,
)
"""Every law, for `pytest.mark.parametrize`."""


async def _refused(backend: Backend, query: str) -> str:
    return await _failure(backend.execute_query(query))


async def _failure(work: Coroutine[Any, Any, object]) -> str:
    """The words of the `ToolError`; empty if there was none."""
    try:
        await work
    except ToolError as error:
        return error.message
    return ""


def _hold(held: bool, otherwise: str) -> None:  # noqa: FBT001 - what holds stands first
    if not held:
        raise AssertionError(otherwise)
