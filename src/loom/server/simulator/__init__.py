"""Mistral's API on loopback, without a key, a bill or a network."""

from loom.server.simulator.run import SIMULATOR_KEY, Simulator
from loom.server.simulator.shared import SharedSimulator, shared_simulator

__all__ = ["SIMULATOR_KEY", "SharedSimulator", "Simulator", "shared_simulator"]
