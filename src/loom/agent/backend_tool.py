"""One operation of a backend as a tool."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from loom.shuttle.arguments import fitted_arguments
from loom.shuttle.permission import Verdict
from loom.shuttle.tool import Tool

__all__ = ["BackendTool", "object_schema", "text_schema"]


class BackendTool(Tool):
    """
    One operation of a backend as a tool.

    Attributes:
        approval: "allow" for what reads, "ask" for what writes.
        repeatable: Whether it may be run again after a crash: whether it only reads.
        timeout_s: Seconds for one run; None leaves it to the executor.
        strict: False: some arguments may be left out.
        is_async: True: `execute` gives an awaitable at once, and needs no thread.

    Args:
        name: The tool's.
        description: What the model reads.
        parameters: JSON schema of the arguments.
        run: Takes the arguments by name.
        write: Whether it changes something.
        timeout_s: Seconds for one run.
    """

    def __init__(
        self,
        name: str,
        description: str,
        parameters: Mapping[str, Any],
        run: Callable[..., Awaitable[Any]],
        *,
        write: bool = False,
        timeout_s: float | None = None,
    ) -> None:
        self._name = name
        self._description = description
        self._parameters = parameters
        self._run = run
        self._write = write
        self.approval: Verdict = "ask" if write else "allow"
        self.repeatable = not write
        self.timeout_s = timeout_s
        self.strict = False
        self.is_async = True

    @property
    def name(self) -> str:
        """1 to 64 of `A-Z a-z 0-9 _ -`."""
        return self._name

    @property
    def description(self) -> str:
        """What it does and when to use it."""
        return self._description

    @property
    def parameters(self) -> Mapping[str, Any]:
        """JSON schema of the arguments."""
        return self._parameters

    def named(self, name: str) -> BackendTool:
        """
        The same tool with another name.

        Args:
            name: 1 to 64 of `A-Z a-z 0-9 _ -`.
        """
        return BackendTool(
            name,
            self._description,
            self._parameters,
            self._run,
            write=self._write,
            timeout_s=self.timeout_s,
        )

    def execute(self, input: dict[str, Any]) -> Awaitable[Any]:  # noqa: A002 - spec's name
        """
        Run it.

        Args:
            input: The arguments that the model wrote.

        Returns:
            The result, once awaited.

        Raises:
            ToolArgumentsInvalid: If they do not fit the schema.
        """
        return self._run(**fitted_arguments(self._parameters, input))

    def __repr__(self) -> str:
        """Its name."""
        return f"<tool {self._name} of a backend>"


def object_schema(
    properties: Mapping[str, Mapping[str, Any]], *, required: tuple[str, ...] = ()
) -> dict[str, Any]:
    """
    The schema of an object that has these properties and no other.

    Args:
        properties: Their schemas.
        required: Those that must be there.
    """
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }


def text_schema(description: str) -> dict[str, Any]:
    """
    The schema of a text.

    Args:
        description: What it is for; the model reads it.
    """
    return {"type": "string", "description": description}
