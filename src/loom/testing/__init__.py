"""
What a test of code on Loom needs: fakes, the offline Mistral, cancellations, seeds.

All of it is public and used by Loom's own tests. No fake opens a socket or waits; the simulator
listens on loopback. The names load on first use (PEP 562): pytest reads this room at its start.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loom.testing.backends import BACKEND_LAWS, BackendCase, BackendLaw, backend_contract
    from loom.testing.cancel import Probes, Survey, abandoned_generators, cancel_everywhere
    from loom.testing.chance import Chance
    from loom.testing.clock import FakeClock, FakeDice, no_waits
    from loom.testing.layers import LAYER_LAWS, LayerCase, LayerLaw, Witness, layer_contract
    from loom.testing.ledger import LEDGER_LAWS, LedgerLaw, LedgerMaker, ledger_contract
    from loom.testing.limits import (
        LIMIT_STORE_LAWS,
        LimitStoreLaw,
        MeteredCall,
        MeteredVendor,
        limit_store_contract,
    )
    from loom.testing.seeded_line import Line, Weather
    from loom.testing.seeded_loop import Deadlock, LoopClock, SeededLoop
    from loom.testing.seeded_network import Fate, Host, Network
    from loom.testing.seeded_plan import CallPlan, Moment, Plan, Settings, draw_plan
    from loom.testing.seeded_vendor import Mood, SeededVendor, Served
    from loom.testing.seeds import SeedReport, run_plan, run_seed, run_seeds
    from loom.testing.sessions import (
        SESSION_STORE_LAWS,
        SessionStoreLaw,
        SessionStoreMaker,
        session_store_contract,
    )
    from loom.testing.sim import simulator
    from loom.testing.transport import FakeReply, FakeTransport, Replies
    from loom.testing.turns import turn, turn_until

__all__ = [
    "BACKEND_LAWS",
    "LAYER_LAWS",
    "LEDGER_LAWS",
    "LIMIT_STORE_LAWS",
    "SESSION_STORE_LAWS",
    "BackendCase",
    "BackendLaw",
    "CallPlan",
    "Chance",
    "Deadlock",
    "FakeClock",
    "FakeDice",
    "FakeReply",
    "FakeTransport",
    "Fate",
    "Host",
    "LayerCase",
    "LayerLaw",
    "LedgerLaw",
    "LedgerMaker",
    "LimitStoreLaw",
    "Line",
    "LoopClock",
    "MeteredCall",
    "MeteredVendor",
    "Moment",
    "Mood",
    "Network",
    "Plan",
    "Probes",
    "Replies",
    "SeedReport",
    "SeededLoop",
    "SeededVendor",
    "Served",
    "SessionStoreLaw",
    "SessionStoreMaker",
    "Settings",
    "Survey",
    "Weather",
    "Witness",
    "abandoned_generators",
    "backend_contract",
    "cancel_everywhere",
    "draw_plan",
    "layer_contract",
    "ledger_contract",
    "limit_store_contract",
    "no_waits",
    "run_plan",
    "run_seed",
    "run_seeds",
    "session_store_contract",
    "simulator",
    "turn",
    "turn_until",
]

_HOMES: dict[str, tuple[str, ...]] = {
    "loom.testing.backends": ("BACKEND_LAWS", "BackendCase", "BackendLaw", "backend_contract"),
    "loom.testing.cancel": ("Probes", "Survey", "abandoned_generators", "cancel_everywhere"),
    "loom.testing.chance": ("Chance",),
    "loom.testing.clock": ("FakeClock", "FakeDice", "no_waits"),
    "loom.testing.layers": ("LAYER_LAWS", "LayerCase", "LayerLaw", "Witness", "layer_contract"),
    "loom.testing.limits": (
        "LIMIT_STORE_LAWS",
        "LimitStoreLaw",
        "MeteredCall",
        "MeteredVendor",
        "limit_store_contract",
    ),
    "loom.testing.ledger": ("LEDGER_LAWS", "LedgerLaw", "LedgerMaker", "ledger_contract"),
    "loom.testing.seeded_line": ("Line", "Weather"),
    "loom.testing.seeded_loop": ("Deadlock", "LoopClock", "SeededLoop"),
    "loom.testing.seeded_network": ("Fate", "Host", "Network"),
    "loom.testing.seeded_plan": ("CallPlan", "Moment", "Plan", "Settings", "draw_plan"),
    "loom.testing.seeded_vendor": ("Mood", "SeededVendor", "Served"),
    "loom.testing.seeds": ("SeedReport", "run_plan", "run_seed", "run_seeds"),
    "loom.testing.sessions": (
        "SESSION_STORE_LAWS",
        "SessionStoreLaw",
        "SessionStoreMaker",
        "session_store_contract",
    ),
    "loom.testing.sim": ("simulator",),
    "loom.testing.transport": ("FakeReply", "FakeTransport", "Replies"),
    "loom.testing.turns": ("turn", "turn_until"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


# Type checkers read the imports above: with this before them, every misspelling would be a name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load a public name on first use."""
        try:
            home = _HOME_OF[name]
        except KeyError:
            raise AttributeError(f"module 'loom.testing' has no attribute {name!r}") from None
        value = getattr(import_module(home), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
