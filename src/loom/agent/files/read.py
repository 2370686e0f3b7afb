"""Lists, lines and searches, each within its caps."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import BinaryIO

from loom.agent.backend import Found, QueryResult
from loom.agent.files.bounds import FileBounds, Watch
from loom.agent.files.walk import Entry, Parts, Tree
from loom.core.errors import ToolFailed

__all__ = ["entries", "is_text", "listed", "read", "searched"]

_HEAD = 8192  # as git does: a null in the beginning makes a file binary
_LONGEST_LINE = 1_048_576
_SHOWN_LINE = 2000
_AROUND = 100
_BOM = b"\xef\xbb\xbf"


def entries(
    tree: Tree, parts: Parts, bounds: FileBounds, watch: Watch, *, recursive: bool
) -> Iterator[Entry]:
    """
    Files and folders of a folder, one after another.

    Args:
        tree: Where.
        parts: The folder's path.
        bounds: With how many are looked at; beyond it the last entry has no names.
        watch: Ends it.
        recursive: Whether the folders below are looked into.
    """
    visited = 0
    waiting = [parts]
    while waiting:
        here = waiting.pop()
        watch.look()
        try:
            with tree.folder(here) as descriptor:
                found = tree.inside(descriptor, here)
        except ToolFailed:
            if here == parts:
                raise
            continue  # gone, or not ours to read
        for entry in found:
            visited += 1
            if visited > bounds.max_visited:
                yield _END
                return
            yield entry
        if recursive:
            waiting.extend(entry.parts for entry in reversed(found) if entry.is_folder)


_END = Entry(parts=(), is_folder=True, size=0, modified_s=0.0)


def listed(
    tree: Tree, folder: str, bounds: FileBounds, watch: Watch, *, pattern: str, recursive: bool
) -> QueryResult:
    """
    Paths, kinds and sizes.

    Args:
        tree: Where.
        folder: The folder's path.
        bounds: The caps.
        watch: Ends it.
        pattern: What names, or paths if there is a `/` in it, must look like.
        recursive: Whether the folders below are listed too.

    Returns:
        The columns `path`, `kind`, `bytes`.
    """
    rows: list[tuple[str, str, int]] = []
    reason = ""
    for entry in entries(tree, tree.parts(folder), bounds, watch, recursive=recursive):
        if entry is _END:
            reason = f"only {bounds.max_visited:,} files were looked at; name a smaller folder"
            break
        if not _fits(entry, pattern):
            continue
        if len(rows) == bounds.max_entries:
            reason = f"only the first {len(rows):,} are shown; name a folder or a pattern"
            break
        rows.append((entry.path, "folder" if entry.is_folder else "file", entry.size))
    return QueryResult(
        columns=("path", "kind", "bytes"),
        rows=tuple(rows),
        truncated=bool(reason),
        reason=reason,
    )


def read(
    tree: Tree, path: str, bounds: FileBounds, watch: Watch, *, offset: int, limit: int | None
) -> tuple[list[str], str]:
    """
    Lines of a text file.

    Args:
        tree: Where.
        path: The file's.
        bounds: The caps.
        watch: Ends it.
        offset: The first line, from 1.
        limit: How many lines; None for as many as fit.

    Returns:
        The lines, and how to go on; empty if there is nothing more.

    Raises:
        ToolFailed: If it is no text.
    """
    if offset < 1 or (limit is not None and limit < 1):
        raise ToolFailed("offset and limit are numbers of lines, from 1", attempts=0)
    lines: list[str] = []
    left = bounds.max_bytes
    with tree.file(tree.parts(path)) as descriptor, _reader(descriptor) as file:
        if not _is_text(file):
            size = os.fstat(descriptor).st_size
            raise ToolFailed(f"{path!r} is no text: {size:,} bytes", attempts=0)
        number = 0
        for line in _lines(file, watch):
            number += 1
            if number < offset:
                continue
            text = _shown(line)
            left -= len(text.encode("utf-8")) + 1
            if len(lines) == limit or (left < 0 and lines):
                return lines, f"there are more lines; go on with offset={number}"
            lines.append(text)
    if not lines and offset > max(number, 1):
        raise ToolFailed(f"{path!r} has {number:,} lines only", attempts=0)
    return lines, ""


def searched(
    tree: Tree, text: str, bounds: FileBounds, watch: Watch, *, folder: str, pattern: str
) -> tuple[tuple[Found, ...], str]:
    """
    Lines that hold a text, capital letters aside.

    No pattern language: `re` can take time without end for a few letters, and holds every other
    thread meanwhile.

    Args:
        tree: Where.
        text: What to look for.
        bounds: The caps.
        watch: Ends it.
        folder: The folder's path.
        pattern: What names must look like.

    Returns:
        What was found, and why there may be more; empty if there is not.
    """
    if not text or "\n" in text:
        raise ToolFailed("give a text within one line to look for", attempts=0)
    needle = text.casefold()
    found: list[Found] = []
    left = bounds.max_searched_bytes
    for entry in entries(tree, tree.parts(folder), bounds, watch, recursive=True):
        if entry is _END:
            return tuple(found), f"only {bounds.max_visited:,} files were looked at"
        if entry.is_folder or not _fits(entry, pattern):
            continue
        left -= entry.size
        if left < 0:
            return tuple(found), f"only {bounds.max_searched_bytes:,} bytes were looked at"
        for one in _found_in(tree, entry, needle, watch):
            if len(found) == bounds.max_found:
                return tuple(found), f"only the first {len(found):,} lines are shown"
            found.append(one)
    return tuple(found), ""


def _found_in(tree: Tree, entry: Entry, needle: str, watch: Watch) -> Iterator[Found]:
    try:
        with tree.file(entry.parts) as descriptor, _reader(descriptor) as file:
            if not _is_text(file):
                return
            for number, line in enumerate(_lines(file, watch), 1):
                at = line.casefold().find(needle)
                if at >= 0:
                    yield Found(path=entry.path, line=number, text=_around(line, at))
    except ToolFailed:
        watch.look()
        return  # gone, or not ours to read


def is_text(tree: Tree, parts: Parts) -> bool:
    """
    Whether a file looks like text.

    Args:
        tree: Where.
        parts: The file's path.
    """
    with tree.file(parts) as descriptor, _reader(descriptor) as file:
        return _is_text(file)


def _reader(descriptor: int) -> BinaryIO:
    return os.fdopen(descriptor, "rb", closefd=False)


def _is_text(file: BinaryIO) -> bool:
    head = file.read(_HEAD)
    file.seek(len(_BOM) if head.startswith(_BOM) else 0)
    return b"\x00" not in head


def _lines(file: BinaryIO, watch: Watch) -> Iterator[str]:
    """Lines without their ends; of an endless one the beginning."""
    while line := file.readline(_LONGEST_LINE):
        watch.look()
        rest = line
        while len(rest) == _LONGEST_LINE and not rest.endswith(b"\n"):
            watch.look()
            rest = file.readline(_LONGEST_LINE)
        # What is not UTF-8 stays readable, and the text can be sent as JSON.
        yield line.decode("utf-8", "backslashreplace").rstrip("\r\n")


def _shown(line: str) -> str:
    if len(line) <= _SHOWN_LINE:
        return line
    return f"{line[:_SHOWN_LINE]}… (the line is longer)"


def _around(line: str, at: int) -> str:
    if len(line) <= 2 * _AROUND:
        return line
    start = max(0, at - _AROUND)
    end = min(len(line), at + _AROUND)
    return f"{'…' if start else ''}{line[start:end]}{'…' if end < len(line) else ''}"


def _fits(entry: Entry, pattern: str) -> bool:
    return fnmatchcase(entry.path if "/" in pattern else entry.parts[-1], pattern)
