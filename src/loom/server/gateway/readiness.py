"""Whether the gateway takes requests: what `/health/ready` tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

__all__ = ["OK", "Readiness", "State"]

State: TypeAlias = Literal["starting", "ready", "draining"]
"""From its start, from the first request that would be answered, and from the signal to stop."""

OK = "ok"
"""What a part says that works."""


class Readiness:
    """
    The gateway's state, and that of its parts. It is ready when everything says `OK`.

    Attributes:
        state: The gateway's own.
    """

    def __init__(self) -> None:
        self.state: State = "starting"
        self._parts: dict[str, Callable[[], str]] = {}

    def watch(self, name: str, ask: Callable[[], str]) -> None:
        """
        Let a part be asked as well.

        Args:
            name: For example "ledger".
            ask: Gives `OK`, or what is wrong in a few words; it must not wait.
        """
        self._parts[name] = ask

    def __call__(self) -> Mapping[str, str]:
        """What each part says; the gateway's own state is `OK` when it is "ready"."""
        own = OK if self.state == "ready" else self.state
        return {"gateway": own, **{name: ask() for name, ask in self._parts.items()}}

    @property
    def ready(self) -> bool:
        """Whether every part works."""
        return all(said == OK for said in self().values())
