"""
The HTTP application: a dialect's usual paths over any provider.

Gateway and simulator are this application with another provider and another desk.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from loom.core.ambient import Clock, SystemClock
from loom.core.embeddings import EmbeddingsProvider, EmbeddingsRequest
from loom.core.errors import InvalidRequest, LoomError, ModelNotFound, ServiceUnavailable
from loom.core.events import Completed, Notice, StreamEvent
from loom.core.provider import LLMProvider
from loom.core.request import ChatRequest
from loom.core.response import LLMResponse
from loom.server.desk import Desk, Outcome
from loom.server.line import CallerGone, Line, Receive, Scope, Send, read_body, until_gone
from loom.server.prefixes import PrefixMemory
from loom.wire.dialect import Dialect

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

__all__ = ["BODY_BYTES", "build_app"]

BODY_BYTES = 64 * 1024 * 1024
"""What a request's body may weigh: as much as our own client takes in a reply."""

# An answer that needs no waiting would hold the event loop to its end: let others in between.
_PIECES_AT_ONCE = 16

_JSON = {"content-type": "application/json"}
# Recorded streams (contract, section 4).
_EVENTS = {"content-type": "text/event-stream; charset=utf-8"}

_log = logging.getLogger("loom.server")


def build_app(
    provider: LLMProvider,
    dialect: Dialect,
    desk: Desk,
    *,
    clock: Clock | None = None,
    infill: LLMProvider | None = None,
    embeddings: EmbeddingsProvider | None = None,
    prefixes: PrefixMemory | None = None,
    base: str = "/v1",
) -> Starlette:
    """
    Make the application.

    Args:
        provider: Who answers; it is not closed with the application.
        dialect: How callers speak.
        desk: Who is admitted, which models are listed, what headers are set.
        clock: Tells the time.
        infill: Who fills in the middle; None leaves out `/v1/fim/completions`.
        embeddings: Who turns texts into vectors; None leaves out `/v1/embeddings`.
        prefixes: Marks repeated beginnings of prompts as cached; None reports what the provider
            reports.
        base: What stands before the dialect's paths.

    Returns:
        An ASGI application with `/v1/chat/completions`, `/v1/models`, `/v1/models/{id}`,
        `/health` and `/openapi.json`.
    """
    # Importing starlette costs more than the rest of the package: only who serves pays for it.
    from starlette.applications import Starlette  # noqa: PLC0415 - start-up time

    house = _House(provider, dialect, desk, clock or SystemClock(), prefixes)
    answers = {"chat/completions": house.chat}
    if infill is not None:
        answers["fim/completions"] = partial(house.fill_in, infill)
    if embeddings is not None:
        answers["embeddings"] = partial(house.embed, embeddings)
    house.posts = tuple(answers)
    app = Starlette(
        routes=_routes(house, answers, base),
        exception_handlers={
            404: partial(house.stray, 404, "Not Found"),
            405: partial(house.stray, 405, "Method Not Allowed"),
        },
    )
    # The vendor answers 404 to a trailing slash, it does not redirect.
    app.router.redirect_slashes = False
    return app


def _routes(house: _House, answers: Mapping[str, _Handler], base: str) -> list[Route]:
    from starlette.routing import Route  # noqa: PLC0415 - start-up time

    return [
        *(
            Route(f"{base}/{path}", _Endpoint(answer, house, path), methods=["POST"])
            for path, answer in answers.items()
        ),
        Route(f"{base}/models", _Endpoint(house.models, house), methods=["GET"]),
        Route(f"{base}/models/{{id}}", _Endpoint(house.model, house), methods=["GET"]),
        Route("/health", _Endpoint(house.health, house), methods=["GET"]),
        Route("/openapi.json", _Endpoint(house.document, house), methods=["GET"]),
    ]


class _Call(msgspec.Struct):
    """What a handler is given."""

    scope: Scope
    receive: Receive
    line: Line
    began_s: float
    endpoint: str = ""


