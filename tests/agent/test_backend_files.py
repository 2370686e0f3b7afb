"""The files backend: lists, lines, searches, changes, and no way out of its root."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loom.agent.backend_files import FilesBackend
from loom.agent.files.walk import Tree
from loom.core.errors import ConfigInvalid, ToolError, ToolFailed, ToolTimedOut
from loom.testing import FakeClock

pytestmark = pytest.mark.anyio

SECRET = "the word is xyzzy"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give a folder with some files, and a secret beside it."""
    root = tmp_path / "notes"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "a.md").write_text("One.\nTwo is here.\nThree.\n", encoding="utf-8")
    (root / "deep" / "b.txt").write_text("Is TWO here?\n", encoding="utf-8")
    (root / "deep" / "er" / "c.md").write_text("no end of line", encoding="utf-8")
    (root / ".env").write_text(SECRET, encoding="utf-8")
    (root / "pic.png").write_bytes(b"\x89PNG\x00two")
    (tmp_path / "secret.txt").write_text(SECRET, encoding="utf-8")
    return root


async def test_files_are_listed(root: Path) -> None:
    """A list has paths, kinds and sizes; folders below only if wished; hidden names never."""
    backend = FilesBackend(root)

    flat = await backend.list_files()
    deep = await backend.list_files(recursive=True, pattern="*.md")
    below = await backend.list_files("deep", pattern="deep/*.txt")

    assert ("path", "kind", "bytes") == flat.columns
    assert (("a.md", "file", 25), ("deep", "folder", 0), ("pic.png", "file", 8)) == flat.rows
    assert ["a.md", "deep/er/c.md"] == [row[0] for row in deep.rows]
    assert ["deep/b.txt"] == [row[0] for row in below.rows]


async def test_lists_are_cut(root: Path) -> None:
    """Beyond a cap the list says so."""
    few = await FilesBackend(root, max_entries=1).list_files()
    short = await FilesBackend(root, max_visited=2).list_files(recursive=True)

    assert (1, True) == (len(few.rows), few.truncated)
    assert "only the first 1 are shown" in few.reason
    assert "only 2 files were looked at" in short.reason


async def test_lines_are_read(root: Path) -> None:
    """A file comes whole, or from a line on, and says where to go on."""
    backend = FilesBackend(root)

    assert "One.\nTwo is here.\nThree." == await backend.read_file("a.md")
    assert "Two is here.\n[cut: there are more lines; go on with offset=3]" == (
        await backend.read_file("a.md", offset=2, limit=1)
    )
    assert "Three." == await backend.read_file("./a.md", offset=3)
    assert "no end of line" == await backend.read_file("deep//er/c.md")
    with pytest.raises(ToolFailed, match="has 3 lines only"):
        await backend.read_file("a.md", offset=9)


async def test_long_texts_are_cut(root: Path) -> None:
    """Neither a long file nor an endless line passes the caps."""
    (root / "long.txt").write_text("line\n" * 100, encoding="utf-8")
    (root / "wide.txt").write_text("x" * 3_000_000 + "\nend\n", encoding="utf-8")
    backend = FilesBackend(root, max_bytes=50)

    long = await backend.read_file("long.txt")
    wide = await FilesBackend(root).read_file("wide.txt")

    assert "line\n" * 10 + "[cut: there are more lines; go on with offset=11]" == long
    assert "x" * 2000 + "… (the line is longer)\nend" == wide


async def test_odd_texts_survive(root: Path) -> None:
    """Bytes that are not UTF-8 stay readable, a mark at the beginning is left out."""
    (root / "odd.txt").write_bytes(b"\xef\xbb\xbfa\xff\r\nb\n")
    (root / "empty.txt").write_bytes(b"")

    assert "a\\xff\nb" == await FilesBackend(root).read_file("odd.txt")
    assert "" == await FilesBackend(root).read_file("empty.txt")


async def test_binary_files_are_not_read(root: Path) -> None:
    """A file with a null in its beginning is told by its size."""
    with pytest.raises(ToolFailed, match="is no text: 8 bytes"):
        await FilesBackend(root).read_file("pic.png")


async def test_texts_are_found(root: Path) -> None:
    """A search finds lines in text files, capital letters aside; nothing hidden."""
    found, reason = await FilesBackend(root).search_files("two")
    below, _ = await FilesBackend(root).search_files("TWO", folder="deep", pattern="*.txt")
    none, _ = await FilesBackend(root).search_files("xyzzy")

    assert [("a.md", 2, "Two is here."), ("deep/b.txt", 1, "Is TWO here?")] == [
        (one.path, one.line, one.text) for one in found
    ]
    assert not reason
    assert ["deep/b.txt"] == [one.path for one in below]
    assert not none


