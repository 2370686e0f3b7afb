"""What is checked of an address, a proxy or a header before anything is sent."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import SplitResult, urlsplit

import msgspec

from loom.core.errors import ConfigInvalid
from loom.core.secret import Secret

__all__ = ["Address", "bad_header", "check_proxy", "parse_address", "shown_origin"]

_SCHEMES = ("http", "https")

# RFC 9110, section 5.6.2.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

# RFC 9110, section 5.5: CR, LF and NUL end or cut a field; other controls have no place in one,
# and a lone surrogate cannot be sent.
_FORBIDDEN = re.compile("[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")

_HOST = re.compile(r"[A-Za-z0-9.:\[\]-]{1,255}")


class Address(msgspec.Struct, frozen=True):
    """
    Where a request goes.

    Attributes:
        secure: Whether it is https.
        where: Host and port as people read them; the only part of a URL that errors show.
        loopback: Whether it is this machine.
    """

    secure: bool
    where: str
    loopback: bool


@lru_cache(maxsize=256)
def parse_address(url: str) -> Address:
    """
    Look at a URL.

    Args:
        url: Absolute.

    Returns:
        What is to be known of it.

    Raises:
        ConfigInvalid: If it is not an absolute http or https URL.
    """
    parts = _split(url, "the base URL")
    host = parts.hostname or ""
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return Address(secure, where, _is_loopback(host))


def check_proxy(proxy: str) -> str:
    """
    Look at a proxy's URL.

    Args:
        proxy: "http://host:port" or "https://host:port", with "user:password@" if need be.

    Returns:
        Host and port, for errors.

    Raises:
        ConfigInvalid: If it is of a kind that is not spoken.
    """
    scheme = proxy.partition(":")[0].lower()
    if scheme.startswith("socks"):
        raise ConfigInvalid(
            f"A {scheme}:// proxy is not supported: give an http:// or https:// proxy, or run"
            " one in front of it."
        )
    parts = _split(proxy, "the proxy's URL")
    return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def bad_header(headers: Mapping[str, str | Secret]) -> str | None:
    """
    Look for a header that must not be sent.

    It returns a name and raises nothing: an exception raised here would hold the revealed value
    in its frame.

    Args:
        headers: Names and values.

    Returns:
        The name of the first whose name or value holds what HTTP forbids; None if all are well.
    """
    for name, value in headers.items():
        text = value.reveal() if isinstance(value, Secret) else value
        # Printable ASCII holds nothing of the kind, and is found out twenty times faster.
        plain = text.isascii() and text.isprintable()
        if (not plain and _FORBIDDEN.search(text)) or not _is_token(name):
            return name
    return None


@lru_cache(maxsize=256)
def _is_token(name: str) -> bool:
    return _TOKEN.fullmatch(name) is not None


def shown_origin(location: str) -> str:
    """
    Give the part of a `location` header that an error may show.

    Args:
        location: As the server sent it; its path or query may hold anything.

    Returns:
        Scheme, host and port, or words in their place.
    """
    try:
        parts = urlsplit(location)
    except ValueError:
        return "no address"
    if not parts.netloc:
        return "another path there"
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme or 'http'}://{host}" if _HOST.fullmatch(host) else "no address"


def _split(url: str, what: str) -> SplitResult:
    # A URL may hold a password, so no message shows it.
    try:
        parts = urlsplit(url)
        valid = parts.scheme in _SCHEMES and _is_host(parts.hostname or "") and parts.port != 0
    except ValueError:
        valid = False
    if not valid or _FORBIDDEN.search(url) or " " in url:
        raise ConfigInvalid(
            f"{what.capitalize()} is not an address: write it as https://host or http://host:port."
        )
    return parts


def _is_host(host: str) -> bool:
    # RFC 1035, section 2.3.4. The system's look-up fails with a bare UnicodeError on others.
    return ":" in host or all(0 < len(label) < 64 for label in host.removesuffix(".").split("."))


def _is_loopback(host: str) -> bool:
    # RFC 6761, section 6.3: names under "localhost" are this machine.
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
