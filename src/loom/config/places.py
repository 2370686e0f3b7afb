"""
Where a vendor is asked, and as whom.

The law of this file: a key goes where it belongs. One that was given for an address goes to that
address; one that was found (in the environment, a keyring, a Vault) goes to its vendor, or where
its user's own settings send it. No route takes a key to another address.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from loom.config.load import is_loopback, normalise_base_url
from loom.config.secrets import find_api_key
from loom.config.settings import Settings
from loom.config.vendors import Vendor
from loom.core.errors import ConfigInvalid, InvalidAPIKey
from loom.core.secret import Secret
from loom.providers.key import Key, KeyLike

if TYPE_CHECKING:
    from loom.core.route import Route

__all__ = ["Place", "find_key", "find_place", "origin", "place_beside"]


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """
    Where a vendor is asked.

    Attributes:
        address: The API's address, without `/chat/completions`.
        key: Sent as the bearer token; None: none is sent.
        own: Whether the vendor itself is there (or its simulator), and not another server that
            speaks as it does.
    """

    address: str
    key: Key | None
    own: bool = True


def find_place(
    vendor: Vendor,
    settings: Settings,
    *,
    api_key: KeyLike | None = None,
    base_url: str | None = None,
    strict: bool = False,
) -> Place:
    """
    Find where a vendor is asked, and the key for it.

    Args:
        vendor: Who.
        settings: Where to look for address and key.
        api_key: The caller's own key, or a function that gives it; None: look for one.
        base_url: The caller's own address; None: the settings', or the vendor's.
        strict: Whether a found key stays away from an address of the caller's.

    Returns:
        Address and key.

    Raises:
        InvalidAPIKey: If there is no key, it cannot be one, or it does not belong there.
        ConfigInvalid: If the address is none.
    """
    if vendor.provider is not None:
        return Place(address="", key=None)
    setting = "base_url" if vendor.name == "mistral" else f"{vendor.name}_base_url"
    chosen = base_url or getattr(settings, setting, None) or vendor.base_url
    address = normalise_base_url(chosen, exact=vendor.compatible)
    own = origin(address) == origin(vendor.base_url)
    if api_key is None and vendor.compatible and is_loopback(address):
        return Place(address=address, key=None, own=own)
    if api_key is None and base_url is not None and not own and (strict or vendor.compatible):
        raise InvalidAPIKey(
            f"API key is required for {origin(address)}: pass api_key=...; the one for"
            f" {vendor.title} ({vendor.key_name.upper()}) is sent to {origin(vendor.base_url)} only"
        )
    if not vendor.key_name and api_key is None:
        return Place(address=address, key=None, own=own)
    return Place(address=address, key=find_key(api_key, settings, vendor), own=own)


def place_beside(vendor: Vendor, place: Place, route: Route) -> Place:
    """
    Where a route of a client's own vendor leads.

    Args:
        vendor: Whose client it is.
        place: Where it asks.
        route: The route.

    Returns:
        Address and key; those of the client where the route names none.

    Raises:
        ConfigInvalid: If the client's key would leave for another address.
        InvalidAPIKey: If the route's key cannot be one.
    """
    if route.base_url is None:
        address, own = place.address, place.own
    else:
        address = normalise_base_url(route.base_url, exact=vendor.compatible)
        own = origin(address) == origin(vendor.base_url)
    if route.api_key is not None:
        return Place(address=address, key=Key(find_api_key(route.api_key).secret), own=own)
    if origin(address) == origin(place.address):
        return Place(address=address, key=place.key, own=place.own)
    if vendor.compatible and is_loopback(address):
        return Place(address=address, key=None, own=own)
    raise ConfigInvalid(
        f"'fallback': the route to {origin(address)} needs an api_key of its own:"
        " a key is never sent to another address"
    )


def find_key(given: KeyLike | None, settings: Settings, vendor: Vendor) -> Key:
    """
    Find a vendor's key, and where to look for it again when the vendor refuses it.

    Args:
        given: The caller's own, or a function that gives it; None: look for one.
        settings: Which places to ask.
        vendor: Whose key.

    Returns:
        The key.

    Raises:
        InvalidAPIKey: If there is none, or it cannot be one.
    """

    def find(explicit: str | Secret | None) -> Secret:
        return find_api_key(
            explicit, name=vendor.key_name, settings=settings, console=vendor.console_url
        ).secret

    if given is None:
        return _sought(lambda: find(None))
    if callable(given):
        give = given
        return _sought(lambda: find(give()))
    return Key(find(given))


def origin(address: str) -> str:
    """
    Scheme, host and port of an address.

    Args:
        address: An address in the form that is used inside.

    Returns:
        For example "https://api.openai.com".
    """
    return "/".join(address.split("/", 3)[:3])


def _sought(find: Callable[[], Secret]) -> Key:
    return Key(find(), find)
