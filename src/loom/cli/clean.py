"""
Text of a model, safe for a terminal.

What a model writes can move the cursor, set the title, fill the clipboard (OSC 52) or hide a link
(OSC 8). Everything that a terminal would obey is taken out, and all else stays as it is.

Source: ECMA-48, sections 5.3 (C1), 5.4 (control sequences), 5.6 (control strings).
"""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

__all__ = ["Cleaner", "cleaned"]

_State: TypeAlias = Literal["text", "escape", "sequence", "string", "string_escape"]

_ESCAPE = "\x1b"
# Introducers after ESC, and the same as one C1 character: CSI, then DCS, SOS, OSC, PM, APC.
_SEQUENCE = "[", "\x9b"
_STRINGS = frozenset("PX]^_"), frozenset("\x90\x98\x9d\x9e\x9f")
_SUSPECT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Cleaner:
    """
    Takes control characters and escape sequences out of a text that comes in pieces.

    The pieces may be cut anywhere: the result is that of the whole text. Line feeds and tabs
    stay; a carriage return goes, because it would let later text cover earlier text.
    """

    def __init__(self) -> None:
        self._state: _State = "text"

    def feed(self, text: str) -> str:
        """
        Clean the next piece.

        Args:
            text: The piece.

        Returns:
            What may be shown of it; empty in the middle of an escape sequence.
        """
        if self._state == "text" and _SUSPECT.search(text) is None:
            return text
        return "".join(character for character in text if self._shows(character))

    def _shows(self, character: str) -> bool:
        match self._state:
            case "escape":
                self._state = _after_escape(character)
            case "sequence" if " " <= character <= "~":
                # Parameters and intermediates go on; a final byte (from "@" on) ends it.
                self._state = "text" if character >= "@" else "sequence"
            case "string" if character == _ESCAPE:
                self._state = "string_escape"
            case "string" if _SUSPECT.match(character) is None and character not in "\n\t":
                pass
            case "string" if character in "\x07\x9c":
                self._state = "text"
            case "string_escape" if character == "\\":
                self._state = "text"
            case "string_escape":
                self._state = _after_escape(character)
            case _:
                # A control character in the middle of a sequence ends it: without that, one
                # unfinished sequence would swallow the rest of the answer.
                self._state = _after_character(character)
                return self._state == "text" and _SUSPECT.match(character) is None
        return False


def _after_escape(character: str) -> _State:
    if character == _SEQUENCE[0]:
        return "sequence"
    if character in _STRINGS[0]:
        return "string"
    if character == _ESCAPE or " " <= character <= "/":
        return "escape"
    return "text"


def _after_character(character: str) -> _State:
    if character == _ESCAPE:
        return "escape"
    if character == _SEQUENCE[1]:
        return "sequence"
    return "string" if character in _STRINGS[1] else "text"


def cleaned(text: str) -> str:
    """
    A whole text without what a terminal would obey.

    Args:
        text: Anything.

    Returns:
        The text; line feeds and tabs are its only control characters.
    """
    return Cleaner().feed(text)
