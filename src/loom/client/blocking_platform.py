"""What a blocking client can do beside chats; it holds no logic, the portal runs each call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from loom.client.discreet import discreet
from loom.client.lease import Lease
from loom.core.embeddings import EmbeddingDtype, EmbeddingsResponse
from loom.core.response import LLMResponse

if TYPE_CHECKING:
    from loom.client.calls import AsyncClient

__all__ = ["Platform"]


class Platform:
    """The part of `Client` that is no chat; its calls pass the same layers."""

    _async: AsyncClient
    _lease: Lease

    @discreet
    def embeddings(
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
            RuntimeError: After `close`, or on the thread of the clients' event loop.
        """
        return self._lease.portal().call(
            lambda: self._async.embeddings(
                texts, model, dimension=dimension, dtype=dtype, as_base64=as_base64, **options
            )
        )

    @discreet
    def fim(
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
            RuntimeError: After `close`, or on the thread of the clients' event loop.
        """
        return self._lease.portal().call(lambda: self._async.fim(prompt, suffix, model, **options))
