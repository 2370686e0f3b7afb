"""`looms chat` with tools, a backend or a session: one question, or one after another."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import rich_click as click

from loom.agent.limits import AgentLimits
from loom.agent.session import SessionStore
from loom.cli.approve import Approver
from loom.cli.connect import connect_async, steady
from loom.cli.converse import Conversation, is_live
from loom.cli.keep import accounts, within_cost
from loom.cli.quote import check_cost, show_plan
from loom.cli.session_store import session_of, stored
from loom.cli.terminal import Terminal
from loom.cli.tool_options import backend_of, tools_of, wants_agent
from loom.cli.whose import whose
from loom.core.errors import ConfigInvalid
from loom.core.messages import Message
from loom.core.plan import Plan

if TYPE_CHECKING:
    from loom.client.agent import AsyncAgent
    from loom.client.aio import AsyncClient

__all__ = ["ask", "talk"]


def ask(
    terminal: Terminal,
    given: Mapping[str, Any],
    messages: Sequence[Message],
    options: Mapping[str, Any],
) -> None:
    """
    Ask once; the model may use tools and the session that the options name.

    Args:
        terminal: Where the answer goes.
        given: The command's options by name.
        messages: What is asked.
        options: Options of each call.

    Raises:
        LoomError: What ended the turn.
        UsageError: If options contradict each other.
        Exit: With 130 when it was interrupted.
    """
    if "tools" in options:
        raise click.UsageError("the file of --messages names tools that nobody here can run")
    kept = given["session"] is not None or given["go_on"]
    with _conversing(terminal, given, options, kept=kept) as (conversation, client):
        # A new session is told its instructions by the conversation.
        said = messages if given["system"] is None else messages[1:]
        if given["dry_run"] or given["max_cost"] is not None:
            plan = conversation.wait(
                _plan(conversation, client, conversation.opening(said), options)
            )
            if given["max_cost"] is not None:
                check_cost(terminal, plan.quote, given["max_cost"])
            if given["dry_run"]:
                show_plan(terminal, plan)
                return
        conversation.say(said)


def talk(terminal: Terminal, given: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """
    Talk, a line after another, until somebody leaves.

    Args:
        terminal: A real one.
        given: The command's options by name.
        options: Options of each call.

    Raises:
        UsageError: If options contradict each other.
    """
    from loom.cli.repl import Repl  # noqa: PLC0415 - start-up time

    wants_agent(given)
    with _conversing(terminal, given, options, kept=True) as (conversation, client):
        Repl(conversation, take_model=lambda model: _own_model(client, model, given)).run()


def _own_model(client: AsyncClient, model: str, given: Mapping[str, Any]) -> str:
    """The id by which the client knows a model."""
    vendor, own = whose(model, given["as_of"], client.name)
    if vendor != client.name:
        raise ConfigInvalid(
            f"{model!r} is not {client.name}'s",
            hint=f"Leave, and go on with `looms chat -c -m {model}`.",
            attempts=0,
        )
    client.request(".", model=own)
    return own


@contextmanager
def _conversing(
    terminal: Terminal, given: Mapping[str, Any], options: Mapping[str, Any], *, kept: bool
) -> Iterator[tuple[Conversation, AsyncClient]]:
    dry = bool(given["dry_run"])
    approver = Approver(terminal, given["approve"])
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())
        store = stack.enter_context(stored(runner, None)) if kept else None
        session, known = (None, False) if store is None else runner.run(_session(store, given))
        more, limits = within_cost({**given, "session": session})
        money = stack.enter_context(accounts(more, offline=dry))
        client = connect_async(
            terminal,
            model=given["model"] or options.get("model"),
            sim=given["sim"],
            as_of=given["as_of"],
            offline=dry,
            **steady(given),
            **{**limits, **money},
        )
        stack.callback(lambda: runner.run(client.aclose()))
        agent = _agent(given, options, client, store, approver, prompt=known)
        stack.callback(lambda: runner.run(agent.aclose()))
        yield (
            Conversation(
                terminal,
                runner,
                agent,
                approver,
                store=store,
                session=session,
                preface=None if known else given["system"],
                as_of=given["as_of"],
                live=is_live(terminal, given["stream"]),
            ),
            client,
        )


async def _session(store: SessionStore, given: Mapping[str, Any]) -> tuple[str, bool]:
    """The session that the options mean, and whether it is there already."""
    session = await session_of(store, given["session"], go_on=given["go_on"])
    return session, await store.info(session) is not None


def _agent(
    given: Mapping[str, Any],
    options: Mapping[str, Any],
    client: AsyncClient,
    store: SessionStore | None,
    approver: Approver,
    *,
    prompt: bool,
) -> AsyncAgent:
    from loom.client.agent import AsyncAgent  # noqa: PLC0415 - start-up time

    each = {name: value for name, value in options.items() if name not in ("fit", "model")}
    limits = {} if given["max_turns"] is None else {"max_turns": given["max_turns"]}
    return AsyncAgent(
        llm=client,
        tools=tools_of(given),
        backend=backend_of(given["backend"], write=given["write"]),
        # A new session keeps its instructions; an old one is told of others for now.
        system_prompt=given["system"] if prompt else None,
        sessions=store,
        limits=AgentLimits(**limits),
        permissions=approver.permissions,
        context="error" if options.get("fit") == "error" else "slide",
        name="looms",
        options=each,
    )


async def _plan(
    conversation: Conversation,
    client: AsyncClient,
    said: Sequence[Message],
    options: Mapping[str, Any],
) -> Plan:
    """What the first call of the next turn would send."""
    agent = conversation.agent
    every = [*await agent.instructions(), *await conversation.history(), *said]
    tools = await agent.tools()
    call = {"fit": "slide", **options, "tools": tools or None}
    return await client.plan(every, **call)
