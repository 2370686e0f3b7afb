"""The tables of docs/faults.md are those of the simulator."""

from pathlib import Path

from loom.server.simulator.faults import FaultRow, fault_table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "faults.md"
MARK = "compared by tests/docs/test_faults.py -->\n"


def _row(row: FaultRow) -> str:
    settings = ", ".join(
        f"**{name}**={value}" if name == row.main else f"{name}={value}"
        for name, value in row.settings.items()
    )
    plain = row.raises if row.plain is None else row.plain
    raises = [f"`{code}`" if code else "an answer" for code in (row.raises, plain)]
    if raises[0] == raises[1]:
        raises.pop()
    return f"| `{row.id}` | {row.says} | {settings} | {', plain: '.join(raises)} |"


def tables() -> str:
    """The tables as the page must hold them."""
    lines = ["\n| fault | what the caller sees | settings | one attempt of a client gives |"]
    lines += ["|---|---|---|---|", *map(_row, fault_table().rows)]
    lines += ["\n## What a server cannot cause\n", "| row | why |", "|---|---|"]
    lines += [f"| {row} | {reason} |" for row, reason in fault_table().elsewhere.items()]
    return "\n".join(lines) + "\n"


def test_the_tables_of_the_page_are_those_of_the_simulator() -> None:
    """Each fault with its settings and its error; nothing more, nothing less."""
    assert tables() == PAGE.read_text(encoding="utf-8").split(MARK)[1]


if __name__ == "__main__":
    before = PAGE.read_text(encoding="utf-8").split(MARK)[0]
    PAGE.write_text(before + MARK + tables(), encoding="utf-8")
