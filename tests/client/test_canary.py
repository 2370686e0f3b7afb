"""
Two canaries, a key and a prompt, go through every error; neither is found anywhere it may be shown.

The project's reliability rules R-45 and S8. What a caller asks for holds what he asked for: an
error's `partial` the answer so far, and the content attributes of `Telemetry(content=True)`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from rich.pretty import pretty_repr
from tests.client.canary import Log, chain, leaks, places
from tests.layers.telemetry import Seen

from loom.client.aio import AsyncMistral
from loom.client.blocking import Mistral
from loom.client.stream import AsyncStream
from loom.core.errors import CallerError, LoomError, StreamTruncated
from loom.core.events import Rerouted, Retried, StreamEvent
from loom.core.messages import Message, ToolCall
from loom.core.request import ChatRequest, Timeouts, ToolSpec
from loom.core.route import Fallback, Route
from loom.core.secret import Secret
from loom.layers.breaker import Breaker
from loom.layers.retry_policy import RetryPolicy
from loom.providers.improvise import Draft
from loom.providers.scripted import ScriptedProvider
from loom.server.simulator import Simulator
from loom.server.simulator.faults import fault_table
from loom.testing import FakeReply, FakeTransport, no_waits
from loom.transport.contract import HttpRequest
from loom.wire.encoded import EncodedRequest

KEY, OTHER = "loom-canary-key-0123456789", "loom-canary-other-9876543210"
KEYS = (KEY, OTHER)
PROMPT = ("canaryprompt", "canarysystem", "canaryarguments", "canarymetadata", "canarytool")
ANSWER = ("canaryanswer", "canarythought")
MODEL = "mistral-small-latest"

CALL = ToolCall("abcdefghi", "look", {"what": "canaryarguments"})
ASKED = [
    Message.system("canarysystem"),
    Message.user("canaryprompt one"),
    Message.assistant(tool_calls=(CALL,)),
    Message.tool(CALL, "canaryprompt two"),
    Message.user("canaryprompt three"),
]
OPTIONS: dict[str, Any] = {
    "tools": [ToolSpec(name="look", description="canarytool", parameters={"type": "object"})],
    "metadata": {"note": "canarymetadata"},
}

# What waits for time waits for the client's limits: short ones.
HASTY = Timeouts(connect_s=5, write_s=5, first_byte_s=0.1, idle_s=0.1, total_s=20)
SLOW = ("7-unread", "8-no-headers", "10-stall-body", "14-stall", "25-comments-only")
QUICK = {"25-comments-only": "25-comments-only;seconds=0.05", "26-gzip-bomb": "26-gzip-bomb;mib=66"}
ROWS = [row.id for row in fault_table().rows if row.raises]

Ask = Callable[[dict[str, Any]], list[StreamEvent]]


def draft(_request: ChatRequest, _seed: int, _number: int) -> Draft:
    return Draft(thinking="canarythought " * 4, text="canaryanswer " * 8)


def simulated() -> Simulator:
    return Simulator(any_key=True, provider=ScriptedProvider(compose=draft))


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with simulated() as running:
        yield running


@pytest.fixture
def log() -> Iterator[Log]:
    """Listen to everything, at any level, in every library."""
    root, listener = logging.getLogger(), Log()
    level = root.level
    root.addHandler(listener)
    root.setLevel(1)
    yield listener
    root.setLevel(level)
    root.removeHandler(listener)


def options(sim: Simulator, fault: str, seen: Seen) -> dict[str, Any]:
    return {
        "api_key": KEY,
        "base_url": sim.base_url,
        "model": MODEL,
        "headers": {"x-loom-fault": QUICK.get(fault, fault)},
        "timeouts": HASTY if fault in (*SLOW, "toxic-timeout") else Timeouts(),
        "retry": RetryPolicy(attempts=2),
        "breaker": Breaker(min_calls=2),
        "fallback": [Route(model="ministral-8b-latest", api_key=OTHER)],
        "telemetry": seen.telemetry,
    }


def blocking_chat(given: dict[str, Any]) -> list[StreamEvent]:
    with Mistral(**given) as m:
        m.chat(ASKED, **OPTIONS)
    return []


def blocking_stream(given: dict[str, Any]) -> list[StreamEvent]:
    with Mistral(**given) as m, m.stream(ASKED, **OPTIONS) as stream:
        return list(stream)


def async_chat(given: dict[str, Any]) -> list[StreamEvent]:
    async def ask() -> None:
        async with AsyncMistral(**given) as m:
            await m.chat(ASKED, **OPTIONS)

    asyncio.run(ask())
    return []


def async_stream(given: dict[str, Any]) -> list[StreamEvent]:
    async def ask() -> list[StreamEvent]:
        async with AsyncMistral(**given) as m, m.stream(ASKED, **OPTIONS) as stream:
            return [event async for event in stream]

    return asyncio.run(ask())


def caught(make: Callable[[], object]) -> BaseException | None:
    try:
        make()
    except Exception as error:  # noqa: BLE001 - whatever comes out is looked at
        return error
    return None


def shown(error: BaseException) -> list[tuple[str, str]]:
    """Give every place, and without an error's `partial` those where an answer may not be."""
    return [(place, text) for place, text in places(error) if not place.startswith("pickle")]


