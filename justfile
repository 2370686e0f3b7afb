# One word for each job; `just` alone lists them.

_list:
    @just --list

# Style, types, tests and documents, as in CI
check:
    .ci/run

# Tests only, for example `just test tests/wire -k sse`
test *arguments="tests":
    ./scripts/test {{ arguments }}

# Build the documentation into site/
docs:
    uv run --group docs zensical build --strict

# Measure the client beside bare aiohttp, in one interleaved run
bench *arguments:
    uv run --group bench python benchmarks/client.py {{ arguments }}

# Bring every file into its form
fmt:
    uv run --group lint ruff check --fix .
    uv run --group lint ruff format .

# Remake requirements/*.txt
lock:
    ./scripts/lock

# Remake the walk of one call, the breaker's diagram, the fault matrix and the picture in README
generated:
    uv run python scripts/walk.py
    uv run python scripts/diagram.py
    uv run python scripts/what_happens.py
    uv run python scripts/screenshot.py
