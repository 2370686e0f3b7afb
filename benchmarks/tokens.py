"""
Measure the counting of tokens: how long loading and counting take, and how good the estimate is.

    uv run --group test python benchmarks/tokens.py              load, time a count, memory
    uv run --group test python benchmarks/tokens.py --package    and the way through the package
    uv run --group test python benchmarks/tokens.py --estimate   the estimate beside recordings

The first two start a fresh process for each vocabulary, so that each figure is of that one alone.
The last needs the recorded exchanges (tests/recorded.py says where). It prints and writes
`benchmarks/results/tokens.json`; it never fails for being slow.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median
from typing import Any

__all__ = ["main"]

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "tokens.json"
SIZES = (1_000, 10_000, 100_000)
ROUNDS = 7
TOKENIZERS = ("tekken-v13", "sentencepiece-v3")
# English, a table, code and another script: no kind of text is typical, their mixture is fair.
SAMPLE = (
    "The quick brown fox jumps over the lazy dog, and 1,250 others follow it.\n"
    "| name | price | seen |\n|---|---|---|\n| café | 4.50 | 2026-11-23 |\n"
    "def area(width: float, height: float) -> float:\n    return width * height\n"
    "Das Gesetz über die Größe der Grundstücke gilt seit 1998; 東京は日本の首都です。\n"
)


def _body(characters: int) -> dict[str, Any]:
    text = (SAMPLE * (characters // len(SAMPLE) + 1))[:characters]
    return {"model": "m", "messages": [{"role": "user", "content": text}]}


def _peak_mb() -> float:
    # Linux counts in KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _time_us(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return median(taken) * 1e6


def _ours(name: str) -> dict[str, float]:
    before_mb = _peak_mb()
    start = time.perf_counter()
    from loom.catalog.tokens import count_prompt, load  # noqa: PLC0415 - its import is measured
    from loom.core.model import ModelCard  # noqa: PLC0415 - the same

    card = ModelCard(id=name, tokenizer=name)
    load(card)
    found = {"load_s": time.perf_counter() - start, "rss_mb": _peak_mb() - before_mb}
    for size in SIZES:
        body = _body(size)
        found[f"us_{size}"] = _time_us(lambda body=body: count_prompt(body, card))  # type: ignore[misc] # mypy infers no type for a lambda with a default
        found[f"tokens_{size}"] = count_prompt(body, card).tokens
    return found


def _package(name: str) -> dict[str, float]:
    before_mb = _peak_mb()
    start = time.perf_counter()
    from mistral_common.protocol.instruct.messages import (  # noqa: PLC0415 - measured
        UserMessage,
    )
    from mistral_common.protocol.instruct.request import (  # noqa: PLC0415 - measured
        ChatCompletionRequest,
    )
    from mistral_common.tokens.tokenizers.mistral import (  # noqa: PLC0415 - measured
        MistralTokenizer,
    )

    tokenizer = MistralTokenizer.v3(is_tekken=name.startswith("tekken"))
    found = {"load_s": time.perf_counter() - start, "rss_mb": _peak_mb() - before_mb}
    for size in SIZES:
        text = _body(size)["messages"][0]["content"]
        request: Any = ChatCompletionRequest(messages=[UserMessage(content=text)])
        found[f"us_{size}"] = _time_us(
            lambda request=request: tokenizer.encode_chat_completion(request)  # type: ignore[misc] # mypy infers no type for a lambda with a default
        )
        found[f"tokens_{size}"] = len(tokenizer.encode_chat_completion(request).tokens)
    return found


def _in_own_process(*arguments: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, *arguments], check=True, capture_output=True, text=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _speed(*, package: bool) -> dict[str, dict[str, float]]:
    ways = ["ours", "package"] if package else ["ours"]
    found = {
        f"{way} {name}": _in_own_process("--one", way, name) for name in TOKENIZERS for way in ways
    }
    head = "  ".join(f"{f'us at {size}':>12}" for size in SIZES)
    print(f"{'':28}{'load s':>8}{'RSS MB':>8}  {head}")
    for name, row in found.items():
        times = "  ".join(f"{row[f'us_{size}']:12.0f}" for size in SIZES)
        print(f"{name:28}{row['load_s']:8.2f}{row['rss_mb']:8.0f}  {times}")
    return found


def _estimate() -> dict[str, float]:
    sys.path.insert(0, str(HERE.parent))
    from tests.recorded_prompts import prompts  # noqa: PLC0415 - the same

    from loom.catalog.estimate import rough_tokens  # noqa: PLC0415 - after the path is set
    from loom.catalog.layout import lay_out  # noqa: PLC0415 - the same
    from loom.catalog.template import TEMPLATES  # noqa: PLC0415 - the same

    errors = []
    for prompt in prompts():
        card = prompt.card
        if prompt.text_only and card is not None and card.tokenizer is not None:
            layout = lay_out(prompt.body, TEMPLATES[card.tokenizer])
            guess = layout.marks + sum(len(rough_tokens(text)) for text in layout.texts)
            errors.append(guess / prompt.prompt_tokens - 1)
    if not errors:
        sys.exit("the recorded exchanges are not there")
    found = {
        "prompts": len(errors),
        "mean_error": mean(map(abs, errors)),
        "lowest": min(errors),
        "highest": max(errors),
    }
    print(
        f"{found['prompts']} recorded prompts: the estimate is off by {found['mean_error']:.1%} on"
        f" average, from {found['lowest']:+.1%} to {found['highest']:+.1%}"
    )
    return found


def main() -> None:
    """Print what was asked for, and keep it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--package", action="store_true", help="measure mistral-common's own way")
    parser.add_argument("--estimate", action="store_true", help="compare the estimate")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        way, name = asked.one
        print(json.dumps({"ours": _ours, "package": _package}[way](name)))
        return
    kept = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    if asked.estimate:
        kept["estimate"] = _estimate()
    else:
        kept["speed"] = kept.get("speed", {}) | _speed(package=asked.package)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main()
