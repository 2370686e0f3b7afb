"""
`@tool`: a function as a tool.

    from loom import tool

    @tool
    async def weather(city: str, unit: Literal["c", "f"] = "c") -> dict[str, float]:
        '''Current weather of a city, for example of "San Francisco".'''

The schema is made once, where the function is defined; what a model writes is decoded into the
annotated types before the function sees it.
"""

from __future__ import annotations

import copy
import functools
import inspect
import math
import types
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, get_args, overload

from loom.shuttle.docstring import Described, describe
from loom.shuttle.hints import caller_names, free_parameters, resolved_hint
from loom.shuttle.permission import Verdict
from loom.shuttle.signature import Signature
from loom.shuttle.strict import strict_schema
from loom.shuttle.tool import TOOL_NAME, DecodingTool

__all__ = ["FunctionTool", "tool"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")


class FunctionTool(DecodingTool, Generic[P, R]):
    """
    A function as a tool; called, it is the function.

    `@tool` makes it. In a class body it is a method: the tool of an instance is `instance.name`.

    Args:
        function: What is run.
        name: 1 to 64 of `A-Z a-z 0-9 _ -`; None: the function's own.
        description: What the model reads; None: the docstring, without its sections.
        strict: Whether the vendor shall force arguments into the schema; all properties are
            required then.
        timeout_s: How long one run may take, in seconds, above 0; None: as long as the executor
            says.
        approval: What is decided about its calls where nobody else decides.
        repeatable: Whether running it twice does no harm, so that it may be run again after a
            crash.

    Attributes:
        strict: As given.
        timeout_s: As given.
        approval: As given.
        repeatable: As given.

    Raises:
        TypeError: If the function, or one of its parameters, cannot be a tool's.
        ValueError: If another argument is out of its range.
    """

    __name__: str

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str | None = None,
        description: str | None = None,
        strict: bool = False,
        timeout_s: float | None = None,
        approval: Verdict = "allow",
        repeatable: bool = False,
    ) -> None:
        self._name = _checked_name(function, name)
        if timeout_s is not None and not (timeout_s > 0 and math.isfinite(timeout_s)):
            raise ValueError(f"{self._name}: timeout_s must be above 0, not {timeout_s!r}")
        if approval not in get_args(Verdict):
            raise ValueError(f"{self._name}: approval must be allow, deny or ask, not {approval!r}")
        self.strict = strict
        self.timeout_s = timeout_s
        self.approval: Verdict = approval
        self.repeatable = repeatable
        self._is_async = _is_async(function)
        # Not its `__dict__`: a callable object's own fields are no tool's.
        functools.update_wrapper(self, function, updated=())
        self._function = function
        self._plan = _Plan(function, self._name, description, strict=strict)

    @property
    def name(self) -> str:
        """1 to 64 of `A-Z a-z 0-9 _ -`."""
        return self._name

    @property
    def is_async(self) -> bool:
        """Whether it is a coroutine function; another runs in a worker thread."""
        return self._is_async

    @property
    def description(self) -> str:
        """What the model reads; empty if nobody said anything."""
        return self._plan.description

    @property
    def parameters(self) -> Mapping[str, Any]:
        """
        JSON schema of the arguments.

        Raises:
            TypeError: If an annotation names what cannot be found.
        """
        return self._plan.parameters

    def decode(self, input: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002 - as in `execute`
        """
        Arguments as the function takes them.

        Args:
            input: The arguments that the model wrote; they are not changed.

        Returns:
            Keyword arguments of the annotated types; what was left out is left out.

        Raises:
            ToolArgumentsInvalid: If they do not fit; the message names every problem.
        """
        return self._plan.signature.decode(input)

    def run(self, arguments: Mapping[str, Any]) -> Awaitable[Any] | Any:
        """
        Call the function with what `decode` gave.

        Args:
            arguments: Keyword arguments.

        Returns:
            What the function returns; for a coroutine function an awaitable.

        Raises:
            TypeError: If the function is a method, and the tool that of the class.
        """
        if self._plan.is_method and self._function is self._plan.function:
            raise TypeError(f"{self._name} is a method: take the tool of an instance")
        return self._called(**arguments)

    def execute(self, input: dict[str, Any]) -> Awaitable[Any] | Any:  # noqa: A002 - spec's name
        """
        Decode the arguments and call the function.

        Args:
            input: The arguments that the model wrote.

        Returns:
            What the function returns; for a coroutine function an awaitable.

        Raises:
            ToolArgumentsInvalid: If they do not fit; the message names every problem.
        """
        return self.run(self.decode(input))

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself; nothing is checked or decoded."""
        return self._function(*args, **kwargs)

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> FunctionTool[P, R]: ...
    @overload
    def __get__(
        self: FunctionTool[Concatenate[Any, Q], R], instance: object, owner: type | None = None
    ) -> FunctionTool[Q, R]: ...
    def __get__(self, instance: object, owner: type | None = None) -> FunctionTool[Any, R]:
        """Give the tool of an instance: the same, with `self` filled in."""
        if instance is None or not self._plan.is_method:
            return self
        bound: FunctionTool[Any, R] = copy.copy(self)
        bound._function = functools.partial(self._called, instance)
        return bound

    def __repr__(self) -> str:
        """Name and parameters."""
        return f"<tool {self._name}({', '.join(one.name for one in self._plan.free)})>"

    @property
    def _called(self) -> Callable[..., R]:
        return self._function


class _Plan:
    """What is made once of a function, and shared by the tools of all instances of its class."""

    def __init__(
        self, function: Callable[..., Any], label: str, description: str | None, *, strict: bool
    ) -> None:
        self.function = function
        parameters = free_parameters(function, label)
        self.is_method = _is_method(function, parameters)
        self.free = parameters[1:] if self.is_method else parameters
        self._label = label
        self._description = description
        self._strict = strict
        self._hints: dict[str, Any] = {}
        self._signature: Signature | None = None
        # A class that is defined further down is looked for again at the first use.
        if self._resolve(caller_names()) is None:
            self._signature = Signature(label, self.free, self._hints)

    @property
    def signature(self) -> Signature:
        if self._signature is None:
            if (missing := self._resolve({})) is not None:
                raise TypeError(
                    f"{self._label}: an annotation cannot be read, {missing}: define or import it"
                    " at the top of the module, and not under `if TYPE_CHECKING`"
                )
            self._signature = Signature(self._label, self.free, self._hints)
        return self._signature

    @functools.cached_property
    def description(self) -> str:
        return self._said.summary if self._description is None else self._description

    @functools.cached_property
    def parameters(self) -> dict[str, Any]:
        schema = self.signature.schema
        properties = {
            name: {"description": self._said.fields[name], **part}
            if name in self._said.fields and "description" not in part
            else part
            for name, part in schema["properties"].items()
        }
        told = {**schema, "properties": properties}
        return strict_schema(told) if self._strict else told

    @functools.cached_property
    def _said(self) -> Described:
        # Only now: what reads docstrings is slow to import.
        return describe(_docstring(self.function))

    def _resolve(self, names: Mapping[str, Any]) -> NameError | None:
        """Resolve what still is not; give why one cannot be."""
        missing = None
        for parameter in self.free:
            if parameter.name in self._hints:
                continue
            try:
                self._hints[parameter.name] = resolved_hint(self.function, parameter, names)
            except NameError as error:
                missing = error
        return missing


@overload
def tool(
    function: Callable[P, R],
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    strict: bool = False,
    timeout_s: float | None = None,
    approval: Verdict = "allow",
    repeatable: bool = False,
) -> FunctionTool[P, R]: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    strict: bool = False,
    timeout_s: float | None = None,
    approval: Verdict = "allow",
    repeatable: bool = False,
) -> Callable[[Callable[P, R]], FunctionTool[P, R]]: ...
def tool(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """
    Make a tool of a function.

    Use it as `@tool`, as `@tool(name=..., ...)`, or as a call: `tool(function, name=...)`.

    Args:
        function: A function, method, callable object or `functools.partial`, async or not. Each
            parameter is given by name; types are read from annotations, descriptions from
            `Annotated` and from the docstring (Google, NumPy or Sphinx form).
        options: As on `FunctionTool`.

    Returns:
        The tool, or with options alone a decorator. The tool can be called like the function.

    Raises:
        TypeError: If the function, or one of its parameters, cannot be a tool's.
        ValueError: If an option is out of its range.
    """
    if function is None:
        return functools.partial(FunctionTool, **options)
    return FunctionTool(function, **options)


def _checked_name(function: Callable[..., Any], name: str | None) -> str:
    if isinstance(function, staticmethod | classmethod):
        kind = type(function).__name__
        raise TypeError(f"put @tool below @{kind}: it takes the plain function")
    if isinstance(function, type):
        raise TypeError(f"{function.__name__} is a class: a tool is made of a function")
    if not callable(function):
        raise TypeError(
            f"a {type(function).__name__} cannot be called: a tool is made of a function"
        )
    plain = _plain(function)
    own = getattr(plain, "__name__", None) or type(plain).__name__
    if own == "<lambda>":
        raise TypeError(
            "a lambda has no annotations and no docstring for the model to read: use a def"
        )
    label = own if name is None else name
    if not isinstance(label, str) or TOOL_NAME.fullmatch(label) is None:
        raise ValueError(f"the name {label!r} must be 1 to 64 of A-Z a-z 0-9 _ -: give name=")
    if any(map(inspect.isgeneratorfunction, _codes(plain))) or any(
        map(inspect.isasyncgenfunction, _codes(plain))
    ):
        raise TypeError(f"{label} is a generator: return a list")
    return label


def _plain(function: Callable[..., Any]) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _codes(plain: Any) -> tuple[Any, Any]:
    """What may be the function itself: the thing, or the `__call__` of its class."""
    return plain, type(plain).__call__


def _is_async(function: Callable[..., Any]) -> bool:
    return any(map(inspect.iscoroutinefunction, _codes(_plain(function))))


def _is_method(function: Callable[..., Any], parameters: tuple[inspect.Parameter, ...]) -> bool:
    """Whether a function stands in a class body: its `self` is filled in by the instance."""
    first = parameters[0] if parameters else None
    return (
        isinstance(function, types.FunctionType)
        and first is not None
        and first.name == "self"
        and first.annotation is first.empty
    )


def _docstring(function: Callable[..., Any]) -> str | None:
    plain = _plain(function)
    if isinstance(plain, types.FunctionType | types.MethodType | types.BuiltinFunctionType):
        return plain.__doc__
    call = type(plain).__call__
    said: str | None = call.__doc__ if hasattr(call, "__code__") else None
    return said or plain.__doc__
