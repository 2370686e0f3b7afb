"""The simulator's own paths: `/_sim/journal`, `/_sim/reset`, `/_sim/clock`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

import msgspec

from loom.core.errors import InvalidRequest, LoomError
from loom.server.line import CallerGone, Line, Receive, Scope, Send, read_body
from loom.server.simulator.clock import SimulatedClock
from loom.server.simulator.journal import Journal

__all__ = ["House"]

# {"advance_s": 60} is all that is ever said here.
_BODY_BYTES = 4096


class House:
    """
    The ASGI application for what a test asks the simulator itself; it needs no key.

    Args:
        journal: What came.
        clock: What is moved.
        reset: Begins anew.
    """

    def __init__(
        self, *, journal: Journal, clock: SimulatedClock, reset: Callable[[], None]
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._reset = reset

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Answer one request.

        Args:
            scope: ASGI's.
            receive: ASGI's.
            send: ASGI's.
        """
        status = 200
        try:
            body = await read_body(receive, _BODY_BYTES)
            status, answer = self._answer(scope, body)
        except CallerGone:
            return
        except LoomError as error:
            status, answer = error.http_status, {"detail": error.message}
        # Web pages of other origins may not read it: no header says that they may.
        headers = {"content-type": "application/json"}
        await Line(send).whole(status, headers, msgspec.json.encode(answer))

    def _answer(self, scope: Scope, body: bytes) -> tuple[int, Mapping[str, Any]]:
        match scope["method"], scope["path"]:
            case "GET", "/_sim/journal":
                entries = self._journal.entries(_since(scope["query_string"]))
                return 200, {"object": "list", "data": [entry.to_json() for entry in entries]}
            case "DELETE", "/_sim/journal":
                self._journal.clear()
            case "POST", "/_sim/reset":
                self._reset()
            case "GET", "/_sim/clock":
                pass
            case "POST", "/_sim/clock":
                self._advance(body)
            case _, "/_sim/journal" | "/_sim/reset" | "/_sim/clock":
                return 405, {"detail": "Method Not Allowed"}
            case _:
                return 404, {"detail": "Not Found"}
        return 200, {"now": self._clock.now(), "entries": len(self._journal)}

    def _advance(self, body: bytes) -> None:
        try:
            self._clock.advance(msgspec.json.decode(body, type=_Advance).advance_s)
        except (msgspec.DecodeError, UnicodeError, ValueError):
            raise InvalidRequest(
                'the body must be {"advance_s": 60}: seconds, 0 to 1000000000'
            ) from None


class _Advance(msgspec.Struct, forbid_unknown_fields=True):
    advance_s: float


def _since(query: bytes) -> int:
    text = parse_qs(query.decode("latin-1")).get("since", ["0"])[-1]
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise InvalidRequest("since must be the number of an entry, as ?since=17")
    return int(text)
