"""What keeps a client up, as callers write it: keys that change, retries, breakers, routes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from loom.config.secrets import find_api_key
from loom.config.settings import Settings
from loom.config.steadiness import Steadiness
from loom.core.errors import ConfigInvalid
from loom.core.provider import LLMProvider
from loom.core.route import Fallback, Route, RouteLike
from loom.core.secret import Secret
from loom.layers.breaker import Breaker
from loom.layers.retry_policy import RetryPolicy
from loom.layers.trace import Telemetry
from loom.providers.key import Key

__all__ = ["FallbackLike", "KeyLike", "checked_steadiness", "checked_telemetry", "find_key"]

FallbackLike: TypeAlias = RouteLike | Iterable[RouteLike] | Fallback
"""Where else a call may go, as people write it."""

KeyLike: TypeAlias = str | Secret | Callable[[], str | Secret]
"""A key, or a function that gives it."""


def find_key(given: KeyLike | None, settings: Settings) -> Key:
    """
    Find a key, and where to look for it again when the vendor refuses it.

    Args:
        given: The caller's own, or a function that gives it; None: look for one.
        settings: Which places to ask.

    Returns:
        The key.

    Raises:
        InvalidAPIKey: If there is none, or it cannot be one.
    """
    if given is None:
        return _sought(lambda: find_api_key(None, settings=settings).secret)
    if callable(given):
        give = given
        return _sought(lambda: find_api_key(give(), settings=settings).secret)
    return Key(find_api_key(given, settings=settings).secret)


def checked_steadiness(retry: Any, breaker: Any, fallback: Any, *, rescue: bool) -> Steadiness:
    """
    What keeps a client up, from its arguments.

    Args:
        retry: A policy; None: no retries.
        breaker: A breaker; None: none.
        fallback: Routes in any of the accepted forms; None: none.
        rescue: Whether a route is left in the middle of its answer too.

    Returns:
        The value.

    Raises:
        ConfigInvalid: If one is of another type, or `rescue` has no route to go to.
    """
    if retry is not None and not isinstance(retry, RetryPolicy):
        raise ConfigInvalid(f"'retry' must be a RetryPolicy or None, not {_kind(retry)}")
    if breaker is not None and not isinstance(breaker, Breaker):
        raise ConfigInvalid(f"'breaker' must be a Breaker or None, not {_kind(breaker)}")
    if fallback is None and rescue:
        raise ConfigInvalid(
            "rescue=True begins an answer anew on another route: name one with fallback=[...]"
        )
    return Steadiness(retry=retry, breaker=breaker, fallback=_fallback(fallback), rescue=rescue)


def checked_telemetry(telemetry: Any) -> Telemetry | None:
    """
    Where spans and metrics go, from an argument.

    Args:
        telemetry: A `Telemetry`; None: nowhere.

    Returns:
        The same.

    Raises:
        ConfigInvalid: If it is something else.
    """
    if telemetry is None or isinstance(telemetry, Telemetry):
        return telemetry
    raise ConfigInvalid(
        f"'telemetry' must be a Telemetry or None, not {_kind(telemetry)}: telemetry=Telemetry()"
    )


def _sought(find: Callable[[], Secret]) -> Key:
    return Key(find(), find)


def _fallback(given: Any) -> Fallback | None:
    if given is None or isinstance(given, Fallback):
        return given
    if isinstance(given, str | Route | LLMProvider):
        return Fallback([given])
    if not isinstance(given, Iterable):
        raise ConfigInvalid(f"'fallback' must be a route or a list of them, not {_kind(given)}")
    return Fallback(given)


def _kind(value: object) -> str:
    return type(value).__name__