@pytest.mark.parametrize("fault", ROWS)
def test_no_error_shows_a_key_or_a_prompt(sim: Simulator, log: Log, fault: str) -> None:
    """Every row of the fault table, four ways to call, with retries, breaker, route, telemetry."""
    seen = Seen()
    ways: list[Ask] = [blocking_chat, blocking_stream, async_chat, async_stream]
    failed = 0
    with no_waits():
        for ask in ways:
            error = caught(lambda ask=ask: ask(options(sim, fault, seen)))  # type: ignore[misc] # a lambda's default
            if error is None:
                continue  # a row may hold for streams alone
            failed += 1
            assert isinstance(error, LoomError)
            assert [] == leaks(KEYS + PROMPT, places(error))
            assert [] == leaks(ANSWER, shown(error))
    assert failed >= 1
    assert 4 == len(seen.spans)
    assert [] == leaks(KEYS + PROMPT + ANSWER, [("telemetry", seen.dump()), *log.said])
    assert any(place == "log of loom.mistral" for place, _ in log.said)


@pytest.mark.parametrize("ask", [blocking_stream, async_stream])
def test_no_notice_shows_a_key_or_a_prompt(ask: Ask) -> None:
    """`Retried` and `Rerouted` carry errors whose frames are the library's."""
    with simulated() as sim, no_waits():
        events = ask(options(sim, "503;times=2", Seen()))
    errors = [event.error for event in events if isinstance(event, Retried | Rerouted)]
    assert 2 == len(errors)
    for error in errors:
        # The frames of a route that answered after all may hold the answer.
        assert [] == leaks(KEYS + PROMPT, places(error))


def test_content_is_shown_in_its_attributes_alone(log: Log) -> None:
    """Who asks for content gets it there, and neither in metrics nor in the log."""
    seen = Seen(content=True)
    with simulated() as sim, no_waits():
        blocking_stream(options(sim, "503;times=1", seen))
    content = {"gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions",
               "gen_ai.tool.definitions"}  # fmt: skip
    found = seen.attributes
    assert leaks(PROMPT[:3] + ANSWER, [(name, str(found[name])) for name in content])
    others = [(name, str(value)) for name, value in found.items() if name not in content]
    assert [] == leaks(KEYS + PROMPT + ANSWER, [*others, ("metrics", str(seen.metrics()))])
    assert [] == leaks(KEYS, [("spans", seen.dump())])
    assert [] == leaks(PROMPT + ANSWER, log.said)


def made_wrongly(kind: type, **more: Any) -> Callable[[], object]:
    return lambda: kind(KEY, **more)


