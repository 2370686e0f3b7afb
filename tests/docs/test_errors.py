"""The table of docs/errors.md is the table of the code."""

from pathlib import Path

from loom.core.error_table import ERROR_TABLE
from loom.core.errors import LoomError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "errors.md"
MARK = "compared by tests/docs/test_errors.py -->\n"


def kinds(cls: type[LoomError]) -> dict[str, str]:
    """Code and class name of each leaf and of each class that is raised itself."""
    found: dict[str, str] = {}
    for sub in cls.__subclasses__():
        found |= {code: name for code, name in kinds(sub).items() if code not in found}
        if sub.code not in found or sub.__subclasses__() == []:
            found[sub.code] = sub.__name__
    return found


def table() -> str:
    """The table as the page must hold it."""
    names = kinds(LoomError)
    lines = ["\n| code | class | HTTP | gRPC | retryable | exit |", "|---|---|---|---|---|---|"]
    for code, row in ERROR_TABLE.items():
        again = "yes" if row.retryable else "no"
        lines.append(
            f"| `{code}` | `{names[code]}` | {row.http} | {row.grpc} | {again} | {row.exit} |"
        )
    return "\n".join(lines) + "\n"


def test_the_table_of_the_page_is_that_of_the_code() -> None:
    """Each code with its class, statuses and exit code; nothing more, nothing less."""
    assert table() == PAGE.read_text(encoding="utf-8").split(MARK)[1]


if __name__ == "__main__":
    before = PAGE.read_text(encoding="utf-8").split(MARK)[0]
    PAGE.write_text(before + MARK + table(), encoding="utf-8")
