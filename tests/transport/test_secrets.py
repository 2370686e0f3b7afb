"""The key is on the socket and nowhere else: not in an error, its chain, or its frames."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Iterator
from types import TracebackType

import pytest
from tests.transport import test_errors
from tests.transport.hostile import CANARY, STREAM_HEAD, Peer, Script, request, serve

from loom.core.errors import ConfigInvalid, LoomError, Unreachable
from loom.core.secret import Secret
from loom.transport.http import HttpTransport

pytestmark = pytest.mark.anyio

PASSWORD = "canary-proxy-password"


def shown(error: BaseException) -> Iterator[str]:
    """Give all that a careless reporter would write down of an exception."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield from (str(one), repr(one), repr(one.args), repr(vars(one)))
        yield from frames(one.__traceback__)
        todo += [one.__cause__, one.__context__]
    captured = traceback.TracebackException.from_exception(error, capture_locals=True)
    # The test's own frame made the request; the library's and ours follow it.
    captured.stack[:] = [f for f in captured.stack if "/tests/" not in f.filename]
    yield "".join(captured.format())


def frames(trace: TracebackType | None) -> Iterator[str]:
    while trace is not None:
        if "/tests/" not in trace.tb_frame.f_code.co_filename:
            yield from (repr(value) for value in trace.tb_frame.f_locals.values())
        trace = trace.tb_next


def assert_clean(error: BaseException) -> None:
    for text in shown(error):
        assert CANARY not in text
        assert PASSWORD not in text


async def echo(peer: Peer) -> None:
    """Send the request back as if it were a reply, as a broken proxy does."""
    await peer.send(await peer.request())
    await peer.gone()


async def echo_header(peer: Peer) -> None:
    key = (await peer.request()).partition(b"authorization: ")[2].partition(b"\r\n")[0]
    await peer.send(b"HTTP/1.1 200 OK\r\n" + key + b"\r\nbad header\r\n\r\n")
    await peer.gone()


async def echo_in_chunk(peer: Peer) -> None:
    key = (await peer.request()).partition(b"authorization: ")[2].partition(b"\r\n")[0]
    await peer.send(STREAM_HEAD + key + b"\r\n")
    await peer.gone()


async def silent(peer: Peer) -> None:
    await peer.request()
    await peer.gone()


async def redirecting(peer: Peer) -> None:
    await peer.request()
    await peer.answer(b"", b"location: /elsewhere", status=b"307 T")


@pytest.mark.parametrize(
    "script",
    [
        echo,
        echo_header,
        echo_in_chunk,
        silent,
        redirecting,
        test_errors.closed_at_once,
        test_errors.reset_at_once,
        test_errors.cut_head,
        test_errors.cut_body,
        test_errors.cut_chunks,
        test_errors.cut_gzip,
        test_errors.long_header,
        test_errors.broken_chunk,
        test_errors.broken_gzip,
    ],
)
async def test_no_error_shows_the_key(script: Script) -> None:
    """Whatever the server does, even when it sends the key back."""
    transport = HttpTransport()
    async with serve(script) as server:
        with pytest.raises(LoomError) as caught:
            async with transport.open(request(server.url, first_byte_s=0.1)) as reply:
                await reply.read()
        await transport.aclose()
    error = caught.value
    assert_clean(error)
    assert (None, None) == (error.__cause__, error.__context__)


async def test_errors_without_a_server_do_not_show_it() -> None:
    """Errors of the connection hold the address only."""
    transport = HttpTransport()
    for url in ("http://127.0.0.1:1/", "http://nowhere.invalid/", "http://2130706433/"):
        with pytest.raises(LoomError) as caught:
            async with transport.open(request(url)):
                pass
        assert_clean(caught.value)
    await transport.aclose()


