"""Tools by the name of where they are: `module:function`, `path/to/file.py:function`, `module`."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
import sys
import zlib
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from loom.core.errors import ConfigInvalid
from loom.shuttle.function import FunctionTool
from loom.shuttle.source import ToolSource
from loom.shuttle.tool import Tool

__all__ = ["import_tools", "importable", "parse_tool_name"]

# A path may hold a colon of its own (`C:\tools.py:lookup`).
_IN_FILE = re.compile(r"(.+\.py)(?::([^:/\\]*))?")
_IN_MODULE = re.compile(r"(\w+(?:\.\w+)*)(?::(.*))?")
_NAME = re.compile(r"\w+(?:\.\w+)*")


def parse_tool_name(text: str) -> tuple[str, str]:
    """
    Part the name of a tool; nothing is imported.

    Args:
        text: `module:function`, `path/to/file.py:function`, or one of them without a function.

    Returns:
        The module or file, and what to take of it; empty for all its tools.

    Raises:
        ConfigInvalid: If it is none of these.
    """
    match = _IN_FILE.fullmatch(text) or _IN_MODULE.fullmatch(text)
    if match is None or (match[2] is not None and _NAME.fullmatch(match[2]) is None):
        raise ConfigInvalid(
            f"{text!r} names no tool: give module:function, path/to/file.py:function, or a module"
            " for all of its tools",
            hint="Correct the name.",
            attempts=0,
        )
    return match[1], match[2] or ""


def importable(folder: Path) -> None:
    """
    Put a folder in front of the import path, as `python -m` does with the current one.

    Args:
        folder: Where modules are looked for first.
    """
    place = str(folder.resolve())
    if place not in sys.path:
        sys.path.insert(0, place)


def import_tools(text: str, *, folder: Path | None = None) -> tuple[Tool | ToolSource, ...]:
    """
    Import tools; the code of their module runs.

    The folder is put in front of the import path, as `python -m` does, and stays there: a module
    may import others later.

    Args:
        text: As for `parse_tool_name`.
        folder: Where modules are looked for first, and where paths begin; None: the current one.

    Returns:
        The tool; or all functions of a module that `@tool` decorates, but for names that begin
        with an underscore.

    Raises:
        ConfigInvalid: If there is no such module, file or name (the nearest one is named), if it
            is no tool, or if the module cannot be imported.
    """
    where, name = parse_tool_name(text)
    place = (folder or Path()).resolve()
    importable(place)
    module = _of_file(place / where) if where.endswith(".py") else _of_module(where, place)
    if not name:
        return _every(module, where)
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            raise ConfigInvalid(
                f"{where!r} has no {name!r}{_nearest(name, _tool_names(module))}",
                hint="Correct the name.",
                attempts=0,
            )
        value = getattr(value, part)
    if not _is_tool(value):
        raise ConfigInvalid(
            f"{text!r} is {_kind(value)}, not a tool",
            hint="Decorate the function with @tool (from loom import tool).",
            attempts=0,
        )
    return (value,)


def _of_module(name: str, place: Path) -> ModuleType:
    # The module may have been written a moment ago.
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            known = [each.name for each in pkgutil.iter_modules([str(place)])]
            raise ConfigInvalid(
                f"there is no module {name!r}{_nearest(name, known)}",
                hint="Start where it lies, install it, or give path/to/file.py:function.",
                attempts=0,
            ) from None
        raise _broken(name, error) from error
    except (Exception, SystemExit) as error:
        raise _broken(name, error) from error


def _of_file(path: Path) -> ModuleType:
    path = path.resolve()
    # The same file is the same module; another's `json.py` does not hide the standard one.
    name = f"loom_tools_{zlib.crc32(str(path).encode('utf-8', 'surrogateescape')):08x}_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    if not path.is_file():
        known = [each.name for each in path.parent.glob("*.py")]
        raise ConfigInvalid(
            f"there is no file {str(path)!r}{_nearest(path.name, known)}",
            hint="Correct the path.",
            attempts=0,
        )
    importable(path.parent)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:  # pragma: no cover - a file that ends in .py has both
        raise ConfigInvalid(f"{str(path)!r} cannot be imported", attempts=0)
    module = importlib.util.module_from_spec(spec)
    # Annotations are looked up by the module's name.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _broken(str(path), error) from error
    return module


def _broken(name: str, error: BaseException) -> ConfigInvalid:
    return ConfigInvalid(
        f"{name!r} cannot be imported: {type(error).__name__}: {error}",
        hint="Correct the module; --debug shows where it fails.",
        attempts=0,
    )


def _every(module: ModuleType, where: str) -> tuple[Tool | ToolSource, ...]:
    found: list[Tool | ToolSource] = [getattr(module, name) for name in _tool_names(module)]
    if not found:
        raise ConfigInvalid(
            f"{where!r} has no tools",
            hint="Decorate its functions with @tool (from loom import tool).",
            attempts=0,
        )
    # A tool may have two names.
    return tuple(dict(zip(map(id, found), found, strict=True)).values())


def _tool_names(module: ModuleType) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and isinstance(value, FunctionTool)
    ]


def _is_tool(value: object) -> bool:
    # A class has what its instances have, and is no tool for it. `FunctionTool` is asked for first:
    # others are told by their attributes, and the schema of a function is made at the first look.
    return isinstance(value, FunctionTool | Tool | ToolSource) and not isinstance(value, type)


def _kind(value: object) -> str:
    kind = "class" if isinstance(value, type) else type(value).__name__
    return f"a {kind}"


def _nearest(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f": did you mean {near[0]!r}?" if near else ""
