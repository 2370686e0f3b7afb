"""
Draw the circuit breaker as its code has it: `docs/breaker.svg`, and the table in `docs/breaker.md`.

Arrows and rows are the entries of `TRANSITIONS`, the numbers beside them those of `BreakerRules`.
`tests/docs/test_breaker.py` makes both again and compares.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from loom.layers.breaker_state import TRANSITIONS, BreakerRules, Cause, State

__all__ = ["main", "picture", "table"]

DOCS = Path(__file__).resolve().parents[1] / "docs"
PICTURE = DOCS / "breaker.svg"
PAGE = DOCS / "breaker.md"
MARKS = ("<!-- transitions -->\n", "<!-- /transitions -->\n")

WIDTH, HEIGHT = 840, 336
MIDDLE = 132  # where the states stand
BOX = (160, 62)


class Place(NamedTuple):
    """A state in the picture."""

    x: int
    name: str
    says: str


PLACES: dict[State, Place] = {
    "closed": Place(130, "closed", "calls pass"),
    "open": Place(420, "open", "no call passes"),
    "half_open": Place(710, "half open", "one call at a time"),
}

# A picture in a page knows the reader's wish and not the page's colours: it brings its own ground.
STYLE = """\
    text { font-family: system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
    .ground { fill: #ffffff; stroke: #d8dee4; }
    .name { font-size: 16px; font-weight: 600; fill: #1f2328; }
    .says { font-size: 12px; fill: #59636e; }
    .label { font-size: 13px; fill: #1f2328; }
    .arrow { fill: none; stroke: #59636e; stroke-width: 1.6; }
    .head, .start { fill: #59636e; }
    .closed { fill: #dafbe1; stroke: #1a7f37; }
    .open { fill: #ffebe9; stroke: #cf222e; }
    .half_open { fill: #fff8c5; stroke: #9a6700; }
    @media (prefers-color-scheme: dark) {
      .ground { fill: #161b22; stroke: #3d444d; }
      .name, .label { fill: #f0f6fc; }
      .says { fill: #b7bfc8; }
      .arrow { stroke: #9198a1; }
      .head, .start { fill: #9198a1; }
      .closed { fill: #12261e; stroke: #3fb950; }
      .open { fill: #2d1517; stroke: #f85149; }
      .half_open { fill: #2b2111; stroke: #d29922; }
    }"""


HEAD = f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"
     aria-labelledby="title">
  <title id="title">The states of a circuit breaker</title>
  <style>
{STYLE}
  </style>
  <defs>
    <marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8"
            orient="auto">
      <path class="head" d="M0,0 L10,5 L0,10 z"/>
    </marker>
  </defs>
  <rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="12"/>"""


def causes(rules: BreakerRules) -> dict[Cause, tuple[str, ...]]:
    """
    Say why a state ends.

    Args:
        rules: The numbers.

    Returns:
        For each cause a sentence, in lines for the picture.
    """
    part = f"{rules.failure_ratio:.0%}".replace("%", " %")
    calls, seconds = rules.min_calls, rules.window_s
    first_s, longest_s = rules.open_s, rules.open_max_s
    return {
        "tripped": (f"{part} of at least {calls} calls", f"in {seconds:g} s failed"),
        "waited": (f"{first_s:g} s are over,", f"after failed probes up to {longest_s:g} s"),
        "probe_failed": ("a probe failed:", "open for twice as long"),
        "proved": (f"{rules.probes} probes in a row succeeded",),
    }


def picture() -> str:
    """
    Draw the states and what leads from one to another.

    Returns:
        An SVG for light and dark pages.
    """
    lines = [HEAD]
    lines += _start(PLACES["closed"])
    says = causes(BreakerRules())
    for (before, cause), after in TRANSITIONS.items():
        lines += _arrow(PLACES[before], PLACES[after], says[cause])
    for state, place in PLACES.items():
        lines += _box(state, place)
    return "\n".join([*lines, "</svg>", ""])


def table() -> str:
    """
    Write the same as a table.

    Returns:
        Markdown, a row for each transition.
    """
    says = causes(BreakerRules())
    rows = [
        f"| {PLACES[before].name} | {' '.join(says[cause])} | {PLACES[after].name} |"
        for (before, cause), after in TRANSITIONS.items()
    ]
    return "\n".join(["", "| from | when | to |", "|---|---|---|", *rows, "", ""])


def _start(place: Place) -> list[str]:
    left = place.x - BOX[0] // 2
    return [
        f'  <circle class="start" cx="{left - 30}" cy="{MIDDLE}" r="5"/>',
        f'  <path class="arrow" marker-end="url(#head)" d="M{left - 25},{MIDDLE} H{left - 2}"/>',
    ]


def _box(state: State, place: Place) -> list[str]:
    width, height = BOX
    left, top = place.x - width // 2, MIDDLE - height // 2
    size = f'x="{left}" y="{top}" width="{width}" height="{height}"'
    return [
        f'  <rect class="{state}" {size} rx="10" stroke-width="2"/>',
        _text("name", place.x, MIDDLE - 4, place.name),
        _text("says", place.x, MIDDLE + 16, place.says),
    ]


def _arrow(before: Place, after: Place, says: tuple[str, ...]) -> list[str]:
    """A bow from one state to another: above on the way forth, below on the way back."""
    forth = 1 if after.x > before.x else -1
    near = abs(after.x - before.x) <= PLACES["open"].x - PLACES["closed"].x
    # One that goes around the state between them hangs deeper, from further out.
    inward, depth = (40, 52) if near else (-20, 168)
    begin, end = before.x + forth * inward, after.x - forth * inward
    edge = MIDDLE - forth * (BOX[1] // 2 + 2)
    bend = edge - forth * depth
    top = edge - forth * depth * 3 // 4  # a curve comes so near to the points that bend it
    first = top - 11 - 17 * (len(says) - 1) if forth > 0 else top + 20
    curve = f"M{begin},{edge} C{begin},{bend} {end},{bend} {end},{edge}"
    return [
        f'  <path class="arrow" marker-end="url(#head)" d="{curve}"/>',
        *(
            _text("label", (begin + end) // 2, first + 17 * row, line)
            for row, line in enumerate(says)
        ),
    ]


def _text(kind: str, x: int, y: int, text: str) -> str:
    return f'  <text class="{kind}" x="{x}" y="{y}" text-anchor="middle">{text}</text>'


def main() -> None:
    """Write the picture, and the table into its page."""
    PICTURE.write_text(picture(), encoding="utf-8")
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    PAGE.write_text(before + MARKS[0] + table() + MARKS[1] + after, encoding="utf-8")


if __name__ == "__main__":
    main()