async def test_a_cancelled_call_does_not_show_it() -> None:
    """The library's frames, which hold the headers, are cut from the cancellation."""
    transport = HttpTransport()
    async with serve(silent) as server:

        async def call() -> None:
            async with transport.open(request(server.url)):
                pass

        task = asyncio.ensure_future(call())
        while not server.requests:
            await asyncio.wait([task], timeout=0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert_clean(caught.value)
        await transport.aclose()


async def test_a_bad_header_is_not_shown() -> None:
    """A key with a line break is refused by its header's name; its value is nowhere."""
    sent = request("http://127.0.0.1:1/", headers={"x-key": Secret(f"{CANARY}\nx")})
    with pytest.raises(LoomError) as caught:
        async with HttpTransport().open(sent):
            pass
    assert_clean(caught.value)


async def test_a_proxy_password_is_not_shown() -> None:
    """Nor is the password of a proxy that cannot be reached or that refuses."""

    async def refuse(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"", status=b"407 Proxy Authentication Required")

    async with serve(refuse) as proxy:
        for where in ("127.0.0.1:1", proxy.where):
            for url in ("http://api.invalid/", "https://api.invalid/"):
                transport = HttpTransport(proxy=f"http://user:{PASSWORD}@{where}")
                with pytest.raises(Unreachable) as caught:
                    async with transport.open(request(url)):
                        pass
                await transport.aclose()
                assert "proxy" == caught.value.phase
                assert (where == "127.0.0.1:1") == caught.value.retryable
                assert_clean(caught.value)
                assert PASSWORD not in repr(vars(transport))
    assert any(b"proxy-authorization: basic" in sent.lower() for sent in proxy.requests)


async def test_a_proxy_carries_what_is_not_loopback() -> None:
    """A call goes through the proxy, a tunnel for https; one to this machine does not."""

    async def relay(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"from the proxy")

    async with serve(relay) as proxy, serve(relay) as local:
        transport = HttpTransport(proxy=f"http://{proxy.where}")
        async with transport.open(request("http://api.invalid/v1/models")) as reply:
            assert b"from the proxy" == await reply.read()
        async with transport.open(request(local.url)) as reply:
            assert 200 == reply.status
        await transport.aclose()
    assert proxy.requests[0].startswith(b"POST http://api.invalid/v1/models HTTP/1.1\r\n")
    assert (1, 1) == (len(proxy.requests), len(local.requests))


async def test_a_tunnel_shows_the_key_to_nobody() -> None:
    """Through a tunnel the proxy sees host and port alone."""

    async def refuse(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"", status=b"502 Bad Gateway")

    async with serve(refuse) as proxy:
        transport = HttpTransport(proxy=f"http://{proxy.where}")
        with pytest.raises(Unreachable, match="status 502") as caught:
            async with transport.open(request("https://api.invalid/v1")):
                pass
        await transport.aclose()
    assert caught.value.retryable
    assert proxy.requests[0].startswith(b"CONNECT api.invalid:443 ")
    assert CANARY.encode() not in proxy.requests[0]


@pytest.mark.parametrize(
    "proxy", ["socks5://h:1", "socks5h://h:1", "ftp://h", "h:1", "", "http://"]
)
def test_a_proxy_that_is_not_spoken(proxy: str) -> None:
    """A SOCKS proxy is refused with a word on what to do; so is what is no address."""
    what = "proxy is not supported: give an http://" if "socks" in proxy else "is not an address"
    with pytest.raises(ConfigInvalid, match=what):
        HttpTransport(proxy=proxy)


@pytest.mark.parametrize("variable", ["http_proxy", "HTTPS_PROXY", "ALL_PROXY"])
async def test_the_environment_is_not_read(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment is not used: only what was configured is."""
    monkeypatch.setenv(variable, "http://127.0.0.1:1")
    transport = HttpTransport()
    with pytest.raises(Unreachable) as caught:
        async with transport.open(request("http://nowhere.invalid/")):
            pass
    assert "dns" == caught.value.phase
    await transport.aclose()
