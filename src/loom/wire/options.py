"""Options of a request that the chat-completions family writes alike: tools, forms, predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from loom.core.errors import InvalidRequest
from loom.core.request import NamedTool, ResponseFormat, ToolChoice, ToolSpec

__all__ = [
    "decode_prediction",
    "decode_response_format",
    "decode_tool",
    "decode_tool_choice",
    "encode_response_format",
    "encode_tool",
    "encode_tool_choice",
    "unfit",
]


def decode_tool(value: Any, where: str, vendor: str = "Mistral") -> ToolSpec:
    """
    A tool as the wire writes it; its `type` may be missing.

    Args:
        value: `{"type": "function", "function": {"name": ..., "parameters": ...}}`.
        where: Its place, for the error.
        vendor: Who does not know a field, for the error.

    Returns:
        The tool.

    Raises:
        InvalidRequest: If it is not a function with a name.
    """
    function = value.get("function") if isinstance(value, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise unfit(where, "must be a dict with a 'function' that has a 'name'")
    if value.get("type", "function") != "function":
        raise unfit(where, f"has the type {value['type']!r}; only functions are known")
    unknown = set(function) - {"name", "description", "parameters", "strict"}
    if unknown:
        raise unfit(f"{where}.function.{min(unknown)}", f"is not known to {vendor}")
    parameters = function.get("parameters") or {}
    if not isinstance(parameters, Mapping):
        raise unfit(f"{where}.function.parameters", "must be a JSON schema")
    return ToolSpec(
        name=function["name"],
        description=function.get("description"),
        parameters=parameters,
        strict=function.get("strict"),
    )


def decode_tool_choice(value: Any) -> ToolChoice:
    """
    A tool choice as the wire writes it.

    Args:
        value: "auto", "none", "any", "required", or `{"type": "function", "function": {"name"}}`.

    Returns:
        The word, or the named tool.

    Raises:
        InvalidRequest: If it is neither.
    """
    if value in ("auto", "none", "any", "required"):
        return cast("ToolChoice", value)
    function = value.get("function") if isinstance(value, Mapping) else None
    if isinstance(function, Mapping) and isinstance(function.get("name"), str):
        return NamedTool(function["name"])
    raise unfit("tool_choice", "must be auto, none, any, required, or name a function")


def decode_response_format(value: Any) -> ResponseFormat:
    """
    An answer's form as the wire writes it.

    Args:
        value: `{"type": ...}`, with `json_schema` when the type says so.

    Returns:
        The form.

    Raises:
        InvalidRequest: If the type is unknown, or the schema missing.
    """
    kind = value.get("type") if isinstance(value, Mapping) else None
    if kind in ("text", "json_object"):
        return ResponseFormat(type=kind)
    if kind != "json_schema":
        raise unfit("response_format", "must have the type text, json_object or json_schema")
    wanted = value.get("json_schema")
    if not isinstance(wanted, Mapping) or not isinstance(wanted.get("schema"), Mapping):
        raise unfit("response_format.json_schema", "must have a 'name' and a 'schema'")
    return ResponseFormat(
        type="json_schema",
        name=wanted.get("name"),
        schema=wanted["schema"],
        description=wanted.get("description"),
        strict=wanted.get("strict"),
    )


def decode_prediction(value: Any) -> str | None:
    """
    A prediction as the wire writes it.

    Args:
        value: None, a string, or `{"type": "content", "content": ...}`.

    Returns:
        The predicted text.

    Raises:
        InvalidRequest: If it is none of these.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Mapping) and isinstance(value.get("content"), str):
        return cast("str", value["content"])
    raise unfit("prediction", "must be a text, or a dict with the 'content'")


def encode_tool(tool: ToolSpec) -> dict[str, Any]:
    """
    A tool as JSON values.

    Args:
        tool: Its description and `strict` are left out when they are None.
    """
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    function["parameters"] = tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def encode_tool_choice(choice: ToolChoice) -> Any:
    """
    A tool choice as JSON values.

    Args:
        choice: A word, or one tool by its name.
    """
    if isinstance(choice, NamedTool):
        return {"type": "function", "function": {"name": choice.name}}
    return choice


def encode_response_format(form: ResponseFormat) -> dict[str, Any]:
    """
    An answer's form as JSON values.

    Args:
        form: A schema without a name is called "answer": the wire wants one.
    """
    if form.type != "json_schema":
        return {"type": form.type}
    wanted: dict[str, Any] = {"name": form.name or "answer", "schema": form.schema or {}}
    if form.description is not None:
        wanted["description"] = form.description
    if form.strict is not None:
        wanted["strict"] = form.strict
    return {"type": "json_schema", "json_schema": wanted}


def unfit(where: str, problem: str) -> InvalidRequest:
    """
    The error of a field that cannot be read.

    Args:
        where: The field.
        problem: What is wrong, as the end of a sentence.
    """
    return InvalidRequest(f"'{where}' {problem}", http_status=422)
