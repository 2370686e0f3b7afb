"""
Faults by name: which there are, and which one a request gets.

Choosing is pure: equal requests, numbers and seeds give equal faults. What a fault does stands in
`fault_acts.py`, and what it is in `fault_table.toml`.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from loom.core.errors import ConfigInvalid

__all__ = [
    "Fault",
    "FaultPlan",
    "FaultRow",
    "FaultTable",
    "RequestInfo",
    "fault_table",
    "parse_fault",
    "split_model",
]

_Setting: TypeAlias = int | float | str

# Sizes that a machine can bear, and statuses that a server can send.
_RANGES = {
    "count": (1, 100_000),
    "kib": (1, 65_536),
    "mib": (1, 1024),
    "rate": (1, 10**12),
    "size": (1, 10**9),
    "status": (200, 599),
}


class FaultRow(msgspec.Struct, frozen=True, kw_only=True):
    """
    One row of the table; its fields are explained at the head of `fault_table.toml`.

    Attributes:
        id: The row of the fault matrix and a name, for example `14-stall`.
        says: What the caller sees.
        act: How it is done.
        raises: The code of the error that one attempt of a client raises; empty: none.
        plain: The same for a request that does not stream, where it differs.
        main: The setting that `name:x` means.
        settings: What may be changed, with the defaults.
        how: What is fixed.
    """

    id: str
    says: str
    act: str
    raises: str = ""
    plain: str | None = None
    main: str = ""
    settings: Mapping[str, _Setting] = msgspec.field(name="set", default={})
    how: Mapping[str, Any] = {}

    @property
    def row(self) -> str:
        """The row of the fault matrix, for example `33b`; `toxic` for Toxiproxy's kinds."""
        return self.id.partition("-")[0]

    @property
    def short(self) -> str:
        """The name without the row."""
        return self.id.partition("-")[2]


class FaultTable(msgspec.Struct, frozen=True, kw_only=True):
    """
    The whole table.

    Attributes:
        rows: What a server can cause.
        elsewhere: Rows of the matrix that it cannot, with the reason.
        errors: Bodies by name.
    """

    rows: tuple[FaultRow, ...] = msgspec.field(name="fault")
    elsewhere: Mapping[str, str]
    errors: Mapping[str, Mapping[str, Any]]

    def find(self, name: str) -> FaultRow | None:
        """
        Look a fault up.

        Args:
            name: Its id, or its name without the row where that stands once.

        Returns:
            The row; None when there is no such fault.
        """
        by_id = [row for row in self.rows if row.id == name]
        found = by_id or [row for row in self.rows if row.short == name]
        return found[0] if len(found) == 1 else None


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """
    A fault with its settings, ready to happen.

    Attributes:
        row: What it is.
        settings: Every setting of the row, as it was chosen.
        times: It happens to so many requests that ask for it, then no more; None: to all.
        nth: It happens to this one of the requests that ask for it, from 1; None: to all.
    """

    row: FaultRow
    settings: Mapping[str, _Setting]
    times: int | None = None
    nth: int | None = None

    def number(self, name: str) -> float:
        """A setting, or a fixed part, that is a number; 0 when there is none."""
        value = self.settings.get(name, self.row.how.get(name, 0))
        return value if isinstance(value, int | float) else 0

    def holds(self, count: int) -> bool:
        """
        Whether it happens to this request.

        Args:
            count: How many requests asked for it so far, this one counted.

        Returns:
            What `times` and `nth` say.
        """
        return (self.times is None or count <= self.times) and self.nth in (None, count)


class RequestInfo(msgspec.Struct, frozen=True, kw_only=True):
    """
    What choosing needs to know of a request.

    Attributes:
        number: Which request of the simulator it is, from 1.
        header: The value of `x-loom-fault`; None without it.
        suffix: What stood behind the `+` of the model's name; None without it.
        model: The model, without the suffix; empty when the body names none.
        text: The last user message.
        tools: The names of the tools that are offered.
        result_of: The tool whose result is the last message; None for another last message.
        last_role: Whose message is the last; empty without messages.
        turn: How many user messages there are.
        stream: Whether a stream is asked for.
        at_s: Seconds since the simulator's first request.
    """

    number: int
    header: str | None = None
    suffix: str | None = None
    model: str = ""
    text: str = ""
    tools: Sequence[str] = ()
    result_of: str | None = None
    last_role: str = ""
    turn: int = 0
    stream: bool = False
    at_s: float = 0.0


