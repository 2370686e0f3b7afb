"""What docs/retries.md says of a policy is what the policy does."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import msgspec
import pytest

from loom.core.error_table import ERROR_TABLE
from loom.core.errors import LoomError, Phase, TimedOut
from loom.layers.retry_policy import RetryPolicy, RetryQuota

PAGE = Path(__file__).resolve().parents[2] / "docs" / "retries.md"
TEXT = PAGE.read_text(encoding="utf-8")

# They are found in an answer, outside of the layer that tries again.
FOUND_LATER = {"output_invalid", "tool_call_missing"}


def error_of(code: str, phase: Phase | None = None) -> LoomError:
    """Give an error as it is raised where it may be tried again."""
    kinds: list[type[LoomError]] = [LoomError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    found = next(kind for kind in reversed(kinds) if kind.code == code)
    return found("x", retryable=True, phase=phase)


def requests(policy: RetryPolicy, error: LoomError) -> int:
    """Give how often such a request is sent at most."""
    own = policy.kind_limit(error)
    return policy.limit(error) if own is None else min(own[1], policy.limit(error))


def test_the_table_says_what_is_tried_again_and_how_often() -> None:
    """Each code that may be tried again, with the requests that a default policy makes."""
    rows = re.findall(
        r"(?m)^\| `(\w+)`( in silence)? \| (\d) \|",
        TEXT.partition("<!-- retried:")[2].partition("<!-- /retried -->")[0],
    )
    policy = RetryPolicy()
    retryable = {code for code, row in ERROR_TABLE.items() if row.retryable} - FOUND_LATER
    assert retryable | {"invalid_api_key"} == {code for code, _, _ in rows}
    assert [
        (code, silence, str(requests(policy, error_of(code, "first_byte" if silence else None))))
        for code, silence, _ in rows
    ] == rows
    assert 2 == requests(policy, TimedOut("x", phase="idle"))


def written(value: object) -> str:
    """Give a default as the page writes it."""
    match value:
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case int() | float():
            return f"{value:g}"
        case _:
            return f"`{type(value).__name__}()`"


@pytest.mark.parametrize("kind", [RetryPolicy, RetryQuota])
def test_the_page_names_each_field_with_its_default(kind: type[msgspec.Struct]) -> None:
    """A row for each field, in the order of the code."""
    rows = re.findall(r"(?m)^\| `(\w+)` \| ([^|]+) \|", TEXT.partition(f"{kind.__name__}`")[2])
    named = [(name, default) for name, default in rows if name in kind.__struct_fields__]
    default = kind()
    expected = [(name, written(getattr(default, name))) for name in kind.__struct_fields__]
    assert expected == named


def test_the_docstring_holds_the_formulas_of_the_page() -> None:
    """They name each other, and say the same."""
    formulas = ("draw * min(cap_s, base_s * 2 ** (attempt - 1))", "+ draw * jitter_s`")
    docstring = inspect.getdoc(RetryPolicy) or ""
    for formula in formulas:
        assert formula in docstring
        assert formula in TEXT
    assert "docs/retries.md" in docstring
    assert "docstring of `RetryPolicy`" in TEXT
