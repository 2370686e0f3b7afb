"""What a client fills in where a call says nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from loom.client.attribution import ATTRIBUTES, attributed
from loom.client.checks import (
    LIMITS,
    checked_fit,
    checked_flag,
    checked_number,
    checked_temperature,
    checked_timeouts,
)
from loom.core.request import Attribution, Fit, Timeouts

__all__ = ["Defaults", "changed_defaults"]

_CHECKS: dict[str, Callable[[Any], Any]] = {
    "max_tokens": lambda value: checked_number("max_tokens", value),
    "temperature": checked_temperature,
    "fit": checked_fit,
    "skip_bad_events": lambda value: checked_flag("skip_bad_events", value),
}


class Defaults(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a client fills in where a call says nothing.

    Attributes:
        model: The model's id or alias.
        max_tokens: The longest answer.
        temperature: How tokens are drawn; None: as the vendor does it.
        timeouts: Limits by phase.
        fit: What happens to a request beyond the model's window.
        skip_bad_events: Whether an event of a stream that cannot be read is left out.
        attribution: For whom calls are made.
    """

    model: str
    max_tokens: int | None
    temperature: float | None
    timeouts: Timeouts
    fit: Fit = "error"
    skip_bad_events: bool = False
    attribution: Attribution = Attribution()


def changed_defaults(defaults: Defaults, changes: dict[str, Any]) -> Defaults:
    """
    Other defaults; what is read is taken out of the changes.

    Args:
        defaults: What holds where nothing is said.
        changes: By the names of a client's arguments.

    Returns:
        The value.

    Raises:
        InvalidRequest: If a value is out of its range; it is named as callers name it.
    """
    given: dict[str, Any] = {}
    for name, check in _CHECKS.items():
        if name in changes:
            given[name] = check(changes.pop(name))
    if "model" in changes:
        given["model"] = changes.pop("model")
    limits = {name: changes.pop(name) for name in LIMITS if name in changes}
    timeouts = checked_timeouts(changes.pop("timeouts", defaults.timeouts), limits)
    named = {name: changes.pop(name) for name in ATTRIBUTES if name in changes}
    attribution = attributed(defaults.attribution, named)
    return msgspec.structs.replace(defaults, timeouts=timeouts, attribution=attribution, **given)
