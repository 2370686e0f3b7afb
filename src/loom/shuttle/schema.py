"""
A Python type as JSON schema.

msgspec (or pydantic, for its own types) writes the schema. What is done here: the root stands in
the clear, properties keep the order of the code, descriptions come from docstrings and
`Annotated`, and what cannot be written is named with its field.
"""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import inspect

from loom.shuttle.annotated import with_meta
from loom.shuttle.docstring import describe
from loom.shuttle.strict import strict_schema

__all__ = ["has_foreign_limits", "is_object", "is_pydantic", "json_schema", "type_label"]

_REF = "#/$defs/"
_WITH_FIELDS = (
    inspect.StructType,
    inspect.DataclassType,
    inspect.TypedDictType,
    inspect.NamedTupleType,
)


def json_schema(type_: Any, *, strict: bool = True) -> dict[str, Any]:
    """
    The JSON schema (draft 2020-12) of a type.

    Args:
        type_: A dataclass, msgspec Struct, TypedDict, NamedTuple, Enum, pydantic model or plain
            type, or anything built of them with containers, unions, Literal and Annotated.
        strict: Whether to close objects and require all properties, see `strict_schema`.

    Returns:
        A new schema. Titles are class names, descriptions come from docstrings and `Annotated`.

    Raises:
        TypeError: If the type, or that of a field within it, has no schema; the message names
            both.
    """
    plain = _pydantic_schema(type_) if is_pydantic(type_) else _msgspec_schema(type_)
    return strict_schema(plain) if strict else plain


def has_foreign_limits(type_: Any) -> bool:
    """
    Whether `Annotated` holds limits in the type or its fields that msgspec does not read.

    Args:
        type_: Any type that `json_schema` takes, pydantic's apart.

    Returns:
        True if a decoded value must be checked with `loom.shuttle.annotated.breach`.
    """
    root = with_meta(type_)
    return root is not type_ or bool(_foreign_hints(_classes(inspect.type_info(root))))


def is_object(type_: Any) -> bool:
    """
    Whether values of a type are written as JSON objects.

    Args:
        type_: As for `json_schema`.

    Returns:
        True for classes with fields and for dicts; False for lists, unions, numbers, ...

    Raises:
        TypeError: If the type, or that of a field within it, has no schema.
    """
    if is_pydantic(type_):
        return _pydantic_schema(type_).get("type") == "object"
    if (trouble := _trouble(type_)) is not None:
        raise _blamed(type_, trouble)
    info = inspect.type_info(with_meta(type_))
    while isinstance(info, inspect.Metadata):
        info = info.type
    if isinstance(info, inspect.StructType):
        return not info.array_like
    return isinstance(info, inspect.DataclassType | inspect.TypedDictType | inspect.DictType)


def type_label(type_: Any) -> str:
    """A type's name for people, for example `Person` or `list[Person]`."""
    origin, args = get_origin(type_), get_args(type_)
    if origin is Annotated:
        return type_label(args[0])
    if type_ is types.NoneType:
        return "None"
    if isinstance(type_, type) and origin is None:
        return type_.__name__
    if origin in (Union, types.UnionType):
        return " | ".join(type_label(arg) for arg in args)
    if origin is None or origin is Literal or not args:
        return str(type_).removeprefix("typing.")
    inner = ", ".join("..." if arg is ... else type_label(arg) for arg in args)
    return f"{getattr(origin, '__name__', origin)}[{inner}]"


# --- msgspec's types -----------------------------------------------------------------------


def _msgspec_schema(type_: Any) -> dict[str, Any]:
    if (trouble := _trouble(type_)) is not None:
        raise _blamed(type_, trouble)
    root_type = with_meta(type_)
    classes = _classes(inspect.type_info(root_type))
    try:
        hints = _foreign_hints(classes)
        # Classes and re-written hints go in as further roots: their answers are `$ref`s, which
        # tell the name that msgspec gave each class.
        (root, *rest), components = msgspec.json.schema_components(
            (root_type, *classes, *hints.values())
        )
    except TypeError as error:
        raise _blamed(type_, str(error)) from None
    except KeyError as error:
        # msgspec 0.22 names classes by module and qualified name, and loses one of two equals.
        raise _blamed(type_, f"two of its classes share one name: {error}") from None
    names = {cls: ref["$ref"].removeprefix(_REF) for cls, ref in zip(classes, rest, strict=False)}
    for (cls, field), schema in zip(hints, rest[len(classes) :], strict=True):
        _replace_field(components[names[cls]], classes[cls], field, schema)
    for cls, info in classes.items():
        components[names[cls]] = _documented(components[names[cls]], info)
    return _rooted(root, components)


