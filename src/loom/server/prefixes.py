"""Which beginnings of prompts were seen before: what a vendor's prompt cache would hold."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator

import msgspec

from loom.core.request import ChatRequest
from loom.providers.scripted import Split, rough_tokens

__all__ = ["PrefixMemory"]

# The smallest count recorded, and a divisor of all others (contract: section 4).
_BLOCK = 16
# About a million tokens; what was not used for longest is forgotten first.
_MOST_BLOCKS = 65_536
# Marks around a message, which are tokens too.
_MARKS = ("<", ">")


class PrefixMemory:
    """
    Remembers prompts as chains of hashes, a block of 16 tokens each; no text is kept.

    Args:
        split: Cuts a text into tokens.
    """

    def __init__(self, split: Split = rough_tokens) -> None:
        self._split = split
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def cached_tokens(self, caller: str, request: ChatRequest, prompt_tokens: int) -> int:
        """
        Tokens at the beginning of a prompt that were sent before; the prompt is remembered.

        Args:
            caller: Whose cache it is; callers do not share.
            request: The prompt. Its model and `prompt_cache_key` choose the cache too.
            prompt_tokens: How long it is; at least one token of it is always new.

        Returns:
            A multiple of 16, 0 when nothing was seen.
        """
        known, count = True, 0
        for block in self._blocks(caller, request):
            known = known and block in self._seen
            count += known
            self._seen[block] = None
            self._seen.move_to_end(block)
        while len(self._seen) > _MOST_BLOCKS:
            self._seen.popitem(last=False)
        return min(count, max(0, prompt_tokens - 1) // _BLOCK) * _BLOCK

    def _blocks(self, caller: str, request: ChatRequest) -> Iterator[bytes]:
        whose = (caller, request.model, request.prompt_cache_key)
        state = hashlib.sha256(msgspec.json.encode(whose)).digest()
        held: list[str] = []
        for piece in self._pieces(request):
            held.append(piece)
            if len(held) == _BLOCK:
                state = hashlib.sha256(state + "\0".join(held).encode()).digest()
                held.clear()
                yield state

    def _pieces(self, request: ChatRequest) -> Iterator[str]:
        if request.tools and request.tool_choice != "none":
            tools = msgspec.json.encode(request.tools, enc_hook=dict).decode()
            yield from self._split(tools)
        for message in request.messages:
            yield from (_MARKS[0], message.role)
            if message.content is None or isinstance(message.content, str):
                yield from self._split(message.content or "")
            else:
                content = msgspec.json.encode(message.content, enc_hook=dict).decode()
                yield from self._split(content)
            for call in message.tool_calls:
                yield from self._split(f"{call.name}{call.arguments}")
            yield _MARKS[1]
