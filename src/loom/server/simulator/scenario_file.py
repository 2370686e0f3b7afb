"""The TOML of a script, key by key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from loom.core.errors import ConfigInvalid
from loom.core.messages import Message, TextPart, ThinkingPart, ToolCall
from loom.server.simulator.scenario_rule import Rule, check_rule

__all__ = ["ROLES", "Reader"]

ROLES = ("primary", "fallback")
"""Whose part of a script a simulator may play."""

_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "model": str,
    "text": str,
    "tool": str,
    "result_of": str,
    "last_role": str,
    "turn": int,
    "stream": bool,
    "requests": (int, str, list),
    "after_s": (int, float),
    "before_s": (int, float),
    "role": str,
    "answer": str,
    "thinking": str,
    "calls": list,
    "fault": str,
}
_SAID = {str: "a string", int: "a whole number", bool: "true or false", list: "a list"}


class Reader:
    """
    Reads one script; every message begins with its name.

    Args:
        name: The file, for messages.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def rules(self, tables: Mapping[str, Any], role: str) -> tuple[Rule, ...]:
        """
        Read the rules of one role, and check everything.

        Args:
            tables: The script's TOML.
            role: Whose rules are given; all are checked.

        Returns:
            The rules, in order.

        Raises:
            ConfigInvalid: If something is not as it must be; it names file, table and key.
        """
        for key in tables:
            if key not in ("title", "answer", "rule"):
                raise self._wrong("the top", f"unknown key {key!r}; known: title, answer, rule")
        for key in ("title", "answer"):
            if not isinstance(tables.get(key, ""), str):
                raise self._wrong("the top", f"{key!r} must be a string")
        rows = tables.get("rule", [])
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise self._wrong("the top", "'rule' must be written as [[rule]]")
        rules = [self._rule(row, f"[[rule]] {i}") for i, row in enumerate(rows, 1)]
        return tuple(
            rule for rule, row in zip(rules, rows, strict=True) if row.get("role", role) == role
        )

    def _rule(self, row: Mapping[str, Any], where: str) -> Rule:
        for key, value in row.items():
            if key not in _KINDS:
                raise self._wrong(where, f"unknown key {key!r}; known: {', '.join(_KINDS)}")
            kind = _KINDS[key]
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                said = _SAID.get(kind, "a number") if isinstance(kind, type) else "a number"
                raise self._wrong(where, f"{key!r} must be {said}, not {value!r}")
        if row.get("role", ROLES[0]) not in ROLES:
            raise self._wrong(where, f"'role' must be one of {', '.join(ROLES)}")
        taken = ("role", "answer", "thinking", "calls", "requests")
        rule = Rule(
            **{key: value for key, value in row.items() if key not in taken},
            requests=self._requests(row.get("requests"), where),
            answer=self._answer(row, where),
        )
        check_rule(rule, f"{self._name}: {where}")
        return rule

    def _requests(self, value: Any, where: str) -> tuple[tuple[int, int | None], ...] | None:
        if value is None:
            return None
        ranges: list[tuple[int, int | None]] = []
        for part in value if isinstance(value, list) else [value]:
            found = re.fullmatch(r"([1-9]\d{0,8})(?:(-)([1-9]\d{0,8})?)?", str(part))
            if found is None or isinstance(part, bool):
                known = "numbers from 1, or ranges as '2-5' and '3-'"
                raise self._wrong(where, f"'requests' must hold {known}, not {part!r}")
            first = int(found[1])
            last = (int(found[3]) if found[3] else None) if found[2] else first
            ranges.append((first, last))
        return tuple(ranges)

    def _answer(self, row: Mapping[str, Any], where: str) -> Message | str | None:
        text, thinking, calls = row.get("answer"), row.get("thinking"), row.get("calls")
        if thinking is None and calls is None:
            return text
        content: Any = text or ""
        if thinking is not None:
            thought = ThinkingPart((TextPart(thinking),), closed=True)
            content = (thought, TextPart(text)) if text else (thought,)
        every = [self._call(call, i, where) for i, call in enumerate(calls or ())]
        return Message.assistant(content, tool_calls=tuple(every))

    def _call(self, call: Any, number: int, where: str) -> ToolCall:
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            raise self._wrong(where, "each of 'calls' must be a table with a 'name'")
        if unknown := set(call) - {"name", "arguments", "id"}:
            raise self._wrong(where, f"'calls': unknown key {min(unknown)!r}")
        arguments = call.get("arguments", {})
        if not isinstance(arguments, (str, dict)):
            raise self._wrong(where, "'calls': 'arguments' must be a table, or a string as it is")
        if isinstance(arguments, dict):
            arguments = msgspec.json.encode(arguments).decode()
        # Nine letters or digits, as the API makes them (contract, section 3).
        return ToolCall(str(call.get("id", f"sc{number:07d}")), call["name"], arguments=arguments)

    def _wrong(self, where: str, problem: str) -> ConfigInvalid:
        return ConfigInvalid(f"{self._name}: {where}: {problem}")
