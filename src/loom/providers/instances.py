"""A value that fits a JSON schema, made of words that somebody offers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import ROUND_CEILING, Decimal
from typing import Any, TypeAlias

from loom.providers.fitting import Schema, fits, resolve, same
from loom.providers.pattern import example

__all__ = ["Suggest", "instance"]

Suggest: TypeAlias = Callable[[str, str], Sequence[Any]]
"""Values that a property of this name and JSON type could have, best first."""

# Below this depth only what is required is written, so that recursive schemas end.
_DEEP = 4
# A required chain without an end cannot be satisfied by any value; stop before Python does.
_BOTTOM = 60
# A schema may ask for a million items; what reads the answer shall live through it.
_MOST_VALUES = 5_000
_LONGEST_TEXT = 100_000
# How many readings of anyOf/oneOf are tried before the last one is given as it is.
_VARIANTS = 24

# Examples from the RFCs that the draft names for each format.
_FORMATS = {
    "date": "2026-01-15",
    "date-time": "2026-01-15T09:30:00Z",
    "time": "09:30:00Z",
    "duration": "P1D",
    "email": "ada@example.com",
    "idn-email": "ada@example.com",
    "hostname": "example.com",
    "idn-hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uri-reference": "/example",
    "iri": "https://example.com/",
    "iri-reference": "/example",
    "uuid": "123e4567-e89b-42d3-a456-426614174000",
    "json-pointer": "/example",
    "regex": "^a+$",
}


def instance(schema: Schema, suggest: Suggest, *, sparse: bool = False) -> Any:
    """
    A JSON value that fits a schema.

    Args:
        schema: The schema.
        suggest: Asked for each string and number before anything is made up.
        sparse: Leave out optional properties for which nothing is suggested.

    Returns:
        The value. A schema that nothing fits (or whose pattern is beyond `pattern.example`)
        gets a value of the right shape.
    """
    value: Any = None
    for variant in range(_VARIANTS):
        maker = _Maker(schema, suggest, sparse=sparse, variant=variant)
        value = maker.make(schema, "", 0)
        if maker.left < 0 or fits(value, schema):
            break
    return value


def _merged(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            had = whole.get(key)
            if had is None:
                whole[key] = value
            elif key in {"properties", "patternProperties"}:
                whole[key] = {**had, **value}
            elif key in {"required", "allOf"}:
                whole[key] = [*had, *(each for each in value if each not in had)]
            elif key in {"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"}:
                whole[key] = max(had, value)
            elif key in {"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"}:
                whole[key] = min(had, value)
            elif key == "enum":
                whole[key] = [each for each in had if any(same(each, one) for one in value)]
            else:
                whole[key] = value
    return whole


class _Maker:
    def __init__(self, root: Schema, suggest: Suggest, *, sparse: bool, variant: int) -> None:
        self.root = root
        self.suggest = suggest
        self.sparse = sparse
        self.variant = variant
        self.used: list[Any] = []
        self.left = _MOST_VALUES

    def make(self, schema: Schema, name: str, depth: int) -> Any:
        rules = self.flat(schema, depth)
        self.left -= 1
        if "const" in rules or depth > _BOTTOM or self.left < -_MOST_VALUES:
            return rules.get("const")
        if rules.get("enum"):
            return self.one_of(rules, name)
        kind = self.kind(rules, depth)
        if kind == "object":
            return self.object(rules, depth)
        if kind == "array":
            return self.array(rules, name, depth)
        return None if kind == "null" else self.scalar(rules, name, kind)

    def flat(self, schema: Schema, depth: int) -> Mapping[str, Any]:
        """References followed, `allOf` merged, one branch of `anyOf` and `oneOf` chosen."""
        rules = resolve(schema, self.root)
        for _ in range(_BOTTOM):
            choices = [rules[key] for key in ("anyOf", "oneOf") if rules.get(key)]
            parts = [resolve(self.branch(each, depth), self.root) for each in choices]
            parts += [resolve(each, self.root) for each in rules.get("allOf", ())]
            if "if" in rules:
                parts += self.condition(rules)
            if not parts:
                return rules
            joined = {"anyOf", "oneOf", "allOf", "if", "then", "else"}
            rest = {key: value for key, value in rules.items() if key not in joined}
            rules = _merged([rest, *parts])
        return rules

    def branch(self, branches: Sequence[Schema], depth: int) -> Schema:
        # "or null" comes last in every reading but the deep ones, where it ends a recursion.
        def rank(branch: Schema) -> int:
            kind = resolve(branch, self.root).get("type")
            if depth > _DEEP:
                return {"object": 2, "array": 1}.get(str(kind), 0)
            return int(kind == "null")

        ordered = sorted(branches, key=rank)
        return ordered[self.variant % len(ordered)]

    def condition(self, rules: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        if self.variant % 2:
            return [resolve(rules.get("else", True), self.root)]
        return [resolve(rules[key], self.root) for key in ("if", "then") if key in rules]

    def kind(self, rules: Mapping[str, Any], depth: int) -> str:
        kinds = rules.get("type")
        if isinstance(kinds, str):
            return kinds
        if kinds:
            worth = [kind for kind in kinds if kind != "null"]
            return "null" if not worth or (depth > _DEEP and "null" in kinds) else str(worth[0])
        if rules.keys() & {"properties", "required", "minProperties", "patternProperties"}:
            return "object"
        if rules.keys() & {"items", "prefixItems", "minItems"}:
            return "array"
        bounds = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
        return "number" if rules.keys() & bounds else "string"

    def one_of(self, rules: Mapping[str, Any], name: str) -> Any:
        allowed = [each for each in rules["enum"] if fits(each, rules, self.root)]
        offered = self.suggest(name, "enum")
        for offer in offered:
            for each in allowed:
                if isinstance(each, str) and each.lower() == str(offer).lower():
                    return each
        return allowed[self.variant % len(allowed)] if allowed else rules["enum"][0]

    def object(self, rules: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties: Mapping[str, Schema] = rules.get("properties", {})
        required: Sequence[str] = rules.get("required", ())
        made = {
            name: self.make(each, name, depth + 1)
            for name, each in properties.items()
            if name in required or self.wanted(name, each, depth)
        }
        rest = rules.get("additionalProperties", True)
        for name in required:
            if name not in made:
                made[name] = self.make(self.named(name, rules, rest), name, depth + 1)
        for name in self.spare_names(rules):
            if len(made) >= rules.get("minProperties", 0):
                break
            each = properties.get(name, self.named(name, rules, rest))
            if name not in made and each is not False:
                made[name] = self.make(each, name, depth + 1)
        return made

    def wanted(self, name: str, schema: Schema, depth: int) -> bool:
        if schema is False or depth > _DEEP or self.left < 0:
            return False
        if not self.sparse:
            return True
        rules = self.flat(schema, depth)
        kind = "enum" if rules.get("enum") else self.kind(rules, depth)
        offered = self.suggest(name, kind)
        if kind != "enum":
            return any(fits(offer, rules, self.root) for offer in offered)
        return any(str(each).lower() == str(offer) for each in rules["enum"] for offer in offered)

    def named(self, name: str, rules: Mapping[str, Any], rest: Schema) -> Schema:
        for pattern, each in rules.get("patternProperties", {}).items():
            if fits(name, {"type": "string", "pattern": pattern}) and isinstance(each, Mapping):
                return {**each}
        return rest

    def spare_names(self, rules: Mapping[str, Any]) -> Iterator[str]:
        yield from rules.get("properties", {})
        for pattern in rules.get("patternProperties", {}):
            name = example(pattern, 1)
            if name:
                yield name
                yield from (name + str(i) for i in range(10))
        limits = self.flat(rules.get("propertyNames", True), 0)
        base = example(str(limits.get("pattern", "")), limits.get("minLength", 0)) or "key"
        yield base
        yield from (f"{base}{i}" for i in range(2, 100))

    def array(self, rules: Mapping[str, Any], name: str, depth: int) -> list[Any]:
        first: Sequence[Schema] = rules.get("prefixItems", ())
        rest: Schema = rules.get("items", True)
        least = rules.get("minItems", 0)
        most = rules.get("maxItems", math.inf)
        usual = 0 if depth > _DEEP else max(len(first), 1 if self.sparse else 2)
        if rest is False:
            usual = min(usual, len(first))
        length = min(max(least, usual), most)
        made: list[Any] = []
        for i in range(min(int(length), _MOST_VALUES)):
            each = first[i] if i < len(first) else rest
            value = self.make(each, name, depth + 1)
            if any(same(value, had) for had in made):
                if i >= max(least, len(first)):
                    break
                if rules.get("uniqueItems"):
                    value = self.another(each, made)
                    if value is None:
                        break
            made.append(value)
        if "contains" in rules and not any(fits(v, rules["contains"], self.root) for v in made):
            made[:1] = [self.make(rules["contains"], name, depth + 1)]
        return made

    def another(self, schema: Schema, had: Sequence[Any]) -> Any:
        """A value of the schema that is not among those; None when there is none at hand."""
        rules = self.flat(schema, 0)
        texts = (example(str(rules.get("pattern", "")), n) for n in range(1, 9 + len(had)))
        words = (f"{name} {i}" for i in range(2, 4 + len(had)) for name in ("item", "a"))
        numbers = self.numbers(rules, len(had) + 2)
        for value in [*rules.get("enum", ()), *words, *texts, *numbers, True, False]:
            new = not any(same(value, each) for each in had)
            if value is not None and new and fits(value, rules, self.root):
                return value
        return None

    def scalar(self, rules: Mapping[str, Any], name: str, kind: str) -> Any:
        stated = [rules["default"]] if "default" in rules else []
        stated += rules.get("examples", ())
        made = self.texts(rules, name) if kind == "string" else self.numbers(rules, 2)
        if kind == "boolean":
            made = iter((True, False))
        last: Any = None
        # A format is not judged by `fits`; a suggestion must not stand where a date is asked for.
        offers = () if "format" in rules and kind == "string" else self.suggest(name, kind)
        # "add 3 and 5": what one property took, the next takes only when nothing else is left.
        fresh = sorted(offers, key=lambda offer: offer in self.used)
        for last in (*fresh, *stated, *made):
            if fits(last, rules, self.root):
                break
        self.used.append(last)
        return last

    def texts(self, rules: Mapping[str, Any], name: str) -> Iterator[str]:
        least, most = min(rules.get("minLength", 0), _LONGEST_TEXT), rules.get("maxLength")
        if "format" in rules:
            yield from (str(each) for each in self.suggest(name, rules["format"]))
            yield _FORMATS.get(rules["format"], "example")
        if "pattern" in rules:
            yield example(rules["pattern"], least, most) or ""
        word = name.replace("_", " ").replace("-", " ").strip() or "example"
        yield word
        yield word.ljust(least, ".")[:most]

    def numbers(self, rules: Mapping[str, Any], count: int) -> Iterator[float]:
        low, high = rules.get("minimum"), rules.get("maximum")
        above, below = rules.get("exclusiveMinimum"), rules.get("exclusiveMaximum")
        whole = rules.get("type") == "integer"
        # Decimal, so that the multiples of 0.1 are written as they are meant.
        step = Decimal(str(rules.get("multipleOf", 1)))
        floors = [Decimal(str(x)) for x in (low, above) if x is not None]
        tops = [Decimal(str(x)) for x in (high, below) if x is not None]
        start = max(floors) if floors else min([Decimal(1), *tops])
        first = (start / step).to_integral_value(ROUND_CEILING) * step
        # Whole numbers first: binary floats make some judges doubt that 0.3 is three times 0.1.
        yield int(start.to_integral_value(ROUND_CEILING))
        for i in range(count + 1):
            for sign in (1, -1):
                number = first + sign * i * step
                yield int(number) if number == number.to_integral_value() else float(number)
        if floors and tops and not whole:
            # Between two bounds that lie closer than a step.
            yield float((max(floors) + min(tops)) / 2)
            yield float(max(floors))
            yield float(min(tops))
