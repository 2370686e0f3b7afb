"""The operations of a folder of files as tools."""

from __future__ import annotations

from functools import partial

from loom.agent.backend import FileOperations
from loom.agent.backend_text import result_text
from loom.agent.backend_tool import BackendTool, object_schema, text_schema

__all__ = ["file_tools"]

_PATH = text_schema("Path below the folder, with / between names.")
_FOLDER = text_schema("Path of a folder; leave it out for the whole.")
_PATTERN = text_schema("Only names like this: * stands for any letters, for example *.md")
_TEXT = text_schema("What is written, whole.")


def file_tools(
    files: FileOperations, name: str, *, write: bool, timeout_s: float | None
) -> list[BackendTool]:
    """
    The operations as tools.

    Args:
        files: The backend.
        name: What the model calls the folder.
        write: Whether files may be changed.
        timeout_s: Seconds for one run.

    Returns:
        Tools that read, and those that write if they may.
    """
    reading = [_lister(files, name), _reader(files, name), _searcher(files, name)]
    every = [*reading, *_writers(files, name)] if write else reading
    for tool in every:
        tool.timeout_s = timeout_s
    return every


def _lister(files: FileOperations, name: str) -> BackendTool:
    async def run(folder: str = "", pattern: str = "*", *, recursive: bool = False) -> str:
        return result_text(await files.list_files(folder, pattern=pattern, recursive=recursive))

    return BackendTool(
        "list_files",
        f"List files and folders of {name!r}: path, kind and size in bytes.",
        object_schema(
            {
                "folder": _FOLDER,
                "pattern": _PATTERN,
                "recursive": {
                    "type": "boolean",
                    "description": "Whether the folders below are listed too.",
                },
            }
        ),
        run,
    )


def _reader(files: FileOperations, name: str) -> BackendTool:
    async def run(path: str, offset: int = 1, limit: int | None = None) -> str:
        return await files.read_file(path, offset=offset, limit=limit)

    return BackendTool(
        "read_file",
        f"Read lines of a text file of {name!r}. A notice tells if there are more.",
        object_schema(
            {
                "path": _PATH,
                "offset": {
                    "type": "integer",
                    "minimum": 1,
                    "description": "The first line, from 1.",
                },
                "limit": {"type": "integer", "minimum": 1, "description": "How many lines."},
            },
            required=("path",),
        ),
        run,
    )


def _searcher(files: FileOperations, name: str) -> BackendTool:
    async def run(text: str, folder: str = "", pattern: str = "*") -> str:
        found, reason = await files.search_files(text, folder=folder, pattern=pattern)
        lines = [f"{one.path}:{one.line}: {one.text}" for one in found] or ["(nothing found)"]
        return "\n".join([*lines, f"[cut: {reason}]"] if reason else lines)

    return BackendTool(
        "search_files",
        f"Find lines in the text files of {name!r} that hold a text. Capital letters do not"
        " matter; it is plain text, no pattern. Gives path, number and line.",
        object_schema(
            {
                "text": text_schema("What to look for, within one line."),
                "folder": _FOLDER,
                "pattern": _PATTERN,
            },
            required=("text",),
        ),
        run,
    )


def _writers(files: FileOperations, name: str) -> list[BackendTool]:
    async def write(path: str, text: str, *, append: bool) -> str:
        await (files.append_file if append else files.write_file)(path, text)
        return f"{'added to' if append else 'wrote'} {path}"

    async def delete(path: str) -> str:
        await files.delete_file(path)
        return f"deleted {path}"

    both = object_schema({"path": _PATH, "text": _TEXT}, required=("path", "text"))
    return [
        BackendTool(
            "write_file",
            f"Write a text file of {name!r}; one that is there is replaced.",
            both,
            partial(write, append=False),
            write=True,
        ),
        BackendTool(
            "append_file",
            f"Add text to the end of a file of {name!r}; it is made if it is not there.",
            both,
            partial(write, append=True),
            write=True,
        ),
        BackendTool(
            "delete_file",
            f"Delete a file of {name!r}.",
            object_schema({"path": _PATH}, required=("path",)),
            delete,
            write=True,
        ),
    ]
