"""Puts the parts of a simulator together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

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
    dialect = MistralDialect(fragments=options.fragments)
    archive = archive_app(options, dialect)
    parts = _Parts(options, key=key, clock=clock)
    money = [] if options.credits_usd is None else [Credits(options.credits_usd)]
    edge = parts.edge(SimulatedEdge if archive is None else OpenEdge, parts.cards)
    mistral = Family(edge, dialect, parts.find)
    answering, script = _answering(options, provider, parts.cast)
    plan = FaultPlan(options.faults, seed=options.seed)
    if archive is None:
        apis = _both(parts, mistral, answering, is_own=provider is None)
    else:
        # What was recorded was checked by the real API.
        apis = _Apis(archive, {}, [])
    gate = Gate(
        apis.app,
        family=mistral,
        others=apis.others,
        clock=clock,
        # Who cannot pay is not counted.
        checks=[*apis.checks, *(each.check for each in money), parts.limiter.check],
        stations=[parts.limiter, *money],
        journal=journal,
        faults=FaultDoor(plan, script, clock),
        house=House(journal=journal, clock=clock, reset=reset),
        latency_s=options.latency_s,
    )
    resets = [parts.limiter.reset, gate.reset, *(each.reset for each in money)]
    return LateReader(gate, clock), resets


class _Parts:
    """What the two APIs of a simulator have in common."""

    def __init__(
        self, options: SimulatorOptions, *, key: str | None, clock: SimulatedClock
    ) -> None:
        self.options = options
        self.clock = clock
        self.catalog = Catalog.builtin()
        self.limiter = Limiter(options, clock=clock, count=prompt_tokens)
        self.cast = Cast(options, clock=clock, find=self.find)
        self._key = key

    def day(self) -> date:
        """The day whose models exist."""
        return self.options.as_of or self.clock.now().date()

    def find(self, model: str) -> ModelCard | None:
        """The card of a model of Mistral."""
        card = self.catalog.find(model, self.day())
        # A retired model is as unknown to the API as one that never was (contract, section 6).
        return None if card is None or card.state == "retired" else card

    def cards(self) -> Sequence[ModelCard]:
        """Mistral's models."""
        return self.catalog.cards(self.day(), "mistral")

    def edge(
        self, kind: type[SimulatedEdge], cards: Callable[[], Sequence[ModelCard]]
    ) -> SimulatedEdge:
        """Make the desk of one API."""
        return kind(
            key=self._key,
            cards=cards,
            seed=self.options.seed,
            clock=self.clock,
            dice=SystemDice(self.options.seed),
            limiter=self.limiter,
        )


def _answering(
    options: SimulatorOptions, provider: LLMProvider | None, cast: Cast
) -> tuple[LLMProvider, ScenarioRun | None]:
    """Who answers, and the script that he follows, if there is one."""
    answering = provider or cast.chat()
    scenario = options.scenario
    if isinstance(scenario, str | Path):
        scenario = Scenario.load(scenario)
    if scenario is None:
        return answering, None
    return ScenarioProvider(answering, scenario, cast.saying), ScenarioRun(scenario)


class _Apis(NamedTuple):
    """What answers in the end, how the APIs beside Mistral's speak, and what is refused before."""

    app: AsgiApp
    others: Mapping[str, Family]
    checks: Sequence[Check]


def _both(parts: _Parts, mistral: Family, answering: LLMProvider, *, is_own: bool) -> _Apis:
    """Mistral's API and OpenAI's over one provider, which knows its models if it is not ours."""
    models = OpenAIModels(parts.catalog, parts.day, parts.find)
    openai = Family(parts.edge(OpenAIEdge, models.cards), ChatCompletionsDialect(), models.find)
    common: dict[str, Any] = {
        "clock": parts.clock,
        "embeddings": parts.cast.embeddings(),
        "prefixes": PrefixMemory(),
    }
    infill = parts.cast.infill()
    usual = build_app(answering, mistral.dialect, mistral.desk, infill=infill, **common)
    spoken = AsOpenAI(answering, parts.cast.splits)
    other = build_app(spoken, openai.dialect, openai.desk, base=OPENAI_BASE, **common)
    return _Apis(
        _direct(usual, {OPENAI_BASE: other}),
        {OPENAI_BASE: openai},
        [
            StrictCheck(parts.find if is_own else None),
            OpenAICheck(models if is_own else None, prompt_tokens),
        ],
    )


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
