"""
Agent files: an agent in YAML, read and checked; nothing is made of it here, and nothing runs.

    apiVersion: loom/v1
    kind: Agent
    metadata:
      name: shop
    spec:
      model: mistral-large-latest
      api_key: env:MISTRAL_API_KEY
      tools: ["shop_tools:lookup"]
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from loom.agent.limits import AgentLimits, ContextPolicy
from loom.config.agent_format import AGENT_FORMAT, split_command
from loom.config.yaml_tree import MOST_CHARACTERS, Misfit, read_yaml
from loom.core.errors import ConfigInvalid
from loom.layers.limit_rate import RateLimit
from loom.ledger.budgets import Budget

__all__ = [
    "AgentFile",
    "BackendEntry",
    "McpEntry",
    "ToolEntry",
    "ToolRules",
    "agent_file_schema",
    "load_agent_file",
    "parse_agent_file",
]

_MOST_PROMPT_BYTES = 1024 * 1024


class McpEntry(msgspec.Struct, frozen=True, kw_only=True):
    """
    An MCP server among the tools.

    Attributes:
        command: The program and its arguments; empty for one with an address.
        url: Its address; None for one that is started.
        env: Variables of its environment; a value may be a reference (`config/secrets.py`).
        headers: Sent with each request; the same, and a scheme may stand before a reference.
        cwd: The folder that it is started in; None: the current one.
        options: The rest, as `loom.mcp` takes it: name, prefix, tools, timeout_s,
            connect_timeout_s.
    """

    command: tuple[str, ...] = ()
    url: str | None = None
    env: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    cwd: Path | None = None
    options: Mapping[str, Any] = {}


ToolEntry: TypeAlias = str | McpEntry
"""`module:function` (or a module or file, as on the command line), or an MCP server."""


class BackendEntry(msgspec.Struct, frozen=True, kw_only=True):
    """
    What the agent works on.

    Attributes:
        kind: A SQLite database, or a folder of files.
        path: Where it is.
        write: Whether it may be changed.
    """

    kind: Literal["sqlite", "files"]
    path: Path
    write: bool = False


class ToolRules(msgspec.Struct, frozen=True, kw_only=True):
    """
    Which tools may run.

    Attributes:
        allowed: The only ones that may; None: all.
        ask: Those for which a person is asked.
        deny: Those that may not.
    """

    allowed: frozenset[str] | None = None
    ask: frozenset[str] = frozenset()
    deny: frozenset[str] = frozenset()


class AgentFile(msgspec.Struct, frozen=True, kw_only=True):
    """
    What an agent file says; None where it says nothing.

    Paths are whole: a relative one begins in the folder of the file.

    Attributes:
        path: The file.
        name: The agent's name.
        description: What it is for.
        labels: Free words by name.
        provider: Whose API is asked, for example "mistral".
        model: Which model.
        api_key: Where the key is: `env:NAME`, `file:/path` or `keyring:name`; never the key.
        base_url: The API's address.
        fallback: Other routes, first to last, for example "openai:gpt-4.1-mini".
        system_prompt: What the model is told of its task; read from `system_prompt_file` if that
            is given.
        system_prompt_file: Where the prompt was read.
        temperature: 0 to 2.
        max_tokens: The longest answer, at least 1.
        tools: In the order of the file.
        backend: What the agent works on.
        limits: How far one turn may go.
        budget: What its calls may cost.
        permissions: Which tools may run.
        sessions: Where conversations are kept: "memory:" or "sqlite:///FILE".
        context: What happens to a conversation that outgrows the window.
        rate_limit: The limits that calls keep.
        sim: Whether calls go to the simulator; None: as the settings say.
    """

    path: Path
    name: str
    description: str | None = None
    labels: Mapping[str, str] = {}
    provider: str = "mistral"
    model: str | None = None
    api_key: str | None = None
    base_url: str | None = None
    fallback: tuple[str, ...] = ()
    system_prompt: str | None = None
    system_prompt_file: Path | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    tools: tuple[ToolEntry, ...] = ()
    backend: BackendEntry | None = None
    limits: AgentLimits = AgentLimits()
    budget: Budget | None = None
    permissions: ToolRules = ToolRules()
    sessions: str | None = None
    context: ContextPolicy = "slide"
    rate_limit: RateLimit | None = None
    sim: bool | None = None

    @property
    def folder(self) -> Path:
        """Where its relative paths begin."""
        return self.path.parent


def load_agent_file(path: str | Path) -> AgentFile:
    """
    Read and check an agent file; the key is not looked for, and no code of a tool runs.

    Args:
        path: The file, at most 128 Ki characters of UTF-8.

    Returns:
        What it says.

    Raises:
        ConfigInvalid: If it cannot be read or is not as it must be, with file, line and key; or
            if the extra `yaml` is not installed.
    """
    file = Path(path)
    return parse_agent_file(_read(file, MOST_CHARACTERS * 4), file.absolute(), shown=str(path))


def parse_agent_file(text: str, path: Path, *, shown: str | None = None) -> AgentFile:
    """
    Check the text of an agent file.

    Args:
        text: YAML.
        path: Where it stands; relative paths begin beside it.
        shown: The path as errors name it; None: as it is.

    Returns:
        What it says; a prompt in a file of its own is read.

    Raises:
        ConfigInvalid: If it is not as it must be.
    """
    try:
        said = AGENT_FORMAT.read(read_yaml(text), "")
    except Misfit as misfit:
        raise ConfigInvalid(
            f"{shown or path}:{misfit.line}: {misfit.words}", hint="Correct the file."
        ) from None
    spec = {**said["metadata"], **said["spec"]}
    folder = path.parent
    if "system_prompt_file" in spec:
        prompt = _beside(folder, spec["system_prompt_file"])
        spec["system_prompt_file"] = prompt
        spec["system_prompt"] = _read(prompt, _MOST_PROMPT_BYTES)
    if "backend" in spec:
        spec["backend"] = _backend(spec["backend"], folder)
    if "sessions" in spec:
        spec["sessions"] = _sessions(spec["sessions"], folder)
    spec["tools"] = tuple(
        entry if isinstance(entry, str) else _server(entry["mcp"], folder)
        for entry in spec.get("tools", ())
    )
    rules = {name: frozenset(names) for name, names in spec.get("permissions", {}).items()}
    spec["permissions"] = ToolRules(**rules)
    spec["limits"] = AgentLimits(**spec.get("limits", {}))
    return AgentFile(path=path, **spec)


def agent_file_schema() -> dict[str, Any]:
    """
    The format as a JSON schema, so that editors can complete and check it.

    Returns:
        A schema of draft 2020-12.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Loom agent",
        **AGENT_FORMAT.schema(),
    }


