"""
What a test of code on Loom needs: fakes, the offline Mistral, the cancellation injector.

All of it is public and used by Loom's own tests. No fake opens a socket or waits; the simulator
listens on loopback. The names load on first use (PEP 562): pytest reads this room at its start.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loom.testing.cancel import Probes, Survey, abandoned_generators, cancel_everywhere
    from loom.testing.clock import FakeClock, FakeDice, no_waits
    from loom.testing.layers import LAYER_LAWS, LayerCase, LayerLaw, Witness, layer_contract
    from loom.testing.sim import simulator
    from loom.testing.transport import FakeReply, FakeTransport, Replies
    from loom.testing.turns import turn, turn_until

__all__ = [
    "LAYER_LAWS",
    "FakeClock",
    "FakeDice",
    "FakeReply",
    "FakeTransport",
    "LayerCase",
    "LayerLaw",
    "Probes",
    "Replies",
    "Survey",
    "Witness",
    "abandoned_generators",
    "cancel_everywhere",
    "layer_contract",
    "no_waits",
    "simulator",
    "turn",
    "turn_until",
]

_HOMES: dict[str, tuple[str, ...]] = {
    "loom.testing.cancel": ("Probes", "Survey", "abandoned_generators", "cancel_everywhere"),
    "loom.testing.clock": ("FakeClock", "FakeDice", "no_waits"),
    "loom.testing.layers": ("LAYER_LAWS", "LayerCase", "LayerLaw", "Witness", "layer_contract"),
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
