"""What a request means, apart from how it is written: for finding a recorded one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["exact_form", "meaning", "steps_that_differ"]

# Under these stand values of the caller's own, where a null or an `id` is what it is.
_CALLERS_OWN = frozenset({"arguments", "metadata", "parameters", "schema"})
_ABSENT = object()


def exact_form(body: Any) -> str:
    """
    A body as text: other spaces between its values make no other text, all else does.

    Args:
        body: JSON values.
    """
    return json.dumps(body, ensure_ascii=False)


def meaning(body: Any) -> str:
    """
    A body as text that is equal for bodies that ask for the same.

    The order of keys, ids of tool calls, fields that are null, `stream: false` and the writing of
    arguments and numbers make no difference.

    Args:
        body: JSON values.
    """
    return json.dumps(_plain(body, {}), ensure_ascii=False, sort_keys=True)


def steps_that_differ(one: Any, other: Any) -> list[str]:
    """
    Where two bodies mean something else; no value is shown.

    Args:
        one: JSON values.
        other: JSON values.

    Returns:
        Places, for example `messages[1].content`, sorted.
    """
    mine, theirs = dict(_leaves(_plain(one, {}), "")), dict(_leaves(_plain(other, {}), ""))
    places = mine.keys() | theirs.keys()
    return sorted(
        place or "body"
        for place in places
        if _typed(mine.get(place, _ABSENT)) != _typed(theirs.get(place, _ABSENT))
    )


def _typed(value: Any) -> tuple[bool, Any]:
    # To Python, True is 1.
    return isinstance(value, bool), value


def _plain(value: Any, ids: dict[str, str], *, own: bool = False) -> Any:
    match value:
        case dict():
            return _plain_object(value, ids, own=own)
        case list():
            return [_plain(item, ids, own=own) for item in value]
        case float() if value.is_integer():
            return int(value)
        case _:
            return value


def _plain_object(value: Mapping[str, Any], ids: dict[str, str], *, own: bool) -> dict[str, Any]:
    if own:
        return {key: _plain(item, ids, own=True) for key, item in value.items()}
    plain = {}
    for key, item in value.items():
        if item is None or (key == "stream" and item is False):
            continue
        # The two names under which the id of a call stands (contract, section 3).
        if key == "tool_call_id" or (key == "id" and "function" in value):
            # Numbered as they come: which result belongs to which call stays.
            plain[key] = ids.setdefault(str(item), f"call {len(ids)}")
        elif key == "arguments" and isinstance(item, str):
            plain[key] = _plain(_parsed(item), ids, own=True)
        else:
            plain[key] = _plain(item, ids, own=key in _CALLERS_OWN)
    return plain


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    match value:
        case dict() if value:
            for key, item in value.items():
                yield from _leaves(item, f"{place}.{key}" if place else key)
        case list() if value:
            for number, item in enumerate(value):
                yield from _leaves(item, f"{place}[{number}]")
        case dict() | list():
            yield place, type(value).__name__
        case _:
            yield place, value