@pytest.mark.parametrize("kind", [Mistral, AsyncMistral])
@pytest.mark.parametrize(
    "wrong",
    [
        {"headers": {"authorization": "x"}},
        {"base_url": "ftp://example.org"},
        {"max_tokens": -1},
        {"timeout_s": "soon"},
        {"fallback": Route(base_url="https://example.org")},
        {"retry": 3},
        {"nonsense": 1},
    ],
    ids=str,
)
def test_a_client_that_cannot_be_made_shows_no_key(kind: type, wrong: dict[str, Any]) -> None:
    """The key is an argument of a frame that the error went through."""
    error = caught(made_wrongly(kind, **wrong))
    assert isinstance(error, CallerError | TypeError)
    assert [] == leaks(KEYS, places(error))


@pytest.mark.parametrize("kind", [Mistral, AsyncMistral])
@pytest.mark.parametrize("key", ["sparrow in blanks", "sparrow-line\n1", "sparrow-accént"])
def test_a_key_that_cannot_be_one_is_not_shown(kind: type, key: str) -> None:
    """Neither the message nor a frame quotes it."""
    error = caught(lambda: kind(key))
    assert isinstance(error, CallerError)
    assert [] == leaks([key, "sparrow"], places(error))


@pytest.mark.parametrize("kind", [Mistral, AsyncMistral])
def test_a_twin_that_cannot_be_made_shows_no_key(sim: Simulator, kind: type) -> None:
    """Whoever tries to change the key like an option has it in a frame."""
    client = kind(KEY, base_url=sim.base_url)
    error = caught(lambda: client.with_options(api_key=OTHER))
    assert isinstance(error, TypeError)
    assert [] == leaks(KEYS, places(error))
    client.close() if isinstance(client, Mistral) else asyncio.run(client.aclose())


@pytest.mark.parametrize("name", ["chat", "stream", "count", "quote", "plan"])
@pytest.mark.parametrize("kind", [Mistral, AsyncMistral])
def test_a_request_that_cannot_be_made_shows_no_prompt(
    sim: Simulator, kind: type, name: str
) -> None:
    """What is refused here was read by many functions, and each had it in its hands."""

    def ask() -> None:
        client = kind(KEY, base_url=sim.base_url)
        made = partial(getattr(client, name), ASKED, **OPTIONS, top_p="canaryprompt")
        if isinstance(client, Mistral):
            with client:
                made()
        else:
            asyncio.run(awaited(client, made))

    error = caught(ask)
    assert isinstance(error, CallerError)
    assert [] == leaks(KEYS + PROMPT, places(error))


async def awaited(client: AsyncMistral, made: Callable[[], Any]) -> None:
    async with client:
        answer = made()
        if not isinstance(answer, AsyncStream):
            await answer


@pytest.mark.parametrize("kind", [Mistral, AsyncMistral])
def test_an_answer_that_does_not_fit_is_shown_where_it_is_asked_for(
    sim: Simulator, kind: type
) -> None:
    """`OutputInvalid.text` is for that; its frames hold neither prompt nor answer."""

    def ask() -> None:
        client = kind(KEY, base_url=sim.base_url, model=MODEL)
        made = partial(client.chat, ASKED, output=dict[str, int])
        if isinstance(client, Mistral):
            with client:
                made()
        else:
            asyncio.run(awaited(client, made))

    error = caught(ask)
    assert isinstance(error, LoomError)
    framed = [(place, text) for place, text in places(error) if place.startswith("local")]
    assert [] == leaks(KEYS + PROMPT + ANSWER, framed)


