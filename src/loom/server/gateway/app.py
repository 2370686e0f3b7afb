"""
The gateway's application: OpenAI's and Mistral's dialect over one shared provider.

A request passes the same stations on every path, in this order, and there is no other way to a
model: the key, the caller's turn, the dialect, the key's models and longest answer, what the asked
vendor does not know, the caller's limits and budget, the shared provider. Every error leaves in the
caller's dialect, with a request id.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec

from loom.catalog.lookup import Catalog
from loom.core.ambient import Clock
from loom.core.embeddings import as_chat, from_chat_response
from loom.core.errors import BudgetExceeded, InvalidRequest, LoomError
from loom.core.provider import LLMProvider
from loom.core.request import Attribution, ChatRequest, Timeouts, Verbatim
from loom.core.response import LLMResponse
from loom.ledger.budgets import Budget
from loom.ledger.contract import Ledger
from loom.server.gateway.body import check_body, read_json
from loom.server.gateway.caller import Call
from loom.server.gateway.counter import Counters, KeyLimiters
from loom.server.gateway.dialects import DialectName, dialect_of, fitted_for, unread_parts
from loom.server.gateway.door import is_local, request_id_of
from loom.server.gateway.errors import limit_of, log_unexpected, outward, unexpected
from loom.server.gateway.hangup import listeners_of, unless_gone
from loom.server.gateway.keys import VirtualKey, check_request
from loom.server.gateway.metrics import Answered, Metrics
from loom.server.gateway.pages import Pages
from loom.server.gateway.relay import Relay
from loom.server.gateway.turns import Turns
from loom.server.line import CallerGone, Line, Receive, Scope, Send, read_body
from loom.wire.chat_completions.dialect import ChatCompletionsDialect
from loom.wire.chat_completions.request import decode_chat_request as decode_openai_request
from loom.wire.dialect import Dialect
from loom.wire.mistral.dialect import MistralDialect
from loom.wire.mistral.history import legal_history
from loom.wire.mistral.request import decode_chat_request as decode_mistral_request

__all__ = ["BODY_BYTES", "Gateway", "Ring"]

BODY_BYTES = 8 * 1024 * 1024
"""What a request's body may weigh (reliability rule S6)."""

_JSON = {"content-type": "application/json"}
# A body is read once, by the door's rules, and its dialect reads what came of that.
_READ: dict[DialectName, Callable[[dict[str, Any]], ChatRequest]] = {
    "openai": decode_openai_request,
    "mistral": decode_mistral_request,
}
_PREFIXES = ("/openai", "/mistral")
_METHODS = ("POST", "GET", "HEAD")
_CARD = "/v1/models/"
# What a vendor says may stand in a header: one line, of letters that every client reads.
_NOT_IN_HEADERS = re.compile(r"[^\x21-\x7e]+")


class Ring(Protocol):
    """Knows the keys."""

    @abstractmethod
    def admit(self, authorization: str | None, address: str = "") -> VirtualKey | None:
        """
        Let a caller in, or not.

        Args:
            authorization: The header of that name; None when there is none.
            address: The caller's; "" when it is not known.

        Returns:
            The key; None where nobody needs one.

        Raises:
            InvalidAPIKey: If it is none that holds.
        """


