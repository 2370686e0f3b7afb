"""Each row of the error table, brought about by a real server."""

from __future__ import annotations

import asyncio
import socket
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.transport.hostile import (
    BODY,
    STREAM_HEAD,
    Peer,
    Script,
    authority,
    request,
    serve,
    server_tls,
)

from loom.core.errors import (
    ConfigInvalid,
    InvalidRequest,
    LoomError,
    MalformedReply,
    TimedOut,
    TLSFailed,
    UnexpectedRedirect,
    Unreachable,
)
from loom.transport.errors import FAULTS, Scene, translate
from loom.transport.http import HttpTransport

pytestmark = pytest.mark.anyio


async def failure(script: Script, **options: object) -> LoomError:
    """Give the error that a call against such a server ends with."""
    transport = HttpTransport(provider_name="mistral")
    async with serve(script) as server:
        with pytest.raises(LoomError) as caught:
            async with transport.open(request(server.url, **options)) as reply:
                await reply.read()
        assert 0 == transport.permits_in_use
        await transport.aclose()
        assert 0 == transport.open_sockets
        await server.closed()
    assert "mistral" == caught.value.provider
    return caught.value


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def test_a_refused_connection() -> None:
    """Nobody listens: unreachable while connecting, and certainly not received."""
    transport = HttpTransport()
    with pytest.raises(Unreachable, match=r"Cannot connect to 127\.0\.0\.1") as caught:
        async with transport.open(request(f"http://127.0.0.1:{free_port()}/")):
            pass
    assert ("connect", False, True) == (
        caught.value.phase, caught.value.uncertain, caught.value.retryable
    )  # fmt: skip
    await transport.aclose()


async def test_an_unknown_name() -> None:
    """A name without an address: unreachable at the look-up."""
    transport = HttpTransport()
    with pytest.raises(Unreachable, match=r"No address was found for nowhere\.invalid") as caught:
        async with transport.open(request("http://nowhere.invalid/")):
            pass
    assert "dns" == caught.value.phase
    await transport.aclose()


