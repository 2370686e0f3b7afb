"""What a wire format offers: both roles of one conversation, pure, without I/O."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Protocol

from loom.core.embeddings import EmbeddingsRequest, EmbeddingsResponse
from loom.core.errors import LoomError
from loom.core.events import StreamEvent
from loom.core.request import ChatRequest
from loom.core.response import LLMResponse, Partial
from loom.wire.encoded import EncodedRequest, ErrorReply

__all__ = ["ChatDecoder", "ChatEncoder", "Dialect"]


class ChatDecoder(Protocol):
    """
    Client role, streamed: bytes in, events out.

    `copy.copy(decoder)` gives an independent decoder in the same state.
    """

    complete: bool
    """Whether the answer is whole and its usage known: nothing more need be read."""

    skip_bad_events: bool = False
    """Whether an event that cannot be read is left out and counted, instead of an error."""

    finished: bool
    """Whether every answer has ended (a finish reason for each choice, or `[DONE]`)."""

    @abstractmethod
    def feed(self, data: bytes) -> list[StreamEvent]:
        """
        Take the next bytes.

        Args:
            data: Any cut of the body.

        Returns:
            The model events that they complete; `Completed` is not among them.

        Raises:
            LoomError: An error that the vendor sent in the stream, `MalformedReply` or
                `ReplyTooLarge`; `.partial` holds what came before. When events came before it
                in the same bytes they are returned, `complete` is set, and `finish` raises.
        """

    @abstractmethod
    def finish(self) -> LLMResponse:
        """
        The body ended: give the answer.

        Returns:
            The whole answer.

        Raises:
            StreamTruncated: If neither a finish reason nor `[DONE]` was seen.
        """

    @abstractmethod
    def partial(self) -> Partial:
        """What has arrived so far."""


class ChatEncoder(Protocol):
    """Server role, streamed: events in, bytes out."""

    @abstractmethod
    def start(self) -> bytes:
        """The bytes before the first event."""

    @abstractmethod
    def encode(self, event: StreamEvent) -> bytes:
        """
        One event as bytes; empty for notices and for what goes out with `Completed`.

        Args:
            event: The next event of a provider's stream.
        """

    @abstractmethod
    def error(self, error: LoomError) -> bytes:
        """An error in the middle of a stream; nothing follows it."""


class Dialect(Protocol):
    """A wire format, client role first, server role second."""

    name: str

    @abstractmethod
    def encode_request(self, request: ChatRequest) -> EncodedRequest:
        """
        The body for a request, its history made legal.

        Args:
            request: What is asked.

        Raises:
            InvalidRequest: If the history cannot be made legal; the message names the position.
        """

    @abstractmethod
    def decode_response(self, body: bytes, headers: Mapping[str, str]) -> LLMResponse:
        """
        A plain answer.

        Args:
            body: The reply's body.
            headers: Its headers, names in lower case.

        Raises:
            MalformedReply: If it is not an answer.
        """

    @abstractmethod
    def decoder(self, headers: Mapping[str, str], choices: int = 1) -> ChatDecoder:
        """
        A decoder for one streamed answer.

        Args:
            headers: The reply's headers, names in lower case.
            choices: How many answers were asked for.
        """

    @abstractmethod
    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> LoomError:
        """
        The error that a reply with such a status means; it is returned, not raised.

        Args:
            status: The HTTP status.
            headers: Names in lower case.
            body: As it came; may be empty, HTML, or cut.
        """

    @abstractmethod
    def encode_embeddings_request(self, request: EmbeddingsRequest) -> EncodedRequest:
        """
        The body for texts that are to become vectors.

        Args:
            request: What is asked.

        Raises:
            InvalidRequest: If the vendor has no word for it, or a value is not JSON.
        """

    @abstractmethod
    def decode_embeddings_response(
        self, body: bytes, headers: Mapping[str, str], request: EmbeddingsRequest
    ) -> EmbeddingsResponse:
        """
        Vectors.

        Args:
            body: The reply's body.
            headers: Its headers, names in lower case.
            request: What was asked.

        Raises:
            MalformedReply: If it holds not one vector for each text.
            LoomError: If it is an error body in spite of status 200.
        """

    @abstractmethod
    def decode_request(self, body: bytes) -> ChatRequest:
        """
        Server role: what a caller asks.

        Args:
            body: JSON, UTF-8.

        Raises:
            InvalidRequest: If it is not a chat request; the message names the field.
        """

    @abstractmethod
    def decode_infill_request(self, body: bytes) -> ChatRequest:
        """
        Server role: what is to stand in a gap, in the shape of a chat.

        Args:
            body: JSON, UTF-8.

        Raises:
            InvalidRequest: If it is no such request; the message names the field.
        """

    @abstractmethod
    def decode_embeddings_request(self, body: bytes) -> EmbeddingsRequest:
        """
        Server role: which texts are to become vectors.

        Args:
            body: JSON, UTF-8.

        Raises:
            InvalidRequest: If it is no such request; the message names the field.
        """

    @abstractmethod
    def encode_embeddings(self, response: EmbeddingsResponse, request: EmbeddingsRequest) -> bytes:
        """Server role: vectors, as the request wants them written."""

    @abstractmethod
    def encode_response(self, response: LLMResponse) -> bytes:
        """Server role: a plain answer."""

    @abstractmethod
    def encoder(self, request: ChatRequest, id: str, created: int) -> ChatEncoder:  # noqa: A002 - the word of the wire
        """
        Server role: an encoder for one streamed answer.

        Args:
            request: What was asked.
            id: The answer's id.
            created: Unix time in seconds.
        """

    @abstractmethod
    def encode_error(self, error: LoomError) -> ErrorReply:
        """Server role: an error."""