class Gateway:
    """
    The application.

    Attributes:
        counters: What stands around the provider for each caller.
        relay: Sends streams.
        turns: Who begins next.
        running: Requests on their way.

    Args:
        provider: Who answers, with every layer but money: shared by all callers.
        ledger: One row for each call.
        ring: The keys; None: nobody needs one.
        catalog: Models and prices.
        clock: Tells the time.
        new_id: Gives ids of requests and answers, 32 hex digits.
        budgets: Of the whole gateway.
        readiness: What `/health/ready` answers: the state of each part, "ok" if it is well.
        metrics: Gives `/metrics`, and hears of each answer; None: there is none.
        rescue: Whether answers that break begin anew elsewhere.
        body_bytes: What a request's body may weigh.
        timeouts: Of every call.
        limiters: The keys' limits, where they outlive the application; None: new ones.
    """

    def __init__(
        self,
        *,
        provider: LLMProvider,
        ledger: Ledger,
        ring: Ring | None,
        catalog: Catalog,
        clock: Clock,
        new_id: Callable[[], str],
        budgets: tuple[Budget, ...] = (),
        readiness: Callable[[], Mapping[str, str]] = dict,
        metrics: Metrics | None = None,
        rescue: bool = False,
        body_bytes: int = BODY_BYTES,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - a frozen value
        limiters: KeyLimiters | None = None,
    ) -> None:
        self._provider = provider
        self._ring = ring
        self._clock = clock
        self._new_id = new_id
        self._metrics = metrics
        self._body_bytes = body_bytes
        self._timeouts = timeouts
        self._rescue = rescue
        self._dialects: dict[DialectName, Dialect] = {
            "openai": ChatCompletionsDialect(),
            "mistral": MistralDialect(),
        }
        self.counters = Counters(
            provider,
            ledger=ledger,
            catalog=catalog,
            clock=clock,
            budgets=budgets,
            limiters=limiters,
        )
        self.relay = Relay(self._told, clock, rescue=rescue)
        self.turns = Turns()
        self.running = 0
        self._pages = Pages(
            self._admit,
            catalog=catalog,
            vendor=provider.name,
            clock=clock,
            readiness=readiness,
            metrics=metrics,
            needs_key=ring is not None,
        )
        self._posts: dict[str, Callable[[Call], Awaitable[None]]] = {
            "/v1/chat/completions": self._chat,
            "/v1/embeddings": self._embeddings,
            "/v1/fim/completions": self._fim,
        }
        self._gets: dict[str, Callable[[Call], Awaitable[None]]] = {
            "/v1/models": self._pages.models,
            "/health": self._pages.health,
            "/health/ready": self._pages.ready,
            "/openapi.json": self._pages.document,
            "/metrics": self._pages.metrics,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        call = self._call(scope, receive, send)
        self.running += 1
        try:
            await self._answered(call, scope["method"])
        finally:
            self.running -= 1
            self._count(call)

    async def _answered(self, call: Call, method: str) -> None:
        try:
            await self._routed(call, method)
        except CallerGone:
            return
        except LoomError as error:
            await self._refuse(call, error)
        except RecursionError:
            await self._refuse(call, InvalidRequest("the body is nested too deeply"))
        except Exception as error:  # noqa: BLE001 - the outermost border
            log_unexpected(error, call.request_id)
            await self._refuse(call, unexpected())

    def _call(self, scope: Scope, receive: Receive, send: Send) -> Call:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        path = scope["path"]
        speaks = dialect_of(path, headers)
        client = scope.get("client")
        return Call(
            path=_bare(path),
            headers=headers,
            receive=receive,
            line=Line(send),
            dialect=self._dialects[speaks],
            speaks=speaks,
            request_id=request_id_of(scope) or _request_id(headers) or self._new_id(),
            local=is_local(scope),
            address="" if client is None else client[0],
            began_s=self._clock.monotonic_s(),
            listeners=listeners_of(scope),
        )

    async def _routed(self, call: Call, method: str) -> None:
        path = call.path
        found = (self._posts if method == "POST" else self._gets).get(path)
        if found is not None and method in _METHODS:
            await found(call)
            return
        is_card = path.startswith(_CARD) and path != _CARD
        if is_card and method in ("GET", "HEAD"):
            await self._pages.model(call, path.removeprefix(_CARD))
            return
        known = path in self._posts or path in self._gets or is_card
        status = 405 if known else 404
        allowed = {"allow": "POST" if path in self._posts else "GET"} if known else {}
        said = f"{method[:16]} is not allowed here" if known else "there is no such path"
        error = InvalidRequest(said, http_status=status)
        await self._refuse(call, error, allowed)

    # --- chats -------------------------------------------------------------------------------

    async def _chat(self, call: Call) -> None:
        body = await self._body(call)
        asked = _READ[call.speaks](check_body(read_json(body)))
        await self._serve(call, asked, self._prepared(call, asked, body, self._provider.name))

    async def _fim(self, call: Call) -> None:
        body = await self._body(call)
        check_body(read_json(body))
        asked = call.dialect.decode_infill_request(body)
        await self._serve(call, asked, self._prepared(call, asked, body, "mistral-fim"))

    async def _serve(self, call: Call, asked: ChatRequest, request: ChatRequest) -> None:
        counter = self.counters.counter(call.key)
        if not request.stream:
            answer = self._plain(call, request, counter.provider)
            await unless_gone(call.listeners, call.receive, answer)
            return

        def encoder() -> Any:
            created = int(self._clock.now().timestamp())
            return call.dialect.encoder(asked, self._answer_id(call), created)

        try:
            await self.relay.stream(call, counter.provider.stream(request), encoder)
        except LoomError as error:
            raise outward(error) from None

    async def _embeddings(self, call: Call) -> None:
        body = await self._body(call)
        check_body(read_json(body))
        asked = call.dialect.decode_embeddings_request(body)
        request = self._prepared(call, as_chat(asked), b"", "")

        async def answer() -> None:
            try:
                response = await self.counters.counter(call.key).provider.chat(request)
            except LoomError as error:
                raise outward(error) from None
            headers = {**_JSON, **self._told(call, response)}
            vectors = call.dialect.encode_embeddings(from_chat_response(response), asked)
            await call.line.whole(200, headers, vectors)

        await unless_gone(call.listeners, call.receive, answer())

    async def _body(self, call: Call) -> bytes:
        """Let a caller in, and give what it sends when its turn has come."""
        self._admit(call)
        body = await read_body(call.receive, self._body_bytes)
        await self.turns.take("" if call.key is None else call.key.id)
        return body

    def _prepared(self, call: Call, asked: ChatRequest, body: bytes, wire: str) -> ChatRequest:
        """The request as the shared provider gets it; `wire` names the format of `body`."""
        call.model = asked.model
        vendor = self._provider.name
        request, call.dropped = fitted_for(asked, call.speaks, vendor)
        key = call.key
        if key is not None:
            request = check_request(key, request)
        verbatim = None
        relayed = bool(body) and request is asked and call.speaks == vendor and not self._rescue
        if relayed and _is_plain(asked):
            verbatim = Verbatim(dialect=wire, body=body, request=request)
        attribution = Attribution(
            tenant="" if key is None else key.id, tags={} if key is None else key.tags
        )
        return msgspec.structs.replace(
            request, attribution=attribution, verbatim=verbatim, timeouts=self._timeouts
        )

    async def _plain(self, call: Call, request: ChatRequest, provider: LLMProvider) -> None:
        try:
            response = await provider.chat(request)
        except LoomError as error:
            raise outward(error) from None
        headers = {**_JSON, **self._told(call, response)}
        if response.raw_body is not None and _as_it_came(request, response, self._provider.name):
            body = response.raw_body
        else:
            body = call.dialect.encode_response(response)
        await call.line.whole(200, headers, body)

    def _count(self, call: Call) -> None:
        if self._metrics is None:
            return
        usage, began_s, path = call.usage, call.began_s, call.path
        self._metrics.answered(
            Answered(
                route="/v1/models/{id}" if path.startswith("/v1/models/") else path,
                dialect=call.speaks,
                status=call.line.status,
                model=call.model or None,
                elapsed_s=self._clock.monotonic_s() - began_s,
                first_s=None if call.first_s is None else call.first_s - began_s,
                input_tokens=0 if usage is None else usage.input_tokens,
                output_tokens=0 if usage is None else usage.output_tokens,
                cost_usd=None if usage is None else usage.cost_usd,
            )
        )

    # --- what every answer has -----------------------------------------------------------------

    def _admit(self, call: Call) -> None:
        if self._ring is not None:
            given = call.headers.get(b"authorization")
            text = None if given is None else given.decode("latin-1")
            call.key = self._ring.admit(text, call.address)

    def _answer_id(self, call: Call) -> str:
        return self._new_id() if call.speaks == "mistral" else f"chatcmpl-{self._new_id()}"

    def _told(self, call: Call, response: LLMResponse | None) -> dict[str, str]:
        """Headers of an answer, and what stands in the last event of a stream."""
        limits = self.counters.limits(call.key, call.speaks)
        told = {"x-request-id": call.request_id, **limits}
        dropped = call.dropped
        if response is not None:
            dropped += unread_parts(response, call.speaks, self._provider.name)
        if dropped:
            told["x-loom-dropped"] = ", ".join(dropped)
        if response is None:
            call.first_s = self._clock.monotonic_s()
            return told
        told["x-loom-model"] = _in_a_header(response.model)
        told["x-loom-provider"] = str(response.metadata.get("provider", self._provider.name))
        told["x-loom-attempts"] = str(response.attempts)
        call.usage = response.usage
        cost = response.usage.cost_usd
        if cost is not None:
            told["x-loom-cost-usd"] = f"{cost:f}"
        if response.usage.estimated:
            told["x-loom-usage"] = "estimated"
        left = response.budget_remaining_usd
        if left is not None:
            told["x-loom-budget-remaining-usd"] = f"{left:f}"
        return told

    async def _refuse(
        self, call: Call, error: LoomError, more: Mapping[str, str] | None = None
    ) -> None:
        if call.line.started:
            # What was sent cannot be taken back; the connection is closed by the server.
            return
        reply = call.dialect.encode_error(error)
        limits = self.counters.limits(call.key, call.speaks)
        headers = {**reply.headers, "x-request-id": call.request_id, **limits, **(more or {})}
        whose = limit_of(error)
        if whose is not None:
            headers["x-loom-limit"] = whose
        if error.attempts:
            headers["x-loom-attempts"] = str(error.attempts)
        if error.request_id is not None:
            headers["x-loom-upstream-request-id"] = _in_a_header(error.request_id)
        # OpenAI's own word for it is a 429, which its clients would try again (G8).
        status = 402 if isinstance(error, BudgetExceeded) else reply.status
        await call.line.whole(status, headers, reply.body)


def _bare(path: str) -> str:
    for prefix in _PREFIXES:
        if path.startswith(prefix + "/"):
            return path.removeprefix(prefix)
    return path


def _request_id(headers: Mapping[bytes, bytes]) -> str | None:
    given = headers.get(b"x-request-id")
    if given is None or not 1 <= len(given) <= 128:
        return None
    text = given.decode("latin-1")
    well_formed = all(letter.isalnum() or letter in "._-" for letter in text) and text.isascii()
    return text if well_formed else None


def _is_plain(request: ChatRequest) -> bool:
    """Whether nothing of a history need be mended before it is sent."""
    history = legal_history(request.messages)
    return not history.repairs and not history.tool_ids


def _as_it_came(request: ChatRequest, response: LLMResponse, vendor: str) -> bool:
    """Whether the body is in the caller's dialect, and the answer, not the chunk of a stream."""
    raw = response.raw_body or b""
    return (
        request.verbatim is not None
        and response.metadata.get("provider", vendor) == vendor
        and b'"chat.completion.chunk"' not in raw
        and b'"delta":' not in raw
    )


def _in_a_header(text: str) -> str:
    return _NOT_IN_HEADERS.sub("?", text)[:256]
