"""What keeps a client up: its arguments, keys that change, routes, answers that begin anew."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest

from loom import (
    AsyncMistral,
    Breaker,
    CircuitOpen,
    Completed,
    ConfigInvalid,
    Fallback,
    InvalidAPIKey,
    InvalidRequest,
    Mistral,
    Rerouted,
    Restarted,
    Retried,
    RetryPolicy,
    Route,
    Secret,
    ServiceUnavailable,
    StreamTruncated,
    TextDelta,
)
from loom.core.route import RouteLike
from loom.providers.scripted import ScriptedProvider
from loom.server.simulator import Simulator
from loom.testing import FakeClock

pytestmark = pytest.mark.anyio

LARGE, SMALL = "mistral-large-latest", "mistral-small-latest"


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator() as running:
        yield running


@pytest.fixture
def other() -> Iterator[Simulator]:
    with Simulator() as running:
        yield running


def client(sim: Simulator, **options: Any) -> AsyncMistral:
    options.setdefault("clock", FakeClock(auto=True))
    return AsyncMistral(sim.api_key, base_url=sim.base_url, **options)


class TestArguments:
    """What is wrong is named when the client is made."""

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"retry": 3}, "'retry' must be a RetryPolicy or None, not int"),
            ({"breaker": True}, "'breaker' must be a Breaker or None, not bool"),
            ({"fallback": 3}, "'fallback' must be a route or a list of them, not int"),
            ({"fallback": []}, "'fallback' must name at least one route"),
            ({"fallback": ["opnai:gpt"]}, "unknown provider 'opnai'; did you mean 'openai'"),
            ({"fallback": ["nobody:x"]}, "unknown provider 'nobody'; known: 'mistral', 'openai'"),
            ({"fallback": ["mistral:"]}, "names no model"),
            ({"fallback": [3]}, "not int"),
            ({"rescue": True}, "name one with fallback="),
            (
                {"fallback": Route(base_url="https://elsewhere.example.org")},
                "https://elsewhere.example.org needs an api_key of its own",
            ),
        ],
        ids=str,
    )
    def test_wrong_ones_are_named(self, arguments: dict[str, Any], words: str) -> None:
        """The argument, what it was, and what it may be."""
        for kind in (AsyncMistral, Mistral):
            with pytest.raises(ConfigInvalid, match=words):
                kind("a-key", **arguments)

    def test_a_client_is_no_route(self) -> None:
        """It has the methods of a provider and takes other arguments."""
        with pytest.raises(ConfigInvalid, match="not AsyncMistral"):
            Fallback([AsyncMistral("a-key")])  # type: ignore[list-item]  # that is the point

    def test_first_token_s_is_a_time(self) -> None:
        """Nothing is left after no time at all."""
        with pytest.raises(ConfigInvalid, match="first_token_s"):
            Fallback([SMALL], first_token_s=0)

    def test_a_switch_is_true_or_false(self) -> None:
        """Not a word."""
        with pytest.raises(InvalidRequest, match="'skip_bad_events' must be True or False"):
            AsyncMistral("a-key", skip_bad_events="yes")  # type: ignore[arg-type]  # that is the point

    def test_routes_are_read_in_every_form(self) -> None:
        """One or several, as text, as a route, as a provider."""
        provider = ScriptedProvider()
        one: list[RouteLike] = [SMALL, f"mistral:{SMALL}", Route(model=SMALL), provider]
        for given in (*one, one, tuple(one), Fallback(one)):
            AsyncMistral("a-key", fallback=given)
        assert Route(model=SMALL) == Fallback(SMALL).routes[0]
        assert Route(model="ft:x:y") == Route.parse("ft:x:y")

    def test_no_repr_shows_a_key(self) -> None:
        """Neither of a route nor of what holds it."""
        route = Route(api_key="canary-not-a-real-key", base_url="https://x")
        assert isinstance(route.api_key, Secret)
        assert "canary" not in repr(route) + repr(Fallback([route]))
        assert "https://x" in repr(route)

    async def test_options_of_a_client_may_be_changed(self, sim: Simulator) -> None:
        """`with_options` takes them all; what is not named stays."""
        async with client(sim, retry=None, fallback=SMALL) as first:
            patient = first.with_options(retry=RetryPolicy(attempts=2), fallback=None)
            with pytest.raises(ServiceUnavailable) as raised:
                await patient.chat("Hi", model=f"{LARGE}+503")
            assert 2 == raised.value.attempts
            assert (await first.chat("Hi", model=f"{LARGE}+503")).model == SMALL
            with pytest.raises(ConfigInvalid, match="rescue"):
                patient.with_options(rescue=True)
            with pytest.raises(InvalidRequest, match="skip_bad_events"):
                first.with_options(skip_bad_events=1)


class TestKeys:
    """A key that the vendor refuses is looked for once more."""

    async def test_a_function_gives_the_newer_key(self, sim: Simulator) -> None:
        """One request with the old key, one with the new; later calls begin with the new."""
        keys = iter(["an-old-key", sim.api_key, "never-asked-for"])
        async with AsyncMistral(lambda: next(keys), base_url=sim.base_url) as m:
            assert 2 == (await m.chat("Hi")).attempts
            assert 1 == (await m.chat("Hi")).attempts
        assert [401, 200, 200] == [entry.status for entry in sim.journal]

    async def test_a_key_of_the_environment_may_change(
        self, sim: Simulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Rotated while the program runs."""
        monkeypatch.setenv("MISTRAL_API_KEY", "an-old-key")
        async with AsyncMistral(base_url=sim.base_url) as m:
            monkeypatch.setenv("MISTRAL_API_KEY", sim.api_key)
            assert 2 == (await m.chat("Hi")).attempts

    @pytest.mark.parametrize("key", ["a-wrong-key", lambda: "a-wrong-key"], ids=["text", "same"])
    async def test_without_a_new_key_there_is_one_request(self, sim: Simulator, key: Any) -> None:
        """A wrong key is sent once."""
        async with AsyncMistral(key, base_url=sim.base_url) as m:
            with pytest.raises(InvalidAPIKey):
                await m.chat("Hi")
        assert 1 == len(sim.journal)

    async def test_a_key_that_is_gone_is_an_error(self, sim: Simulator) -> None:
        """What the function raises or gives is checked as the first one was."""
        keys = iter(["an-old-key", "two words"])
        async with AsyncMistral(lambda: next(keys), base_url=sim.base_url) as m:
            with pytest.raises(InvalidAPIKey, match="white space"):
                await m.chat("Hi")


