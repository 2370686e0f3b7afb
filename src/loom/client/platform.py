"""What a client for asyncio can do beside chats: vectors, and what stands in a gap."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Protocol, get_args

import msgspec

from loom.client.attribution import ATTRIBUTES
from loom.client.checks import checked_flag, kind_of
from loom.client.defaults import Defaults
from loom.client.discreet import discreet_async
from loom.config.vendors import Vendor
from loom.core.embeddings import (
    EmbeddingDtype,
    EmbeddingsRequest,
    EmbeddingsResponse,
    as_chat,
    from_chat_response,
)
from loom.core.errors import InvalidRequest
from loom.core.provider import LLMProvider
from loom.core.request import ChatRequest
from loom.core.response import LLMResponse

if TYPE_CHECKING:
    from loom.client.options import Messages
    from loom.shuttle.tool import ToolLike

__all__ = ["AsyncPlatform"]

_OURS = ("timeout_s", "deadline_s", "timeouts", *ATTRIBUTES, "extra")
_INFILL = (
    "temperature", "top_p", "max_tokens", "min_tokens", "random_seed", "stop", "metadata",
    "prompt_cache_key", *_OURS,
)  # fmt: skip


class AsyncPlatform(Protocol):
    """The part of `AsyncClient` that is no chat; its calls pass the same layers."""

    _vendor: Vendor
    _defaults: Defaults

    @property
    @abstractmethod
    def provider(self) -> LLMProvider:
        """What answers, with all its layers."""

    @abstractmethod
    def _request(
        self,
        messages: Messages,
        tools: Iterable[ToolLike] | None,
        options: Mapping[str, Any],
        defaults: Defaults | None = None,
    ) -> ChatRequest: ...

    @discreet_async
    async def embeddings(
        self,
        texts: str | Sequence[str],
        model: str | None = None,
        *,
        dimension: int | None = None,
        dtype: EmbeddingDtype = "float",
        as_base64: bool = False,
        **options: Any,
    ) -> EmbeddingsResponse:
        """
        Turn texts into vectors.

        Retries, breaker, limits, budgets and ledger are those of chats. Routes to other models
        are not taken: vectors of two models cannot be compared.

        Args:
            texts: One, or several: a vector for each. How many one call takes is the vendor's to
                say; Mistral took 256.
            model: The model's id; None: `mistral-embed`, or `text-embedding-3-small` of OpenAI.
            dimension: Numbers of a vector; None: as the model has them.
            dtype: How the vendor writes the numbers: "float", "int8", "uint8", "binary" or
                "ubinary" (the last two hold eight of them in a byte).
            as_base64: Whether vectors travel as base64: about a quarter of the bytes, and floats
                of four bytes.
            options: `timeout_s`, `deadline_s`, `timeouts`, `session`, `tenant`, `priority`,
                `tags`, `extra` (further body fields).

        Returns:
            The vectors in the order of the texts, with tokens, cost and timeline.

        Raises:
            CallerError: What is asked is not as it must be; found here, nothing was sent.
            VendorError: The vendor, or the way to it, failed.
            Refusal: A limit or a budget has no room.
            RuntimeError: After `aclose`.
        """
        listed = _texts(texts)
        _check_names(options, _OURS)
        base = self._request("?", None, {**options, "model": model or self._embeds()})
        request = EmbeddingsRequest(
            model=base.model,
            texts=listed,
            dimension=_dimension(dimension),
            dtype=_dtype(dtype),
            as_base64=checked_flag("as_base64", as_base64),
            timeouts=base.timeouts,
            attribution=base.attribution,
            extra=base.extra,
        )
        return from_chat_response(await self.provider.chat(as_chat(request)))

    @discreet_async
    async def fim(
        self,
        prompt: str,
        suffix: str | None = None,
        model: str = "codestral-latest",
        **options: Any,
    ) -> LLMResponse:
        """
        Fill in the middle: what stands between a text and the text behind it.

        Retries, breaker, limits, budgets and ledger are those of chats. Routes to other models
        are not taken.

        Args:
            prompt: What stands before the gap.
            suffix: What stands behind it; None: nothing.
            model: The model's id.
            options: `temperature` (None: as the vendor does it), `top_p`, `max_tokens`,
                `min_tokens`, `random_seed`, `stop`, `metadata`, `prompt_cache_key`, `timeout_s`,
                `deadline_s`, `timeouts`, `session`, `tenant`, `priority`, `tags`, `extra`.

        Returns:
            The answer; `content` is what belongs into the gap.

        Raises:
            CallerError: What is asked is not as it must be, or the vendor has no such request;
                found here, nothing was sent.
            VendorError: The vendor, or the way to it, failed.
            Refusal: A limit or a budget has no room.
            RuntimeError: After `aclose`.
        """
        if self._vendor.infill is None:
            raise InvalidRequest(f"{self._vendor.title} has no request to fill in the middle")
        _check_text("prompt", prompt)
        if suffix is not None:
            _check_text("suffix", suffix)
        _check_names(options, _INFILL)
        # What suits a conversation is no default for code: the vendor has another for each model.
        defaults = msgspec.structs.replace(self._defaults, temperature=None)
        request = self._request(prompt, None, {**options, "model": model}, defaults)
        extra = {**request.extra, "suffix": suffix or ""}
        return await self.provider.chat(msgspec.structs.replace(request, kind="fim", extra=extra))

    def _embeds(self) -> str:
        model = self._vendor.embeddings_model
        if not model:
            raise InvalidRequest(
                f"no model of {self._vendor.title} is usual for embeddings: name one with model="
            )
        return model


def _texts(texts: Any) -> tuple[str, ...]:
    if isinstance(texts, str):
        return (texts,)
    if not isinstance(texts, Iterable) or isinstance(texts, bytes | bytearray | Mapping):
        raise InvalidRequest(f"'texts' must be a string or a list of them, not {kind_of(texts)}")
    listed = tuple(texts)
    if not listed:
        raise InvalidRequest("'texts' must hold at least one text")
    for place, text in enumerate(listed):
        _check_text(f"texts[{place}]", text)
    return listed


def _check_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise InvalidRequest(f"'{name}' must be a string, not {kind_of(value)}")


def _check_names(options: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in options:
        if name not in known:
            near = get_close_matches(name, known, 1)
            meant = f"did you mean {near[0]!r}?" if near else f"the options are {', '.join(known)}"
            raise InvalidRequest(f"unknown option {name!r}; {meant}")


def _dimension(value: Any) -> int | None:
    if value is not None and (type(value) is not int or value < 1):
        raise InvalidRequest("'dimension' must be a whole number of at least 1")
    return value


def _dtype(value: Any) -> EmbeddingDtype:
    if value not in get_args(EmbeddingDtype):
        words = ", ".join(map(repr, get_args(EmbeddingDtype)))
        raise InvalidRequest(f"'dtype' must be one of {words}, not {value!r}")
    checked: EmbeddingDtype = value
    return checked
