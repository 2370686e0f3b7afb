"""
The model of `benchmarks/agent.py`: it asks for tools, reads what they gave, and answers.

It prints its port and serves until its standard input is closed. The first part of a path says
which script it plays (`SCRIPTS`); how far a turn is, the messages after the last user's tell. What
it is sent must be legal, tool by tool and id by id, or it answers 400 and says why.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
from agent_contenders import ANSWER, SCRIPTS, SYSTEM, TOOL
from upstream import HEAD, STREAM_STARTS, Upstream, chunked, event, main, reply

__all__ = ["Asked", "Model", "problem_of"]

# What Mistral takes as the id of a call.
_ID = re.compile("[a-zA-Z0-9]{9}")
_USAGE = {"prompt_tokens": 120, "completion_tokens": 30, "total_tokens": 150}
# Where what differs from answer to answer is put in, each as wide as that.
_CITY, _CALL = "City-###", "#########"


class _Function(msgspec.Struct):
    name: str
    arguments: str | dict[str, Any] = ""


class _Call(msgspec.Struct):
    id: str
    function: _Function


class _Said(msgspec.Struct):
    role: str
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None


class _Offered(msgspec.Struct):
    function: _Function


class Asked(msgspec.Struct):
    """What the model reads of a request."""

    model: str
    messages: list[_Said]
    tools: list[_Offered] = []
    stream: bool | None = None


def problem_of(asked: Asked) -> str | None:
    """
    Say what is illegal about a request.

    Args:
        asked: The request.

    Returns:
        What; None when everything is as it must be: the tool offered, the system's message first,
        one result of its own for each call, directly after it, and someone waiting for an answer.
    """
    if [offered.function.name for offered in asked.tools] != [TOOL]:
        return "the tool is not offered"
    first, *said = asked.messages
    if first.role != "system" or SYSTEM not in _text(first):
        return "the system's message is not first"
    return _problem_of(said)


def _problem_of(messages: list[_Said]) -> str | None:
    unanswered: dict[str, str] = {}
    for said in messages:
        if said.role == "tool":
            city = unanswered.pop(said.tool_call_id or "", None)
            if city is None or f'"{city}"' not in _text(said):
                return f"no result for {city}, {said.tool_call_id}: {_text(said)!r}"
        elif unanswered:
            return f"calls without results: {', '.join(unanswered)}"
        for call in said.tool_calls or ():
            if _ID.fullmatch(call.id) is None or call.id in unanswered:
                return f"the id {call.id!r} is malformed, or there twice"
            unanswered[call.id] = _city(call.function.arguments)
    waits = messages[-1].role in ("user", "tool") and not unanswered
    return None if waits else "nobody waits for an answer"


def _text(said: _Said) -> str:
    if isinstance(said.content, list):
        return "".join(part.get("text", "") for part in said.content)
    return said.content or ""


def _city(arguments: str | dict[str, Any]) -> str:
    given = msgspec.json.decode(arguments) if isinstance(arguments, str) else arguments
    return str(given["location"])


def _calls(number: int) -> dict[str, Any]:
    arguments = json.dumps({"location": _CITY, "unit": "c"})
    function = {"name": TOOL, "arguments": arguments}
    return {
        "tool_calls": [
            {"id": _CALL, "index": index, "type": "function", "function": function}
            for index in range(number)
        ]
    }


def _plain(message: dict[str, Any], finish: str) -> bytes:
    whole = {"role": "assistant", "content": "", **message}
    choice = {"index": 0, "finish_reason": finish, "message": whole}
    body = {**HEAD, "usage": _USAGE, "object": "chat.completion", "choices": [choice]}
    return _pattern(reply(json.dumps(body).encode()))


def _streamed(deltas: list[dict[str, Any]], finish: str) -> bytes:
    *first, last = deltas
    events = [event({"role": "assistant", "content": ""}), *map(event, first)]
    events += [event(last, finish, usage=_USAGE), b"data: [DONE]\n\n", b""]
    return _pattern(STREAM_STARTS + chunked(*events))


def _pattern(written: bytes) -> bytes:
    """Make a bytes format of it; what is put in is as wide as what stood there."""
    written = written.replace(b"%", b"%%")
    return written.replace(_CITY.encode(), b"City-%03d").replace(_CALL.encode(), b"%09d")


# Each answer is written once, for those who stream and those who do not.
_ANSWERS = {
    False: _plain({"content": "".join(ANSWER)}, "stop"),
    True: _streamed([{"content": piece} for piece in ANSWER], "stop"),
}
_ASKING = {
    (number, streamed): _streamed([_calls(number)], "tool_calls")
    if streamed
    else _plain(_calls(number), "tool_calls")
    for number in {at_once for _, at_once, _ in SCRIPTS.values()}
    for streamed in (False, True)
}


class Model(Upstream):
    """One connection to a model that wants to know the weather."""

    _decode = msgspec.json.Decoder(Asked).decode
    _made = 0

    def answer(self, kind: str, body: bytes) -> None:
        """Ask for the next tools of the script, or answer."""
        tools, at_once, waits = SCRIPTS[kind]
        try:
            asked = self._decode(body)
            problem = problem_of(asked)
        except (msgspec.DecodeError, KeyError, TypeError) as error:
            problem = f"{type(error).__name__}: {error}"
        if problem is not None:
            why = {"object": "error", "message": problem, "type": "invalid_request_error"}
            self.write(reply(json.dumps(why).encode(), b"400 Bad Request"))
            return
        streamed = bool(asked.stream)
        if _results_so_far(asked.messages) >= tools:
            written = _ANSWERS[streamed] % ()
        else:
            written = _ASKING[at_once, streamed] % self._numbers(at_once)
        (self.later if waits else self.write)(written)

    @classmethod
    def _numbers(cls, calls: int) -> tuple[int, ...]:
        """Give each call an id of its own, and its city."""
        first = Model._made
        Model._made += calls
        return tuple(number for at in range(first, first + calls) for number in (at, at % 1000))


def _results_so_far(messages: list[_Said]) -> int:
    results = 0
    for said in reversed(messages):
        if said.role == "user":
            break
        results += said.role == "tool"
    return results


if __name__ == "__main__":
    main(Model)
