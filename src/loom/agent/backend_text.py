"""A result as a model reads it, in few tokens."""

from __future__ import annotations

import math
from typing import Any

from loom.agent.backend import QueryResult

__all__ = ["result_text"]


def result_text(result: QueryResult, *, max_bytes: int = 32_768) -> str:
    """
    A result as comma-separated values: a line of names, then a line for each row.

    An empty field is NULL, `""` an empty text. What is left out is told in a last line in brackets.

    Args:
        result: What a query gave.
        max_bytes: About how long the text may be; whole rows are left out.

    Returns:
        The text.

    Source: own measurement with the tokens of `mistral-small-latest`, 100 rows of five columns:
        CSV 3,557, JSON lists 3,755, Markdown 3,901, JSON objects 4,843.
    """
    lines = [",".join(map(_field, result.columns))]
    left = max_bytes - len(lines[0])
    shown = 0
    for row in result.rows:
        line = ",".join(map(_field, row))
        left -= len(line.encode("utf-8", "replace")) + 1
        if left < 0 and shown:
            break
        lines.append(line)
        shown += 1
    if not result.rows:
        lines.append("(no rows)")
    notes = []
    if shown < len(result.rows):
        notes.append(
            f"only the first {shown:,} rows are shown: more is too long; go on with LIMIT and"
            " OFFSET, name fewer columns, or aggregate"
        )
    if result.reason:
        notes.append(result.reason)
    if notes:
        lines.append(f"[cut: {'; '.join(notes)}]")
    return "\n".join(lines)


def _field(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and not math.isfinite(value):
        # As JSON's readers write what JSON has no number for.
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    text = str(value)
    if not text or any(letter in text for letter in ',"\n\r'):
        return '"' + text.replace('"', '""') + '"'
    return text
