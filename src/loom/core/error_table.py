"""
The one table of errors: what each code means to everyone who meets it.

`core/errors.py` gives each code a class; server and command line read these rows and map
nothing themselves.
"""

from __future__ import annotations

import msgspec

__all__ = ["ERROR_TABLE", "ErrorRow"]


class ErrorRow(msgspec.Struct, frozen=True):
    """
    What an error means to everyone who meets it.

    Attributes:
        http: The status that a server answers with when the vendor gave none.
        grpc: The gRPC status name.
        exit: The command line's exit code.
        retryable: Whether the same request may succeed later.
        breaker: Whether it counts as a failure of the provider.
        hint: What to do next.
        printed: The name for people; empty: `ERR_` and the code in capitals.
        fallback: Whether another route (model, key, provider) may do better.
    """

    http: int
    grpc: str
    exit: int
    retryable: bool
    breaker: bool
    hint: str
    printed: str = ""
    fallback: bool = False


# Codes, statuses and resolution steps: reference page, section "Error Codes"; the rest of the
# rows: the project's design, "Errors, in one table". 75 is EX_TEMPFAIL of sysexits.h: a
# scheduler may run the command again.
ERROR_TABLE: dict[str, ErrorRow] = {
    "invalid_api_key": ErrorRow(
        401, "UNAUTHENTICATED", 3, retryable=False, breaker=False, fallback=True,
        hint="Verify the key at console.mistral.ai/api-keys; check for typos and white space;"
        " make sure that it was not deleted or rotated; create a new one if needed.",
    ),
    "insufficient_credits": ErrorRow(
        402, "FAILED_PRECONDITION", 4, retryable=False, breaker=False, fallback=True,
        hint="Check the balance at console.mistral.ai/billing and add credits,"
        " or move from the free tier to a paid plan.",
    ),
    "permission_denied": ErrorRow(
        403, "PERMISSION_DENIED", 3, retryable=False, breaker=False, fallback=True,
        hint="This key may not do that: ask for access at console.mistral.ai.",
    ),
    "model_not_found": ErrorRow(
        404, "NOT_FOUND", 6, retryable=False, breaker=False, fallback=True,
        hint="Check the model id for typos (`looms models` lists them) and that the key has"
        " access to it; mistral-large-latest is the default.",
    ),
    "invalid_request": ErrorRow(
        400, "INVALID_ARGUMENT", 5, retryable=False, breaker=False,
        hint="Correct the named parameter: temperature 0.0-2.0 (the API takes up to 1.5),"
        " max_tokens 1-32768 or the model's window, tools as JSON schema, every message with"
        " role and content.",
    ),
    "request_too_large": ErrorRow(
        413, "INVALID_ARGUMENT", 5, retryable=False, breaker=False, fallback=True,
        hint="Send less: shorten the messages, or upload files and refer to them.",
    ),
    "context_length_exceeded": ErrorRow(
        400, "INVALID_ARGUMENT", 5, retryable=False, breaker=False, fallback=True,
        hint="Shorten the conversation, lower max_tokens, or choose a model with a larger"
        " window (`looms models`).",
    ),
    "config_invalid": ErrorRow(
        500, "FAILED_PRECONDITION", 2, retryable=False, breaker=False,
        hint="Correct the named setting.",
    ),
    "content_blocked": ErrorRow(
        422, "FAILED_PRECONDITION", 7, retryable=False, breaker=False,
        hint="The vendor's moderation refused the content: change it, or the guardrails.",
    ),
    "rate_limit_exceeded": ErrorRow(
        429, "RESOURCE_EXHAUSTED", 75, retryable=True, breaker=False, fallback=True,
        hint="Wait and try again; lower the request rate; move to a higher tier for more.",
        printed="ERR_RATE_LIMIT",
    ),
    "capacity_exceeded": ErrorRow(
        429, "RESOURCE_EXHAUSTED", 75, retryable=True, breaker=False, fallback=True,
        hint="The model is overloaded, your quota is not used up: try again, or another model.",
    ),
    "service_unavailable": ErrorRow(
        503, "UNAVAILABLE", 75, retryable=True, breaker=True, fallback=True,
        hint="Try again with growing waits; see status.mistral.ai; switch to another model or"
        " provider meanwhile.",
    ),
    "conflict": ErrorRow(
        409, "ABORTED", 75, retryable=True, breaker=False, fallback=True,
        hint="Another request holds the resource: try again.",
    ),
    "timeout": ErrorRow(
        504, "DEADLINE_EXCEEDED", 75, retryable=True, breaker=True, fallback=True,
        hint="Raise timeout_s (or deadline_s, if it was the total), make the request smaller,"
        " check the network, or use a faster model.",
    ),
    "unreachable": ErrorRow(
        503, "UNAVAILABLE", 75, retryable=True, breaker=True, fallback=True,
        hint="Check the network, the base URL and the proxy.",
    ),
    "tls_failed": ErrorRow(
        502, "FAILED_PRECONDITION", 2, retryable=False, breaker=False, fallback=True,
        hint="The server's certificate was refused: check the base URL, the clock, and"
        " SSL_CERT_FILE when a proxy signs with its own authority.",
    ),
    "pool_timeout": ErrorRow(
        503, "RESOURCE_EXHAUSTED", 75, retryable=False, breaker=False,
        hint="All connections are in use: close streams that are not read to the end, or raise"
        " max_connections.",
    ),
    "stream_truncated": ErrorRow(
        502, "UNAVAILABLE", 75, retryable=True, breaker=True, fallback=True,
        hint="The connection ended in the middle of the answer; `.partial` holds what came.",
    ),
    "stream_stalled": ErrorRow(
        504, "DEADLINE_EXCEEDED", 75, retryable=True, breaker=True, fallback=True,
        hint="Nothing came for too long in the middle of the answer; `.partial` holds what"
        " came. Raise Timeouts.idle_s if this model thinks in silence.",
    ),
    "malformed_reply": ErrorRow(
        502, "INTERNAL", 1, retryable=True, breaker=True, fallback=True,
        hint="The reply is not what the API promises: check that the base URL is an API and"
        " not a web page.",
    ),
    "reply_too_large": ErrorRow(
        502, "RESOURCE_EXHAUSTED", 1, retryable=False, breaker=False, fallback=True,
        hint="The reply passed a size limit (64 MiB a body, 4 MiB an event, 100 times when"
        " inflated).",
    ),
    "unexpected_redirect": ErrorRow(
        502, "FAILED_PRECONDITION", 1, retryable=False, breaker=False, fallback=True,
        hint="The key is never sent to another address: set base_url to the final one.",
    ),
    "circuit_open": ErrorRow(
        503, "UNAVAILABLE", 75, retryable=False, breaker=False, fallback=True,
        hint="The provider failed too often; it is tried again after `.retry_after_s`.",
    ),
    "limit_exceeded": ErrorRow(
        429, "RESOURCE_EXHAUSTED", 75, retryable=False, breaker=False, fallback=True,
        hint="Your own rate limit has no room before the deadline: wait, or raise it.",
    ),
    "budget_exceeded": ErrorRow(
        402, "RESOURCE_EXHAUSTED", 4, retryable=False, breaker=False,
        hint="Your own budget is used up: raise it, or wait for its next period.",
    ),
    "ledger_unavailable": ErrorRow(
        503, "UNAVAILABLE", 75, retryable=False, breaker=False,
        hint="The ledger cannot be written; nothing is sent that could not be accounted for.",
    ),
    "session_unavailable": ErrorRow(
        503, "UNAVAILABLE", 75, retryable=False, breaker=False,
        hint="The store of sessions cannot be read or written now; what it acknowledged is kept.",
    ),
    "keys_unavailable": ErrorRow(
        503, "UNAVAILABLE", 75, retryable=False, breaker=False,
        hint="The gateway's keys cannot be read or written now; what it acknowledged is kept.",
    ),
    "upstream_auth": ErrorRow(
        502, "UNAVAILABLE", 3, retryable=False, breaker=False, fallback=True,
        hint="The gateway's own key was refused by the vendor: tell its operator.",
    ),
    "tool_not_found": ErrorRow(
        422, "FAILED_PRECONDITION", 1, retryable=False, breaker=False,
        hint="The model called a tool that was not offered.",
    ),
    "tool_arguments_invalid": ErrorRow(
        422, "FAILED_PRECONDITION", 1, retryable=False, breaker=False,
        hint="The model's arguments do not fit the tool's schema.",
    ),
    "tool_failed": ErrorRow(
        422, "FAILED_PRECONDITION", 1, retryable=False, breaker=False,
        hint="The tool raised an error.",
    ),
    "tool_timed_out": ErrorRow(
        422, "FAILED_PRECONDITION", 1, retryable=False, breaker=False,
        hint="The tool took longer than its limit.",
    ),
    "tool_denied": ErrorRow(
        422, "FAILED_PRECONDITION", 1, retryable=False, breaker=False,
        hint="The tool call was not approved.",
    ),
    "tool_call_missing": ErrorRow(
        502, "FAILED_PRECONDITION", 1, retryable=True, breaker=False,
        hint="The model was to call a tool and called none: name the tool in the prompt.",
    ),
    "output_invalid": ErrorRow(
        502, "FAILED_PRECONDITION", 1, retryable=True, breaker=False,
        hint="The answer does not fit the type that was asked for; `.text` holds it.",
    ),
}  # fmt: skip
