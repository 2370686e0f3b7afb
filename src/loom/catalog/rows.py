"""
Rows of a TOML file become periods of models: read, checked, inherited, overlaid.

The form of a row is explained in docs/models.md; `models.toml` opens with its laws.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from decimal import Context, Decimal
from typing import Any, NamedTuple, TypeVar

import msgspec

from loom.catalog.template import TEMPLATES
from loom.core.errors import ConfigInvalid
from loom.core.model import Ability, ModelCard, ModelState, Price

__all__ = [
    "Advice",
    "Default",
    "Entry",
    "Period",
    "Row",
    "Sheet",
    "overlaid",
    "periods",
    "read_sheet",
]


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    One `[[model]]` table as it stands in the file; amounts in US dollars.

    Attributes are those of `ModelCard` and `Price` under the file's shorter names.
    """

    id: str
    provider: str = "mistral"
    valid_from: date | None = None
    valid_until: date | None = None
    title: str = ""
    aliases: tuple[str, ...] = ()
    legacy_ids: tuple[str, ...] = ()
    input: Decimal | None = None
    output: Decimal | None = None
    cached_input: Decimal | None = None
    cached_factor: Decimal | None = None
    per_page: Decimal | None = None
    per_audio_minute: Decimal | None = None
    batch_factor: Decimal = Decimal("0.5")
    priority_factor: Decimal | None = None
    long_prompt: int | None = None
    long_input_factor: Decimal = Decimal(1)
    long_output_factor: Decimal = Decimal(1)
    context_window: int | None = None
    max_output: int | None = None
    abilities: frozenset[Ability] = frozenset()
    licence: str = ""
    open_weights: bool = False
    parameters: str | None = None
    active_parameters: str | None = None
    architecture: str | None = None
    best_for: str = ""
    use_cases: tuple[str, ...] = ()
    speed: str | None = None
    state: ModelState = "ga"
    deprecated_on: date | None = None
    retires_on: date | None = None
    replacement: str | None = None
    default_temperature: float | None = None
    reasoning_efforts: tuple[str, ...] = ()
    tokenizer: str | None = None
    source: str = ""
    checked_on: date | None = None


class Advice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    One branch of the decision tree, from a day on.

    Attributes:
        task: What is to be done, for example "complex_reasoning".
        model: The id or alias to take; an alias means what it meant on the day asked for.
        reason: Why this one.
        valid_from: First day of the advice.
        source: Where the reason stands.
    """

    task: str
    model: str
    reason: str = ""
    valid_from: date = date.min
    source: str = ""


class Default(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    The model of a vendor that is taken when nobody names one, from a day on.

    Attributes:
        provider: The vendor.
        model: The id or alias to take.
        reason: Why this one.
        valid_from: First day.
        source: Where the reason stands.
    """

    provider: str
    model: str
    reason: str = ""
    valid_from: date = date.min
    source: str = ""


class Entry(NamedTuple):
    """
    A row before inheritance: what was written, and in which overlay (empty: built in).

    Attributes:
        written: The table's keys and values.
        origin: The overlay's file name.
    """

    written: dict[str, Any]
    origin: str = ""


class Sheet(NamedTuple):
    """
    A file's rows.

    Attributes:
        entries: The `[[model]]` tables, in the file's order.
        advice: The `[[recommend]]` tables, in the file's order.
        defaults: The `[[default]]` tables, in the file's order.
    """

    entries: tuple[Entry, ...]
    advice: tuple[Advice, ...]
    defaults: tuple[Default, ...] = ()

    def on_top_of(self, below: Sheet) -> Sheet:
        """
        These rows laid over others.

        Args:
            below: The others.

        Returns:
            All rows, as `overlaid` joins them.
        """
        return Sheet(
            overlaid(below.entries, self.entries),
            below.advice + self.advice,
            below.defaults + self.defaults,
        )


class Period(NamedTuple):
    """
    What held of a model from one day to another.

    Attributes:
        card: The facts, an announced retirement among them; `on` hides it before its day.
        valid_from: First day.
        valid_until: Last day.
        deprecated_on: The day of the announcement; None when `card.state` says it all.
    """

    card: ModelCard
    valid_from: date
    valid_until: date
    deprecated_on: date | None

    def on(self, day: date) -> ModelCard:
        """
        The facts as they stood on a day: a retirement is unknown before its announcement.

        Args:
            day: A day of this period.

        Returns:
            The card.
        """
        card = self.card
        if card.retires_on is not None and day > card.retires_on:
            return msgspec.structs.replace(card, state="retired")
        if self.deprecated_on is None:
            return card
        if day >= self.deprecated_on:
            return msgspec.structs.replace(card, state="deprecated")
        return msgspec.structs.replace(card, retires_on=None, replacement=None)


