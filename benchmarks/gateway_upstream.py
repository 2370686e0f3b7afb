"""
The vendor behind the gateways: one address, and the prompt says how to answer.

It prints its port and serves until its standard input is closed. A gateway does not hand a path
on, so the first word of the prompt names the kind of `upstream.py`: plain, burst, paced, or short
(a stream of ten events, all at once). An idle stream says one word and then nothing: after
`POST /release` all of them end, and `POST /keep-alive` sends each a comment. `GET /count` gives
the calls, and whatever else was asked.
"""

from __future__ import annotations

import json
import re
from typing import ClassVar

from upstream import STREAM_STARTS, Upstream, chunked, main, reply, stream_events

__all__ = ["CALLS", "Vendor"]

# Under which name the calls are counted.
CALLS = "calls"

_KIND = re.compile(rb'"content":\s*"(plain|burst|paced|short|idle) ')
_STREAMED = re.compile(rb'"stream":\s*true')
_NOT_FOUND = reply(json.dumps({"detail": "Not Found"}).encode(), b"404 Not Found")
_UNCLEAR = reply(json.dumps({"detail": "what shall I answer?"}).encode(), b"400 Bad Request")
_DONE = reply(b"{}")

_ROLE, _WORD, *_OTHERS = stream_events("idle")
_RESTS = STREAM_STARTS + chunked(_ROLE, _WORD)
_TOLD = {"release": chunked(*_OTHERS, b""), "keep-alive": chunked(b": keep-alive\n\n")}


class Vendor(Upstream):
    """One connection, kept alive."""

    resting: ClassVar[list[Vendor]] = []

    def answer(self, kind: str, body: bytes) -> None:
        """Answer one request; `kind` is the first part of its path, the same for all calls."""
        if kind in _TOLD:
            self._tell(kind)
            return
        if not body:  # whoever asks for the models gets none
            self.write(_NOT_FOUND)
            return
        self._counts[CALLS] += 1
        found = _KIND.search(body)
        kind = found[1].decode() if found else ""
        if not found or (kind != "plain") != bool(_STREAMED.search(body)):
            self.write(_UNCLEAR)
        elif kind == "idle":
            self.resting.append(self)
            self.write(_RESTS)
        else:
            super().answer(kind, body)

    def _tell(self, kind: str) -> None:
        for one in self.resting:
            one.write(_TOLD[kind])
        if kind == "release":
            self.resting.clear()
        self.write(_DONE)


if __name__ == "__main__":
    main(Vendor)
