"""
Test a key and the way to Mistral with one small call.

    MISTRAL_API_KEY=... python examples/connection_test.py
    python examples/connection_test.py --sim
"""

from __future__ import annotations

import sys

from loom import LoomError, Mistral


def main() -> int:
    """Ask for a word; say what came back, or what went wrong and what to do."""
    try:
        with Mistral(model="mistral-small-latest", sim="--sim" in sys.argv) as client:
            response = client.chat("Say hello", max_tokens=16)
    except LoomError as error:
        print(f"{error.printed_name}: {error}\n{error.hint}", file=sys.stderr)
        return error.exit_code
    usage = response.usage
    print(f"Response: {response.content}")
    print(f"Tokens: {usage.input_tokens} input, {usage.output_tokens} output")
    print("Cost: unknown" if usage.cost_usd is None else f"Cost: ${usage.cost_usd:.6f}")
    print(f"Latency: {response.latency_s:.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
