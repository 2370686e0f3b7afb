"""`__all__` is exactly what is public."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import loom

SOURCE = Path(__file__).resolve().parents[1] / "src" / "loom"
MODULES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def defined(body: list[ast.stmt]) -> Iterator[str]:
    """Give the names that a module makes itself; what it imports is not its own."""
    for node in body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                yield name
            case ast.AsyncFunctionDef(name=name):
                yield name
            case ast.Assign(value=ast.Call(func=ast.Name(id="TypeVar" | "ParamSpec"))):
                pass  # is for annotations alone
            case ast.Assign(targets=targets):
                yield from (target.id for target in targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.If(body=then, orelse=other):
                yield from defined(then)
                yield from defined(other)
            case _:
                pass


def exported(tree: ast.Module) -> list[str]:
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                names: list[str] = ast.literal_eval(value)
                return names
            case _:
                pass
    return []


def imported(tree: ast.Module) -> set[str]:
    blocks = [node.body for node in tree.body if isinstance(node, ast.If)]
    return {
        alias.asname or alias.name
        for body in [tree.body, *blocks]
        for node in body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_a_module_exports_its_public_names(path: Path) -> None:
    """
    A module's `__all__` lists each public name that it defines, perhaps some that it imports.

    That it is sorted is ruff's to see (RUF022).
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    public = {name for name in defined(tree.body) if not name.startswith("_")}

    names = exported(tree)

    assert len(names) == len(set(names))
    assert public <= set(names)
    assert set(names) <= public | imported(tree)


def test_every_public_name_of_the_package_is_there() -> None:
    """Each name in `loom.__all__` resolves, and `dir` shows it."""
    for name in loom.__all__:
        assert getattr(loom, name) is not None
        assert name in dir(loom)


def test_type_checkers_and_python_find_the_same_names() -> None:
    """The imports for type checkers and the table of lazy imports name the same things."""
    tree = ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8"))
    for_checkers = {
        (node.module, alias.name)
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for_python = {(home, name) for home, names in loom._HOMES.items() for name in names}

    assert for_checkers == for_python
    assert set(loom.__all__) == {name for _, name in for_python} | {"__version__"}


def test_a_wrong_name_of_the_package_is_an_attribute_error() -> None:
    """A name that does not exist is refused as Python does."""
    with pytest.raises(AttributeError, match="Mistrall"):
        _ = loom.Mistrall  # type: ignore[attr-defined]  # the misspelling is the test
