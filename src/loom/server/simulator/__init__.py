"""Mistral's API on loopback, without a key, a bill or a network."""

from loom.server.simulator.run import SIMULATOR_KEY, Simulator
from loom.server.simulator.scenario import Scenario
from loom.server.simulator.scenario_rule import Rule
from loom.server.simulator.shared import SharedSimulator, shared_simulator

__all__ = [
    "SIMULATOR_KEY",
    "Rule",
    "Scenario",
    "SharedSimulator",
    "Simulator",
    "shared_simulator",
]
