"""
What a test of code on Loom needs: fakes, the cancellation injector, the contract of a layer.

All of it is public and used by Loom's own tests. No fake opens a socket or waits.
"""

from __future__ import annotations

from loom.testing.cancel import Probes, Survey, abandoned_generators, cancel_everywhere
from loom.testing.clock import FakeClock, FakeDice, no_waits
from loom.testing.layers import LAYER_LAWS, LayerCase, LayerLaw, Witness, layer_contract
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
    "turn",
    "turn_until",
]
