"""Pictures for `docs/limits.md`, as SVG, without a library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from limit_world import Outcome

__all__ = ["bars", "curves"]

# Colours that people who cannot tell red from green can tell. Source: Okabe and Ito, 2008.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")
INK = "#7f7f7f"  # to be read on white and on black
WIDTH = 840


def bars(names: Sequence[str], table: Mapping[str, Sequence[Outcome]]) -> str:
    """
    Draw the share of the quota by server, a bar for each contender; above it the part refused.

    Args:
        names: The servers.
        table: By contender, an outcome for each server.

    Returns:
        The picture.
    """
    height, left, top = 300, 48, 54
    body = _legend(list(table))
    group = (WIDTH - left - 24) / len(names)
    wide = group * 0.8 / len(table)
    low = height - 40
    for share in (0, 50, 100):
        y = low - (low - top) * share / 100
        body.append(f'<line x1="{left}" x2="{WIDTH}" y1="{y:.0f}" y2="{y:.0f}" stroke="{INK}" '
                    'stroke-width="0.5"/>')  # fmt: skip
        body.append(_text(left - 6, y + 4, f"{share} %", anchor="end"))
    for place, name in enumerate(names):
        x = left + group * (place + 0.1)
        body.append(_text(x + group * 0.4, height - 20, name))
        for number, outcomes in enumerate(table.values()):
            one = outcomes[place]
            tall = (low - top) * min(1.0, one.used)
            at = x + wide * number
            body.append(
                f'<rect x="{at:.1f}" y="{low - tall:.1f}" width="{wide - 2:.1f}"'
                f' height="{tall:.1f}" fill="{COLOURS[number]}"/>'
            )
            refused = one.refused / max(1, one.refused + one.answered)
            body.append(_text(at + wide / 2 - 1, low - tall - 4, _percent(refused), size=10))
    body.append(_text(left, height - 3, "Bars: share of the quota that was used. Above them:"
                      " share of calls answered 429.", anchor="start", size=11))  # fmt: skip
    return _svg(height, body, "Share of a quota that is used, by way to keep it and by server")


def curves(lines: Mapping[str, Sequence[int]], limit: int) -> str:
    """
    Draw what counted in the last 60 seconds, over time.

    Args:
        lines: By contender, tokens for each second.
        limit: What a minute allows.

    Returns:
        The picture.
    """
    height, left, top = 300, 48, 54
    body = _legend(list(lines))
    low = height - 40
    seconds = max(len(line) for line in lines.values())
    highest = max(max(line) for line in lines.values()) / limit

    def at(second: int, tokens: float) -> str:
        x = left + (WIDTH - left - 24) * second / seconds
        return f"{x:.1f},{low - (low - top) * tokens / limit / highest:.1f}"

    for minute in range(seconds // 60 + 1):
        x = left + (WIDTH - left - 24) * minute * 60 / seconds
        body.append(_text(x, height - 22, f"{minute} min"))
    y = low - (low - top) / highest
    body.append(f'<line x1="{left}" x2="{WIDTH}" y1="{y:.0f}" y2="{y:.0f}" stroke="{INK}" '
                'stroke-dasharray="6 4"/>')  # fmt: skip
    body.append(_text(left - 4, y + 4, "limit", anchor="end"))
    for number, line in enumerate(lines.values()):
        points = " ".join(at(second, tokens) for second, tokens in enumerate(line))
        body.append(
            f'<polyline points="{points}" fill="none" stroke="{COLOURS[number]}" stroke-width="2"/>'
        )
    body.append(_text(left, height - 3, "Tokens that the vendor charged for in the last 60"
                      " seconds.", anchor="start", size=11))  # fmt: skip
    return _svg(height, body, "Tokens of the last minute over time, by way to keep the limit")


def _legend(names: Sequence[str]) -> list[str]:
    body = []
    for number, name in enumerate(names):
        x = 40 + number * 170
        body.append(f'<rect x="{x}" y="10" width="12" height="12" fill="{COLOURS[number]}"/>')
        body.append(_text(x + 18, 20, name, anchor="start"))
    return body


def _percent(share: float) -> str:
    if not share:
        return "0"
    return f"{share:.0%}" if share >= 0.01 else f"{share:.1%}"


def _text(x: float, y: float, text: str, *, anchor: str = "middle", size: int = 12) -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" font-size="{size}"'
        f' fill="{INK}">{text}</text>'
    )


def _svg(height: int, body: Sequence[str], title: str) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
        f' font-family="sans-serif" role="img">\n<title>{title}</title>\n'
    )
    return head + "\n".join(body) + "\n</svg>\n"
