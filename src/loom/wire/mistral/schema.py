"""
What a request may hold, field by field: the tables behind the vendor's 422.

`request.py` names the same fields for our own client; a test compares the two.

Source: contract/mistral.md sections 2 and 3; recordings win over the published schema.
"""

from __future__ import annotations

from typing import Any

from loom.wire.mistral.shape import (
    Field,
    Loc,
    Problem,
    anything,
    boolean,
    either,
    fields,
    integer,
    items,
    mapping,
    number,
    one_of,
    tagged,
    text,
)

__all__ = ["CHAT_FIELDS", "CHAT_REQUEST", "EMBEDDINGS_REQUEST", "FIM_REQUEST"]

# Documentation of the vendor, "Function calling": not seen in a recording.
_MOST_TOOLS = 128

_needed_text = Field(text, required=True)
_text_or_null = Field(text, nullable=True)
# A thought may be nested as deep as JSON; what a reference or resource holds is not told.
_opaque = Field(anything)

_URL = either(
    ("str", text),
    (
        "ImageURL",
        fields(
            {
                "url": _needed_text,
                "detail": Field(one_of("low", "auto", "high"), nullable=True),
            }
        ),
    ),
)
_THOUGHT = tagged(
    "type",
    {
        "text": fields({"type": _opaque, "text": _needed_text}),
        "reference": fields({"type": _opaque, "reference_ids": Field(items(anything))}),
        "tool_reference": mapping,
    },
)
_CHUNKS = {
    "text": fields({"type": _opaque, "text": _needed_text}),
    "image_url": fields({"type": _opaque, "image_url": Field(_URL, required=True)}),
    "document_url": fields(
        {"type": _opaque, "document_url": _needed_text, "document_name": _text_or_null}
    ),
    # A string in the published schema; recorded as an object too, with status 200.
    "input_audio": fields(
        {
            "type": _opaque,
            "input_audio": Field(either(("str", text), ("dict", mapping)), required=True),
        }
    ),
    "file": fields({"type": _opaque, "file_id": _needed_text}),
    "reference": fields(
        {
            "type": _opaque,
            "reference_ids": Field(items(either(("int", integer()), ("str", text))), required=True),
        }
    ),
    "thinking": fields(
        {
            "type": _opaque,
            "thinking": Field(items(_THOUGHT), required=True),
            "signature": _text_or_null,
            "closed": Field(boolean),
        }
    ),
    "resource": mapping,
    "resource_link": mapping,
}
# How the validator names a list in `loc`; the classes are those of the vendor's own SDK.
_CHUNK_LIST = (
    "list[tagged-union[TextChunk,ImageURLChunk,DocumentURLChunk,AudioChunk,FileChunk,"
    "ReferenceChunk,ThinkChunk,ResourceChunk,ResourceLinkChunk]]"
)
_CONTENT = either(("str", text), (_CHUNK_LIST, items(tagged("type", _CHUNKS))))
_SYSTEM_CONTENT = either(
    ("str", text),
    (
        "list[tagged-union[TextChunk,ThinkChunk]]",
        items(tagged("type", {kind: _CHUNKS[kind] for kind in ("text", "thinking")})),
    ),
)
_TOOL_CALL = fields(
    {
        "id": Field(text),
        "type": Field(text),
        "function": Field(
            fields(
                {
                    "name": _needed_text,
                    "arguments": Field(
                        either(("dict[str,any]", mapping), ("str", text)), required=True
                    ),
                }
            ),
            required=True,
        ),
        "index": Field(integer()),
    }
)
_MESSAGE = tagged(
    "role",
    {
        "system": fields({"role": _opaque, "content": Field(_SYSTEM_CONTENT, required=True)}),
        "user": fields({"role": _opaque, "content": Field(_CONTENT, required=True, nullable=True)}),
        "assistant": fields(
            {
                "role": _opaque,
                "content": Field(_CONTENT, nullable=True),
                "tool_calls": Field(items(_TOOL_CALL), nullable=True),
                "prefix": Field(boolean),
            }
        ),
        "tool": fields(
            {
                "role": _opaque,
                "content": Field(_CONTENT, required=True, nullable=True),
                "tool_call_id": _text_or_null,
                "name": _text_or_null,
            }
        ),
    },
)


