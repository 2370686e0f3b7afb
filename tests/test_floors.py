"""The architecture is what `docs/architecture.md` says: read its table, then every import."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCE = REPOSITORY / "src" / "loom"
TABLE = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")

# From the design: a longer chain means that a reader must hold too much at once.
LONGEST_CHAIN = 9


class Rule(NamedTuple):
    """One thing of the table: who may have it, and why."""

    homes: tuple[str, ...]
    reason: str


class Rules(NamedTuple):
    """The table."""

    floors: dict[str, int]
    reasons: dict[str, str]
    packages: dict[str, Rule]
    modules: dict[str, Rule]
    names: dict[str, Rule]


class Use(NamedTuple):
    """A dotted name in a module, its aliases resolved, and the line."""

    what: str
    line: int


def read_rules(document: str) -> Rules:
    body = document.partition("<!-- rules -->")[2].partition("<!-- /rules -->")[0]
    rules = Rules({}, {}, {}, {}, {})
    for line in body.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) != 4 or cells[0] == "kind" or set(cells[0]) == {"-"}:
            continue
        kind, what, home, reason = cells
        names = re.findall(r"`([^`]+)`", what)
        if kind.startswith("floor "):
            rules.floors.update(dict.fromkeys(names, int(kind[6:])))
            rules.reasons.update(dict.fromkeys(names, reason))
            continue
        homes = ("",) if home == "everywhere" else tuple(re.findall(r"`([^`]+)`", home))
        table = {"package": rules.packages, "module": rules.modules, "name": rules.names}[kind]
        table.update(dict.fromkeys(names, Rule(homes, reason)))
    return rules


def module_name(path: Path, root: Path) -> str:
    parts = (root.name, *path.relative_to(root).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


class Import(NamedTuple):
    """A thing that is imported, and what the module calls it."""

    what: str
    line: int
    local: str = ""
    bound: str = ""


def imported(tree: ast.AST, module: str, *, package: bool) -> Iterator[Import]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                # `import os.path` binds `os`; `import os.path as p` binds the whole.
                bound = alias.name if alias.asname else alias.name.split(".")[0]
                yield Import(alias.name, node.lineno, alias.asname or bound, bound)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                keep = len(parts) - node.level + (1 if package else 0)
                base = ".".join([*parts[:keep], *([base] if base else [])])
            for alias in node.names:
                what = f"{base}.{alias.name}"
                yield Import(what, node.lineno, alias.asname or alias.name, what)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield Import(argument.value, node.lineno)


def uses(path: Path, root: Path) -> tuple[list[Import], list[Use]]:
    """Give what a module imports, and every dotted name in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = list(imported(tree, module_name(path, root), package=path.stem == "__init__"))
    local = {found.local: found.bound for found in imports if found.local}
    names = [Use(found.what, found.line) for found in imports]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, _, rest = ast.unparse(node).partition(".")
            if first in local:
                names.append(Use(f"{local[first]}.{rest}", node.lineno))
    return imports, names


def at_home(place: str, homes: tuple[str, ...]) -> bool:
    return any(home in ("", place) or place.startswith(f"{home}/") for home in homes)


def within(what: str, rules: Mapping[str, Rule]) -> Rule | None:
    """Find the rule of a dotted path, or of the package that it lies in."""
    parts = what.split(".")
    keys = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((rules[key] for key in keys if key in rules), None)


def broken_floor(room: str, what: str, rules: Rules) -> str | None:
    parts = what.split(".")
    target = parts[1] if len(parts) > 1 else ""
    if target not in rules.floors:
        return "a module names the room it means: `loom/__init__.py` only re-exports"
    if target == room or rules.floors[target] < rules.floors[room]:
        return None
    level = "the same floor" if rules.floors[target] == rules.floors[room] else "a higher floor"
    return f"{target} is on {level}: imports only go down ({target}: {rules.reasons[target]})"


def broken_import(place: str, what: str, rules: Rules) -> str | None:
    rule = within(what, rules.modules)
    if rule is None and what.partition(".")[0] not in sys.stdlib_module_names:
        rule = within(what, rules.packages)
        if rule is None:
            return "a third-party package that the table does not list"
    if rule is None or at_home(place, rule.homes):
        return None
    return f"its home is {', '.join(rule.homes) or 'nowhere'}: {rule.reason}"


