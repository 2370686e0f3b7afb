"""
Structured output: a type out as a schema, the answer back as a value of that type.

Vendors want an object at the top: a type whose schema is not one, such as `list[Person]` or
`int`, travels as `{"value": ...}`, both ways.
"""

from __future__ import annotations

import re
import sys
from typing import Any, TypeVar, overload

import msgspec

from loom.core.errors import OutputInvalid
from loom.core.request import ResponseFormat
from loom.core.response import FinishReason, LLMResponse, Partial
from loom.shuttle.decode import NotFitting, decode_json
from loom.shuttle.schema import is_object, is_pydantic, json_schema, type_label

__all__ = ["output_format", "parse_output", "parsed_response"]

T = TypeVar("T")

# Mistral's rule for names, ^[A-Za-z0-9_-]{1,64}$ (contract: section 2).
_NAME_LENGTH = 64
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")
# `model_length`: the model's own window was full (contract: section 4).
_CUT = frozenset({"length", "model_length"})


def output_format(type_: Any) -> ResponseFormat:
    """
    The form of answer that asks for a value of a type.

    Args:
        type_: As `loom.shuttle.schema.json_schema` takes it.

    Returns:
        A strict `json_schema` form. Its name is the type's, with `_` for what a name may not
        hold; one type always gets the same name.

    Raises:
        TypeError: If the type, or that of a field within it, has no schema.
    """
    name = _NOT_IN_NAMES.sub("_", type_label(type_)).strip("_")[:_NAME_LENGTH]
    return ResponseFormat(
        type="json_schema",
        name=name or "output",
        schema=json_schema(type_ if is_object(type_) else _boxed(type_)),
        strict=True,
    )


@overload
def parse_output(type_: type[T], text: str, *, finish_reason: FinishReason | None = None) -> T: ...
@overload
def parse_output(type_: Any, text: str, *, finish_reason: FinishReason | None = None) -> Any: ...
def parse_output(type_: Any, text: str, *, finish_reason: FinishReason | None = None) -> Any:
    """
    An answer's text as a value of a type.

    White space and a code fence around the JSON are taken off; the JSON itself must be exact.

    Args:
        type_: The type that `output_format` was given.
        text: The answer.
        finish_reason: Why the answer ended; "length" means that it was cut.

    Returns:
        The value.

    Raises:
        OutputInvalid: If the answer was cut, is not JSON, or does not fit the type. The message
            says where and why, and holds nothing that the model wrote; `.text` holds it all.
        TypeError: If the type, or that of a field within it, has no schema.
    """
    if finish_reason in _CUT:
        raise _invalid(
            type_,
            text,
            "it was cut by max_tokens before its end",
            hint="Raise max_tokens, or ask for a shorter answer; `.text` holds what came.",
        )
    plain = is_object(type_)
    try:
        value = decode_json(type_ if plain else _boxed(type_), _unfenced(text))
    except NotFitting as error:
        # Not chained: a decoder's own error further down may quote what it read.
        raise _invalid(type_, text, str(error)) from None
    return value if plain else value.value


def parsed_response(response: LLMResponse, type_: Any) -> LLMResponse:
    """
    A response with its text read as a value of a type.

    A response that calls tools is given back as it is: the answer comes after their results.

    Args:
        response: The whole answer; its first choice counts.
        type_: The type that `output_format` was given.

    Returns:
        The response with `parsed` set.

    Raises:
        OutputInvalid: As `parse_output`; ids, attempts and usage of the response are on it.
        TypeError: If the type, or that of a field within it, has no schema.
    """
    if response.tool_calls:
        return response
    try:
        value = parse_output(type_, response.content, finish_reason=response.finish_reason)
    except OutputInvalid as error:
        error.request_id = response.request_id
        error.provider = response.metadata.get("provider")
        error.model = response.model
        error.attempts = response.attempts
        error.rate_limit = response.rate_limit
        error.partial = Partial(
            text=response.content, thinking=response.thinking, usage=response.usage
        )
        raise
    return msgspec.structs.replace(response, parsed=value)


def _invalid(type_: Any, text: str, why: str, *, hint: str | None = None) -> OutputInvalid:
    error = OutputInvalid(f"the answer is not a valid {type_label(type_)}: {why}", hint=hint)
    error.text = text
    return error


def _boxed(type_: Any) -> Any:
    if is_pydantic(type_):
        return sys.modules["pydantic"].create_model("Value", value=(type_, ...))
    return msgspec.defstruct("Value", [("value", type_)])


def _unfenced(text: str) -> str:
    body = text.strip()
    if body.startswith("```") and body.endswith("```") and "\n" in body:
        # The first line is the fence with the language's name.
        body = body[:-3].partition("\n")[2].strip()
    return body