def test_the_texts_of_a_stream_are_in_no_frame(sim: Simulator) -> None:
    """Iterators of texts, and `final`, hold the last piece while they run."""
    given = options(sim, "15-close", Seen()) | {"fallback": None, "breaker": None}

    def texts() -> None:
        with Mistral(**given) as m, m.stream(ASKED) as stream:
            list(stream.text_stream)

    def final() -> None:
        with Mistral(**given) as m, m.stream(ASKED) as stream:
            stream.final()

    async def async_texts() -> None:
        async with AsyncMistral(**given) as m, m.stream(ASKED) as stream:
            assert [text async for text in stream.text_stream]

    async def async_final() -> None:
        async with AsyncMistral(**given) as m, m.stream(ASKED) as stream:
            await stream.final()

    for ask in (
        texts, final, lambda: asyncio.run(async_texts()), lambda: asyncio.run(async_final()),
    ):  # fmt: skip
        error = caught(ask)
        assert isinstance(error, StreamTruncated)
        assert error.partial is not None
        assert "canary" in error.partial.thinking + error.partial.text
        assert [] == leaks(KEYS + PROMPT + ANSWER, shown(error))


def test_a_vendor_that_quotes_the_key_is_not_quoted() -> None:
    """Some write the key that they refuse into their message."""
    body = b'{"message":"Unauthorized: loom-canary-key-0123456789 is no key","code":401}'
    transport = FakeTransport(FakeReply.of(body, status=401))
    error = caught(lambda: Mistral(KEY, transport=transport).chat(ASKED))
    assert isinstance(error, LoomError)
    assert [] == leaks(KEYS + PROMPT, places(error))


def test_what_is_printed_holds_no_key_and_no_prompt(sim: Simulator) -> None:
    """Clients, routes and requests end up in logs, notebooks and reports."""
    route = Route(api_key=OTHER)
    seen = Seen()
    client = Mistral(**options(sim, "", seen))
    request = ChatRequest(model=MODEL, messages=tuple(ASKED))
    values: list[object] = [
        client, route, Fallback([route]), RetryPolicy(), seen.telemetry, Secret(KEY), request,
        EncodedRequest(body=b"canaryprompt"),
        HttpRequest(url="https://e.org", headers={"x": Secret(KEY)}, body=b"canaryprompt"),
        client._async._assembled, vars(client._async),
    ]  # fmt: skip
    printed = [(f"{how} of {value!r:.20}", text) for value in values
               for how, text in (("repr", repr(value)), ("str", str(value)),
                                 ("rich", pretty_repr(value, expand_all=True)))]  # fmt: skip
    client.close()
    assert [] == leaks(KEYS + PROMPT, printed)
    assert "messages=5" in repr(request)


def plant(where: str) -> LoomError:
    """Raise an error with the canary in one place."""
    library: dict[str, Any] = {"LoomError": CallerError, "__name__": "elsewhere"}
    source = "def ask(prompt):\n    held = prompt\n    raise LoomError('no')\n"
    exec(compile(source, "/elsewhere.py", "exec"), library)  # noqa: S102 - a frame that is not ours
    try:
        library["ask"](KEY if where == "frame" else "nothing")
    except LoomError as error:
        match where:
            case "note":
                error.add_note(KEY)
            case "field":
                error.hint = KEY
            case "message":
                error.message = KEY
            case "cause":
                error.__cause__ = ValueError(KEY)
            case "context":
                error.__context__ = ValueError(KEY)
                error.__suppress_context__ = True
            case _:
                pass
        return error
    raise AssertionError


@pytest.mark.parametrize("where", ["frame", "note", "field", "message", "cause", "context"])
def test_a_planted_canary_is_found(where: str) -> None:
    """The search finds what it is for: without this it would prove nothing."""
    assert [] == leaks(KEYS, places(plant("nowhere")))
    assert leaks(KEYS, places(plant(where)))


def test_a_callers_frames_are_left_as_they_are(sim: Simulator) -> None:
    """The library empties its own frames, never those of who calls it or of his functions."""

    def key() -> str:
        mine = "kept"
        raise LookupError(mine)

    error = caught(lambda: Mistral(key, base_url=sim.base_url))
    assert isinstance(error, LookupError)
    trace, kept = error.__traceback__, []
    while trace is not None:
        kept.append(trace.tb_frame.f_locals.get("mine"))
        trace = trace.tb_next
    assert "kept" in kept
    assert 1 == len(list(chain(error)))