def _named_schema(key: str) -> Field:
    """A JSON schema under `key`, with its name and what it is for."""
    inner = {
        "name": _needed_text,
        "description": _text_or_null,
        key: Field(mapping, required=True),
        "strict": Field(boolean, nullable=True),
    }
    return Field(fields(inner), required=True)


_TOOL = fields(
    {
        # May be left out (contract: 51 recorded tools without it).
        "type": Field(one_of("function")),
        "function": _named_schema("parameters"),
    }
)
_TOOL_CHOICE = either(
    ("ToolChoiceEnum", one_of("auto", "none", "any", "required")),
    (
        "ToolChoice",
        fields(
            {
                "type": Field(one_of("function")),
                "function": Field(fields({"name": _needed_text}), required=True),
            }
        ),
    ),
)
_PLAIN_FORMAT = fields(
    {"type": Field(one_of("text", "json_object", "json_schema")), "json_schema": _opaque}
)
_SCHEMA_FORMAT = fields({"type": _opaque, "json_schema": _named_schema("schema")})
_GUARDRAIL = fields(
    {
        "block_on_error": Field(boolean),
        "moderation_llm_v1": Field(mapping, nullable=True),
        "moderation_llm_v2": Field(mapping, nullable=True),
    }
)
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


def _response_format(value: Any, loc: Loc, found: list[Problem]) -> None:
    asks = isinstance(value, dict) and value.get("type") == "json_schema"
    (_SCHEMA_FORMAT if asks else _PLAIN_FORMAT)(value, loc, found)


_SAMPLING = {
    "temperature": Field(number(ge=0, le=1.5), nullable=True),
    "top_p": Field(number(gt=0, le=1), nullable=True),
    "max_tokens": Field(integer(ge=0), nullable=True),
    "stream": Field(boolean),
    "stop": Field(either(("str", text), ("list[str]", items(text))), nullable=True),
    "random_seed": Field(integer(ge=0), nullable=True),
    "metadata": Field(mapping, nullable=True),
    "min_tokens": Field(integer(ge=0), nullable=True),
    "prompt_cache_key": _text_or_null,
}

CHAT_FIELDS: dict[str, Field] = {
    "model": _needed_text,
    "messages": Field(items(_MESSAGE), required=True),
    **_SAMPLING,
    "response_format": Field(_response_format),
    "tools": Field(items(_TOOL, _MOST_TOOLS), nullable=True),
    "tool_choice": Field(_TOOL_CHOICE),
    "presence_penalty": Field(number(ge=-2, le=2), nullable=True),
    "frequency_penalty": Field(number(ge=-2, le=2), nullable=True),
    "repetition_penalty": Field(number(), nullable=True),
    "top_k": Field(integer(), nullable=True),
    "logprobs": Field(boolean, nullable=True),
    "top_logprobs": Field(integer(), nullable=True),
    "prompt_logprobs": Field(boolean, nullable=True),
    "top_prompt_logprobs": Field(integer(), nullable=True),
    "n": Field(integer(ge=1), nullable=True),
    "prediction": Field(fields({"type": Field(one_of("content")), "content": Field(text)})),
    "parallel_tool_calls": Field(boolean),
    "reasoning_effort": Field(one_of(*_EFFORTS), nullable=True),
    "prompt_mode": Field(one_of("reasoning"), nullable=True),
    "guardrails": Field(items(_GUARDRAIL), nullable=True),
    "service_tier": Field(one_of("auto", "standard_only"), nullable=True),
    "safe_prompt": Field(boolean),
    # Refused in 2025; the vendor's own programs send it in 2026 (contract: section 2).
    "stream_options": Field(mapping, nullable=True),
}
"""The fields of a chat request."""

CHAT_REQUEST = fields(CHAT_FIELDS)
"""`POST /v1/chat/completions`."""

FIM_REQUEST = fields(
    {
        "model": _needed_text,
        "prompt": _needed_text,
        "suffix": _text_or_null,
        **_SAMPLING,
    }
)
"""`POST /v1/fim/completions`."""

EMBEDDINGS_REQUEST = fields(
    {
        "model": _needed_text,
        "input": Field(either(("str", text), ("list[str]", items(text))), required=True),
        "metadata": Field(mapping, nullable=True),
        "output_dimension": Field(integer(gt=0), nullable=True),
        "output_dtype": Field(one_of("float", "int8", "uint8", "binary", "ubinary")),
        "encoding_format": Field(one_of("float", "base64"), nullable=True),
    }
)
"""`POST /v1/embeddings`."""
