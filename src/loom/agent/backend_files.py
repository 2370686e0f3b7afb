"""A folder of files for an agent: one root, and no way out of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from loom.agent.backend import Capabilities, Found, QueryResult, Resource
from loom.agent.backend_bounds import checked
from loom.agent.backend_thread import Stop, apart
from loom.agent.files import read, write
from loom.agent.files.bounds import FileBounds, Watch
from loom.agent.files.walk import Tree
from loom.core.ambient import Clock, SystemClock
from loom.core.errors import ToolFailed

__all__ = ["FilesBackend"]

T = TypeVar("T")


class FilesBackend:
    """
    A folder of files as what an agent's tools act on.

        FilesBackend("notes")

    No path leads out of the folder: every name is opened from the folder before it, and never
    through a link. Only ordinary files are opened. Not for Windows, which cannot promise that.

    Args:
        root: The folder.
        name: What the model calls it; the folder's own name if None.
        read_only: Whether nothing can be written or deleted.
        hidden: Whether names that begin with a dot are there.
        max_bytes: Bytes of text that reading gives, at least 1.
        max_entries: Files and folders in a list, at least 1.
        max_found: Lines that a search gives, at least 1.
        max_searched_bytes: Bytes that a search looks at, at least 1.
        max_visited: Files and folders that a list or a search looks at, at least 1.
        max_file_bytes: Bytes of a file that is written, at least 1.
        max_schema_chars: Characters of the list of files for a prompt.
        timeout_s: Seconds for one operation.
        clock: Tells the time.

    Raises:
        ConfigInvalid: If it is no folder, a cap is too small, or the system cannot keep to it.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        name: str | None = None,
        read_only: bool = True,
        hidden: bool = False,
        max_bytes: int = 32_768,
        max_entries: int = 500,
        max_found: int = 100,
        max_searched_bytes: int = 67_108_864,
        max_visited: int = 20_000,
        max_file_bytes: int = 1_048_576,
        max_schema_chars: int = 4000,
        timeout_s: float = 10.0,
        clock: Clock | None = None,
    ) -> None:
        self._tree = Tree(root, hidden=hidden)
        self._name = name or self._tree.name
        self._read_only = read_only
        self._schema_chars = max_schema_chars
        self._bounds = checked(
            FileBounds(
                max_bytes=max_bytes,
                max_entries=max_entries,
                max_found=max_found,
                max_searched_bytes=max_searched_bytes,
                max_visited=max_visited,
                max_file_bytes=max_file_bytes,
                timeout_s=timeout_s,
            )
        )
        self._clock = clock or SystemClock()
        self._stops: set[Stop] = set()
        self._closed = False

    def __repr__(self) -> str:
        """Its name and whether it may write; not where it lies."""
        return f"FilesBackend(name={self._name!r}, read_only={self._read_only})"

    @property
    def name(self) -> str:
        """What people and the model call it."""
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        """A query is a path; writing only if it was allowed."""
        return Capabilities(write=not self._read_only, language="path")

    @property
    def timeout_s(self) -> float:
        """Seconds for one operation."""
        return self._bounds.timeout_s

    async def execute_query(self, query: str, parameters: Sequence[Any] = ()) -> QueryResult:
        """
        Look at a path: the lines of a file, or what is in a folder.

        Args:
            query: The path.
            parameters: None.

        Returns:
            The columns `line` and `text`, or `path`, `kind` and `bytes`.

        Raises:
            ToolError: If it is not there, or no text.
        """
        if parameters:
            raise ToolFailed("a path takes no parameters", attempts=0)
        begun_s = self._clock.monotonic_s()

        def look(watch: Watch) -> QueryResult:
            tree, bounds = self._tree, self._bounds
            if tree.look(tree.parts(query)).is_folder:
                return read.listed(tree, query, bounds, watch, pattern="*", recursive=False)
            lines, more = read.read(tree, query, bounds, watch, offset=1, limit=None)
            rows = tuple(enumerate(lines, 1))
            return QueryResult(
                columns=("line", "text"), rows=rows, truncated=bool(more), reason=more
            )

        result = await self._apart(look)
        return msgspec.structs.replace(result, duration_s=self._clock.monotonic_s() - begun_s)

    async def get_schema(self, resource: str | None = None) -> str:
        """
        Tell what files there are.

        Args:
            resource: A folder or a file; None for the root.

        Returns:
            A line for each, of all folders if they fit, else of the first one.

        Raises:
            ToolError: If it is not there.
        """

        def look(watch: Watch) -> str:
            tree, path = self._tree, resource or ""
            entry = tree.look(tree.parts(path))
            if not entry.is_folder:
                return f"{entry.path} ({entry.size:,} bytes)"
            for recursive in (True, False):
                found = read.listed(
                    tree, path, self._bounds, watch, pattern="*", recursive=recursive
                )
                lines = [f"{one[0]}/" if one[1] == "folder" else str(one[0]) for one in found.rows]
                text = "\n".join(lines)
                if not found.truncated and len(text) <= self._schema_chars:
                    return text or "There are no files."
            note = "\n[cut: list_files tells more]"
            return text[: max(0, self._schema_chars - len(note))].rpartition("\n")[0] + note

        return await self._apart(look)

    async def list_resources(self) -> tuple[Resource, ...]:
        """List files and folders, sorted by path, as many as a list has."""
        found = await self.list_files(recursive=True)
        every = [
            Resource(
                name=path, kind=kind, description="" if kind == "folder" else f"{size:,} bytes"
            )
            for path, kind, size in found.rows
        ]
        return tuple(sorted(every, key=lambda one: one.name))

    async def get_metadata(self, resource: str) -> Mapping[str, Any]:
        """
        Tell what is known of a file or a folder.

        Args:
            resource: Its path.

        Returns:
            `name` and `kind`; of a file `bytes`, `modified_at` and whether it is `text` too.

        Raises:
            ToolError: If it is not there.
        """

        def look(_: Watch) -> dict[str, Any]:
            entry = self._tree.look(self._tree.parts(resource))
            if entry.is_folder:
                return {"name": entry.path, "kind": "folder"}
            modified = datetime.fromtimestamp(entry.modified_s, UTC)
            return {
                "name": entry.path,
                "kind": "file",
                "bytes": entry.size,
                "modified_at": modified.isoformat(timespec="seconds"),
                "text": read.is_text(self._tree, entry.parts),
            }

        return await self._apart(look)

    async def ping(self) -> None:
        """
        Open the folder.

        Raises:
            ToolError: If it is gone.
        """

        def look(_: Watch) -> None:
            with self._tree.folder(()):
                pass

        await self._apart(look)

    async def close(self) -> None:
        """End what runs; later operations are refused."""
        self._closed = True
        for stop in tuple(self._stops):
            stop.set()

    async def list_files(
        self, folder: str = "", *, pattern: str = "*", recursive: bool = False
    ) -> QueryResult:
        """
        List files and folders.

        Args:
            folder: Whose; empty for the root.
            pattern: What names must look like, or paths if there is a `/` in it.
            recursive: Whether the folders below are listed too.

        Returns:
            The columns `path`, `kind` and `bytes`.

        Raises:
            ToolError: If the folder is not there.
        """
        return await self._apart(
            lambda watch: read.listed(
                self._tree, folder, self._bounds, watch, pattern=pattern, recursive=recursive
            )
        )

    async def read_file(self, path: str, *, offset: int = 1, limit: int | None = None) -> str:
        """
        Give lines of a text file.

        Args:
            path: The file's.
            offset: The first line, from 1.
            limit: How many lines; None for as many as fit.

        Returns:
            The lines; a last one in brackets tells how to go on if there are more.

        Raises:
            ToolError: If it is not there, or no text.
        """
        lines, more = await self._apart(
            lambda watch: read.read(
                self._tree, path, self._bounds, watch, offset=offset, limit=limit
            )
        )
        return "\n".join([*lines, f"[cut: {more}]"] if more else lines)

    async def search_files(
        self, text: str, *, folder: str = "", pattern: str = "*"
    ) -> tuple[tuple[Found, ...], str]:
        """
        Find lines that hold a text; capital letters do not matter.

        Args:
            text: Plain text within one line.
            folder: Where; empty for the root.
            pattern: What names must look like, or paths if there is a `/` in it.

        Returns:
            The lines, and why there may be more; empty if there is not.

        Raises:
            ToolError: If the folder is not there.
        """
        return await self._apart(
            lambda watch: read.searched(
                self._tree, text, self._bounds, watch, folder=folder, pattern=pattern
            )
        )

    async def write_file(self, path: str, text: str) -> None:
        """
        Make a file, or put another in its place, whole or not at all.

        Args:
            path: The file's; folders that are not there are made.
            text: What is written, as UTF-8.

        Raises:
            ToolError: If the backend only reads, it is too long, or something else stands there.
        """
        await self._changing(lambda: write.write(self._tree, path, text, self._bounds))

    async def append_file(self, path: str, text: str) -> None:
        """
        Add to the end of a file; make it if it is not there.

        Args:
            path: The file's.
            text: What is added, as UTF-8.

        Raises:
            ToolError: If the backend only reads, or it would be too long.
        """
        await self._changing(lambda: write.append(self._tree, path, text, self._bounds))

    async def delete_file(self, path: str) -> None:
        """
        Delete a file; folders are not deleted.

        Args:
            path: The file's.

        Raises:
            ToolError: If the backend only reads, or it is not there.
        """
        await self._changing(lambda: write.delete(self._tree, path))

    async def _changing(self, change: Callable[[], None]) -> None:
        if self._read_only:
            raise ToolFailed(f"{self._name} is read-only", attempts=0)
        await self._apart(lambda _: change())

    async def _apart(self, look: Callable[[Watch], T]) -> T:
        if self._closed:
            raise RuntimeError(f"the backend {self._name!r} is closed")

        def work(stop: Stop) -> T:
            try:
                return look(Watch(self._bounds, self._clock, stop))
            except OSError as error:
                said = (error.strerror or "cannot be read").lower()
                raise ToolFailed(f"{self._name}: {said}", attempts=0) from None

        limit_s = self._bounds.timeout_s
        return await apart(work, stops=self._stops, name="loom-files", limit_s=limit_s)
