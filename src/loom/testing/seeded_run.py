"""Runs a plan: the real client, and perhaps an agent, on a seeded loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from loom.agent.history import open_calls
from loom.testing.cancel import abandoned_generators
from loom.testing.seeded_agent import Resumption, again
from loom.testing.seeded_caller import Caller, Turn
from loom.testing.seeded_plan import CallPlan
from loom.testing.seeded_world import Alter, Outcome, World

if TYPE_CHECKING:
    from loom.client.agent import AsyncAgent
    from loom.client.aio import AsyncMistral

__all__ = ["MOST_TURNS", "run_world"]

# Longer than what is under way takes to arrive.
_QUIET_S = 2.0
# Longer than anything still under way: latencies, the vendor's patience.
_SETTLE_S = 60.0
MOST_TURNS = 30_000
"""A seed takes some hundred turns of the loop; one that takes so many spins."""


async def run_world(world: World, alter: Alter | None) -> None:
    """
    Run a plan to its end, and look what is left.

    Args:
        world: Where.
        alter: Changes the client.
    """
    loop, plan = world.loop, world.plan
    with abandoned_generators() as abandoned:
        client = world.client()
        if alter is not None:
            alter(client)
        for at_s, by_s in plan.jumps:
            loop.call_later(at_s, _jump, world, by_s)
        agent = None if plan.agent is None else world.agent(client)
        tasks = list(_begun(world, client, agent))
        if plan.close_at_s is not None:
            await world.clock.sleep(plan.close_at_s)
            await _close(world, client, agent)
        await asyncio.wait(tasks)
        if world.closed_s is None:
            # Closing would hide what a call did not give back.
            await world.clock.sleep(_QUIET_S)
            world.leaks += list(_kept(world))
            if agent is not None:
                await _anew(world, client, agent)
        await _close(world, client, agent)
        for vendor in world.vendors:
            vendor.wake()
        await world.clock.sleep(_SETTLE_S)
        if world.sessions is not None:
            names = sorted(info.id for info in await world.sessions.list(limit=1000))
            world.histories = {name: await world.sessions.read(name) for name in names}
    world.leaks += [f"async generator left half-read: {name}" for name in abandoned]
    world.leaks += list(_held(world))


def _begun(
    world: World, client: AsyncMistral, agent: AsyncAgent | None
) -> Iterator[asyncio.Task[Any]]:
    """Begin every call, each in a task of its own; what takes a broken turn up again too."""
    turns = {} if world.plan.agent is None else world.plan.agent.turns
    for outcome in list(world.outcomes):
        name = outcome.plan.name
        if agent is None or name not in turns:
            yield world.loop.create_task(Caller(world, client, outcome).run(), name=name)
            continue
        turn = turns[name]
        outcome.is_turn = True
        outcome.session = turn.session if world.sessions is not None else None
        task = world.loop.create_task(Turn(world, agent, outcome).run(), name=name)
        yield task
        if turn.again is not None and outcome.session is not None:
            resuming = _again(world, agent, (task, outcome), turn.again)
            yield world.loop.create_task(resuming, name=again(name))


async def _again(
    world: World,
    agent: AsyncAgent,
    first: tuple[asyncio.Task[Any], Outcome],
    resumption: Resumption,
) -> None:
    """Wait for a turn, and take it up again if it ended without an answer."""
    task, broken = first
    await asyncio.wait([task])
    if broken.kind == "answer" or world.closed_s is not None:
        return
    plan = CallPlan(
        name=again(broken.plan.name), at_s=resumption.after_s, cancels=resumption.cancels
    )
    await _went_on(world, agent, plan, broken.session, resume=True)


async def _anew(world: World, client: AsyncMistral, agent: AsyncAgent) -> None:
    """Let an agent that knows what was kept, and no more, go on with every conversation."""
    plan = world.plan.agent
    if plan is None or not plan.anew or world.sessions is None:
        return
    await agent.aclose()
    names = sorted({o.session for o in world.outcomes if o.session is not None})
    async with world.agent(client) as fresh:
        for number, session in enumerate(names, 1):
            resume = await _is_open(world, session)
            call = CallPlan(name=f"anew {number}")
            await _went_on(world, fresh, call, session, resume=resume)


async def _is_open(world: World, session: str) -> bool:
    return world.sessions is not None and bool(open_calls(await world.sessions.read(session)))


async def _went_on(
    world: World, agent: AsyncAgent, plan: CallPlan, session: str | None, *, resume: bool
) -> None:
    outcome = Outcome(plan=plan, is_turn=True, session=session)
    world.outcomes.append(outcome)
    turn = Turn(world, agent, outcome, resumes=resume)
    await asyncio.wait([world.loop.create_task(turn.run(), name=plan.name)])


async def _close(world: World, client: AsyncMistral, agent: AsyncAgent | None) -> None:
    first = world.plan.agent is not None and world.plan.agent.first_closed
    if agent is not None and first:
        world.shut_s = world.shut_s or world.loop.time()
        await agent.aclose()
    if world.closed_s is None:
        world.closed_s = world.loop.time()
        world.note("the client is closed")
    await client.aclose()
    if agent is not None and not first:
        await agent.aclose()


def _jump(world: World, by_s: float) -> None:
    world.clock.jump(by_s)
    world.note(f"the wall clock jumps by {by_s:.0f} s")


def _kept(world: World) -> list[str]:
    kept = [f"{busy}, and nobody waits for it" for one in world.vendors for busy in one.busy]
    permits = world.transport.permits_in_use
    return [*kept, f"{permits} permits of the transport held"] if permits else kept


def _held(world: World) -> list[str]:
    network, transport = world.loop.network, world.transport
    tasks = {task.get_name() for task in asyncio.all_tasks(world.loop)}
    tasks -= {asyncio.current_task(world.loop).get_name()}  # type: ignore[union-attr] # it runs
    probes = 0 if world.breaker is None else world.breaker.probes_held
    counts = {
        "sockets of the machine": network.open_sockets,
        "sockets of the transport": transport.open_sockets,
        "probes of the breaker": probes,
        "timers": world.loop.timers,
        "tools": sum(run.ended_s is None for run in world.runs),
    }
    held = [f"{count} {what} held" for what, count in counts.items() if count]
    held += [f"open: {line}" for line in network.open_lines]
    return held + [f"a task is left: {name}" for name in sorted(tasks)]
