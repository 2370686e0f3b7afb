"""The order of turns: ours, mistral-common's validator, and the recordings between them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mistral_common.exceptions import MistralCommonException
from mistral_common.protocol.instruct.messages import (
    AssistantMessage,
    SystemMessage,
    ToolMessage,
    UserMessage,
)
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.protocol.instruct.validator import ValidationMode, get_validator
from mistral_common.tokens.tokenizers.base import TokenizerVersion
from tests.recorded import chat_exchanges, exchanges, needed

from loom.core.errors import InvalidRequest, LoomError
from loom.wire.mistral.strict import check_embeddings_request, check_request

Turn = dict[str, Any]

DECISIONS = Path(__file__).resolve().parents[2] / "docs" / "decisions.md"
KINDS = {
    "system": SystemMessage,
    "user": UserMessage,
    "assistant": AssistantMessage,
    "tool": ToolMessage,
}
THEIRS = get_validator(TokenizerVersion.v13, mode=ValidationMode.serving)

LEGAL = ("aaaaaaaa1", "bbbbbbbb2")
FOREIGN = ("call_0fypS1hVX", "toolu 1", "null", "short")
OUR_LAST_ROLE = "(or Assistant with prefix True)"
THEIR_LAST_ROLE = "(or Assistant with prefix)"

# Each is a row of docs/decisions.md, with the recording that proves it.
OPENING = "a history that opens with calls"
EMPTY = "an assistant turn without content and calls"
IDS = "ids of other forms"
SENTENCE = "the sentence about the last role"


def theirs(turns: list[Turn]) -> str | None:
    """What mistral-common says of a history; None when it lets it pass."""
    messages: list[Any] = [KINDS[turn["role"]](**turn) for turn in turns]
    try:
        THEIRS.validate_request(ChatCompletionRequest(model="m", messages=messages))
    except MistralCommonException as error:
        return error.message if str(error) == "" else str(error)
    return None


def ours(turns: list[Turn]) -> str | None:
    """What our check says of a history; None when it lets it pass."""
    try:
        check_request({"model": "m", "messages": turns})
    except InvalidRequest as error:
        assert error.http_status == 400
        return error.message.replace(OUR_LAST_ROLE, THEIR_LAST_ROLE)
    return None


def differences(turns: list[Turn]) -> Iterator[str]:
    """Why the two may judge a history differently."""
    if turns and (turns[0].get("tool_calls") or turns[0]["role"] == "tool"):
        yield OPENING
    for turn in turns:
        if turn["role"] == "assistant" and not turn.get("content") and not turn.get("tool_calls"):
            yield EMPTY
        if any(call["id"] in FOREIGN for call in turn.get("tool_calls") or ()):
            yield IDS
        if turn["role"] == "tool" and turn.get("tool_call_id") in FOREIGN:
            yield IDS


def without_differences(turns: list[Turn]) -> list[Turn]:
    """The same history with everything legal that the two judge differently."""
    ids = {foreign: f"legal{place:04}" for place, foreign in enumerate(FOREIGN)}
    changed: list[Turn] = []
    if OPENING in differences(turns):
        calls = turns[0]["role"] == "assistant"
        changed += [{"role": "user", "content": "x"}] if calls else []
        turns = turns if calls else turns[1:]
    for turn in turns:
        new = dict(turn)
        if new.get("tool_calls"):
            new["tool_calls"] = [
                {**call, "id": ids.get(call["id"], call["id"])} for call in new["tool_calls"]
            ]
        if "tool_call_id" in new:
            new["tool_call_id"] = ids.get(new["tool_call_id"], new["tool_call_id"])
        if new["role"] == "assistant" and not new.get("tool_calls"):
            new["content"] = new.get("content") or "x"
        changed.append(new)
    # What was the second turn may now open the history.
    return without_differences(changed) if OPENING in differences(changed) else changed


def calls(ids: st.SearchStrategy[str]) -> st.SearchStrategy[list[Turn]]:
    names = st.sampled_from(["weather", "a b", "x" * 65])
    name = st.just("weather") | names
    call = st.builds(
        lambda call_id, name: {"id": call_id, "function": {"name": name, "arguments": "{}"}},
        ids,
        name,
    )
    return st.lists(call, max_size=3)


IDS_OF_CALLS = st.sampled_from(LEGAL) | st.sampled_from(FOREIGN)
TURN: st.SearchStrategy[Turn] = st.one_of(
    st.just({"role": "user", "content": "x"}),
    st.just({"role": "system", "content": "x"}),
    st.fixed_dictionaries(
        {"role": st.just("assistant"), "content": st.sampled_from(["", "x"])},
        optional={"tool_calls": calls(IDS_OF_CALLS), "prefix": st.booleans()},
    ),
    st.fixed_dictionaries(
        {"role": st.just("tool"), "content": st.just("1"), "tool_call_id": IDS_OF_CALLS},
        optional={"name": st.sampled_from(["weather", "a b", ""])},
    ),
)


@st.composite
def histories(draw: st.DrawFn) -> list[Turn]:
    """Turns at random, and tool results that mostly belong to the calls before them."""
    turns: list[Turn] = []
    for turn in draw(st.lists(TURN, max_size=6)):
        turns.append(turn)
        turns.extend(
            {"role": "tool", "content": "1", "tool_call_id": call["id"]}
            for call in turn.get("tool_calls") or ()
            if draw(st.integers(0, 4))
        )
    return turns


@settings(max_examples=600)
@given(histories())
def test_both_judge_alike_where_no_difference_is_listed(turns: list[Turn]) -> None:
    """With the listed differences taken out, verdict and sentence are mistral-common's."""
    plain = without_differences(turns)

    assert theirs(plain) == ours(plain)