async def test_searches_are_cut(root: Path) -> None:
    """Lines, bytes and files are capped, and a long line is shown around what was found."""
    (root / "z.txt").write_text("e" * 5000 + "needle" + "e" * 5000, encoding="utf-8")

    few = await FilesBackend(root, max_found=1).search_files("e")
    small = await FilesBackend(root, max_searched_bytes=10).search_files("e")
    seen = await FilesBackend(root, max_visited=1).search_files("e")
    ((one,), _) = await FilesBackend(root).search_files("needle")

    assert (1, "only the first 1 lines are shown") == (len(few[0]), few[1])
    assert ((), "only 10 bytes were looked at") == small
    assert "only 1 files were looked at" == seen[1]
    assert "…" + "e" * 100 + "needle" + "e" * 94 + "…" == one.text


async def test_a_pattern_is_not_a_regular_expression(root: Path) -> None:
    """Letters of a pattern language stand for themselves."""
    (root / "p.txt").write_text("a.*(b+)+$\n", encoding="utf-8")

    found, _ = await FilesBackend(root).search_files(".*(b+)+$")

    assert ["p.txt"] == [one.path for one in found]
    for text in ("", "a\nb"):
        with pytest.raises(ToolFailed, match="within one line"):
            await FilesBackend(root).search_files(text)


async def test_a_query_is_a_path(root: Path) -> None:
    """A file gives numbered lines, a folder what is in it."""
    backend = FilesBackend(root)

    assert ((1, "One."), (2, "Two is here."), (3, "Three.")) == (
        (await backend.execute_query("a.md")).rows
    )
    assert ["deep/b.txt", "deep/er"] == [
        row[0] for row in (await backend.execute_query("deep")).rows
    ]
    with pytest.raises(ToolFailed, match="no parameters"):
        await backend.execute_query("a.md", [1])


async def test_the_schema_is_a_list(root: Path) -> None:
    """All paths if they fit, else those of the first folder, else as many as fit."""
    assert "a.md\ndeep/\npic.png\ndeep/b.txt\ndeep/er/\ndeep/er/c.md" == (
        await FilesBackend(root).get_schema()
    )
    assert "a.md\ndeep/\npic.png" == (await FilesBackend(root, max_schema_chars=20).get_schema())
    assert "\n[cut: list_files tells more]" == (
        await FilesBackend(root, max_schema_chars=5).get_schema()
    )
    assert "a.md (25 bytes)" == await FilesBackend(root).get_schema("a.md")
    assert "There are no files." == await FilesBackend(make(root / "none")).get_schema()


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


async def test_metadata_tell_what_a_file_is(root: Path) -> None:
    """Size, time and whether it is text."""
    os.utime(root / "a.md", (0, 0))

    assert {
        "name": "a.md",
        "kind": "file",
        "bytes": 25,
        "modified_at": "1970-01-01T00:00:00+00:00",
        "text": True,
    } == await FilesBackend(root).get_metadata("a.md")
    assert not (await FilesBackend(root).get_metadata("pic.png"))["text"]
    assert {"name": "deep", "kind": "folder"} == await FilesBackend(root).get_metadata("deep")


async def test_hidden_files_are_there_if_wished(root: Path) -> None:
    """With `hidden=True` names with a dot are files like others."""
    assert SECRET == await FilesBackend(root, hidden=True).read_file(".env")


async def test_files_are_written(root: Path) -> None:
    """Written whole, folders made, added to, deleted; rights of a replaced file are kept."""
    backend = FilesBackend(root, read_only=False)
    (root / "a.md").chmod(0o640)

    await backend.write_file("new/place/n.txt", "n")
    await backend.write_file("a.md", "whole")
    await backend.append_file("a.md", " and more")
    await backend.append_file("new/other.txt", "o")
    await backend.delete_file("pic.png")

    assert ["n", "whole and more", "o"] == [
        await backend.read_file(path) for path in ("new/place/n.txt", "a.md", "new/other.txt")
    ]
    assert 0o640 == (root / "a.md").stat().st_mode & 0o777
    assert not (root / "pic.png").exists()
    assert not list(root.rglob("*.tmp"))  # noqa: ASYNC240 - one look


