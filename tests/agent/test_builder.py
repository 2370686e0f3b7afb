"""The builder: every `with_`, errors gathered, the last of two wins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loom import (
    AsyncMistral,
    BudgetExceeded,
    ConfigInvalid,
    InvalidAPIKey,
    Message,
    Mistral,
    RateLimit,
    RetryPolicy,
    ToolCall,
    tool,
)
from loom.agent.backend_sqlite import SQLiteBackend
from loom.agent.limits import AgentLimits
from loom.agent.session_memory import MemorySessions
from loom.client.agent import AsyncAgent
from loom.client.agent_blocking import Agent
from loom.client.builder import AgentBuilder
from loom.layers.breaker import Breaker
from loom.providers.scripted import ScriptedProvider
from loom.server.simulator import Simulator
from loom.shuttle.permission import Permissions

KEY = "canary-not-a-real-key"


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def scripted(*script: Any) -> ScriptedProvider:
    return ScriptedProvider(script or ("Hi.",), model="mistral-small-latest")


def test_the_page_of_the_reference() -> None:
    """`with_mistral_llm(key)` gives an agent of the default model."""
    with AgentBuilder().with_mistral_llm(KEY).build() as agent:
        assert isinstance(agent, Agent)
        assert "mistral-large-latest" == agent.model


def test_a_custom_model() -> None:
    """The other line of the page."""
    builder = AgentBuilder().with_mistral_llm_custom_model(KEY, "mistral-small-latest")
    with builder.build() as agent:
        assert "mistral-small-latest" == agent.model


def test_openai_is_one_line() -> None:
    """Migration is one changed line, in both directions."""
    with AgentBuilder().with_openai_llm(KEY, "gpt-4.1").build() as agent:
        assert "gpt-4.1" == agent.model


@pytest.mark.parametrize("key", ["", "  "])
def test_an_empty_key_is_no_key(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not looked for elsewhere: who gives an empty key meant to give one."""
    monkeypatch.setenv("MISTRAL_API_KEY", "another-key")
    with pytest.raises(InvalidAPIKey, match=r"^API key is required"):
        AgentBuilder().with_mistral_llm(key).build()


def test_no_key_at_all() -> None:
    """None looks in every place, and says what to do when there is none."""
    with pytest.raises(InvalidAPIKey, match=r"^API key is required"):
        AgentBuilder().with_mistral_llm().build()


def test_nobody_who_answers() -> None:
    """An agent needs a model."""
    with pytest.raises(ConfigInvalid, match=r"^LLM provider is required"):
        AgentBuilder().with_tools(add).build()


def test_errors_are_gathered() -> None:
    """Everything that is wrong is said at once."""
    with pytest.raises(ConfigInvalid) as caught:
        AgentBuilder().with_mistral_llm("").with_tools(add, add).build()
    assert "API key is required" in caught.value.message
    assert "same name" in caught.value.message


def test_nothing_is_looked_up_before_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """A builder can be made where there is no key yet."""
    builder = AgentBuilder().with_mistral_llm()
    monkeypatch.setenv("MISTRAL_API_KEY", KEY)
    builder.build().close()


def test_the_last_of_two_wins() -> None:
    """A second provider takes the first one's place; tools add up."""
    builder = AgentBuilder().with_mistral_llm("").with_llm(scripted("Hi."))
    with builder.build() as agent:
        assert "Hi." == agent.chat("?").content

    @tool
    def other() -> None:
        """Do nothing."""

    with AgentBuilder().with_llm(scripted()).with_tools(add).with_tools(other).build() as agent:
        assert ["add", "other"] == [spec.name for spec in agent.tools()]


def test_a_client_stays_its_owners() -> None:
    """A client that was given is open after its agent is closed."""
    with Simulator() as sim, Mistral(sim.api_key, base_url=sim.base_url) as client:
        AgentBuilder().with_llm(client).build().close()
        assert client.chat("Hello").content


def test_what_no_model_can_answer_is_refused() -> None:
    """Something that is no provider is named."""
    with pytest.raises(ConfigInvalid, match=r"LLM provider is required.*not int"):
        AgentBuilder().with_llm(7).build()  # type: ignore[arg-type]  # it is what is tested


