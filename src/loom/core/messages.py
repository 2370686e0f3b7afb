"""What people and models say to each other: messages, their parts, tool calls."""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

__all__ = [
    "AudioPart",
    "DocumentPart",
    "FilePart",
    "ImagePart",
    "Message",
    "Part",
    "RawPart",
    "ReferencePart",
    "Role",
    "TextPart",
    "ThinkingPart",
    "ToolCall",
]

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]


def _data_uri(path: Path, media_type: str | None) -> str:
    kind = media_type or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


class TextPart(msgspec.Struct, frozen=True, tag_field="kind", tag="text"):
    """A piece of plain text."""

    text: str


class ImagePart(msgspec.Struct, frozen=True, tag_field="kind", tag="image"):
    """
    An image, by address or as a data URI.

    Attributes:
        url: `https://...` or `data:image/png;base64,...`.
        detail: How closely the model looks: "low", "high" or "auto"; None leaves it to the vendor.
    """

    url: str
    detail: str | None = None

    @classmethod
    def from_file(cls, path: str | Path, *, detail: str | None = None) -> ImagePart:
        """
        Read an image file into a data URI.

        Args:
            path: The file; its name decides the media type.
            detail: As on the class.

        Returns:
            The part.

        Raises:
            OSError: If the file cannot be read.
        """
        return cls(_data_uri(Path(path), None), detail)


class DocumentPart(msgspec.Struct, frozen=True, tag_field="kind", tag="document"):
    """
    A document, by address or as a data URI.

    Attributes:
        url: `https://...` or `data:application/pdf;base64,...`.
        name: The file name that the model is told; None for none.
    """

    url: str
    name: str | None = None

    @classmethod
    def from_file(cls, path: str | Path) -> DocumentPart:
        """
        Read a document into a data URI; its file name goes along.

        Args:
            path: The file; its name decides the media type.

        Returns:
            The part.

        Raises:
            OSError: If the file cannot be read.
        """
        return cls(_data_uri(Path(path), None), Path(path).name)


class AudioPart(msgspec.Struct, frozen=True, tag_field="kind", tag="audio"):
    """
    Sound.

    Attributes:
        data: Base64 of the sound, or an address.
        format: "wav", "mp3", ...; None when `data` says it itself.
    """

    data: str
    format: str | None = None

    @classmethod
    def from_file(cls, path: str | Path) -> AudioPart:
        """
        Read a sound file; its suffix is the format.

        Args:
            path: The file, for example `question.mp3`.

        Returns:
            The part.

        Raises:
            OSError: If the file cannot be read.
        """
        file = Path(path)
        data = base64.b64encode(file.read_bytes()).decode("ascii")
        return cls(data, file.suffix.removeprefix(".").lower() or None)


class FilePart(msgspec.Struct, frozen=True, tag_field="kind", tag="file"):
    """A file that was uploaded to the vendor before, by its id."""

    file_id: str


class ReferencePart(msgspec.Struct, frozen=True, tag_field="kind", tag="reference"):
    """Which sources the text before it stands on: ids that the vendor gave."""

    reference_ids: tuple[int | str, ...]


class RawPart(msgspec.Struct, frozen=True, tag_field="kind", tag="raw"):
    """
    A part of a kind that this version does not know, kept whole.

    Attributes:
        type: The vendor's tag.
        fields: Everything else that stood in it, as JSON values.
    """

    type: str
    fields: Mapping[str, Any]


