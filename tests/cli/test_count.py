"""`looms count`, `looms quote`, `--dry-run` and `--max-cost`: before anything is sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from loom.client.blocking import Mistral
from loom.core.request import ChatRequest
from loom.testing import FakeReply, FakeTransport

if TYPE_CHECKING:
    from tests.cli.conftest import Run

    from loom.providers.scripted import ScriptedProvider

    Serve = Callable[..., ScriptedProvider]

CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Look."},
    {"role": "assistant", "content": "I see a chair."},
    {"role": "user", "content": "And?"},
]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


@pytest.fixture
def client() -> Iterator[Mistral]:
    with Mistral("a-key", transport=FakeTransport(FakeReply.of(b"{}"))) as client:
        yield client


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """What only counts needs no key."""
    for name in ("MISTRAL_API_KEY", "LOOM_LLM_MISTRAL_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def asked_nothing(looms: Run, serve: Serve) -> Iterator[Run]:
    """Run commands beside a server that must not be asked."""
    provider = serve("never")
    yield looms
    assert [] == provider.requests


class TestCount:
    """The number, and where it comes from."""

    def test_the_number_alone_is_on_stdout(self, asked_nothing: Run, client: Mistral) -> None:
        """As the library counts; no key is needed."""
        code, out, _ = asked_nothing("count", "Why is the sky blue?")
        assert (0, f"{client.count('Why is the sky blue?').tokens}\n") == (code, out)

    def test_json(self, looms: Run, client: Mistral) -> None:
        """Tokens, model, and whether it is an estimate."""
        code, out, err = looms("count", "--json", "-m", "mistral-small-latest", "Why?")
        counted = client.count("Why?", model="mistral-small-latest")
        assert (0, "") == (code, err)
        assert {
            "model": "mistral-small-latest",
            "tokens": counted.tokens,
            "estimated": counted.estimated,
            "reason": counted.reason,
        } == json.loads(out)

    def test_piped_text_comes_first(self, looms: Run, client: Mistral) -> None:
        """As in `looms chat`: what is counted is what would be sent."""
        _, out, _ = looms("count", "-s", "Be brief.", "summarise", stdin=b"the notes\n")
        messages: list[Any] = [CONVERSATION[0], "the notes\n\nsummarise"]
        assert f"{client.count(messages).tokens}\n" == out

    @pytest.mark.parametrize("whole", [False, True])
    def test_a_file_of_messages(self, looms: Run, client: Mistral, *, whole: bool) -> None:
        """A list of messages, or a whole request with tools and a model."""
        request = {"model": "mistral-small-latest", "messages": CONVERSATION, "tools": [TOOL]}
        Path("it.json").write_text(
            json.dumps({**request, "stream": True} if whole else CONVERSATION)
        )
        _, out, _ = looms("count", "--json", "--messages", "it.json")
        expected = client.count(
            CONVERSATION,
            [TOOL] if whole else None,
            model="mistral-small-latest" if whole else "mistral-large-latest",
        )
        assert expected.tokens == json.loads(out)["tokens"]

    def test_what_is_written_follows_the_file(self, looms: Run, client: Mistral) -> None:
        """The file's conversation goes on with the prompt."""
        Path("it.json").write_text(json.dumps(CONVERSATION[:3]))
        _, out, _ = looms("count", "--messages", "it.json", "And?")
        assert f"{client.count(CONVERSATION).tokens}\n" == out

    @pytest.mark.parametrize(
        ("content", "code", "part"),
        [
            (None, 2, "cannot read 'it.json'"),
            (b"{", 2, "'it.json' is not JSON"),
            (b"\xff", 2, "'it.json' is not JSON"),
            (b"7", 2, "must hold a list of messages"),
            (b'{"model": "x"}', 2, "must hold a list of messages"),
            (b'[{"role": "nobody", "content": "x"}]', 5, "messages[0]"),
            (b"[]", 5, "at least one message"),
        ],
    )
    def test_a_bad_file_is_one_line(
        self, looms: Run, content: bytes | None, code: int, part: str
    ) -> None:
        """What is wrong, and where."""
        if content is not None:
            Path("it.json").write_bytes(content)
        done = looms("count", "--messages", "it.json")
        assert (code, "") == (done.code, done.out)
        assert part in done.err
        assert "Traceback" not in done.err

    @pytest.mark.parametrize("command", ["count", "quote"])
    def test_nothing_to_count_is_wrong_usage(self, looms: Run, command: str) -> None:
        """There must be a prompt."""
        done = looms(command)
        assert (2, "") == (done.code, done.out)
        assert "there is no prompt" in done.err

    @pytest.mark.parametrize("command", ["count", "quote"])
    def test_a_misspelt_model_is_named(self, looms: Run, command: str) -> None:
        """With the exit code for models."""
        assert 6 == looms(command, "-m", "mistral-large-latset", "hi").code


