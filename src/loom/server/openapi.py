"""
The application's own OpenAPI document: what it takes and what it answers.

It names the same fields as the tables by which requests are refused
(`wire/mistral/schema.py`); a test compares the two.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import Any, TypeAlias

from loom.core.version import VERSION

__all__ = ["Schema", "openapi_document"]

Schema: TypeAlias = dict[str, Any]
"""A JSON Schema."""

_JSON = "application/json"
_TEXT: Schema = {"type": "string"}
_BOOL: Schema = {"type": "boolean"}
_WHOLE: Schema = {"type": "integer"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_NUMBER: Schema = {"type": "number"}
_ANY_OBJECT: Schema = {"type": "object"}
_PENALTY: Schema = {"type": "number", "minimum": -2, "maximum": 2}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _any_of(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


def _list(items: Schema, **limits: int) -> Schema:
    return {"type": "array", "items": items, **limits}


def _words(*words: str) -> Schema:
    return {"type": "string", "enum": list(words)}


def _const(word: str) -> Schema:
    return {"const": word}


def _object(needed: dict[str, Schema], maybe: dict[str, Schema] | None = None) -> Schema:
    """An object with these fields and no others."""
    return {
        "type": "object",
        "properties": {**needed, **(maybe or {})},
        "required": list(needed),
        "additionalProperties": False,
    }


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_NAME: Schema = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}
_SAMPLING: dict[str, Schema] = {
    "temperature": _or_null({"type": "number", "minimum": 0, "maximum": 1.5}),
    "top_p": _or_null({"type": "number", "exclusiveMinimum": 0, "maximum": 1}),
    "max_tokens": _or_null(_COUNT),
    "stream": _BOOL,
    "stop": _any_of(_TEXT, _list(_TEXT), {"type": "null"}),
    "random_seed": _or_null(_COUNT),
    "metadata": _or_null(_ANY_OBJECT),
    "min_tokens": _or_null(_COUNT),
    "prompt_cache_key": _or_null(_TEXT),
}
_CHAT = _object(
    {"model": _TEXT, "messages": _list(_ref("Message"))},
    {
        **_SAMPLING,
        "response_format": _ref("ResponseFormat"),
        "tools": _or_null(_list(_ref("Tool"), maxItems=128)),
        "tool_choice": _any_of(
            _words("auto", "none", "any", "required"),
            _object({"function": _object({"name": _TEXT})}, {"type": _const("function")}),
        ),
        "presence_penalty": _or_null(_PENALTY),
        "frequency_penalty": _or_null(_PENALTY),
        "repetition_penalty": _or_null(_NUMBER),
        "top_k": _or_null(_WHOLE),
        "logprobs": _or_null(_BOOL),
        "top_logprobs": _or_null(_WHOLE),
        "prompt_logprobs": _or_null(_BOOL),
        "top_prompt_logprobs": _or_null(_WHOLE),
        "n": _or_null({"type": "integer", "minimum": 1, "maximum": 64}),
        "prediction": _object({}, {"type": _const("content"), "content": _TEXT}),
        "parallel_tool_calls": _BOOL,
        "reasoning_effort": _or_null(
            _words("none", "minimal", "low", "medium", "high", "xhigh", "max")
        ),
        "prompt_mode": _or_null(_const("reasoning")),
        "guardrails": _or_null(
            _list(
                _object(
                    {},
                    {
                        "block_on_error": _BOOL,
                        "moderation_llm_v1": _or_null(_ANY_OBJECT),
                        "moderation_llm_v2": _or_null(_ANY_OBJECT),
                    },
                )
            )
        ),
        "service_tier": _or_null(_words("auto", "standard_only")),
        "safe_prompt": _BOOL,
        "stream_options": _or_null(_ANY_OBJECT),
    },
)
_INFILL = _object({"model": _TEXT, "prompt": _TEXT}, {"suffix": _or_null(_TEXT), **_SAMPLING})
_EMBEDDINGS = _object(
    {"model": _TEXT, "input": _any_of(_TEXT, _list(_TEXT, maxItems=256))},
    {
        "metadata": _or_null(_ANY_OBJECT),
        "output_dimension": _or_null({"type": "integer", "exclusiveMinimum": 0}),
        "output_dtype": _words("float", "int8", "uint8", "binary", "ubinary"),
        "encoding_format": _or_null(_words("float", "base64")),
    },
)


def _chunk(kind: str, needed: dict[str, Schema], maybe: dict[str, Schema] | None = None) -> Schema:
    return _object({"type": _const(kind), **needed}, maybe)


_TEXT_CHUNK = _chunk("text", {"text": _TEXT})
_THINKING_CHUNK = _chunk(
    "thinking",
    {"thinking": _list(_any_of(_TEXT_CHUNK, _chunk("reference", {"reference_ids": _list({})})))},
    {"signature": _or_null(_TEXT), "closed": _BOOL},
)
_URL = _any_of(_TEXT, _object({"url": _TEXT}, {"detail": _or_null(_words("low", "auto", "high"))}))
_CHUNK = _any_of(
    _TEXT_CHUNK,
    _chunk("image_url", {"image_url": _URL}),
    _chunk("document_url", {"document_url": _TEXT}, {"document_name": _or_null(_TEXT)}),
    _chunk("input_audio", {"input_audio": _any_of(_TEXT, _ANY_OBJECT)}),
    _chunk("file", {"file_id": _TEXT}),
    _chunk("reference", {"reference_ids": _list(_any_of(_WHOLE, _TEXT))}),
    _THINKING_CHUNK,
)
_CONTENT = _any_of(_TEXT, _list(_ref("Chunk")))
_CALL_FUNCTION = _object({"name": _TEXT, "arguments": _any_of(_ANY_OBJECT, _TEXT)})
_CALL = _object({"function": _CALL_FUNCTION}, {"id": _TEXT, "type": _TEXT, "index": _WHOLE})


def _message(role: str, needed: dict[str, Schema], maybe: dict[str, Schema]) -> Schema:
    return _object({"role": _const(role), **needed}, maybe)


_MESSAGE = _any_of(
    _message(
        "system", {"content": _any_of(_TEXT, _list(_any_of(_TEXT_CHUNK, _THINKING_CHUNK)))}, {}
    ),
    _message("user", {"content": _or_null(_CONTENT)}, {}),
    _message(
        "assistant",
        {},
        {"content": _or_null(_CONTENT), "tool_calls": _or_null(_list(_CALL)), "prefix": _BOOL},
    ),
    _message(
        "tool",
        {"content": _or_null(_CONTENT)},
        {"tool_call_id": _or_null(_TEXT), "name": _or_null(_TEXT)},
    ),
)
_TOOL_FUNCTION = _object(
    {"name": _NAME, "parameters": _ANY_OBJECT},
    {"description": _or_null(_TEXT), "strict": _or_null(_BOOL)},
)
_SCHEMA_FORM = _object(
    {"name": _TEXT, "schema": _ANY_OBJECT},
    {"description": _or_null(_TEXT), "strict": _or_null(_BOOL)},
)
_FORMAT = _any_of(
    _object({}, {"type": _words("text", "json_object")}),
    _object({"type": _const("json_schema"), "json_schema": _SCHEMA_FORM}),
)

# Answers hold at least these; the vendor adds fields.
_USAGE: Schema = {
    "type": "object",
    "properties": {
        "prompt_tokens": _COUNT,
        "total_tokens": _COUNT,
        "completion_tokens": _COUNT,
    },
    "required": ["prompt_tokens", "total_tokens", "completion_tokens"],
}
_ANSWERED_MESSAGE: Schema = {
    "type": "object",
    "properties": {
        "role": _const("assistant"),
        "tool_calls": _or_null(_list(_ref("ToolCall"))),
        "content": _CONTENT,
    },
    "required": ["role", "tool_calls", "content"],
}
_COMPLETION: Schema = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
        "created": _COUNT,
        "model": _TEXT,
        "usage": _ref("Usage"),
        "object": _const("chat.completion"),
        "choices": _list(
            {
                "type": "object",
                "properties": {
                    "index": _COUNT,
                    "finish_reason": _words("stop", "length", "tool_calls"),
                    "message": _ANSWERED_MESSAGE,
                },
                "required": ["index", "finish_reason", "message"],
            },
            minItems=1,
        ),
    },
    "required": ["id", "created", "model", "usage", "object", "choices"],
}
_VECTORS: Schema = {
    "type": "object",
    "properties": {
        "data": _list(
            {
                "type": "object",
                "properties": {"embedding": _any_of(_list(_NUMBER), _TEXT), "index": _COUNT},
                "required": ["embedding", "index"],
            }
        ),
        "model": _TEXT,
        "usage": _ANY_OBJECT,
    },
    "required": ["data", "model", "usage"],
}
_MODEL_KEYS = ("id", "object", "created", "owned_by", "capabilities", "max_context_length")
_MODEL: Schema = {
    "type": "object",
    "properties": {"id": _TEXT, "object": _const("model"), "created": _COUNT},
    "required": list(_MODEL_KEYS),
}
_ERROR = _any_of(
    _object({"detail": _any_of(_TEXT, _list(_ANY_OBJECT))}),
    {
        "type": "object",
        "properties": {
            "object": _const("error"),
            "message": _any_of(_TEXT, _ANY_OBJECT),
            "type": _TEXT,
            "param": {"type": "null"},
            "code": _or_null(_TEXT),
            "raw_status_code": _WHOLE,
        },
        "required": ["object", "message", "type", "param", "code", "raw_status_code"],
    },
)
_SCHEMAS: dict[str, Schema] = {
    "ChatRequest": _CHAT,
    "InfillRequest": _INFILL,
    "EmbeddingsRequest": _EMBEDDINGS,
    "Message": _MESSAGE,
    "Chunk": _CHUNK,
    "Tool": _object({"function": _TOOL_FUNCTION}, {"type": _const("function")}),
    "ToolCall": _CALL,
    "ResponseFormat": _FORMAT,
    "Completion": _COMPLETION,
    "Usage": _USAGE,
    "Vectors": _VECTORS,
    "Model": _MODEL,
    "ModelList": _object({"object": _const("list"), "data": _list(_ref("Model"))}),
    "Error": _ERROR,
}
_ERRORS = {
    "400": "The request cannot be answered as it is: model, order of turns, window.",
    "401": "The key is wrong.",
    "402": "The key's credits are used up.",
    "413": "The body has too many bytes.",
    "422": "A field is unknown, or not as it must be.",
    "429": "Too many requests or tokens in this minute.",
    "500": "The service failed.",
}
_POSTS = {
    "chat/completions": ("Answer a conversation", "ChatRequest", "Completion"),
    "fim/completions": ("Fill in between two texts", "InfillRequest", "Completion"),
    "embeddings": ("Turn texts into vectors", "EmbeddingsRequest", "Vectors"),
}


@lru_cache
def openapi_document(posts: Collection[str]) -> dict[str, Any]:
    """
    The document of an application.

    Args:
        posts: The paths behind `/v1/` that take requests, for example `chat/completions`;
            hashable.

    Returns:
        OpenAPI 3.1, JSON values; not to be changed.
    """
    paths = {f"/v1/{path}": {"post": _post(path)} for path in _POSTS if path in posts}
    model_id = {"name": "id", "in": "path", "required": True, "schema": _TEXT}
    paths["/v1/models"] = {"get": _operation("List the models", _ref("ModelList"), ("401",))}
    card = _operation("Show one model", _ref("Model"), ("401", "404"))
    paths["/v1/models/{id}"] = {"get": {**card, "parameters": [model_id]}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Mistral's API, offline", "version": VERSION},
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": _SCHEMAS,
        },
    }


def _post(path: str) -> dict[str, Any]:
    summary, asked, answered = _POSTS[path]
    operation = _operation(summary, _ref(answered), tuple(_ERRORS))
    if answered == "Completion":
        operation["responses"]["200"]["content"]["text/event-stream"] = {"schema": _TEXT}
    content = {_JSON: {"schema": _ref(asked)}}
    return {**operation, "requestBody": {"required": True, "content": content}}


def _operation(summary: str, answer: Schema, errors: tuple[str, ...]) -> dict[str, Any]:
    refused = {"content": {_JSON: {"schema": _ref("Error")}}}
    responses: dict[str, Any] = {
        "200": {"description": "The answer.", "content": {_JSON: {"schema": answer}}}
    }
    for status in errors:
        said = _ERRORS.get(status, "There is no such thing.")
        responses[status] = {"description": said, **refused}
    return {"summary": summary, "responses": responses}
