"""What is closed when its `with` block is left: clients, agents, and their streams."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

__all__ = ["AsyncClosing", "Closing"]


class AsyncClosing(ABC):
    """Works with `async with`."""

    @abstractmethod
    async def aclose(self) -> None:
        """Give back what is held; safe to call twice."""

    async def __aenter__(self) -> Self:
        """Give the object itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        await self.aclose()


class Closing(ABC):
    """Works with `with`."""

    @abstractmethod
    def close(self) -> None:
        """Give back what is held; safe to call twice."""

    def __enter__(self) -> Self:
        """Give the object itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()
