"""An agent from its file: `agent_from_file("shop.yaml")`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loom.client.agent import AsyncAgent
from loom.client.file_parts import parts_from_file
from loom.config.agent_file import AgentFile

__all__ = ["agent_from_file"]


def agent_from_file(source: str | Path | AgentFile, **changes: Any) -> AsyncAgent:
    """
    Make the agent that a file describes; the code of its tools runs, and nothing is sent.

    Args:
        source: The file, or what `load_agent_file` read of it.
        changes: As for `parts_from_file`.

    Returns:
        The agent; it owns its client, its backend and its servers.

    Raises:
        LoomError: As `parts_from_file`, and as `AsyncAgent`.
        TypeError: If a name of `changes` is none of these.
    """
    return AsyncAgent(**parts_from_file(source, changes))
