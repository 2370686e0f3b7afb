"""
What an agent file stands for: the client, the tools and the backend are made; nothing is sent.

`config/agent_file.py` reads and checks the file; here the code of its tools runs, and secrets are
looked up where the file says that they are.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from loom.agent.backend import Backend
from loom.agent.backend_tools import backend_tools
from loom.client.llm import Llm
from loom.client.tool_import import import_tools
from loom.config.agent_file import AgentFile, BackendEntry, McpEntry, ToolRules, load_agent_file
from loom.config.load import load_settings
from loom.config.secrets import is_reference, resolve_reference
from loom.core.messages import ToolCall
from loom.core.secret import Secret
from loom.shuttle.permission import Approval, Permissions, Verdict
from loom.shuttle.source import ToolSource
from loom.shuttle.tool import Tool

__all__ = ["parts_from_file", "tools_from_file"]

_OF_THE_AGENT = frozenset({
    "backend", "clock", "context", "dice", "limits", "llm", "name", "options", "permissions",
    "sessions", "system_prompt", "tools",
})  # fmt: skip


def parts_from_file(source: str | Path | AgentFile, changes: Mapping[str, Any]) -> dict[str, Any]:
    """
    The arguments of the agent that a file describes.

    Args:
        source: The file, or what `load_agent_file` read of it.
        changes: What is taken instead of the file's: arguments of `AsyncAgent` (`sessions`,
            `limits`, `tools`, ...), and of the client (`model`, `sim`, `ledger`, `retry`, ...).
            `permissions` stands beside the file's: what that denies stays denied, and what it wants
            a person to approve is asked of `permissions.ask`.

    Returns:
        Arguments of `AsyncAgent`; the client is closed with the agent.

    Raises:
        ConfigInvalid: If the file is not as it must be, or a tool of it cannot be imported.
        InvalidAPIKey: If there is no key where it should be.
        TypeError: If a name of `changes` is none of these.
    """
    file = source if isinstance(source, AgentFile) else load_agent_file(source)
    given = {name: value for name, value in changes.items() if name in _OF_THE_AGENT}
    around = {name: value for name, value in changes.items() if name not in _OF_THE_AGENT}
    # Before the client: what is wrong with a tool is found without a key.
    tools = given["tools"] if "tools" in given else tools_from_file(file)
    backend = given["backend"] if "backend" in given else _backend(file.backend)
    own = _approvals(tools, backend)
    given["permissions"] = _permissions(file.permissions, given.get("permissions"), own)
    said = {
        "system_prompt": file.system_prompt,
        "sessions": file.sessions,
        "limits": file.limits,
        "context": file.context,
        "name": file.name,
    }
    every = {**said, **given, "tools": tools, "backend": backend}
    if "llm" in given:
        if around:
            raise TypeError(f"llm= is a whole client: it does not take {min(around)!r} beside it")
        return every
    return {**every, "llm": _llm(file, around)}


def tools_from_file(file: AgentFile) -> list[Tool | ToolSource]:
    """
    Import the tools of a file; its servers are not started yet.

    Args:
        file: What was read.

    Returns:
        Tools, and sources of tools, in the order of the file.

    Raises:
        ConfigInvalid: If one cannot be imported, or a secret is not where it should be.
    """
    found: list[Tool | ToolSource] = []
    for entry in file.tools:
        if isinstance(entry, McpEntry):
            found.append(_server(entry, file.folder))
        else:
            found += import_tools(entry, folder=file.folder)
    return found


def _llm(file: AgentFile, changes: Mapping[str, Any]) -> Llm:
    from loom.client.facts import provider  # noqa: PLC0415 - heavy, and `llm=` needs none of it

    said = {
        "model": file.model,
        "base_url": file.base_url,
        "temperature": file.temperature,
        "max_tokens": file.max_tokens,
        "fallback": list(file.fallback) or None,
        "budget": file.budget,
        "rate_limit": file.rate_limit,
        "sim": file.sim,
        # A budget is the agent's own, whoever else writes the same ledger.
        "client_name": file.name,
    }
    given = {**{name: value for name, value in said.items() if value is not None}, **changes}
    given.setdefault("sim", load_settings().sim)
    if given["sim"]:
        # The simulator has its own address and key.
        given.pop("base_url", None)
        given.pop("api_key", None)
    elif file.api_key is not None and "api_key" not in given:
        given["api_key"] = resolve_reference(file.api_key, folder=file.folder).secret
    model = given.pop("model", None)
    client = provider(file.provider if model is None else f"{file.provider}:{model}", **given)
    return msgspec.structs.replace(client.as_llm(), close=client.aclose)


def _backend(entry: BackendEntry | None) -> Backend | None:
    if entry is None:
        return None
    if entry.kind == "sqlite":
        from loom.agent.backend_sqlite import SQLiteBackend  # noqa: PLC0415 - sqlite3 costs 5 ms

        return SQLiteBackend(entry.path, read_only=not entry.write)
    from loom.agent.backend_files import FilesBackend  # noqa: PLC0415 - most agents have none

    return FilesBackend(entry.path, read_only=not entry.write)


def _server(entry: McpEntry, folder: Path) -> ToolSource:
    from loom.shuttle.mcp import mcp  # noqa: PLC0415 - most agents have none

    return mcp(
        entry.url or entry.command,
        env=_secrets(entry.env, folder) or None,
        headers=_secrets(entry.headers, folder) or None,
        cwd=entry.cwd,
        **entry.options,
    )


def _secrets(values: Mapping[str, str], folder: Path) -> dict[str, str | Secret]:
    return {
        name: resolve_reference(value, folder=folder).secret
        if is_reference(value, scheme=True)
        else value
        for name, value in values.items()
    }


def _approvals(tools: list[Tool | ToolSource], backend: Backend | None) -> dict[str, Verdict]:
    """What tools say themselves; those of servers say nothing."""
    every = [tool for tool in tools if isinstance(tool, Tool)]
    if backend is not None:
        every += backend_tools(backend)
    return {tool.name: getattr(tool, "approval", "allow") for tool in every}


def _permissions(
    rules: ToolRules, given: Permissions | None, own: Mapping[str, Verdict]
) -> Permissions:
    """The file's rules, and beside them the caller's."""
    given = given or Permissions()
    allowed = rules.allowed
    if given.allowed is not None:
        allowed = given.allowed if allowed is None else allowed & given.allowed
    if not rules.ask and not rules.deny:
        return Permissions(allowed=allowed, approve=given.approve, ask=given.ask)

    async def approve(call: ToolCall) -> Verdict:
        if call.name in rules.deny:
            return "deny"
        if given.approve is not None:
            return await _decided(given.approve, call)
        return "ask" if call.name in rules.ask else own.get(call.name, "allow")

    return Permissions(allowed=allowed, approve=approve, ask=given.ask)


async def _decided(hook: Approval, call: ToolCall) -> Verdict:
    if inspect.iscoroutinefunction(hook):
        answer = await hook(call)
    else:
        from asyncio import to_thread  # noqa: PLC0415 - asyncio brings ssl: 25 ms

        # As the executor does it: the loop never waits inside a stranger's code.
        answer = await to_thread(hook, call)
        if inspect.isawaitable(answer):
            answer = await answer
    if isinstance(answer, bool):
        return "allow" if answer else "deny"
    return answer  # type: ignore[no-any-return] # the executor looks at it once more
