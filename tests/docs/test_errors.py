"""The table of docs/errors.md is the table of the code."""

from pathlib import Path

from loom.core.error_table import ERROR_TABLE
from loom.core.errors import LoomError
from loom.layers.retry_policy import RetryPolicy

PAGE = Path(__file__).resolve().parents[2] / "docs" / "errors.md"
MARK = "compared by tests/docs/test_errors.py -->\n"


def below(cls: type[LoomError]) -> list[type[LoomError]]:
    """The library's own classes directly below; another test may have made some of its own."""
    return [sub for sub in cls.__subclasses__() if sub.__module__.startswith("loom.")]


def kinds(cls: type[LoomError]) -> dict[str, str]:
    """Code and class name of each leaf and of each class that is raised itself."""
    found: dict[str, str] = {}
    for sub in below(cls):
        found |= {code: name for code, name in kinds(sub).items() if code not in found}
        if sub.code not in found or below(sub) == []:
            found[sub.code] = sub.__name__
    return found


# They are found in an answer, outside of the layer that tries again.
FOUND_LATER = ("output_invalid", "tool_call_missing")
HEAD = """
| code | class | HTTP | gRPC | retryable | tried again | breaker | other route | exit |
|---|---|---|---|---|---|---|---|---|
"""


def tried(code: str, *, retryable: bool) -> str:
    """How many requests the default policy makes at most."""
    if code == "invalid_api_key":
        return "with a new key"
    if not retryable or code in FOUND_LATER:
        return "no"
    kinds = [LoomError]
    for kind in kinds:
        kinds += below(kind)
    error = next(kind for kind in reversed(kinds) if kind.code == code)("x")
    policy = RetryPolicy()
    own = policy.kind_limit(error)
    return f"up to {policy.limit(error) if own is None else own[1]}"


def table() -> str:
    """The table as the page must hold it."""
    names = kinds(LoomError)
    words = {True: "yes", False: "no"}
    return HEAD + "".join(
        f"| `{code}` | `{names[code]}` | {row.http} | {row.grpc} | {words[row.retryable]}"
        f" | {tried(code, retryable=row.retryable)} | {words[row.breaker]}"
        f" | {words[row.fallback]} | {row.exit} |\n"
        for code, row in ERROR_TABLE.items()
    )


def test_the_table_of_the_page_is_that_of_the_code() -> None:
    """Each code with all that it decides; nothing more, nothing less."""
    assert table() == PAGE.read_text(encoding="utf-8").split(MARK)[1]


if __name__ == "__main__":
    before = PAGE.read_text(encoding="utf-8").split(MARK)[0]
    PAGE.write_text(before + MARK + table(), encoding="utf-8")
