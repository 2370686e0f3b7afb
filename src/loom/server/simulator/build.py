"""Puts the parts of a simulator together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Route

from loom.catalog.lookup import Catalog
from loom.core.ambient import SystemDice
from loom.core.model import ModelCard
from loom.core.provider import LLMProvider
from loom.server.app import build_app
from loom.server.line import Receive, Scope, Send
from loom.server.prefixes import PrefixMemory
from loom.server.simulator.archive import OpenEdge, archive_app
from loom.server.simulator.cast import Cast
from loom.server.simulator.checks import StrictCheck, prompt_tokens
from loom.server.simulator.clock import SimulatedClock
from loom.server.simulator.faults import FaultPlan
from loom.server.simulator.faults_door import FaultDoor, LateReader
from loom.server.simulator.front import SimulatedEdge
from loom.server.simulator.gate import AsgiApp, Check, Family, Gate
from loom.server.simulator.house import House
from loom.server.simulator.journal import Journal
from loom.server.simulator.openai_edge import (
    OPENAI_BASE,
    AsOpenAI,
    OpenAICheck,
    OpenAIEdge,
    OpenAIModels,
)
from loom.server.simulator.options import SimulatorOptions
from loom.server.simulator.quota import Credits, Limiter
from loom.server.simulator.scenario import Scenario, ScenarioProvider, ScenarioRun
from loom.wire.chat_completions.dialect import ChatCompletionsDialect
from loom.wire.mistral.dialect import MistralDialect

__all__ = ["build_gate"]


def build_gate(
    options: SimulatorOptions,
    *,
    key: str | None,
    provider: LLMProvider | None,
    clock: SimulatedClock,
    journal: Journal,
    reset: Callable[[], None],
) -> tuple[AsgiApp, list[Callable[[], None]]]:
    """
    Make the application that a simulator serves.

    Args:
        options: What was chosen.
        key: The key that is accepted; None accepts every key that is not empty.
        provider: Who answers; None answers from the prompt.
        clock: The simulator's time.
        journal: Where requests are taken down.
        reset: What `POST /_sim/reset` does.

    Returns:
        The application, and what makes its parts begin anew.

    Raises:
        ConfigInvalid: If an option cannot be had.
    """
    catalog = Catalog.builtin()

    def day() -> date:
        return options.as_of or clock.now().date()

    def find(model: str) -> ModelCard | None:
        card = catalog.find(model, day())
        # A retired model is as unknown to the API as one that never was (contract, section 6).
        return None if card is None or card.state == "retired" else card

    dialect = MistralDialect(fragments=options.fragments)
    archive = archive_app(options, dialect)
    limiter = Limiter(options, clock=clock, count=prompt_tokens)
    money = [] if options.credits_usd is None else [Credits(options.credits_usd)]
    edge = (SimulatedEdge if archive is None else OpenEdge)(
        key=key,
        cards=lambda: catalog.cards(day(), "mistral"),
        seed=options.seed,
        clock=clock,
        dice=SystemDice(options.seed),
        limiter=limiter,
    )
    cast = Cast(options, clock=clock, find=find)
    answering = provider or cast.chat()
    scenario = options.scenario
    if isinstance(scenario, str | Path):
        scenario = Scenario.load(scenario)
    script = None if scenario is None else ScenarioRun(scenario)
    if scenario is not None:
        answering = ScenarioProvider(answering, scenario, cast.saying)
    plan = FaultPlan(options.faults, seed=options.seed)
    checks: list[Check] = []
    others: dict[str, Family] = {}
    app = archive
    # What was recorded was checked by the real API.
    if app is None:
        common: dict[str, Any] = {
            "clock": clock,
            "embeddings": cast.embeddings(),
            "prefixes": PrefixMemory(),
        }
        usual = build_app(answering, dialect, edge, infill=cast.infill(), **common)
        models = OpenAIModels(catalog, day, find)
        desk = OpenAIEdge(
            key=key,
            cards=models.cards,
            seed=options.seed,
            clock=clock,
            dice=SystemDice(options.seed),
            limiter=limiter,
        )
        others[OPENAI_BASE] = Family(desk, ChatCompletionsDialect(), models.find)
        spoken = AsOpenAI(answering, cast.splits)
        other = build_app(spoken, ChatCompletionsDialect(), desk, base=OPENAI_BASE, **common)
        app = _direct(usual, {OPENAI_BASE: other})
        # A provider knows its own models.
        known = None if provider is not None else models
        checks = [
            StrictCheck(find if provider is None else None),
            OpenAICheck(known, prompt_tokens),
        ]
    gate = Gate(
        app,
        family=Family(edge, dialect, find),
        others=others,
        clock=clock,
        # Who cannot pay is not counted.
        checks=[*checks, *(each.check for each in money), limiter.check],
        stations=[limiter, *money],
        journal=journal,
        faults=FaultDoor(plan, script, clock),
        house=House(journal=journal, clock=clock, reset=reset),
        latency_s=options.latency_s,
    )
    return LateReader(gate, clock), [limiter.reset, gate.reset, *(each.reset for each in money)]


def _direct(app: Starlette, others: Mapping[str, Starlette]) -> AsgiApp:
    """The applications, with their fixed paths looked up in one step in place of a walk."""
    ends: dict[tuple[str, str], AsgiApp] = {
        (method, route.path): route.app
        for each in (*others.values(), app)
        for route in each.routes
        if isinstance(route, Route) and "{" not in route.path
        for method in route.methods or ()
    }

    def whose(path: str) -> AsgiApp:
        return next((other for base, other in others.items() if path.startswith(base)), app)

    async def direct(scope: Scope, receive: Receive, send: Send) -> None:
        end = ends.get((scope["method"], scope["path"])) or whose(scope["path"])
        await end(scope, receive, send)

    return direct