class TestQuote:
    """The bill before the call."""

    def test_one_line(self, asked_nothing: Run, client: Mistral) -> None:
        """Tokens and dollars; no key is needed."""
        code, out, _ = asked_nothing("quote", "--max-tokens", "100", "Why?")
        quote = client.quote("Why?", max_tokens=100)
        assert 0 == code
        assert f"{quote.input_tokens:,} in, ${quote.input_cost_usd:.6f}" in out
        assert f"at most 100 out, ${quote.max_cost_usd:.6f} in all\n" in out

    def test_json_has_exact_decimals(self, looms: Run) -> None:
        """Money as decimal strings, and the row that it comes from."""
        _, out, _ = looms("quote", "--json", "--as-of", "2024-11", "Why?")
        quoted = json.loads(out)
        # 4 and 12 dollars per million tokens: 100 in and 200 out cost $0.0028.
        of_input = quoted["input_tokens"] * Decimal(4) / 1_000_000
        assert of_input == Decimal(quoted["input_cost_usd"])
        of_answer = quoted["max_output_tokens"] * Decimal(12) / 1_000_000
        assert of_input + of_answer == Decimal(quoted["max_cost_usd"])
        assert quoted["price"]["id"].startswith("mistral-large")

    def test_an_unknown_price_is_said(self, looms: Run) -> None:
        """And never taken for 0."""
        _, out, _ = looms("quote", "-m", "ft:own-model", "Why?")
        assert "cost unknown in all" in out

    def test_beyond_the_window_there_is_no_call_to_quote(self, looms: Run) -> None:
        """Both numbers, with the exit code of the error."""
        done = looms("quote", "--as-of", "2024-11", stdin=b"word " * 40_000)
        assert (5, "") == (done.code, done.out)
        assert "32768 tokens" in done.err