def test_a_bare_provider_has_no_layers() -> None:
    """A budget needs a client, and nothing pretends to keep one."""
    with pytest.raises(ConfigInvalid, match="'budget' needs a client"):
        AgentBuilder().with_llm(scripted()).with_budget("1").build()


def test_everything_at_once(tmp_path: Path) -> None:
    """Each `with_` takes effect, against a strict Mistral."""
    import sqlite3

    connection = sqlite3.connect(tmp_path / "shop.db")
    connection.execute("create table orders (id integer, city text)")
    connection.execute("insert into orders values (1, 'Lyon')")
    connection.commit()
    connection.close()
    call = ToolCall("abcdefgh1", "add", {"a": 1, "b": 2})
    script = scripted(Message.assistant(tool_calls=(call,)), "Three.")
    with Simulator(provider=script) as sim:
        builder = (
            AgentBuilder()
            .with_llm(AsyncMistral(sim.api_key, base_url=sim.base_url))
            .with_tools(add)
            .with_backend(SQLiteBackend(tmp_path / "shop.db"))
            .with_system_prompt("You count.")
            .with_session_store(MemorySessions())
            .with_name("counter")
            .with_options(temperature=0.0)
            .with_limits(AgentLimits(max_turns=3))
            .with_permissions(Permissions())
            .with_context("summarise")
            .with_budget("5")
            .with_ledger(tmp_path / "calls.db")
            .with_rate_limit(RateLimit.starter())
            .with_circuit_breaker()
            .with_circuit_breaker(Breaker())
            .with_retry(RetryPolicy.robust())
        )
        with builder.build() as agent:
            response = agent.chat("One and two?", session="ann")
        assert "Three." == response.content
        assert "counter" == agent.name
        first = script.requests[0]
    assert 0.0 == first.sampling.temperature
    assert "You count." in first.messages[0].text
    assert "orders" in first.messages[0].text
    assert {"add"} < {spec.name for spec in first.tools}
    assert (tmp_path / "calls.db").exists()


def test_a_budget_is_kept() -> None:
    """A turn that may cost more than there is is refused before anything is sent."""
    with Simulator() as sim, Mistral(sim.api_key, base_url=sim.base_url) as client:
        with (
            AgentBuilder().with_llm(client).with_budget("0.000001").build() as agent,
            pytest.raises(BudgetExceeded),
        ):
            agent.chat("Hello")
        assert 0 == len(sim.journal.entries())


@pytest.mark.anyio
async def test_build_async() -> None:
    """The same for asyncio."""
    async with AgentBuilder().with_llm(scripted("Hi.")).build_async() as agent:
        assert isinstance(agent, AsyncAgent)
        assert "Hi." == (await agent.chat("?")).content


def test_a_key_of_the_keyring(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The entry is found by its name under the service `loom`; a missing one is named."""
    import keyring
    from keyrings.alt.file import PlaintextKeyring  # type: ignore[import-untyped]  # it has none

    ring = PlaintextKeyring()
    ring.file_path = str(tmp_path / "keyring.cfg")
    before = keyring.get_keyring()
    keyring.set_keyring(ring)
    try:
        keyring.set_password("loom", "mistral_key", KEY)
        with AgentBuilder().with_mistral_llm_from_keyring("mistral_key").build() as agent:
            assert "mistral-large-latest" == agent.model
        with pytest.raises(InvalidAPIKey, match="'other_key'") as caught:
            AgentBuilder().with_mistral_llm_from_keyring("other_key").build()
        assert "no such entry" in caught.value.message
    finally:
        keyring.set_keyring(before)


def test_a_machine_without_a_keyring() -> None:
    """A headless machine is told what to do instead."""
    import keyring
    from keyring.backends.fail import Keyring

    before = keyring.get_keyring()
    keyring.set_keyring(Keyring())  # type: ignore[no-untyped-call]  # its author wrote none
    try:
        with pytest.raises(InvalidAPIKey, match="this machine has no keyring") as caught:
            AgentBuilder().with_mistral_llm_from_keyring("mistral_key").build()
    finally:
        keyring.set_keyring(before)
    assert "MISTRAL_API_KEY" in caught.value.hint
