"""Names of tools: what a server calls them, and what a model may call."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

__all__ = ["model_names"]

# Mistral's rule, OpenAI's and Anthropic's: `^[A-Za-z0-9_-]{1,64}$`.
_LONGEST_NAME = 64
_FORBIDDEN = re.compile(r"[^A-Za-z0-9_-]")


def model_names(names: Sequence[str], prefix: str | None = None) -> dict[str, str]:
    """
    Names that a model may use, for a server's own.

    A name that fits is kept. Another has each character that does not fit replaced, is cut, and
    ends with a part of its hash, so that it is its own and stays the same when others come and go.

    Args:
        names: The server's names, each once.
        prefix: Put before each.

    Returns:
        The server's name for each name of the model's, in the same order.
    """
    whole = {name: f"{prefix}_{name}" if prefix else name for name in names}
    fitting = {name for name in whole.values() if _fits(name)}
    found: dict[str, str] = {}
    for name, wanted in whole.items():
        given = wanted
        length = 8
        while not (given in fitting if given == wanted else given not in fitting | set(found)):
            digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:length]
            given = f"{_FORBIDDEN.sub('_', wanted)[: _LONGEST_NAME - 1 - length]}_{digest}"
            length += 8
        found[given] = name
    return found


def _fits(name: str) -> bool:
    return 0 < len(name) <= _LONGEST_NAME and _FORBIDDEN.search(name) is None
