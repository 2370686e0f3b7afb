"""
Shapes of values in a settings document: each reads a value and tells its JSON schema.

The reader and the schema come from one table, so an editor and `load_agent_file` agree.
"""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from loom.config.yaml_tree import Misfit, Node, nearest
from loom.core.errors import ConfigInvalid

__all__ = [
    "Checked",
    "Flag",
    "Items",
    "Number",
    "Parsed",
    "Record",
    "Shape",
    "Table",
    "Text",
    "TextOr",
    "Whole",
]

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_FLAGS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
# YAML 1.1 takes them for true and false, YAML 1.2 for texts.
_NO_FLAGS = frozenset({"yes", "no", "on", "off", "y", "n"})
_SHOWN = 40


class Shape(Protocol):
    """What a value must be."""

    @abstractmethod
    def read(self, node: Node, path: str) -> Any:
        """
        The value of a node.

        Args:
            node: Where it stands.
            path: Its keys, joined by dots.

        Returns:
            The value, typed.

        Raises:
            Misfit: If it is another kind of value.
        """

    @abstractmethod
    def schema(self) -> dict[str, Any]:
        """The same as a JSON schema."""


class Text(Shape):
    """
    A text, quoted or not: `no`, `1e3` and `0.50` stay what was written.

    Args:
        choices: The texts that are allowed; empty: all.
        secret: Whether errors must not repeat it.
    """

    def __init__(self, *choices: str, secret: bool = False) -> None:
        self._choices = choices
        self._secret = secret

    def read(self, node: Node, path: str) -> str:
        """The text."""
        if node.text is None or node.empty:
            raise Misfit(node.line, f"{path}: a text is expected, not {node.kind}")
        if not node.text.strip():
            raise Misfit(node.line, f"{path}: is empty")
        if self._choices and node.text not in self._choices:
            wish = nearest(node.text, self._choices)
            shown = "" if self._secret else f"{node.text[:_SHOWN]!r} is not known: "
            raise Misfit(node.line, f"{path}: {shown}{wish}")
        return node.text

    def schema(self) -> dict[str, Any]:
        """A string, or one of the choices."""
        if self._choices:
            return {"enum": list(self._choices)}
        return {"type": "string", "pattern": r"\S"}


class Parsed(Shape):
    """
    A text that means something.

    Args:
        parse: Gives the meaning, or None if the text has none; its `ConfigInvalid` is told.
        says: What is expected, for errors.
        pattern: A regular expression for editors.
        number: Whether editors may take it for a number.
        secret: Whether errors must not repeat it.
    """

    def __init__(
        self,
        parse: Callable[[str], Any],
        says: str,
        *,
        pattern: str = r"\S",
        number: bool = False,
        secret: bool = False,
    ) -> None:
        self._parse = parse
        self._says = says
        self._pattern = pattern
        self._number = number
        self._secret = secret

    def read(self, node: Node, path: str) -> Any:
        """What the text means."""
        text = Text(secret=self._secret).read(node, path)
        try:
            value = self._parse(text)
        except ConfigInvalid as error:
            raise Misfit(node.line, f"{path}: {error.message}") from None
        if value is None:
            shown = "" if self._secret else f", not {text[:_SHOWN]!r}"
            raise Misfit(node.line, f"{path}: {self._says} is expected{shown}")
        return value

    def schema(self) -> dict[str, Any]:
        """A string of that form."""
        made: dict[str, Any] = {"pattern": self._pattern, "description": self._says}
        if self._number:
            return {"type": ["string", "number"], "minimum": 0, **made}
        return {"type": "string", **made}


class Checked(Shape):
    """
    A shape, and a rule for the whole of its value.

    Args:
        shape: What it is.
        check: Raises `ConfigInvalid` if the value breaks the rule.
    """

    def __init__(self, shape: Shape, check: Callable[[Any], object]) -> None:
        self._shape = shape
        self._check = check

    def read(self, node: Node, path: str) -> Any:
        """The value, if the rule holds."""
        value = self._shape.read(node, path)
        try:
            self._check(value)
        except ConfigInvalid as error:
            raise Misfit(node.line, f"{path}: {error.message}") from None
        return value

    def schema(self) -> dict[str, Any]:
        """That of the shape: editors do not know the rule."""
        return self._shape.schema()


class Whole(Shape):
    """
    A whole number.

    Args:
        least: The smallest.
    """

    def __init__(self, least: int) -> None:
        self._least = least

    def read(self, node: Node, path: str) -> int:
        """The number."""
        text = _plain(node, path, f"a whole number of at least {self._least}", _WHOLE)
        if int(text) < self._least:
            raise Misfit(node.line, f"{path}: {text} is below {self._least}")
        return int(text)

    def schema(self) -> dict[str, Any]:
        """An integer."""
        return {"type": "integer", "minimum": self._least}


class Number(Shape):
    """
    A number.

    Args:
        low: The smallest.
        high: The largest; None: any.
        above: Whether `low` itself is too small.
    """

    def __init__(self, low: float, high: float | None = None, *, above: bool = False) -> None:
        self._low = low
        self._high = math.inf if high is None else high
        self._above = above

    def read(self, node: Node, path: str) -> float:
        """The number."""
        text = _plain(node, path, "a number", _NUMBER)
        value = float(text)
        low = value > self._low if self._above else value >= self._low
        if not (low and value <= self._high and math.isfinite(value)):
            bounds = f"{'above' if self._above else 'at least'} {self._low:g}"
            bounds += "" if math.isinf(self._high) else f" and at most {self._high:g}"
            raise Misfit(node.line, f"{path}: {text[:_SHOWN]} is out of range: {bounds}")
        return value

    def schema(self) -> dict[str, Any]:
        """A number in its range."""
        bound = "exclusiveMinimum" if self._above else "minimum"
        high = {} if math.isinf(self._high) else {"maximum": self._high}
        return {"type": "number", bound: self._low, **high}