@settings(max_examples=600)
@given(histories())
def test_every_difference_is_listed(turns: list[Turn]) -> None:
    """Where the two disagree, one of the listed reasons applies."""
    if theirs(turns) != ours(turns):
        assert set(differences(turns)), (theirs(turns), ours(turns))


@pytest.mark.parametrize(
    ("reason", "turns", "verdict"),
    [
        (OPENING,
         [{"role": "assistant", "content": "", "tool_calls": [
             {"id": LEGAL[0], "function": {"name": "f", "arguments": "{}"}}]},
          {"role": "tool", "content": "1", "tool_call_id": LEGAL[0]}], None),
        (EMPTY,
         [{"role": "assistant", "content": ""}, {"role": "user", "content": "x"}],
         "Assistant message must have either content or tool_calls, but not none."),
        (IDS,
         [{"role": "user", "content": "x"},
          {"role": "assistant", "content": "", "tool_calls": [
             {"id": "call_0fypS1hVX", "function": {"name": "f", "arguments": "{}"}}]},
          {"role": "tool", "content": "1", "tool_call_id": "call_0fypS1hVX"}],
         "Tool call id was call_0fypS1hVX but must be a-z, A-Z, 0-9, with a length of 9."),
    ],
)  # fmt: skip
def test_each_listed_difference_is_one(reason: str, turns: list[Turn], verdict: str | None) -> None:
    """The list holds no reason that does not apply any more."""
    assert reason in set(differences(turns))
    assert verdict == ours(turns)
    assert verdict != theirs(turns)


def test_the_sentence_about_the_last_role_is_the_recorded_one() -> None:
    """The installed validator has shortened it; the API was heard with the longer one."""
    turns: list[Turn] = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    with pytest.raises(InvalidRequest) as caught:
        check_request({"model": "m", "messages": turns})

    assert THEIR_LAST_ROLE in (theirs(turns) or "")
    assert OUR_LAST_ROLE in caught.value.message


def test_the_differences_are_written_down() -> None:
    """The page of decisions has a row for each, and no other."""
    page = DECISIONS.read_text()
    table = page.partition("## Where the strict server differs from mistral-common")[2]
    rows = re.findall(r"^\| ([^|]+) \|", table.partition("\n## ")[0], re.MULTILINE)

    assert [OPENING, EMPTY, IDS, SENTENCE] == rows[1:]


def recorded_requests() -> list[tuple[str, int, dict[str, Any]]]:
    every = [(each.file, each.status, each.request) for each in chat_exchanges()]
    return [(file, status, request) for file, status, request in every if request]


def with_legal_ids(value: Any) -> Any:
    """Recorders redacted the ids of calls: nine alphanumerics in their place."""
    match value:
        case dict():
            return {
                name: f"{sum(map(ord, each)):09}"
                if name in ("id", "tool_call_id") and isinstance(each, str)
                else with_legal_ids(each)
                for name, each in value.items()
            }
        case list():
            return [with_legal_ids(each) for each in value]
    return value


def test_every_recorded_chat_passes() -> None:
    """What the API answered with 200, or refused only for its model, is let through."""
    needed()
    checked = 0
    for file, status, request in recorded_requests():
        body = with_legal_ids(request)
        if status == 200 or "error-400" in file:
            try:
                check_request(body)
            except LoomError as error:
                message = error.message
                # These the API refused too, for what the model does not take.
                assert status == 400, (file, message)
            checked += 1
    assert checked


def test_every_recorded_embedding_passes() -> None:
    """Accepted batches pass, the refused one is refused with the recorded body."""
    needed()
    checked = 0
    for exchange in exchanges():
        if exchange.request is None or "input" not in exchange.request:
            continue
        if "embed" not in str(exchange.request.get("model")):
            continue
        checked += 1
        try:
            check_embeddings_request(exchange.request)
        except InvalidRequest as error:
            assert exchange.status == 400, exchange.file
            assert error.message.encode() in exchange.body
    assert checked
