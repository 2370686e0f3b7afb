"""
The caller's words to a `ChatRequest`: coercion, ranges, and errors that say what was meant.

Nothing leaves this file that the vendor is known to refuse; what is wrong is refused here,
before anything is sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from difflib import get_close_matches
from typing import Any, TypeAlias

import msgspec

from loom.catalog.lookup import Catalog
from loom.client.attribution import ATTRIBUTES, attributed
from loom.client.checks import (
    LIMITS,
    RANGES,
    checked_fit,
    checked_number,
    checked_timeouts,
    kind_of,
)
from loom.client.defaults import Defaults
from loom.client.output import output_format
from loom.core.errors import InvalidRequest, ModelNotFound
from loom.core.messages import Message
from loom.core.model import ModelCard
from loom.core.request import (
    ChatRequest,
    NamedTool,
    ResponseFormat,
    Sampling,
    Timeouts,
    ToolChoice,
)
from loom.shuttle.tool import ToolLike, tool_specs
from loom.wire.mistral.messages import decode_content, decode_message
from loom.wire.mistral.request import (
    decode_prediction,
    decode_response_format,
    decode_tool_choice,
)

__all__ = [
    "MessageLike",
    "Messages",
    "build_request",
    "coerce_messages",
]

MessageLike: TypeAlias = Message | Mapping[str, Any] | str
Messages: TypeAlias = MessageLike | Sequence[MessageLike]

# `max_tokens` goes up to here, or to the model's window where that is larger. Source: the
# reference page, "Configuration Parameters".
_LONGEST_ANSWER = 32768

_TYPES: dict[str, type] = {
    "parallel_tool_calls": bool,
    "safe_prompt": bool,
    "skip_bad_events": bool,
    "logprobs": bool,
    "prompt_logprobs": bool,
    "reasoning_effort": str,
    "prompt_mode": str,
    "prompt_cache_key": str,
    "service_tier": str,
    "metadata": Mapping,
}
_SHAPED = ("stop", "tool_choice", "response_format", "prediction", "guardrails")
_OURS = ("model", "output", "timeout_s", "deadline_s", "timeouts", "fit", *ATTRIBUTES, "extra")
_KNOWN = (*RANGES, *_TYPES, *_SHAPED, *_OURS)
_LOGPROBS = ("logprobs", "top_logprobs", "prompt_logprobs", "top_prompt_logprobs")
_SAMPLED = frozenset(field.name for field in msgspec.structs.fields(Sampling))

# What other vendors call it. Source: contract/mistral.md section 2, "refused with 422".
_ELSEWHERE = {
    "max_completion_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "seed": "random_seed",
    "timeout": "timeout_s",
    "stop_sequences": "stop",
    "functions": "tools",
    "function_call": "tool_choice",
    "thinking": "reasoning_effort",
}


def build_request(
    messages: Messages,
    tools: Iterable[ToolLike] | None,
    options: Mapping[str, Any],
    *,
    defaults: Defaults,
    catalog: Catalog,
    on: date,
    vendor: str = "mistral",
    own: bool = True,
) -> ChatRequest:
    """
    A request from what a caller wrote.

    Args:
        messages: A string, a message, a dict, or a list of these.
        tools: What the model may call.
        options: Every other word of the call.
        defaults: What holds where the call says nothing.
        catalog: Knows the models.
        on: The day whose models hold.
        vendor: Whose models are asked.
        own: Whether the vendor itself is asked: another server that speaks as it does has models
            of its own, and none is taken for a misspelling.

    Returns:
        The request, not yet for a stream.

    Raises:
        InvalidRequest: Naming the option or the message, and what it may be.
        ModelNotFound: If the model's id is a misspelling of a known one.
    """
    model = options.get("model")
    if model is None:
        model = defaults.model
    card = catalog.find(model, on, vendor) if type(model) is str else None
    if card is None:
        _check_model(model, catalog, on, vendor, own=own)
    if not options and not tools:
        _check_length(defaults.max_tokens, model, card)
        return _plain_request(messages, model, defaults)
    _check_names(options)
    given = {name: value for name, value in options.items() if value is not None}
    given.setdefault("skip_bad_events", defaults.skip_bad_events)
    drawn = _numbers(given, defaults)
    _check_length(drawn["max_tokens"], model, card)
    if "stop" in given:
        drawn["stop"] = _stop(given["stop"])
    specs = () if tools is None else tool_specs(_listed("tools", tools))
    choice = _tool_choice(given.get("tool_choice"), {tool.name for tool in specs})
    guardrails = given.get("guardrails")
    return ChatRequest(
        model=model,
        messages=coerce_messages(messages),
        tools=specs,
        tool_choice=choice,
        sampling=Sampling(**{name: drawn[name] for name in drawn if name in _SAMPLED}),
        response_format=_response_format(given),
        prediction=decode_prediction(given.get("prediction")),
        guardrails=None if guardrails is None else tuple(_listed("guardrails", guardrails)),
        timeouts=_timeouts(given, defaults.timeouts),
        fit=checked_fit(given.get("fit", defaults.fit)),
        attribution=attributed(defaults.attribution, given),
        extra=_extra(given),
        **{n: given[n] for n in _TYPES if n in given and n not in _LOGPROBS},
    )


def _plain_request(messages: Messages, model: str, defaults: Defaults) -> ChatRequest:
    """The common call says nothing but its messages; all else was checked with the client."""
    return ChatRequest(
        model=model,
        messages=coerce_messages(messages),
        sampling=Sampling(max_tokens=defaults.max_tokens, temperature=defaults.temperature),
        timeouts=defaults.timeouts,
        fit=defaults.fit,
        skip_bad_events=defaults.skip_bad_events,
        attribution=defaults.attribution,
    )


def coerce_messages(messages: Messages) -> tuple[Message, ...]:
    """
    Messages in any of the accepted forms as values.

    Args:
        messages: A string (a user's turn), a `Message`, a dict, or a list of these.

    Returns:
        The conversation.

    Raises:
        InvalidRequest: If there are none, or one is of another type; the position is named.
    """
    given: Any = messages
    if type(given) is not list:  # the common form; the checks below are dear
        if isinstance(given, str | Message | Mapping):
            given = [given]
        elif not isinstance(given, Iterable) or isinstance(given, bytes | bytearray):
            raise InvalidRequest(
                f"messages must be a string, a Message, a dict or a list, not {kind_of(given)}"
            )
    every = tuple([_message(message, i) for i, message in enumerate(given)])
    if not every:
        raise InvalidRequest("messages must hold at least one message")
    return every


def _message(value: Any, position: int) -> Message:
    if isinstance(value, str):
        return Message(role="user", content=value)
    if not isinstance(value, Message):
        return decode_message(value, position)
    content: Any = value.content
    if type(content) is not str and content is not None:
        # Also turns a list into a tuple, and strings in it into texts.
        checked = decode_content(content, f"messages[{position}].content")
        return msgspec.structs.replace(value, content=checked)
    return value


def _check_names(options: Mapping[str, Any]) -> None:
    for name in options:
        if name in _KNOWN:
            continue
        if name == "stream":
            raise InvalidRequest("'stream' is not an option: call .stream(...) for a stream")
        if name == "stream_options":
            raise InvalidRequest(
                "'stream_options' is not needed: usage always comes with the last event"
            )
        near = [_ELSEWHERE[name]] if name in _ELSEWHERE else get_close_matches(name, _KNOWN, 1)
        meant = f"did you mean {near[0]!r}?" if near else f"the options are {', '.join(_KNOWN)}"
        raise InvalidRequest(
            f"unknown option {name!r}; {meant} (a field that is newer than this version goes"
            " into extra={...})"
        )


def _check_model(model: Any, catalog: Catalog, on: date, vendor: str, *, own: bool) -> None:
    if not isinstance(model, str) or not model.strip():
        raise InvalidRequest(f"'model' must be a model id that is not empty, not {kind_of(model)}")
    if model != model.strip() or not model.isprintable():
        raise InvalidRequest(f"'model' must hold no white space around it: {model!r}")
    if own and catalog.misspelt(model, on, vendor):
        near = ", ".join(repr(name) for name in catalog.nearest(model, on, provider=vendor))
        listed = "" if vendor == "mistral" else f" --provider {vendor}"
        raise ModelNotFound(
            f"unknown model {model!r}; did you mean {near}?",
            model=model,
            provider=vendor,
            hint=f"Check the model id for typos; `looms models{listed}` lists them.",
        )


def _numbers(given: Mapping[str, Any], defaults: Defaults) -> dict[str, Any]:
    """The numbers of a call; they, and the options of one type, are checked as they come."""
    drawn: dict[str, Any] = {"max_tokens": defaults.max_tokens, "temperature": defaults.temperature}
    for name, value in given.items():
        if name in RANGES:
            drawn[name] = checked_number(name, value)
        elif name in _TYPES:
            _check_type(name, value)
    return drawn


def _check_length(max_tokens: int | None, model: str, card: ModelCard | None) -> None:
    if card is None or max_tokens is None:
        return
    limit = card.max_output
    if limit is None or card.provider == "mistral":
        limit = max(_LONGEST_ANSWER, card.context_window or 0)
    if max_tokens > limit:
        raise InvalidRequest(f"'max_tokens' must be between 1 and {limit} for {model!r}")


def _check_type(name: str, value: Any) -> None:
    wanted = _TYPES[name]
    if not isinstance(value, wanted):
        said = {bool: "True or False", str: "a string"}.get(wanted, "a dict")
        raise InvalidRequest(f"'{name}' must be {said}, not {kind_of(value)}")


def _stop(value: Any) -> str | tuple[str, ...]:
    if isinstance(value, str):
        return value
    stops = tuple(_listed("stop", value))
    if not all(isinstance(stop, str) for stop in stops):
        raise InvalidRequest("'stop' must be a string or a list of strings")
    return stops


def _tool_choice(value: Any, offered: set[str]) -> ToolChoice | None:
    if value is None:
        return None
    if isinstance(value, NamedTool):
        choice: ToolChoice = value
    elif isinstance(value, str) and value in offered:
        choice = NamedTool(value)
    else:
        choice = decode_tool_choice(value)
    if isinstance(choice, NamedTool) and choice.name not in offered:
        known = ", ".join(sorted(offered)) or "none"
        raise InvalidRequest(f"'tool_choice' names {choice.name!r}; the tools offered: {known}")
    if choice in ("any", "required") and not offered:
        raise InvalidRequest(f"'tool_choice' is {choice!r}, but no tools are offered")
    return choice


def _response_format(given: Mapping[str, Any]) -> ResponseFormat | None:
    form = given.get("response_format")
    if "output" in given:
        if form is not None:
            raise InvalidRequest("give 'output' or 'response_format', not both")
        return output_format(given["output"])
    if form is None or isinstance(form, ResponseFormat):
        return form
    return decode_response_format(form)


def _timeouts(given: Mapping[str, Any], default: Timeouts) -> Timeouts:
    limits = {name: given[name] for name in LIMITS if name in given}
    return checked_timeouts(given.get("timeouts", default), limits)


def _extra(given: Mapping[str, Any]) -> dict[str, Any]:
    more = given.get("extra", {})
    if not isinstance(more, Mapping):
        raise InvalidRequest(f"'extra' must be a dict of body fields, not {kind_of(more)}")
    return {**{name: given[name] for name in _LOGPROBS if name in given}, **more}


def _listed(name: str, value: Any) -> list[Any]:
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        raise InvalidRequest(f"'{name}' must be a list, not {kind_of(value)}")
    return list(value)
