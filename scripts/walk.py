"""
Walk through one call, from `Mistral.chat` to the socket and back, as it really runs.

One chat goes to a server on loopback while a profiler on every thread notes each step from one
file of the road into another, each event handed on, and what is held at that moment. The table
goes between the marks in `docs/architecture.md`; `--print` only shows it
(`tests/test_walk.py` compares the two).
"""

from __future__ import annotations

import ast
import gc
import inspect
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import loom

__all__ = ["main"]

REPOSITORY = Path(__file__).resolve().parents[1]
DOCUMENT = REPOSITORY / "docs" / "architecture.md"
SOURCE = Path(loom.__file__).resolve().parent
MARKS = ("<!-- walk -->", "<!-- /walk -->")

# What a reader opens, in this order. A file of ours that stands on the stack when the request
# leaves must be among them, and each of them must be met.
ROAD = (
    "client/blocking_calls.py",
    "client/portal.py",
    "client/calls.py",
    "core/provider.py",
    "layers/cost.py",
    "layers/window.py",
    "layers/retry.py",
    "providers/wired.py",
    "wire/mistral/dialect.py",
    "transport/exchange.py",
    "transport/http.py",
)
# Ten in the design, and one for the layer that tries again.
LONGEST_ROAD = 11
# Stands on the stack too, and has to do with errors alone.
ASIDE = {"client/discreet.py"}

ANSWER = {
    "id": "0af1b2c3d4e5f60718293a4b5c6d7e8f",
    "created": 1700000000,
    "model": "mistral-large-latest",
    "usage": {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10},
    "object": "chat.completion",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "tool_calls": None, "content": "Good day."},
        }
    ],
}


class Step(NamedTuple):
    """A line of the walk."""

    place: str
    name: str
    thread: str
    held: str
    event: str
    purpose: str


class Vendor(BaseHTTPRequestHandler):
    """Gives the same answer to every question."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Read the question, give the answer."""
        self.rfile.read(int(self.headers["content-length"]))
        body = json.dumps(ANSWER).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@contextmanager
def vendor() -> Iterator[str]:
    """Serve on a free port of loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Vendor)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Walk:
    """The profiler: it sees each call and return on every thread."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.on_the_way: set[str] = set()
        self._files: dict[str, str | None] = {}
        self._purposes: dict[str, dict[str, str]] = {}
        self._seen: set[tuple[str, str]] = set()
        self._open: list[str] = []
        self._exchange: Any = None
        self._running = False

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Take notes until the block ends."""
        self._running = True
        try:
            yield
        finally:
            self._running = False

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        """Take note of one call or return."""
        if not self._running or event not in ("call", "return"):
            return
        file = self._file(frame)
        if file is None:
            return
        if event == "call":
            self._called(frame, file)
        else:
            self._returned(frame, file, argument)

    def _file(self, frame: FrameType) -> str | None:
        name = frame.f_code.co_filename
        if name not in self._files:
            path = Path(name)
            inside = path.is_relative_to(SOURCE)
            self._files[name] = path.relative_to(SOURCE).as_posix() if inside else None
        return self._files[name]

    def _called(self, frame: FrameType, file: str) -> None:
        name = frame.f_code.co_qualname
        if name.startswith("Exchange."):
            self._exchange = frame.f_locals.get("self")
        if name.endswith("Request.send"):
            self.on_the_way |= set(self._stack(frame))
        stack = self._stack(frame.f_back)
        crossing = not stack or stack[0] != file
        if file not in ROAD or not crossing or (file, name) in self._seen:
            return
        purpose = self._purpose(file, name)
        if purpose is None:
            return
        self._seen.add((file, name))
        self._note(frame, frame.f_code.co_firstlineno, file, purpose=purpose)
        if frame.f_code.co_flags & inspect.CO_ASYNC_GENERATOR:
            self._open.append(name)

    def _returned(self, frame: FrameType, file: str, argument: object) -> None:
        name = frame.f_code.co_qualname
        if argument is None and name in self._open:
            self._open.remove(name)
        # An async generator hands on what it yields in a wrapper that only C can open.
        if type(argument).__name__ == "async_generator_wrapped_value":
            (event,) = gc.get_referents(argument)
            if type(event).__module__ == "loom.core.events":
                self._note(frame, frame.f_lineno, file, event=type(event).__name__)

    def _stack(self, frame: FrameType | None) -> list[str]:
        files = []
        while frame is not None:
            file = self._file(frame)
            if file is not None:
                files.append(file)
            frame = frame.f_back
        return files

    def _note(self, frame: FrameType, line: int, file: str, **more: str) -> None:
        self.steps.append(
            Step(
                place=f"{file}:{line}",
                name=frame.f_code.co_qualname,
                thread="portal" if "portal" in threading.current_thread().name else "caller",
                held=self._held(),
                event=more.get("event", ""),
                purpose=more.get("purpose", ""),
            )
        )

    def _held(self) -> str:
        held = [f"`{name}`" for name in self._open]
        # Its two things that must be given back; on its way to be made it has neither.
        for attribute, thing in (("_pool", "slot"), ("_line", "socket")):
            if getattr(self._exchange, attribute, None) is not None:
                held.append(thing)
        return ", ".join(held)

    def _purpose(self, file: str, name: str) -> str | None:
        """Give a function's first line of docstring; None for properties and what has none."""
        if file not in self._purposes:
            tree = ast.parse((SOURCE / file).read_text(encoding="utf-8"))
            self._purposes[file] = dict(_purposes(tree, ""))
        return self._purposes[file].get(name)


def _purposes(node: ast.AST, prefix: str) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield from _purposes(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            document = ast.get_docstring(child)
            if document and "property" not in map(ast.unparse, child.decorator_list):
                yield f"{prefix}{child.name}", document.partition("\n")[0]
            yield from _purposes(child, f"{prefix}{child.name}.<locals>.")


def walk() -> Walk:
    """Make one call under the profiler."""
    import aiohttp  # noqa: F401, PLC0415  its import is no part of the walk

    notes = Walk()
    threading.setprofile(notes)
    with vendor() as url, loom.Mistral("a-key", base_url=url) as client:
        sys.setprofile(notes)
        try:
            with notes.recording():
                client.chat("Hello")
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
    return notes


def table(notes: Walk) -> str:
    """Lay the walk out, and check that the road is the road."""
    met = {step.place.partition(":")[0] for step in notes.steps}
    strays = notes.on_the_way - set(ROAD) - ASIDE
    if strays or set(ROAD) - met or len(ROAD) > LONGEST_ROAD:
        raise SystemExit(f"ROAD is wrong: add {sorted(strays)}, drop {sorted(set(ROAD) - met)}")
    rows = ["| | where | what | thread | held | event |", "|---|---|---|---|---|---|"]
    for number, step in enumerate(notes.steps, 1):
        what = f"`{step.name}`" + (f": {step.purpose}" if step.purpose else "")
        event = f"`{step.event}`" if step.event else ""
        rows.append(
            f"| {number} | `{step.place}` | {what} | {step.thread} | {step.held} | {event} |"
        )
    return "\n".join(rows)


def main() -> None:
    """Print the walk, or write it into the document."""
    made = table(walk())
    if "--print" in sys.argv[1:]:
        print(made)
        return
    text = DOCUMENT.read_text(encoding="utf-8")
    head, _, rest = text.partition(MARKS[0])
    _, _, tail = rest.partition(MARKS[1])
    DOCUMENT.write_text(f"{head}{MARKS[0]}\n\n{made}\n\n{MARKS[1]}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
