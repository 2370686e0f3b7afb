"""The recorded chats that carry a request, each as it was sent, with what the vendor counted."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any

import msgspec
from tests.recorded import FOLDER, chat_exchanges

from loom.catalog.lookup import Catalog
from loom.core.model import ModelCard

# These recorders sorted the keys of JSON; the vendor had counted the tools in their own order.
_SORTED = ("0xPlaygrounds/rig/", "pydantic/pydantic-ai/")
_SCHEMA_KEYS = (
    "type",
    "description",
    "properties",
    "required",
    "items",
    "enum",
    "additionalProperties",
)
# What a recorder wrote instead of the day: its cassettes were made in this month (models-001).
_UNDATED = date(2026, 8, 15)
_OTHER_THAN_TEXT = {"image_url", "document_url", "input_audio", "file", "reference"}


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded request with the two counts of its reply."""

    file: str
    body: dict[str, Any]
    stream: bool
    day: date
    prompt_tokens: int
    completion_tokens: int
    reply: bytes

    def __str__(self) -> str:
        return self.file.removesuffix(".json")

    @property
    def card(self) -> ModelCard | None:
        """The model on the day of the recording."""
        return Catalog.builtin().find(self.body["model"], self.day)

    @property
    def text_only(self) -> bool:
        """Whether it holds neither images, documents nor sound."""
        return not _kinds(self.body) & _OTHER_THAN_TEXT

    @property
    def thinks(self) -> bool:
        """Whether its history holds thinking."""
        return "thinking" in _kinds(self.body)


@lru_cache
def prompts() -> tuple[Prompt, ...]:
    """All recorded chats that were answered and carry their request."""
    return tuple(_prompts())


def _prompts() -> Iterator[Prompt]:
    if not FOLDER.is_dir():
        return
    sources = {
        row["file"]: row["source"] for row in json.loads((FOLDER / "index.json").read_text())
    }
    for exchange in chat_exchanges():
        counted = [
            re.findall(rf'"{name}":\s*(\d+)'.encode(), exchange.body)
            for name in ("prompt_tokens", "completion_tokens", "created")
        ]
        if not exchange.request or not all(counted):
            continue
        body = exchange.request
        yield Prompt(
            file=exchange.file,
            body=_restored(body) if sources[exchange.file].startswith(_SORTED) else body,
            stream=exchange.stream,
            day=_day(int(counted[2][0])),
            prompt_tokens=int(counted[0][-1]),
            completion_tokens=int(counted[1][-1]),
            reply=exchange.body,
        )


def _day(created: int) -> date:
    day = datetime.fromtimestamp(created, UTC).date()
    return day if day.year > 2000 else _UNDATED


def _restored(body: dict[str, Any]) -> dict[str, Any]:
    tools = [_tool(tool["function"]) for tool in body.get("tools") or ()]
    return {**body, "tools": tools} if tools else body


def _tool(function: dict[str, Any]) -> dict[str, Any]:
    restored = {**function, "parameters": _schema(function["parameters"])}
    return {"type": "function", "function": restored}


def _schema(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_schema(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    places = {key: place for place, key in enumerate(_SCHEMA_KEYS)}
    keys = sorted(schema, key=lambda key: places.get(key, len(places)))
    return {
        key: {name: _schema(one) for name, one in schema[key].items()}
        if key == "properties"
        else _schema(schema[key])
        for key in keys
    }


def _kinds(body: dict[str, Any]) -> set[str]:
    return {
        part["type"]
        for message in body["messages"]
        if isinstance(message.get("content"), list)
        for part in message["content"]
    }
