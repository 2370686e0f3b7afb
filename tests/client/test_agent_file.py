"""An agent from its file: who answers, what it may use, and what stands beside the file."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loom.agent.session_memory import MemorySessions
from loom.client.agent import AsyncAgent
from loom.client.agent_blocking import Agent
from loom.client.agent_file import agent_from_file
from loom.config.agent_file import load_agent_file
from loom.core.errors import BudgetExceeded, ConfigInvalid
from loom.core.messages import Message, ToolCall
from loom.providers.scripted import ScriptedProvider, ScriptItem
from loom.server.simulator import Simulator
from loom.shuttle.function import tool
from loom.shuttle.permission import Permissions

pytestmark = pytest.mark.anyio

CODE = '''
from loom import tool

@tool
def read(path: str) -> str:
    """Read."""
    return "text"

@tool
def write(path: str) -> str:
    """Write."""
    return "written"

@tool(approval="ask")
def wipe(path: str) -> str:
    """Wipe."""
    return "wiped"
'''
HEAD = "apiVersion: loom/v1\nkind: Agent\nmetadata: {name: shop}\nspec:\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stand somewhere else than where the file lies."""
    place = tmp_path / "agents"
    place.mkdir()
    (place / "shop_file_tools.py").write_text(CODE)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    yield place
    sys.modules.pop("shop_file_tools", None)


def written(folder: Path, *lines: str) -> Path:
    path = folder / "shop.yaml"
    path.write_text(
        HEAD + "".join(f"  {line}\n" for line in lines or ("model: mistral-small-latest",))
    )
    return path


def calls(*names: str) -> Message:
    each = tuple(ToolCall(f"abcdefgh{n}", name, {"path": "x"}) for n, name in enumerate(names))
    return Message.assistant(tool_calls=each)


async def results(agent: AsyncAgent) -> list[str]:
    async with agent:
        response = await agent.chat("do it")
    return [str(result.content) for result in response.tool_executions]


def llm(*script: ScriptItem) -> ScriptedProvider:
    return ScriptedProvider(script)


async def test_who_answers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Model, address, key, prompt and sampling are the file's; the agent closes its client."""
    provider = llm("Hello.")
    with Simulator(provider=provider) as simulator:
        monkeypatch.setenv("SHOP_KEY", simulator.api_key)
        path = written(
            folder,
            "model: mistral-small-latest",
            "api_key: env:SHOP_KEY",
            f"base_url: {simulator.base_url}",
            "system_prompt: Be brief.",
            "temperature: 0",
            "max_tokens: 9",
        )
        async with agent_from_file(path) as agent:
            assert ("shop", "mistral-small-latest") == (agent.name, agent.model)
            assert "Hello." == (await agent.chat("hi")).content
    (request,) = provider.requests
    assert ["Be brief.", "hi"] == [message.text for message in request.messages]
    assert (0, 9) == (request.sampling.temperature, request.sampling.max_tokens)


async def test_changes_win(folder: Path) -> None:
    """What the caller gives is taken instead of the file's."""
    path = written(folder, "model: mistral-small-latest", "api_key: env:NOT_THERE", "max_tokens: 9")
    async with agent_from_file(path, sim=True, model="mistral-large-latest", name="mine") as agent:
        assert ("mine", "mistral-large-latest") == (agent.name, agent.model)
        assert (await agent.chat("Say hello")).content


async def test_another_llm_takes_the_clients_place(folder: Path) -> None:
    """Then no key is looked for; arguments of the client have nothing to say."""
    path = written(folder, "api_key: env:NOT_THERE")
    async with agent_from_file(path, llm=llm("Hello.")) as agent:
        assert "Hello." == (await agent.chat("hi")).content
    with pytest.raises(TypeError, match="'sim'"):
        agent_from_file(path, llm=llm("x"), sim=True)
    with pytest.raises(TypeError, match="wrong"):
        agent_from_file(path, sim=True, wrong=1)


async def test_a_missing_key_is_named(folder: Path) -> None:
    """The place where it should be, and nothing else is asked."""
    with pytest.raises(ConfigInvalid, match="env:NOT_THERE"):
        agent_from_file(written(folder, "api_key: env:NOT_THERE"))


async def test_tools_lie_beside_the_file(folder: Path) -> None:
    """Modules and paths are looked for where the file is."""
    path = written(folder, 'tools: ["shop_file_tools:read", "shop_file_tools.py:write"]')
    async with agent_from_file(path, llm=llm("x")) as agent:
        assert ["read", "write"] == [spec.name for spec in await agent.tools()]
    with pytest.raises(ConfigInvalid, match="did you mean 'read'"):
        agent_from_file(written(folder, 'tools: ["shop_file_tools:reed"]'), llm=llm("x"))


