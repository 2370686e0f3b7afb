"""
Let a model use tools: three calls at once take the time of one.

    MISTRAL_API_KEY=... python examples/parallel_tools.py
    python examples/parallel_tools.py --sim
"""

from __future__ import annotations

import asyncio
import sys
from typing import Literal

from loom import Agent, Done, Mistral, TextDelta, ToolFinished, ToolStarted, tool

DEGREES = {"Paris": 18, "Rome": 24, "Oslo": 9}


@tool
async def get_weather(city: str, unit: Literal["c", "f"] = "c") -> dict[str, object]:
    """
    Current weather of a city.

    Args:
        city: The city's name, for example "Paris".
        unit: Celsius or Fahrenheit.
    """
    await asyncio.sleep(0.3)  # a service that takes its time
    degrees = DEGREES.get(city, 15)
    return {"city": city, "degrees": degrees if unit == "c" else degrees * 9 / 5 + 32}


def main() -> None:
    """Ask for the weather of three cities, and show what happens."""
    question = "How is the weather in Paris, Rome and Oslo?"
    with (
        Mistral(sim="--sim" in sys.argv) as client,
        Agent(llm=client, tools=[get_weather]) as agent,
        agent.stream(question) as events,
    ):
        for event in events:
            match event:
                case ToolStarted(call=call):
                    print(f"-> {call.name}({call.arguments})")
                case ToolFinished(result=result):
                    print(f"<- {result.content}  ({result.duration_s:.1f} s)")
                case TextDelta(text=text):
                    print(text, end="", flush=True)
                case Done(response=response):
                    cost = response.usage.cost_usd
                    print(f"\n\n{len(response.calls)} calls of the model, ", end="")
                    print(f"{len(response.tool_executions)} tools, ", end="")
                    print("cost unknown" if cost is None else f"${cost:.6f}")


if __name__ == "__main__":
    main()
