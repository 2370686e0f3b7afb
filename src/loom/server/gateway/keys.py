"""
A virtual key: who calls the gateway, and what that caller may do. Values and rules, no clock.

Rule 1: a key knows no secret. What is kept of it is its SHA-256.
Rule 2: what a caller said is never changed in silence. A limit that was passed is refused with
both numbers; a limit is put in only where the caller named none.
Rule 3: no key is ever deleted. The ledger's rows name it for good.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from fnmatch import translate
from functools import lru_cache

import msgspec

from loom.core.errors import ConfigInvalid, InvalidRequest, PermissionDenied
from loom.core.request import ChatRequest
from loom.layers.limit_rate import RateLimit
from loom.ledger.budgets import Budget

__all__ = [
    "ADMIN",
    "ANYONE",
    "KeyTerms",
    "VirtualKey",
    "allows",
    "check_model",
    "check_name",
    "check_request",
    "open_door",
]

# Names stand in headers, metrics and logs: nothing that any of them would read as its own.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_PATTERN = re.compile(r"[A-Za-z0-9._:/@+*?-]{1,128}")
_MOST_PATTERNS = 100
_COUNTS = ("rpm", "tpm", "max_tokens", "concurrency")
# What a wire sends beside the fields that a request has names for: none may say them again.
_SAID_TWICE = frozenset({"model", "n", "max_tokens", "max_completion_tokens", "best_of"})


class KeyTerms(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a key allows; None is no limit.

    Attributes:
        models: Patterns of models that may be asked, `*` for any characters and `?` for one; the
            model as the caller names it must fit one of them to the letter. Empty: every model.
        rpm: Requests a minute, at least 1.
        tpm: Tokens a minute, prompt and answer together, at least 1.
        budget: What may be spent, for all time or by day, week or month (UTC). It is always
            that of the key, whatever `per` says.
        max_tokens: The longest answer of a request in tokens, all its choices together, at least 1.
        concurrency: Requests on their way at once, at least 1.
        expires_at: From when on it is refused, with a time zone; None: never.
        tags: Labels for costs, written into each row.

    Raises:
        ConfigInvalid: If one of them makes no sense.
    """

    models: tuple[str, ...] = ()
    rpm: int | None = None
    tpm: int | None = None
    budget: Budget | None = None
    max_tokens: int | None = None
    concurrency: int | None = None
    expires_at: datetime | None = None
    tags: Mapping[str, str] = {}

    def __post_init__(self) -> None:
        """Refuse what makes no sense, and make the budget that of the key."""
        if len(self.models) > _MOST_PATTERNS:
            raise ConfigInvalid(f"a key has at most {_MOST_PATTERNS} patterns of models")
        for pattern in self.models:
            if _PATTERN.fullmatch(pattern) is None:
                raise ConfigInvalid(
                    f"{pattern!r} is no pattern of models: give an id, with * or ? for what may"
                    " differ, for example 'mistral-*'"
                )
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ConfigInvalid(
                    f"a key's {name} is a whole number of at least 1, not {value!r}"
                )
        if any(
            "loom_sk_" in text.lower() for text in (*self.models, *self.tags, *self.tags.values())
        ):
            raise ConfigInvalid("a model or a tag begins like a key: mind which option is which")
        if self.expires_at is not None and self.expires_at.tzinfo is None:
            raise ConfigInvalid("a key's expires_at has a time zone: give UTC")
        if self.budget is not None:
            own = msgspec.structs.replace(self.budget, per="tenant")
            msgspec.structs.force_setattr(self, "budget", own)

    @property
    def rate_limit(self) -> RateLimit | None:
        """What a `Limiter` keeps for this key; None: nothing."""
        if self.rpm is None and self.tpm is None and self.concurrency is None:
            return None
        return RateLimit(
            requests_per_minute=self.rpm,
            tokens_per_minute=self.tpm,
            concurrency=self.concurrency,
        )


class VirtualKey(KeyTerms, frozen=True, kw_only=True):
    """
    A key as the gateway knows it; the secret itself is nowhere.

    Attributes:
        id: Unique for good, for example "key_0123456789abcdef". It is the tenant of its calls in
            the ledger, so budgets and limits are counted by it.
        name: For people; two keys that are not revoked never share one.
        hash: The secret's SHA-256, 32 bytes.
        created_at: UTC.
        revoked_at: UTC; None while it holds.
    """

    id: str
    name: str
    hash: bytes
    created_at: datetime
    revoked_at: datetime | None = None

    @property
    def fingerprint(self) -> str:
        """The first eight hex digits of the hash, as `Secret.fingerprint` gives them."""
        return self.hash.hex()[:8]

    @property
    def is_admin(self) -> bool:
        """Whether it is the gateway's own, that may everything."""
        return self.id == ADMIN.id

    def state(self, now: datetime) -> str:
        """
        Whether it holds.

        Args:
            now: With a time zone.

        Returns:
            "active", "expired" or "revoked".
        """
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return "active"


