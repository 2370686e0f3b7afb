"""OpenAI's error bodies to our classes, and our errors to OpenAI's bodies."""

from __future__ import annotations

import json
from typing import Any

import pytest

from loom.core.errors import (
    BudgetExceeded,
    CapacityExceeded,
    Conflict,
    ContentBlocked,
    ContextTooLong,
    InsufficientCredits,
    InvalidAPIKey,
    InvalidRequest,
    LoomError,
    MalformedReply,
    ModelNotFound,
    PermissionDenied,
    RateLimited,
    RequestTooLarge,
    ServiceUnavailable,
    TimedOut,
    UnexpectedRedirect,
)
from loom.wire.chat_completions.dialect import ChatCompletionsDialect

DIALECT = ChatCompletionsDialect()


def came(status: int, error: Any, **headers: str) -> LoomError:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return DIALECT.decode_error(status, names, json.dumps({"error": error}).encode())


CASES: list[tuple[int, dict[str, Any], type[LoomError]]] = [
    (401, {"message": "Incorrect API key provided: sk-ab***cd.", "code": "invalid_api_key"},
     InvalidAPIKey),
    (403, {"message": "Country, region, or territory not supported",
           "code": "unsupported_country_region_territory"}, PermissionDenied),
    (403, {"message": "no access", "code": "model_not_found"}, ModelNotFound),
    (404, {"message": "The model `x` does not exist", "code": "model_not_found"}, ModelNotFound),
    (404, {"message": "model 'x' not found", "type": "not_found_error"}, ModelNotFound),
    (400, {"message": "The model `x` does not exist."}, ModelNotFound),
    (429, {"message": "You exceeded your current quota, please check your plan",
           "type": "insufficient_quota", "code": "insufficient_quota"}, InsufficientCredits),
    (429, {"message": "x", "type": "insufficient_quota", "code": "credit_balance_exhausted"},
     InsufficientCredits),
    (429, {"message": "You exceeded your current quota"}, InsufficientCredits),
    (429, {"message": "Rate limit reached for gpt-4.1 on tokens per min (TPM)", "type": "tokens",
           "code": "rate_limit_exceeded"}, RateLimited),
    (429, {"message": "Slow down", "type": "rate_limit_error", "code": "slow_down"},
     CapacityExceeded),
    (429, {"message": "The engine is currently overloaded, please try again later"},
     CapacityExceeded),
    (400, {"message": "too long", "code": "context_length_exceeded"}, ContextTooLong),
    (400, {"message": "the request exceeds the available context size",
           "type": "exceed_context_size_error"}, ContextTooLong),
    (400, {"message": "filtered", "code": "content_filter"}, ContentBlocked),
    (400, {"message": "x", "code": "content_policy_violation"}, ContentBlocked),
    (400, {"message": "Invalid prompt: your prompt was flagged as potentially violating our usage"
           " policy.", "code": "invalid_prompt"}, ContentBlocked),
    (400, {"message": "Unrecognized request argument supplied: x",
           "type": "invalid_request_error"}, InvalidRequest),
    (402, {"message": "pay"}, InsufficientCredits),
    (408, {"message": "x"}, TimedOut),
    (409, {"message": "x"}, Conflict),
    (413, {"message": "x"}, RequestTooLarge),
    (422, {"message": "x"}, InvalidRequest),
    (500, {"message": "x", "type": "server_error"}, ServiceUnavailable),
    (503, {"message": "x", "code": "server_is_overloaded"}, ServiceUnavailable),
    (503, {"message": "x", "code": "model_not_found"}, ServiceUnavailable),
    (302, {"message": "x"}, UnexpectedRedirect),
    (204, {"message": "x"}, MalformedReply),
]  # fmt: skip


@pytest.mark.parametrize(("status", "error", "kind"), CASES)
def test_bodies_have_their_class(status: int, error: dict[str, Any], kind: type[LoomError]) -> None:
    """Codes first, then words, then the status; message, code and type are kept."""
    found = came(status, error)
    assert kind is type(found)
    assert f"OpenAI API error ({status}): {error['message']}" == found.message
    assert (error.get("code"), error.get("type")) == (found.vendor_code, found.vendor_type)
    assert "mistral" not in found.hint.lower()


@pytest.mark.parametrize(
    ("message", "sizes"),
    [
        (("This model's maximum context length is 8192 tokens. However, your messages resulted in"
         " 9001 tokens. Please reduce"), (9001, 8192)),
        (("This model's maximum context length is 4096 tokens. However, you requested 5000 tokens"
         " (4000 in the messages, 1000 in the completion)."), (5000, 4096)),
        (("This model's maximum context length is 4096 tokens. However, your request has 5000 input"
         " tokens."), (5000, 4096)),
        ("Input is too long", (None, None)),
    ],
)  # fmt: skip
def test_sizes_of_a_prompt_that_is_too_long(
    message: str, sizes: tuple[int | None, int | None]
) -> None:
    """The prompt's tokens and the window are taken from the sentence, with and without a code."""
    for code in ("context_length_exceeded", None):
        error = came(400, {"message": message, "code": code})
        if code is None and sizes == (None, None):
            assert InvalidRequest is type(error)
            continue
        assert isinstance(error, ContextTooLong)
        assert sizes == (error.tokens, error.limit)