class TestRoutes:
    """Where a call goes when the first route fails."""

    async def test_another_address_with_its_own_key(self, sim: Simulator, other: Simulator) -> None:
        """Each simulator sees its own key alone."""
        route = Route(base_url=other.base_url, api_key=other.api_key, model=SMALL)
        async with client(sim, fallback=[route], model=f"{LARGE}+503") as m:
            response = await m.chat("Hi")
        assert ("mistral", SMALL) == (response.metadata["provider"], response.model)
        assert ({"route": f"mistral:{LARGE}+503", "code": "service_unavailable"},) == (
            response.metadata["failed_routes"]
        )
        assert (3, 1) == (len(sim.journal), len(other.journal))
        assert response.usage.price is not None
        assert response.timeline is not None
        assert [503, 503, 503, 200] == [a.status for a in response.timeline.attempts]

    async def test_a_provider_of_your_own(self, sim: Simulator) -> None:
        """Anything that answers may stand behind; it is not closed with the client."""
        async with client(sim, fallback=[ScriptedProvider(["from afar"])], retry=None) as m:
            response = await m.chat("Hi", model=f"{LARGE}+503")
        assert "from afar" == response.content

    async def test_a_larger_window_takes_what_is_too_long(self) -> None:
        """Refused here for the first model, sent to the second (FB12)."""
        larger = "open-mixtral-8x22b"
        with Simulator(as_of=date(2024, 11, 30)) as sim:
            async with client(sim, as_of="2024-11", fallback=[larger], max_tokens=1000) as m:
                response = await m.chat("word " * 40_000)
            assert 1 == len(sim.journal)
        assert larger == response.model

    async def test_an_open_breaker_sends_calls_on(self, sim: Simulator) -> None:
        """The failing route is not asked while it is open, and the call is answered."""
        breaker = Breaker(min_calls=2)
        async with client(sim, fallback=SMALL, breaker=breaker, retry=None) as m:
            for _ in range(5):
                response = await m.chat("Hi", model=f"{LARGE}+503")
        assert SMALL == response.model
        failed = [entry for entry in sim.journal if entry.status == 503]
        assert (2, 5) == (len(failed), len(sim.journal) - len(failed))
        assert "circuit_open" == response.metadata["failed_routes"][0]["code"]

    async def test_a_breaker_may_serve_many_clients(self, sim: Simulator) -> None:
        """What one client saw, the other knows."""
        breaker = Breaker(min_calls=1)
        async with client(sim, breaker=breaker, retry=None) as first:
            with pytest.raises(ServiceUnavailable):
                await first.chat("Hi", model=f"{LARGE}+503")
        async with client(sim, breaker=breaker) as second:
            with pytest.raises(CircuitOpen):
                await second.chat("Hi", model=f"{LARGE}+503")
        assert 1 == len(sim.journal)


