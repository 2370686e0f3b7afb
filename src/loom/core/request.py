"""What is asked of a model: one value that travels through every layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from loom.core.messages import Message

__all__ = [
    "Attribution",
    "ChatRequest",
    "Fit",
    "Kind",
    "NamedTool",
    "Priority",
    "ResponseFormat",
    "Sampling",
    "Timeouts",
    "ToolChoice",
    "ToolSpec",
    "Verbatim",
]


class ToolSpec(msgspec.Struct, frozen=True, kw_only=True):
    """
    A tool as the model sees it.

    Attributes:
        name: 1 to 64 of `A-Z a-z 0-9 _ -` for Mistral (contract: section 2).
        description: What it does and when to use it.
        parameters: JSON schema of its arguments.
        strict: Whether the vendor shall force arguments into the schema; None leaves it out.
    """

    name: str
    description: str | None = None
    parameters: Mapping[str, Any] = {}
    strict: bool | None = None


class NamedTool(msgspec.Struct, frozen=True):
    """The choice of one tool by its name."""

    name: str


ToolChoice: TypeAlias = Literal["auto", "none", "any", "required"] | NamedTool

Fit: TypeAlias = Literal["error", "slide"]
"""What happens to a request beyond the model's window: an error, or its oldest turns go."""

Kind: TypeAlias = Literal["chat", "fim", "embeddings"]
"""
What is asked for.

"fim": what stands in a gap; the user's message is what stands before it, `extra["suffix"]` what
stands behind. "embeddings": vectors; each message is a text (`core/embeddings.py`).
"""


