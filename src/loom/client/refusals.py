"""What a blocking call is told when it cannot be made: misuse, so each is a RuntimeError."""

from __future__ import annotations

__all__ = ["CANCELLED", "CLOSED", "CLOSED_WHILE_READING", "EXITING", "FORKED", "ON_THE_PORTAL"]

CANCELLED = "the call was cancelled on the event loop, and not by its caller"
CLOSED = "the client is closed: make a new one, or close it after its last call"
CLOSED_WHILE_READING = "the stream was closed by another thread while this one was reading it"
EXITING = "the interpreter is exiting: no call can be made any more"
FORKED = "the stream was opened before this process was forked: open one of its own"
ON_THE_PORTAL = (
    "a blocking call was made on the thread that runs the event loop, and would wait for itself: "
    "use the async client there, or run the function in a worker thread (asyncio.to_thread)"
)
