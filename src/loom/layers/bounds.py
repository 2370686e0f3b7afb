"""
How many tokens a request has at least and at most, found without counting.

Source: the templates and vocabularies of mistral-common 1.13.
"""

from __future__ import annotations

from math import inf

import msgspec

from loom.core.messages import ImagePart, Message, TextPart, ThinkingPart
from loom.core.request import ChatRequest, ToolSpec

__all__ = ["fewest_tokens", "most_tokens"]

_encode = msgspec.json.Encoder().encode

# Tokens that the vendor's format puts around things, rounded up: begin and end of a turn, the
# marks of a call, the settings block.
_AROUND_ALL = 64
_AROUND_ONE = 16
_AROUND_TOOL = 128
# 4,160 (1,024 by 1,024 pixels in squares of 16, and a mark for each row) is the most so far.
_IMAGE = 8192


def most_tokens(request: ChatRequest, image: int = _IMAGE) -> float:
    """
    More than which the prompt cannot have, without counting: a token is at least one byte.

    Args:
        request: What is asked.
        image: The most that one image takes.

    Returns:
        Tokens; infinite when its parts (a document, sound) do not tell.
    """
    most: float = _AROUND_ALL
    for message in request.messages:
        content = message.content
        if type(content) is str and message.role != "tool" and not message.tool_calls:
            # Whether a string is ASCII is a bit in it; another letter has at most four bytes.
            most += _AROUND_ONE + (len(content) if content.isascii() else 4 * len(content))
        else:
            most += _most_of_message(message, image)
    if request.tools:
        most += sum(_most_of_tool(tool) for tool in request.tools)
    form = request.response_format
    if form is not None and form.schema is not None:
        most += 2 * _json_size(form.schema)
    if request.prediction is not None:
        most += _json_size(request.prediction)
    if request.extra:
        most += 2 * _json_size(request.extra)
    return most


def fewest_tokens(request: ChatRequest) -> int:
    """
    Less than which the prompt cannot have, without counting: a token never holds two words.

    Args:
        request: What is asked.

    Returns:
        The words of its messages.
    """
    # The vocabularies cut at white space, but for one thing: line feeds and slashes that follow
    # punctuation belong to it.
    texts = (message.text for message in request.messages)
    return sum(len(text.split()) - text.count("\n/") for text in texts)


def _most_of_message(message: Message, image: int) -> float:
    most: float = _AROUND_ONE
    if isinstance(message.content, str):
        # Some templates parse a tool's result and write it anew, with blanks: twice the size.
        most += 2 * _json_size(message.content)
    else:
        for part in message.content or ():
            if isinstance(part, ImagePart):
                most += image
            elif isinstance(part, TextPart | ThinkingPart):
                most += _AROUND_ONE + _json_size(part.text)
            else:
                return inf
    for call in message.tool_calls:
        most += 2 * (_json_size(call.arguments) + _json_size(call.name)) + _AROUND_ONE
    return most


def _most_of_tool(tool: ToolSpec) -> float:
    return _AROUND_TOOL + 2 * _json_size([tool.name, tool.description, tool.parameters])


def _json_size(value: object) -> float:
    try:
        return len(_encode(value))
    except (TypeError, ValueError, RecursionError):
        return inf  # who writes it says what is wrong with it