def violations(root: Path, rules: Rules) -> list[str]:
    """Give every broken rule of a source tree, one line each, with the reason."""
    broken = []
    for path in sorted(root.rglob("*.py")):
        place = path.relative_to(root).as_posix()
        if place == "__init__.py":
            continue
        room = place.split("/")[0].removesuffix(".py")
        if room not in rules.floors:
            broken.append(f"{place}:1: the room {room!r} stands on no floor of the table")
            continue
        imports, names = uses(path, root)
        for what, line, *_ in imports:
            ours = what.partition(".")[0] == root.name
            reason = broken_floor(room, what, rules) if ours else broken_import(place, what, rules)
            if reason:
                broken.append(f"{place}:{line}: imports {what}: {reason}")
        for what, line in names:
            rule = rules.names.get(what)
            if rule and not at_home(place, rule.homes):
                homes = ", ".join(rule.homes) or "nowhere"
                broken.append(f"{place}:{line}: uses {what}: its home is {homes}: {rule.reason}")
    return broken


def at_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Give the statements that run when a module is imported: no function, no `TYPE_CHECKING`."""
    for node in body:
        match node:
            case ast.If(test=test, body=then, orelse=other):
                yield from at_import(
                    other if "TYPE_CHECKING" in ast.unparse(test) else then + other
                )
            case ast.Try(body=then, handlers=handlers, orelse=other):
                yield from at_import(then + other)
                for handler in handlers:
                    yield from at_import(handler.body)
            case ast.Import() | ast.ImportFrom():
                yield node
            case _:
                pass


def import_graph(root: Path, *, lazily: bool) -> dict[str, set[str]]:
    """
    Give for each module the modules of the same tree that it imports; the top package apart.

    Args:
        root: The tree.
        lazily: Whether imports inside functions, and those for type checkers, count.
    """
    paths = {module_name(path, root): path for path in root.rglob("*.py")}
    graph = {}
    for name, path in paths.items():
        if name == root.name:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not lazily:
            tree.body = list(at_import(tree.body))
        targets = {found.what for found in imported(tree, name, package=path.stem == "__init__")}
        targets |= {what.rpartition(".")[0] for what in targets}
        graph[name] = {t for t in targets if t in paths and t not in (name, root.name)}
    return graph


def longest_chain(graph: Mapping[str, set[str]]) -> list[str]:
    """
    Give the longest chain of imports.

    Raises:
        ValueError: With the modules of a cycle, if there is one.
    """
    best: dict[str, list[str]] = {}

    def visit(module: str, above: tuple[str, ...]) -> list[str]:
        if module in above:
            raise ValueError(" -> ".join((*above[above.index(module) :], module)))
        if module not in best:
            below = [visit(target, (*above, module)) for target in sorted(graph[module])]
            best[module] = [module, *max(below, key=len, default=[])]
        return best[module]

    return max((visit(module, ()) for module in sorted(graph)), key=len, default=[])


RULES = read_rules(TABLE)


def test_every_module_keeps_to_the_table() -> None:
    """No module imports or uses what the table does not give it."""
    assert [] == violations(SOURCE, RULES)


def test_the_rooms_on_disk_are_the_rooms_of_the_table() -> None:
    """The table lists every room that exists and no other."""
    rooms = {path.relative_to(SOURCE).parts[0] for path in SOURCE.rglob("*.py")}
    on_disk = {room.removesuffix(".py") for room in rooms - {"__init__.py", "__main__.py"}}

    assert set(RULES.floors) == on_disk


def test_the_picture_shows_the_rooms_of_the_table() -> None:
    """The picture at the head of the document and the table agree on every floor."""
    picture = TABLE.split("```")[1]
    drawn = {
        room: int(line.split()[0])
        for line in picture.strip().splitlines()
        for room in line.split()[2:]
        if room in RULES.floors
    }

    assert RULES.floors == drawn


def test_homes_of_the_table_exist() -> None:
    """A home that was renamed is renamed in the table too."""
    rules = [*RULES.packages.values(), *RULES.modules.values(), *RULES.names.values()]
    homes = {home for rule in rules for home in rule.homes if home}

    assert [] == sorted(home for home in homes if not (SOURCE / home).exists())


def test_no_cycle() -> None:
    """No module needs itself, not even by an import inside a function."""
    assert longest_chain(import_graph(SOURCE, lazily=True))


def test_no_long_chain() -> None:
    """No chain of imports is longer than the design allows."""
    chain = longest_chain(import_graph(SOURCE, lazily=False))

    assert len(chain) <= LONGEST_CHAIN, " -> ".join(chain)


PLANTED = [
    pytest.param("core/words.py", "import loom.wire.sse", "a higher floor", id="up"),
    pytest.param(
        "core/words.py", "def f():\n    from loom.wire import sse", "higher", id="up-lazily"
    ),
    pytest.param(
        "wire/sse.py", "from ..providers import wired", "a higher floor", id="up-relative"
    ),
    pytest.param("layers/retry.py", "from loom.providers.wired import W", "same floor", id="side"),
    pytest.param("server/app.py", "from loom.config import load", "same floor", id="side-houses"),
    pytest.param(
        "client/aio.py", "from loom import Mistral", "names the room", id="through-the-roof"
    ),
    pytest.param("cli/main.py", "import loom", "names the room", id="through-the-roof-whole"),
    pytest.param("garden/rose.py", "", "stands on no floor", id="unknown-room"),
    pytest.param("cli/ping.py", "import numpy", "does not list", id="unknown-package"),
    pytest.param("core/words.py", "import loom_extra", "does not list", id="look-alike-package"),
    *(
        pytest.param("wire/sse.py", f"import {package}", rule.reason, id=f"package-{package}")
        for package, rule in RULES.packages.items()
        if not at_home("wire/sse.py", rule.homes)
    ),
    *(
        pytest.param("core/words.py", f"import {module}", rule.reason, id=f"module-{module}")
        for module, rule in RULES.modules.items()
    ),
    *(
        pytest.param("wire/sse.py", planted, rule.reason, id=f"name-{name}-{form}")
        for name, rule in RULES.names.items()
        for form, planted in (
            ("dotted", f"import {name.split('.')[0]}\nx = {name}"),
            ("from", f"from {name.rpartition('.')[0]} import {name.rpartition('.')[2]}"),
        )
        # `from datetime.datetime import now` is not Python: a class is no module.
        if form == "dotted" or name.count(".") == 1
    ),
    pytest.param("wire/sse.py", "import os as o\nk = o.environ['K']", "environment", id="alias"),
    pytest.param("wire/sse.py", "from os import environ as e", "environment", id="from-alias"),
    pytest.param(
        "wire/sse.py", "from datetime import datetime as d\nn = d.now()", "Clock", id="class"
    ),
    pytest.param(
        "wire/sse.py", "import importlib\nimportlib.import_module('time')", "Clock", id="by-string"
    ),
]


@pytest.mark.parametrize(("place", "source", "reason"), PLANTED)
def test_a_planted_violation_is_found(tmp_path: Path, place: str, source: str, reason: str) -> None:
    """Each rule of the table fails with its reason when it is broken."""
    planted = tmp_path / "loom" / place
    planted.parent.mkdir(parents=True)
    planted.write_text(source, encoding="utf-8")

    broken = violations(tmp_path / "loom", RULES)

    assert 1 == len(broken), broken
    assert broken[0].startswith(f"{place}:")
    assert reason in broken[0]


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("core/ambient.py", "import time, random, asyncio\nasyncio.sleep(1)"),
        ("config/load.py", "import os, tomllib, tomlkit\nos.environ"),
        ("wire/sse.py", "from loom.core.events import Completed\nimport msgspec, json, asyncio"),
        ("wire/mistral/chat.py", "from loom.wire import sse\nfrom .. import ndjson"),
        ("cli/main.py", "import rich.console\nfrom loom.client.aio import AsyncMistral"),
    ],
)
def test_what_the_table_allows_passes(tmp_path: Path, place: str, source: str) -> None:
    """A room may have what the table gives it."""
    allowed = tmp_path / "loom" / place
    allowed.parent.mkdir(parents=True)
    allowed.write_text(source, encoding="utf-8")

    assert [] == violations(tmp_path / "loom", RULES)


def test_a_planted_cycle_is_found(tmp_path: Path) -> None:
    """Two modules that import each other are named, though both stand in one room."""
    room = tmp_path / "loom" / "wire"
    room.mkdir(parents=True)
    (room / "a.py").write_text("from loom.wire import b", encoding="utf-8")
    (room / "b.py").write_text("def f():\n    import loom.wire.a", encoding="utf-8")

    with pytest.raises(ValueError, match=r"loom\.wire\.a -> loom\.wire\.b -> loom\.wire\.a"):
        longest_chain(import_graph(tmp_path / "loom", lazily=True))


def test_a_planted_long_chain_is_measured(tmp_path: Path) -> None:
    """A chain of ten modules counts as ten."""
    room = tmp_path / "loom" / "wire"
    room.mkdir(parents=True)
    for n in range(LONGEST_CHAIN + 1):
        (room / f"m{n}.py").write_text(f"import loom.wire.m{n + 1}", encoding="utf-8")

    chain = longest_chain(import_graph(tmp_path / "loom", lazily=False))

    assert LONGEST_CHAIN + 1 == len(chain)