class TestRescue:
    """An answer that breaks in the middle begins anew."""

    def options(self) -> dict[str, Any]:
        return {"model": f"{LARGE}+15-reset:3", "fallback": SMALL, "rescue": True}

    async def test_a_stream_says_so(self, sim: Simulator) -> None:
        """The texts after `Restarted` are the whole answer."""
        texts: list[str] = []
        async with client(sim, **self.options()) as m:
            async for event in m.stream("Explain looms"):
                match event:
                    case TextDelta(text=text):
                        texts.append(text)
                    case Restarted(model=model):
                        assert texts
                        texts.clear()
                        assert SMALL == model
                    case Completed(response=response):
                        assert "".join(texts) == response.content
                    case _:
                        pass
        assert SMALL == response.model

    async def test_a_whole_answer_has_it_for_nothing(self, sim: Simulator) -> None:
        """`chat` and `final` give the second route's answer, with and without `rescue`."""
        async with client(sim, **self.options()) as m:
            assert SMALL == (await m.stream("Explain looms").final()).model
            assert SMALL == (await m.chat("Explain looms")).model
            assert SMALL == (await m.with_options(rescue=False).chat("Explain looms")).model

    async def test_texts_that_were_given_cannot_be_taken_back(self, sim: Simulator) -> None:
        """`text_stream` raises, and says what to do instead."""
        async with client(sim, **self.options()) as m:
            given = []
            with pytest.raises(StreamTruncated, match="cannot be taken back") as raised:
                async for text in m.stream("Explain looms").text_stream:
                    given.append(text)  # noqa: PERF401  what came before the error counts
            assert given
            assert "Restarted" in raised.value.hint

    def test_the_blocking_client_does_the_same(self, sim: Simulator) -> None:
        """Events, texts and whole answers."""
        with Mistral(sim.api_key, base_url=sim.base_url, **self.options()) as m:
            kinds = {type(event) for event in m.stream("Explain looms")}
            assert Restarted in kinds
            assert SMALL == m.stream("Explain looms").final().model
            with pytest.raises(StreamTruncated, match="cannot be taken back"):
                list(m.stream("Explain looms").text_stream)
            assert SMALL == m.chat("Explain looms").model

    async def test_before_the_first_text_it_is_a_change_of_route(self, sim: Simulator) -> None:
        """`Rerouted` then, and texts go on as if nothing had been."""
        async with client(sim, model=f"{LARGE}+503", fallback=SMALL, retry=None) as m:
            events = [event async for event in m.stream("Hi")]
            assert any(isinstance(event, Rerouted) for event in events)
            assert [text async for text in m.stream("Hi").text_stream]


class TestWaits:
    """What the caller sees of a wait."""

    async def test_every_wait_is_an_event_and_a_log_line(
        self, sim: Simulator, caplog: pytest.LogCaptureFixture
    ) -> None:
        """`Rate limit hit, retrying in 2.0s (attempt 1/5)`, within a tenth after what was asked."""
        async with client(sim) as m:
            events = [e async for e in m.stream("Hi", model=f"{LARGE}+retry-after:2;times=1")]
        (retried,) = (event for event in events if isinstance(event, Retried))
        assert 2.0 <= retried.wait_s <= 2.2
        assert caplog.messages[0].startswith("Rate limit hit, retrying in 2.")
        assert caplog.messages[0].endswith("(attempt 1/5)")

    async def test_a_bad_event_may_be_left_out(self, sim: Simulator) -> None:
        """By the client or by the call; the answer says how many."""
        model = f"{LARGE}+23-bad-event:3"
        async with client(sim, model=model, skip_bad_events=True) as m:
            assert 1 == (await m.stream("Hi").final()).metadata["skipped_events"]
        async with client(sim, model=model) as m:
            response = await m.stream("Hi", skip_bad_events=True).final()
            assert 1 == response.metadata["skipped_events"]
