"""
A server made with the official package, for tests/shuttle/test_mcp.py; a script of its own.

It is started with "stdio", or with "http", where it prints its port as soon as it listens.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import Any

import uvicorn
from mcp import types
from mcp.server.mcpserver import Audio, Context, Image, MCPServer

PIXEL = b"\x89PNG pixel"
GROWN = "grown.tool/with a name that no model may use"

server = MCPServer("kitchen", log_level="CRITICAL")
begun = asyncio.Event()
cancelled = asyncio.Event()


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool(structured_output=False)
def echo(text: str) -> str:
    """Give the text back."""
    return text


@server.tool()
def environment() -> dict[str, str]:
    """All variables of this process."""
    return dict(os.environ)


@server.tool()
def told_headers(context: Context[Any, Any]) -> str:
    """What the request's header x-kitchen said."""
    return str((context.headers or {}).get("x-kitchen"))


@server.tool(structured_output=False)
def gallery() -> list[Any]:
    """One of each kind."""
    return [
        "look:",
        Image(data=PIXEL, format="png"),
        Audio(data=b"tone", format="mp3"),
        types.EmbeddedResource(
            resource=types.TextResourceContents(uri="file:///a.txt", text="the file")
        ),
        types.EmbeddedResource(
            resource=types.BlobResourceContents(
                uri="file:///b/report.pdf", mime_type="application/pdf", blob="UERG"
            )
        ),
        types.EmbeddedResource(
            resource=types.BlobResourceContents(
                uri="file:///c.png", mime_type="image/png", blob="SU1H"
            )
        ),
        types.EmbeddedResource(
            resource=types.BlobResourceContents(
                uri="file:///d.wav", mime_type="audio/x-wav", blob="V0FW"
            )
        ),
        types.ResourceLink(name="more", uri="https://example.org/more", mime_type="text/html"),
    ]


@server.tool()
def structured() -> types.CallToolResult:
    """A text, and a structure that says more."""
    return types.CallToolResult(
        content=[types.TextContent(text="two rows")], structured_content={"rows": [1, 2]}
    )


@server.tool()
def names() -> list[str]:
    """Texts, one each, and the same as a structure."""
    return ["ann", "bob"]


@server.tool()
def nothing() -> list[str]:
    """No texts."""
    return []


@server.tool()
def folder() -> str:
    """The current folder."""
    return str(Path.cwd())


@server.tool()
def refuse(reason: str, *, image: bool = False) -> types.CallToolResult:
    """Fail."""
    content: list[types.ContentBlock] = [types.TextContent(text=reason)]
    if image:
        content.append(types.ImageContent(data="SU1H", mime_type="image/png"))
    return types.CallToolResult(content=content, is_error=True)


@server.tool()
async def wait() -> str:
    """Wait until somebody cancels it."""
    begun.set()
    try:
        await asyncio.Event().wait()
    finally:
        cancelled.set()
    return "never"


@server.tool()
async def has_begun() -> str:
    """Answer as soon as `wait` has begun."""
    await begun.wait()
    return "yes"


@server.tool()
async def was_cancelled() -> str:
    """Answer as soon as `wait` was cancelled."""
    await cancelled.wait()
    return "cancelled"


@server.tool(structured_output=False)
def process() -> str:
    """The number of this process."""
    return str(os.getpid())


@server.tool(structured_output=False)
def die() -> str:
    """End in the middle of the call."""
    sys.stderr.write("the cook has left\n")
    sys.stderr.flush()
    os._exit(3)


@server.tool(structured_output=False)
async def grow(context: Context[Any, Any]) -> str:
    """Offer one more tool, and say so."""
    server.add_tool(echo, name=GROWN)
    await context.notify_tools_changed()
    return "grown"


@server.tool(structured_output=False)
async def shrink(context: Context[Any, Any]) -> str:
    """Withdraw what `grow` has added."""
    server.remove_tool(GROWN)
    await context.notify_tools_changed()
    return "shrunk"


async def serve_http() -> None:
    """Serve on a free port, and print it."""
    listener = socket.create_server(("127.0.0.1", 0))
    app = server.streamable_http_app(json_response="json" in sys.argv)
    runner = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on"))
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    await runner.serve([listener])


if __name__ == "__main__":
    if sys.argv[1] == "http":
        asyncio.run(serve_http())
    else:
        server.run("stdio")