@functools.cache
def fault_table() -> FaultTable:
    """
    Read the table that comes with the package, once.

    Returns:
        It.
    """
    import tomllib  # noqa: PLC0415 - only a simulator with faults pays for it

    # Not importlib.resources: it costs 60 ms to import, and wheels are unpacked on disk.
    text = Path(__file__).with_name("fault_table.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), FaultTable)


def parse_fault(text: str) -> Fault:
    """
    Read a fault as it is written in a header, a suffix, a script or an option.

    Args:
        text: A name alone (`503`), with its main setting (`stall:3`), with settings
            (`stall;after=3;seconds=30`), or with both. `times=2` limits it to the first two
            requests that ask for it, `nth=2` to the second.

    Returns:
        The fault.

    Raises:
        ConfigInvalid: If there is no such fault or setting; the message names those there are.
    """
    head, *parts = (part.strip() for part in text.split(";"))
    name, colon, main = (part.strip() for part in head.partition(":"))
    row = fault_table().find(name)
    if row is None:
        raise _unknown(name)
    if colon:
        if not row.main:
            raise ConfigInvalid(f"the fault {row.id!r} takes no value: write {row.id!r} alone")
        parts.insert(0, f"{row.main}={main}")
    settings: dict[str, _Setting] = dict(row.settings)
    counts: dict[str, int] = {}
    for part in filter(None, parts):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if key in ("times", "nth") and equals:
            counts[key] = int(_number(row, key, value, whole=True, low=1))
        elif key in settings and equals:
            settings[key] = _setting(row, key, value)
        else:
            known = ", ".join((*row.settings, "times", "nth"))
            raise ConfigInvalid(f"the fault {row.id!r} has no setting {part!r}; it has {known}")
    return Fault(row=row, settings=settings, times=counts.get("times"), nth=counts.get("nth"))


def split_model(model: str) -> tuple[str, str | None]:
    """
    Part a model's name from the fault behind it.

    Args:
        model: For example `mistral-small-latest+stall:3`.

    Returns:
        The model and what stands behind the first `+`; None when there is none.
    """
    name, plus, suffix = model.partition("+")
    return name, suffix if plus else None


class FaultPlan:
    """
    Decides which request gets which fault, apart from a script.

    A header goes before a suffix, and both before chance.

    Args:
        chances: Faults as `parse_fault` reads them, and how likely each is, 0 to 1; at most 1
            together.
        seed: Equal seeds give equal draws.

    Raises:
        ConfigInvalid: If a fault is unknown, or the chances are none.
    """

    def __init__(self, chances: Mapping[str, float] | None = None, *, seed: int = 0) -> None:
        self._seed = seed
        self._chances = [(parse_fault(name), chance) for name, chance in (chances or {}).items()]
        wrong = [c for _, c in self._chances if isinstance(c, bool) or not 0 <= c <= 1]
        if wrong or math.fsum(chance for _, chance in self._chances) > 1:
            raise ConfigInvalid(f"the chances of faults must be 0 to 1 together: {chances!r}")
        self._counts: dict[str, int] = {}

    def plan(self, info: RequestInfo) -> Fault | None:
        """
        Choose.

        Args:
            info: The request.

        Returns:
            Its fault, or None.

        Raises:
            ConfigInvalid: If the header or the suffix names no fault.
        """
        asked = info.header if info.header is not None else info.suffix
        if asked is not None:
            return self._held(parse_fault(asked), asked)
        return self._drawn(info.number)

    def reset(self) -> None:
        """Forget how many requests asked for a fault."""
        self._counts.clear()

    def _drawn(self, number: int) -> Fault | None:
        if not self._chances:
            return None
        digest = hashlib.sha256(f"fault/{self._seed}/{number}".encode()).digest()
        draw = int.from_bytes(digest[:7]) / 2**56
        for fault, chance in self._chances:
            if draw < chance:
                return self._held(fault, fault.row.id)
            draw -= chance
        return None

    def _held(self, fault: Fault, key: str) -> Fault | None:
        # Only what counts is counted: callers may name faults without end.
        if fault.times is None and fault.nth is None:
            return fault
        self._counts[key] = self._counts.get(key, 0) + 1
        return fault if fault.holds(self._counts[key]) else None


def _setting(row: FaultRow, key: str, value: str) -> _Setting:
    default = row.settings[key]
    if isinstance(default, str):
        if not value.isprintable() or not value.isascii():
            raise ConfigInvalid(f"{key!r} of the fault {row.id!r} must be printable ASCII")
        return value
    # -1 stands for the end of the answer where a fault may strike anywhere in it.
    low = -1 if key in ("after", "bytes") else -math.inf
    number = _number(row, key, value, whole=isinstance(default, int), low=low)
    least, most = _RANGES.get(key, (-math.inf, math.inf))
    if not least <= number <= most:
        problem = f"must be {least} to {most}, not {value!r}"
        raise ConfigInvalid(f"{key!r} of the fault {row.id!r} {problem}")
    return number


def _number(row: FaultRow, key: str, value: str, *, whole: bool, low: float) -> int | float:
    try:
        number: int | float = int(value) if whole else float(value)
    except ValueError:
        kind = "a whole number" if whole else "a number"
        raise ConfigInvalid(
            f"{key!r} of the fault {row.id!r} must be {kind}, not {value!r}"
        ) from None
    # Not `number < low`: NaN is no number either.
    if not number >= low or (number > 10**18 and number != math.inf):
        raise ConfigInvalid(f"{key!r} of the fault {row.id!r} is out of range: {value!r}")
    return number


def _unknown(name: str) -> ConfigInvalid:
    rows = fault_table().rows
    known = ", ".join(row.id for row in rows)
    near = difflib.get_close_matches(name, [n for row in rows for n in (row.id, row.short)], 1)
    meant = f" (did you mean {near[0]!r}?)" if near else ""
    return ConfigInvalid(f"unknown fault {name!r}{meant}; known: {known}")