class Flag(Shape):
    """True or false, and neither yes nor on."""

    def read(self, node: Node, path: str) -> bool:
        """The truth."""
        value = None if node.text is None or node.quoted else _FLAGS.get(node.text)
        if value is None:
            word = node.text is not None and node.text.lower() in _NO_FLAGS
            shown = f"{node.text!r}" if word else node.kind
            raise Misfit(node.line, f"{path}: true or false is expected, not {shown}")
        return value

    def schema(self) -> dict[str, Any]:
        """A boolean."""
        return {"type": "boolean"}


class Items(Shape):
    """
    A list.

    Args:
        each: What its values are.
        least: How many there must be.
    """

    def __init__(self, each: Shape, *, least: int = 0) -> None:
        self._each = each
        self._least = least

    def read(self, node: Node, path: str) -> tuple[Any, ...]:
        """Its values, in order."""
        if node.items is None:
            raise Misfit(node.line, f"{path}: a list is expected, not {node.kind}")
        if len(node.items) < self._least:
            raise Misfit(node.line, f"{path}: at least {self._least} is expected")
        return tuple(
            self._each.read(item, f"{path}[{index}]") for index, item in enumerate(node.items)
        )

    def schema(self) -> dict[str, Any]:
        """An array."""
        return {"type": "array", "items": self._each.schema(), "minItems": self._least}


class Table(Shape):
    """
    Names that the user chooses, each with a value.

    Args:
        each: What the values are, for a name.
        schema: The same for editors, for all names together.
    """

    def __init__(self, each: Callable[[str], Shape], schema: Mapping[str, Any]) -> None:
        self._each = each
        self._schema = dict(schema)

    def read(self, node: Node, path: str) -> dict[str, Any]:
        """The values by name."""
        if node.pairs is None:
            raise Misfit(node.line, f"{path}: a mapping is expected, not {node.kind}")
        return {
            name: self._each(name).read(value, f"{path}.{name[:_SHOWN]}")
            for name, (_, value) in node.pairs.items()
        }

    def schema(self) -> dict[str, Any]:
        """An object with any names."""
        return {"type": "object", **self._schema}


class Record(Shape):
    """
    Names that are known, each with its shape.

    Args:
        fields: By name.
        required: Those that must be there.
        one_of: Groups of names of which one, and only one, must be there.
        at_most_one_of: Groups of which one may be there.
    """

    def __init__(
        self,
        fields: Mapping[str, Shape],
        *,
        required: Sequence[str] = (),
        one_of: Sequence[tuple[str, ...]] = (),
        at_most_one_of: Sequence[tuple[str, ...]] = (),
    ) -> None:
        self._fields = dict(fields)
        self._required = tuple(required)
        self._one_of = tuple(one_of)
        self._at_most_one_of = tuple(at_most_one_of)

    def read(self, node: Node, path: str) -> dict[str, Any]:
        """The values that are given, by name."""
        if node.pairs is None:
            raise Misfit(
                node.line, f"{path or 'the document'}: a mapping is expected, not {node.kind}"
            )
        for name, (line, _) in node.pairs.items():
            if name not in self._fields:
                wish = nearest(name, self._fields)
                raise Misfit(line, f"{_joined(path, name[:_SHOWN])}: unknown key: {wish}")
        self._check_presence(node, path)
        return {
            name: self._fields[name].read(value, _joined(path, name))
            for name, (_, value) in node.pairs.items()
        }

    def schema(self) -> dict[str, Any]:
        """An object without other names."""
        made: dict[str, Any] = {
            "type": "object",
            "properties": {name: shape.schema() for name, shape in self._fields.items()},
            "required": list(self._required),
            "additionalProperties": False,
        }
        rules: list[dict[str, Any]]
        rules = [{"oneOf": [{"required": [name]} for name in group]} for group in self._one_of]
        rules += [{"not": {"required": list(group)}} for group in self._at_most_one_of]
        return {**made, "allOf": rules} if rules else made

    def _check_presence(self, node: Node, path: str) -> None:
        given = set(node.pairs or ())
        for name in self._required:
            if name not in given:
                raise Misfit(node.line, f"{_joined(path, name)}: is missing")
        for group in (*self._one_of, *self._at_most_one_of):
            there = [name for name in group if name in given]
            if len(there) > 1:
                raise Misfit(node.line, f"{path}: give {there[0]!r} or {there[1]!r}, not both")
            if not there and group in self._one_of:
                raise Misfit(node.line, f"{path}: give {' or '.join(map(repr, group))}")


class TextOr(Shape):
    """
    A text, or another shape.

    Args:
        text: For a scalar.
        other: For what is none.
    """

    def __init__(self, text: Shape, other: Shape) -> None:
        self._text = text
        self._other = other

    def read(self, node: Node, path: str) -> Any:
        """The value of whichever it is."""
        return (self._text if node.text is not None else self._other).read(node, path)

    def schema(self) -> dict[str, Any]:
        """Either."""
        return {"anyOf": [self._text.schema(), self._other.schema()]}


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _plain(node: Node, path: str, says: str, form: re.Pattern[str]) -> str:
    """The text of a number; in quotes it is none."""
    if node.text is None or node.quoted or form.fullmatch(node.text) is None:
        shown = node.kind if node.text is None or node.empty else repr(node.text[:_SHOWN])
        quotes = " (in quotes it is a text)" if node.quoted else ""
        raise Misfit(node.line, f"{path}: {says} is expected, not {shown}{quotes}")
    return node.text
