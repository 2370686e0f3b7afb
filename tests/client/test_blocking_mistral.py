"""`Mistral`: the same face as `AsyncMistral`, over a fake transport and over real sockets."""

from __future__ import annotations

import asyncio
import gc
import inspect
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.client.loopback import WORDS, Vendor, answer, chunk, chunks, vendor

from loom.client.aio import AsyncMistral
from loom.client.blocking import Mistral, Stream
from loom.client.stream import AsyncStream
from loom.core.errors import InvalidAPIKey, InvalidRequest, StreamTruncated, Unreachable
from loom.core.events import Completed, TextDelta
from loom.testing import FakeReply, FakeTransport

KEY = "test-key-for-loopback"
TEXT = "".join(WORDS)


def fake(*replies: FakeReply | Exception) -> FakeTransport:
    return FakeTransport(*replies or (FakeReply.of(answer()),))


def streamed() -> FakeTransport:
    return fake(FakeReply.sse(*chunks()))


def client(transport: FakeTransport, **options: Any) -> Mistral:
    return Mistral(KEY, transport=transport, **options)


@pytest.fixture
def server() -> Iterator[Vendor]:
    with vendor() as server:
        yield server


def face(kind: type) -> dict[str, str]:
    found = {"__init__": str(inspect.signature(kind))} if kind in (Mistral, AsyncMistral) else {}
    for part in reversed(kind.__mro__):
        for name, value in vars(part).items():
            call = value.fget if isinstance(value, property) else value
            if not name.startswith("_") and call is not None:
                found[name] = str(inspect.signature(call))
    return found


BOTH = pytest.mark.parametrize(
    ("blocking", "asynchronous"), [(Mistral, AsyncMistral), (Stream, AsyncStream)]
)


class TestTwins:
    """The blocking class and the async one have one face."""

    @BOTH
    def test_the_signatures_agree(self, blocking: type, asynchronous: type) -> None:
        """Every public method has its twin, with the same arguments, defaults and types."""
        expected = {
            "close" if name == "aclose" else name: signature.replace("Async", "")
            for name, signature in face(asynchronous).items()
        }

        assert expected == face(blocking)

    @BOTH
    def test_the_special_methods_agree(self, blocking: type, asynchronous: type) -> None:
        """`with`, `for` and their async forms are there on both sides."""
        for name in ("enter", "exit", "iter", "next"):
            assert hasattr(asynchronous, f"__a{name}__") == hasattr(blocking, f"__{name}__")

    @pytest.mark.anyio
    async def test_they_give_the_same(self) -> None:
        """Same replies, same answer and same events."""
        transport = fake(FakeReply.of(answer()), FakeReply.sse(*chunks()))
        async with AsyncMistral(KEY, transport=transport) as aio:
            answers = [await aio.chat("Hi")]
            events = [event async for event in aio.stream("Hi")]
        with client(fake(FakeReply.of(answer()), FakeReply.sse(*chunks()))) as blocking:
            same = blocking.chat("Hi")
            assert answers[0].choices == same.choices
            assert answers[0].usage == same.usage
            assert [type(event) for event in events] == [type(e) for e in blocking.stream("Hi")]


