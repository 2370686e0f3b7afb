"""
Chat requests as OpenAI writes them in JSON, and back.

Source: openai 3.57 `types/chat/completion_create_params.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from loom.core.errors import InvalidRequest
from loom.core.request import ChatRequest, NamedTool, Sampling, ToolChoice, ToolSpec
from loom.wire.chat_completions.checks import EXTRA_FIELDS, check_request
from loom.wire.chat_completions.messages import decode_messages, encode_messages
from loom.wire.chat_completions.refusals import refused
from loom.wire.options import (
    decode_prediction,
    decode_response_format,
    decode_tool,
    decode_tool_choice,
    encode_response_format,
    encode_tool,
    encode_tool_choice,
)

__all__ = ["LimitField", "decode_chat_request", "encode_chat_request", "wants_usage"]

LimitField: TypeAlias = Literal["max_completion_tokens", "max_tokens"]
"""The field for the answer's longest length; the old name is all that some servers know."""

# Our names, and OpenAI's.
_SAMPLING = {
    "temperature": "temperature",
    "top_p": "top_p",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "n": "n",
    "stop": "stop",
    "random_seed": "seed",
}
_PLAIN = (
    "parallel_tool_calls",
    "reasoning_effort",
    "prompt_cache_key",
    "service_tier",
    "metadata",
)
_NOT_SAMPLED = ("min_tokens", "top_k", "repetition_penalty")
_NOT_KNOWN = ("prompt_mode", "guardrails", "safe_prompt")


def encode_chat_request(request: ChatRequest, limit_field: LimitField) -> dict[str, Any]:
    """
    A request as JSON values; only what is set.

    Args:
        request: One with a legal history (`history.py`).
        limit_field: Where `max_tokens` is written.

    Returns:
        The body; a stream is asked for its usage. What stands in `extra` goes out as it is, and a
        field that is None there is left out.

    Raises:
        InvalidRequest: If it has an option, or a part, that OpenAI does not have.
    """
    _refuse_foreign(request)
    body: dict[str, Any] = {
        "model": request.model,
        "messages": encode_messages(request.messages),
    }
    sampling = request.sampling
    for ours, theirs in _SAMPLING.items():
        if (value := getattr(sampling, ours)) is not None:
            body[theirs] = value
    if sampling.max_tokens is not None:
        body[limit_field] = sampling.max_tokens
    if request.stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    for name in _PLAIN:
        if (value := getattr(request, name)) is not None:
            body[name] = value
    _encode_tools(request, body)
    if request.response_format is not None:
        body["response_format"] = encode_response_format(request.response_format)
    if request.prediction is not None:
        body["prediction"] = {"type": "content", "content": request.prediction}
    body.update(request.extra)
    return {name: value for name, value in body.items() if value is not None}


def _encode_tools(request: ChatRequest, body: dict[str, Any]) -> None:
    if request.tools:
        body["tools"] = [encode_tool(tool) for tool in request.tools]
    elif request.tool_choice in (None, "auto", "none"):
        # OpenAI refuses both words where there are no tools; without tools they say nothing.
        body.pop("parallel_tool_calls", None)
        return
    if request.tool_choice is not None:
        # The same wish in OpenAI's word.
        choice = "required" if request.tool_choice == "any" else request.tool_choice
        body["tool_choice"] = encode_tool_choice(choice)


def _refuse_foreign(request: ChatRequest) -> None:
    found = [name for name in _NOT_SAMPLED if getattr(request.sampling, name) is not None]
    found += [name for name in _NOT_KNOWN if getattr(request, name) is not None]
    if found:
        raise InvalidRequest(
            f"OpenAI has no option {found[0]!r}: leave it out; for a server that speaks like OpenAI"
            f" and knows it, give extra={{{found[0]!r}: ...}}"
        )


def decode_chat_request(body: Mapping[str, Any]) -> ChatRequest:
    """
    A request from JSON values.

    Args:
        body: The decoded body.

    Returns:
        The request. A field that is null counts as absent. What only OpenAI knows stands in
        `extra`; there is `stream_options` too, unless they ask for usage and nothing else.

    Raises:
        InvalidRequest: With status 400, in OpenAI's words.
    """
    given = {name: value for name, value in body.items() if value is not None}
    check_request(given)
    drawn = {ours: given[theirs] for ours, theirs in _SAMPLING.items() if theirs in given}
    if isinstance(drawn.get("stop"), list):
        drawn["stop"] = tuple(drawn["stop"])
    most = given.get("max_completion_tokens", given.get("max_tokens"))
    stream = given.get("stream") is True
    extra = {name: given[name] for name in EXTRA_FIELDS if name in given}
    if stream and given.get("stream_options") != {"include_usage": True}:
        extra["stream_options"] = given.get("stream_options", {"include_usage": False})
    return ChatRequest(
        model=given["model"],
        messages=decode_messages(given["messages"]),
        **_decode_shaped(given),
        sampling=Sampling(max_tokens=most, **drawn),
        stream=stream,
        extra=extra,
        **{name: given[name] for name in _PLAIN if name in given},
    )


def _decode_shaped(given: Mapping[str, Any]) -> dict[str, Any]:
    """Tools, forms and predictions, with what they were called before 2023."""
    form = given.get("response_format")
    try:
        return {
            "tools": _decode_tools(given),
            "tool_choice": _decode_choice(given),
            "response_format": None if form is None else decode_response_format(form),
            "prediction": _decode_prediction(given.get("prediction")),
        }
    except InvalidRequest as error:
        if error.vendor_type is not None:
            raise
        raise refused(error.message) from None


def _decode_tools(given: Mapping[str, Any]) -> tuple[ToolSpec, ...]:
    tools = [(f"tools[{i}]", tool) for i, tool in enumerate(given.get("tools", ()))]
    for i, function in enumerate(given.get("functions", ())):
        tools.append((f"functions[{i}]", {"function": function}))
    return tuple(decode_tool(tool, where, "OpenAI") for where, tool in tools)


def _decode_choice(given: Mapping[str, Any]) -> ToolChoice | None:
    choice = given.get("tool_choice", given.get("function_call"))
    if choice is None:
        return None
    if isinstance(choice, Mapping) and isinstance(choice.get("name"), str):
        return NamedTool(choice["name"])
    kind = choice.get("type") if isinstance(choice, Mapping) else None
    if kind in ("allowed_tools", "custom"):
        raise refused(f"a 'tool_choice' of type {kind!r} is not taken here", "tool_choice")
    if choice == "any":
        said = "Invalid value: 'any'. Supported values are: 'none', 'auto', and 'required'."
        raise refused(said, "tool_choice", "invalid_value")
    return decode_tool_choice(choice)


def _decode_prediction(value: Any) -> str | None:
    if isinstance(value, Mapping) and isinstance(value.get("content"), list):
        texts = [part.get("text") for part in value["content"] if isinstance(part, Mapping)]
        return "".join(text for text in texts if isinstance(text, str))
    return decode_prediction(value)


def wants_usage(request: ChatRequest) -> bool:
    """
    Server role: whether a stream shall end with its usage.

    Args:
        request: One that `decode_chat_request` made, or any other: they want it.
    """
    options = request.extra.get("stream_options")
    if not isinstance(options, Mapping):
        return True
    return options.get("include_usage") is True