class ThinkingPart(msgspec.Struct, frozen=True, tag_field="kind", tag="thinking"):
    """
    What the model thought before it answered; to be sent back whole.

    Attributes:
        parts: Texts and references, in order.
        closed: Whether the thinking had ended; None when the vendor did not say.
        extra: Fields that this version does not know (a signature, say), kept for the way back.
    """

    parts: tuple[TextPart | ReferencePart | RawPart, ...]
    closed: bool | None = None
    extra: Mapping[str, Any] = {}

    @property
    def text(self) -> str:
        """The thoughts as one string."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))


Part: TypeAlias = (
    TextPart
    | ImagePart
    | DocumentPart
    | AudioPart
    | FilePart
    | ReferencePart
    | ThinkingPart
    | RawPart
)


class ToolCall(msgspec.Struct, frozen=True):
    """
    A model's wish to have a tool run.

    Give `input` or `arguments`; each fills the other.

    Attributes:
        id: The call's id; its result names it.
        name: Which tool.
        input: The arguments as a dict. Empty when `problem` is set.
        arguments: The arguments as the JSON text that the model wrote, to the letter.
    """

    id: str
    name: str
    input: dict[str, Any] = {}
    arguments: str = ""

    def __post_init__(self) -> None:
        """Fill `input` from `arguments`, or the other way round."""
        if self.input:
            if not self.arguments:
                text = msgspec.json.encode(self.input).decode()
                msgspec.structs.force_setattr(self, "arguments", text)
        elif self.arguments:
            try:
                value = msgspec.json.decode(self.arguments)
            except (msgspec.DecodeError, RecursionError, UnicodeError):
                return
            if isinstance(value, dict):
                msgspec.structs.force_setattr(self, "input", value)

    @property
    def problem(self) -> str | None:
        """
        Why `arguments` are not a JSON object, or None when they are.

        A model that is cut by `max_tokens` in the middle of a call leaves its arguments unfinished.
        Look here before a tool is run: `input` is empty then, and that is not what the model meant
        (fault matrix, row 43).
        """
        if self.input or not self.arguments.strip():
            return None
        try:
            value = msgspec.json.decode(self.arguments)
        except RecursionError:
            return "the arguments are nested too deeply"
        except (msgspec.DecodeError, UnicodeError) as error:
            return f"the arguments are not valid JSON: {error}"
        if isinstance(value, dict):
            return None
        return f"the arguments are a JSON {type(value).__name__}, not an object"


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """
    One turn of a conversation.

    Attributes:
        role: Who speaks.
        content: A string, or parts; None for an assistant turn that only calls tools.
        tool_calls: What the assistant wants run.
        tool_call_id: On a tool's turn: which call it answers.
        name: On a tool's turn: the tool's name; may be left out.
        prefix: On the last assistant turn: the model goes on from this text.
    """

    role: Role
    content: str | tuple[Part, ...] | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    prefix: bool = False

    @classmethod
    def system(cls, content: str | tuple[Part, ...]) -> Message:
        """What the model is told about its task."""
        return cls(role="system", content=content)

    @classmethod
    def user(cls, content: str | Part, *parts: str | Part) -> Message:
        """
        What a person says: a string, or several texts, images, documents, sounds.

        Args:
            content: The text, or the first part.
            parts: Further parts; strings become texts.

        Returns:
            The message.
        """
        if not parts and isinstance(content, str):
            return cls(role="user", content=content)
        every = (content, *parts)
        return cls(
            role="user",
            content=tuple(TextPart(part) if isinstance(part, str) else part for part in every),
        )

    @classmethod
    def assistant(
        cls,
        content: str | tuple[Part, ...] | None = None,
        *,
        tool_calls: tuple[ToolCall, ...] = (),
        prefix: bool = False,
    ) -> Message:
        """
        What the model said.

        Args:
            content: Its text or parts.
            tool_calls: Its calls.
            prefix: True on the last turn of a request: the model goes on from this text.

        Returns:
            The message.
        """
        return cls(role="assistant", content=content, tool_calls=tuple(tool_calls), prefix=prefix)

    @classmethod
    def tool(cls, call: ToolCall | str, content: str | tuple[Part, ...]) -> Message:
        """
        What a tool gave back.

        Args:
            call: The call that it answers, or that call's id.
            content: The result, as the model shall read it.

        Returns:
            The message.
        """
        if isinstance(call, str):
            return cls(role="tool", content=content, tool_call_id=call)
        return cls(role="tool", content=content, tool_call_id=call.id, name=call.name)

    @property
    def text(self) -> str:
        """The text parts as one string; without thinking."""
        if self.content is None:
            return ""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, TextPart))

    @property
    def thinking(self) -> str:
        """The thinking parts as one string."""
        if self.content is None or isinstance(self.content, str):
            return ""
        return "".join(part.text for part in self.content if isinstance(part, ThinkingPart))