_Handler: TypeAlias = Callable[[_Call], Awaitable[None]]


class _Endpoint:
    """A handler as an ASGI application; every error leaves in the caller's dialect."""

    def __init__(self, handler: _Handler, house: _House, endpoint: str = "") -> None:
        self.handler = handler
        self.house = house
        self.endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = _Call(scope, receive, Line(send), self.house.clock.monotonic_s(), self.endpoint)
        try:
            await self.handler(call)
        except CallerGone:
            return
        except LoomError as error:
            await self.house.refuse(call, error)
        except RecursionError:
            # Python's own limit: the vendor's is not known.
            await self.house.refuse(call, InvalidRequest("the body is nested too deeply"))
        except Exception:  # noqa: BLE001 - the outermost border
            # Whatever nobody foresaw is logged, and the caller gets an answer.
            _log.exception("an unexpected error in %s", scope["path"])
            await self.house.refuse(call, _unexpected())


def _authorization(call: _Call) -> str | None:
    given: bytes | None = dict(call.scope["headers"]).get(b"authorization")
    return None if given is None else given.decode("latin-1")


def _unexpected() -> LoomError:
    return ServiceUnavailable("Service unavailable.", http_status=500)


class _House:
    def __init__(
        self,
        provider: LLMProvider,
        dialect: Dialect,
        desk: Desk,
        clock: Clock,
        prefixes: PrefixMemory | None,
    ) -> None:
        self.provider = provider
        self.dialect = dialect
        self.desk = desk
        self.clock = clock
        self.prefixes = prefixes
        self.posts: tuple[str, ...] = ()

    async def health(self, call: _Call) -> None:
        await call.line.whole(200, _JSON, b'{"status":"ok"}')

    async def document(self, call: _Call) -> None:
        from loom.server.openapi import openapi_document  # noqa: PLC0415 - seldom asked for

        await call.line.whole(200, _JSON, msgspec.json.encode(openapi_document(self.posts)))

    async def models(self, call: _Call) -> None:
        self.admit(call)
        rows = list(self.desk.models())
        await self.json(call, 200, {"object": "list", "data": rows})

    async def model(self, call: _Call) -> None:
        self.admit(call)
        wanted = call.scope["path_params"]["id"]
        row = next((row for row in self.desk.models() if row["id"] == wanted), None)
        if row is None:
            raise ModelNotFound("Not Found", model=wanted)
        await self.json(call, 200, row)

    async def chat(self, call: _Call) -> None:
        self.admit(call)
        body = await read_body(call.receive, BODY_BYTES)
        await self.answer(call, self.dialect.decode_request(body), self.provider)

    async def fill_in(self, provider: LLMProvider, call: _Call) -> None:
        self.admit(call)
        body = await read_body(call.receive, BODY_BYTES)
        await self.answer(call, self.dialect.decode_infill_request(body), provider)

    async def answer(self, call: _Call, request: ChatRequest, provider: LLMProvider) -> None:
        answer = self.stream if request.stream else self.plain
        await until_gone(call.receive, answer(call, request, provider))

    async def embed(self, provider: EmbeddingsProvider, call: _Call) -> None:
        self.admit(call)
        body = await read_body(call.receive, BODY_BYTES)
        request = self.dialect.decode_embeddings_request(body)
        await until_gone(call.receive, self.vectors(call, request, provider))

    async def vectors(
        self, call: _Call, request: EmbeddingsRequest, provider: EmbeddingsProvider
    ) -> None:
        response = await provider.embed(request)
        answer = self.dialect.encode_embeddings(response, request)
        outcome = self.outcome(call, 200, model=request.model, usage=response.usage)
        await call.line.whole(200, {**_JSON, **self.desk.headers(outcome)}, answer)

    async def plain(self, call: _Call, request: ChatRequest, provider: LLMProvider) -> None:
        response = self.remembered(call, request, await provider.chat(request))
        body = self.dialect.encode_response(response)
        outcome = self.outcome(call, 200, model=request.model, usage=response.usage)
        await call.line.whole(200, {**_JSON, **self.desk.headers(outcome)}, body)

    def remembered(self, call: _Call, request: ChatRequest, response: LLMResponse) -> LLMResponse:
        """The response, with what of the prompt the caller sent before marked as cached."""
        usage = response.usage
        if self.prefixes is None or usage.cached_tokens:
            return response
        caller = _authorization(call) or ""
        cached = self.prefixes.cached_tokens(caller, request, usage.input_tokens)
        usage = msgspec.structs.replace(usage, cached_tokens=cached)
        return msgspec.structs.replace(response, usage=usage)

    def noted(self, call: _Call, request: ChatRequest, event: StreamEvent) -> StreamEvent:
        if isinstance(event, Completed):
            response = self.remembered(call, request, event.response)
            self.desk.used(response.usage)
            return Completed(response)
        return event

    async def stream(self, call: _Call, request: ChatRequest, provider: LLMProvider) -> None:
        created = int(self.clock.now().timestamp())
        encoder = self.dialect.encoder(request, self.desk.new_id(), created)
        line = call.line
        pieces = 0
        try:
            async with aclosing(provider.stream(request)) as events:
                async for event in events:
                    data = b""
                    if not line.started:
                        # Until the answer begins, an error can still be a plain reply.
                        if isinstance(event, Notice):
                            continue
                        outcome = self.outcome(call, 200, streamed=True, model=request.model)
                        await line.start(200, {**_EVENTS, **self.desk.headers(outcome)})
                        data = encoder.start()
                    data += encoder.encode(self.noted(call, request, event))
                    if data:
                        await line.piece(data)
                        pieces += 1
                        if pieces % _PIECES_AT_ONCE == 0:
                            await self.clock.sleep(0)
        except LoomError as error:
            if not line.started:
                raise
            await line.piece(encoder.error(error))
        except Exception:
            # The border, as in `_Endpoint`: here the answer has begun.
            if not line.started:
                raise
            _log.exception("an unexpected error in the middle of a stream")
            await line.piece(encoder.error(_unexpected()))
        await line.end()

    def admit(self, call: _Call) -> None:
        self.desk.admit(_authorization(call))

    def outcome(self, call: _Call, status: int, **facts: Any) -> Outcome:
        elapsed_s = self.clock.monotonic_s() - call.began_s
        return Outcome(status=status, elapsed_s=elapsed_s, endpoint=call.endpoint, **facts)

    async def json(self, call: _Call, status: int, value: Mapping[str, Any]) -> None:
        headers = self.desk.headers(self.outcome(call, status))
        await call.line.whole(status, {**_JSON, **headers}, msgspec.json.encode(value))

    async def refuse(self, call: _Call, error: LoomError) -> None:
        reply = self.dialect.encode_error(error)
        outcome = self.outcome(call, reply.status, admitted=reply.status != 401)
        headers = {**reply.headers, **self.desk.headers(outcome)}
        await call.line.whole(reply.status, headers, reply.body)

    async def stray(self, status: int, detail: str, request: Request, error: Exception) -> Response:
        """Answer a wrong path or a wrong method."""
        from starlette.responses import Response  # noqa: PLC0415 - start-up time

        # 405 names the methods that are allowed.
        allowed: Mapping[str, str] = getattr(error, "headers", None) or {}
        outcome = Outcome(status=status, admitted=False)
        headers = {**_JSON, **allowed, **self.desk.headers(outcome)}
        if self.dialect.name == "openai":
            # OpenAI's words for both.
            said = f"Invalid URL ({request.method} {request.url.path})"
            body = self.dialect.encode_error(InvalidRequest(said, http_status=status)).body
        else:
            body = msgspec.json.encode({"detail": detail})
        return Response(body, status, headers)
