"""
Which model an id means on a day, and what was true of it then.

A day comes from the caller (`on`): nothing here reads a clock or the environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from functools import cache, lru_cache
from pathlib import Path

from loom.catalog.names import closest, looks_misspelt
from loom.catalog.rows import Advice, Period, Sheet, overlaid, periods, read_sheet
from loom.core.errors import ConfigInvalid, InvalidRequest
from loom.core.model import ModelCard

__all__ = ["STALE_AFTER_DAYS", "TASKS", "Advice", "Catalog"]

# Design, "Prices age": a warning after 90 days.
STALE_AFTER_DAYS = 90

# Reference page, "Decision Tree".
TASKS = ("development", "cost_sensitive", "high_volume", "complex_reasoning", "long_context")

# A program asks for today, a ledger for its days: a quarter of a year fits. Ids come from callers,
# so what is remembered of them is bounded too.
_KEPT = 100


class Catalog:
    """
    Dated facts about models.

    Args:
        sheet: The rows; `builtin()` and `with_overlay()` are the usual ways to get a catalogue.

    Attributes:
        smallest_window: Of all chat models on all days, in tokens: what fits it needs no look at
            the model. 0 when no window is known.
    """

    __slots__ = ("_days", "_periods", "_sheet", "_slips", "smallest_window")

    def __init__(self, sheet: Sheet) -> None:
        self._sheet = sheet
        self._periods: tuple[Period, ...] = periods(sheet.entries)
        # Filling it twice from two threads gives the same values, so it needs no lock.
        self._days: dict[tuple[date, str], Mapping[str, ModelCard]] = {}
        # Comparing an id with all others takes a millisecond, and it may come with every call.
        self._slips: dict[tuple[date, str, str], bool] = {}
        cards = [one.card for one in self._periods]
        # A user's row may name no abilities: it may be for chats.
        chats = [card for card in cards if "chat" in card.abilities or not card.abilities]
        windows = [card.context_window for card in chats if card.context_window is not None]
        self.smallest_window = min(windows, default=0)

    @staticmethod
    @cache
    def builtin() -> Catalog:
        """The rows that come with this version; read at the first call, then kept."""
        # Not importlib.resources: it costs 60 ms to import, and wheels are unpacked on disk.
        text = Path(__file__).with_name("models.toml").read_text(encoding="utf-8")
        return Catalog(read_sheet(text, "models.toml"))

    def with_overlay(self, path: str | Path) -> Catalog:
        """
        A catalogue with a user's rows laid over these.

        Args:
            path: A TOML file with `[[model]]` and `[[recommend]]` tables, as in docs/models.md.

        Returns:
            A new catalogue.

        Raises:
            ConfigInvalid: If the file cannot be read or a row is wrong; it names file, row and
                field.
        """
        file = Path(path)
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigInvalid(f"{file}: cannot be read: {error}") from error
        return _laid_over(self, text, str(file), file.name)

    def find(self, model_id: str, on: date, provider: str = "mistral") -> ModelCard | None:
        """
        What an id, an alias or a legacy id meant on a day.

        A retired model is found too, with `state="retired"` and its last price: a ledger and a
        recording still name it.

        Args:
            model_id: The id, as in a request or a response.
            on: The day, UTC.
            provider: Who serves it.

        Returns:
            The card, or None when the id meant nothing on that day.
        """
        return self._names(on, provider).get(model_id)

    def cards(
        self, on: date, provider: str | None = None, *, retired: bool = False
    ) -> tuple[ModelCard, ...]:
        """
        All models of a day, in the catalogue's order.

        Args:
            on: The day, UTC.
            provider: Only this one's; None for all.
            retired: Whether models that had been retired by then are wanted too.

        Returns:
            Their cards.
        """
        found = (
            period.on(on)
            for period in self._in_force(on)
            if provider is None or period.card.provider == provider
        )
        return tuple(card for card in found if retired or card.state != "retired")

    def nearest(
        self, model_id: str, on: date, count: int = 3, provider: str = "mistral"
    ) -> tuple[str, ...]:
        """
        The ids that one may have meant, nearest first; no retired ones.

        Args:
            model_id: What was written.
            on: The day, UTC.
            count: How many at most.
            provider: Who serves it.

        Returns:
            Ids and aliases.
        """
        names = self._names(on, provider)
        usable = (name for name, card in names.items() if card.state != "retired")
        return closest(model_id, usable, count)

    def misspelt(self, model_id: str, on: date, provider: str = "mistral") -> bool:
        """
        Whether an unknown id is a known one with a slip in it.

        False for a known id, a fine-tuned one (`ft:`), and for one that differs from a known id
        only by its digits or its version: that may be a model which this catalogue does not
        know yet.

        Args:
            model_id: What was written.
            on: The day, UTC.
            provider: Who serves it.

        Returns:
            True when the vendor is sure to refuse it.
        """
        names = self._names(on, provider)
        if model_id in names or model_id.startswith("ft:"):
            return False
        key = (on, provider, model_id)
        slip = self._slips.get(key)
        if slip is None:
            if len(self._slips) >= _KEPT:
                self._slips.clear()
            slip = self._slips[key] = looks_misspelt(model_id, names)
        return slip

    def advice(self, on: date) -> tuple[Advice, ...]:
        """
        The decision tree of a day, with reasons, in the order of `TASKS`.

        Args:
            on: The day, UTC.

        Returns:
            One branch a task; empty before the first one.
        """
        latest: dict[str, Advice] = {}
        for branch in self._sheet.advice:
            known = latest.get(branch.task)
            if branch.valid_from <= on and (known is None or branch.valid_from >= known.valid_from):
                latest[branch.task] = branch
        return tuple(latest[task] for task in TASKS if task in latest)

    def recommend(self, task: str, on: date) -> ModelCard:
        """
        The model that the decision tree of a day names for a task.

        Args:
            task: One of `TASKS`.
            on: The day, UTC.

        Returns:
            Its card.

        Raises:
            InvalidRequest: If there is no such task, or no advice for that day.
        """
        if task not in TASKS:
            raise InvalidRequest(f"no task {task!r}: use one of {', '.join(TASKS)}")
        for branch in self.advice(on):
            if branch.task == task:
                card = self.find(branch.model, on)
                if card is not None:
                    return card
        raise InvalidRequest(f"no model is recommended for {task!r} on {on}: take a later day")

    def stale(self, on: date) -> tuple[ModelCard, ...]:
        """
        The models whose facts nobody has checked for more than 90 days.

        Args:
            on: The day, UTC.

        Returns:
            Their cards; retired models and rows without a check date are not among them.
        """
        oldest = on - timedelta(days=STALE_AFTER_DAYS)
        return tuple(
            card
            for card in self.cards(on)
            if card.checked_on is not None and card.checked_on < oldest
        )

    def _in_force(self, on: date) -> list[Period]:
        return [one for one in self._periods if one.valid_from <= on <= one.valid_until]

    def _names(self, on: date, provider: str) -> Mapping[str, ModelCard]:
        names = self._days.get((on, provider))
        if names is None:
            if len(self._days) >= _KEPT:
                self._days.clear()
            names = self._days[on, provider] = self._built(on, provider)
        return names

    def _built(self, on: date, provider: str) -> Mapping[str, ModelCard]:
        names: dict[str, ModelCard] = {}
        cards = [
            (one.on(on), one.valid_from)
            for one in self._in_force(on)
            if one.card.provider == provider
        ]
        # Two may claim an alias; the later in this order wins: who serves, then who is newer.
        cards.sort(key=lambda pair: (pair[0].state != "retired", pair[1]))
        for card, _ in cards:
            names.update(dict.fromkeys(card.aliases, card))
        names.update((card.id, card) for card, _ in cards)
        return names


# Every client and every question reads the user's file anew; only a changed one is parsed again.
@lru_cache(maxsize=4)
def _laid_over(below: Catalog, text: str, file: str, origin: str) -> Catalog:
    top = read_sheet(text, file, origin)
    return Catalog(
        Sheet(
            overlaid(below._sheet.entries, top.entries),  # noqa: SLF001 - a catalogue of ours
            below._sheet.advice + top.advice,  # noqa: SLF001 - the same
        )
    )
