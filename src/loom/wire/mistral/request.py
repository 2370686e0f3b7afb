"""Chat requests as Mistral writes them in JSON, and back (contract: section 2)."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import msgspec

from loom.core.request import ChatRequest, Sampling
from loom.wire.mistral.messages import decode_message, encode_message
from loom.wire.options import (
    decode_prediction,
    decode_response_format,
    decode_tool,
    decode_tool_choice,
    encode_response_format,
    encode_tool,
    encode_tool_choice,
    unfit,
)

__all__ = [
    "REQUEST_FIELDS",
    "decode_chat_request",
    "decode_prediction",
    "decode_response_format",
    "decode_tool",
    "decode_tool_choice",
    "encode_chat_request",
]

# Fields that stand in a request as they stand on the wire.
_SAMPLING = tuple(field.name for field in msgspec.structs.fields(Sampling))
_PLAIN = (
    "parallel_tool_calls",
    "reasoning_effort",
    "prompt_mode",
    "prompt_cache_key",
    "service_tier",
    "safe_prompt",
    "metadata",
)
# Known to the server although the request value gives them no name of its own: they go through
# `extra` (contract: the log probability family answers 400 and not 422).
_EXTRA = ("logprobs", "top_logprobs", "prompt_logprobs", "top_prompt_logprobs")
_SHAPED = ("tools", "tool_choice", "response_format", "prediction", "guardrails")

REQUEST_FIELDS = frozenset(
    {"model", "messages", "stream", "stream_options", *_SAMPLING, *_PLAIN, *_EXTRA, *_SHAPED}
)
"""Every top-level field that Mistral knows. Source: contract/mistral.md section 2."""

_TYPES: dict[str, type | tuple[type, ...]] = {
    "temperature": (int, float),
    "top_p": (int, float),
    "presence_penalty": (int, float),
    "frequency_penalty": (int, float),
    "repetition_penalty": (int, float),
    "max_tokens": int,
    "min_tokens": int,
    "top_k": int,
    "random_seed": int,
    "n": int,
    "stop": (str, list),
    "parallel_tool_calls": bool,
    "safe_prompt": bool,
    "metadata": dict,
    "guardrails": list,
    "stream": bool,
    "reasoning_effort": str,
    "prompt_mode": str,
    "prompt_cache_key": str,
    "service_tier": str,
}


def encode_chat_request(  # noqa: C901 - one branch for each optional field
    request: ChatRequest,
) -> dict[str, Any]:
    """
    A request as JSON values; only what is set, and nothing that Mistral does not know.

    Args:
        request: One with a legal history (`history.py`).

    Returns:
        The body. `tools` is absent when there are none; `stream` when it is false.
    """
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [encode_message(message) for message in request.messages],
    }
    sampling = request.sampling
    for name in _SAMPLING:
        if (value := getattr(sampling, name)) is not None:
            body[name] = value
    if request.stream:
        body["stream"] = True
    for name in _PLAIN:
        if (value := getattr(request, name)) is not None:
            body[name] = value
    if request.tools:
        body["tools"] = [encode_tool(tool) for tool in request.tools]
    if request.tool_choice is not None:
        body["tool_choice"] = encode_tool_choice(request.tool_choice)
    if request.response_format is not None:
        body["response_format"] = encode_response_format(request.response_format)
    if request.prediction is not None:
        body["prediction"] = {"type": "content", "content": request.prediction}
    if request.guardrails is not None:
        body["guardrails"] = list(request.guardrails)
    if request.extra:
        body.update(request.extra)
    return body


def decode_chat_request(body: Mapping[str, Any]) -> ChatRequest:
    """
    A request from JSON values.

    Args:
        body: The decoded body.

    Returns:
        The request. A field that is null counts as absent.

    Raises:
        InvalidRequest: With status 422 and the field's name for an unknown field or a wrong
            type; naming the position for a message.
    """
    given = {name: value for name, value in body.items() if value is not None}
    for name, value in given.items():
        _check_field(name, value)
    if not isinstance(given.get("model"), str):
        raise unfit("model", "is needed, and must be a string")
    if not isinstance(given.get("messages"), list):
        raise unfit("messages", "is needed, and must be a list")
    tools = given.get("tools", [])
    if not isinstance(tools, list):
        raise unfit("tools", "must be a list")
    drawn = {name: given[name] for name in _SAMPLING if name in given}
    if isinstance(drawn.get("stop"), list):
        drawn["stop"] = tuple(drawn["stop"])
    choice, form = given.get("tool_choice"), given.get("response_format")
    guardrails = given.get("guardrails")
    return ChatRequest(
        model=given["model"],
        messages=tuple(decode_message(value, i) for i, value in enumerate(given["messages"])),
        tools=tuple(decode_tool(tool, f"tools[{i}]") for i, tool in enumerate(tools)),
        tool_choice=None if choice is None else decode_tool_choice(choice),
        sampling=Sampling(**drawn),
        response_format=None if form is None else decode_response_format(form),
        prediction=decode_prediction(given.get("prediction")),
        guardrails=None if guardrails is None else tuple(guardrails),
        stream=given.get("stream", False) is True,
        extra={name: given[name] for name in _EXTRA if name in given},
        **{name: given[name] for name in _PLAIN if name in given},
    )


def _check_field(name: str, value: Any) -> None:
    if name not in REQUEST_FIELDS:
        near = get_close_matches(name, REQUEST_FIELDS, 1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        raise unfit(name, f"is not known to Mistral{meant}")
    wanted = _TYPES.get(name)
    if wanted is None:
        return
    # bool is an int to Python, and not to JSON.
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        raise unfit(name, f"has the wrong type: {type(value).__name__}")
