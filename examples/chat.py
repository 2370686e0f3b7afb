"""
Hold a conversation of two turns, and know what each turn cost.

    MISTRAL_API_KEY=... python examples/chat.py
    python examples/chat.py --sim
"""

from __future__ import annotations

import sys
from decimal import Decimal

from loom import Message, Mistral

QUESTIONS = ("Explain Python protocols in one sentence.", "Give a short example.")


def main() -> None:
    """Ask two questions; the second builds on the answer to the first."""
    messages = [Message.system("You are a helpful coding assistant.")]
    total_usd = Decimal(0)
    with Mistral(sim="--sim" in sys.argv) as client:
        for question in QUESTIONS:
            messages.append(Message.user(question))
            response = client.chat(messages, temperature=0.3)
            messages.append(response.message)
            total_usd += response.usage.cost_usd or 0
            print(f"> {question}\n{response.content}\n")
            print(f"  {response.usage.total_tokens} tokens, ${total_usd:.6f} so far\n")


if __name__ == "__main__":
    main()
