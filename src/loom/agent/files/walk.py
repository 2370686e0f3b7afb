"""
The way from a root to a file, without a way out.

Every name of a path is opened by itself, from the folder before it (`openat`), and never through
a link (`O_NOFOLLOW`). So it does not matter what somebody changes meanwhile: what is open lies
below the root. Only ordinary files are opened; a pipe or a device is not even touched.
"""

from __future__ import annotations

import errno
import os
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

import msgspec

from loom.core.errors import ConfigInvalid, ToolFailed

__all__ = ["Entry", "Parts", "Tree", "failed", "missing", "not_ordinary", "open_file", "possible"]

Parts: TypeAlias = tuple[str, ...]
"""The names of a path, outermost first; empty for the root."""

# More would only serve a loop of mounts, and each level holds a file descriptor.
_DEEPEST = 32
_LONGEST_PATH = 1024


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """
    A file or a folder.

    Attributes:
        parts: Where it lies.
        is_folder: Whether it is one.
        size: Bytes; 0 for a folder.
        modified_s: When it was last written, seconds of the epoch.
    """

    parts: Parts
    is_folder: bool
    size: int
    modified_s: float

    @property
    def path(self) -> str:
        """As the model writes it."""
        return "/".join(self.parts)


def possible() -> bool:
    """Whether this system can open a name from a folder and leave links alone."""
    needed = {os.open, os.stat, os.mkdir, os.unlink, os.rename}
    return (
        needed <= os.supports_dir_fd and hasattr(os, "O_NOFOLLOW") and os.scandir in os.supports_fd
    )


class Tree:
    """
    A folder and what is below it.

    Args:
        root: The folder; links on the way to it are followed once, here.
        hidden: Whether names that begin with a dot are there.

    Raises:
        ConfigInvalid: If it is no folder, or the system cannot keep to it.
    """

    def __init__(self, root: str | os.PathLike[str], *, hidden: bool) -> None:
        given = os.fspath(root)
        if not possible():
            raise ConfigInvalid(
                "a files backend needs openat and O_NOFOLLOW, which this system does not have"
            )
        try:
            self._root = Path(given).resolve(strict=True)
            os.close(os.open(self._root, os.O_RDONLY | os.O_DIRECTORY))
        except ValueError:
            raise ConfigInvalid("the path of the folder has a null character in it") from None
        except OSError as error:
            raise ConfigInvalid(
                f"{given!r} is no folder that can be read: {error.strerror}"
            ) from None
        self._hidden = hidden

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self._root.name or "files"

    def parts(self, path: str) -> Parts:
        """
        The names of a path.

        Args:
            path: Below the root, `/` between names.

        Returns:
            The names.

        Raises:
            ToolFailed: If it leads elsewhere, or a name is not one that is there.
        """
        if len(path) > _LONGEST_PATH:
            raise ToolFailed("the path is too long", attempts=0)
        if path.startswith("/"):
            raise ToolFailed(f"{path!r}: give a path below the folder, without / in front")
        names = tuple(name for name in path.split("/") if name not in ("", "."))
        if len(names) > _DEEPEST:
            raise ToolFailed(f"the path has more than {_DEEPEST} names", attempts=0)
        for name in names:
            if why := self._unfit(name):
                raise ToolFailed(f"{path!r}: {why}", attempts=0)
        return names

    @contextmanager
    def folder(self, parts: Parts, *, make: bool = False) -> Iterator[int]:
        """
        A folder, open.

        Args:
            parts: Its path.
            make: Whether folders that are not there are made.

        Yields:
            A descriptor that is closed at the end.

        Raises:
            ToolFailed: If it is not there, or a link stands on the way.
        """
        descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for depth, name in enumerate(parts, 1):
                inner = _step(descriptor, name, "/".join(parts[:depth]), make=make)
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def file(self, parts: Parts) -> Iterator[int]:
        """
        An ordinary file, open for reading.

        Args:
            parts: Its path.

        Yields:
            A descriptor that is closed at the end.

        Raises:
            ToolFailed: If it is not there, or not an ordinary file.
        """
        if not parts:
            raise ToolFailed("name a file, not the folder itself", attempts=0)
        with self.folder(parts[:-1]) as folder:
            descriptor = open_file(folder, parts, os.O_RDONLY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def look(self, parts: Parts) -> Entry:
        """
        What is known of a file or a folder.

        Args:
            parts: Its path.

        Raises:
            ToolFailed: If it is neither, or not there.
        """
        if not parts:
            return Entry(parts=(), is_folder=True, size=0, modified_s=0.0)
        with self.folder(parts[:-1]) as folder:
            found = _stat(folder, parts)
        if entry := _entry(parts, found):
            return entry
        raise not_ordinary(parts)

    def inside(self, descriptor: int, parts: Parts) -> list[Entry]:
        """
        Files and folders of an open folder, sorted; links, pipes and devices are not there.

        Args:
            descriptor: The folder's.
            parts: Its path.
        """
        found = []
        with os.scandir(descriptor) as entries:
            for each in entries:
                if self._unfit(each.name):
                    continue
                try:
                    status = each.stat(follow_symlinks=False)
                except OSError:
                    continue  # gone meanwhile
                if entry := _entry((*parts, each.name), status):
                    found.append(entry)
        return sorted(found, key=lambda entry: entry.parts)

    def _unfit(self, name: str) -> str:
        """Why a name is none that is there; empty if it may be."""
        if "\x00" in name or any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
            return "a name has a character in it that no name has here"
        # Some file systems leave letters out that nobody sees, or take one dot for another.
        seen = "".join(c for c in name if unicodedata.category(c) != "Cf")
        seen = unicodedata.normalize("NFKC", seen)
        if seen in ("", ".", ".."):
            return "a path leads down only"
        if seen.startswith(".") and not self._hidden:
            return "hidden files are not open"
        return ""


def open_file(folder: int, parts: Parts, flags: int, mode: int = 0o666) -> int:
    """
    Open an ordinary file of an open folder.

    Args:
        folder: The folder's descriptor.
        parts: The file's path; its last name is opened.
        flags: Of `os.open`, beside those that keep links and pipes out.
        mode: Of a file that is made.

    Returns:
        A descriptor.

    Raises:
        ToolFailed: If it is not there, or not an ordinary file.
    """
    make = bool(flags & os.O_CREAT)
    try:
        # Asked before: opening some devices does something.
        if not stat.S_ISREG(os.stat(parts[-1], dir_fd=folder, follow_symlinks=False).st_mode):
            raise not_ordinary(parts)
    except FileNotFoundError:
        if not make:
            raise missing(parts) from None
    except OSError as error:
        raise failed(parts, error) from None
    try:
        # Not blocking: what was a file a moment ago may be a pipe now.
        safe = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
        descriptor = os.open(parts[-1], flags | safe, mode, dir_fd=folder)
    except OSError as error:
        raise failed(parts, error) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise not_ordinary(parts)
    return descriptor


def _step(folder: int, name: str, path: str, *, make: bool) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    try:
        return os.open(name, flags, dir_fd=folder)
    except FileNotFoundError as error:
        if not make:
            raise failed((path,), error) from None
    except OSError as error:
        raise failed((path,), error) from None
    try:
        # Somebody may be quicker; whether it is a folder is seen below.
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=folder)
        return os.open(name, flags, dir_fd=folder)
    except OSError as error:
        raise failed((path,), error) from None