_Table = TypeVar("_Table", Row, Advice, Default)

_PRICE_KEYS = frozenset(
    {
        "input",
        "output",
        "cached_input",
        "cached_factor",
        "per_page",
        "per_audio_minute",
        "batch_factor",
        "priority_factor",
        "long_input_factor",
        "long_output_factor",
    }
)
# Mistral's; what another vendor's priority tier costs is in its rows, or unknown.
_PRIORITY_FACTOR = {"mistral": Decimal("1.75")}

# Rows are read once and kept: a low precision that a caller has set just then must not stay.
_EXACT = Context(prec=28)

# An overlay is by a user: it must not pass for the vendor's page, nor for a check we made.
_PROVENANCE = {"source": "", "checked_on": None}


def read_sheet(text: str, file: str, origin: str = "") -> Sheet:
    """
    Read rows from TOML and check each of them by itself.

    Args:
        text: The file's text.
        file: Its name, for messages.
        origin: The overlay's name that the rows carry; empty for the built-in ones.

    Returns:
        The rows.

    Raises:
        ConfigInvalid: If it is not TOML, or a row has a wrong or unknown field. The message
            names file, row and field.
    """
    # 30 ms to import, and most programs ask for no price before their first answer.
    import tomllib  # noqa: PLC0415

    try:
        tables = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise ConfigInvalid(f"{file}: not TOML: {error}") from error
    for key in tables.keys() - {"model", "recommend", "default"}:
        raise ConfigInvalid(
            f"{file}: unknown table {key!r}: use [[model]], [[recommend]] or [[default]]"
        )
    entries = []
    for place, written in _numbered(tables, "model", file):
        _check(_converted(written, Row, place), place)
        entries.append(Entry(written, origin))
    advice = [
        _converted(written, Advice, place)
        for place, written in _numbered(tables, "recommend", file)
    ]
    defaults = [
        _converted(written, Default, place) for place, written in _numbered(tables, "default", file)
    ]
    return Sheet(tuple(entries), tuple(advice), tuple(defaults))


def _numbered(tables: dict[str, Any], kind: str, file: str) -> Iterable[tuple[str, dict[str, Any]]]:
    found = tables.get(kind, [])
    if not isinstance(found, list):
        raise ConfigInvalid(f"{file}: {kind!r} is one table: write [[{kind}]] with two brackets")
    for number, written in enumerate(found, 1):
        if not isinstance(written, dict):
            raise ConfigInvalid(f"{file}: {kind} row {number} is no table: write [[{kind}]]")
        name = written.get("id") or written.get("task") or written.get("provider", "?")
        yield f"{file}: {kind} row {number} ({name!r})", written


def _converted(written: dict[str, Any], kind: type[_Table], place: str) -> _Table:
    try:
        return msgspec.convert(written, kind)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$.")
        field = path.rstrip("`")
        raise ConfigInvalid(
            f"{place}, field {field!r}: {what}" if field else f"{place}: {what}"
        ) from error


def _check(row: Row, place: str) -> None:
    for field in sorted(_PRICE_KEYS):
        amount = getattr(row, field)
        if amount is not None and not (amount.is_finite() and amount >= 0):
            raise ConfigInvalid(f"{place}, field {field!r}: {amount} is no price")
    for field in ("context_window", "max_output", "long_prompt"):
        tokens = getattr(row, field)
        if tokens is not None and tokens < 1:
            raise ConfigInvalid(f"{place}, field {field!r}: {tokens} is no number of tokens")
    if row.tokenizer is not None and row.tokenizer not in TEMPLATES:
        known = ", ".join(TEMPLATES)
        raise ConfigInvalid(f"{place}, field 'tokenizer': {row.tokenizer!r} is none of {known}")
    if not row.id.strip():
        raise ConfigInvalid(f"{place}, field 'id': it is empty")


