"""The judge of the failover scenarios finds what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import msgspec
import pytest
from tests.client.failover import Got, Played, play
from tests.client.failover_judge import TEXT, grade

from loom import InvalidRequest, Message, Restarted
from loom.core.response import Choice

pytestmark = pytest.mark.anyio

replace = msgspec.structs.replace


def with_call(played: Played, **changes: object) -> Played:
    return replace(played, calls=(replace(played.calls[0], **changes), *played.calls[1:]))


def answer_of(got: Got, **changes: object) -> dict[str, object]:
    assert got.response is not None
    return {"response": replace(got.response, **changes)}


def cut(played: Played) -> Played:
    message = Message.assistant(TEXT[:200])
    choice = Choice(message=message, finish_reason="stop")
    return with_call(played, **answer_of(played.calls[0], choices=(choice,)))


def mixed(played: Played) -> Played:
    events = played.calls[0].events
    return with_call(played, events=tuple(e for e in events if not isinstance(e, Restarted)))


def hung(played: Played) -> Played:
    return with_call(played, response=None)


def masked(played: Played) -> Played:
    return with_call(played, response=None, error=InvalidRequest("no prefill"))


def a_bug(played: Played) -> Played:
    return with_call(played, response=None, error=KeyError("choices"))


def hammered(played: Played) -> Played:
    seen = played.calls[0].primary
    return with_call(played, primary=(*seen, seen[-1]))


def too_soon(played: Played) -> Played:
    *early, last = played.calls[0].primary
    last = replace(last, at=last.at - timedelta(seconds=1))
    return with_call(played, primary=(*early, last))


def prefilled(played: Played) -> Played:
    (entry,) = played.calls[0].fallback
    body = msgspec.json.decode(entry.body)
    body["messages"].append({"role": "assistant", "content": "The loom", "prefix": True})
    return with_call(played, fallback=(replace(entry, body=msgspec.json.encode(body)),))


def misnamed(played: Played) -> Played:
    return with_call(played, **answer_of(played.calls[0], model="mistral-large-latest"))


def billed(played: Played) -> Played:
    response = played.calls[0].response
    assert response is not None
    usage = replace(response.usage, input_tokens=response.usage.input_tokens * 2)
    return with_call(played, **answer_of(played.calls[0], usage=usage))


def held(played: Played) -> Played:
    return with_call(played, permits=1)


def left_open(played: Played) -> Played:
    return replace(played, sockets=1)


def not_hung_up(played: Played) -> Played:
    return replace(played, unended=1)


@pytest.mark.parametrize(
    ("scenario", "spoil", "why"),
    [
        ("FB01", too_soon, "a gap of"),
        ("FB06", hammered, "the primary saw 2 requests"),
        ("FB08", cut, "a wrong answer as a success"),
        ("FB08", mixed, "mixed text"),
        ("FB08", hung, "it hung"),
        ("FB14", masked, "another error hides the first one"),
        ("FB10", a_bug, "no error of the library's"),
        ("FB14", prefilled, "the messages were changed"),
        ("FB16", misnamed, "is named"),
        ("FB16", billed, "usage is not that of the answer"),
        ("FB09", held, "1 connections are held"),
        ("FB09", left_open, "1 sockets are open"),
        ("FB09", not_hung_up, "1 requests are still answered"),
    ],
)
async def test_a_fault_is_found(scenario: str, spoil: Callable[[Played], Played], why: str) -> None:
    """What was right and is spoilt in one place fails, and the reason says where."""
    right = await play(scenario, "rescue", "stream")

    spoilt = grade(spoil(right))

    assert "pass" == grade(right).word
    assert "fail" == spoilt.word
    assert why in spoilt.why
