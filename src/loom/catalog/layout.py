"""
Lays a conversation out as its prompt format does: the texts that are cut, and the marks around.

Each text is cut by itself and each mark (`[INST]`, `[TOOL_CALLS]`, ...) is one token, so a count
needs the texts and the number of marks, never the prompt itself.

Source: mistral-common 1.13.1, `tokens/tokenizers/instruct.py`, `protocol/instruct/normalize.py`;
rules (a) to (e) of the recorded exchanges in docs/tokens.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, assert_never

from loom.catalog.media import image_size, image_tokens
from loom.catalog.template import Template
from loom.catalog.turns import Turn, lead_of, turns_of
from loom.core.messages import ToolCall

__all__ = ["Layout", "lay_out", "lay_out_answer"]

_Json: TypeAlias = Mapping[str, Any]

# What stands for a picture of about 1000 x 1000 pixels, and for a page, when no size is known.
_IMAGE_TOKENS = 1000
_DOCUMENT_TOKENS = 500


class Layout:
    """
    What is counted.

    Attributes:
        texts: Cut each by itself.
        marks: Tokens that are no text.
        doubts: Why the count is an estimate; empty when it is exact.
    """

    __slots__ = ("_template", "doubts", "marks", "texts")

    def __init__(self, template: Template) -> None:
        self._template = template
        self.texts: list[str] = []
        self.marks = 0
        self.doubts: list[str] = []

    def marked(self, marks: int, *texts: str) -> None:
        """Add texts, and the marks around them."""
        self.marks += marks
        self.texts.extend(texts)

    def doubt(self, reason: str) -> None:
        """Say once why the count is an estimate."""
        if reason not in self.doubts:
            self.doubts.append(reason)

    def offer(self, body: _Json) -> None:
        """Add what stands before one user message: the tools, and the settings."""
        tools = _offered(body)
        if tools:
            self.marked(2, _dump([self._tool(tool) for tool in tools]))
        if self._template.settings and not _in_json(body):
            self.marked(2, _dump({"reasoning_effort": body.get("reasoning_effort") or "none"}))

    def _tool(self, tool: _Json) -> _Json:
        function = tool.get("function")
        if not isinstance(function, Mapping):
            self.doubt("how the vendor's own tools are listed is not known")
            return tool
        # Whatever the caller's order was: the vendor writes these three, in this order.
        listed = {
            "name": function.get("name", ""),
            "description": function.get("description") or "",
            "parameters": function.get("parameters") or {},
        }
        return {"type": "function", "function": listed}

    def user(self, turn: Turn, lead: str) -> None:
        """Add a user's turn; `lead` is the system's text where it has no marks of its own."""
        if self._template.spelt:
            self._content(turn, "[INST] " + lead, " [/INST]")
        else:
            self.marks += 2
            self._content(turn, lead)

    def system(self, turn: Turn) -> None:
        """Add a system message in its marks."""
        self.marks += 2
        self._content(turn)

    def assistant(self, turn: Turn, *, forgotten: bool) -> None:
        """Add an assistant's turn; calls that the format forgets take its end with them."""
        if turn.calls and forgotten:
            return
        if not self._template.spelt and all(isinstance(piece, str) for piece in turn.content):
            self.texts.append(turn.text.rstrip(" "))
        else:
            self._content(turn)
        if turn.calls:
            self._calls(turn.calls)
        self.marks += not turn.prefix

    def _calls(self, calls: Sequence[_Json]) -> None:
        template = self._template
        if template.calls == "list":
            written = [_listed_call(call, with_id=template.call_ids) for call in calls]
            self.marked(1, _dump(written))
            return
        for call in calls:
            name, arguments = _call(call)
            self.marked(2, name, arguments)
            if template.call_ids:
                self.marked(1, call.get("id") or "")

    def result(self, turn: Turn) -> None:
        """Add a tool's result."""
        match self._template.results:
            case "alone":
                self.marks += 2
                self._content(turn)
            case "text":
                self.marked(3, turn.call_id)
                self._content(turn)
            case "object":
                self.marked(2, _dump({"content": _value(turn.text), "call_id": turn.call_id}))
            case "list":
                self.marked(2, _dump([{"name": turn.name, "content": _value(turn.text)}]))
            case never:
                assert_never(never)

    def _content(self, turn: Turn, before: str = "", after: str = "") -> None:
        content = turn.content
        if all(isinstance(piece, str) for piece in content):
            self.texts.append(before + turn.text + after)
            return
        self.texts.extend(text for text in (before, after) if text)
        for piece in content:
            if isinstance(piece, str):
                self.texts.append(piece)
            else:
                self._part(piece)

    def _part(self, part: _Json) -> None:
        match part.get("type"):
            case "image_url":
                self._image(_url(part.get("image_url")))
            case "thinking":
                self._thinking(part)
            case "document_url" | "file":
                self.doubt(
                    "documents are read by the vendor: how many tokens come out is not known"
                )
                self.marks += _DOCUMENT_TOKENS
            case "input_audio":
                self.doubt(
                    "sound is not counted: it takes about 12.5 tokens of the window a second"
                )
                self.marks += 1
            case kind:
                self.doubt(f"how a part of type {kind!r} is counted is not known")
                self.texts.append(_dump(part))

    def _image(self, url: str) -> None:
        rule = self._template.image
        size = image_size(url) if rule is not None else None
        if rule is None or size is None:
            self.doubt("the size of an image is not known: it is not in the request")
            self.marks += _IMAGE_TOKENS
        else:
            self.marks += image_tokens(size, rule)

    def _thinking(self, part: _Json) -> None:
        template = self._template
        inner = part.get("thinking") or ()
        pieces = [inner] if isinstance(inner, str) else [one.get("text") or "" for one in inner]
        if not template.thinking:
            self.doubt("how this model's prompt holds earlier thinking is not known")
        # Joined as pieces of text are: the one recording with several of them fits so alone.
        marks = 2 if part.get("closed", True) else 1
        self.marked(marks * template.thinking, template.joint.join(pieces))