def overlaid(entries: tuple[Entry, ...], patches: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """
    The rows with a user's rows laid over them.

    A row without `valid_from` corrects every row of its id; with the day of an existing row it
    corrects that row; everything else is a new row.

    Args:
        entries: The rows below.
        patches: The rows on top.

    Returns:
        All rows.
    """
    result = list(entries)
    for patch in patches:
        places = [place for place, entry in enumerate(result) if _corrects(patch, entry)]
        for place in places:
            below = result[place]
            written = below.written | _PROVENANCE | patch.written
            if "valid_from" in below.written:
                written["valid_from"] = below.written["valid_from"]
            result[place] = Entry(written, patch.origin)
        if not places:
            result.append(patch)
    return tuple(result)


def _corrects(patch: Entry, entry: Entry) -> bool:
    if _model(patch) != _model(entry):
        return False
    day = patch.written.get("valid_from")
    return day is None or day == entry.written.get("valid_from")


def _model(entry: Entry) -> tuple[str, str]:
    return entry.written.get("provider", "mistral"), entry.written["id"]


def periods(entries: tuple[Entry, ...]) -> tuple[Period, ...]:
    """
    What held when: each row completed by the row before it of the same model.

    Args:
        entries: Rows in any order.

    Returns:
        Periods, models in the order of their first row, days rising within a model.
    """
    models: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        models.setdefault(_model(entry), []).append(entry)
    found: list[Period] = []
    for rows in models.values():
        rows.sort(key=_first_day)
        found.extend(_of_one_model(rows))
    return tuple(found)


def _first_day(entry: Entry) -> date:
    return msgspec.convert(entry.written.get("valid_from", date.min), date)


def _of_one_model(entries: list[Entry]) -> Iterable[Period]:
    facts: dict[str, Any] = {}
    price: Price | None = None
    ends = [*map(_first_day, entries[1:]), None]
    for entry, next_day in zip(entries, ends, strict=True):
        facts = facts | _PROVENANCE | entry.written
        last = facts.pop("valid_until", None)
        row = msgspec.convert(facts, Row)
        if entry.written.keys() & _PRICE_KEYS:
            price = _price(row, entry.origin)
        until = date.max if last is None else msgspec.convert(last, date)
        if next_day is not None:
            until = min(until, date.fromordinal(next_day.toordinal() - 1))
        yield Period(_card(row, price, entry.origin), _first_day(entry), until, row.deprecated_on)


def _price(row: Row, origin: str) -> Price:
    cached = row.cached_input
    if cached is None and row.input is not None and row.cached_factor is not None:
        cached = _EXACT.multiply(row.input, row.cached_factor)
    minute = row.per_audio_minute
    day = "always" if row.valid_from is None else row.valid_from.isoformat()
    return Price(
        id=f"{row.id}@{day}" + (f" ({origin})" if origin else ""),
        input_usd_per_mtok=row.input,
        output_usd_per_mtok=row.output,
        cached_input_usd_per_mtok=cached,
        usd_per_page=row.per_page,
        usd_per_audio_second=None if minute is None else _EXACT.divide(minute, 60),
        batch_factor=row.batch_factor,
        priority_factor=_PRIORITY_FACTOR.get(row.provider)
        if row.priority_factor is None
        else row.priority_factor,
        long_prompt_tokens=row.long_prompt,
        long_input_factor=row.long_input_factor,
        long_output_factor=row.long_output_factor,
        valid_from=row.valid_from,
        source=row.source or origin,
        checked_on=row.checked_on,
    )


def _card(row: Row, price: Price | None, origin: str) -> ModelCard:
    return ModelCard(
        id=row.id,
        provider=row.provider,
        title=row.title or row.id,
        aliases=row.aliases,
        legacy_ids=row.legacy_ids,
        context_window=row.context_window,
        max_output=row.max_output,
        abilities=row.abilities,
        licence=row.licence,
        open_weights=row.open_weights,
        parameters=row.parameters,
        active_parameters=row.active_parameters,
        architecture=row.architecture,
        best_for=row.best_for,
        use_cases=row.use_cases,
        speed=row.speed,
        state=row.state,
        retires_on=row.retires_on,
        replacement=row.replacement,
        default_temperature=row.default_temperature,
        reasoning_efforts=row.reasoning_efforts,
        tokenizer=row.tokenizer,
        price=price,
        source=row.source or origin,
        checked_on=row.checked_on,
    )
