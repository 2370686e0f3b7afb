"""
What OpenAI's API refuses, in its own words: the server role of a request.

Everything that decides whether a request is refused lives here and in `messages.py`. The client's
own path does not come through here.

Source: openai 3.57 `types/chat/completion_create_params.py` for fields and ranges; sentences and
codes as quoted in public issues.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from loom.core.errors import InvalidRequest
from loom.wire.chat_completions.refusals import MOST_ID_CHARACTERS, refused

__all__ = ["EXTRA_FIELDS", "check_request"]

EXTRA_FIELDS = (
    "audio", "logit_bias", "logprobs", "modalities", "moderation", "prompt_cache_options",
    "prompt_cache_retention", "safety_identifier", "store", "top_logprobs", "user", "verbosity",
    "web_search_options",
)  # fmt: skip
"""What OpenAI knows and a `ChatRequest` has no name for: it goes through `extra`."""


class _Range(msgspec.Struct, frozen=True):
    """What a number may be."""

    kind: str
    least: float | None = None
    most: float | None = None


_WHOLE, _DECIMAL = "integer", "decimal"
_NUMBERS = {
    "temperature": _Range(_DECIMAL, 0, 2),
    "top_p": _Range(_DECIMAL, 0, 1),
    "presence_penalty": _Range(_DECIMAL, -2, 2),
    "frequency_penalty": _Range(_DECIMAL, -2, 2),
    "n": _Range(_WHOLE, 1, 128),
    "max_tokens": _Range(_WHOLE, 1),
    "max_completion_tokens": _Range(_WHOLE, 1),
    "top_logprobs": _Range(_WHOLE, 0, 20),
    "seed": _Range(_WHOLE),
}
_TYPES: dict[str, tuple[str, type | tuple[type, ...]]] = {
    "model": ("a string", str),
    "messages": ("an array of objects", list),
    "stream": ("a boolean", bool),
    "store": ("a boolean", bool),
    "logprobs": ("a boolean", bool),
    "parallel_tool_calls": ("a boolean", bool),
    "stop": ("a string or an array of strings", (str, list)),
    "tools": ("an array of objects", list),
    "functions": ("an array of objects", list),
    "metadata": ("an object", dict),
    "logit_bias": ("an object", dict),
    "stream_options": ("an object", dict),
    "reasoning_effort": ("a string", str),
    "prompt_cache_key": ("a string", str),
    "service_tier": ("a string", str),
    "user": ("a string", str),
}
_OTHER = ("tool_choice", "function_call", "response_format", "prediction")
_KNOWN = frozenset({*_NUMBERS, *_TYPES, *_OTHER, *EXTRA_FIELDS})

_LENGTHS = {"stop": 4, "tools": 128, "functions": 128}
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_JSON_NAMES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "a boolean"),
    (str, "a string"),
    (int, "an integer"),
    (float, "a decimal number"),
    (Mapping, "an object"),
    ((list, tuple), "an array"),
)


def check_request(given: Mapping[str, Any]) -> None:
    """
    Refuse a chat request that OpenAI refuses.

    Args:
        given: The body without fields that are null.

    Raises:
        InvalidRequest: With status 400, type, param and code as OpenAI's.
    """
    unknown = sorted(set(given) - _KNOWN)
    if unknown:
        many = "s" if len(unknown) > 1 else ""
        raise refused(f"Unrecognized request argument{many} supplied: {', '.join(unknown)}")
    if "model" not in given:
        raise refused("you must provide a model parameter")
    if "messages" not in given:
        code = "missing_required_parameter"
        raise refused("Missing required parameter: 'messages'.", "messages", code)
    for name, value in given.items():
        _check_value(name, value)
    if not given["messages"]:
        said = (
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an"
        )
        raise refused(f"{said} empty array instead.", "messages", "empty_array")
    _check_together(given)
    _check_names(given)
    _check_pairs(given["messages"])


def _check_value(name: str, value: Any) -> None:
    if (limits := _NUMBERS.get(name)) is not None:
        _check_number(name, value, limits)
    elif name in _TYPES:
        words, kind = _TYPES[name]
        if not isinstance(value, kind):
            raise _wrong_type(name, words, value)
        most = _LENGTHS.get(name)
        if most is not None and isinstance(value, list) and len(value) > most:
            said = f"Invalid '{name}': array too long. Expected an array with maximum length"
            said += f" {most}, but got an array with length {len(value)} instead."
            raise refused(said, name, "array_above_max_length")
        if name == "stop" and isinstance(value, list):
            for place, each in enumerate(value):
                if not isinstance(each, str):
                    raise _wrong_type(f"stop[{place}]", "a string", each)


def _check_number(name: str, value: Any, limits: _Range) -> None:
    kinds = (int,) if limits.kind == _WHOLE else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool):
        words = "an integer" if limits.kind == _WHOLE else "a decimal"
        raise _wrong_type(name, words, value)
    for limit, sign, low in ((limits.least, ">=", True), (limits.most, "<=", False)):
        if limit is None or (value >= limit if low else value <= limit):
            continue
        where = ("below minimum", "below_min") if low else ("above maximum", "above_max")
        said = f"Invalid '{name}': {limits.kind} {where[0]} value. Expected a value {sign}"
        said += f" {limit:g}, but got {value} instead."
        raise refused(said, name, f"{limits.kind}_{where[1]}_value")


def _wrong_type(name: str, wanted: str, value: Any) -> InvalidRequest:
    got = next((said for kind, said in _JSON_NAMES if isinstance(value, kind)), "null")
    said = f"Invalid type for '{name}': expected {wanted}, but got {got} instead."
    return refused(said, name, "invalid_type")


def _check_together(given: Mapping[str, Any]) -> None:
    if "stream_options" in given and given.get("stream") is not True:
        said = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise refused(said, "stream_options")
    if "max_tokens" in given and "max_completion_tokens" in given:
        said = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
        raise refused(said, None, "invalid_parameter_combination")
    for name in ("tool_choice", "parallel_tool_calls"):
        if name in given and not given.get("tools"):
            said = (
                f"Invalid value for '{name}': '{name}' is only allowed when 'tools' are specified."
            )
            raise refused(said, name)
    if "top_logprobs" in given and given.get("logprobs") is not True:
        said = "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled."
        raise refused(said, "top_logprobs")


def _check_names(given: Mapping[str, Any]) -> None:
    functions = [*given.get("functions", ())]
    tools = [each for each in given.get("tools", ()) if isinstance(each, Mapping)]
    for where, function in (
        *((f"tools[{i}].function.name", tool.get("function")) for i, tool in enumerate(tools)),
        *((f"functions[{i}].name", function) for i, function in enumerate(functions)),
    ):
        name = function.get("name") if isinstance(function, Mapping) else None
        if isinstance(name, str) and not _NAME.fullmatch(name):
            said = f"Invalid '{where}': string does not match pattern. Expected a string that"
            said += " matches the pattern '^[a-zA-Z0-9_-]+$'."
            raise refused(said, where, "invalid_value")


def _check_pairs(messages: Sequence[Any]) -> None:
    """Each call has its result right behind it, and each result its call before it."""
    answered: dict[str, bool] = {}
    for place, message in enumerate(messages):
        if not isinstance(message, Mapping):
            continue  # told where messages are read
        role = message.get("role")
        if role == "tool":
            call_id = message.get("tool_call_id")
            if not isinstance(call_id, str) or call_id not in answered:
                # The vendor's own spelling.
                said = "Invalid parameter: messages with role 'tool' must be a response to a"
                said += " preceeding message with 'tool_calls'."
                raise refused(said, f"messages.[{place}].role")
            answered[call_id] = True
            continue
        _check_answered(answered, place)
        calls = message.get("tool_calls") if role == "assistant" else None
        answered = dict.fromkeys(_ids_of(calls, place), False)
    _check_answered(answered, len(messages))


def _ids_of(calls: Any, place: int) -> list[str]:
    ids: list[str] = []
    for number, call in enumerate(calls if isinstance(calls, list) else ()):
        call_id = call.get("id") if isinstance(call, Mapping) else None
        where = f"messages[{place}].tool_calls[{number}].id"
        if not isinstance(call_id, str):
            code = "missing_required_parameter"
            raise refused(f"Missing required parameter: '{where}'.", where, code)
        if len(call_id) > MOST_ID_CHARACTERS:
            said = f"Invalid '{where}': string too long. Expected a string with maximum length"
            said += f" {MOST_ID_CHARACTERS}, but got a string with length {len(call_id)} instead."
            raise refused(said, where, "string_above_max_length")
        ids.append(call_id)
    return ids


def _check_answered(answered: Mapping[str, bool], place: int) -> None:
    missing = [call_id for call_id, done in answered.items() if not done]
    if missing:
        said = "An assistant message with 'tool_calls' must be followed by tool messages responding"
        said += " to each 'tool_call_id'. The following tool_call_ids did not have response"
        said += f" messages: {', '.join(missing)}"
        raise refused(said, f"messages.[{place}].role")
