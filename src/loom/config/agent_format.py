"""
The format of agent files as one table: what reads them, and what editors complete them by.

The law: secrets are given by where they are. What is named like a secret, and is none of
`env:NAME`, `file:/path`, `keyring:name`, is refused and never repeated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from loom.config.load import normalise_base_url
from loom.config.secrets import is_reference
from loom.config.shapes import (
    Checked,
    Flag,
    Items,
    Number,
    Parsed,
    Record,
    Shape,
    Table,
    Text,
    TextOr,
    Whole,
)
from loom.core.errors import ConfigInvalid
from loom.layers.limit_rate import parse_rate_limit
from loom.ledger.budgets import parse_budget
from loom.shuttle.mcp import mcp

__all__ = ["AGENT_FORMAT", "split_command"]

_WORDS = "auth|authorization|cookie|credentials?|keys?|pass|passwd|pat|secrets?|tokens?"
# A variable or a header of such a name holds a secret.
_GUARDED = re.compile(rf"(?:^|[-_])(?:{_WORDS})(?:$|[-_])|apikey|password", re.IGNORECASE)
# So does what follows such an option, and other users see it in the list of processes.
_OPTION = re.compile(
    r"--?(?:[\w-]*[-_])?(?:key|token|secret|password|apikey)(?:=.*)?", re.IGNORECASE | re.DOTALL
)
_QUERY = re.compile(r"[?&][^=&]*(?:key|token|secret|password|auth)[^=&]*=", re.IGNORECASE)
_AMOUNT = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,12})?")


def split_command(command: str) -> tuple[str, ...]:
    """
    The words of a command, as a shell splits it.

    Args:
        command: For example "uvx mcp-server-fetch".

    Returns:
        The words.

    Raises:
        ValueError: If a quotation does not end.
    """
    import shlex  # noqa: PLC0415 - most files have no such command

    return tuple(shlex.split(command))


def _command(text: str) -> str | None:
    try:
        return text if split_command(text) else None
    except ValueError:
        return None


def _place(text: str) -> str | None:
    kind, _, where = text.partition(":")
    return text if kind in ("sqlite", "files") and where.strip() and _path(where) else None


def _store(text: str) -> str | None:
    path = text.removeprefix("sqlite:///")
    return text if text == "memory:" or (path and ":" not in path and _path(path)) else None


def _address(text: str) -> str:
    normalise_base_url(text)
    return text


def _amount(text: str) -> Decimal | None:
    return Decimal(text) if _AMOUNT.fullmatch(text) else None


def _path(text: str) -> str | None:
    try:
        Path(text).expanduser()
    except RuntimeError:  # the home of somebody who is not here
        return None
    return text


def _reference(text: str) -> str | None:
    return text if is_reference(text) else None


def _guarded(name: str) -> Shape:
    """A value of `env` or `headers`; what is named like a secret must be a reference."""
    if _GUARDED.search(name) is None:
        return Text(secret=True)

    def reference(text: str) -> str | None:
        return text if is_reference(text, scheme=True) else None

    return Parsed(reference, "a reference (env:NAME, file:/path or keyring:name)", secret=True)


def _check_server(given: Mapping[str, Any]) -> None:
    """What `loom.mcp` would refuse later, and secrets where they do not belong."""
    command = given.get("command", ())
    words = split_command(command) if isinstance(command, str) else command
    for word in words:
        if _OPTION.fullmatch(word):
            raise ConfigInvalid(
                f"{word.partition('=')[0]!r} takes a secret, and arguments are seen by others:"
                " give it by env"
            )
    if _QUERY.search(given.get("url", "")):
        raise ConfigInvalid("the address holds a secret: give it by headers")
    rest = {name: value for name, value in given.items() if name not in ("command", "url")}
    mcp(words or given["url"], **rest)


_NAMES = Items(Text())
_PATH = Parsed(_path, "a path")
_PLAIN = {"additionalProperties": {"type": ["string", "number", "boolean"]}}
_VALUES = {
    **_PLAIN,
    "description": "Values may be env:NAME, file:/path or keyring:name; those of keys must be.",
}
_BACKEND = Parsed(_place, "sqlite:FILE or files:FOLDER", pattern=r"^(sqlite|files):.*\S")
_MCP = Record(
    {
        "command": TextOr(Parsed(_command, "a command"), Items(Text(), least=1)),
        "url": Text(),
        "env": Table(_guarded, _VALUES),
        "headers": Table(_guarded, _VALUES),
        "cwd": _PATH,
        "name": Text(),
        "prefix": Text(),
        "tools": _NAMES,
        "timeout_s": Number(0, above=True),
        "connect_timeout_s": Number(0, above=True),
    },
    one_of=[("command", "url")],
    at_most_one_of=[("command", "headers"), ("url", "env"), ("url", "cwd")],
)
_SERVER = Record({"mcp": Checked(_MCP, _check_server)}, required=["mcp"])
_LIMITS = Record(
    {
        "max_turns": Whole(1),
        "max_tool_executions": Whole(0),
        "max_calls_per_answer": Whole(1),
        "max_argument_errors": Whole(0),
        "deadline_s": Number(0, above=True),
        "tool_timeout_s": Number(0, above=True),
        "max_output_bytes": Whole(1),
        "max_parallel": Whole(1),
        "warn_usd": Parsed(
            lambda text: (
                Decimal(text) if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,12})?", text) else None
            ),
            "US dollars",
            pattern=r"^[0-9]{1,12}(\.[0-9]{1,12})?$",
            number=True,
        ),
    }
)
_SPEC = Record(
    {
        "provider": Text(),
        "model": Text(),
        "api_key": Parsed(
            _reference,
            "where the key is (env:NAME, file:/path or keyring:name), never the key itself",
            pattern="^(env|file|keyring):",
            secret=True,
        ),
        "base_url": Parsed(_address, "an address", pattern="^https?://"),
        "fallback": Items(Text()),
        "system_prompt": Text(),
        "system_prompt_file": _PATH,
        "temperature": Number(0, 2),
        "max_tokens": Whole(1),
        "tools": Items(TextOr(Text(), _SERVER)),
        "backend": TextOr(_BACKEND, Record({"at": _BACKEND, "write": Flag()}, required=["at"])),
        "limits": _LIMITS,
        "budget": Parsed(
            parse_budget,
            "USD, USD/day, USD/week or USD/month, for example 5/month",
            pattern=r"^\$?([0-9]+(\.[0-9]+)?|\.[0-9]+)(/(day|week|month))?$",
            number=True,
        ),
        "permissions": Record({"allowed": _NAMES, "ask": _NAMES, "deny": _NAMES}),
        "sessions": Parsed(
            _store,
            "memory:, sqlite:///FILE or a path",
            pattern="^(memory:|sqlite:///[^:]+|[^:]+)$",
        ),
        "context": Text("slide", "summarise", "error"),
        "rate_limit": Parsed(
            parse_rate_limit, "free, starter, pro or RPM/TPM, for example 60/500000", number=True
        ),
        "sim": Flag(),
    },
    at_most_one_of=[("system_prompt", "system_prompt_file")],
)
AGENT_FORMAT: Shape = Record(
    {
        "apiVersion": Text("loom/v1"),
        "kind": Text("Agent"),
        "metadata": Record(
            {
                "name": Text(),
                "description": Text(),
                "labels": Table(lambda _name: Text(), _PLAIN),
            },
            required=["name"],
        ),
        "spec": _SPEC,
    },
    required=["apiVersion", "kind", "metadata", "spec"],
)