class TestFake:
    """Over a fake transport: what is closed when."""

    def test_chat_answers(self) -> None:
        """A question gets its answer, its usage and its price."""
        transport = fake()
        with client(transport) as mistral:
            response = mistral.chat("Hi", temperature=0)

        assert TEXT == response.content
        assert 6 == response.usage.total_tokens
        assert 0 == transport.in_use
        assert transport.shut

    def test_a_stream_gives_its_text_and_its_answer(self) -> None:
        """The pieces make the text; `final` gives the whole, before and after reading."""
        with client(streamed()) as mistral:
            stream = mistral.stream("Hi")
            assert list(WORDS) == list(stream.text_stream)
            assert TEXT == stream.final().content
            assert TEXT == mistral.stream("Hi").final().content
            assert [] == list(stream)

    def test_the_socket_is_back_when_the_answer_is_complete(self) -> None:
        """At `Completed` nothing is held, though nobody closed the stream."""
        transport = streamed()
        with client(transport) as mistral:
            for event in mistral.stream("Hi"):
                if type(event) is Completed:
                    assert 0 == transport.in_use

    def test_leaving_a_stream_gives_the_socket_back(self) -> None:
        """After `with` nothing is held, and a part is not passed off as the answer."""
        transport = fake(FakeReply.sse(*[chunk("x")] * 5000))
        with client(transport) as mistral:
            with mistral.stream("Hi") as stream:
                for event in stream:
                    if isinstance(event, TextDelta):
                        break
            assert 0 == transport.in_use
            with pytest.raises(StreamTruncated, match="closed before"):
                stream.final()

    def test_a_stream_closed_before_it_began_sends_nothing(self) -> None:
        """Not even `final` begins it then."""
        transport = streamed()
        with client(transport) as mistral:
            with mistral.stream("Hi") as stream:
                pass
            with pytest.raises(StreamTruncated, match="closed before"):
                stream.final()

        assert [] == transport.requests

    def test_an_error_ends_the_stream(self) -> None:
        """The pieces before it come, then the error with what had arrived, then the end."""
        transport = fake(FakeReply.sse(chunk("Hel"), Unreachable("cut", phase="reset")))
        with client(transport) as mistral:
            stream = mistral.stream("Hi")
            with pytest.raises(StreamTruncated) as caught:
                list(stream)
            assert caught.value.partial is not None
            assert "Hel" == caught.value.partial.text
            assert [] == list(stream)

        assert 0 == transport.in_use

    def test_what_is_wrong_is_said_at_the_call(self) -> None:
        """A bad option raises where it is written, for a stream too, and nothing is sent."""
        transport = fake()
        with client(transport) as mistral:
            with pytest.raises(InvalidRequest):
                mistral.stream("Hi", temperature=2.5)
            with pytest.raises(InvalidRequest):
                mistral.chat("Hi", temperature=2.5)

        assert [] == transport.requests

    def test_a_forgotten_stream_warns_and_is_closed(self) -> None:
        """The socket of a stream that was dropped in the middle comes back."""
        transport = fake(FakeReply.sse(*[chunk("x")] * 5000))
        with client(transport) as mistral:
            box = [mistral.stream("Hi")]
            next(box[0])
            with pytest.warns(ResourceWarning, match="Stream was neither read to its end"):
                box.clear()
            mistral._lease.portal().call(_turns)
            assert 0 == transport.in_use

    def test_a_forgotten_client_is_closed_without_a_word(self) -> None:
        """A client works without `with`; collected, it closes its connections."""
        transport = fake()
        with client(fake()) as other:
            assert TEXT == client(transport).chat("Hi").content
            gc.collect()
            other.chat("Hi")
            other._lease.portal().call(_turns)
            assert transport.shut

    def test_a_stream_keeps_its_client(self) -> None:
        """`for event in Mistral().stream(...)` reads to the end."""
        transport = streamed()

        assert list(WORDS) == [
            event.text for event in client(transport).stream("Hi") if isinstance(event, TextDelta)
        ]

    def test_with_options_shares_the_connections(self) -> None:
        """The twin has other defaults, keeps the first alive, and closes nothing."""
        transport = fake()
        twin = client(transport).with_options(temperature=0.0, model="mistral-small-latest")
        gc.collect()
        assert "mistral-small-latest" == twin.model
        assert "mistral" == twin.name
        twin.close()
        assert TEXT == twin.chat("Hi").content
        assert b'"temperature":0' in transport.requests[0].body.replace(b" ", b"")
        assert not transport.shut
        assert twin._first is not None
        twin._first.close()
        assert transport.shut
        with pytest.raises(RuntimeError, match="closed"):
            twin.chat("Hi")

    def test_a_closed_client_refuses(self) -> None:
        """After `close`, calls and streams are a RuntimeError; a second `close` is not."""
        mistral = client(fake())
        mistral.close()
        mistral.close()

        with pytest.raises(RuntimeError, match="closed"):
            mistral.chat("Hi")
        with pytest.raises(RuntimeError, match="closed"):
            mistral.stream("Hi")
        assert repr(mistral).endswith("closed>")

    def test_a_client_that_was_never_made_is_no_trouble(self) -> None:
        """A bad key is an error, and the half-made object goes without a warning."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(InvalidAPIKey):
                Mistral("")
            gc.collect()

    def test_the_key_is_not_shown(self) -> None:
        """`repr` names the model and not the key."""
        with client(fake()) as mistral:
            assert KEY not in repr(mistral)
            assert "mistral-large-latest" in repr(mistral)


async def _turns() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


class TestSockets:
    """Over real sockets, with the real transport."""

    def test_chat_stream_and_ping(self, server: Vendor) -> None:
        """The three ways to ask all answer."""
        with Mistral(KEY, base_url=server.base_url) as mistral:
            assert TEXT == mistral.chat("Hi").content
            assert TEXT == "".join(mistral.stream("Hi").text_stream)
            assert TEXT == mistral.ping().content

    def test_many_threads(self, server: Vendor) -> None:
        """Threads ask at once through one client, chats and streams."""

        def ask(number: int) -> str:
            if number % 2:
                return mistral.chat("Hi").content
            return mistral.stream("Hi").final().content

        with Mistral(KEY, base_url=server.base_url) as mistral, ThreadPoolExecutor(8) as pool:
            assert [TEXT] * 64 == list(pool.map(ask, range(64)))

    @pytest.mark.anyio
    async def test_in_a_running_loop(self, server: Vendor) -> None:
        """A notebook's cell may call it."""
        with Mistral(KEY, base_url=server.base_url) as mistral:
            assert TEXT == mistral.chat("Hi").content

    def test_leaving_a_stream_hangs_up(self, server: Vendor) -> None:
        """The vendor sees the socket closed when the block is left."""
        with Mistral(KEY, base_url=server.base_url) as mistral:
            with mistral.stream("forever") as stream:
                assert WORDS[0] == next(stream.text_stream)
            assert server.hung_up.get(timeout=5)

    def test_a_forgotten_stream_hangs_up(self, server: Vendor) -> None:
        """The vendor sees the socket closed when the stream is collected."""
        with Mistral(KEY, base_url=server.base_url) as mistral:
            texts = mistral.stream("forever").text_stream
            assert WORDS[0] == next(texts)
            with pytest.warns(ResourceWarning):
                del texts
            assert server.hung_up.get(timeout=5)

    def test_closing_the_client_hangs_up(self, server: Vendor) -> None:
        """A stream that is open when its client is closed ends with an error."""
        mistral = Mistral(KEY, base_url=server.base_url)
        texts = mistral.stream("forever").text_stream
        assert WORDS[0] == next(texts)
        mistral.close()

        assert server.hung_up.get(timeout=5)
        with pytest.raises(RuntimeError, match="closed"):
            next(texts)
