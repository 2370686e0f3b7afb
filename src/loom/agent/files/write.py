"""Changes of a folder: each file whole or not at all, and never one that lies elsewhere."""

from __future__ import annotations

import os
import stat
import threading
from contextlib import suppress

from loom.agent.files.bounds import FileBounds
from loom.agent.files.walk import Parts, Tree, failed, not_ordinary, open_file
from loom.core.errors import ToolFailed

__all__ = ["append", "delete", "write"]


def write(tree: Tree, path: str, text: str, bounds: FileBounds) -> None:
    """
    Put a file in its place, made of a new one: a hard link to elsewhere is left as it was.

    Args:
        tree: Where.
        path: The file's; folders that are not there are made.
        text: What is written, as UTF-8.
        bounds: With how long it may be.

    Raises:
        ToolFailed: If it is too long, or something else stands there.
    """
    parts, data = tree.parts(path), _data(text, bounds)
    if not parts:
        raise ToolFailed("name a file, not the folder itself", attempts=0)
    with tree.folder(parts[:-1], make=True) as folder:
        mode = _mode_of(folder, parts)
        # Nobody else of this process takes that name; what a crash left is written anew.
        fresh = f".loom-{os.getpid()}-{threading.get_ident()}.tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with suppress(FileNotFoundError):
            os.unlink(fresh, dir_fd=folder)
        try:
            descriptor = os.open(fresh, flags, 0o666, dir_fd=folder)
            try:
                _all(descriptor, data)
                if mode is not None:
                    os.fchmod(descriptor, mode)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.rename(fresh, parts[-1], src_dir_fd=folder, dst_dir_fd=folder)
        except OSError as error:
            with suppress(OSError):
                os.unlink(fresh, dir_fd=folder)
            raise failed(parts, error) from None


def append(tree: Tree, path: str, text: str, bounds: FileBounds) -> None:
    """
    Add to the end of a file; make it if it is not there.

    Args:
        tree: Where.
        path: The file's.
        text: What is added, as UTF-8.
        bounds: With how long the file may get.

    Raises:
        ToolFailed: If it would be too long, or it is not an ordinary file of this folder alone.
    """
    parts, data = tree.parts(path), _data(text, bounds)
    if not parts:
        raise ToolFailed("name a file, not the folder itself", attempts=0)
    with tree.folder(parts[:-1], make=True) as folder:
        descriptor = open_file(folder, parts, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        found = os.fstat(descriptor)
        if found.st_nlink > 1:
            raise ToolFailed(f"{path!r} has a second name, which may lie elsewhere", attempts=0)
        if found.st_size + len(data) > bounds.max_file_bytes:
            raise ToolFailed(f"{path!r} would be longer than {bounds.max_file_bytes:,} bytes")
        _all(descriptor, data)
    except OSError as error:
        raise failed(parts, error) from None
    finally:
        os.close(descriptor)


def delete(tree: Tree, path: str) -> None:
    """
    Delete a file.

    Args:
        tree: Where.
        path: The file's; a folder is not deleted.

    Raises:
        ToolFailed: If it is not there, or not an ordinary file.
    """
    parts = tree.parts(path)
    if not parts:
        raise ToolFailed("name a file, not the folder itself", attempts=0)
    with tree.folder(parts[:-1]) as folder:
        try:
            if not stat.S_ISREG(os.stat(parts[-1], dir_fd=folder, follow_symlinks=False).st_mode):
                raise not_ordinary(parts)
            os.unlink(parts[-1], dir_fd=folder)
        except OSError as error:
            raise failed(parts, error) from None


def _data(text: str, bounds: FileBounds) -> bytes:
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError:
        raise ToolFailed("the text has half a character in it (a lone surrogate)") from None
    if len(data) > bounds.max_file_bytes:
        raise ToolFailed(f"the text is longer than {bounds.max_file_bytes:,} bytes", attempts=0)
    return data


def _mode_of(folder: int, parts: Parts) -> int | None:
    """The rights of a file that is replaced; None for a new one."""
    try:
        found = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise failed(parts, error) from None
    if not stat.S_ISREG(found.st_mode):
        raise not_ordinary(parts)
    return stat.S_IMODE(found.st_mode) & 0o777


def _all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
