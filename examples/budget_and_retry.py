"""
Stay up and stay within a budget: retries, a breaker, a fallback, a limit in dollars, a ledger.

    MISTRAL_API_KEY=... python examples/budget_and_retry.py
    python examples/budget_and_retry.py --sim
"""

from __future__ import annotations

import logging
import sys
import tempfile
from decimal import Decimal
from pathlib import Path

from loom import Breaker, Budget, BudgetExceeded, Mistral, RateLimit, RetryPolicy

QUESTIONS = [f"Say something nice about the number {number}." for number in range(1, 200)]


def main() -> None:
    """Ask until the budget is used up; nothing is sent that could overshoot it."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    budget = Budget(limit_usd="0.0005", warn_usd="0.0002", period="day")
    with tempfile.TemporaryDirectory() as folder:
        client = Mistral(
            model="mistral-small-latest",
            max_tokens=256,
            retry=RetryPolicy.robust(),
            breaker=Breaker(),
            fallback="mistral:ministral-8b-latest",
            rate_limit=RateLimit(requests_per_minute=600, tokens_per_minute=500_000),
            budget=budget,
            ledger=Path(folder) / "calls.db",
            sim="--sim" in sys.argv,
        )
        spent, answers = Decimal(0), 0
        with client:
            try:
                for question in QUESTIONS:
                    response = client.chat(question)
                    spent += response.usage.cost_usd or 0
                    answers += 1
            except BudgetExceeded as error:
                print(f"{error.printed_name}: {error}")
    print(f"{answers} answers for ${spent:.6f} of ${budget.limit_usd}")


if __name__ == "__main__":
    main()