def _stat(folder: int, parts: Parts) -> os.stat_result:
    try:
        return os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        raise failed(parts, error) from None


def _entry(parts: Parts, found: os.stat_result) -> Entry | None:
    is_folder = stat.S_ISDIR(found.st_mode)
    if not is_folder and not stat.S_ISREG(found.st_mode):
        return None
    return Entry(
        parts=parts,
        is_folder=is_folder,
        size=0 if is_folder else found.st_size,
        modified_s=found.st_mtime,
    )


def missing(parts: Parts) -> ToolFailed:
    """The error for what is not there."""
    return ToolFailed(
        f"there is no {'/'.join(parts)!r}; list_files tells what there is", attempts=0
    )


def not_ordinary(parts: Parts) -> ToolFailed:
    """The error for a link, a folder, a pipe, a device."""
    return ToolFailed(f"{'/'.join(parts)!r} is not an ordinary file", attempts=0)


def failed(parts: Parts, error: OSError) -> ToolFailed:
    """The error for what the system refused; the path is that below the root."""
    path = "/".join(parts)
    match error.errno:
        case errno.ENOENT:
            return missing(parts)
        case errno.ELOOP | errno.EMLINK:
            said = "is a link: links are not followed"
        case errno.ENOTDIR:
            said = "is no folder, or a link: links are not followed"
        case errno.EISDIR:
            said = "is a folder"
        case errno.EACCES | errno.EPERM:
            said = "may not be opened"
        case errno.ENAMETOOLONG:
            said = "is too long"
        case _:
            said = (error.strerror or "cannot be opened").lower()
    return ToolFailed(f"{path!r} {said}", attempts=0)