def lay_out(body: _Json, template: Template) -> Layout:
    """
    Lay out the prompt of a request.

    Args:
        body: A chat, FIM or embedding request as it goes over the wire.
        template: The model's prompt format.

    Returns:
        What is to be counted.
    """
    layout = Layout(template)
    if "messages" in body:
        _lay_out_chat(body, layout, template)
    elif "prompt" in body:
        # The start, and one mark before each part; source: `encode_fim` in mistral-common.
        layout.marked(3, body["prompt"] or "", body.get("suffix") or "")
    else:
        inputs = body.get("input") or ()
        inputs = [inputs] if isinstance(inputs, str) else inputs
        # Start and end of each; own measurement on the recorded requests.
        layout.marked(2 * len(inputs), *inputs)
    return layout


def lay_out_answer(
    text: str, thinking: str, calls: Sequence[ToolCall], template: Template
) -> Layout:
    """
    Lay out an answer, without the mark that ends it.

    Args:
        text: What the model said.
        thinking: What it thought.
        calls: The tools it called.
        template: The model's prompt format.

    Returns:
        What is to be counted.
    """
    layout = Layout(template)
    layout.marked(2 * bool(thinking), text, thinking)
    if template.calls == "marks":
        for call in calls:
            # As they came: the model's own spacing was counted.
            layout.marked(2, call.name, call.arguments)
    elif calls:
        written = [{"name": call.name, "arguments": _value(call.arguments)} for call in calls]
        layout.marked(1, _dump(written))
    return layout


def _lay_out_chat(body: _Json, layout: Layout, template: Template) -> None:
    messages = body.get("messages") or ()
    own_system = template.system == "own"
    turns = turns_of(messages, template.joint, own_system=own_system)
    users = [place for place, turn in enumerate(turns) if turn.role == "user"]
    ends = {"first": users[0], "last": users[-1]} if users else {}
    lead = "" if own_system else lead_of(messages)
    # The start of the text.
    layout.marks += 1
    for place, turn in enumerate(turns):
        forgotten = template.forgets and place < ends.get("last", -1)
        match turn.role:
            case "user":
                if place == ends.get(template.tools or ""):
                    layout.offer(body)
                layout.user(turn, lead if place == ends.get(template.system) else "")
            case "assistant":
                layout.assistant(turn, forgotten=forgotten)
            case "tool" if not forgotten:
                layout.result(turn)
            case "system":
                layout.system(turn)
    choice = body.get("tool_choice")
    if isinstance(choice, Mapping):
        # Rule (b): the answer is made to begin with the call of that tool.
        layout.marked(2, _name(choice) or "")


def _offered(body: _Json) -> Sequence[_Json]:
    tools: Sequence[_Json] = body.get("tools") or ()
    choice = body.get("tool_choice")
    # Rule (a): "none" takes the tools out of the prompt; (b): a named one leaves itself alone.
    if choice == "none":
        return ()
    if isinstance(choice, Mapping):
        return [tool for tool in tools if _name(tool) == _name(choice)]
    return tools


def _name(tool: _Json) -> Any:
    return (tool.get("function") or {}).get("name")


def _in_json(body: _Json) -> bool:
    # Rule (c): an answer in JSON goes without settings, and its schema is not in the prompt.
    wanted = body.get("response_format") or {}
    return wanted.get("type") in ("json_object", "json_schema")


def _call(call: _Json) -> tuple[str, str]:
    function = call.get("function") or {}
    return function.get("name") or "", _arguments_text(function.get("arguments"))


def _listed_call(call: _Json, *, with_id: bool) -> _Json:
    function = call.get("function") or {}
    arguments = function.get("arguments")
    value = _value(arguments) if isinstance(arguments, str | None) else arguments
    listed = {"name": function.get("name") or "", "arguments": value}
    identity = call.get("id")
    return {**listed, "id": identity} if with_id and identity else listed


def _arguments_text(arguments: Any) -> str:
    return _dump(_value(arguments) if isinstance(arguments, str | None) else arguments)


def _value(text: str | None) -> Any:
    try:
        return json.loads(text or "{}")
    except (ValueError, RecursionError):
        return text


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=dict)


def _url(value: Any) -> str:
    return str(value.get("url", "") if isinstance(value, Mapping) else value)
