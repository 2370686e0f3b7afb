"""The error tree agrees with its table, and an error travels whole."""

from __future__ import annotations

import copy
import pickle
from typing import Any, NamedTuple

import pytest

from loom.core import errors
from loom.core.error_table import ERROR_TABLE, ErrorRow
from loom.core.errors import (
    CallerError,
    CapacityExceeded,
    ContextTooLong,
    LoomError,
    OutputInvalid,
    RateLimited,
    Refusal,
    ToolError,
    VendorError,
)
from loom.core.messages import ToolCall
from loom.core.response import Partial, RateLimitState, Usage


class Row(NamedTuple):
    """What the design says of an error; kept here a second time on purpose."""

    code: str
    kind: str
    family: type[LoomError]
    http: int
    grpc: str
    exit: int
    retryable: bool
    breaker: bool


def _row(line: str) -> Row:
    code, kind, family, http, grpc, exit_, retried, breaker = line.split()
    base = {"caller": CallerError, "vendor": VendorError, "ours": Refusal, "tool": ToolError}
    return Row(
        code, kind, base[family], int(http), grpc, int(exit_), retried == "yes", breaker == "yes"
    )


# "yes" under retried: the same request may succeed later, be it once or before the first event.
DESIGN = [
    _row(line)
    for line in """\
invalid_api_key         InvalidAPIKey        caller 401 UNAUTHENTICATED      3 no  no
insufficient_credits    InsufficientCredits  caller 402 FAILED_PRECONDITION  4 no  no
permission_denied       PermissionDenied     caller 403 PERMISSION_DENIED    3 no  no
model_not_found         ModelNotFound        caller 404 NOT_FOUND            6 no  no
invalid_request         InvalidRequest       caller 400 INVALID_ARGUMENT     5 no  no
request_too_large       RequestTooLarge      caller 413 INVALID_ARGUMENT     5 no  no
context_length_exceeded ContextTooLong       caller 400 INVALID_ARGUMENT     5 no  no
config_invalid          ConfigInvalid        caller 500 FAILED_PRECONDITION  2 no  no
content_blocked         ContentBlocked       vendor 422 FAILED_PRECONDITION  7 no  no
rate_limit_exceeded     RateLimited          vendor 429 RESOURCE_EXHAUSTED  75 yes no
capacity_exceeded       CapacityExceeded     vendor 429 RESOURCE_EXHAUSTED  75 yes no
service_unavailable     ServiceUnavailable   vendor 503 UNAVAILABLE         75 yes yes
conflict                Conflict             vendor 409 ABORTED             75 yes no
timeout                 TimedOut             vendor 504 DEADLINE_EXCEEDED   75 yes yes
unreachable             Unreachable          vendor 503 UNAVAILABLE         75 yes yes
tls_failed              TLSFailed            caller 502 FAILED_PRECONDITION  2 no  no
pool_timeout            PoolTimeout          ours   503 RESOURCE_EXHAUSTED  75 no  no
stream_truncated        StreamTruncated      vendor 502 UNAVAILABLE         75 yes yes
stream_stalled          StreamStalled        vendor 504 DEADLINE_EXCEEDED   75 yes yes
malformed_reply         MalformedReply       vendor 502 INTERNAL             1 yes yes
reply_too_large         ReplyTooLarge        vendor 502 RESOURCE_EXHAUSTED   1 no  no
unexpected_redirect     UnexpectedRedirect   vendor 502 FAILED_PRECONDITION  1 no  no
circuit_open            CircuitOpen          ours   503 UNAVAILABLE         75 no  no
limit_exceeded          LimitExceeded        ours   429 RESOURCE_EXHAUSTED  75 no  no
budget_exceeded         BudgetExceeded       ours   402 RESOURCE_EXHAUSTED   4 no  no
ledger_unavailable      LedgerUnavailable    ours   503 UNAVAILABLE         75 no  no
session_unavailable     SessionUnavailable   ours   503 UNAVAILABLE         75 no  no
keys_unavailable        KeysUnavailable      ours   503 UNAVAILABLE         75 no  no
upstream_auth           UpstreamAuth         vendor 502 UNAVAILABLE          3 no  no
tool_not_found          ToolNotFound         tool   422 FAILED_PRECONDITION  1 no  no
tool_arguments_invalid  ToolArgumentsInvalid tool   422 FAILED_PRECONDITION  1 no  no
tool_failed             ToolFailed           tool   422 FAILED_PRECONDITION  1 no  no
tool_timed_out          ToolTimedOut         tool   422 FAILED_PRECONDITION  1 no  no
tool_denied             ToolDenied           tool   422 FAILED_PRECONDITION  1 no  no
tool_call_missing       ToolCallMissing      vendor 502 FAILED_PRECONDITION  1 yes no
output_invalid          OutputInvalid        vendor 502 FAILED_PRECONDITION  1 yes no
""".splitlines()
]
KINDS: list[type[LoomError]] = [getattr(errors, row.kind) for row in DESIGN]

