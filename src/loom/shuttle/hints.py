"""What a function's parameters are annotated with, names resolved where Python would find them."""

from __future__ import annotations

import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["caller_names", "free_parameters", "resolved_hint"]

_WHY_NOT: dict[Any, str] = {
    inspect.Parameter.POSITIONAL_ONLY: "is positional-only: a model names its arguments",
    inspect.Parameter.VAR_POSITIONAL: "takes any number of arguments: give it a list instead",
    inspect.Parameter.VAR_KEYWORD: "takes arguments of any name: give it a dict instead",
}


def free_parameters(function: Callable[..., Any], label: str) -> tuple[inspect.Parameter, ...]:
    """
    The parameters that a model can give.

    What `functools.partial` has bound is bound: the model is not told of it.

    Args:
        function: Anything that can be called.
        label: Its name, for messages.

    Returns:
        In the order of the code.

    Raises:
        TypeError: If a parameter cannot be given by name, or Python does not know them.
    """
    try:
        signature = _signature(function)
    except ValueError:
        raise TypeError(f"{label} has no signature that Python knows: wrap it in a def") from None
    found = tuple(signature.parameters.values())
    for parameter in found:
        if (reason := _WHY_NOT.get(parameter.kind)) is not None:
            stars = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}.get(parameter.kind.name, "")
            raise TypeError(f"{label}: the parameter `{stars}{parameter.name}` {reason}")
    bound = function.keywords if isinstance(function, functools.partial) else {}
    return tuple(parameter for parameter in found if parameter.name not in bound)


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    if sys.version_info >= (3, 14):  # pragma: no cover - a newer Python
        # Names that are not there yet stay names, as with annotations that are texts; `inspect`
        # has imported the module that older Pythons do not have.
        later = sys.modules["annotationlib"].Format.FORWARDREF
        return inspect.signature(function, annotation_format=later)
    return inspect.signature(function)


def resolved_hint(
    function: Callable[..., Any], parameter: inspect.Parameter, names: Mapping[str, Any]
) -> Any:
    """
    The type of a parameter.

    Args:
        function: Whose.
        parameter: Which.
        names: Further names, such as the locals of who defines it.

    Returns:
        The type; what has no annotation, or `object`, may be any JSON value.

    Raises:
        NameError: If the annotation names what is not there (yet).
    """
    if parameter.annotation is parameter.empty:
        return Any
    plain = _plain(function)
    holder = types.SimpleNamespace(__annotations__={"hint": parameter.annotation})
    found = typing.get_type_hints(
        holder,
        getattr(plain, "__globals__", {}),
        {**names, **_closure(plain)},
        include_extras=True,
    )["hint"]
    return Any if found is object else found


def caller_names() -> dict[str, Any]:
    """
    The local names at the place where a tool is defined.

    Python forgets them when annotations are texts: a class that stands in the same function as
    the tool is found here.
    """
    frame = inspect.currentframe()
    while frame is not None and _is_ours(frame):
        frame = frame.f_back
    found: dict[str, Any] = {}
    while frame is not None:
        found = {**frame.f_locals, **found}
        # A class body sees the names of the function around it.
        if "__qualname__" not in frame.f_locals:
            break
        frame = frame.f_back
    return found


def _is_ours(frame: types.FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).startswith("loom.shuttle.")


def _plain(function: Callable[..., Any]) -> Any:
    """The function that was written with `def`."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif isinstance(function, types.MethodType):
            function = function.__func__
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif isinstance(function, types.FunctionType | type) or not hasattr(
            type(function).__call__, "__globals__"
        ):
            return function
        else:
            function = type(function).__call__


def _closure(function: Any) -> dict[str, Any]:
    cells = getattr(function, "__closure__", None) or ()
    names = function.__code__.co_freevars if cells else ()
    found = {}
    for name, cell in zip(names, cells, strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:
            # It has no value yet.
            continue
    return found
