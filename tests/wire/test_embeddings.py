"""Requests for vectors and their replies: both roles of both dialects, and the recorded wire."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.recorded import Exchange, exchanges

from loom.core.embeddings import (
    EmbeddingDtype,
    EmbeddingsRequest,
    EmbeddingsResponse,
    as_chat,
    as_chat_response,
    from_chat,
    from_chat_response,
)
from loom.core.errors import InvalidRequest, LoomError, MalformedReply, RateLimited
from loom.core.response import LLMResponse, Usage
from loom.wire.chat_completions.dialect import ChatCompletionsDialect
from loom.wire.dialect import Dialect
from loom.wire.mistral.dialect import MistralDialect

MISTRAL, OPENAI = MistralDialect(), ChatCompletionsDialect()
BOTH = pytest.mark.parametrize("dialect", [MISTRAL, OPENAI], ids=["mistral", "openai"])
RECORDED = [each for each in exchanges() if each.kind == "embeddings" and each.status == 200]
ASKED = [each for each in RECORDED if each.request is not None]
TWO = EmbeddingsRequest(model="mistral-embed", texts=("a", "b"))
WHOLE: tuple[EmbeddingDtype, ...] = ("int8", "uint8", "binary", "ubinary")
USAGE = {"prompt_tokens": 3, "total_tokens": 3}

texts = st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=4).map(tuple)


@st.composite
def asked(draw: st.DrawFn, dtypes: Sequence[EmbeddingDtype] = ("float",)) -> EmbeddingsRequest:
    model = draw(st.sampled_from(["mistral-embed", "codestral-embed", "other"]))
    chosen = st.none() | st.integers(1, 3000)
    return EmbeddingsRequest(
        model=model,
        texts=draw(texts),
        # The others of Mistral's have one size alone.
        dimension=draw(chosen if model == "codestral-embed" else st.none()),
        dtype=draw(st.sampled_from(list(dtypes))),
        as_base64=draw(st.booleans()),
    )


def answered(request: EmbeddingsRequest, vectors: Sequence[Sequence[float]]) -> EmbeddingsResponse:
    usage = Usage(input_tokens=7, total_tokens=7)
    return EmbeddingsResponse(vectors=vectors, model=request.model, id="", usage=usage)


def narrow(number: float) -> float:
    """What four bytes hold of a number."""
    (held,) = struct.unpack("<f", struct.pack("<f", number))
    return float(held)


def reply(*vectors: object, **more: Any) -> bytes:
    rows = [{"embedding": each, "index": place} for place, each in enumerate(vectors)]
    return json.dumps({"data": rows, "model": "m", "usage": USAGE, **more}).encode()


def read(body: bytes, request: EmbeddingsRequest = TWO) -> EmbeddingsResponse:
    return MISTRAL.decode_embeddings_response(body, {}, request)


@given(asked(("float", *WHOLE)))
def test_mistrals_server_reads_what_the_client_writes(request: EmbeddingsRequest) -> None:
    """A request goes over the wire and comes out as it was."""
    body = MISTRAL.encode_embeddings_request(request).body
    assert request == MISTRAL.decode_embeddings_request(body)


@given(asked())
def test_openais_server_reads_what_the_client_writes(request: EmbeddingsRequest) -> None:
    """The same in OpenAI's words."""
    body = OPENAI.encode_embeddings_request(request).body
    assert request == OPENAI.decode_embeddings_request(body)


@BOTH
@given(data=st.data())
def test_the_client_reads_what_the_server_writes(dialect: Dialect, data: st.DataObject) -> None:
    """Numbers come to the last digit; base64 carries four bytes of each."""
    request = data.draw(asked())
    numbers = st.lists(st.floats(-1, 1), min_size=1, max_size=9)
    count = len(request.texts)
    vectors = data.draw(st.lists(numbers, min_size=count, max_size=count))
    body = dialect.encode_embeddings(answered(request, vectors), request)

    got = dialect.decode_embeddings_response(body, {}, request)

    keep = narrow if request.as_base64 else float
    assert [[keep(each) for each in vector] for vector in vectors] == list(map(list, got.vectors))
    assert (7, 7, False) == (got.usage.input_tokens, got.usage.total_tokens, got.usage.estimated)
    assert (request.model, body) == (got.model, got.raw_body)


