"""What a server decides for itself: whom it admits, which models it lists, what headers it sets."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from loom.core.response import Usage

__all__ = ["Desk", "Outcome"]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """
    How a request ended, as far as its headers need to know.

    Attributes:
        status: The HTTP status.
        admitted: Whether it came past the door; False for a wrong key or path.
        streamed: Whether the answer is a stream.
        elapsed_s: Seconds from the request's head to the answer's.
        model: As the caller named it; None when it was not read.
        usage: What a plain answer used; None for everything else.
        endpoint: The path behind `/v1/`, for example "embeddings"; empty for all others.
    """

    status: int
    admitted: bool = True
    streamed: bool = False
    elapsed_s: float = 0.0
    model: str | None = None
    usage: Usage | None = None
    endpoint: str = ""


class Desk(Protocol):
    """The one collaborator of the application beside its provider and its dialect."""

    @abstractmethod
    def admit(self, authorization: str | None) -> None:
        """
        Let a caller in, or not.

        Args:
            authorization: The header of that name; None when there is none.

        Raises:
            LoomError: `InvalidAPIKey` or another that says why not.
        """

    @abstractmethod
    def models(self) -> Sequence[Mapping[str, Any]]:
        """The rows of the model list; each has an `id`."""

    @abstractmethod
    def new_id(self) -> str:
        """The id of the next streamed answer."""

    @abstractmethod
    def headers(self, outcome: Outcome) -> Mapping[str, str]:
        """
        Headers of an answer, beside those of its content.

        Args:
            outcome: How it ended.

        Returns:
            Names in lower case.
        """

    def used(self, usage: Usage) -> None:
        """
        Hear what a streamed answer used, before its end is sent; nobody need listen.

        Args:
            usage: Its tokens, also where the answer does not tell them.
        """
        del usage
