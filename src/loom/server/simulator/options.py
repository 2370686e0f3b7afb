"""What can be chosen about a simulator: one value, checked when it is made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import msgspec

from loom.core.errors import ConfigInvalid

if TYPE_CHECKING:
    from loom.server.simulator.scenario import Scenario

__all__ = [
    "TIERS",
    "ChargeAt",
    "RefusalKind",
    "SimulatorOptions",
    "Tier",
    "WindowKind",
    "parse_tier",
]

WindowKind: TypeAlias = Literal["sliding", "calendar", "bucket"]
"""How a server counts a minute; see `limits.py`."""

ChargeAt: TypeAlias = Literal["finish", "arrival", "arrival_corrected"]
"""When tokens are charged, and whether the estimate is put right at the end."""

RefusalKind: TypeAlias = Literal["rate", "capacity"]
"""Which 429 is sent: code 1300 or code 3505."""


class Tier(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a plan allows, for each key and model.

    Attributes:
        requests_per_minute: At least 0; 0 means: the model is not in the plan.
        tokens_per_minute: At least 0.
    """

    requests_per_minute: int
    tokens_per_minute: int


TIERS: dict[str, Tier] = {
    "free": Tier(requests_per_minute=5, tokens_per_minute=10_000),
    "starter": Tier(requests_per_minute=60, tokens_per_minute=500_000),
    "pro": Tier(requests_per_minute=120, tokens_per_minute=2_000_000),
}
"""The plans by name. Source: reference page, section "Rate Limits"."""


def parse_tier(text: str) -> Tier:
    """
    Read a plan's name, or its two numbers.

    Args:
        text: `free`, `starter`, `pro`, or requests and tokens a minute: `10/20000`.

    Returns:
        The plan.

    Raises:
        ConfigInvalid: If it is neither.
    """
    if text in TIERS:
        return TIERS[text]
    numbers = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,12})", text)
    if numbers is None:
        raise ConfigInvalid(
            f"no such tier: {text!r}",
            hint=f"Choose {', '.join(TIERS)}, or requests and tokens a minute, as 10/20000.",
        )
    return Tier(requests_per_minute=int(numbers[1]), tokens_per_minute=int(numbers[2]))


class SimulatorOptions(msgspec.Struct, frozen=True, kw_only=True):
    """
    Everything that can be chosen about a simulator but its provider and its clock.

    Attributes:
        port: Where to listen; 0 lets the kernel choose a free port.
        words_per_second: The pace of the answers; None for full speed.
        seed: Other seeds give other wordings and ids; equal seeds give equal answers.
        as_of: The day whose models exist; None for today.
        any_key: Whether every key that is not empty is accepted.
        tier: A plan's name, its two numbers (`"10/20000"`) or a `Tier`; None: no limits.
        not_in_plan: Models whose limit is 0.
        window: How the server counts a minute.
        charge_at: When tokens are charged.
        refusal: Which 429 a full window gives.
        latency_s: Seconds before the first byte of an answer.
        credits_usd: What each key may spend, in US dollars; None: without end.
        journal_size: How many requests the journal keeps.
        fragments: Whether tool calls are streamed in pieces.
        scenario: A script of answers and faults, or its file, or the name of one that is shipped.
        faults: Faults, and how likely each is.
        record: A folder where exchanges with the real API are written.
        replay: A folder whose recorded exchanges are the answers.
        upstream: The API that is recorded; ends in `/v1`.

    Raises:
        ValueError: If a number is out of its range, or a word is not one of those above.
        ConfigInvalid: If there is no such tier, or options contradict each other.
    """

    port: int = 0
    words_per_second: float | None = None
    seed: int = 0
    as_of: date | None = None
    any_key: bool = False
    tier: str | Tier | None = None
    not_in_plan: tuple[str, ...] = ()
    window: WindowKind = "sliding"
    charge_at: ChargeAt = "finish"
    refusal: RefusalKind = "rate"
    latency_s: float = 0.0
    credits_usd: Decimal | None = None
    journal_size: int = 10_000
    fragments: bool = False
    scenario: Scenario | str | Path | None = None
    faults: Mapping[str, float] | None = None
    record: Path | None = None
    replay: Path | None = None
    upstream: str | None = None

    def __post_init__(self) -> None:
        """Refuse what is out of its range before anything is started."""
        pace = self.words_per_second
        if pace is not None and not pace > 0:
            raise ValueError(f"words_per_second must be above 0, not {pace!r}")
        # A latency that is not a number, or has no end, would never answer.
        if not 0 <= self.latency_s < float("inf"):
            raise ValueError(f"latency_s must be at least 0, not {self.latency_s!r}")
        if self.journal_size < 0:
            raise ValueError(f"journal_size must be at least 0, not {self.journal_size!r}")
        if self.credits_usd is not None and not self.credits_usd >= 0:
            raise ValueError(f"credits_usd must be at least 0, not {self.credits_usd!r}")
        for name, words in (
            ("window", WindowKind),
            ("charge_at", ChargeAt),
            ("refusal", RefusalKind),
        ):
            if getattr(self, name) not in get_args(words):
                raise ValueError(f"{name} must be one of {', '.join(get_args(words))}")
        if isinstance(self.tier, str):
            parse_tier(self.tier)
        if self.record is not None and self.replay is not None:
            raise ConfigInvalid("record and replay exclude each other: choose one")
        if (self.record is None) != (self.upstream is None):
            raise ConfigInvalid("record and upstream belong together: where to, and what from")

    @property
    def limits(self) -> Tier | None:
        """The plan as numbers; None for none."""
        return parse_tier(self.tier) if isinstance(self.tier, str) else self.tier