# The codes of gRPC, https://grpc.github.io/grpc/core/md_doc_statuscodes.html
GRPC = [
    "CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS",
    "PERMISSION_DENIED RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED",
    "INTERNAL UNAVAILABLE DATA_LOSS UNAUTHENTICATED",
]


@pytest.mark.parametrize("row", DESIGN, ids=lambda row: row.code)
def test_table_is_the_designs(row: Row) -> None:
    """Each class has the design's code, family and numbers."""
    kind = getattr(errors, row.kind)
    error = kind("something happened")
    assert issubclass(kind, row.family)
    assert row.code == error.code
    assert (row.http, row.grpc, row.exit) == (
        error.http_status,
        error.grpc_status,
        error.exit_code,
    )
    assert (row.retryable, row.breaker) == (error.retryable, error.counts_for_breaker)
    assert error.hint
    assert error.hint[-1] in ".)"


def test_table_and_tree_cover_each_other() -> None:
    """No row is without a class, no class without a row, and no two leaves share a code."""
    assert sorted(ERROR_TABLE) == sorted(row.code for row in DESIGN)
    exported = [getattr(errors, name) for name in errors.__all__]
    classes = {kind for kind in exported if isinstance(kind, type) and issubclass(kind, LoomError)}
    bases = {LoomError, CallerError, VendorError, Refusal, ToolError}
    assert set(KINDS) == classes - bases
    assert len(KINDS) == len({kind.code for kind in KINDS})
    assert {row.grpc for row in ERROR_TABLE.values()} <= set(" ".join(GRPC).split())


@pytest.mark.parametrize("row", DESIGN, ids=lambda row: row.code)
def test_printed_name(row: Row) -> None:
    """People see `ERR_` and the code in capitals; the rate limit's has the page's shorter name."""
    expected = "ERR_RATE_LIMIT" if row.code == "rate_limit_exceeded" else f"ERR_{row.code.upper()}"
    assert expected == getattr(errors, row.kind)("x").printed_name


@pytest.mark.parametrize("kind", [CallerError, VendorError, Refusal, ToolError])
def test_families_can_be_raised(kind: type[LoomError]) -> None:
    """A family has a row of its own, for what no leaf says better."""
    assert kind.code in ERROR_TABLE
    assert "what happened" == str(kind("what happened"))
    assert isinstance(kind.row(), ErrorRow)


def test_no_capacity_is_a_rate_limit() -> None:
    """Who catches rate limits catches an overloaded model too."""
    assert issubclass(CapacityExceeded, RateLimited)


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - our own bytes


FIELDS: dict[str, Any] = {
    "http_status": 418,
    "retryable": False,
    "retry_after_s": 0.0,
    "request_id": "r-1",
    "provider": "mistral",
    "model": "mistral-small-latest",
    "attempts": 3,
    "partial": Partial(
        text="so far", tool_calls=(ToolCall("a", "now"),), usage=Usage(total_tokens=3)
    ),
    "hint": "",
    "rate_limit": RateLimitState(remaining_requests_minute=0),
    "vendor_code": "1500",
    "vendor_type": "invalid_model",
    "phase": "idle",
    "uncertain": True,
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_given_fields_win_over_the_table(kind: type[LoomError]) -> None:
    """What is known of this error replaces the table; zero, false and empty count as known."""
    error = kind("x", **FIELDS)
    assert FIELDS == {name: getattr(error, name) for name in FIELDS}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_defaults_say_nothing_is_known(kind: type[LoomError]) -> None:
    """What was not given is None; one request was sent, and surely not without our knowing."""
    error = kind("x")
    unknown = set(FIELDS) - {"http_status", "retryable", "hint", "attempts", "uncertain"}
    assert {None} == {getattr(error, name) for name in unknown}
    assert (1, False) == (error.attempts, error.uncertain)
    assert ("x", ("x",)) == (error.message, error.args)


@pytest.mark.parametrize("carry", [pickled, copy.copy, copy.deepcopy])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_error_travels_whole(kind: type[LoomError], carry: Any) -> None:
    """Between processes an error keeps its class, message and every field."""
    error = kind("what happened", **FIELDS)
    error.add_note("seen twice")
    again = carry(error)
    assert type(again) is kind
    assert "what happened" == str(again)
    assert vars(error) == vars(again)
    assert ["seen twice"] == again.__notes__


def test_facts_of_single_classes_travel_too() -> None:
    """Numbers of a window, and the text of an answer, are kept."""
    window = ContextTooLong("too long")
    assert (None, None) == (window.tokens, window.limit)
    window.tokens, window.limit = 40_000, 32_768
    output = OutputInvalid("not a Person")
    assert not output.text
    output.text = "I am sorry"
    carried = pickled([window, output])
    assert (40_000, 32_768) == (carried[0].tokens, carried[0].limit)
    assert "I am sorry" == carried[1].text
    assert "I am sorry" not in str(carried[1])


def test_keyword_arguments_of_others_are_refused() -> None:
    """A field that no error has is a mistake of the caller."""
    with pytest.raises(TypeError, match="colour"):
        LoomError("x", colour="red")  # type: ignore[call-arg]  # that is the test
