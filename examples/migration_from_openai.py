"""
Move an agent from OpenAI to Mistral: one line changes, the conversation goes on.

    OPENAI_API_KEY=... MISTRAL_API_KEY=... python examples/migration_from_openai.py
    python examples/migration_from_openai.py --sim
"""

from __future__ import annotations

import os
import sys

from loom import Agent, AgentBuilder, Mistral, OpenAI, tool
from loom.testing import simulator


@tool
def get_stock(product: str) -> dict[str, object]:
    """
    How many pieces of a product are in stock.

    Args:
        product: For example "kettle".
    """
    return {"product": product, "pieces": 12}


def ask(name: str, agent: Agent) -> None:
    """Ask one question, and say who answered, with which tools, for how much."""
    response = agent.chat("Use get_stock for the product kettle. Can I order three?")
    tools = ", ".join(result.call.name for result in response.tool_executions)
    cost = response.usage.cost_usd
    print(f"{name} ({response.model}), tools: {tools or 'none'}, cost: {cost}")
    print(f"  {response.content}\n")


def main() -> None:
    """Build the same agent twice; the tools and the code around it stay as they are."""
    if "--sim" in sys.argv or os.environ.get("LOOM_SIM"):
        with (
            simulator(any_key=True) as sim,
            OpenAI("no-key-is-needed", model="gpt-4.1", base_url=sim.openai_base_url) as before,
            Mistral(sim.api_key, base_url=sim.base_url) as after,
        ):
            with AgentBuilder().with_llm(before).with_tools(get_stock).build() as agent:
                ask("before", agent)
            with AgentBuilder().with_llm(after).with_tools(get_stock).build() as agent:
                ask("after", agent)
        return
    # Before:
    with AgentBuilder().with_openai_llm(model="gpt-4.1").with_tools(get_stock).build() as agent:
        ask("before", agent)
    # After:
    with AgentBuilder().with_mistral_llm().with_tools(get_stock).build() as agent:
        ask("after", agent)


if __name__ == "__main__":
    main()