class TestDryRun:
    """Exactly what would be sent."""

    def test_the_body_is_on_stdout(self, asked_nothing: Run) -> None:
        """It can go to another program; tokens, room and cost stand on standard error."""
        code, out, err = asked_nothing("chat", "--dry-run", "-s", "Be brief.", "Why?")
        body = json.loads(out)
        assert 0 == code
        assert ["Be brief.", "Why?"] == [message["content"] for message in body["messages"]]
        assert "mistral-large-latest" == body["model"]
        assert "nothing was sent" in err
        assert "tokens are left in the window" in err

    def test_the_body_is_what_chat_sends(
        self, looms: Run, serve: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With the same words, without --dry-run."""
        words = ("--temperature", "0", "--max-tokens", "7", "--no-stream", "Why?")
        monkeypatch.delenv("LOOM_BASE_URL", raising=False)
        body = json.loads(looms("chat", "--dry-run", *words).out)
        provider = serve("yes")
        looms("chat", *words)
        sent: ChatRequest = provider.requests[0]
        assert (0, 7) == (body["temperature"], body["max_tokens"])
        assert (body["temperature"], body["max_tokens"], body["model"]) == (
            sent.sampling.temperature,
            sent.sampling.max_tokens,
            sent.model,
        )

    def test_json_is_the_whole_plan(self, looms: Run) -> None:
        """Body, repairs, quote, window and room in one object."""
        Path("it.json").write_text(
            json.dumps([*CONVERSATION[:3], {"role": "assistant", "content": ""}, *CONVERSATION[3:]])
        )
        _, out, err = looms("chat", "--dry-run", "--json", "--messages", "it.json")
        plan = json.loads(out)
        assert "" == err
        assert ["messages[3]: left out an assistant turn without text and calls"] == plan["repairs"]
        assert plan["window"] == (
            plan["room"] + plan["quote"]["input_tokens"] + plan["quote"]["max_output_tokens"]
        )
        assert 4 == len(plan["body"]["messages"])

    def test_repairs_are_shown(self, looms: Run) -> None:
        """What slides out of the window is one of them."""
        Path("it.json").write_text(
            json.dumps(
                [
                    {"role": "user", "content": "word " * 40_000},
                    {"role": "assistant", "content": "x"},
                ]
            )
        )
        words = ("chat", "--dry-run", "--as-of", "2024-11", "--messages", "it.json", "And?")
        assert 5 == looms(*words).code
        code, out, err = looms(*words, "--fit", "slide")
        assert 0 == code
        assert ["And?"] == [message["content"] for message in json.loads(out)["messages"]]
        assert "repair: left out the oldest turns, 2 of 3 messages" in err

    def test_with_sim_nothing_is_asked_either(self, looms: Run) -> None:
        """Not even the simulator."""
        code, out, _ = looms("chat", "--dry-run", "--sim", "-q", "Why?")
        assert 0 == code
        assert "Why?" == json.loads(out)["messages"][0]["content"]


def test_what_slid_out_is_said_beside_the_cost(looms: Run, serve: Serve) -> None:
    """Also for a call that is made; with --json it stands in the metadata."""
    provider = serve("yes", "yes")
    history = [{"role": "user", "content": "word " * 40_000}, {"role": "assistant", "content": "x"}]
    Path("it.json").write_text(json.dumps(history))
    words = ("chat", "--as-of", "2024-11", "--messages", "it.json", "--fit", "slide", "And?")
    code, out, err = looms(*words)
    assert (0, "yes\n") == (code, out)
    assert err.startswith("repair: left out the oldest turns, 2 of 3 messages")
    assert ["And?"] == [message.text for message in provider.requests[0].messages]
    answer = json.loads(looms(*words, "--json").out)
    assert answer["metadata"]["repairs"][0].startswith("left out the oldest turns")


class TestMaxCost:
    """Nothing is sent that may cost more."""

    def test_a_dearer_call_is_refused(self, asked_nothing: Run) -> None:
        """With the exit code of the budget, and the worst cost."""
        done = asked_nothing("chat", "--max-cost", "0.0001", "Why?")
        assert (4, "") == (done.code, done.out)
        assert "ERR_BUDGET_EXCEEDED" in done.err
        assert "more than --max-cost 0.0001" in done.err

    def test_a_cheaper_call_is_made(self, looms: Run, serve: Serve) -> None:
        """Up to the limit itself."""
        provider = serve("yes")
        code, out, _ = looms("chat", "--max-cost", "1", "Why?")
        assert (0, "yes\n", 1) == (code, out, len(provider.requests))

    def test_a_dry_run_keeps_the_limit_too(self, looms: Run) -> None:
        """It says what the call would say."""
        assert 4 == looms("chat", "--dry-run", "--max-cost", "0", "Why?").code

    def test_an_unknown_price_cannot_be_kept(self, asked_nothing: Run) -> None:
        """It is refused, and the way out is named."""
        done = asked_nothing("chat", "--max-cost", "1", "-m", "ft:own-model", "Why?")
        assert (4, "") == (done.code, done.out)
        assert "prices.toml" in done.err

    @pytest.mark.parametrize("amount", ["much", "-1", "nan", "inf", ""])
    def test_what_is_no_amount_is_wrong_usage(self, looms: Run, amount: str) -> None:
        """Nothing is guessed."""
        done = looms("chat", "--max-cost", amount, "Why?")
        assert 2 == done.code
        assert "US dollars" in done.err
