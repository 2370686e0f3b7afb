"""The tally: what a turn has come to so far."""

from __future__ import annotations

from decimal import Decimal

import msgspec
from tests.agent.kit import answer

from loom.agent.limits import AgentLimits
from loom.agent.response import total_usage
from loom.agent.tally import Tally
from loom.core.messages import Message
from loom.core.response import Usage


def test_a_turn_adds_up_after_each_answer() -> None:
    """The sum so far is that of all calls so far, however often it is asked for."""
    tally = Tally(AgentLimits(), 0.0)
    assert total_usage(()) == tally.usage
    for tokens in (5, 0, 7):
        usage = Usage(input_tokens=tokens, service_tier="priority", cost_usd=Decimal(tokens))
        said = answer(Message.assistant("Yes."))
        tally.responses.append(msgspec.structs.replace(said, usage=usage))
        assert total_usage(each.usage for each in tally.responses) == tally.usage == tally.usage
    assert (12, Decimal(12)) == (tally.usage.input_tokens, tally.usage.cost_usd)
    assert tally.usage.service_tier is None
