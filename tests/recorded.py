"""The recorded exchanges beside the checkout, as values; empty when the folder is absent."""

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "fixtures"


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded request with its reply."""

    file: str
    kind: str
    stream: bool
    status: int
    request: dict[str, Any] | None
    headers: dict[str, str]
    body: bytes

    def __str__(self) -> str:
        return self.file.removesuffix(".json")

    @property
    def choices(self) -> int:
        """How many answers were asked for."""
        asked = (self.request or {}).get("n") or 1
        return int(asked)


def needed() -> None:
    """Skip the calling test, loudly, when the recordings are not there."""
    if not FOLDER.is_dir():
        pytest.skip(f"the recorded exchanges are not at {FOLDER}")


@lru_cache
def exchanges() -> tuple[Exchange, ...]:
    """All recorded exchanges, in the order of their index."""
    if not FOLDER.is_dir():
        return ()
    found = []
    for row in json.loads((FOLDER / "index.json").read_text()):
        recorded = json.loads((FOLDER / row["file"]).read_text())
        request, reply = recorded["request"] or {}, recorded["response"]
        dropped = ("content-length", "content-encoding", "transfer-encoding", "connection")
        headers = {
            name.lower(): value
            for name, value in (reply["headers"] or {}).items()
            if name.lower() not in dropped
        }
        found.append(
            Exchange(
                file=row["file"],
                kind=row["kind"],
                stream=recorded["stream"],
                status=reply["status"] or 200,
                request=request.get("body"),
                headers=headers,
                body=reply["body"].encode(),
            )
        )
    return tuple(found)


@lru_cache
def chat_exchanges() -> tuple[Exchange, ...]:
    """Those of the chat endpoint, by their body where the path was not recorded."""
    index = (
        {row["file"]: row for row in json.loads((FOLDER / "index.json").read_text())}
        if (FOLDER.is_dir())
        else {}
    )
    return tuple(
        exchange
        for exchange in exchanges()
        if index[exchange.file]["path"] == "/v1/chat/completions"
        or (index[exchange.file]["path"] is None and exchange.kind.startswith("chat"))
    )


def with_legal_ids(request: Mapping[str, Any]) -> dict[str, Any]:
    """Two recorders redacted the ids of calls; the API itself had seen nine alphanumerics."""
    numbers, ids = count(), dict[str, str]()

    def legal(name: str) -> str:
        if re.fullmatch("[A-Za-z0-9]{9}", name):
            return name
        return ids.setdefault(name, f"call{next(numbers):05}")

    messages = []
    for message in request["messages"]:
        changed = dict(message)
        if message.get("tool_calls"):
            changed["tool_calls"] = [
                {**call, "id": legal(call["id"])} for call in message["tool_calls"]
            ]
        if message.get("tool_call_id"):
            changed["tool_call_id"] = legal(message["tool_call_id"])
        messages.append(changed)
    return {**request, "messages": messages}


@lru_cache
def observed_errors() -> tuple[dict[str, Any], ...]:
    """Error bodies that were quoted in public, with status and headers."""
    if not FOLDER.is_dir():
        return ()
    return tuple(json.loads((FOLDER / "observed-errors.json").read_text()))


def truth_of(exchange: Exchange) -> dict[str, Any]:
    """What a recorded answer says, read here with nothing but `json`."""
    if exchange.stream:
        return _streamed_truth(exchange.body)
    body = json.loads(exchange.body)
    return {
        "choices": [
            {
                "index": choice["index"],
                **_said(choice["message"].get("content")),
                "calls": [
                    (call["function"]["name"], call["function"]["arguments"])
                    for call in choice["message"].get("tool_calls") or []
                ],
                "finish_reason": choice["finish_reason"],
            }
            for choice in sorted(body["choices"], key=lambda c: c["index"])
        ],
        "usage": _usage(body["usage"]),
        "model": body["model"],
    }


def _streamed_truth(body: bytes) -> dict[str, Any]:
    choices: dict[int, dict[str, Any]] = {}
    usage: dict[str, Any] = {}
    model = ""
    for block in body.decode().split("\n\n"):
        if not block.startswith("data: {"):
            continue
        chunk = json.loads(block[6:])
        model = chunk["model"]
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            said = choices.setdefault(
                choice["index"],
                {"index": choice["index"], "text": "", "thinking": "", "calls": {}},
            )
            piece = _said(choice["delta"].get("content"))
            said["text"] += piece["text"]
            said["thinking"] += piece["thinking"]
            for place, call in enumerate(choice["delta"].get("tool_calls") or []):
                whole = said["calls"].setdefault(call.get("index", place), ["", ""])
                whole[0] += call["function"].get("name") or ""
                whole[1] += call["function"].get("arguments") or ""
            said["finish_reason"] = choice["finish_reason"] or said.get("finish_reason")
    for said in choices.values():
        said["calls"] = [tuple(call) for _, call in sorted(said["calls"].items())]
    return {
        "choices": [choices[index] for index in sorted(choices)],
        "usage": _usage(usage),
        "model": model,
    }


def _said(content: Any) -> dict[str, str]:
    if content is None or isinstance(content, str):
        return {"text": content or "", "thinking": ""}
    texts = [part["text"] for part in content if part["type"] == "text"]
    thoughts = [
        inner["text"]
        for part in content
        if part["type"] == "thinking"
        for inner in part["thinking"]
        if inner["type"] == "text"
    ]
    return {"text": "".join(texts), "thinking": "".join(thoughts)}


def _usage(usage: dict[str, Any]) -> list[int]:
    details = usage.get("prompt_tokens_details") or {}
    cached = details.get("cached_tokens", usage.get("num_cached_tokens") or 0)
    return [
        usage["prompt_tokens"],
        usage["completion_tokens"],
        usage["total_tokens"],
        cached or 0,
    ]