def test_waits_ids_and_limits_come_from_the_headers() -> None:
    """Milliseconds win over seconds; durations are read; the request's id is OpenAI's."""
    error = came(
        429,
        {"message": "x"},
        retry_after="20",
        retry_after_ms="1500",
        x_request_id="req_1",
        x_ratelimit_limit_requests="60",
        x_ratelimit_remaining_requests="0",
        x_ratelimit_limit_tokens="150000",
        x_ratelimit_remaining_tokens="149984",
        x_ratelimit_reset_requests="1s",
        x_ratelimit_reset_tokens="6m0s",
    )
    assert (1.5, "req_1") == (error.retry_after_s, error.request_id)
    limits = error.rate_limit
    assert limits is not None
    assert (60, 0, 150_000, 149_984, 360.0) == (
        limits.limit_requests_minute,
        limits.remaining_requests_minute,
        limits.limit_tokens_minute,
        limits.remaining_tokens_minute,
        limits.reset_s,
    )


def test_the_server_says_whether_to_try_again() -> None:
    """`x-should-retry` wins over what the class says, both ways."""
    assert not came(500, {"message": "x"}, x_should_retry="false").retryable
    assert came(400, {"message": "x"}, x_should_retry="true").retryable
    assert came(500, {"message": "x"}, x_should_retry="perhaps").retryable


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "Bad gateway"),
        (b"<html><title>502 Bad Gateway</title></html>", "502 Bad Gateway"),
        (b'{"error": "model is loading"}', "model is loading"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b'{"object":"error","message":"vLLM says","code":400}', "vLLM says"),
    ],
)
def test_bodies_of_other_servers_are_read(body: bytes, said: str) -> None:
    """Pages, empty bodies and other shapes: the message is what a person can use."""
    assert f"OpenAI API error (502): {said}" == DIALECT.decode_error(502, {}, body).message


def test_a_wrong_path_hints_at_the_address() -> None:
    """A 404 that names no model may be a wrong base_url."""
    error = DIALECT.decode_error(404, {}, b'{"error":{"message":"Invalid URL (POST /v2/chat)"}}')
    assert "base_url" in error.hint
    assert "base_url" not in came(404, {"message": "x", "code": "model_not_found"}).hint


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (InvalidAPIKey("no"), 401, "invalid_request_error", "invalid_api_key"),
        (InsufficientCredits("no"), 429, "insufficient_quota", "insufficient_quota"),
        (BudgetExceeded("no"), 429, "insufficient_quota", "insufficient_quota"),
        (PermissionDenied("no"), 403, "invalid_request_error", "permission_denied"),
        (ModelNotFound("no", http_status=400), 404, "invalid_request_error", "model_not_found"),
        (ContextTooLong("no"), 400, "invalid_request_error", "context_length_exceeded"),
        (ContentBlocked("no"), 400, "invalid_request_error", "content_filter"),
        (RateLimited("no"), 429, "requests", "rate_limit_exceeded"),
        (CapacityExceeded("no"), 429, "rate_limit_error", "slow_down"),
        (ServiceUnavailable("no"), 503, "server_error", None),
        (InvalidRequest("no", http_status=422), 422, "invalid_request_error", None),
    ],
)
def test_errors_go_out_as_openai_writes_them(
    error: LoomError, status: int, kind: str, code: str | None
) -> None:
    """Status, type and code are OpenAI's, and the same class comes back out."""
    reply = DIALECT.encode_error(error)
    assert status == reply.status
    expected = {"error": {"message": "no", "type": kind, "param": None, "code": code}}
    assert expected == json.loads(reply.body)
    again = DIALECT.decode_error(reply.status, reply.headers, reply.body)
    assert isinstance(error, BudgetExceeded) or type(error) is type(again)


def test_waits_and_hopeless_429s_are_told_in_headers() -> None:
    """The SDK reads milliseconds, and tries a 429 again unless it is told not to."""
    waits = DIALECT.encode_error(RateLimited("no", retry_after_s=1.5))
    assert ("2", "1500") == (waits.headers["retry-after"], waits.headers["retry-after-ms"])
    assert "x-should-retry" not in waits.headers
    assert "false" == DIALECT.encode_error(InsufficientCredits("no")).headers["x-should-retry"]


def test_another_vendors_prefix_is_taken_off_and_a_model_is_named() -> None:
    """Who calls OpenAI's API reads OpenAI's words."""
    error = InvalidRequest("Mistral API error (400): bad", http_status=400)
    assert "bad" == json.loads(DIALECT.encode_error(error).body)["error"]["message"]
    missing = json.loads(DIALECT.encode_error(ModelNotFound("Not Found", model="x")).body)
    expected = "The model `x` does not exist or you do not have access to it."
    assert expected == missing["error"]["message"]
