"""What is wrong with an agent file: everything at once, each with its line and what to do."""

from __future__ import annotations

import pkgutil
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, Literal

import msgspec

from loom.client.tool_import import import_tools, importable, parse_tool_name
from loom.config.agent_format import AGENT_FORMAT
from loom.config.secrets import resolve_reference
from loom.config.vendors import find_vendor
from loom.config.yaml_tree import Misfit, Node, nearest, read_yaml
from loom.core.errors import ConfigInvalid
from loom.core.route import named_model
from loom.shuttle.tool import Tool

__all__ = ["Problem", "problems_of"]

_MISFIT = re.compile(r"([^\s:]+): (.*)", re.DOTALL)
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_NOT_BOTH = re.compile(r"give '(\w+)' or '(\w+)', not both")
# What stands in for a part that must be there, so that the rest is looked at too.
_FILLED: dict[str, Node] = {
    "apiVersion": Node(line=0, text="loom/v1"),
    "kind": Node(line=0, text="Agent"),
    "metadata": Node(line=0, pairs={"name": (0, Node(line=0, text="agent"))}),
    "metadata.name": Node(line=0, text="agent"),
    "spec": Node(line=0, pairs={}),
}
# Stands in a list for what is no value of it.
_PLACEHOLDER = "loom"
# More than this is another kind of document.
_MOST = 50


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """
    Something that is not as it must be.

    Attributes:
        line: Where, from 1.
        key: Which part of the file; empty for all of it.
        message: What is wrong.
        hint: What to do; empty when the message says it.
        level: "error": the agent cannot run; "note": it may not run on this machine, or not as
            somebody thinks.
    """

    line: int
    key: str
    message: str
    hint: str = ""
    level: Literal["error", "note"] = "error"


def problems_of(text: str, folder: Path, *, imports: bool = False) -> list[Problem]:
    """
    Look at an agent file from its form to what it names; the key is never shown.

    Args:
        text: The file.
        folder: Where it lies.
        imports: Whether tools are imported, which runs the code of their modules.

    Returns:
        What is wrong, by line.

    Raises:
        ConfigInvalid: If YAML cannot be read here: the extra `yaml` is missing.
    """
    try:
        tree = read_yaml(text)
    except Misfit as misfit:
        return [Problem(line=misfit.line, key="", message=misfit.words)]
    found, tree = _of_form(tree)
    try:
        spec = AGENT_FORMAT.read(tree, "")["spec"]
    except Misfit:
        return found
    found += _Meaning(spec, tree, folder, imports=imports).problems()
    return sorted(found, key=lambda problem: problem.line)


def _of_form(tree: Node) -> tuple[list[Problem], Node]:
    """Give what the format refuses, and the rest without it."""
    found: dict[str, Problem] = {}
    for _ in range(2 * _MOST):
        if len(found) == _MOST:
            break
        try:
            AGENT_FORMAT.read(tree, "")
        except Misfit as misfit:
            match = _MISFIT.fullmatch(misfit.words)
            key, message = match.groups() if match else ("", misfit.words)
            both = _NOT_BOTH.fullmatch(message)
            at = f"{key}.{both[2]}" if both else key
            if at in found or (message == "is missing" and at not in _FILLED):
                # It was taken out, or never there, and cannot be left out: so goes what it is in.
                at = key.rpartition(".")[0]
            found.setdefault(key, Problem(line=misfit.line, key=key, message=message))
            mended = _without(tree, at, _FILLED.get(at))
            if mended is None:
                break
            tree = mended
        else:
            break
    return list(found.values()), tree


def _without(tree: Node, key: str, filled: Node | None) -> Node | None:
    """The tree with another node, or none, at a place; None if there is no such place."""
    steps = [
        name or int(index) for name, index in (match.groups() for match in _STEP.finditer(key))
    ]
    return _changed(tree, steps, filled) if steps else None


def _changed(node: Node, steps: list[str | int], filled: Node | None) -> Node | None:
    step, rest = steps[0], steps[1:]
    if isinstance(step, int):
        return _changed_item(node, step, rest, filled)
    pairs = dict(node.pairs or {})
    if rest:
        line, inner = pairs.get(step, (0, None))
        filled = None if inner is None else _changed(inner, rest, filled)
        if filled is None:
            return None
    else:
        line, old = pairs.pop(step, (node.line, None))
        if old is None and filled is None:
            return None
    if filled is not None:
        pairs[step] = (line, filled)
    return msgspec.structs.replace(node, pairs=pairs)


def _changed_item(
    node: Node, place: int, rest: list[str | int], filled: Node | None
) -> Node | None:
    if node.items is None or place >= len(node.items):
        return None
    old = node.items[place]
    item = _changed(old, rest, filled) if rest else filled
    if item is None and rest:
        return None
    # A list keeps its places: what is taken out would move the others.
    kept = item or Node(line=old.line, text=_PLACEHOLDER)
    items = (*node.items[:place], kept, *node.items[place + 1 :])
    return msgspec.structs.replace(node, items=items)


