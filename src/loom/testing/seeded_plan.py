"""What a seed means: the settings, the weather, the vendor's moods, and every call, drawn once."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from loom.core.request import Timeouts
from loom.core.route import Fallback, Route
from loom.layers.breaker import Breaker
from loom.layers.limit_rate import RateLimit
from loom.layers.retry_policy import RetryPolicy
from loom.testing.chance import Chance
from loom.testing.seeded_agent import AgentPlan, draw_agent
from loom.testing.seeded_faults import FAULTS
from loom.testing.seeded_line import Weather
from loom.testing.seeded_moment import Moment, draw_moment, draw_moment_of_turn
from loom.testing.seeded_mood import Mood

__all__ = [
    "KEY",
    "MODELS",
    "NEW_KEY",
    "OTHER_KEY",
    "CallPlan",
    "Leave",
    "Moment",
    "Plan",
    "Settings",
    "Way",
    "draw_plan",
]

MODELS = ("mistral-large-latest", "mistral-small-latest")
"""Who is asked first, and who when that fails."""

Way: TypeAlias = Literal["chat", "events", "final", "texts"]
"""How a call is made: plain, or a stream that is read in one of three ways."""

Leave: TypeAlias = Literal["", "break", "aclose", "raise"]
"""How a reader goes before the end."""

KEY = "first-" * 6
"""The vendor's key."""

NEW_KEY = "second-" * 6
"""The vendor's key after it was changed."""

OTHER_KEY = "other-" * 6
"""The other vendor's key."""


# Seeds are smaller.
_MONEY = 10**9
_AGENT = 2 * 10**9


class CallPlan(msgspec.Struct, frozen=True, kw_only=True):
    """
    One call.

    Attributes:
        name: What is asked, and how it is called in the trace.
        at_s: When it begins, in seconds after the world.
        way: How it is made.
        leave: How its reader goes before the end; empty: he stays.
        leave_after: After how many events.
        dawdle_s: How long the reader takes over an event, in seconds.
        deadline_s: A deadline of its own.
        cancels: When its task is cancelled.
        limit_s: A limit of the caller's own around it (`asyncio.timeout`).
    """

    name: str
    at_s: float = 0.0
    way: Way = "chat"
    leave: Leave = ""
    leave_after: int = 0
    dawdle_s: float = 0.0
    deadline_s: float | None = None
    cancels: tuple[Moment, ...] = ()
    limit_s: float | None = None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """
    How the client is set.

    Attributes:
        timeouts: Limits by phase.
        max_connections: Slots of the pool.
        retry: The policy, if any.
        breaker: Arguments of the breaker, if any.
        fallback: The other routes, if any: a model, or "other" for another vendor.
        first_token_s: How long a route may be silent.
        rescue: Whether it begins anew in the middle.
        skip_bad_events: Whether broken events are left out.
        rotated: Whether there is a new key when one is refused.
        limits: Our own limits, if any.
        budget_usd: What all calls may cost; empty: there is no budget.
        max_tokens: The longest answer.
    """

    timeouts: Timeouts
    max_connections: int
    retry: RetryPolicy | None
    breaker: dict[str, float] | None
    fallback: tuple[str, ...]
    first_token_s: float | None
    rescue: bool
    skip_bad_events: bool
    rotated: bool
    limits: RateLimit | None = None
    budget_usd: str = ""
    max_tokens: int = 50

    def new_breaker(self) -> Breaker | None:
        """Make the breaker."""
        return None if self.breaker is None else Breaker(**self.breaker)  # type: ignore[arg-type] # counts are whole

    def new_fallback(self) -> Fallback | None:
        """Make the routes."""
        if not self.fallback:
            return None
        other = Route(base_url="http://other.localhost", api_key=OTHER_KEY)
        routes = [other if name == "other" else Route(model=name) for name in self.fallback]
        return Fallback(routes, first_token_s=self.first_token_s)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """
    A world.

    Attributes:
        seed: What it was drawn from.
        weather: The network.
        mood: The vendor.
        other_mood: The other vendor.
        no_name: How many look-ups of a name fail, 0 to 1.
        addresses: How many addresses a name has.
        settings: The client.
        calls: What is done with it.
        jumps: When the wall clock jumps, and how far, both in seconds.
        close_at_s: When the client is closed although calls are under way.
        agent: Which of the calls are turns of an agent over it, and what it is like; None: none.
    """

    seed: int
    weather: Weather
    mood: Mood
    other_mood: Mood
    no_name: float
    addresses: int
    settings: Settings
    calls: tuple[CallPlan, ...]
    jumps: tuple[tuple[float, float], ...]
    close_at_s: float | None
    agent: AgentPlan | None = None


