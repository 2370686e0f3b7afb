"""
Turn text into a checked value of your own type.

    MISTRAL_API_KEY=... python examples/structured_extraction.py
    python examples/structured_extraction.py --sim
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from loom import Mistral, OutputInvalid

LETTER = """
Hello, my order 1042 of two blue kettles came with one lid missing.
Please send it to Ann Miller, 12 Mill Lane, York. It is urgent: my guests come on Friday.
"""


@dataclass
class Complaint:
    """What a customer complains about."""

    order: Annotated[int, msgspec.Meta(description="The order's number.", ge=1)]
    customer: str
    missing: list[str]
    urgency: Literal["low", "normal", "high"]


def main() -> int:
    """Extract one value; what does not fit is an error that holds the text."""
    with Mistral(sim="--sim" in sys.argv) as client:
        try:
            response = client.chat(
                f"Extract the complaint from this letter.\n{LETTER}",
                output=Complaint,
                temperature=0.0,
            )
        except OutputInvalid as error:
            print(f"{error.printed_name}: {error}", file=sys.stderr)
            return error.exit_code
    complaint: Complaint = response.parsed
    print(complaint)
    print(f"{response.usage.total_tokens} tokens")
    return 0


if __name__ == "__main__":
    sys.exit(main())
