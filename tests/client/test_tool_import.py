"""Tools by the name of where they are: modules, files, and what is wrong with a name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from loom.client.tool_import import import_tools, parse_tool_name
from loom.core.errors import ConfigInvalid
from loom.shuttle.tool import Tool

CODE = '''
from loom import mcp, tool

@tool
def look_up(word: str) -> str:
    """Look a word up."""
    return word

again = look_up

@tool
async def add(a: int, b: int) -> int:
    """Add."""
    return a + b

@tool
def _hidden() -> None:
    """Nobody sees this."""

class Box:
    inner = look_up

server = mcp("some-server")

def plain() -> None: ...
'''


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a folder with modules, and forget them afterwards."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop_tools.py").write_text(CODE)
    (tmp_path / "json.py").write_text(CODE)
    (tmp_path / "broken_tools.py").write_text("import not_there_at_all\n")
    (tmp_path / "leaving_tools.py").write_text("raise SystemExit('no')\n")
    (tmp_path / "shop_box").mkdir()
    (tmp_path / "shop_box" / "__init__.py").write_text("")
    (tmp_path / "shop_box" / "inner.py").write_text(CODE)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def names(text: str, folder: Path | None = None) -> list[str]:
    return [each.name for each in import_tools(text, folder=folder)]  # type: ignore[union-attr] # servers have names too


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("shop_tools:look_up", ["look_up"]),
        ("shop_tools:Box.inner", ["look_up"]),
        ("shop_tools:server", ["some-server"]),
        ("shop_tools", ["look_up", "add"]),
        ("shop_box.inner:add", ["add"]),
        ("shop_tools.py:add", ["add"]),
        ("./shop_box/inner.py", ["look_up", "add"]),
        ("json.py:add", ["add"]),
    ],
)
def test_where_tools_are(text: str, expected: list[str]) -> None:
    """A function, an attribute of one, a source of tools, or all tools of a module or a file."""
    assert expected == names(text)


def test_a_file_does_not_hide_a_module() -> None:
    """A file that is called as a module of the standard library leaves that one alone."""
    import json

    import_tools("json.py")
    assert sys.modules["json"] is json


def test_a_file_is_one_module() -> None:
    """Two names of one file give the same tools."""
    assert import_tools("json.py:add") == import_tools("./json.py:add")


def test_another_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Paths begin there, and modules are looked for there first."""
    other = tmp_path_factory.mktemp("other")
    (other / "only_here.py").write_text(CODE)
    assert ["add"] == names("only_here.py:add", other)
    assert ["add"] == names("only_here:add", other)
    del folder


def test_a_tool_of_a_file_knows_its_types(folder: Path) -> None:
    """Annotations are found by the module that the file became."""
    (folder / "typed.py").write_text(
        "from __future__ import annotations\n"
        "from uuid import UUID\nfrom loom import tool\n\n"
        "@tool\ndef find(key: UUID) -> str:\n    return type(key).__name__\n"
    )
    (found,) = import_tools("typed.py:find")
    assert isinstance(found, Tool)
    assert "UUID" == found.execute({"key": str(UUID(int=1))})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("shop_tols:add", "there is no module 'shop_tols': did you mean 'shop_tools'?"),
        ("shop_box.outer:add", "there is no module 'shop_box.outer'"),
        ("nothing_like_it", "there is no module 'nothing_like_it'"),
        ("shop_tools:ad", "'shop_tools' has no 'ad': did you mean 'add'?"),
        ("shop_tools:Box.outer", "'shop_tools' has no 'Box.outer'"),
        ("shop_tools:plain", "'shop_tools:plain' is a function, not a tool"),
        ("shop_tools:Box", "'shop_tools:Box' is a class, not a tool"),
        ("string", "'string' has no tools"),
        ("shop_tols.py:add", "did you mean 'shop_tools.py'?"),
        ("broken_tools", "'broken_tools' cannot be imported: ModuleNotFoundError: "),
        ("broken_tools.py", "cannot be imported: ModuleNotFoundError: "),
        ("leaving_tools:x", "'leaving_tools' cannot be imported: SystemExit: no"),
        ("a-b:c", "'a-b:c' names no tool"),
        ("shop_tools:", "names no tool"),
        (":add", "names no tool"),
        ("shop_tools:a b", "names no tool"),
    ],
)
def test_what_is_wrong_with_a_name(text: str, words: str) -> None:
    """The module, the name or the thing is what it says, with the nearest right one."""
    with pytest.raises(ConfigInvalid) as caught:
        import_tools(text)
    assert words in caught.value.message


def test_a_broken_file_is_imported_anew(folder: Path) -> None:
    """What could not be imported is no module: it may be mended."""
    with pytest.raises(ConfigInvalid):
        import_tools("broken_tools.py")
    (folder / "broken_tools.py").write_text(CODE)
    assert ["look_up", "add"] == names("broken_tools.py")


def test_a_name_is_parted_without_an_import() -> None:
    """Who only checks names runs no code."""
    assert ("some.where", "name") == parse_tool_name("some.where:name")
    assert ("C:\\tools\\x.py", "name") == parse_tool_name("C:\\tools\\x.py:name")
    assert ("x.py", "") == parse_tool_name("x.py")