def draw_plan(seed: int, *, agents: bool = True) -> Plan:
    """
    Draw a world.

    Args:
        seed: Any whole number; the same gives the same.
        agents: Whether some worlds have an agent; the others are the same with and without.
    """
    chance = Chance(seed)
    rate = chance.pick((0.0, 0.1, 0.3, 0.3, 0.6, 1.0))
    rough = chance.happens(0.4)
    calls = chance.pick((1, 2, 3, 4, 5, 6, 8, 12))
    span_s = chance.pick((0.0, 0.0, 2.0, 10.0, 40.0))
    plan = Plan(
        seed=seed,
        weather=_weather(chance),
        mood=_mood(chance, rate, rough=rough),
        other_mood=_mood(chance, chance.pick((0.0, rate)), rough=False),
        no_name=chance.pick((0.0, 0.2)) if rough else 0.0,
        addresses=chance.pick((1, 1, 2)),
        # Drawn apart: a seed's world stays as it was before there were limits and money.
        settings=_with_money(_settings(chance), Chance(seed + _MONEY)),
        calls=tuple(_call(chance, f"call {n}", span_s) for n in range(1, calls + 1)),
        jumps=tuple(
            (chance.between(0, span_s + 5), chance.between(-7200, 7200))
            for _ in range(chance.pick((0, 0, 1, 3)))
        ),
        close_at_s=chance.between(0, span_s + 2) if chance.happens(0.04) else None,
    )
    return _with_agent(plan, Chance(seed + _AGENT)) if agents else plan


def _with_agent(plan: Plan, chance: Chance) -> Plan:
    agent = draw_agent(chance, [call.name for call in plan.calls])
    if agent is None:
        return plan
    calls = tuple(
        msgspec.structs.replace(call, cancels=(draw_moment_of_turn(chance),))
        if call.name in agent.turns and chance.happens(0.45)
        else call
        for call in plan.calls
    )
    # Through the smallest windows a conversation with its tools takes thousands of turns.
    windows = tuple(max(2000, size) for size in plan.weather.windows_bytes)
    weather = msgspec.structs.replace(plan.weather, windows_bytes=windows)
    plan = msgspec.structs.replace(plan, agent=agent, calls=calls, weather=weather)
    return _calmer(plan, chance) if chance.happens(0.7) else plan


def _calmer(plan: Plan, chance: Chance) -> Plan:
    """Let less fail: else no turn gets as far as its tools."""
    calm = {"refuses": 0.0, "hangs": 0.0, "deaf": 0.0}
    moods = [
        msgspec.structs.replace(
            mood, faults={model: rate / 8 for model, rate in mood.faults.items()}, **calm
        )
        for mood in (plan.mood, plan.other_mood)
    ]
    settings = msgspec.structs.replace(
        plan.settings,
        limits=None if chance.happens(0.7) else plan.settings.limits,
        budget_usd=chance.pick(("", "", "0.05", "1")),
    )
    return msgspec.structs.replace(plan, settings=settings, mood=moods[0], other_mood=moods[1])


def _weather(chance: Chance) -> Weather:
    return Weather(
        latency_s=chance.pick(((0.0, 0.0), (0.0005, 0.02), (0.0005, 0.02), (0.05, 0.4))),
        shredded=chance.pick((0.0, 0.3, 1.0)),
        windows_bytes=chance.pick(((65536,), (65536,), (64, 500, 65536))),
    )


def _mood(chance: Chance, rate: float, *, rough: bool) -> Mood:
    # Few kinds of faults at a time meet themselves more often than all of them do.
    names = list(FAULTS)
    some = tuple(chance.pick(names) for _ in range(chance.whole(1, 5)))
    begin_s = 1000.0 + chance.between(0, 5)
    return Mood(
        faults={"": rate, MODELS[1]: chance.pick((0.0, rate, rate))},
        kinds=() if chance.happens(0.4) else some,
        refuses=chance.pick((0.0, 0.1, 0.4)) if rough else 0.0,
        hangs=chance.pick((0.0, 0.1)) if rough else 0.0,
        deaf=chance.pick((0.0, 0.0, 0.2)) if rough else 0.0,
        restless=chance.pick((0.0, 0.3, 1.0)),
        down_s=(begin_s, begin_s + chance.between(1, 15)) if chance.happens(0.1) else None,
    )


