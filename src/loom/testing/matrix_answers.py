"""Scenes of answers: odd ones, keys that are refused, messages that must say something."""

from __future__ import annotations

import logging
from asyncio import to_thread
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from loom.catalog.lookup import Catalog
from loom.core.errors import ConfigInvalid, ContextTooLong
from loom.core.messages import RawPart
from loom.core.request import ToolSpec
from loom.testing.matrix_bench import CANARY, Bench, Scene
from loom.testing.matrix_sight import Sight

__all__ = ["ANSWERS"]

_TOOL = ToolSpec(name="lookup", parameters={"type": "object", "properties": {}})


@contextmanager
def _heard() -> Iterator[list[str]]:
    """Give every warning of the library's log."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign] # one line is not worth a class
    log = logging.getLogger("loom")
    before = log.handlers[:], log.level, log.propagate
    # Whoever set the log up hears nothing of it meanwhile.
    log.handlers[:], log.propagate = [handler], False
    log.setLevel(logging.WARNING)
    try:
        yield said
    finally:
        log.handlers[:], log.propagate = before[0], before[2]
        log.setLevel(before[1])


async def _with_fault(bench: Bench, fault: str, *, stream: bool, **options: object) -> Sight:
    async with bench.line(fault=fault) as line:
        return await bench.sight(line, stream=stream, **options)  # type: ignore[arg-type] # of the call


async def _other_kind(bench: Bench, *, stream: bool) -> Sight:
    with _heard() as said:
        async with bench.line(fault="31-other-kind") as line:
            await line.ask(stream=stream)
            seen = await bench.sight(line, stream=stream)
            if stream:
                async with line.client.stream("Say hello") as events:
                    texts = [text async for text in events.text_stream]
                seen = seen.but("".join(texts) != "hello" and "the text is in no event")
    about = [text for text in said if "asked for" in text]
    # Of the calls only the one that was looked at counts.
    seen = msgspec.structs.replace(seen, wire=seen.wire - 1)
    return seen.but(len(about) != 1 and f"the log warns {len(about)} times")


async def _field_path(bench: Bench, *, stream: bool) -> Sight:
    seen = await _with_fault(bench, "36-422", stream=stream)
    return seen.but("body.seed" not in str(seen.error) and "the message names no field")


async def _window_sizes(bench: Bench, *, stream: bool) -> Sight:
    seen = await _with_fault(bench, "36b-context", stream=stream)
    error = seen.error
    sizes = (error.tokens, error.limit) if isinstance(error, ContextTooLong) else None
    return seen.but(sizes != (262145, 262144) and f"the sizes are {sizes}")


async def _keys(bench: Bench, fault: str, keys: Iterator[str], *, stream: bool) -> Sight:
    async with bench.line(fault=fault, api_key=lambda: next(keys)) as line:
        return await bench.sight(line, stream=stream)


async def _new_key(bench: Bench, *, stream: bool) -> Sight:
    bench.simulator.reset()  # `times` counts the requests since then
    return await _keys(bench, "37-401;times=1", iter([CANARY, "a-new-key"]), stream=stream)


async def _same_key(bench: Bench, *, stream: bool) -> Sight:
    return await _keys(bench, "37-401", iter([CANARY, CANARY]), stream=stream)


async def _many_keys(bench: Bench, *, stream: bool) -> Sight:
    return await _keys(bench, "37-401", (f"key-number-{n}" for n in count()), stream=stream)


async def _duplicate_ids(bench: Bench, *, stream: bool) -> Sight:
    with _heard() as said:
        seen = await _with_fault(bench, "42-duplicate-ids", stream=stream, tools=[_TOOL])
    calls = () if seen.response is None else seen.response.tool_calls
    return seen.but(
        [call.input for call in calls] != [{"city": "Paris"}, {"city": "Rome"}]
        and "a call is lost",
        len({call.id for call in calls}) != 2 and "two calls have one id",
        not any("Dup1icate" in text for text in said) and "the log does not warn",
    )


async def _odd_arguments(bench: Bench, *, stream: bool) -> Sight:
    seen = await _with_fault(bench, "43-bad-arguments", stream=stream, tools=[_TOOL])
    typed = await _with_fault(bench, "43-wrong-type", stream=stream, tools=[_TOOL])
    unknown = await _with_fault(bench, "43-unknown-tool", stream=stream, tools=[_TOOL])
    calls = [
        call
        for sight in (seen, typed, unknown)
        for call in (() if sight.response is None else sight.response.tool_calls)
    ]
    texts = ['{"city": "Par', '["Paris"]', "{}"]
    return seen.but(
        [call.arguments for call in calls] != texts and "arguments are not as they came",
        [call.problem is None for call in calls] != [False, False, True] and "problems are hidden",
        [call.name for call in calls][-1:] != ["no_such_tool"] and "the name is not as it came",
    )


async def _odd_finish(bench: Bench, *, stream: bool) -> Sight:
    seen = await _with_fault(bench, "45-finish-reason", stream=stream)
    usual = await _with_fault(bench, "", stream=stream)
    return seen.but(
        seen.response is None or (seen.response.finish_reason != "paused" and "it is not kept"),
        seen.response is None or (seen.response.finish_reason_known and "it passes for known"),
        usual.response is None or (not usual.response.finish_reason_known and "stop is unknown"),
    )


async def _odd_usage(bench: Bench, *, stream: bool) -> Sight:
    zero = await _with_fault(bench, "46-usage-zero", stream=stream)
    seen = await _with_fault(bench, "46-usage-missing", stream=stream)
    for name in ("negative", "nan", "huge"):
        other = await _with_fault(bench, f"46-usage-{name}", stream=stream)
        usage = None if other.response is None else other.response.usage
        good = usage is not None and usage.estimated and 0 < usage.total_tokens < 10_000
        seen = seen.but(not good and f"usage that is {name} gives {usage}")
    usage = None if zero.response is None else zero.response.usage
    none = usage is not None and not usage.estimated and usage.total_tokens == 0
    return seen.but(not none and f"zero gives {usage}")


async def _unknown_parts(bench: Bench, *, stream: bool) -> Sight:
    seen = await _with_fault(bench, "47-unknown-part", stream=stream)
    extra = await _with_fault(bench, "47-extra-fields", stream=stream)
    content = () if seen.response is None else seen.response.message.content or ()
    kept = [part for part in content if isinstance(part, RawPart)]
    raw = {} if extra.response is None else extra.response.raw
    return seen.but(
        [part.type for part in kept] != ["hologram"] and "the part is lost",
        "x_new" not in raw and "the fields are lost",
    )


async def _two_choices(bench: Bench, *, stream: bool) -> Sight:
    seen = await _with_fault(bench, "49-choices", stream=stream)
    choices = () if seen.response is None else seen.response.choices
    return seen.but(
        [choice.index for choice in choices] != [0, 1] and "an answer is lost",
        "second" not in "".join(c.message.text for c in choices[1:]) and "answers are mixed",
    )


async def _other_model(bench: Bench, *, stream: bool) -> Sight:
    asked = "mistral-large-latest"
    async with bench.line(fault="50-model:mistral-small-2603", model=asked) as line:
        seen = await bench.sight(line, stream=stream)
    price = None if seen.response is None else seen.response.usage.price
    async with bench.line() as line:
        small = (await line.ask(stream=stream)).usage.price
    return seen.but(price != small and "the price is that of another model")


async def _no_price(bench: Bench, *, stream: bool) -> Sight:
    seen = await _with_fault(bench, "50-model:a-model-of-tomorrow", stream=stream)
    usage = None if seen.response is None else seen.response.usage
    return seen.but((usage is None or usage.cost_usd is not None) and "a price was invented")


async def _bad_price_file(bench: Bench, *, stream: bool) -> Sight:
    del bench, stream
    seen = Sight(code="config_invalid", attempts=0)
    for text in ("[[model]\n", '[[model]]\nid = "x"\nprice = "much"\n', "[1]"):
        message = await to_thread(_refusal_of, text)
        seen = seen.but("prices.toml" not in message and f"of {text!r} it says {message!r}")
    return seen


def _refusal_of(text: str) -> str:
    """What is said of a price file."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "prices.toml")
        path.write_text(text, encoding="utf-8")
        try:
            Catalog.builtin().with_overlay(path)
        except ConfigInvalid as error:
            return error.message
    return "nothing"


ANSWERS: Mapping[str, Scene] = {
    "bad-price-file": Scene(_bad_price_file, both=False),
    "duplicate-ids": Scene(_duplicate_ids),
    "field-path": Scene(_field_path),
    "many-keys": Scene(_many_keys),
    "new-key": Scene(_new_key),
    "no-price": Scene(_no_price),
    "odd-arguments": Scene(_odd_arguments),
    "odd-finish": Scene(_odd_finish),
    "odd-usage": Scene(_odd_usage),
    "other-kind-warns": Scene(_other_kind),
    "other-model": Scene(_other_model),
    "same-key": Scene(_same_key),
    "two-choices": Scene(_two_choices),
    "unknown-parts": Scene(_unknown_parts),
    "window-sizes": Scene(_window_sizes),
}
"""Rows 31, 36 to 50 and 65."""
