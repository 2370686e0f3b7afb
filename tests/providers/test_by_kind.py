"""Each request goes to who serves its kind."""

from __future__ import annotations

import msgspec
import pytest

from loom.core.errors import InvalidRequest
from loom.core.messages import Message
from loom.core.request import ChatRequest
from loom.providers.by_kind import ByKind
from loom.testing import Witness

pytestmark = pytest.mark.anyio

ASK = ChatRequest(model="m", messages=(Message.user("x"),))
FILL = msgspec.structs.replace(ASK, kind="fim")


async def test_a_request_goes_to_who_serves_its_kind() -> None:
    """A chat to the one, a gap to the other; name and model are those of chats."""
    chat, fim = Witness(), Witness()
    made: list[Witness] = []

    def make() -> Witness:
        made.append(fim)
        return fim

    provider = ByKind(chat, {"fim": make})

    await provider.chat(ASK)
    assert (1, 0) == (chat.calls, fim.calls)
    await provider.chat(FILL)
    await provider.chat(FILL)
    assert (1, 2) == (chat.calls, fim.calls)
    assert [fim] == made

    assert (chat.name, chat.model) == (provider.name, provider.model)


async def test_what_nobody_serves_is_refused() -> None:
    """By its name, and nothing is sent."""
    chat = Witness()
    with pytest.raises(InvalidRequest, match="witness offers no filling in the middle") as caught:
        await ByKind(chat, {}).chat(FILL)
    assert (0, 0) == (chat.calls, caught.value.attempts)


async def test_who_answers_chats_is_closed_with_it() -> None:
    """Everything else shares its transport."""
    chat, fim = Witness(), Witness()
    provider = ByKind(chat, {"fim": lambda: fim})
    await provider.chat(FILL)
    await provider.aclose()
    assert (1, 0) == (chat.shut, fim.shut)