async def test_a_certificate_of_an_unknown_authority(tmp_path: Path) -> None:
    """TLS fails and is not tried again; with the right authority the call goes through."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer()

    ca = tmp_path / "ca.pem"
    authority().cert_pem.write_to_path(str(ca))
    stranger, friend = HttpTransport(), HttpTransport(ca_file=str(ca))
    async with serve(script, tls=server_tls()) as server:
        with pytest.raises(TLSFailed, match="certificate verify failed") as caught:
            async with stranger.open(request(server.url)):
                pass
        async with friend.open(request(server.url)) as reply:
            assert b"{}" == await reply.read()
        await stranger.aclose()
        await friend.aclose()
        await server.closed()
    assert ("tls", False) == (caught.value.phase, caught.value.retryable)


async def test_a_certificate_of_another_name(tmp_path: Path) -> None:
    """A certificate for another name is refused."""

    async def script(peer: Peer) -> None:
        await peer.request()

    ca = tmp_path / "ca.pem"
    authority().cert_pem.write_to_path(str(ca))
    transport = HttpTransport(ca_file=str(ca))
    async with serve(script, tls=server_tls("api.example.org")) as server:
        with pytest.raises(TLSFailed, match="not valid for"):
            async with transport.open(request(server.url)):
                pass
    await transport.aclose()


async def test_tls_with_a_server_that_speaks_none() -> None:
    """Plain HTTP on an https address is a TLS fault, not a broken connection."""

    async def script(peer: Peer) -> None:
        await peer.reader.read(100)
        await peer.answer()
        await peer.gone()

    transport = HttpTransport()
    async with serve(script) as server:
        with pytest.raises(TLSFailed):
            async with transport.open(request(server.url.replace("http:", "https:"))):
                pass
    await transport.aclose()


async def test_a_reset_in_the_handshake() -> None:
    """A connection that ends during the handshake may be tried again."""

    async def script(peer: Peer) -> None:
        await peer.reader.read(100)
        peer.reset()

    transport = HttpTransport()
    async with serve(script) as server:
        with pytest.raises(Unreachable) as caught:
            async with transport.open(request(server.url.replace("http:", "https:"))):
                pass
    assert ("connect", True) == (caught.value.phase, caught.value.retryable)
    await transport.aclose()


async def test_the_certificates_cannot_be_read() -> None:
    """A wrong `ca_file` is named."""
    transport = HttpTransport(ca_file="/nowhere/ca.pem")
    with pytest.raises(ConfigInvalid, match=r"/nowhere/ca\.pem"):
        async with transport.open(request("https://127.0.0.1:1/")):
            pass
    assert 0 == transport.permits_in_use
    await transport.aclose()


async def test_ssl_cert_file_is_read_when_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSL_CERT_FILE holds even when it is set after the import of the HTTP library."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer()

    ca = tmp_path / "ca.pem"
    authority().cert_pem.write_to_path(str(ca))
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    transport = HttpTransport()
    async with serve(script, tls=server_tls()) as server:
        async with transport.open(request(server.url)) as reply:
            assert 200 == reply.status
        await transport.aclose()


async def closed_at_once(peer: Peer) -> None:
    await peer.request()


async def reset_at_once(peer: Peer) -> None:
    await peer.request()
    peer.reset()


async def cut_head(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\ncontent-")


async def cut_body(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")


async def reset_body(peer: Peer) -> None:
    await cut_body(peer)
    peer.reset()


async def cut_chunks(peer: Peer) -> None:
    await peer.request()
    await peer.send(STREAM_HEAD)
    await peer.chunk(b"data: {}\n\n")


async def cut_gzip(peer: Peer) -> None:
    await peer.request()
    squeezed = zlib.compress(b"{}" * 1000, wbits=31)
    await peer.answer(squeezed[:-9], b"content-encoding: gzip")


@pytest.mark.parametrize(
    "script",
    [closed_at_once, reset_at_once, cut_head, cut_body, reset_body, cut_chunks, cut_gzip],
)
async def test_a_broken_connection(script: Script) -> None:
    """An end before the reply's end is a reset, and the vendor may have received the request."""
    error = await failure(script)
    assert (Unreachable, "reset", True, True, 1) == (
        type(error), error.phase, error.uncertain, error.retryable, error.attempts
    )  # fmt: skip