class ResponseFormat(msgspec.Struct, frozen=True, kw_only=True):
    """
    The form of the answer.

    Attributes:
        type: "text", "json_object" or "json_schema".
        name: The schema's name; only with "json_schema".
        schema: The JSON schema; only with "json_schema".
        description: What the schema is for.
        strict: Whether the answer must fit to the letter; None leaves it out.
    """

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: Mapping[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """
    How tokens are drawn. None means "not sent"; 0 is a value.

    Attributes:
        temperature: 0.0 to 2.0 here; Mistral takes up to 1.5 (contract: section 2).
        top_p: Above 0, up to 1.
        max_tokens: At least 1; the answer's longest length in tokens.
        min_tokens: At least 0.
        top_k: At least 1.
        stop: Texts that end the answer; they are not part of it.
        random_seed: At least 0; equal seeds give equal answers as far as the vendor can.
        presence_penalty: -2.0 to 2.0.
        frequency_penalty: -2.0 to 2.0.
        repetition_penalty: Above 0.
        n: How many answers, at least 1.
    """

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    min_tokens: int | None = None
    top_k: int | None = None
    stop: str | tuple[str, ...] | None = None
    random_seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    n: int | None = None


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """
    How long each phase of a call may take, in seconds.

    Attributes:
        pool_s: Waiting for a free slot of the connection pool.
        connect_s: Name look-up, TCP and TLS.
        write_s: Sending the request.
        first_byte_s: From the request's last byte to the reply's headers.
        idle_s: Between two events of a stream, or two pieces of a body.
        total_s: The whole call.
        first_token_s: From sending to the first event of a stream; None: `first_byte_s` and
            `idle_s` alone hold.
    """

    pool_s: float = 10.0
    connect_s: float = 5.0
    write_s: float = 30.0
    first_byte_s: float = 60.0
    idle_s: float = 30.0
    total_s: float = 600.0
    first_token_s: float | None = None


Priority: TypeAlias = Literal["interactive", "normal", "batch"]
"""Who goes first when calls queue."""


class Attribution(msgspec.Struct, frozen=True, kw_only=True):
    """
    For whom a call is made; nothing of it is sent.

    Attributes:
        session: The conversation that it belongs to; None: none.
        tenant: Whose call it is: calls of different tenants queue fairly side by side.
        priority: Who goes first when calls queue.
        tags: Labels for costs, for example `{"project": "weaving"}`.
    """

    session: str | None = None
    tenant: str = ""
    priority: Priority = "normal"
    tags: Mapping[str, str] = {}


class Verbatim(msgspec.Struct, frozen=True, kw_only=True):
    """
    A request as its caller wrote it, to be sent on unchanged where that means the same.

    Its `repr` shows sizes and no text.

    Attributes:
        dialect: Whose wire format it is in, for example "mistral".
        body: JSON, UTF-8.
        request: What was read of it; a request that was changed since goes out anew.
    """

    dialect: str
    body: bytes
    request: ChatRequest

    def __repr__(self) -> str:
        """Dialect and size; never what is asked."""
        return f"Verbatim(dialect={self.dialect!r}, bytes={len(self.body)})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """The same for rich, whose tracebacks show locals."""
        return [("dialect", self.dialect), ("bytes", len(self.body))]

    def stands_for(self, request: ChatRequest, dialect: str) -> bool:
        """
        Whether these bytes say what is asked.

        Args:
            request: What is to be sent.
            dialect: The wire format of whom it is sent to.

        Returns:
            False when a layer changed what is asked, or another vendor is asked.
        """
        read = self.request
        return (
            dialect == self.dialect
            and request.model == read.model
            and request.stream is read.stream
            and request.messages is read.messages
            and request.sampling is read.sampling
            and request.tools is read.tools
        )


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """
    A request for one answer (or `sampling.n` of them).

    Its `repr` shows sizes and no text: logs and error reports print the locals of frames.

    Attributes:
        model: The model's id or alias.
        messages: The conversation, oldest first.
        tools: What the model may call.
        tool_choice: Whether it may, must, or must not; None leaves the vendor's default (auto).
        parallel_tool_calls: Whether it may call several at once; None leaves the default (True).
        sampling: How tokens are drawn.
        response_format: The form of the answer.
        prediction: Text that the answer is likely to repeat.
        reasoning_effort: How long to think; which words a model takes is in its card.
        prompt_mode: "reasoning", deprecated by the vendor.
        guardrails: Moderation settings, as the vendor's JSON.
        prompt_cache_key: Requests with one key share the vendor's prompt cache.
        service_tier: "auto" or "standard_only".
        safe_prompt: Deprecated by the vendor.
        metadata: Labels for the vendor's logs.
        stream: Whether the wire is asked for a stream.
        timeouts: Limits by phase.
        fit: What happens when it is beyond the model's window; None leaves it to the layer.
        skip_bad_events: Whether an event of a stream that cannot be read is left out.
        attribution: For whom the call is made.
        deadline_s: When the call must be over, in seconds of the clock's monotonic time; None:
            it has not begun, and has `timeouts.total_s` from then on.
        extra: Further body fields, sent as they are: for what a vendor added after this version.
        trace_parent: The tracing context that the call belongs to; None: the current one.
        verbatim: The request in its caller's own words; None: there are none.
        kind: What is asked for: all of it has the shape of a chat, so that every layer serves it.
    """

    model: str
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    sampling: Sampling = Sampling()
    response_format: ResponseFormat | None = None
    prediction: str | None = None
    reasoning_effort: str | None = None
    prompt_mode: str | None = None
    guardrails: tuple[Mapping[str, Any], ...] | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None
    safe_prompt: bool | None = None
    metadata: Mapping[str, Any] | None = None
    stream: bool = False
    timeouts: Timeouts = Timeouts()
    fit: Fit | None = None
    skip_bad_events: bool = False
    attribution: Attribution = Attribution()
    deadline_s: float | None = None
    extra: Mapping[str, Any] = {}
    trace_parent: Any = None
    verbatim: Verbatim | None = None
    kind: Kind = "chat"

    def __repr__(self) -> str:
        """Model and sizes; never what is asked."""
        return (
            f"ChatRequest(model={self.model!r}, messages={len(self.messages)},"
            f" tools={len(self.tools)}, stream={self.stream!r})"
        )

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """The same for rich, whose tracebacks show locals."""
        return [
            ("model", self.model),
            ("messages", len(self.messages)),
            ("tools", len(self.tools)),
            ("stream", self.stream),
        ]

    def begun(self, now_s: float) -> ChatRequest:
        """
        The same request with its deadline; the outermost layer that asks starts the clock.

        Args:
            now_s: Seconds of the clock's monotonic time.

        Returns:
            A request that has a deadline; this one if it has.
        """
        if self.deadline_s is not None:
            return self
        return msgspec.structs.replace(self, deadline_s=now_s + self.timeouts.total_s)

    @property
    def began_s(self) -> float | None:
        """When the call began, in seconds of the clock's monotonic time; None: not yet."""
        return None if self.deadline_s is None else self.deadline_s - self.timeouts.total_s