@given(asked(WHOLE), st.data())
def test_whole_numbers_are_the_same_in_both_forms(
    request: EmbeddingsRequest, data: st.DataObject
) -> None:
    """A number of one byte is read alike from a list and from base64, and as a whole number."""
    count = len(request.texts)
    numbers = st.lists(st.floats(-1, 1), min_size=8, max_size=17)
    vectors = data.draw(st.lists(numbers, min_size=count, max_size=count))
    forms = [msgspec.structs.replace(request, as_base64=as_base64) for as_base64 in (False, True)]
    plain, packed = (
        MISTRAL.decode_embeddings_response(
            MISTRAL.encode_embeddings(answered(form, vectors), form), {}, form
        ).vectors
        for form in forms
    )
    assert list(map(list, plain)) == list(map(list, packed))
    assert {int} == {type(number) for vector in plain for number in vector}


@given(asked(("float", *WHOLE)))
def test_the_shape_of_a_chat_loses_nothing(request: EmbeddingsRequest) -> None:
    """What layers see of a request and of an answer is turned back into what it was."""
    response = answered(request, [[1.0]])
    assert request == from_chat(as_chat(request))
    assert response == from_chat_response(as_chat_response(response))


def test_an_answer_of_another_kind_holds_no_vectors() -> None:
    """Who answers a request for vectors with a chat is told so."""
    chat = LLMResponse(choices=(), usage=Usage(), model="m")
    with pytest.raises(MalformedReply, match="holds none"):
        from_chat_response(chat)


@pytest.mark.parametrize("exchange", RECORDED, ids=str)
def test_recorded_replies(exchange: Exchange) -> None:
    """Every number, the usage and the ids of each recording come out."""
    truth = json.loads(exchange.body)
    rows = sorted(truth["data"], key=lambda row: row["index"])
    request = EmbeddingsRequest(model=truth["model"], texts=("?",) * len(rows))

    got = MISTRAL.decode_embeddings_response(exchange.body, exchange.headers, request)

    assert [row["embedding"] for row in rows] == got.vectors
    assert truth["usage"]["prompt_tokens"] == got.usage.input_tokens
    assert truth["usage"]["total_tokens"] == got.usage.total_tokens
    assert (truth["model"], truth["id"]) == (got.model, got.id)
    named = ("x-ratelimit-tokens-query-cost", "ratelimitbysize-query-cost")
    cost = next((exchange.headers[name] for name in named if name in exchange.headers), None)
    assert (None if cost is None else int(cost)) == got.rate_limit.query_cost_tokens
    assert exchange.headers.get("mistral-correlation-id") == got.request_id or got.request_id


@pytest.mark.parametrize("exchange", ASKED, ids=str)
def test_recorded_requests(exchange: Exchange) -> None:
    """What the API was asked is what we would ask, but for words that say what is usual."""
    assert exchange.request is not None
    expected = dict(exchange.request)
    if isinstance(expected["input"], str):
        expected["input"] = [expected["input"]]
    if expected.get("encoding_format") == "float":
        del expected["encoding_format"]

    request = MISTRAL.decode_embeddings_request(json.dumps(exchange.request).encode())

    assert expected == json.loads(MISTRAL.encode_embeddings_request(request).body)


