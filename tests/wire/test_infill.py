"""Requests to fill in the middle: both roles agree, and what has no field is refused."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.core.errors import InvalidRequest
from loom.core.messages import Message, TextPart
from loom.core.request import ChatRequest, ResponseFormat, Sampling, ToolSpec, Verbatim
from loom.wire.mistral.infill_dialect import InfillDialect

DIALECT = InfillDialect(strict=True)
GAP = ChatRequest(
    model="codestral-latest",
    messages=(Message.user("def f("),),
    extra={"suffix": "return a"},
    kind="fim",
)


@st.composite
def gaps(draw: st.DrawFn) -> ChatRequest:
    return msgspec.structs.replace(
        GAP,
        messages=(Message.user(draw(st.text(max_size=20))),),
        extra={"suffix": draw(st.text(max_size=20))},
        sampling=Sampling(
            temperature=draw(st.none() | st.floats(0, 1.5)),
            top_p=draw(st.none() | st.floats(0.1, 1)),
            max_tokens=draw(st.none() | st.integers(1, 99)),
            min_tokens=draw(st.none() | st.integers(0, 99)),
            random_seed=draw(st.none() | st.integers(0, 99)),
            stop=draw(st.none() | st.just("x") | st.just(("x", "y"))),
        ),
        stream=draw(st.booleans()),
        metadata=draw(st.none() | st.just({"a": "b"})),
    )


@given(gaps())
def test_the_server_reads_what_the_client_writes(request: ChatRequest) -> None:
    """A request goes over the wire and comes out as it was."""
    assert request == DIALECT.decode_request(DIALECT.encode_request(request).body)


def test_only_what_is_set_is_written() -> None:
    """No suffix where there is none; further fields go through as they are."""
    body = DIALECT.encode_request(msgspec.structs.replace(GAP, extra={"new": 1, "suffix": ""})).body
    assert {"model": "codestral-latest", "prompt": "def f(", "new": 1} == json.loads(body)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tools": (ToolSpec(name="t"),)}, "'tools'"),
        ({"response_format": ResponseFormat(type="json_object")}, "'response_format'"),
        ({"prediction": "x"}, "'prediction'"),
        ({"sampling": Sampling(n=2)}, "'n'"),
        ({"sampling": Sampling(presence_penalty=0.0)}, "'presence_penalty'"),
        ({"messages": ()}, "one prompt"),
        ({"messages": (Message.user("a"), Message.user("b"))}, "one prompt"),
        ({"messages": (Message(role="user", content=(TextPart("a"),)),)}, "one prompt"),
        ({"extra": {"suffix": object}}, "cannot be written as JSON"),
    ],
    ids=str,
)
def test_what_has_no_field_is_refused(changes: dict[str, Any], words: str) -> None:
    """Nothing that was asked for is left out silently."""
    with pytest.raises(InvalidRequest, match=words):
        DIALECT.encode_request(msgspec.structs.replace(GAP, **changes))


def test_it_is_a_dialect_of_its_own() -> None:
    """A body for this path stands for a request here, and not for one of a chat."""
    own = Verbatim(dialect="mistral-fim", body=b"{}", request=GAP)
    assert own.stands_for(GAP, DIALECT.name)
    assert not own.stands_for(GAP, "mistral")
