"""For whom a call is made, as callers write it: session, tenant, priority, tags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import msgspec

from loom.core.errors import InvalidRequest
from loom.core.request import Attribution, Priority

__all__ = ["ATTRIBUTES", "attributed"]

ATTRIBUTES = ("session", "tenant", "priority", "tags")
"""The options that say for whom a call is made."""

# A label is a name and no text: what is written with every row must not hold a prompt.
_LONGEST = 256
_MOST_TAGS = 32


def attributed(base: Attribution, given: Mapping[str, Any]) -> Attribution:
    """
    Read the options that say for whom a call is made.

    Args:
        base: What holds where nothing is said.
        given: Options by name; others are passed over. Tags are added to those of `base`.

    Returns:
        The value.

    Raises:
        InvalidRequest: If one is of another type, or too long; the option is named.
    """
    changes: dict[str, Any] = {name: given[name] for name in ATTRIBUTES if name in given}
    if not changes:
        return base
    session = changes.get("session")
    if session is not None:
        _check("session", session)
    if "tenant" in changes:
        _check("tenant", changes["tenant"])
    if "priority" in changes and changes["priority"] not in get_args(Priority):
        words = ", ".join(map(repr, get_args(Priority)))
        raise InvalidRequest(f"'priority' must be one of {words}, not {changes['priority']!r}")
    if "tags" in changes:
        changes["tags"] = {**base.tags, **_tags(changes["tags"])}
    return msgspec.structs.replace(base, **changes)


def _tags(given: Any) -> dict[str, str]:
    if not isinstance(given, Mapping) or len(given) > _MOST_TAGS:
        raise InvalidRequest(f"'tags' must be a dict of at most {_MOST_TAGS} names and values")
    for name, value in given.items():
        _check("tags", name)
        _check("tags", value)
    return dict(given)


def _check(option: str, value: Any) -> None:
    if not isinstance(value, str) or len(value) > _LONGEST or not value.isprintable():
        raise InvalidRequest(f"'{option}' takes printable text of at most {_LONGEST} characters")
