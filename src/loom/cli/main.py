"""
The program `looms`.

Nothing heavy is imported here, so that `looms --version` answers at once; the commands stand under
`cli/root.py`.
"""

from __future__ import annotations

import os
import sys

from loom.core.version import VERSION

__all__ = ["main"]


def main() -> None:
    """Run `looms` with the words of the command line, and leave with its exit code."""
    words = sys.argv[1:]
    if words == ["--version"]:
        sys.stdout.write(f"looms {VERSION}\n")
        return
    from loom.cli.root import run  # noqa: PLC0415 - start-up time

    # A stream that the shell closed (`2>&-`) is None: what goes there goes nowhere.
    sys.stdout, sys.stderr = (
        open(os.devnull, "w", encoding="utf-8") if stream is None else stream  # noqa: PTH123, SIM115 - lives as long as the program
        for stream in (sys.stdout, sys.stderr)
    )
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a letter shows a question mark, and no traceback.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr] # a real stream has it
    sys.exit(run(words))
