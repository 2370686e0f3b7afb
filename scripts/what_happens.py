"""
Write the tables of `docs/what-happens-when.md` from the fault matrix.

`tests/docs/test_what_happens.py` makes them again and compares.
"""

from __future__ import annotations

from pathlib import Path

from loom.core.faults import FaultCase, FaultRow, fault_matrix

__all__ = ["PAGE", "main", "tables"]

PAGE = Path(__file__).resolve().parents[1] / "docs" / "what-happens-when.md"
MARKS = ("<!-- rows -->\n", "<!-- /rows -->\n")

HEAD = [
    "| row | fault | what happens then | the caller gets | what to do |",
    "|---|---|---|---|---|",
]
OUTCOMES = {"": "an answer", "cancelled": "`CancelledError`", "left": "nothing more"}


def tables() -> str:
    """
    Make a heading and a table for each part of the matrix.

    Returns:
        Markdown; it ends with a line feed.
    """
    lines: list[str] = []
    for row in fault_matrix():
        if row.part:
            lines += ["", f"## {row.part}", "", *HEAD]
        lines.append(f"| {row.id} | {row.fault} | {_says(row)} | {_gets(row)} | {row.hint} |")
    return "\n".join(lines) + "\n"


def _says(row: FaultRow) -> str:
    parts = [row.says]
    if row.released:
        parts.append(f"Given back beside socket and slot: {row.released}.")
    if row.breaker:
        parts.append("The breaker counts it.")
    if row.needs:
        parts.append(f"*Joins with the {row.needs}.*")
    if row.later:
        parts.append(f"*To come: {row.later[0].lower()}{row.later[1:]}*")
    return " ".join(parts)


def _gets(row: FaultRow) -> str:
    """Each outcome once, in the order of the cases."""
    cases = row.cases or (FaultCase(),)
    return "; ".join(dict.fromkeys(_outcome(row, case) for case in cases))


def _outcome(row: FaultRow, case: FaultCase) -> str:
    code = row.expected if case.expected is None else case.expected
    wire = row.wire if case.wire is None else case.wire
    charge = row.charge if case.charge is None else case.charge
    what = OUTCOMES.get(code, f"`{code}`")
    told = [_counted(wire, "request"), charge.replace("+", ", then ")]
    attempts = case.attempts
    if attempts is None and case.wire is None:
        attempts = row.attempts
    if attempts is not None and attempts != wire:
        told.insert(0, _counted(attempts, "attempt"))
    return f"{what} ({', '.join(told)})"


def _counted(count: int, what: str) -> str:
    return f"{count or 'no'} {what}" if count == 1 else f"{count or 'no'} {what}s"


def main() -> None:
    """Put them into the page."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    PAGE.write_text(before + MARKS[0] + tables() + "\n" + MARKS[1] + after, encoding="utf-8")


if __name__ == "__main__":
    main()