class TestForeignReplies:
    """What servers may send instead."""

    def test_rows_in_another_order(self) -> None:
        """The index says which text a vector belongs to."""
        rows = [{"embedding": [2.0], "index": 1}, {"embedding": [1.0], "index": 0}]
        assert [[1.0], [2.0]] == read(reply(data=rows)).vectors

    def test_rows_without_an_index(self) -> None:
        """They come in the order of the texts."""
        assert [[1], [2]] == read(reply(data=[{"embedding": [1]}, {"embedding": [2]}])).vectors

    def test_base64_that_nobody_asked_for_and_numbers_in_its_place(self) -> None:
        """A vector is read as it comes."""
        packed = msgspec.structs.replace(TWO, as_base64=True)
        assert [(1.0,), [2.0]] == read(reply("AACAPw==", [2.0])).vectors
        assert [[1.0], [2.0]] == read(reply([1.0], [2.0]), packed).vectors

    @pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": -1}, {"prompt_tokens": "3"}, 3])
    def test_no_usage_is_none(self, usage: object) -> None:
        """Fault matrix, row 46: what cannot be read is to be estimated, not taken for 0."""
        assert read(reply([1.0], [2.0], usage=usage)).usage.estimated

    def test_no_tokens_are_a_count(self) -> None:
        """0 is a count, and a missing total is the prompt."""
        assert Usage() == read(reply([1.0], [2.0], usage={"prompt_tokens": 0})).usage

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            (b"", "no vectors that can be read"),
            (b"[]", "no vectors that can be read"),
            (b"{}", "missing required field `data`"),
            (b"\xff", "no vectors that can be read"),
            (b"[" * 100_000, "no vectors that can be read"),
            (reply([1.0]), "1 vectors for 2 texts"),
            (reply([1.0], [1.0], [1.0]), "3 vectors for 2 texts"),
            (reply([1.0], []), "a vector is empty"),
            (reply([1.0], ""), "a vector is empty"),
            (reply([1.0], "AAA"), "no vectors that can be read"),
            (reply([1.0], "AAAA"), "no vectors that can be read"),
            (reply([1.0], "AA CAPw=="), "no vectors that can be read"),
            (reply([1.0], ["x"]), "Expected `float`"),
            (reply(data=[{"embedding": [1], "index": 0}] * 2), "the indexes are not those"),
            (reply(data=[{"embedding": [1], "index": i} for i in (1, 2)]), "the indexes are not"),
        ],
        ids=lambda value: value if isinstance(value, str) else repr(value[:70][-40:]),
    )
    def test_what_is_no_answer(self, body: bytes, words: str) -> None:
        """It is named, with the request's id, and without a number of it."""
        headers = {"mistral-correlation-id": "one"}
        with pytest.raises(MalformedReply, match=words) as caught:
            MISTRAL.decode_embeddings_response(body, headers, TWO)
        assert "one" == caught.value.request_id

    @BOTH
    def test_an_error_with_status_200(self, dialect: Dialect) -> None:
        """Fault matrix, row 32: it is the error that it says."""
        told = {"message": "slow down", "type": "rate_limited", "code": "1300"}
        body = json.dumps({"object": "error", **told, "error": told}).encode()
        with pytest.raises(LoomError) as caught:
            dialect.decode_embeddings_response(body, {}, TWO)
        assert MISTRAL is not dialect or isinstance(caught.value, RateLimited)


def test_openai_writes_floats_alone() -> None:
    """A form that OpenAI has no word for is refused before it is sent."""
    with pytest.raises(InvalidRequest, match="not as 'int8'"):
        OPENAI.encode_embeddings_request(msgspec.structs.replace(TWO, dtype="int8"))


@BOTH
def test_further_fields(dialect: Dialect) -> None:
    """What is newer than this version goes through `extra`; what is not JSON is refused."""
    more = msgspec.structs.replace(TWO, extra={"metadata": {"a": 1}})
    body = json.loads(dialect.encode_embeddings_request(more).body)
    assert {"model": "mistral-embed", "input": ["a", "b"], "metadata": {"a": 1}} == body
    with pytest.raises(InvalidRequest, match="cannot be written as JSON"):
        dialect.encode_embeddings_request(msgspec.structs.replace(TWO, extra={"a": object()}))


def test_nothing_of_a_text_is_printed() -> None:
    """Requests and answers print sizes: logs and error reports print the locals of frames."""
    secret = msgspec.structs.replace(TWO, texts=("canary",))
    response = answered(secret, [[0.123456, 1.0]])
    printed = [repr(secret), repr(secret.__rich_repr__()), repr(response)]
    printed.append(repr(response.__rich_repr__()))
    assert not [each for each in printed if "canary" in each or "0.123456" in each]
    assert "vectors=1 of 2" in repr(response)