def _settings(chance: Chance) -> Settings:
    fallback: tuple[str, ...] = chance.pick(
        ((), (), (), (MODELS[1],), (MODELS[1],), ("other",), (MODELS[1], "other"))
    )
    return Settings(
        timeouts=Timeouts(
            pool_s=chance.pick((0.3, 5.0, 10.0)),
            connect_s=chance.pick((0.3, 1.0, 5.0)),
            write_s=chance.pick((0.5, 5.0)),
            first_byte_s=chance.pick((1.0, 3.0, 10.0)),
            idle_s=chance.pick((0.5, 2.0, 5.0)),
            total_s=chance.pick((2.0, 8.0, 30.0, 120.0)),
            first_token_s=chance.pick((None, None, None, 2.0)),
        ),
        max_connections=chance.pick((1, 2, 3, 100, 100)),
        retry=_retry(chance),
        breaker=_breaker(chance) if chance.happens(0.4) else None,
        fallback=fallback,
        first_token_s=chance.pick((None, 1.0, 5.0)),
        rescue=bool(fallback) and chance.happens(0.5),
        skip_bad_events=chance.happens(0.3),
        rotated=chance.happens(0.2),
    )


def _with_money(settings: Settings, chance: Chance) -> Settings:
    return msgspec.structs.replace(
        settings,
        limits=_limits(chance) if chance.happens(0.4) else None,
        # A call's worst case is about a tenth of a cent.
        budget_usd=chance.pick(("", "", "", "0.0005", "0.002", "0.005", "0.02", "1")),
        max_tokens=chance.pick((10, 50, 50)),
    )


def _limits(chance: Chance) -> RateLimit:
    interval_s = chance.pick((10.0, 20.0, 60.0))
    return RateLimit(
        requests_per_minute=chance.pick((None, 6, 12, 60)),
        tokens_per_minute=chance.pick((None, None, 600, 3000)),
        requests_per_second=chance.pick((None, None, 0.5, 5.0)),
        concurrency=chance.pick((None, 1, 2)),
        refill_interval_s=interval_s,
        burst_s=chance.pick((0.0, 2.0, 60.0)),
    )


def _retry(chance: Chance) -> RetryPolicy | None:
    policies = (
        None,
        RetryPolicy.off(),
        RetryPolicy.rate_limit_only(),
        RetryPolicy.robust(),
        RetryPolicy(),
        RetryPolicy(),
        RetryPolicy(attempts=6, base_s=0.1, cap_s=1.0, retry_after_cap_s=3.0, silent_attempts=3),
        RetryPolicy(attempts=4, wait_for_breaker=True),
    )
    return chance.pick(policies)


def _breaker(chance: Chance) -> dict[str, float]:
    return {
        "window_s": 10.0,
        "min_calls": chance.whole(1, 4),
        "open_s": chance.pick((0.3, 2.0, 10.0)),
        "probes": chance.whole(1, 3),
        "slow_s": chance.pick((0.5, 30.0)),
    }


def _call(chance: Chance, name: str, span_s: float) -> CallPlan:
    way: Way = chance.pick(("chat", "chat", "chat", "events", "events", "events", "final", "texts"))
    leave: Leave = ""
    if way == "events" and chance.happens(0.3):
        leave = chance.pick(("break", "aclose", "raise"))
    cancels: tuple[Moment, ...] = ()
    if chance.happens(0.25):
        cancels = tuple(draw_moment(chance) for _ in range(chance.pick((1, 1, 2))))
    slow_reader = way == "events" and chance.happens(0.2)
    return CallPlan(
        name=name,
        at_s=chance.between(0, span_s),
        way=way,
        leave=leave,
        leave_after=chance.whole(0, 8) if leave else 0,
        dawdle_s=chance.pick((0.1, 1.0, 20.0)) if slow_reader else 0.0,
        deadline_s=chance.pick((0.5, 3.0, 20.0)) if chance.happens(0.25) else None,
        cancels=cancels,
        limit_s=chance.between(0.05, 6) if chance.happens(0.07) else None,
    )
