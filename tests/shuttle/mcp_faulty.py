"""
MCP servers with a fault each, written by hand: what the official package would never do.

`python mcp_faulty.py FAULT LIFE`: LIFE is a named pipe that this process writes its number to and
keeps open, so that whoever reads it to its end knows when the process is gone.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any, TextIO

FAULT = sys.argv[1]
LIFE = os.open(sys.argv[2], os.O_WRONLY) if len(sys.argv) > 2 else None

CAPABILITIES: dict[str, Any] = {"toolless": {}, "changes": {"tools": {"listChanged": True}}}
ECHO = {"name": "echo", "description": "", "inputSchema": {"type": "object"}}


grown: list[dict[str, Any]] = []


def write(line: str, stream: TextIO = sys.stdout) -> None:
    """Write a line at once."""
    stream.write(f"{line}\n")
    stream.flush()


def say(message: dict[str, Any]) -> None:
    """Write a message."""
    write(json.dumps({"jsonrpc": "2.0", **message}))


def listing(cursor: str | None) -> dict[str, Any]:
    """A page of tools."""
    if FAULT == "endless":
        return {"tools": [ECHO], "nextCursor": "again"}
    if FAULT == "changes":
        return {"tools": [ECHO, *grown]}
    if FAULT != "pages":
        return {"tools": [ECHO]}
    first = int(cursor or 0)
    tools = [{**ECHO, "name": f"tool-{number}"} for number in range(first, first + 100)]
    return {"tools": tools, **({"nextCursor": str(first + 100)} if first < 900 else {})}


def answer(method: str, params: dict[str, Any]) -> dict[str, Any]:
    """What a server of 2025 answers."""
    if method == "initialize":
        return {
            "result": {
                "protocolVersion": "2025-06-18",
                "capabilities": CAPABILITIES.get(FAULT, {"tools": {}}),
                "serverInfo": {"name": "faulty", "version": "1"},
            }
        }
    if method == "tools/list":
        if FAULT == "no-listing":
            return {"error": {"code": -32603, "message": "the list is lost"}}
        return {"result": listing(params.get("cursor"))}
    if method == "tools/call":
        return called(params)
    return {"error": {"code": -32601, "message": "no such method"}}


def called(params: dict[str, Any]) -> dict[str, Any]:
    """The result of a call."""
    if FAULT == "dies-in-call":
        os._exit(1)
    if FAULT == "changes":
        grown.append({**ECHO, "name": f"grown-{len(grown)}"})
        say({"method": "notifications/tools/list_changed"})
    if FAULT == "hologram":
        return {"result": {"content": [{"type": "hologram", "data": "?"}]}}
    if FAULT == "floods":
        while True:
            sys.stdout.write(" " * 65536)
    if FAULT == "tells":
        key = os.environ["KEY"]
        write(f"my key is {key}", sys.stderr)
        return {"error": {"code": -32000, "message": f"refused: {key}"}}
    if FAULT == "silent":
        return {}
    text = json.dumps(params.get("arguments"))
    return {"result": {"content": [{"type": "text", "text": text}]}}


def begin() -> None:
    """Do what comes before the first message."""
    if LIFE is not None:
        os.write(LIFE, f"{os.getpid()}\n".encode())
    if FAULT == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if FAULT == "exits":
        write("usage: faulty [--flag]", sys.stderr)
        sys.exit(2)
    if FAULT in ("garbage", "noisy"):
        write("Welcome to the server!")
    if FAULT == "noisy":
        sys.stdout.buffer.write(b"\xff\xfe no text\n")


def reply(message: dict[str, Any], cancelled: list[Any]) -> dict[str, Any]:
    """What is said to a message; empty for nothing."""
    if message.get("method") == "notifications/cancelled":
        cancelled.append(message["params"]["requestId"])
    if "id" not in message or FAULT in ("hangs", "garbage"):
        return {}
    params = message.get("params") or {}
    if FAULT == "silent" and params.get("arguments") == {"ask": 1}:
        return {"result": {"content": [{"type": "text", "text": str(len(cancelled))}]}}
    return answer(message["method"], params)


def main() -> None:
    """Serve until the input ends."""
    begin()
    cancelled: list[Any] = []
    for line in sys.stdin:
        message = json.loads(line)
        if said := reply(message, cancelled):
            say({"id": message["id"], **said})
        if FAULT == "dies-idle" and message["method"] == "tools/list":
            sys.exit(0)
    while FAULT == "stubborn":
        signal.pause()


if __name__ == "__main__":
    main()