def _read(path: Path, most_bytes: int) -> str:
    try:
        if path.exists() and not path.is_file():
            raise ConfigInvalid(f"{path}: is not a file")
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
        if len(content) > most_bytes:
            raise ConfigInvalid(f"{path}: is longer than {most_bytes:,} bytes")
        return content.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ConfigInvalid(f"{path}: cannot be read: {why}") from None


def _beside(folder: Path, path: str) -> Path:
    return folder / Path(path).expanduser()


def _backend(given: str | Mapping[str, Any], folder: Path) -> BackendEntry:
    place, write = (given, False) if isinstance(given, str) else (given["at"], given.get("write"))
    kind, _, where = place.partition(":")
    # As in a store's address: three slashes belong to it, a fourth is the path's.
    path = _beside(folder, where.removeprefix("///"))
    return BackendEntry(
        kind="sqlite" if kind == "sqlite" else "files", path=path, write=bool(write)
    )


def _sessions(given: str, folder: Path) -> str:
    if given == "memory:":
        return given
    return f"sqlite:///{_beside(folder, given.removeprefix('sqlite:///'))}"


def _server(given: dict[str, Any], folder: Path) -> McpEntry:
    known = {name: given.pop(name) for name in ("url", "env", "headers") if name in given}
    command = given.pop("command", ())
    cwd = given.pop("cwd", None)
    return McpEntry(
        command=split_command(command) if isinstance(command, str) else command,
        cwd=None if cwd is None else _beside(folder, cwd),
        options=given,
        **known,
    )
