"""
The gateway's own OpenAPI document: two dialects on the same paths, their errors, its headers.

Mistral's half is the document of the simulator, which speaks it; OpenAI's half names the fields of
the table that says what becomes of them (`dialects.py`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from loom.core.version import VERSION
from loom.server.gateway.dialects import FIELDS
from loom.server.openapi import Schema, openapi_document

__all__ = ["POSTS", "gateway_document"]

POSTS = ("chat/completions", "embeddings", "fim/completions")
"""What a model is asked by, behind `/v1/`."""

_JSON = "application/json"
_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_ANY_OBJECT: Schema = {"type": "object"}

_MESSAGES: Schema = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "properties": {
            "role": {"enum": ["system", "developer", "user", "assistant", "tool", "function"]},
            "content": {
                "anyOf": [_TEXT, {"type": "array", "items": _ANY_OBJECT}, {"type": "null"}]
            },
        },
        "required": ["role"],
    },
}
# Of the other fields the names alone: their forms are on OpenAI's page.
_FORMS: dict[str, Schema] = {
    "model": _TEXT,
    "messages": _MESSAGES,
    "stream": {"type": ["boolean", "null"]},
    "n": {"type": ["integer", "null"], "minimum": 1, "maximum": 128},
    "temperature": {"type": ["number", "null"], "minimum": 0, "maximum": 2},
    "max_completion_tokens": {"type": ["integer", "null"], "minimum": 1},
    "max_tokens": {"type": ["integer", "null"], "minimum": 1},
}
_CHAT: Schema = {
    "type": "object",
    "properties": {name: _FORMS.get(name, {}) for name in FIELDS["openai"]},
    "required": ["model", "messages"],
    "additionalProperties": False,
}
_EMBEDDINGS: Schema = {
    "type": "object",
    "properties": {
        "model": _TEXT,
        "input": {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}]},
        "dimensions": {"type": ["integer", "null"], "minimum": 1},
        "encoding_format": {"enum": ["float", "base64", None]},
        "user": {"type": ["string", "null"]},
    },
    "required": ["model", "input"],
    "additionalProperties": False,
}
_COMPLETION: Schema = {
    "type": "object",
    "properties": {
        "id": _TEXT,
        "object": {"const": "chat.completion"},
        "created": _COUNT,
        "model": _TEXT,
        "choices": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "properties": {
                    "index": _COUNT,
                    "message": {
                        "type": "object",
                        "properties": {
                            "role": {"const": "assistant"},
                            "content": {"type": ["string", "null"]},
                            "tool_calls": {"type": "array", "items": _ANY_OBJECT},
                        },
                        "required": ["role", "content"],
                    },
                    "finish_reason": {"enum": ["stop", "length", "tool_calls", "content_filter"]},
                },
                "required": ["index", "message", "finish_reason"],
            },
        },
        "usage": _ANY_OBJECT,
    },
    "required": ["id", "object", "created", "model", "choices", "usage"],
}
_ERROR: Schema = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": _TEXT,
                "type": _TEXT,
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
            "required": ["message", "type", "param", "code"],
            "additionalProperties": False,
        }
    },
    "required": ["error"],
    "additionalProperties": False,
}
_HEALTH: Schema = {
    "type": "object",
    "properties": {"status": {"enum": ["ok", "not ready"]}},
    "required": ["status"],
    "additionalProperties": _TEXT,
}
# The names of each pair: Mistral's, then OpenAI's.
_PAIRS = {
    "ChatRequest": ("MistralChatRequest", "OpenAIChatRequest"),
    "EmbeddingsRequest": ("MistralEmbeddingsRequest", "OpenAIEmbeddingsRequest"),
    "Completion": ("MistralCompletion", "OpenAICompletion"),
    "Error": ("MistralError", "OpenAIError"),
}
_OPENAI = {
    "OpenAIChatRequest": _CHAT,
    "OpenAIEmbeddingsRequest": _EMBEDDINGS,
    "OpenAICompletion": _COMPLETION,
    "OpenAIError": _ERROR,
}

_ERRORS = {
    "400": "The request cannot be answered as it is.",
    "401": "The key is none that holds.",
    "402": "The key's budget is used up.",
    "403": "The key may not ask this model.",
    "404": "There is no such path or model.",
    "405": "The path knows other methods; `allow` names them.",
    "408": "The request took too long to arrive.",
    "409": "The vendor is busy with the same request.",
    "413": "The body has too many bytes.",
    "422": "A field is unknown, or not as it must be.",
    "429": "Too many requests: `x-loom-limit` says whose limit it is.",
    "431": "The request's head has too many bytes.",
    "500": "The gateway, or the vendor, failed.",
    "502": "The vendor's answer cannot be used, or it refuses the gateway.",
    "503": "The vendor cannot be asked now.",
    "504": "The vendor took too long.",
}
_OF_A_LIST = ("400", "401", "403", "404", "408", "429", "431", "500", "503")
_ID = {"x-request-id": ("The caller's own id, or one that was made.", _TEXT)}
_LIMITS = {
    f"x-ratelimit-{kind}-{what}": (f"Of the key: {kind} of {what} in a minute.", _COUNT)
    for kind in ("limit", "remaining")
    for what in ("requests", "tokens", "req-minute", "tokens-minute")
}
_ANSWERED = {
    **_ID,
    **_LIMITS,
    "x-loom-model": ("Who answered.", _TEXT),
    "x-loom-provider": ("The vendor that answered.", _TEXT),
    "x-loom-attempts": ("Requests that were sent to vendors.", _COUNT),
    "x-loom-cost-usd": ("What the answer cost, in US dollars.", _TEXT),
    "x-loom-usage": ("`estimated` where the vendor told no tokens.", {"const": "estimated"}),
    "x-loom-budget-remaining-usd": ("What the tightest budget has left.", _TEXT),
    "x-loom-dropped": ("Fields that the vendor does not know, and that were left out.", _TEXT),
}
_REFUSED = {
    **_ID,
    **_LIMITS,
    "retry-after": ("Seconds to wait.", _COUNT),
    "x-loom-limit": ("Whose limit it is.", {"enum": ["key", "upstream", "capacity"]}),
    "x-loom-attempts": ("Requests that were sent to vendors.", _COUNT),
    "x-loom-upstream-request-id": ("The vendor's id of the request.", _TEXT),
}
_DIALECT = {
    "name": "x-loom-dialect",
    "in": "header",
    "description": "Without it the path and the SDK decide; nobody known speaks OpenAI's.",
    "schema": {"enum": ["openai", "mistral"]},
}


@lru_cache
def gateway_document() -> dict[str, Any]:
    """
    The document of a gateway.

    Returns:
        OpenAPI 3.1, JSON values; not to be changed.
    """
    theirs = openapi_document(POSTS)
    paths = {path: _both(operations) for path, operations in theirs["paths"].items()}
    paths["/health"] = {"get": _page("Whether the process lives", {"200": _HEALTH})}
    ready = _page("Whether requests would be answered", {"200": _HEALTH, "503": _HEALTH})
    paths["/health/ready"] = {"get": ready}
    paths["/openapi.json"] = {"get": _page("This document", {"200": _ANY_OBJECT})}
    paths["/metrics"] = {"get": _metrics()}
    return {
        **theirs,
        "info": {"title": "The gateway of looms", "version": VERSION},
        "security": [{"key": []}, {}],
        "paths": paths,
        "components": {**theirs["components"], "schemas": _schemas(theirs)},
    }


def _schemas(theirs: dict[str, Any]) -> dict[str, Schema]:
    schemas = dict(theirs["components"]["schemas"])
    for name, (mistral, openai) in _PAIRS.items():
        schemas[mistral] = schemas[name]
        schemas[openai] = _OPENAI[openai]
        schemas[name] = {"anyOf": [_ref(mistral), _ref(openai)]}
    # A vendor that speaks like Mistral has ids of its own.
    completion = schemas["MistralCompletion"]
    properties = {**completion["properties"], "id": _TEXT}
    schemas["MistralCompletion"] = {**completion, "properties": properties}
    return schemas


def _both(operations: dict[str, Any]) -> dict[str, Any]:
    """A path's operations, with the header of the dialect, our headers and our errors."""
    found = {}
    for method, operation in operations.items():
        asked = method == "post"
        answer = {**operation["responses"]["200"], "headers": _headers(_ANSWERED if asked else _ID)}
        errors = _ERRORS if asked else {name: _ERRORS[name] for name in _OF_A_LIST}
        found[method] = {
            **operation,
            "parameters": [*operation.get("parameters", ()), _DIALECT],
            "responses": {
                "200": answer,
                **{status: _error(said) for status, said in errors.items()},
            },
        }
    return found


def _page(summary: str, answers: dict[str, Schema]) -> dict[str, Any]:
    responses = {
        status: {"description": summary + ".", "content": {_JSON: {"schema": schema}}}
        for status, schema in answers.items()
    }
    return {"summary": summary, "responses": responses, "security": []}


def _metrics() -> dict[str, Any]:
    text = {"text/plain": {"schema": _TEXT}}
    return {
        "summary": "What was counted, for Prometheus",
        "responses": {
            "200": {"description": "The text.", "content": text},
            "401": _error("It is for this machine, and for the gateway's own key."),
            "501": {"description": "The package that writes it is missing.", "content": text},
        },
    }


def _error(said: str) -> dict[str, Any]:
    content = {_JSON: {"schema": _ref("Error")}}
    return {"description": said, "headers": _headers(_REFUSED), "content": content}


def _headers(named: dict[str, tuple[str, Schema]]) -> dict[str, Any]:
    return {name: {"description": said, "schema": schema} for name, (said, schema) in named.items()}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}