def _walk(info: Any, seen: set[Any]) -> Iterator[Any]:
    if hasattr(info, "cls"):
        if info.cls in seen:
            return
        seen.add(info.cls)
    yield info
    parts: tuple[Any, ...] = ()
    if isinstance(info, _WITH_FIELDS):
        parts = tuple(field.type for field in info.fields)
    elif isinstance(info, inspect.Metadata):
        parts = (info.type,)
    elif isinstance(info, inspect.CollectionType):
        parts = (info.item_type,)
    elif isinstance(info, inspect.TupleType):
        parts = info.item_types
    elif isinstance(info, inspect.DictType):
        parts = (info.key_type, info.value_type)
    elif isinstance(info, inspect.UnionType):
        parts = info.types
    for part in parts:
        yield from _walk(part, seen)


def _classes(info: Any) -> dict[Any, Any]:
    """Every class with a name of its own in the tree of a type, with what msgspec knows of it."""
    named = (*_WITH_FIELDS, inspect.EnumType)
    return {part.cls: part for part in _walk(info, set()) if isinstance(part, named)}


def _hints(cls: Any) -> dict[str, Any]:
    """A class's fields in the order of the code, with their `Annotated`."""
    return typing.get_type_hints(get_origin(cls) or cls, include_extras=True)


def _foreign_hints(classes: Mapping[Any, Any]) -> dict[tuple[Any, str], Any]:
    found = {}
    for cls, info in classes.items():
        if isinstance(info, _WITH_FIELDS):
            own = {field.name for field in info.fields}
            for name, hint in _hints(cls).items():
                if name in own and (changed := with_meta(hint)) is not _bare(hint):
                    found[cls, name] = changed
    return found


def _bare(hint: Any) -> Any:
    required = get_origin(hint) in (typing.Required, typing.NotRequired)
    return get_args(hint)[0] if required else hint


def _replace_field(component: dict[str, Any], info: Any, name: str, schema: dict[str, Any]) -> None:
    index, field = next((i, f) for i, f in enumerate(info.fields) if f.name == name)
    if "properties" in component:
        old = component["properties"]
        kept = {"default": old[field.encode_name].get("default")}
        has_default = "default" in old[field.encode_name]
        old[field.encode_name] = schema | (kept if has_default else {})
    else:
        # The tag of a Struct written as an array comes before its fields.
        items = component["prefixItems"]
        items[len(items) - len(info.fields) + index] = schema


def _documented(component: dict[str, Any], info: Any) -> dict[str, Any]:
    """A class's schema in the order of the code, with what its docstring says."""
    cls = get_origin(info.cls) or info.cls
    docstring = component.get("description") and cls.__doc__
    if isinstance(info, inspect.EnumType):
        return _described(component, docstring, {})
    if isinstance(info, inspect.DataclassType | inspect.TypedDictType):
        # msgspec sorts them, by need or by name; models write in the order of the schema.
        encoded = {field.name: field.encode_name for field in info.fields}
        order = [encoded[name] for name in _hints(cls) if name in encoded]
        properties = component["properties"]
        component = component | {"properties": {name: properties[name] for name in order}}
    names = {field.name: field.encode_name for field in info.fields}
    return _described(component, docstring, names)


def _described(
    schema: dict[str, Any], docstring: str | None, names: Mapping[str, str]
) -> dict[str, Any]:
    """A schema with its docstring's summary, and the docstring's fields on the properties."""
    if not docstring:
        return schema
    said = describe(docstring)
    out = {key: value for key, value in schema.items() if key != "description"}
    if said.summary:
        out = _with_description(out, said.summary)
    if "properties" in out:
        texts = {names.get(name, name): text for name, text in said.fields.items()}
        out["properties"] = {
            name: _with_description(part, texts[name])
            if name in texts and "description" not in part
            else part
            for name, part in out["properties"].items()
        }
    return out


def _with_description(schema: dict[str, Any], text: str) -> dict[str, Any]:
    # Title and description come first: people read schemas too.
    title = {"title": schema["title"]} if "title" in schema else {}
    return {**title, "description": text, **schema}