async def not_http(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
    await peer.gone()


async def long_header(peer: Peer) -> None:
    await peer.request()
    await peer.answer(b"{}", b"x-long: " + b"x" * 70_000)
    await peer.gone()


async def endless_header(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nx-long: ")
    while True:
        await peer.send(b"x" * 10_000)


async def many_headers(peer: Peer) -> None:
    await peer.request()
    await peer.answer(b"{}", *(b"x-%d: 1" % n for n in range(1000)))
    await peer.gone()


async def two_lengths(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}{}")
    await peer.gone()


async def broken_chunk(peer: Peer) -> None:
    await peer.request()
    await peer.send(STREAM_HEAD)
    await peer.chunk(b"data: {}\n\n")
    await peer.send(b"this is no chunk\r\n")
    await peer.gone()


async def broken_gzip(peer: Peer) -> None:
    await peer.request()
    await peer.answer(b"\x1f\x8b\x08\x00" + b"\xff" * 20, b"content-encoding: gzip")


async def unknown_encoding(peer: Peer) -> None:
    await peer.request()
    await peer.answer(b"whatever", b"content-encoding: br")


@pytest.mark.parametrize(
    "script",
    [
        not_http,
        long_header,
        endless_header,
        many_headers,
        two_lengths,
        broken_chunk,
        broken_gzip,
        unknown_encoding,
    ],
)
async def test_what_comes_is_not_http(script: Script) -> None:
    """A reply that breaks the framing or the compression is malformed."""
    error = await failure(script, first_byte_s=5.0, idle_s=5.0)
    assert MalformedReply is type(error)
    # Fault matrix, rows 11 and 27: who does not speak HTTP will not the next time, and no answer
    # can have been made where the head itself was none.
    assert (script not in (broken_gzip, unknown_encoding)) == (not error.retryable)
    assert (script in (not_http, long_header, endless_header, many_headers)) == (
        not error.uncertain
    )


async def test_an_address_that_the_library_refuses() -> None:
    """Old forms of IPv4 addresses are refused, not looked up."""
    transport = HttpTransport()
    with pytest.raises(MalformedReply, match="is not an address") as caught:
        async with transport.open(request("http://2130706433:1/")):
            pass
    assert not caught.value.retryable
    await transport.aclose()


@pytest.mark.parametrize("url", ["", "/v1", "ftp://h/", "https://", "http://h:x/", "http://a b/"])
async def test_a_url_that_is_none(url: str) -> None:
    """A URL that is not absolute http or https is refused before anything is sent."""
    with pytest.raises(ConfigInvalid):
        HttpTransport().open(request(url))


@pytest.mark.parametrize("value", ["a\r\nx: y", "a\nb", "a\0b", "\udc80", "a\x7f"])
async def test_a_header_that_would_be_two(value: str) -> None:
    """A header that holds a line break or the like is named, its value is not, nothing is sent."""
    sent = request("http://127.0.0.1:1/", headers={"x-tenant": value})
    with pytest.raises(InvalidRequest, match="'x-tenant'") as caught:
        async with HttpTransport().open(sent):
            pass
    assert value not in str(caught.value)


async def test_a_header_whose_name_is_none() -> None:
    """A name with a colon or a space is refused."""
    with pytest.raises(InvalidRequest, match="'x y'"):
        async with HttpTransport().open(request("http://127.0.0.1:1/", headers={"x y": "1"})):
            pass


@pytest.mark.parametrize("status", [b"301 Moved", b"302 Found", b"307 T", b"308 P", b"304 N"])
async def test_a_redirect_is_not_followed(status: bytes) -> None:
    """The key does not go to another address: that one is not even connected to."""

    async def elsewhere(peer: Peer) -> None:
        await peer.request()
        await peer.answer()

    async with serve(elsewhere) as other:

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.answer(b"", b"location: %b?token=1" % other.url.encode(), status=status)

        error = await failure(script)
        assert 0 == other.accepted
        assert UnexpectedRedirect is type(error)
        assert f"http://{other.where};" in str(error)
        assert "token" not in str(error)


@pytest.mark.parametrize("status", [b"204 No Content", b"205 Reset", b"404 N", b"500 E", b"529 O"])
async def test_other_statuses_are_handed_up(status: bytes) -> None:
    """What a status means is decided above."""

    async def script(peer: Peer) -> None:
        await peer.request()
        if status.startswith(b"204"):
            await peer.send(b"HTTP/1.1 204 No Content\r\nx-a: 1\r\nX-A: 2\r\n\r\n")
        else:
            await peer.answer(b"why", b"x-a: 1", b"X-A: 2", status=status)
        await peer.gone()

    transport = HttpTransport()
    async with serve(script) as server:
        async with transport.open(request(server.url)) as reply:
            assert int(status[:3]) == reply.status
            assert "1, 2" == reply.headers["x-a"]
            assert (b"" if reply.status == 204 else b"why") == await reply.read()
        await transport.aclose()


async def test_an_interim_reply_is_passed_over() -> None:
    """After a 103 the final reply counts."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")
        await peer.answer(b"final")

    transport = HttpTransport()
    async with serve(script) as server:
        async with transport.open(request(server.url)) as reply:
            assert (200, b"final") == (reply.status, await reply.read())
        await transport.aclose()


@pytest.mark.parametrize("location", [b"http://[", b"//user:secret@h/", b"http://a\\b/", b""])
async def test_a_redirect_to_nowhere(location: bytes) -> None:
    """Of a location only scheme, host and port are ever shown."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"", b"location: " + location, status=b"302 Found")

    error = await failure(script)
    assert UnexpectedRedirect is type(error)
    assert "secret" not in str(error)
    assert "\\" not in str(error)


async def test_an_address_in_brackets() -> None:
    """An IPv6 address is shown as it is written."""
    transport = HttpTransport()
    with pytest.raises(Unreachable, match=r"\[::1\]:1"):
        async with transport.open(request("http://[::1]:1/")):
            pass
    await transport.aclose()


TOO_LONG = "x" * 63


@pytest.mark.parametrize("host", ["a..b", f"{TOO_LONG}x.example", f"\u00e9{TOO_LONG}.example"])
async def test_a_name_that_cannot_be_one(host: str) -> None:
    """What no resolver takes is our error too, not a bare one of a library."""
    transport = HttpTransport()
    with pytest.raises(ConfigInvalid, match="not an address"):
        async with transport.open(request(f"http://{host}/")):
            pass
    assert 0 == transport.permits_in_use
    await transport.aclose()


async def test_the_request_as_it_is_sent() -> None:
    """The key, the body and its length are on the socket; encodings are asked for by need."""

    async def script(peer: Peer) -> None:
        for _ in range(2):
            await peer.request()
            await peer.answer()

    transport = HttpTransport()
    async with serve(script) as server:
        for stream in (False, True):
            async with transport.open(request(server.url, stream=stream)) as reply:
                await reply.read()
        await transport.aclose()
    plain, streamed = (sent.lower() for sent in server.requests)
    assert plain.startswith(b"post /v1/chat/completions http/1.1\r\n")
    assert b"authorization: bearer canary" in plain
    assert b"accept-encoding: gzip, deflate\r\n" in plain
    assert b"accept-encoding: identity\r\n" in streamed
    assert plain.endswith(b"\r\n\r\n" + BODY)


def test_the_table_holds_for_the_library() -> None:
    """Each class that the table names is one of the library's, or of Python."""
    import builtins

    import aiohttp
    import aiohttp.http_exceptions

    homes = (aiohttp, aiohttp.http_exceptions, builtins)
    for fault in FAULTS:
        for name in filter(None, (fault.raised, fault.cause)):
            assert any(hasattr(home, name) for home in homes), name


def make_error(name: str) -> Exception:
    import aiohttp

    class Cause(Exception):
        pass

    made: dict[str, Callable[[], Exception]] = {
        "SocketTimeoutError": aiohttp.SocketTimeoutError,
        "ClientConnectionResetError": aiohttp.ClientConnectionResetError,
        "ClientConnectionError": aiohttp.ClientConnectionError,
        "ClientPayloadError": aiohttp.ClientPayloadError,
        "ConnectionResetError": ConnectionResetError,
        "TimeoutError": TimeoutError,
    }
    return made[name]()


@pytest.mark.parametrize(
    ("name", "running", "kind", "phase"),
    [
        ("SocketTimeoutError", "first_byte", TimedOut, "first_byte"),
        ("TimeoutError", "idle", TimedOut, "idle"),
        ("ClientConnectionResetError", "write", Unreachable, "reset"),
        ("ClientConnectionError", "first_byte", Unreachable, "reset"),
        ("ConnectionResetError", "idle", Unreachable, "reset"),
    ],
)
def test_rows_that_no_server_brings_about(
    name: str, running: str, kind: type[LoomError], phase: str
) -> None:
    """What depends on timing inside the library is looked up in the table alone."""
    scene = Scene("h:1", "", running, sent=True, provider=None)  # type: ignore[arg-type] # a phase
    error = translate(make_error(name), 1.0, scene)
    assert (kind, phase) == (type(error), error.phase)


def test_a_broken_content_encoding() -> None:
    """If the library inflated and failed, the reply was malformed, not cut."""
    import aiohttp
    from aiohttp.http_exceptions import ContentEncodingError

    raised = aiohttp.ClientPayloadError()
    raised.__cause__ = ContentEncodingError("broken")
    scene = Scene("h:1", "", "idle", sent=True, provider=None)
    assert MalformedReply is type(translate(raised, 1.0, scene))


async def test_the_loop_is_not_needed_to_make_one() -> None:
    """A transport is made outside of a loop too: nothing is opened before the first call."""
    transport = await asyncio.to_thread(HttpTransport)
    assert 0 == transport.open_sockets
    await transport.aclose()


def test_a_number_of_connections_that_is_none() -> None:
    """At least one connection is needed."""
    with pytest.raises(ConfigInvalid, match="at least 1"):
        HttpTransport(max_connections=0)
