"""What stands in a gap, composed from what stands around it: a pure function of the request."""

from __future__ import annotations

import hashlib
import re

from loom.core.ambient import SystemDice
from loom.core.request import ChatRequest
from loom.providers.improvise import Draft, fingerprint

__all__ = ["infill"]

# Something that is written in code and seldom in prose.
_CODE = re.compile(
    r"[{};]\s*$|\)\s*:\s*$|=>|==|^\s*(?:def|class|return|import|from|fn|func|function"
    r"|const|let|var|public|private|#include|if|for|while)\b",
    re.MULTILINE,
)
_FUNCTION = re.compile(r"\b(?:def|fn|func|function)\s+(\w+)\s*\(([^()]*)\)")
_SUM = re.compile(r"add|sum|plus|total", re.IGNORECASE)
_OPENS = (":", "{", "(")
_STEP = "    "
_ENDINGS = (
    "and so it goes on, one step after the other.",
    "and that is all there is to say here.",
    "which is where the next part begins.",
)


def infill(request: ChatRequest, seed: int = 0, choice: int = 0) -> Draft:
    """
    Compose what stands between a prompt and its suffix.

    Args:
        request: Its last message is what stands before; `extra["suffix"]` what stands behind.
        seed: Other seeds give other wordings.
        choice: Which of several answers, from 0.

    Returns:
        The text, not yet cut by `max_tokens` or `stop`.
    """
    before = request.messages[-1].text if request.messages else ""
    behind = str(request.extra.get("suffix") or "")
    digest = hashlib.sha256(fingerprint(request, seed) + choice.to_bytes(4)).digest()
    if _CODE.search(before):
        return Draft(text=_code(before, behind))
    place = int(SystemDice(int.from_bytes(digest)).random() * len(_ENDINGS))
    gap = "" if not before or before[-1].isspace() else " "
    return Draft(text=gap + _ENDINGS[place])


def _code(before: str, behind: str) -> str:
    *_, line = before.rstrip("\n").split("\n")
    indent = line[: len(line) - len(line.lstrip())]
    opened = line.rstrip().endswith(_OPENS)
    if opened:
        indent += _STEP
    begin = indent if before.endswith("\n") else "\n" + indent if opened else ""
    end = "" if behind.startswith("\n") else "\n"
    return begin + _statement(before) + end


def _statement(before: str) -> str:
    functions = _FUNCTION.findall(before)
    if not functions:
        return "pass" if before.rstrip().endswith(":") else "result = None"
    name, given = functions[-1]
    names = [re.split(r"[:=\s]", each.strip(), maxsplit=1)[0] for each in given.split(",")]
    names = [each for each in names if each.isidentifier() and each != "self"]
    if not names:
        return "return None"
    return "return " + (" + ".join(names) if _SUM.search(name) else names[0])