async def test_a_server_is_a_source_of_tools(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its secrets come from where the file says; it is not started before it is used."""
    monkeypatch.setenv("SHOP_TOKEN", "a-secret-of-the-shop")
    entry = (
        "tools: [{mcp: {command: nothing-here, env: {API_TOKEN: 'env:SHOP_TOKEN', MODE: fast}}}]"
    )
    async with agent_from_file(written(folder, entry), llm=llm("x")) as agent:
        with pytest.raises(ConfigInvalid, match="nothing-here") as caught:
            await agent.tools()
    assert "a-secret-of-the-shop" not in str(caught.value)
    with pytest.raises(ConfigInvalid, match="env:NOT_THERE"):
        agent_from_file(written(folder, entry.replace("SHOP_TOKEN", "NOT_THERE")), llm=llm("x"))


@pytest.mark.parametrize(
    ("entry", "names"),
    [
        ("backend: sqlite:shop.db", {"execute_query"}),
        ("backend: {at: sqlite:shop.db, write: true}", {"execute_query", "execute_statement"}),
        ("backend: files:data", {"read_file"}),
        ("backend: {at: files:data, write: true}", {"read_file", "write_file"}),
    ],
)
async def test_backends(entry: str, names: set[str], folder: Path) -> None:
    """A database or a folder beside the file; it may write only where the file says so."""
    sqlite3.connect(folder / "shop.db").executescript("CREATE TABLE t (a)").connection.close()
    (folder / "data").mkdir()
    every = {"execute_query", "execute_statement", "read_file", "write_file"}
    async with agent_from_file(written(folder, entry), llm=llm("x")) as agent:
        assert names == every & {spec.name for spec in await agent.tools()}


RULES = (
    'tools: ["shop_file_tools"]',
    "permissions: {ask: [write], deny: [read]}",
)


@pytest.mark.parametrize(
    ("permissions", "expected"),
    [
        (
            None,
            ["error: permission denied", "error: permission denied", "error: permission denied"],
        ),
        ("asks", ["error: permission denied", "written", "wiped"]),
        ("all", ["error: permission denied", "written", "wiped"]),
        ("blocking", ["error: permission denied", "written", "wiped"]),
        ("none", ["error: permission denied"] * 3),
    ],
)
async def test_rules_stand_beside_the_callers(
    permissions: str | None, expected: list[str], folder: Path
) -> None:
    """What the file denies stays denied; for the rest a person, or the caller's hook, decides."""
    asked: list[str] = []

    async def person(call: ToolCall) -> bool:
        asked.append(call.name)
        return True

    async def allow(call: ToolCall) -> bool:
        del call
        return True

    kinds: dict[str | None, dict[str, Any]] = {
        None: {},
        "asks": {"permissions": Permissions(ask=person)},
        "all": {"permissions": Permissions(approve=allow)},
        "blocking": {"permissions": Permissions(approve=lambda _: True)},
        "none": {"permissions": Permissions(approve=lambda _: "deny")},
    }
    script = (calls("read", "write", "wipe"), "Done.")
    agent = agent_from_file(written(folder, *RULES), llm=llm(*script), **kinds[permissions])
    found = await results(agent)
    assert [True] * 3 == [text.startswith(each) for text, each in zip(found, expected, strict=True)]
    assert (["write", "wipe"] if permissions == "asks" else []) == asked


async def test_allowed_tools_are_those_of_both(folder: Path) -> None:
    """The model is told of no other."""
    path = written(folder, RULES[0], "permissions: {allowed: [read, write]}")
    async with agent_from_file(path, llm=llm("x")) as agent:
        assert ["read", "write"] == [spec.name for spec in await agent.tools()]
    own = Permissions(allowed=frozenset({"write", "wipe"}))
    async with agent_from_file(path, llm=llm("x"), permissions=own) as agent:
        assert ["write"] == [spec.name for spec in await agent.tools()]


async def test_other_tools_may_take_their_place(folder: Path) -> None:
    """`tools` of the caller replace the file's, whose modules are not imported."""

    @tool
    def only() -> None:
        """Nothing."""

    path = written(folder, 'tools: ["not_there"]')
    async with agent_from_file(path, llm=llm("x"), tools=[only]) as agent:
        assert ["only"] == [spec.name for spec in await agent.tools()]


async def test_sessions_and_limits(folder: Path) -> None:
    """Where conversations are kept, and how far one turn may go."""
    path = written(
        folder, RULES[0], "sessions: kept.db", "limits: {max_turns: 1}", "context: error"
    )
    async with agent_from_file(path, llm=llm("One.")) as agent:
        response = await agent.chat("hi", session="ann")
    assert ("ann", True) == (response.session, (folder / "kept.db").is_file())
    store = MemorySessions()
    async with agent_from_file(path, llm=llm("One."), sessions=store) as agent:
        await agent.chat("hi", session="bob")
    assert await store.info("bob") is not None


async def test_the_budget_is_the_agents(folder: Path) -> None:
    """A call that does not fit is refused before it is sent."""
    path = written(folder, "model: mistral-large-latest", "budget: 0.000001")
    async with agent_from_file(path, sim=True) as agent:
        with pytest.raises(BudgetExceeded, match="client 'shop'"):
            await agent.chat("hi")


async def test_what_was_read_can_be_changed_first(folder: Path) -> None:
    """The value of a file does as well as its path."""
    file = load_agent_file(written(folder))
    async with agent_from_file(file, llm=llm("Hello.")) as agent:
        assert "shop" == agent.name


def test_the_blocking_twin(folder: Path) -> None:
    """`Agent.from_file` and `AsyncAgent.from_file` make the same."""
    with Agent.from_file(written(folder), llm=llm("Hello.")) as agent:
        assert "Hello." == agent.chat("hi").content
    assert isinstance(AsyncAgent.from_file(written(folder), llm=llm("x")), AsyncAgent)
