"""What is shown of one turn of an agent, event by event."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence

import pytest

from loom.agent.events import AgentEvent, CallCompleted, Done, Summarised, ToolFinished, ToolStarted
from loom.agent.response import AgentResponse
from loom.cli.approve import Approver
from loom.cli.follow import Follower
from loom.cli.terminal import Terminal
from loom.client.agent import AsyncAgentStream
from loom.core.errors import LoomError, ServiceUnavailable
from loom.core.events import (
    Restarted,
    Sending,
    TextDelta,
    ThinkingDelta,
    Throttled,
    UsageReported,
)
from loom.core.messages import Message, TextPart, ThinkingPart, ToolCall
from loom.core.response import Choice, LLMResponse, Partial, Usage
from loom.shuttle.result import ToolResult

MODEL = "mistral-large-latest"
CALL = ToolCall("abcdefghi", "look", {"at": "it"})
USAGE = Usage(input_tokens=10, output_tokens=5, total_tokens=15)


def answer(text: str, *calls: ToolCall, reason: str = "stop") -> LLMResponse:
    thought = ThinkingPart((TextPart("hm"),), closed=True)
    message = Message.assistant((thought, TextPart(text)), tool_calls=calls)
    choice = Choice(message=message, finish_reason=reason)
    return LLMResponse(choices=(choice,), usage=USAGE, model=MODEL)


def done(*calls: LLMResponse, **more: object) -> AgentResponse:
    return AgentResponse(message=calls[-1].message, usage=USAGE, calls=calls, **more)  # type: ignore[arg-type] # a test's own


class Told:
    """Shows events, with what they leave on the two streams."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.terminal = Terminal()
        self.approver = Approver(self.terminal, None)
        self._capsys = capsys

    def follower(self, *, live: bool = True) -> Follower:
        said = [Message.user("some words")]
        return Follower(self.terminal, self.approver, model=MODEL, said=said, live=live)

    def follow(
        self, *events: AgentEvent | LoomError | Sequence[bool], live: bool = True
    ) -> tuple[str, str]:
        async def stream() -> AsyncGenerator[AgentEvent, None]:
            for event in events:
                if isinstance(event, LoomError):
                    raise event
                if isinstance(event, Sequence):
                    (self.approver.is_asking,) = event
                else:
                    yield event

        async def turn() -> None:
            await self.follower(live=live).follow(AsyncAgentStream(stream()))

        try:
            asyncio.run(turn())
        except LoomError as error:
            self.terminal.fail(error)
        return tuple(self._capsys.readouterr())  # type: ignore[return-value] # two texts


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    return Told(capsys)


def test_notices(told: Told) -> None:
    """What happens on the way is told, and is no part of the answer."""
    whole = answer("new")
    out, err = told.follow(
        Summarised(4),
        Sending(),
        Throttled(3.0),
        TextDelta("old"),
        Restarted("cut", "mistral", "other"),
        TextDelta("new"),
        CallCompleted(whole, USAGE),
        Done(done(whole)),
    )
    assert "old\nnew\n" == out
    for words in (
        "the first 4 messages were summarised to make room\n",
        "waiting 3.0 s for the rate limit\n",
        "warning: the answer begins anew with other\n",
    ):
        assert words in err


@pytest.mark.parametrize("live", [True, False])
def test_thoughts_are_shown_when_asked_for(told: Told, *, live: bool) -> None:
    """With -v, on standard error, once."""
    whole = answer("so")
    events = (
        ThinkingDelta("hm"),
        TextDelta("so"),
        CallCompleted(whole, USAGE),
        Done(done(whole)),
    )
    out, err = told.follow(*events, live=live)
    assert ("so\n", 0) == (out, err.count("hm"))
    told.terminal.verbose = 1
    out, err = told.follow(*events, live=live)
    assert ("so\n", 1) == (out, err.count("hm"))


def test_a_cut_answer_and_a_limit_are_warned_of(told: Told) -> None:
    """They stand beside the cost."""
    whole = answer("so", reason="length")
    _, err = told.follow(
        CallCompleted(whole, USAGE), Done(done(whole, stopped_by="deadline")), live=False
    )
    assert "warning: the answer was cut" in err
    assert "without further tools: the time for the turn is over" in err


def test_an_error_brings_text_that_was_in_no_event(told: Told) -> None:
    """What came with it is shown too, and what it cost so far."""
    error = ServiceUnavailable("gone", partial=Partial(text="half of it"))
    out, err = told.follow(Sending(), TextDelta("half"), error)
    assert "half of it\n" == out
    assert err.startswith(f"ended early · {MODEL} · about ")
    assert ("", False) == (
        told.follow(ServiceUnavailable("gone"))[0],
        "ended early" in told.follow(Sending(), ServiceUnavailable("gone"))[1],
    )


def test_nothing_is_written_into_a_question(told: Told) -> None:
    """Events wait while somebody is asked, and keep their order."""
    asked, whole = answer("", CALL), answer("so")
    _, err = told.follow(
        CallCompleted(asked, USAGE),
        [True],
        ToolStarted(CALL),
        [False],
        ToolFinished(ToolResult(call=CALL, content="x")),
        CallCompleted(whole, USAGE),
        Done(done(asked, whole)),
    )
    assert '-> look(at="it")' == err.splitlines()[0]
    assert "<- 0.0 s, 1 byte" == err.splitlines()[1]


@pytest.mark.parametrize("json_wanted", [False, True])
def test_ctrl_c(told: Told, capsys: pytest.CaptureFixture[str], *, json_wanted: bool) -> None:
    """The text, what was reported, and the tools so far."""
    follower = told.follower(live=False)
    result = ToolResult(call=CALL, content="x")
    for event in (
        Sending(), CallCompleted(answer("", CALL), USAGE), ToolStarted(CALL), ToolFinished(result),
        Sending(), TextDelta("half"), UsageReported(USAGE),
    ):  # fmt: skip
        follower._note(event)
        follower._show(event)
    capsys.readouterr()
    told.terminal.json = json_wanted
    follower.interrupted()
    out, err = capsys.readouterr()
    if json_wanted:
        partial = json.loads(err)["error"]["partial"]
        assert ("half", 1, 20) == (
            partial["text"], partial["calls"], partial["usage"]["input_tokens"],
        )  # fmt: skip
        assert ["look"] == [each["name"] for each in partial["tool_executions"]]
    else:
        assert "half\n" == out
        assert err.startswith(f"interrupted · {MODEL} · 2 calls, 1 tool · 20 in, 10 out · ")
