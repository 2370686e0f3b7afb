"""A server that answers from recorded exchanges, and from nothing else."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from loom.core.ambient import Clock, SystemClock
from loom.core.errors import RequestTooLarge
from loom.server.line import CallerGone, Line, Receive, Scope, Send, read_body
from loom.server.simulator.meaning import exact_form, meaning, steps_that_differ
from loom.server.simulator.recordings import Recording, read_folder

__all__ = ["Replay", "Shelf", "parsed_body", "target_of"]

# As `server/app.py`: what a request's body may weigh.
_BODY_BYTES = 64 * 1024 * 1024
# A message with more places than this is not read.
_SHOWN_PLACES = 6


class Shelf:
    """
    Recorded exchanges, found by what they ask.

    The same request recorded several times is answered in the order of the files' names, then
    with the last again.

    Args:
        recordings: In that order.
    """

    def __init__(self, recordings: Sequence[Recording]) -> None:
        self._all = tuple(recordings)
        self._by_form: list[dict[tuple[str, ...], list[Recording]]] = []
        # Exact first; the meaning only where no recording is written in the same way.
        self._forms: tuple[Callable[[Any], str], ...] = (exact_form, meaning)
        for form in self._forms:
            table: dict[tuple[str, ...], list[Recording]] = defaultdict(list)
            for each in recordings:
                table[each.method, each.path, form(each.request_body)].append(each)
            self._by_form.append(dict(table))
        self._given: Counter[tuple[str, ...]] = Counter()

    def find(self, method: str, path: str, body: Any) -> Recording | None:
        """
        The recording that answers a request.

        Args:
            method: "POST", "GET", ...
            path: With the query.
            body: JSON values, a text, or None.

        Returns:
            The next of those that fit; None if none does.
        """
        for form, table in zip(self._forms, self._by_form, strict=True):
            if fitting := table.get((method, path, form(body))):
                key = (form.__name__, method, path, form(body))
                number = self._given[key]
                self._given[key] += 1
                return fitting[min(number, len(fitting) - 1)]
        return None

    def explain(self, method: str, path: str, body: Any) -> str:
        """
        Why there is no answer: what was asked, and what is nearest. No prompt is shown.

        Args:
            method: "POST", "GET", ...
            path: With the query.
            body: JSON values, a text, or None.
        """
        model = body.get("model") if isinstance(body, dict) else None
        asked = f"{method} {path}" + (f" for {model}" if isinstance(model, str) else "")
        same = [each for each in self._all if (each.method, each.path) == (method, path)]
        if not same:
            had = ", ".join(sorted({f"{each.method} {each.path}" for each in self._all}))
            return f"No recording of {asked}. Recorded are: {had}."
        differing = {each.file: steps_that_differ(body, each.request_body) for each in same}
        file = min(differing, key=lambda name: (len(differing[name]), name))
        places = differing[file]
        more = f" and {len(places) - _SHOWN_PLACES} more" if len(places) > _SHOWN_PLACES else ""
        return (
            f"No recording of {asked} with this body. The nearest of {len(same)} is {file}; it"
            f" differs in {', '.join(places[:_SHOWN_PLACES])}{more}."
        )


class Replay:
    """
    The ASGI application.

    It asks for no key: a recording of a refused key is an answer like others.

    Args:
        folder: The recordings.
        clock: Lets others in between the events of a stream.

    Raises:
        ConfigInvalid: If the folder holds none, or something else.
    """

    def __init__(self, folder: Path, *, clock: Clock | None = None) -> None:
        self._shelf = Shelf(read_folder(folder))
        self._clock = clock or SystemClock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Answer a request.

        Args:
            scope: ASGI's.
            receive: ASGI's.
            send: ASGI's.
        """
        line = Line(send)
        method, path = scope["method"], target_of(scope)
        try:
            body = parsed_body(await read_body(receive, _BODY_BYTES))
        except CallerGone:
            return
        except RequestTooLarge as error:
            await _refuse(line, 413, error.message)
            return
        try:
            found = self._shelf.find(method, path, body)
            reason = "" if found else self._shelf.explain(method, path, body)
        except RecursionError:
            await _refuse(line, 400, "The body is nested too deeply to be compared.")
            return
        if found is None:
            await _refuse(line, 404, reason)
        elif found.stream:
            await self._stream(line, found)
        else:
            await line.whole(found.status, found.headers, found.body)

    async def _stream(self, line: Line, found: Recording) -> None:
        await line.start(found.status, found.headers)
        *events, rest = found.body.split(b"\n\n")
        for event in events:
            await line.piece(event + b"\n\n")
            await self._clock.sleep(0)
        await line.end(rest)


async def _refuse(line: Line, status: int, message: str) -> None:
    envelope = {
        "object": "error",
        "message": message,
        "type": "not_recorded" if status == 404 else "invalid_request_error",
        "param": None,
        "code": None,
        "raw_status_code": status,
    }
    headers = {"content-type": "application/json"}
    await line.whole(status, headers, msgspec.json.encode(envelope))


def target_of(scope: Scope) -> str:
    """
    What a request names: path and query as they were sent.

    Args:
        scope: ASGI's.
    """
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope["query_string"]
    return (raw + (b"?" + query if query else b"")).decode("latin-1")


def parsed_body(body: bytes) -> Any:
    """
    A body as it is recorded.

    Args:
        body: As it came.

    Returns:
        JSON values; a text where it is no JSON; None where it is empty.
    """
    if not body:
        return None
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return body.decode("utf-8", "replace")