async def test_a_reader_writes_nothing(root: Path) -> None:
    """Each change is refused."""
    backend = FilesBackend(root)
    for change in (
        backend.write_file("a.md", "x"),
        backend.append_file("a.md", "x"),
        backend.delete_file("a.md"),
    ):
        with pytest.raises(ToolFailed, match="notes is read-only"):
            await change

    assert (await backend.read_file("a.md")).startswith("One.")


async def test_what_is_written_is_capped(root: Path) -> None:
    """Neither a long text, nor one added to a long file, nor half a character is written."""
    backend = FilesBackend(root, read_only=False, max_file_bytes=30)
    for change, said in (
        (backend.write_file("x", "x" * 31), "longer than 30 bytes"),
        (backend.append_file("a.md", "x" * 6), "would be longer than 30 bytes"),
        (backend.write_file("x", "\ud800"), "lone surrogate"),
        (backend.write_file("", "x"), "name a file"),
        (backend.append_file("", "x"), "name a file"),
        (backend.delete_file(""), "name a file"),
        (backend.write_file("deep", "x"), "not an ordinary file"),
        (backend.append_file("deep", "x"), "not an ordinary file"),
        (backend.delete_file("deep"), "not an ordinary file"),
        (backend.write_file("a.md/x", "x"), "is no folder"),
        (backend.delete_file("none"), "there is no"),
    ):
        with pytest.raises(ToolFailed, match=said):
            await change


OUT = [
    "../secret.txt",
    "deep/../../secret.txt",
    "deep/../a.md",
    "..",
    "/etc/passwd",
    "//etc/passwd",
    "a\x00b",
    "a\nb",
    "\udcff",
    ".env",
    "deep/.git/config",
    "\u200b.env",
    ".\u200benv",
    "\u2024env",
    "\u2024\u2024/secret.txt",
    "\u2025/secret.txt",
    "x/" * 40,
    "x" * 300,
    "x" * 2000,
    "link",
    "linked/secret.txt",
    "up/secret.txt",
    "pipe",
    "door",
    "none",
    "a.md/b",
]


def with_traps(root: Path) -> Path:
    """Put links, a pipe and a socket into the folder."""
    (root / "link").symlink_to(root.parent / "secret.txt")
    (root / "linked").symlink_to(root.parent)
    (root / "up").symlink_to("..")
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as door:
        # A long path is none for a socket: it is bound from within the folder.
        here = Path.cwd()
        os.chdir(root)
        try:
            door.bind("door")
        finally:
            os.chdir(here)
    return root


@pytest.mark.parametrize("path", OUT)
async def test_no_path_leads_out(path: str, root: Path) -> None:
    """Whatever leads elsewhere, or is no ordinary file, is refused in every operation."""
    backend = FilesBackend(with_traps(root), read_only=False)
    for operation in (
        backend.read_file(path),
        backend.execute_query(path),
        backend.get_schema(path),
        backend.get_metadata(path),
        backend.list_files(path),
        backend.search_files("xyzzy", folder=path),
    ):
        with pytest.raises(ToolFailed) as caught:
            await operation
        assert str(root) not in caught.value.message
    if path not in ("none", "x/" * 40):
        for change in (backend.write_file(path, "x"), backend.append_file(path, "x")):
            with pytest.raises(ToolFailed):
                await change
    with pytest.raises(ToolFailed):
        await backend.delete_file(path)

    assert SECRET == text_of(root.parent / "secret.txt")


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


async def test_what_is_no_file_is_not_listed(root: Path) -> None:
    """Links, pipes, sockets and names with control characters are not there."""
    with_traps(root)
    (root / "odd\nname").write_text("x", encoding="utf-8")
    (root / os.fsdecode(b"bad\xff")).write_text("x", encoding="utf-8")

    listed = await FilesBackend(root).list_files()

    assert ["a.md", "deep", "pic.png"] == [row[0] for row in listed.rows]


async def test_a_hard_link_is_not_written_through(root: Path) -> None:
    """A file with a second name elsewhere is replaced and not changed, and not added to."""
    os.link(root.parent / "secret.txt", root / "twin")
    backend = FilesBackend(root, read_only=False)

    with pytest.raises(ToolFailed, match="second name"):
        await backend.append_file("twin", "x")
    await backend.write_file("twin", "mine")

    assert SECRET == text_of(root.parent / "secret.txt")
    assert "mine" == await backend.read_file("twin")


