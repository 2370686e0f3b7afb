"""
What the scripted provider answers when nobody wrote a script: a pure function of the request.

Two requests that differ only in length limits, sampling or streaming get the same answer.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from loom.core.ambient import SystemDice
from loom.core.messages import Message, ToolCall
from loom.core.request import ChatRequest, NamedTool, ToolSpec
from loom.providers.improvise_sql import improvised_query, sql_field
from loom.providers.instances import instance
from loom.providers.prose import Draw, answer, sentence, thoughts, told, topic
from loom.providers.words import Words, name_words

__all__ = ["Draft", "fingerprint", "improvise"]

# Words of tool names that say nothing about when to use the tool.
_EMPTY_WORDS_TEXT = (
    "a all an and api by call compute create current do execute fetch find for from function get"
    " list look lookup make my of on query read retrieve return run search set show the to tool up"
    " use"
)
_EMPTY_WORDS = frozenset(_EMPTY_WORDS_TEXT.split())
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
# Short enough to be a word of its own, so that it must match whole: "map" is not "maple".
_SHORT_WORD = 4
_NO_TOOLS = re.compile(
    r"\b(?:do not|don't|never|without)\s+(?:call|calling|use|using)\s+(?:any\s+|the\s+)?tools?\b",
    re.IGNORECASE,
)
_KEYS = re.compile(r"\b(?:keys?|fields?|propert(?:y|ies))\b[\s:]*(?:named\s+|called\s+)?([^.\n]+)")


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """
    One answer before limits are put to it.

    Attributes:
        thinking: What comes before the text; empty for none.
        text: The text; empty when tools are called.
        calls: The tools that it calls.
    """

    thinking: str = ""
    text: str = ""
    calls: tuple[ToolCall, ...] = ()


def fingerprint(request: ChatRequest, seed: int) -> bytes:
    """
    What an answer depends on, as 32 bytes.

    Args:
        request: Its model, messages, tools, form and `random_seed` are looked at.
        seed: The provider's own.

    Returns:
        A SHA-256.
    """
    parts = (
        seed,
        request.sampling.random_seed,
        request.model,
        request.messages,
        request.tools,
        request.tool_choice,
        request.response_format,
        request.reasoning_effort,
    )
    return hashlib.sha256(msgspec.json.encode(parts, enc_hook=dict)).digest()


def improvise(request: ChatRequest, seed: int = 0, choice: int = 0) -> Draft:
    """
    Compose an answer.

    Args:
        request: What is asked.
        seed: Other seeds give other wordings and ids.
        choice: Which of `n` answers, from 0.

    Returns:
        The answer, not yet cut by `max_tokens` or `stop`.
    """
    digest = hashlib.sha256(fingerprint(request, seed) + choice.to_bytes(4)).digest()
    dice = SystemDice(int.from_bytes(digest))

    def draw(options: Sequence[str]) -> str:
        return options[int(dice.random() * len(options))]

    asked = next((each.text for each in reversed(request.messages) if each.role == "user"), "")
    effort = request.reasoning_effort or ("high" if request.prompt_mode == "reasoning" else "none")
    thinking = "" if effort == "none" else thoughts(asked, effort, draw)
    calls = _calls(request, asked, draw)
    if calls:
        return Draft(thinking=thinking, calls=calls)
    return Draft(thinking=thinking, text=_text(request, asked, draw))


def _text(request: ChatRequest, asked: str, draw: Draw) -> str:
    text = _told(request, asked, draw)
    last = request.messages[-1] if request.messages else None
    # The answer begins with the prefix, which is returned (documentation of the vendor, "prefix:
    # force the model to start its answer by the content of the message").
    begun = last.text if last is not None and last.role == "assistant" and last.prefix else ""
    return text if text.startswith(begun) else begun + text


def _told(request: ChatRequest, asked: str, draw: Draw) -> str:
    form = request.response_format
    if form is not None and form.type == "json_schema" and form.schema is not None:
        value = instance(form.schema, Words(asked).suggest)
        return json.dumps(value, ensure_ascii=False, indent=2)
    if form is not None and form.type != "text":
        return json.dumps(_object(asked, draw), ensure_ascii=False, indent=2)
    results = _results(request.messages)
    if results:
        return told(results)
    system = "\n".join(each.text for each in request.messages if each.role == "system")
    return answer(system, asked, draw)


def _object(asked: str, draw: Draw) -> dict[str, Any]:
    wanted = _KEYS.search(asked)
    names = re.findall(r"[A-Za-z_]\w*", wanted[1]) if wanted else []
    names = [name for name in names if name not in {"and", "a", "an", "the", "with", "or", "as"}]
    if not names:
        return {"answer": sentence(asked, draw), "topic": topic(asked)}
    words = Words(asked)
    properties = {name: {"type": "string"} for name in names[:20]}
    made: dict[str, Any] = instance({"type": "object", "properties": properties}, words.suggest)
    return made


def _turn(messages: Sequence[Message]) -> Sequence[Message]:
    """What came after the last thing that the user said."""
    for i in range(len(messages) - 1, -1, -1):
        if messages[i].role == "user":
            return messages[i + 1 :]
    return messages


def _results(messages: Sequence[Message]) -> list[tuple[str, str]]:
    calls = {call.id: call for each in messages for call in each.tool_calls}
    found = []
    for each in _turn(messages):
        if each.role == "tool":
            call = calls.get(each.tool_call_id or "")
            name = each.name or (call.name if call else "the tool")
            given = ", ".join(
                str(value) for value in (call.input.values() if call else ()) if value is not None
            )
            found.append((f"{name} ({given})" if given else name, each.text))
    return found


def _calls(request: ChatRequest, asked: str, draw: Draw) -> tuple[ToolCall, ...]:
    if not request.tools or request.tool_choice == "none":
        return ()
    match request.tool_choice:
        case NamedTool(name=name):
            chosen = [tool for tool in request.tools if tool.name == name]
        case "any" | "required":
            chosen = _named(request.tools, asked) or [request.tools[0]]
        case _:
            done = {call.name for each in _turn(request.messages) for call in each.tool_calls}
            chosen = [tool for tool in _named(request.tools, asked) if tool.name not in done]
            if not chosen:
                queries = _queries(request, asked)
                chosen = [t for t in request.tools if t.name in queries and t.name not in done]
    several = request.parallel_tool_calls is not False
    words = Words(asked)
    queries = _queries(request, asked)
    filled = [
        (tool, arguments)
        for tool in (chosen if several else chosen[:1])
        for arguments in (
            [queries[tool.name]]
            if tool.name in queries
            else _arguments(tool, words, several=several)
        )
    ]
    # Nine alphanumerics, as the API makes them (contract: section 3).
    return tuple(
        ToolCall(
            "".join(draw(_ALPHABET) for _ in range(9)),
            tool.name,
            arguments=json.dumps(arguments, ensure_ascii=False),
        )
        for tool, arguments in filled
    )


def _queries(request: ChatRequest, asked: str) -> dict[str, Mapping[str, Any]]:
    """Arguments for the tools that take SQL, when the question names a table they know."""
    if _NO_TOOLS.search(asked):
        return {}
    fields = {tool.name: field for tool in request.tools if (field := sql_field(tool))}
    if not fields:
        return {}
    told = "\n".join(each.text for each in request.messages if each.role == "system")
    query = improvised_query(told, asked)
    return {} if query is None else {name: {field: query} for name, field in fields.items()}


def _named(tools: Sequence[ToolSpec], asked: str) -> list[ToolSpec]:
    if _NO_TOOLS.search(asked):
        return []
    places = {
        tool.name: re.search(rf"(?<![\w-]){re.escape(tool.name)}(?![\w-])", asked, re.IGNORECASE)
        for tool in tools
    }
    # In the order in which the prompt names them: one may need another's result.
    found_at = {name: place.start() for name, place in places.items() if place}
    exact = sorted(
        (tool for tool in tools if tool.name in found_at), key=lambda tool: found_at[tool.name]
    )
    # `search` alone is also a verb: a name of one plain word counts only when nothing better does.
    clear = [tool for tool in exact if len(name_words(tool.name)) > 1]
    if clear:
        return clear
    said = name_words(asked)
    shares = [(tool, _share(name_words(tool.name), said)) for tool in tools]
    best = max((share for _, share in shares), default=0.0)
    found = [tool for tool, share in shares if share == best and share >= 0.5]
    return found or exact


def _share(name: Sequence[str], said: Sequence[str]) -> float:
    telling = [word for word in name if word not in _EMPTY_WORDS]
    if not telling:
        return 0.0
    return sum(any(_alike(word, each) for each in said) for word in telling) / len(telling)


def _alike(left: str, right: str) -> bool:
    if left == right or left + "s" == right or right + "s" == left:
        return True
    # "calc" and "calculate", "translate" and "translation".
    shared = min(len(left), len(right))
    if shared < _SHORT_WORD:
        return False
    return left[: max(_SHORT_WORD, shared - 1)] == right[: max(_SHORT_WORD, shared - 1)]


def _arguments(tool: ToolSpec, words: Words, *, several: bool) -> list[Mapping[str, Any]]:
    schema: Mapping[str, Any] = tool.parameters or {"type": "object"}
    value = instance({**schema, "type": "object"}, words.suggest, sparse=True)
    first: Mapping[str, Any] = value if isinstance(value, dict) else {}
    row = words.joined_names()
    place = next((key for key, each in first.items() if row and each == row[0]), None)
    if not several or place is None:
        return [first]
    # "the weather in Paris and Rome" is two calls.
    return [{**first, place: name} for name in row]
