"""What a store knows of a session beside its entries: sums, a title, the words to find it by."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from unicodedata import normalize

import msgspec

from loom.agent.session import Condensed, Entry, Said, SessionInfo
from loom.core.errors import Conflict, InvalidRequest
from loom.core.response import Usage
from loom.ledger.ids import clean
from loom.ledger.money import add, usd

__all__ = ["check_expected", "check_page", "folded", "said_in", "summed", "words_of"]

_TITLE = 60
# More would make a search slow, and find nothing more.
_MOST_WORDS = 20


def summed(
    info: SessionInfo | None, session: str, entries: Sequence[Entry], now: datetime
) -> SessionInfo:
    """
    What is known of a session when entries are added.

    Args:
        info: What was known before; None for a new session.
        session: The session's id.
        entries: What is added.
        now: The time, UTC.

    Returns:
        The new sums.

    Raises:
        InvalidRequest: If a cost is not an amount.
    """
    info = info or SessionInfo(id=session, title="", created_at=now, updated_at=now)
    title, turns = info.title, info.turns
    tokens_in, tokens_out = info.input_tokens, info.output_tokens
    cost_usd, unpriced = info.cost_usd, info.unpriced_calls
    for entry in entries:
        if isinstance(entry, Said) and entry.message.role == "user":
            turns += 1
            title = title or _title_of(entry.message.text)
        usage = entry.usage if isinstance(entry, Said | Condensed) else None
        if usage is None:
            continue
        _check_tokens(usage)
        tokens_in += usage.input_tokens
        tokens_out += usage.output_tokens
        if usage.cost_usd is None:
            unpriced += 1
        else:
            cost_usd = add(cost_usd, _amount(usage.cost_usd))
    return msgspec.structs.replace(
        info,
        title=title,
        updated_at=now,
        entries=info.entries + len(entries),
        turns=turns,
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        cost_usd=cost_usd,
        unpriced_calls=unpriced,
    )


def said_in(entry: Entry) -> str:
    """
    The text of an entry that a search looks at: what user and assistant said.

    Args:
        entry: Any entry.

    Returns:
        The text as `folded` makes it; empty when there is none.
    """
    if not isinstance(entry, Said) or entry.message.role not in ("user", "assistant"):
        return ""
    return folded(entry.message.text)


def folded(text: str) -> str:
    """
    A text for comparison: without case, and with one form for what looks the same.

    Args:
        text: Any text.

    Returns:
        The text that is compared.

    Source: Unicode Standard, section 3.13, "Default Caseless Matching", with NFKC.
    """
    return normalize("NFKC", normalize("NFKC", clean(text)).casefold())


def words_of(search: str | None) -> tuple[str, ...]:
    """
    What must stand in a session for it to be found.

    Args:
        search: What a person typed; None for all sessions.

    Returns:
        Texts as `folded` makes them.
    """
    words = folded(search or "").split()
    return tuple(dict.fromkeys(words))[:_MOST_WORDS]


def check_page(limit: int, offset: int) -> None:
    """
    Refuse a page that is none.

    Args:
        limit: Sessions at most.
        offset: Sessions to leave out.

    Raises:
        InvalidRequest: If `limit` is below 1, or `offset` below 0.
    """
    if not 1 <= limit < 1 << 31:
        raise InvalidRequest(f"limit is {limit}: at least 1", attempts=0)
    if not 0 <= offset < 1 << 31:
        raise InvalidRequest(f"offset is {offset}: at least 0", attempts=0)


def check_expected(session: str, expected: int, count: int) -> None:
    """
    Refuse to write to a session that the writer does not know as it is.

    Args:
        session: The session's id.
        expected: How many entries the writer knows.
        count: How many there are.

    Raises:
        Conflict: If that is another number.
    """
    if expected != count:
        raise Conflict(
            f"the session {session!r} has {count} entries, and not the {expected} that the writer"
            " knows: somebody else wrote to it",
            hint="Read the session again and go on from there; a session has one writer at a time.",
            retryable=False,
            attempts=0,
        )


def _check_tokens(usage: Usage) -> None:
    # SQLite's numbers have 64 bits, and JSON's readers often 53.
    if not (0 <= usage.input_tokens < 1 << 53 and 0 <= usage.output_tokens < 1 << 53):
        raise InvalidRequest(f"no call has as many tokens as {usage}", attempts=0)


def _amount(cost_usd: Decimal) -> Decimal:
    try:
        return usd(cost_usd, "the cost of a call")
    except ValueError as error:
        raise InvalidRequest(str(error), attempts=0) from None


def _title_of(text: str) -> str:
    """Give the first words of a text, on one line, without control characters."""
    line = "".join(letter if letter.isprintable() else " " for letter in text[: 20 * _TITLE])
    words = " ".join(line.split())
    if len(words) <= _TITLE:
        return words
    cut = words[:_TITLE]
    head, _, _ = cut.rpartition(" ")
    return f"{head or cut} ..."
