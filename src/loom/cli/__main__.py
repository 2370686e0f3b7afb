"""`python -m loom.cli` is `looms`."""

from __future__ import annotations

from loom.cli.main import main

if __name__ == "__main__":
    main()
