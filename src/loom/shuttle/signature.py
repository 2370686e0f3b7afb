"""A function's parameters as JSON schema, and a model's arguments as what the function takes."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Union

import msgspec

from loom.shuttle.annotated import breach, with_meta
from loom.shuttle.arguments import arguments_invalid, copied, mended, problems
from loom.shuttle.schema import has_foreign_limits, is_pydantic, json_schema

__all__ = ["Signature"]

_REF = "#/$defs/"
# Words of a type's own check reach the model; they may quote the value, and are cut.
_MAX_WORDS = 80


class Signature:
    """
    What a function takes.

    Attributes:
        schema: JSON schema of the arguments, without what a docstring says. It is closed: an
            argument that the function does not have is refused.

    Args:
        label: The function's name, for messages.
        parameters: What a model can give.
        hints: Their types, by name.

    Raises:
        TypeError: If a type cannot be written as a JSON schema; the message names the parameter.
    """

    def __init__(
        self, label: str, parameters: Sequence[inspect.Parameter], hints: Mapping[str, Any]
    ) -> None:
        self._required = frozenset(p.name for p in parameters if p.default is p.empty)
        metas = {name: _with_meta(label, name, hint) for name, hint in hints.items()}
        self._models = {name: hint for name, hint in hints.items() if is_pydantic(hint)}
        self._hints = {name: hint for name, hint in metas.items() if name not in self._models}
        self.schema = _schema(label, parameters, {**metas, **self._models})
        fields = [
            (name, hint) if name in self._required else (name, _or_unset(hint), msgspec.UNSET)
            for name, hint in self._hints.items()
        ]
        self._struct = msgspec.defstruct(
            "Arguments", fields, kw_only=True, forbid_unknown_fields=True
        )
        self._adapters = {
            name: sys.modules["pydantic"].TypeAdapter(hint) for name, hint in self._models.items()
        }
        self._limited = any(has_foreign_limits(hint) for hint in self._hints.values())
        # A value of any kind is handed on as it is: the tool gets a copy to change.
        self._copies = any(_holds_any(hint) for hint in self._hints.values())

    def decode(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """
        Arguments as the function takes them.

        Args:
            arguments: JSON values by name; they are not changed.

        Returns:
            Keyword arguments. What was left out is left out: the function's own default holds.

        Raises:
            ToolArgumentsInvalid: If they do not fit; the message names every problem.
        """
        # A type's own check may raise anything; what is wrong is told below.
        with suppress(Exception):
            return self._decoded(arguments)
        if not isinstance(arguments, Mapping):
            raise arguments_invalid(["expected an object"], self.schema)
        try:
            read = mended(self.schema, arguments)
            found = problems(self.schema, read) or self._refusals(read)
            if not found:
                return self._decoded(read)
        except RecursionError:
            found = ["they are nested too deeply"]
        except Exception as error:  # noqa: BLE001 - a type's own check may raise anything
            # What the check of the schema let pass, because it takes too long.
            found = [_words(str(error) or type(error).__name__)]
        raise arguments_invalid(found, self.schema)

    def _decoded(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if self._limited and (found := breach(self.schema, arguments)) is not None:
            raise ValueError(found)
        if self._models:
            return self._with_models(arguments)
        whole = copied(arguments) if self._copies else arguments
        return _fields(msgspec.convert(whole, self._struct, str_keys=True))

    def _with_models(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        # pydantic reads more than its schema says ("yes" for true): what both take is taken.
        if problems(self.schema, arguments):
            raise ValueError
        others = {name: one for name, one in arguments.items() if name not in self._models}
        found = _fields(msgspec.convert(copied(others), self._struct, str_keys=True))
        for name, adapter in self._adapters.items():
            if name in arguments:
                found[name] = adapter.validate_json(msgspec.json.encode(arguments[name]))
        return found

    def _refusals(self, arguments: Mapping[str, Any]) -> list[str]:
        """What the types' own checks say, where the schema has no objection."""
        found = []
        for name, value in arguments.items():
            try:
                if name in self._adapters:
                    self._adapters[name].validate_json(msgspec.json.encode(value))
                else:
                    msgspec.convert(value, self._hints[name], str_keys=True)
            except Exception as error:  # noqa: BLE001 - a type's own check may raise anything
                found += _refusal(name, error)
        return found


def _fields(struct: Any) -> dict[str, Any]:
    return {
        name: value
        for name in struct.__struct_fields__
        if (value := getattr(struct, name)) is not msgspec.UNSET
    }


def _or_unset(hint: Any) -> Any:
    return Union[hint, msgspec.UnsetType]  # noqa: UP007 - `|` cannot take every hint


def _with_meta(label: str, name: str, hint: Any) -> Any:
    try:
        return with_meta(hint)
    except TypeError as error:
        raise TypeError(f"{label}: the parameter `{name}`: {error}") from None


