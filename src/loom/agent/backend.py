"""
What an agent's tools act on: a database, a folder of files, a service.

A backend says what it can do (`Capabilities`), what it holds (`Resource`) and answers queries
(`QueryResult`). `agent/backend_tools.py` makes tools of it. It only reads unless told otherwise,
and that is held by the backend itself, never by a look at the text of a query.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import msgspec

__all__ = [
    "Backend",
    "Capabilities",
    "FileOperations",
    "Found",
    "QueryResult",
    "ReadsApart",
    "Resource",
]


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a backend can do.

    Attributes:
        query: Whether `execute_query` answers.
        schema: Whether `get_schema` tells a form.
        write: Whether anything can be changed.
        language: What a query is written in: "sql", "path", ...
    """

    query: bool = True
    schema: bool = True
    write: bool = False
    language: str = "sql"


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """
    Something that a backend holds.

    Attributes:
        name: As a query names it.
        kind: "table", "view", "file", "folder", ...
        description: A few words; empty if there are none.
    """

    name: str
    kind: str
    description: str = ""


class QueryResult(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a query gave.

    Attributes:
        columns: Their names, in order; a name may come twice.
        rows: One value for each column: None, int, float or str; bytes are told by their
            number.
        truncated: Whether rows or values are left out.
        reason: Why, and how to go on; empty if nothing is left out.
        duration_s: How long it took, waits included.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    truncated: bool = False
    reason: str = ""
    duration_s: float = 0.0

    def __repr__(self) -> str:
        """Sizes; never what is in the rows."""
        cut = ", truncated" if self.truncated else ""
        return f"QueryResult({len(self.rows)} rows of {len(self.columns)} columns{cut})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """The same for `rich`."""
        return [
            ("rows", len(self.rows)),
            ("columns", len(self.columns)),
            ("truncated", self.truncated),
        ]


@runtime_checkable
class Backend(Protocol):
    """
    What an agent's tools act on.

    Methods may be called from several tasks at once. An error that the model can learn from is a
    `ToolError` whose message is written for it.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """What people and the model call it."""

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What it can do."""

    @abstractmethod
    async def execute_query(self, query: str, parameters: Sequence[Any] = ()) -> QueryResult:
        """
        Answer a query.

        Args:
            query: In the backend's language.
            parameters: Values for its placeholders; never put into the text.

        Returns:
            What it gave, within the backend's caps.

        Raises:
            ToolError: If it is refused, wrong, or takes too long; the message says what to do.
        """

    @abstractmethod
    async def get_schema(self, resource: str | None = None) -> str:
        """
        Tell the form of what it holds, small enough for a prompt.

        Args:
            resource: One resource's name; None for all.

        Returns:
            Text for a model.

        Raises:
            ToolError: If there is no such resource.
        """

    @abstractmethod
    async def list_resources(self) -> tuple[Resource, ...]:
        """List what it holds, sorted by name."""

    @abstractmethod
    async def get_metadata(self, resource: str) -> Mapping[str, Any]:
        """
        Tell everything that is known of one resource.

        Args:
            resource: Its name.

        Returns:
            Values that JSON knows.

        Raises:
            ToolError: If there is no such resource.
        """

    @abstractmethod
    async def ping(self) -> None:
        """
        Make sure that it answers.

        Raises:
            LoomError: If it does not.
        """

    @abstractmethod
    async def close(self) -> None:
        """End what runs and give everything back; a second time does nothing."""


@runtime_checkable
class ReadsApart(Protocol):
    """A backend that may write, and can promise for one query that it does not."""

    @abstractmethod
    async def read_query(self, query: str, parameters: Sequence[Any] = ()) -> QueryResult:
        """Answer like `execute_query`, and refuse whatever would change something."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """
    A line that holds what was searched for.

    Attributes:
        path: The file, as the backend names it.
        line: Its number, from 1.
        text: The line, cut if it is long.
    """

    path: str
    line: int
    text: str


@runtime_checkable
class FileOperations(Protocol):
    """What a backend of files offers beside a `Backend`'s methods; paths are below its root."""

    @abstractmethod
    async def list_files(
        self, folder: str = "", *, pattern: str = "*", recursive: bool = False
    ) -> QueryResult:
        """List files and folders: their path, kind and size in bytes."""

    @abstractmethod
    async def read_file(self, path: str, *, offset: int = 1, limit: int | None = None) -> str:
        """Give lines of a text file, and a notice if there are more."""

    @abstractmethod
    async def search_files(
        self, text: str, *, folder: str = "", pattern: str = "*"
    ) -> tuple[tuple[Found, ...], str]:
        """Find lines that hold a text; the second is why there may be more, or empty."""

    @abstractmethod
    async def write_file(self, path: str, text: str) -> None:
        """Make a file, or put another in its place, whole or not at all."""

    @abstractmethod
    async def append_file(self, path: str, text: str) -> None:
        """Add to the end of a file; make it if it is not there."""

    @abstractmethod
    async def delete_file(self, path: str) -> None:
        """Delete a file."""
