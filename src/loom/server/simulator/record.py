"""A proxy that hands everything on, and writes each whole exchange into a file without its key."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlsplit

from loom.core.errors import ConfigInvalid, LoomError
from loom.core.request import Timeouts
from loom.core.secret import Secret
from loom.server.line import CallerGone, Line, Receive, Scope, Send, read_body, until_gone
from loom.server.simulator.recordings import (
    Recording,
    kept_headers,
    prepare_folder,
    write_recording,
)
from loom.server.simulator.replay import parsed_body, target_of
from loom.transport.address import parse_address
from loom.transport.contract import HttpReply, HttpRequest, Transport
from loom.wire.dialect import Dialect

__all__ = ["Recorder"]

# As `server/app.py`: what a request's body may weigh.
_BODY_BYTES = 64 * 1024 * 1024
# RFC 9110, section 7.6.1: of one connection only; and what the transport sets itself. Bodies are
# asked for without compression, so that a file is readable and a stream comes as it is made.
_NOT_HANDED_ON = frozenset({
    "accept-encoding", "connection", "content-length", "expect", "host", "keep-alive",
    "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade",
})  # fmt: skip
# Request headers that are written: known to hold no secret. All others stay out.
_WRITTEN = ("accept", "content-type", "user-agent")
# Reply headers that are not written: session secrets of the edge.
_NOT_WRITTEN = frozenset({"set-cookie", "set-cookie2", "authorization", "proxy-authenticate"})
# Headers of a request whose value is a secret.
_SECRET = re.compile(r"authorization|cookie|key|token|secret|password", re.IGNORECASE)
_MASK = "[secret]"
# A model may think for long before its first byte.
_TIMEOUTS = Timeouts(first_byte_s=600.0, idle_s=600.0, total_s=3600.0)

_log = logging.getLogger("loom.server")


class Recorder:
    """
    The ASGI application.

    Callers send their own key; it goes to the upstream and into no file.

    Args:
        folder: Where the files go.
        upstream: The API's address, ending in `/v1`; https, or http on this machine.
        transport: The door to it.
        dialect: How an upstream that cannot be reached is told to the caller.

    Raises:
        ConfigInvalid: If the folder cannot be written, or the address is not such a one.
    """

    def __init__(
        self, folder: Path, upstream: str, *, transport: Transport, dialect: Dialect
    ) -> None:
        address = parse_address(upstream)
        if not (address.secure or address.loopback):
            raise ConfigInvalid(
                f"cannot record from {address.where}: without https the key would travel in clear"
            )
        prepare_folder(folder)
        self._folder = folder
        self._base = upstream.rstrip("/").removesuffix("/v1")
        self._source = f"{'https' if address.secure else 'http'}://{address.where}"
        self._transport = transport
        self._dialect = dialect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Hand a request on.

        Args:
            scope: ASGI's.
            receive: ASGI's.
            send: ASGI's.
        """
        line = Line(send)
        try:
            body = await read_body(receive, _BODY_BYTES)
            await until_gone(receive, self._pass(scope, body, line))
        except CallerGone:
            return
        except LoomError as error:
            if line.started:
                # What is left is to end without the end: the caller sees that the answer broke.
                _log.warning("the upstream broke an answer: %s", error)
                return
            reply = self._dialect.encode_error(error)
            await line.whole(reply.status, reply.headers, reply.body)

    async def _pass(self, scope: Scope, body: bytes, line: Line) -> None:
        sent = {name.decode("latin-1"): text.decode("latin-1") for name, text in scope["headers"]}
        request = HttpRequest(
            method=scope["method"],
            url=self._base + target_of(scope),
            headers=_handed_on(sent),
            body=body,
            timeouts=_TIMEOUTS,
            stream=True,
        )
        heard = bytearray()
        ended = False
        async with self._transport.open(request) as reply:
            try:
                await line.start(reply.status, _handed_back(reply.headers))
                async for chunk in reply.chunks():
                    heard += chunk
                    await line.piece(chunk)
                ended = True
            finally:
                # Many callers hang up at `[DONE]`: then the answer is whole all the same.
                if ended or heard.endswith(b"data: [DONE]\n\n"):
                    self._write(request, sent, reply, bytes(heard))
        await line.end()

    def _write(
        self, request: HttpRequest, sent: Mapping[str, str], reply: HttpReply, heard: bytes
    ) -> None:
        clean = _Cleaner(sent, request.url)
        recording = Recording(
            method=request.method,
            path=clean.text(request.url.removeprefix(self._base)),
            request_headers={k: clean.text(sent[k]) for k in _WRITTEN if k in sent},
            request_body=parsed_body(clean.data(request.body)),
            status=reply.status,
            headers={
                name: clean.text(text)
                for name, text in kept_headers(reply.headers).items()
                if name not in _NOT_WRITTEN
            },
            body=clean.data(heard),
        )
        try:
            write_recording(self._folder, recording, self._source)
        except OSError as error:
            # The caller has the answer; that it was not kept is ours to tell.
            _log.error("an exchange was not recorded: %s", error)


def _handed_on(sent: Mapping[str, str]) -> dict[str, str | Secret]:
    kept = {name: text for name, text in sent.items() if name not in _NOT_HANDED_ON}
    headers: dict[str, str | Secret] = {
        name: Secret(text) if _SECRET.search(name) else text for name, text in kept.items()
    }
    headers["accept-encoding"] = "identity"
    return headers


def _handed_back(came: Mapping[str, str]) -> dict[str, str]:
    headers = {
        name: text
        for name, text in came.items()
        if name not in _NOT_HANDED_ON and name != "content-encoding"
    }
    # The transport inflates what was compressed though nobody asked for that.
    if "content-length" in came and "content-encoding" not in came:
        headers["content-length"] = came["content-length"]
    return headers


class _Cleaner:
    """Takes the secrets of a request out of what is written, wherever they are echoed."""

    def __init__(self, sent: Mapping[str, str], url: str) -> None:
        secrets = {text for name, text in parse_qsl(urlsplit(url).query) if _SECRET.search(name)}
        for name, text in sent.items():
            if _SECRET.search(name):
                # "Bearer <key>" and "a=<value>; b=<value>": each word is one.
                secrets |= {word for word in re.split(r"[\s;=,]+", text) if len(word) > 6}
                secrets.add(text)
        forms = {
            form
            for each in secrets - {""}
            for form in (each, json.dumps(each)[1:-1], quote(each, safe=""))
        }
        # The longest first: a part of a secret must not hide the rest of it.
        ordered = sorted(forms, key=len, reverse=True)
        self._text = re.compile("|".join(map(re.escape, ordered)) or r"(?!)")
        raw = [re.escape(form.encode("utf-8", "surrogateescape")) for form in ordered]
        self._data = re.compile(b"|".join(raw) or rb"(?!)")

    def text(self, text: str) -> str:
        return self._text.sub(_MASK, text)

    def data(self, data: bytes) -> bytes:
        return self._data.sub(_MASK.encode(), data)