def _holds_any(hint: Any) -> bool:
    info = msgspec.inspect.type_info(hint)
    waiting, met = [info], set()
    while waiting:
        one = waiting.pop()
        if isinstance(one, msgspec.inspect.AnyType):
            return True
        if (cls := getattr(one, "cls", None)) is not None:
            if cls in met:
                continue
            met.add(cls)
        waiting += [field.type for field in getattr(one, "fields", ())]
        waiting += getattr(one, "types", ())
        waiting += getattr(one, "item_types", ())
        inner = ("type", "item_type", "key_type", "value_type")
        waiting += [part for key in inner if (part := getattr(one, key, None)) is not None]
    return False


# --- the schema ------------------------------------------------------------------------------


def _schema(
    label: str, parameters: Sequence[inspect.Parameter], hints: Mapping[str, Any]
) -> dict[str, Any]:
    plain = {name: hint for name, hint in hints.items() if not is_pydantic(hint)}
    struct = msgspec.defstruct("Arguments", list(plain.items()), kw_only=True)
    try:
        whole = json_schema(struct, strict=False)
        found: dict[str, Any] = dict(whole["properties"])
        defs: dict[str, Any] = dict(whole.get("$defs", {}))
        for name, hint in hints.items():
            if name not in plain:
                found[name] = _joined(json_schema(hint, strict=False), defs)
    except (TypeError, NameError) as error:
        raise _blamed(label, hints, error) from None
    out: dict[str, Any] = {"type": "object", "properties": {}, "required": []}
    for parameter in parameters:
        name = parameter.name
        out["properties"][name] = found[name] | _default(parameter)
        if parameter.default is parameter.empty:
            out["required"].append(name)
    out["additionalProperties"] = False
    return {**out, "$defs": defs} if defs else out


def _joined(schema: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    """A schema whose `$defs` were moved to those of the whole; a name that is taken is changed."""
    own = schema.pop("$defs", {})
    names = {}
    for name, part in own.items():
        free, count = name, 1
        while free in defs and (defs[free] != part or free != name):
            count += 1
            free = f"{name}{count}"
        names[name] = free
    for name, part in own.items():
        defs[names[name]] = _renamed(part, names)
    renamed: dict[str, Any] = _renamed(schema, names)
    return renamed


def _renamed(part: Any, names: Mapping[str, str]) -> Any:
    if isinstance(part, dict):
        return {
            key: f"{_REF}{names.get(value.removeprefix(_REF), value.removeprefix(_REF))}"
            if key == "$ref" and isinstance(value, str) and value.startswith(_REF)
            else _renamed(value, names)
            for key, value in part.items()
        }
    return [_renamed(one, names) for one in part] if isinstance(part, list) else part


def _default(parameter: inspect.Parameter) -> dict[str, Any]:
    """The default, if JSON can say it."""
    value = parameter.default
    if value is parameter.empty or (isinstance(value, float) and not math.isfinite(value)):
        return {}
    try:
        return {"default": msgspec.json.decode(msgspec.json.encode(value, enc_hook=_dumped))}
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
        return {}


def _dumped(value: Any) -> Any:
    if hasattr(type(value), "__pydantic_validator__"):
        return value.model_dump(mode="json")
    raise TypeError


def _blamed(label: str, hints: Mapping[str, Any], error: Exception) -> TypeError:
    for name, hint in hints.items():
        try:
            json_schema(hint, strict=False)
        except (TypeError, NameError) as own:
            return TypeError(f"{label}: the parameter `{name}`: {own}")
    return TypeError(f"{label}: {error}")


# --- words -----------------------------------------------------------------------------------

# Beginnings of msgspec's sentences that quote the value, and what is said instead.
_QUOTING = {
    "Invalid enum value": "expected one of the values that are allowed",
    "Invalid value": "expected one of the values that are allowed",
}


def _refusal(name: str, error: Exception) -> list[str]:
    if (pydantic := sys.modules.get("pydantic")) and isinstance(error, pydantic.ValidationError):
        each = error.errors(include_url=False, include_input=False, include_context=False)
        return [f"`{_place(name, one['loc'])}`: {_words(one['msg'])}" for one in each]
    if not isinstance(error, msgspec.ValidationError):
        return [f"`{name}`: {_words(str(error) or type(error).__name__)}"]
    said, _, place = str(error).rpartition(" - at `$")
    if not said:
        said, place = str(error), "`"
    for start, words in _QUOTING.items():
        said = words if said.startswith(start) else said
    return [f"`{name}{place.removesuffix('`')}`: {_words(said[0].lower() + said[1:])}"]


def _place(name: str, steps: Sequence[int | str]) -> str:
    told = (f"[{step}]" if isinstance(step, int) else f".{step[:40]}" for step in steps)
    return "".join([name, *told])


def _words(said: str) -> str:
    shown = "".join(char if char.isprintable() else " " for char in said)
    return shown if len(shown) <= _MAX_WORDS else f"{shown[: _MAX_WORDS - 3]}..."
