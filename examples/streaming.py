"""
Print an answer as it is made; Ctrl-C stops it and closes the connection.

    MISTRAL_API_KEY=... python examples/streaming.py
    python examples/streaming.py --sim
"""

from __future__ import annotations

import sys

from loom import Mistral


def main() -> None:
    """Stream one answer, then say what it used."""
    with (
        Mistral(sim="--sim" in sys.argv) as client,
        client.stream("Tell me a short story about a loom.", max_tokens=400) as stream,
    ):
        for text in stream.text_stream:
            print(text, end="", flush=True)
        response = stream.final()
    print(f"\n\n{response.usage.output_tokens} tokens in {response.latency_s:.1f} s")


if __name__ == "__main__":
    main()
