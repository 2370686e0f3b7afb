"""Where an MCP server is: a command or an address, checked before anything is started or sent."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec

from loom.core.errors import ConfigInvalid
from loom.core.secret import Secret
from loom.transport.address import bad_header, parse_address

__all__ = ["Place", "place_of"]

# Programs that start another: the next word names the server.
_RUNNERS = frozenset({"bunx", "docker", "node", "npx", "python", "python3", "uv", "uvx"})

# A shorter value ("1", "en") would be cut out of words that have nothing to do with it.
_SHORTEST_HIDDEN = 8

_VARIABLE = re.compile(r"[^=\x00]+")


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """
    Where a server is, and how long it may take.

    Attributes:
        name: What errors and logs call it.
        command: The program and its arguments; empty for a server that is reached by HTTP.
        env: What its environment holds beside the short list that every server gets.
        cwd: The folder that it is started in; None: the current one.
        url: The address of a streamable HTTP server; empty for one that is started.
        headers: What is sent with each request.
        timeout_s: Seconds for one call of a tool; None: no limit of ours.
        connect_timeout_s: Seconds for the start with its handshake, and for a listing.
    """

    name: str
    command: tuple[str, ...] = ()
    env: Mapping[str, Secret] = {}
    cwd: Path | None = None
    url: str = ""
    headers: Mapping[str, Secret] = {}
    timeout_s: float | None = 60.0
    connect_timeout_s: float = 30.0

    @property
    def shown(self) -> str:
        """The place as people may see it: arguments, queries and values can hold a key."""
        if self.command:
            return f"command {Path(self.command[0]).name!r}"
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}{parts.path}"

    def hide(self, text: str) -> str:
        """
        A text without the secrets that this server was given.

        Args:
            text: What the server, or the way to it, said.

        Returns:
            The same, each value of `env` and `headers` as three stars.
        """
        for secret in (*self.env.values(), *self.headers.values()):
            value = secret.reveal()
            for part in (value, value.rpartition(" ")[2]):  # "Bearer KEY": the key alone, too
                if len(part) >= _SHORTEST_HIDDEN:
                    text = text.replace(part, "***")
        return text


def place_of(
    server: str | Sequence[str],
    *,
    name: str | None,
    env: Mapping[str, str | Secret] | None,
    cwd: str | Path | None,
    headers: Mapping[str, str | Secret] | None,
    timeout_s: float | None,
    connect_timeout_s: float,
) -> Place:
    """
    Read what `loom.mcp` was given.

    Args:
        server: A command as a shell splits it, its words, or an address.
        name: What to call it; None: by its program or host.
        env: Only with a command.
        cwd: Only with a command.
        headers: Only with an address.
        timeout_s: Above 0, or None.
        connect_timeout_s: Above 0.

    Returns:
        The place.

    Raises:
        ConfigInvalid: If a part of it is not as it must be; values are not repeated.
    """
    for what, seconds in (("timeout_s", timeout_s), ("connect_timeout_s", connect_timeout_s)):
        if seconds is not None and not seconds > 0:
            raise ConfigInvalid(f"mcp: {what} is {seconds}; it must be above 0")
    words = _words(server)
    url = "" if words else str(server)
    _refuse_wrong_side(words, env=env, cwd=cwd, headers=headers)
    where = _checked_url(url) if url else ""
    _check_env(env or {})
    bad = bad_header(headers or {})
    if bad is not None:
        raise ConfigInvalid(f"mcp: the header {bad!r} holds what HTTP does not allow")
    return Place(
        name=name or (_program(words) if words else where),
        command=words,
        env=_hidden(env),
        cwd=None if cwd is None else Path(cwd),
        url=url,
        headers=_hidden(headers),
        timeout_s=timeout_s,
        connect_timeout_s=connect_timeout_s,
    )


def _words(server: str | Sequence[str]) -> tuple[str, ...]:
    if not isinstance(server, str):
        words = tuple(server)
    elif "://" in server.split(" ", maxsplit=1)[0]:
        return ()
    else:
        import shlex  # noqa: PLC0415 - most commands come in words

        try:
            words = tuple(shlex.split(server))
        except ValueError as error:
            raise ConfigInvalid(f"mcp: the command cannot be split into words: {error}") from None
    texts = all(isinstance(word, str) and "\0" not in word for word in cast("tuple[Any]", words))
    if not words or not texts or not words[0]:
        raise ConfigInvalid("mcp: give a command (text or a list of words), or an https:// address")
    return words


def _refuse_wrong_side(words: tuple[str, ...], **given: object) -> None:
    wrong = ("headers",) if words else ("env", "cwd")
    for what in wrong:
        if given[what] is not None:
            kind = "a command" if words else "an address"
            raise ConfigInvalid(f"mcp: {what} has no meaning for {kind}")


def _checked_url(url: str) -> str:
    address = parse_address(url)
    if "@" in urlsplit(url).netloc:
        raise ConfigInvalid(
            "mcp: the address must not hold a user name or password: give headers={...}"
        )
    if not address.secure and not address.loopback:
        raise ConfigInvalid(
            f"mcp: {address.where} must be reached by https, or what is said could be read on the"
            " way (http is accepted for loopback addresses only)"
        )
    return address.where


def _check_env(env: Mapping[str, str | Secret]) -> None:
    for variable, value in env.items():
        text = value.reveal() if isinstance(value, Secret) else value
        plain = isinstance(cast("Any", text), str) and "\0" not in text
        if _VARIABLE.fullmatch(variable) is None or not plain:
            raise ConfigInvalid(f"mcp: env: {variable!r} is no variable, or its value is no text")


def _hidden(given: Mapping[str, str | Secret] | None) -> dict[str, Secret]:
    return {
        name: value if isinstance(value, Secret) else Secret(value)
        for name, value in (given or {}).items()
    }


def _program(words: tuple[str, ...]) -> str:
    program = Path(words[0]).name.removesuffix(".exe")
    if program.rstrip("0123456789.") in _RUNNERS and len(words) > 1 and words[1][:1] != "-":
        return f"{program} {Path(words[1]).name}"
    return program