def test_a_race_with_a_link_leads_nowhere(root: Path) -> None:
    """While a folder and a link change places, no read ever leaves the root."""
    inside = root / "swap"
    inside.mkdir()
    (inside / "secret.txt").write_text("harmless", encoding="utf-8")
    (root / "trap").symlink_to(root.parent)
    tree = Tree(root, hidden=False)
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            for one, other in (("swap", "aside"), ("trap", "swap"), ("swap", "trap")):
                (root / one).rename(root / other)
            (root / "aside").rename(root / "swap")

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen = set()
    try:
        for _ in range(3000):
            try:
                with tree.file(("swap", "secret.txt")) as descriptor:
                    seen.add(os.read(descriptor, 100))
            except ToolFailed:
                continue
    finally:
        done.set()
        swapper.join()

    assert {b"harmless"} >= seen


def test_no_descriptor_is_left(root: Path) -> None:
    """Failed walks close what they opened."""
    with_traps(root)
    tree = Tree(root, hidden=False)
    before = len(list(Path("/dev/fd").iterdir()))
    for path in ("a.md", "deep/er/c.md", "deep/none/x", "link", "pipe", "linked/x", "deep"):
        try:
            with tree.file(tree.parts(path)):
                pass
        except ToolFailed:
            continue

    assert before == len(list(Path("/dev/fd").iterdir()))


async def test_what_takes_too_long_ends(root: Path) -> None:
    """The time cap ends a search."""

    class Hurried(FakeClock):
        """An hour later at each look."""

        def monotonic_s(self) -> float:
            self.advance(3600)
            return super().monotonic_s()

    with pytest.raises(ToolTimedOut, match="took longer than 10 s"):
        await FilesBackend(root, clock=Hurried()).search_files("two")


def move(folder: Path, to: Path) -> None:
    folder.rename(to)


async def test_a_folder_that_went_away_is_told(root: Path) -> None:
    """The model reads the backend's name, not where the folder lay."""
    backend = FilesBackend(root, name="Our notes")
    move(root, root.parent / "gone")

    with pytest.raises(ToolFailed, match=r"^Our notes: no such file or directory$"):
        await backend.ping()


@pytest.mark.parametrize(
    ("path", "said"),
    [("none", "no folder that can be read"), ("a.md", "no folder"), ("a\x00b", "null character")],
)
def test_what_is_no_folder_is_told_at_once(path: str, said: str, root: Path) -> None:
    """The constructor opens the folder, and names what is wrong with it."""
    with pytest.raises(ConfigInvalid, match=said):
        FilesBackend(root / path)


@pytest.mark.parametrize(("cap", "value"), [("max_bytes", 0), ("timeout_s", -1)])
def test_a_cap_that_cannot_be_kept_is_told(cap: str, value: int, root: Path) -> None:
    """The message names the cap."""
    with pytest.raises(ConfigInvalid, match=cap):
        FilesBackend(root, **{cap: value})  # type: ignore[arg-type]  # as the table has it


def test_a_system_without_openat_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no name can be opened from a folder, no backend is made."""
    monkeypatch.setattr(os, "supports_dir_fd", set())

    with pytest.raises(ConfigInvalid, match="openat"):
        FilesBackend(root)


PIECES = ["..", ".", "", "a.md", "deep", "b.txt", "link", "linked", "up", "secret.txt", "/", ".env"]


@pytest.fixture(scope="module")
def trapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give one folder with traps for all the paths that are tried."""
    root = tmp_path_factory.mktemp("trapped") / "notes"
    (root / "deep").mkdir(parents=True)
    (root / "a.md").write_text("a", encoding="utf-8")
    (root / "deep" / "b.txt").write_text("b", encoding="utf-8")
    (root / ".env").write_text(SECRET, encoding="utf-8")
    (root.parent / "secret.txt").write_text(SECRET, encoding="utf-8")
    return with_traps(root)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(path=st.one_of(st.text(), st.lists(st.sampled_from(PIECES)).map("/".join)))
def test_any_path_reads_inside_or_is_refused(path: str, trapped: Path) -> None:
    """Whatever the path, what is read lies inside, or it is a typed error."""
    tree = Tree(trapped, hidden=False)
    try:
        with tree.file(tree.parts(path)) as descriptor:
            assert os.read(descriptor, 100) in (b"a", b"b")
    except ToolError as error:
        assert str(trapped) not in error.message
