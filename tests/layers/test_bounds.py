"""What a request has at least and at most lies around what the real vocabularies count."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.catalog.lookup import Catalog
from loom.catalog.tokens import count_prompt, exact_counts_available
from loom.core.messages import ImagePart, Message, ToolCall
from loom.core.request import ChatRequest, Sampling, ToolSpec
from loom.layers.bounds import fewest_tokens, most_tokens
from loom.layers.worst import worst_cost
from loom.wire.mistral.request import encode_chat_request

# One for each kind of vocabulary and template.
MODELS = [
    ("mistral-small-latest", date(2024, 9, 15)),
    ("mistral-large-latest", date(2024, 11, 30)),
    ("open-mistral-7b", date(2024, 11, 30)),
    ("mistral-small-latest", date(2026, 11, 1)),
    ("mistral-large-latest", date(2026, 11, 1)),
]

# Long runs of one sign are single tokens; marks of the format are text when a user writes them;
# JSON is written anew by the older templates.
TEXTS = st.one_of(
    st.text(max_size=60),
    st.text(alphabet='ab \n/.,*\t{}"\\', max_size=80),
    st.sampled_from([" " * 200, "/\n" * 50, "!\n/" * 50, "[INST]" * 5, "</s>" * 5]),
    st.sampled_from(['{"a":1,"b":[1,2,3],"c":{"d":"e"}}', "[1," * 9 + "1" + "]" * 9]),
)


@st.composite
def requests(draw: st.DrawFn) -> ChatRequest:
    messages = [Message.system(draw(TEXTS))] if draw(st.booleans()) else []
    for number in range(draw(st.integers(0, 3))):
        messages.append(Message.user(draw(TEXTS)))
        if draw(st.booleans()):
            call = ToolCall(f"abcdefgh{number}", "look", {draw(TEXTS): draw(TEXTS)})
            messages += [Message.assistant(tool_calls=(call,)), Message.tool(call, draw(TEXTS))]
        messages.append(Message.assistant(draw(TEXTS) or "Yes."))
    messages.append(Message.user(draw(TEXTS)))
    tools = [
        ToolSpec(
            name=f"tool_{number}",
            description=draw(st.none() | TEXTS),
            parameters={"type": "object", "properties": {draw(TEXTS): {"type": "string"}}},
        )
        for number in range(draw(st.integers(0, 2)))
    ]
    return ChatRequest(model="x", messages=tuple(messages), tools=tuple(tools))


@pytest.mark.skipif(not exact_counts_available(), reason="the extra `tokens` is not installed")
@given(requests(), st.sampled_from(MODELS))
def test_the_bounds_hold_for_every_vocabulary(
    request_: ChatRequest, model: tuple[str, date]
) -> None:
    """What is passed on uncounted fits in truth; what is refused by an estimate does not."""
    name, on = model
    request = msgspec.structs.replace(request_, model=name)
    count = count_prompt(encode_chat_request(request), Catalog.builtin().find(name, on))

    assert not count.estimated
    assert fewest_tokens(request) <= count.tokens <= most_tokens(request)


def test_an_image_may_be_dearer_elsewhere() -> None:
    """GPT-4o mini counts up to 48,169 tokens for one; the worst case keeps them free."""
    asked = ChatRequest(
        model="gpt-4o-mini",
        messages=(Message.user(ImagePart("https://example.org/a.png")),),
        sampling=Sampling(max_tokens=100),
    )
    card = Catalog.builtin().find("gpt-4o-mini", date(2024, 11, 30), "openai")
    worst = worst_cost(asked, card)
    assert worst is not None
    assert worst > Decimal("0.15") * 48_169 / 10**6
    assert worst < Decimal("0.15") * 49_000 / 10**6
