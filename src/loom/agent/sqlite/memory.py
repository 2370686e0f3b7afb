"""How much memory the process holds, where the system tells it cheaply."""

from __future__ import annotations

from pathlib import Path

__all__ = ["process_bytes"]

# Pages that lie in memory are the second number (proc(5), statm).
_STATM = Path("/proc/self/statm")


def process_bytes() -> int | None:
    """
    Bytes of the whole process that lie in memory.

    Returns:
        The bytes; None where there is no `/proc`.
    """
    try:
        with _STATM.open("rb", buffering=0) as file:
            return int(file.read(256).split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return None


def _page_bytes() -> int:
    import mmap  # noqa: PLC0415 - only for one number

    return mmap.PAGESIZE


_PAGE = _page_bytes()
