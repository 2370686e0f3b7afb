"""
Which model an id means on a day, and what was true of it then, for each vendor apart.

A day comes from the caller (`on`): nothing here reads a clock or the environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from functools import cache, lru_cache
from pathlib import Path

from loom.catalog.names import closest, looks_misspelt
from loom.catalog.rows import Advice, Period, Sheet, periods, read_sheet
from loom.core.errors import ConfigInvalid, InvalidRequest
from loom.core.model import ModelCard

__all__ = ["STALE_AFTER_DAYS", "TASKS", "Advice", "Catalog"]

# Design, "Prices age": a warning after 90 days.
STALE_AFTER_DAYS = 90

# Reference page, "Decision Tree".
TASKS = ("development", "cost_sensitive", "high_volume", "complex_reasoning", "long_context")

# One file a vendor; Mistral's first.
_FILES = ("models.toml", "openai.toml")

# A program asks for today, a ledger for its days: a quarter of a year fits. Ids come from callers,
# so what is remembered of them is bounded too.
_KEPT = 100


class Catalog:
    """
    Dated facts about models.

    Args:
        sheet: The rows; `builtin()` and `with_overlay()` are the usual ways to get a catalogue.
    """

    __slots__ = ("_days", "_periods", "_sheet", "_slips", "_smallest")

    def __init__(self, sheet: Sheet) -> None:
        self._sheet = sheet
        self._periods: tuple[Period, ...] = periods(sheet.entries)
        # Filling it twice from two threads gives the same values, so it needs no lock.
        self._days: dict[tuple[date, str], Mapping[str, ModelCard]] = {}
        # Comparing an id with all others takes a millisecond, and it may come with every call.
        self._slips: dict[tuple[date, str, str], bool] = {}
        self._smallest: dict[str, int] = {}
        for card in (one.card for one in self._periods):
            # A user's row may name no abilities: it may be for chats.
            window = card.context_window
            if window is not None and ("chat" in card.abilities or not card.abilities):
                least = self._smallest.get(card.provider, window)
                self._smallest[card.provider] = min(least, window)

    @staticmethod
    @cache
    def builtin() -> Catalog:
        """The rows that come with this version; read at the first call, then kept."""
        # Not importlib.resources: it costs 60 ms to import, and wheels are unpacked on disk.
        sheet = Sheet((), ())
        for name in _FILES:
            text = Path(__file__).with_name(name).read_text(encoding="utf-8")
            sheet = read_sheet(text, name).on_top_of(sheet)
        return Catalog(sheet)

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

    def anywhere(self, model_id: str, on: date) -> ModelCard | None:
        """
        What an id meant on a day, whoever served it: Mistral's before the others'.

        Args:
            model_id: The id, perhaps with its vendor before it: "openai:gpt-4o".
            on: The day, UTC.

        Returns:
            The card, or None when the id meant nothing on that day.
        """
        vendor, _, rest = model_id.partition(":")
        for provider in self.providers():
            card = self.find(model_id, on, provider)
            if card is None and provider == vendor:
                card = self.find(rest, on, provider)
            if card is not None:
                return card
        return None

    def providers(self) -> tuple[str, ...]:
        """Whose models are known, in the catalogue's order."""
        return tuple(dict.fromkeys(one.card.provider for one in self._periods))

    def default(self, on: date, provider: str) -> ModelCard | None:
        """
        The model of a vendor that is taken when nobody names one.

        Args:
            on: The day, UTC.
            provider: The vendor.

        Returns:
            Its card; None when no row names one for that day.
        """
        rows = [row for row in self._sheet.defaults if row.provider == provider]
        held = [row for row in rows if row.valid_from <= on]
        # A later row of the same day is a user's.
        latest = max(enumerate(held), key=lambda pair: (pair[1].valid_from, pair[0]), default=None)
        return None if latest is None else self.find(latest[1].model, on, provider)

    def smallest_window(self, provider: str) -> int:
        """
        The smallest window of a vendor's chat models on all days: what fits it fits them all.

        Args:
            provider: Who serves them.

        Returns:
            Tokens; 0 when no window is known.
        """
        return self._smallest.get(provider, 0)

    def cards(
        self, on: date, provider: str | None = "mistral", *, retired: bool = False
    ) -> tuple[ModelCard, ...]:
        """
        All models of a vendor on a day, in the catalogue's order.

        Args:
            on: The day, UTC.
            provider: Who serves them; None for the models of all.
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
            for card in self.cards(on, None)
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
    sheet = below._sheet  # noqa: SLF001 - a catalogue of ours
    return Catalog(read_sheet(text, file, origin).on_top_of(sheet))
