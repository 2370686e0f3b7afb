"""What a tool is, and how the model is told of it."""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Awaitable, Iterable, Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

from loom.core.errors import InvalidRequest
from loom.core.request import ToolSpec

__all__ = ["TOOL_NAME", "DecodingTool", "Tool", "ToolLike", "tool_spec", "tool_specs"]

# Mistral's own rule (contract: section 2); OpenAI's and Anthropic's are the same.
TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What a whole name must match."""

_FUNCTION_FIELDS = frozenset({"name", "description", "parameters", "strict"})


@runtime_checkable
class Tool(Protocol):
    """Something that a model may have run."""

    @property
    @abstractmethod
    def name(self) -> str:
        """1 to 64 of `A-Z a-z 0-9 _ -`."""

    @property
    @abstractmethod
    def description(self) -> str:
        """What it does and when to use it; the model reads it."""

    @property
    @abstractmethod
    def parameters(self) -> Mapping[str, Any]:
        """JSON schema of the arguments: an object."""

    @abstractmethod
    def execute(self, input: dict[str, Any]) -> Awaitable[Any] | Any:  # noqa: A002 - spec's name
        """
        Run it.

        Args:
            input: The arguments that the model wrote.

        Returns:
            The result, or an awaitable that gives it.
        """


@runtime_checkable
class DecodingTool(Tool, Protocol):
    """A tool that reads its arguments itself, as `FunctionTool` does."""

    @property
    @abstractmethod
    def is_async(self) -> bool:
        """Whether `run` gives a coroutine at once; if not, it is called on a worker thread."""

    @abstractmethod
    def decode(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002 - as in `execute`
        """
        Arguments as `run` takes them.

        Args:
            input: The arguments that the model wrote; they are not changed.

        Returns:
            What `run` is given.

        Raises:
            ToolArgumentsInvalid: If they do not fit; the message names every problem.
        """

    @abstractmethod
    def run(self, arguments: Mapping[str, Any]) -> Awaitable[Any] | Any:
        """
        Run it.

        Args:
            arguments: What `decode` gave.

        Returns:
            The result, or an awaitable that gives it.
        """


ToolLike: TypeAlias = ToolSpec | Mapping[str, Any] | Tool | object
"""A `ToolSpec`, a wire dict, or an object with `name`, `description` and `parameters`."""


def tool_specs(tools: Iterable[ToolLike]) -> tuple[ToolSpec, ...]:
    """
    Tools in any form as the model is told of them.

    Args:
        tools: In the order in which the model sees them.

    Returns:
        One spec each.

    Raises:
        InvalidRequest: If one is malformed, or two have the same name.
    """
    specs = tuple(tool_spec(tool, position=index) for index, tool in enumerate(tools))
    first: dict[str, int] = {}
    for index, spec in enumerate(specs):
        if spec.name in first:
            raise InvalidRequest(
                f"tools[{index}] has the same name as tools[{first[spec.name]}]: {spec.name!r};"
                " give each tool its own"
            )
        first[spec.name] = index
    return specs


def tool_spec(tool: ToolLike, *, position: int = 0) -> ToolSpec:
    """
    A tool as the model is told of it.

    Args:
        tool: A `ToolSpec`; a dict `{"type": "function", "function": {...}}`, whose `type` may be
            missing; or an object whose `name`, `description` and `parameters` are attributes,
            properties or methods without arguments, and whose `strict` may be True.
        position: Where it stands in the list of tools, from 0; for messages.

    Returns:
        The spec; its parameters are a copy.

    Raises:
        InvalidRequest: If it is none of these, or a part of it is not as it must be. The message
            names the position and the part.
    """
    where = f"tools[{position}]"
    if isinstance(tool, ToolSpec):
        return _checked(where, tool.name, tool.description, tool.parameters, tool.strict)
    if isinstance(tool, Mapping):
        function = _function_of(where, tool)
        name, description = function.get("name"), function.get("description")
        parameters = function.get("parameters")
        return _checked(where, name, description, parameters, function.get("strict"))
    if isinstance(tool, type):
        raise InvalidRequest(f"{where} is the class {tool.__name__}: give an instance of it")
    missing = [name for name in ("name", "description", "parameters") if not hasattr(tool, name)]
    if missing:
        raise InvalidRequest(
            f"{where} is a {type(tool).__name__} without {', '.join(missing)}: give a ToolSpec, a"
            ' dict {"type": "function", "function": {...}}, or an object with name, description'
            " and parameters"
        )
    name, description, parameters = (
        _told(where, tool, part) for part in ("name", "description", "parameters")
    )
    # False is a tool's way to say that nothing shall be forced: it is left out.
    strict = True if getattr(tool, "strict", None) is True else None
    return _checked(where, name, description, parameters, strict)


def _function_of(where: str, tool: Mapping[str, Any]) -> Mapping[str, Any]:
    kind = tool.get("type", "function")
    if kind != "function":
        raise InvalidRequest(f"{where}: type is {kind!r}; only 'function' is known")
    function = tool.get("function")
    if not isinstance(function, Mapping):
        problem = "is missing" if function is None else f"is a {type(function).__name__}"
        raise InvalidRequest(
            f'{where}: "function" {problem}; a tool is {{"type": "function", "function":'
            ' {"name": ..., "description": ..., "parameters": ...}}'
        )
    unknown = sorted(str(field) for field in function if field not in _FUNCTION_FIELDS)
    if unknown:
        raise InvalidRequest(
            f"{where}: function has unknown fields {', '.join(map(repr, unknown))};"
            f" known are {', '.join(sorted(_FUNCTION_FIELDS))}"
        )
    return function


def _told(where: str, tool: object, part: str) -> Any:
    value = getattr(tool, part)
    if not callable(value):
        return value
    try:
        return value()
    except TypeError as error:
        raise InvalidRequest(
            f"{where}: {type(tool).__name__}.{part} cannot be called without arguments"
        ) from error


def _checked(where: str, name: Any, description: Any, parameters: Any, strict: Any) -> ToolSpec:
    if not isinstance(name, str) or TOOL_NAME.fullmatch(name) is None:
        raise InvalidRequest(f"{where}: name {name!r} must be 1 to 64 of A-Z a-z 0-9 _ -")
    where = f"{where} ({name})"
    if description is not None and not isinstance(description, str):
        raise InvalidRequest(
            f"{where}: description is a {type(description).__name__}, not a string"
        )
    if strict is not None and not isinstance(strict, bool):
        raise InvalidRequest(f"{where}: strict is {strict!r}, not true or false")
    parameters = {} if parameters is None else parameters
    if not isinstance(parameters, Mapping):
        raise InvalidRequest(
            f"{where}: parameters is a {type(parameters).__name__}; a JSON schema (a dict) is"
            " needed"
        )
    try:
        plain = _plain_json(parameters, "parameters")
    except RecursionError:
        raise InvalidRequest(f"{where}: parameters contain themselves") from None
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"{where}: {error}") from None
    return ToolSpec(name=name, description=description, parameters=plain, strict=strict)


def _plain_json(value: Any, path: str) -> Any:
    """A copy made of JSON's own types: msgspec would write a set as an array without a word."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        raise ValueError(f"{path} is {value}, which JSON has no number for")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{path} has the key {key!r}, which is not a string")
        return {key: _plain_json(inner, f"{path}.{key}") for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_json(inner, f"{path}[{index}]") for index, inner in enumerate(value)]
    raise TypeError(f"{path} is a {type(value).__name__}, which JSON does not know")
