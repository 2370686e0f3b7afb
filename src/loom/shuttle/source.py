"""What brings tools: an MCP server, a backend."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from loom.shuttle.tool import Tool

__all__ = ["ToolSource"]


@runtime_checkable
class ToolSource(Protocol):
    """Something that brings tools; an agent takes it beside tools."""

    @abstractmethod
    async def tools(self) -> Sequence[Tool]:
        """Its tools; what it needs is opened at the first use."""

    @abstractmethod
    async def aclose(self) -> None:
        """Give back what was opened; a second time does nothing."""