def _rooted(root: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    """One schema whose root is no `$ref`: vendors want to see an object there."""
    name = root.get("$ref", "").removeprefix(_REF)
    if name:
        beside = {key: value for key, value in root.items() if key != "$ref"}
        root = components[name] | beside
        others = {key: part for key, part in components.items() if key != name}
        if f"{_REF}{name}" not in _refs([root, others]):
            components = others
    return {**root, "$defs": components} if components else root


def _refs(part: Any) -> set[str]:
    if isinstance(part, dict):
        own = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
        return own.union(*(_refs(value) for value in part.values()))
    if isinstance(part, list):
        return set().union(*(_refs(value) for value in part))
    return set()


# --- whose fault ---------------------------------------------------------------------------


def _blamed(type_: Any, reason: str) -> TypeError:
    """The error for a type without a schema, with the way to the innermost culprit."""
    path, culprit = type_label(type_), type_
    met: list[Any] = []
    while culprit not in met and not _is_model(culprit):
        met.append(culprit)
        for step, inner in _inside(culprit):
            if inner not in met and (deeper := _trouble(inner)):
                path, culprit, reason = path + step, inner, deeper
                break
    label = type_label(culprit)
    where = "" if culprit is type_ else f"{path}: "
    return TypeError(f"{where}{label} cannot be written as a JSON schema: {reason}")


def _inside(type_: Any) -> list[tuple[str, Any]]:
    origin, args = get_origin(type_), get_args(type_)
    if origin is Annotated:
        return [("", args[0])]
    if origin is Literal:
        return []
    if isinstance(origin or type_, type) and hasattr(origin or type_, "__annotations__"):
        try:
            return [(f".{name}", hint) for name, hint in _hints(type_).items()]
        except NameError:
            return []
    return [("", arg) for arg in args if arg is not ...]


def _trouble(type_: Any) -> str | None:
    try:
        info = inspect.type_info(with_meta(type_))
    except (TypeError, NameError) as error:
        # The rest of msgspec's sentence repeats the type, which is named before it.
        return str(error).partition(" - type ")[0]
    unknown = (inspect.CustomType, inspect.ExtType)
    if any(isinstance(part, unknown) for part in _walk(info, set())):
        return "use a dataclass, msgspec Struct, TypedDict, pydantic model or plain JSON type"
    return None


# --- pydantic's types ----------------------------------------------------------------------


def is_pydantic(type_: Any) -> bool:
    """
    Whether pydantic must write the schema and read the value.

    True for its models and dataclasses, and for containers, dataclasses and TypedDicts that hold
    one. pydantic is never imported here: who has such a type has imported it.

    Args:
        type_: Any type.

    Returns:
        Whether a type of pydantic stands in it.
    """
    return "pydantic" in sys.modules and _holds_model(type_, [])


def _is_model(type_: Any) -> bool:
    return isinstance(type_, type) and hasattr(type_, "__pydantic_validator__")


def _holds_model(type_: Any, met: list[Any]) -> bool:
    if type_ in met:
        return False
    met.append(type_)
    if _is_model(type_):
        return True
    if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
        return False
    return any(_holds_model(inner, met) for _, inner in _inside(type_))


def _pydantic_schema(type_: Any) -> dict[str, Any]:
    pydantic = sys.modules["pydantic"]
    try:
        schema = pydantic.TypeAdapter(type_).json_schema()
    except _refusals(pydantic) as error:
        fields = getattr(type_, "model_fields", {})
        culprits = [name for name, field in fields.items() if _refuses(pydantic, field.annotation)]
        where = f"{type_label(type_)}.{culprits[0]}" if culprits else type_label(type_)
        reason = str(error).partition("\n")[0]
        raise TypeError(f"{where} cannot be written as a JSON schema: {reason}") from None
    components = {
        name: _described(part, part.get("description"), {})
        for name, part in schema.pop("$defs", {}).items()
    }
    return _rooted(_described(schema, schema.get("description"), {}), components)


def _refuses(pydantic: Any, annotation: Any) -> bool:
    try:
        pydantic.TypeAdapter(annotation).json_schema()
    except _refusals(pydantic):
        return True
    return False


def _refusals(pydantic: Any) -> tuple[type[Exception], ...]:
    errors = pydantic.errors
    return (errors.PydanticUserError, errors.PydanticUndefinedAnnotation, TypeError)
