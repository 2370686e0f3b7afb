"""
The way of a request through the simulator: everything that meets it before the API itself.

In this order: the journal takes it down, the plan of faults may break it, then the key is
compared, the request is checked as strictly as the real API checks it, limits and credits are
asked, the latency passes; then the application answers, and the journal takes down how it ended.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import msgspec

from loom.core.ambient import Clock
from loom.core.errors import InvalidRequest, LoomError, RequestTooLarge
from loom.core.model import ModelCard
from loom.core.response import Usage
from loom.core.secret import Secret
from loom.server.desk import Desk, Outcome
from loom.server.line import CallerGone, Line, Receive, Scope, Send, read_body, until_gone
from loom.server.simulator.exchange import CURRENT, Asked, Exchange
from loom.server.simulator.journal import Journal
from loom.wire.dialect import Dialect
from loom.wire.mistral.usage import decode_usage

__all__ = ["AsgiApp", "Check", "Family", "Fault", "FaultPlan", "Gate", "Station"]

AsgiApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

Check: TypeAlias = Callable[[Exchange], None]
"""Raises the `LoomError` that the real API would answer a request with."""

# As `server/app.py`: what a request's body may weigh.
_BODY_BYTES = 64 * 1024 * 1024

_decode = msgspec.json.Decoder().decode

# What is checked, limited and charged; the rest is free.
_CHARGED = ("chat/completions", "fim/completions", "embeddings")


class Fault(Protocol):
    """Something that goes wrong, on purpose."""

    name: str

    async def act(self, scope: Scope, receive: Receive, send: Send, rest: AsgiApp) -> None:
        """
        Stand before the rest of the way, as an ASGI middleware does.

        Args:
            scope: ASGI's; `scope["extensions"]["loom.transport"]` is the connection's transport.
            receive: ASGI's; gives the body again.
            send: ASGI's.
            rest: The rest of the way: call it, or do not.
        """


class FaultPlan(Protocol):
    """Decides which request meets which fault."""

    def plan(self, exchange: Exchange) -> Fault | None:
        """
        Choose the fault of a request, or None.

        It may set `exchange.body` and `exchange.fields`: the rest of the way reads those, and
        the journal keeps what came.
        """

    def reset(self) -> None:
        """Count from the beginning."""


class Station(Protocol):
    """Sees each exchange at its end."""

    def end(self, exchange: Exchange) -> None:
        """Its answer was sent, or its caller is gone."""


class Family(msgspec.Struct, frozen=True):
    """
    How one vendor's API speaks before the API itself is asked.

    Attributes:
        desk: Compares keys and sets headers.
        dialect: Writes errors.
        find: The card of a model; None for one that is unknown.
    """

    desk: Desk
    dialect: Dialect
    find: Callable[[str], ModelCard | None]


class Gate:
    """
    The ASGI application that a simulator serves.

    Args:
        app: What answers in the end.
        family: Whose API it is, at `/v1`.
        others: Further APIs, by what stands before their paths, for example "/openai/v1".
        clock: Tells the time and waits.
        checks: Asked in this order, for requests that are charged.
        stations: Told at the end, in this order.
        journal: Takes requests down when they come, and their ends.
        faults: The plan of faults; None for none.
        house: Answers the simulator's own paths, `/_sim/...`.
        latency_s: Seconds before an answer.
    """

    def __init__(
        self,
        app: AsgiApp,
        *,
        family: Family,
        others: Mapping[str, Family] | None = None,
        clock: Clock,
        checks: Sequence[Check] = (),
        stations: Sequence[Station] = (),
        journal: Journal | None = None,
        faults: FaultPlan | None = None,
        house: AsgiApp | None = None,
        latency_s: float = 0.0,
    ) -> None:
        self._app = app
        self._usual = family
        self._others = tuple((others or {}).items())
        bases = ("/v1", *(others or {}))
        self._charged = frozenset(f"{base}/{path}" for base in bases for path in _CHARGED)
        self._clock = clock
        self._checks = checks
        self._stations = stations
        self._journal = journal
        self._faults = faults
        self._house = house
        self._latency_s = latency_s
        self._numbers = itertools.count(1)

    def reset(self) -> None:
        """Number the requests from 1 again."""
        self._numbers = itertools.count(1)
        if self._faults is not None:
            self._faults.reset()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Answer one request.

        Args:
            scope: ASGI's.
            receive: ASGI's.
            send: ASGI's.
        """
        if self._house is not None and scope["path"].startswith("/_sim/"):
            await self._house(scope, receive, send)
            return
        problem = None
        body = b""
        try:
            body = await read_body(receive, _BODY_BYTES)
        except CallerGone:
            return
        except RequestTooLarge as error:
            # Told when the key was compared: who has none is not told what we take.
            problem = error
        exchange = self._begun(scope, body)
        exchange.problem = problem
        CURRENT.set(exchange)
        try:
            await self._pass(exchange, scope, receive, send)
        finally:
            exchange.ended_s = self._clock.monotonic_s()
            self._settle(exchange)
            if self._journal is not None:
                self._journal.end(exchange)

    def _begun(self, scope: Scope, body: bytes) -> Exchange:
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        asked = Asked(
            number=next(self._numbers),
            method=scope["method"],
            path=scope["path"],
            query=scope["query_string"].decode("latin-1"),
            headers=headers,
            body=body,
        )
        exchange = Exchange(
            asked=asked,
            body=body,
            fields=_object(body) if body else None,
            began_s=self._clock.monotonic_s(),
            at_s=self._clock.now().timestamp(),
            key=_fingerprint(headers.get("authorization")),
        )
        if self._journal is not None:
            self._journal.begin(exchange)
        return exchange

    async def _pass(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        async def rest(scope: Scope, again: Receive, send: Send) -> None:
            send = self._noting(exchange, send)
            if await self._admitted(exchange, scope, send):
                if self._latency_s:
                    # Not the application's `receive`: that one still has the body to give.
                    await until_gone(receive, self._clock.sleep(self._latency_s))
                await self._app(scope, again, send)

        fault = None if self._faults is None else self._faults.plan(exchange)
        if exchange.model:
            exchange.card = self._family(scope["path"]).find(exchange.model)
        again = _again(exchange.body, receive)
        if fault is None:
            await rest(scope, again, send)
            return
        exchange.fault = fault.name
        await fault.act(scope, again, self._noting(exchange, send, unless_made=True), rest)

    async def _admitted(self, exchange: Exchange, scope: Scope, send: Send) -> bool:
        """Whether the application shall answer; if not, the request was refused."""
        if scope["path"] not in self._charged or scope["method"] != "POST":
            return True
        try:
            self._family(scope["path"]).desk.admit(exchange.asked.headers.get("authorization"))
            if exchange.problem is not None:
                raise exchange.problem
            # What is no JSON object is refused by the application, in its words.
            for check in self._checks if exchange.fields is not None else ():
                check(exchange)
        except RecursionError:
            # Python's own limit: the vendor's is not known.
            deep = InvalidRequest("the body is nested too deeply")
            await self._refuse(deep, exchange, send)
            return False
        except LoomError as error:
            await self._refuse(error, exchange, send)
            return False
        return True

    def _noting(self, exchange: Exchange, send: Send, *, unless_made: bool = False) -> Send:
        """Keep what is sent; behind a fault only where the application was not asked."""

        async def noting(message: Any) -> None:
            if not (unless_made and exchange.made):
                if message["type"] == "http.response.start":
                    exchange.status = message["status"]
                    exchange.sent = message["headers"]
                else:
                    data = message.get("body", b"")
                    if data:
                        exchange.pieces.append(data)
                    # Before it is sent: the caller's next request may come at once.
                    if not message.get("more_body") or b'"usage":' in data:
                        self._settle(exchange)
            await send(message)

        exchange.made = not unless_made
        return noting

    def _settle(self, exchange: Exchange) -> None:
        if exchange.told:
            return
        exchange.told = True
        if exchange.taken_s is not None and exchange.status == 200 and exchange.usage is None:
            exchange.usage = _usage_of(exchange)
        for station in self._stations:
            station.end(exchange)

    def _family(self, path: str) -> Family:
        for base, family in self._others:
            if path.startswith(base):
                return family
        return self._usual

    async def _refuse(self, error: LoomError, exchange: Exchange, send: Send) -> None:
        family = self._family(exchange.asked.path)
        reply = family.dialect.encode_error(error)
        elapsed_s = self._clock.monotonic_s() - exchange.began_s
        admitted = reply.status != 401
        outcome = Outcome(status=reply.status, admitted=admitted, elapsed_s=elapsed_s)
        limits = {} if error.rate_limit is None else error.rate_limit.headers
        headers = {**reply.headers, **family.desk.headers(outcome), **limits}
        await Line(send).whole(reply.status, headers, reply.body)


def _usage_of(exchange: Exchange) -> Usage | None:
    """The usage that a streamed answer told at its end."""
    for piece in reversed(exchange.pieces):
        if b'"usage"' in piece:
            for event in reversed(piece.split(b"data: ")):
                fields = _object(event)
                if fields is not None and fields.get("usage"):
                    return decode_usage(fields["usage"])
    return None


def _again(body: bytes, receive: Receive) -> Receive:
    first = True

    async def again() -> Any:
        nonlocal first
        if first:
            first = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return again


def _object(body: bytes) -> Mapping[str, Any] | None:
    try:
        value = _decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
    return value if isinstance(value, dict) else None


def _fingerprint(authorization: str | None) -> str:
    key = (authorization or "").partition(" ")[2].strip()
    return Secret(key).fingerprint if key else ""
