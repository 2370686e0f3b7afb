"""
Whose APIs there are: one value a vendor, and all that sets it apart.

A new vendor is one more value here, or in another package, which registers it in the entry point
group `loom.providers`. Nothing else asks whose API it is, but for `client/aio.py`,
`client/blocking.py` and `client/constructors.py`, which have classes of its own for each vendor
that comes with the library.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from loom.core.errors import ConfigInvalid

if TYPE_CHECKING:
    from loom.core.provider import LLMProvider
    from loom.wire.dialect import Dialect

__all__ = [
    "MISTRAL",
    "OPENAI",
    "PROVIDERS",
    "VENDORS",
    "LimitField",
    "Vendor",
    "chat_completions",
    "find_vendor",
]

LimitField: TypeAlias = Literal["max_completion_tokens", "max_tokens"]
"""What the longest answer is called on the wire."""

PROVIDERS = "loom.providers"
"""The entry point group in which other packages register vendors."""


def chat_completions(
    own: bool = True,  # noqa: FBT001, FBT002 - the one question that a vendor's dialect is asked
    limit_field: LimitField | None = None,
) -> Dialect:
    """
    OpenAI's dialect.

    Args:
        own: Whether OpenAI itself is asked, and not another server that speaks as it does.
        limit_field: What the longest answer is called; None: OpenAI's newer word for itself,
            and the older one for others, which often know no other.

    Returns:
        The dialect.

    Source: OpenAI's API reference, "Create chat completion": `max_tokens` is deprecated, and not
    compatible with its reasoning models. Read 2026-11-26.
    """
    from loom.wire.chat_completions.dialect import (  # noqa: PLC0415 - who asks that vendor pays
        ChatCompletionsDialect,
    )

    usual: LimitField = "max_completion_tokens" if own else "max_tokens"
    return ChatCompletionsDialect(limit_field=limit_field or usual)


def _infill() -> Dialect:
    from loom.wire.mistral.infill_dialect import InfillDialect  # noqa: PLC0415 - who asks for it pays

    return InfillDialect()


def _mistral(_own: bool) -> Dialect:  # noqa: FBT001 - as `chat_completions`
    from loom.wire.mistral.dialect import MistralDialect  # noqa: PLC0415 - who asks that vendor pays

    return MistralDialect()


class Vendor(msgspec.Struct, frozen=True, kw_only=True):
    """
    Whose API it is.

    Attributes:
        name: As in routes, rows, answers and ledgers: "openai"; a word of letters, digits and `_`.
        title: As people write it: "OpenAI". Log lines begin with it.
        base_url: Its address.
        console_url: Where a key is made.
        key_name: The name of its key in settings, keyring and Vault; in capitals, its environment
            variable. Empty: it takes no key.
        model: The model when nobody names one, and no `[[default]]` row of the catalogue does;
            empty: one must be named.
        dialect: Makes its dialect; True for the vendor itself, False for another server that
            speaks as it does.
        embeddings_model: The model that makes vectors when nobody names one; empty: one must be
            named.
        infill: Makes its dialect for `/fim/completions`; None: it has no such path.
        compatible: Whether others offer its API too. Then an address is taken as it is, a server
            on this machine needs no key, and a key that was found goes to the vendor alone.
        provider: Makes what answers for a model, in place of address, key and dialect; for what
            is not HTTP. None: the vendor is asked over the wire.
    """

    name: str
    title: str
    base_url: str = ""
    console_url: str = ""
    key_name: str = ""
    model: str = ""
    dialect: Callable[[bool], Dialect] = chat_completions
    embeddings_model: str = ""
    infill: Callable[[], Dialect] | None = None
    compatible: bool = False
    provider: Callable[[str], LLMProvider] | None = None


MISTRAL = Vendor(
    name="mistral",
    title="Mistral",
    base_url="https://api.mistral.ai/v1",
    console_url="https://console.mistral.ai/api-keys",
    key_name="mistral_api_key",
    dialect=_mistral,
    embeddings_model="mistral-embed",
    infill=_infill,
)
"""Source: contract/mistral.md section 1."""

OPENAI = Vendor(
    name="openai",
    title="OpenAI",
    base_url="https://api.openai.com/v1",
    console_url="https://platform.openai.com/api-keys",
    key_name="openai_api_key",
    embeddings_model="text-embedding-3-small",
    compatible=True,
)
"""Source: contract/providers.md; OpenAI's API reference, "Authentication"."""

VENDORS = {vendor.name: vendor for vendor in (MISTRAL, OPENAI)}
"""Those that come with the library."""


def find_vendor(name: str) -> Vendor:
    """
    The vendor of a name: one of ours, or one that another package registered.

    Args:
        name: For example "openai".

    Returns:
        The vendor.

    Raises:
        ConfigInvalid: If there is none; the nearest name is named.
    """
    if name in VENDORS:
        return VENDORS[name]
    from importlib.metadata import entry_points  # noqa: PLC0415 - most calls stay with ours

    registered = entry_points(group=PROVIDERS)
    for point in registered:
        if point.name == name:
            return _read(name, point.load())
    from difflib import get_close_matches  # noqa: PLC0415 - only on the way to an error

    known = (*VENDORS, *sorted(registered.names))
    near = get_close_matches(name, known, n=1)
    wish = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(map(repr, known))}"
    raise ConfigInvalid(f"unknown provider {name!r}; {wish}")


def _read(name: str, given: object) -> Vendor:
    if isinstance(given, Vendor):
        return given
    if callable(given):
        return Vendor(name=name, title=name.capitalize(), provider=given)
    raise ConfigInvalid(
        f"the entry point {name!r} of {PROVIDERS!r} must be a Vendor, or a function that makes an"
        f" LLMProvider for a model, not {type(given).__name__}"
    )
