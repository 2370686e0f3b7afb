"""
The fault matrix: every fault that a call may meet, and what happens then.

It is one data file, `fault_matrix.toml`, and this reads it. The tests, `looms fault-matrix`, a
page of the documents and the hints of errors are made from it; code that handles a row cites it.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

__all__ = [
    "FaultCase",
    "FaultFacts",
    "FaultRow",
    "FaultSigns",
    "Mode",
    "Needs",
    "fault_matrix",
    "row_of",
]

Mode = Literal["", "stream", "plain"]
"""How is asked; empty: both ways."""

Needs = Literal["", "limiter", "budget", "ledger", "agent"]
"""What a row waits for; empty: nothing."""


class FaultSigns(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    What an error of a row has; what is None is not looked at.

    Attributes:
        code: The error's code.
        phase: Its phase.
        status: HTTP statuses of which one came.
        partial: Whether a part of the answer came.
        asked: Whether the vendor asked for a wait.
    """

    code: str
    phase: str | None = None
    status: tuple[int, ...] | None = None
    partial: bool | None = None
    asked: bool | None = None

    def fit(self, facts: FaultFacts) -> int:
        """
        How well an error fits.

        Args:
            facts: What is known of it.

        Returns:
            How many of the signs it has; 0 if it lacks one.
        """
        signs = (
            facts.code == self.code,
            self.phase is None or facts.phase == self.phase,
            self.status is None or facts.status in self.status,
            self.partial is None or facts.partial is self.partial,
            self.asked is None or facts.asked is self.asked,
        )
        given = (self.code, self.phase, self.status, self.partial, self.asked)
        return sum(sign is not None for sign in given) if all(signs) else 0


class FaultFacts(NamedTuple):
    """
    What is known of an error.

    Attributes:
        code: Its code.
        phase: Its phase; None: it has none.
        status: The HTTP status that came last; None: none came.
        partial: Whether a part of the answer came.
        asked: Whether the vendor asked for a wait.
    """

    code: str
    phase: str | None
    status: int | None
    partial: bool
    asked: bool


class FaultCase(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    One way to cause a row; what is None is as the row says.

    Attributes:
        fault: A fault of the simulator, as its header names it; empty: a scene.
        scene: A scene of `loom.testing`; empty: a fault of the simulator.
        mode: How is asked.
        skip: Whether events that cannot be read are left out.
        waits: The least and the most seconds of each wait.
        expected: See `FaultRow`.
        phase: See `FaultRow`.
        wire: See `FaultRow`.
        attempts: See `FaultRow`.
        charge: See `FaultRow`.
        breaker: See `FaultRow`.
    """

    fault: str = ""
    scene: str = ""
    mode: Mode = ""
    skip: bool = False
    waits: tuple[float, float] | None = None
    expected: str | None = None
    phase: str | None = None
    wire: int | None = None
    attempts: int | None = None
    charge: str | None = None
    breaker: int | None = None


class FaultRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    One row of the matrix.

    Attributes:
        id: For example `33b`.
        fault: What goes wrong.
        says: What happens then.
        expected: The code of the error that is raised; empty: an answer; `cancelled`, `left`: the
            call was ended from outside.
        wire: Requests that reach the vendor with the default policy of retries.
        charge: What each attempt may have cost.
        breaker: Whether each attempt counts as a failure of the provider: 0 or 1.
        hint: What the user does; empty: nothing is to be done.
        phase: The error's phase, where it matters.
        attempts: Attempts that the caller is told of; None: those on the wire.
        released: What is given back beside socket and slot.
        needs: What the row waits for.
        later: Which part of it joins later.
        same: Whether the answer is that which comes without the fault.
        when: How errors of the row are known.
        cases: How it is caused.
        part: The heading that begins with it; empty: it goes on.
    """

    id: str
    fault: str
    says: str
    expected: str
    wire: int
    charge: str
    breaker: int
    hint: str = ""
    phase: str = ""
    attempts: int | None = None
    released: str = ""
    needs: Needs = ""
    later: str = ""
    same: bool = False
    when: tuple[FaultSigns, ...] = ()
    cases: tuple[FaultCase, ...] = msgspec.field(name="case", default=())
    part: str = ""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    row: tuple[FaultRow, ...]


@functools.cache
def fault_matrix() -> tuple[FaultRow, ...]:
    """
    Read the matrix that comes with the package, once.

    Returns:
        Its rows, in order.
    """
    import tomllib  # noqa: PLC0415 - only an error that is explained pays for it

    # Not importlib.resources: it costs 60 ms to import, and wheels are unpacked on disk.
    text = Path(__file__).with_name("fault_matrix.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), _File).row


def row_of(facts: FaultFacts) -> FaultRow | None:
    """
    Find the row that an error belongs to.

    Args:
        facts: What is known of it.

    Returns:
        The row whose signs fit best, the first of equals; None if none fits.
    """
    fits = [
        (max((signs.fit(facts) for signs in row.when), default=0), row) for row in fault_matrix()
    ]
    best, row = max(fits, key=lambda fit: fit[0])
    return row if best else None