class _Meaning:
    """
    Looks at what the parts of a file name.

    Args:
        spec: The file's, read.
        tree: The same with its lines.
        folder: Where relative paths begin.
        imports: Whether tools are imported.
    """

    def __init__(self, spec: Mapping[str, Any], tree: Node, folder: Path, *, imports: bool) -> None:
        self._spec = spec
        self._tree = tree
        self._folder = folder
        self._imports = imports
        self._names: list[str] = []

    def problems(self) -> Iterator[Problem]:
        spec = self._spec
        vendors = {"spec.provider": spec.get("provider", "mistral")}
        for place, route in enumerate(spec.get("fallback", ())):
            vendors[f"spec.fallback[{place}]"] = named_model(route)[0] or "mistral"
        for key, vendor in vendors.items():
            yield from self._tried(key, partial(find_vendor, vendor))
        yield from self._of_model()
        if "api_key" in spec:
            yield from self._tried(
                "spec.api_key",
                lambda: resolve_reference(spec["api_key"], folder=self._folder),
                level="note",
            )
        if "system_prompt_file" in spec:
            path = self._folder / Path(spec["system_prompt_file"]).expanduser()
            if not path.is_file():
                yield self._problem("spec.system_prompt_file", f"there is no file {str(path)!r}")
        yield from self._of_backend()
        for place, entry in enumerate(spec.get("tools", ())):
            if isinstance(entry, str):
                yield from self._of_tool(f"spec.tools[{place}]", entry)
        yield from self._of_permissions()

    def _of_model(self) -> Iterator[Problem]:
        from loom.config.assemble import load_catalog  # noqa: PLC0415 - start-up time
        from loom.core.ambient import SystemClock  # noqa: PLC0415 - the same

        model = self._spec.get("model")
        on = SystemClock().now().date()
        if model is not None and load_catalog().anywhere(model, on) is None:
            yield self._problem(
                "spec.model",
                f"the catalogue does not know {model!r}: what its calls cost is unknown",
                "`looms models` lists those that it knows.",
                level="note",
            )

    def _of_backend(self) -> Iterator[Problem]:
        from loom.cli.tool_options import backend_at  # noqa: PLC0415 - most agents have none

        given = self._spec.get("backend")
        if given is not None:
            at = given if isinstance(given, str) else given["at"]
            write = not isinstance(given, str) and bool(given.get("write"))
            yield from self._tried(
                "spec.backend", lambda: backend_at(at, folder=self._folder, write=write)
            )

    def _of_tool(self, key: str, name: str) -> Iterator[Problem]:
        if self._imports:
            yield from self._tried(key, lambda: self._import(name))
            return
        try:
            where, _ = parse_tool_name(name)
        except ConfigInvalid as error:
            yield self._problem(key, error.message, error.hint)
            return
        folders = [str(self._folder), str(Path.cwd())]
        if where.endswith(".py"):
            path = (self._folder / where).resolve()
            if not path.is_file():
                yield self._problem(key, f"there is no file {str(path)!r}", "Correct the path.")
            return
        first = where.partition(".")[0]
        known = first in sys.builtin_module_names
        if not known and PathFinder.find_spec(first, [*folders, *sys.path]) is None:
            near = nearest(first, [each.name for each in pkgutil.iter_modules(folders)])
            wish = f": {near}" if near.startswith("did") else ""
            yield self._problem(key, f"there is no module {first!r}{wish}")

    def _import(self, name: str) -> None:
        # Only here: a folder that is only looked at must not give us its `yaml.py`.
        importable(Path.cwd())
        found = import_tools(name, folder=self._folder)
        self._names += [tool.name for tool in found if isinstance(tool, Tool)]

    def _of_permissions(self) -> Iterator[Problem]:
        """Names that no tool has; only where all tools are known."""
        tools = self._spec.get("tools", ())
        if not self._imports or "backend" in self._spec or not all(map(_is_text, tools)):
            return
        for rule, names in self._spec.get("permissions", {}).items():
            for place, name in enumerate(names):
                if name not in self._names:
                    wish = nearest(name, self._names) if self._names else "it has none"
                    yield self._problem(
                        f"spec.permissions.{rule}[{place}]",
                        f"there is no tool {name!r}: {wish}",
                        level="note",
                    )

    def _tried(
        self, key: str, act: Callable[[], object], *, level: Literal["error", "note"] = "error"
    ) -> Iterator[Problem]:
        try:
            act()
        except ConfigInvalid as error:
            hint = "" if error.hint == ConfigInvalid.row().hint else error.hint
            yield self._problem(key, error.message, hint, level=level)

    def _problem(
        self, key: str, message: str, hint: str = "", *, level: Literal["error", "note"] = "error"
    ) -> Problem:
        line = _line(self._tree, key)
        return Problem(line=line, key=key, message=message, hint=hint, level=level)


def _line(tree: Node, key: str) -> int:
    """The line of a part, or of the nearest one around it."""
    node = tree
    for name, index in (match.groups() for match in _STEP.finditer(key)):
        if name is not None and node.pairs is not None and name in node.pairs:
            node = node.pairs[name][1]
        elif index is not None and node.items is not None and int(index) < len(node.items):
            node = node.items[int(index)]
        else:
            break
    return max(node.line, 1)


def _is_text(value: object) -> bool:
    return isinstance(value, str)