_BEGINNING = datetime.fromisoformat("1970-01-01T00:00:00+00:00")

ADMIN = VirtualKey(id="admin", name="admin", hash=bytes(32), created_at=_BEGINNING)
"""Who gave the gateway's own key: no limit holds."""

ANYONE = VirtualKey(id="anyone", name="anyone", hash=bytes(32), created_at=_BEGINNING)
"""Who calls a gateway on this machine that has no keys."""

_RESERVED = (ADMIN.name, ANYONE.name)


def check_name(name: str) -> str:
    """
    See that a name can be one.

    Args:
        name: What somebody wants to call a key.

    Returns:
        The name.

    Raises:
        ConfigInvalid: If it cannot; a text that begins as keys do is not shown.
    """
    if "loom_sk_" in name.lower() or name.lower().startswith("key_"):
        raise ConfigInvalid("a key's name begins like a key or an id: give one for people")
    if name.lower() in _RESERVED:
        raise ConfigInvalid(f"the name {name!r} is the gateway's own: give another one")
    if _NAME.fullmatch(name) is None:
        raise ConfigInvalid(
            f"{name!r} is no name for a key: give 1 to 64 letters, digits, or . _ @ + -, and a"
            " letter or digit first"
        )
    return name


def open_door(host: str, keys: Sequence[VirtualKey]) -> bool:
    """
    Whether callers need no key: on this machine alone, and only until the first key is made.

    Args:
        host: The address that the gateway listens on.
        keys: Every key there ever was; a revoked one keeps the door shut.

    Returns:
        True if everybody on this machine may call.
    """
    return not keys and _is_loopback(host)


def allows(key: VirtualKey, model: str) -> bool:
    """
    Whether a key may ask a model.

    Args:
        key: Who asks.
        model: As the caller names it.

    Returns:
        True if it fits one of the key's patterns, or the key has none.
    """
    return not key.models or _pattern(key.models).match(model) is not None


def check_model(key: VirtualKey, model: str) -> None:
    """
    Refuse a model that a key may not ask.

    It is `PermissionDenied` (403) and not `ModelNotFound` (404): nobody shall look for a typo
    where the key's owner must be asked.

    Args:
        key: Who asks.
        model: As the caller names it.

    Raises:
        PermissionDenied: It names what the key may ask.
    """
    if not allows(key, model):
        raise PermissionDenied(
            f"the key {key.name!r} may not ask the model {model[:128]!r}",
            hint=f"It may ask {', '.join(key.models)}; who made the key can allow more.",
            model=model[:128],
            attempts=0,
        )


def check_request(key: VirtualKey, request: ChatRequest) -> ChatRequest:
    """
    Hold a request to the key's models and its longest answer.

    A caller that names no `max_tokens` gets the key's. One that asks for more than the key's is
    refused: an answer that ends early without a word would look like the model's fault.

    Args:
        key: Who asks.
        request: What is asked.

    Returns:
        The request; the same object if nothing was put in.

    Raises:
        PermissionDenied: If the key may not ask this model.
        InvalidRequest: If the answer could be longer than the key's longest.
    """
    check_model(key, request.model)
    if twice := _SAID_TWICE.intersection(request.extra):
        raise InvalidRequest(f"{min(twice)!r} may not be said twice in a request", attempts=0)
    if key.max_tokens is None:
        return request
    sampling = request.sampling
    choices = max(1, sampling.n or 1)
    wanted = sampling.max_tokens
    most = key.max_tokens // choices
    if wanted is None and most >= 1:
        cut = msgspec.structs.replace(sampling, max_tokens=most)
        return msgspec.structs.replace(request, sampling=cut)
    if wanted is None or wanted * choices > key.max_tokens:
        said = "max_tokens" if choices == 1 else f"max_tokens for each of {choices} answers"
        asked = "no" if wanted is None else str(wanted)
        raise InvalidRequest(
            f"{asked} {said}: the key {key.name!r} has at most {key.max_tokens} in a request",
            hint=f"Ask for at most {key.max_tokens}, or leave max_tokens out.",
            model=request.model,
            attempts=0,
        )
    return request


@lru_cache(maxsize=1024)
def _pattern(models: tuple[str, ...]) -> re.Pattern[str]:
    # `translate` makes patterns that never go back: `*a*a*a*` is no trap. Brackets, which it
    # would read too, are in no pattern.
    return re.compile("|".join(translate(pattern) for pattern in models))


def _is_loopback(host: str) -> bool:
    name = host.strip("[]").lower()
    if name == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        # Another name: who knows where it points, or will.
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
