"""
The caller's words to a `ChatRequest`: coercion, ranges, and errors that say what was meant.

Nothing leaves this file that the vendor is known to refuse; what is wrong is refused here,
before anything is sent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from difflib import get_close_matches
from typing import Any, TypeAlias, cast

import msgspec

from loom.catalog.lookup import Catalog
from loom.client.output import output_format
from loom.core.errors import InvalidRequest, ModelNotFound
from loom.core.messages import Message
from loom.core.request import (
    ChatRequest,
    Fit,
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
    "Defaults",
    "MessageLike",
    "Messages",
    "build_request",
    "checked_fit",
    "checked_flag",
    "checked_number",
    "checked_timeouts",
    "coerce_messages",
]

MessageLike: TypeAlias = Message | Mapping[str, Any] | str
Messages: TypeAlias = MessageLike | Sequence[MessageLike]

# `max_tokens` goes up to here, or to the model's window where that is larger. Source: the
# reference page, "Configuration Parameters".
_LONGEST_ANSWER = 32768

# Numbers: lowest, highest, whether the lowest itself is allowed, whether it is whole.
_RANGES: dict[str, tuple[float, float, bool, bool]] = {
    "temperature": (0, 2, True, False),
    "top_p": (0, 1, False, False),
    "presence_penalty": (-2, 2, True, False),
    "frequency_penalty": (-2, 2, True, False),
    "repetition_penalty": (0, math.inf, False, False),
    "max_tokens": (1, math.inf, True, True),
    "min_tokens": (0, math.inf, True, True),
    "top_k": (1, math.inf, True, True),
    "random_seed": (0, math.inf, True, True),
    "n": (1, math.inf, True, True),
    "top_logprobs": (0, math.inf, True, True),
    "top_prompt_logprobs": (0, math.inf, True, True),
}
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
_OURS = ("model", "output", "timeout_s", "deadline_s", "timeouts", "fit", "extra")
_KNOWN = (*_RANGES, *_TYPES, *_SHAPED, *_OURS)
_LOGPROBS = ("logprobs", "top_logprobs", "prompt_logprobs", "top_prompt_logprobs")
_LIMITS = {"timeout_s": "first_byte_s", "deadline_s": "total_s"}
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


class Defaults(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a client fills in where a call says nothing.

    Attributes:
        model: The model's id or alias.
        max_tokens: The longest answer.
        temperature: How tokens are drawn.
        timeouts: Limits by phase.
        fit: What happens to a request beyond the model's window.
        skip_bad_events: Whether an event of a stream that cannot be read is left out.
    """

    model: str
    max_tokens: int | None
    temperature: float | None
    timeouts: Timeouts
    fit: Fit = "error"
    skip_bad_events: bool = False


def build_request(
    messages: Messages,
    tools: Iterable[ToolLike] | None,
    options: Mapping[str, Any],
    *,
    defaults: Defaults,
    catalog: Catalog,
    on: date,
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

    Returns:
        The request, not yet for a stream.

    Raises:
        InvalidRequest: Naming the option or the message, and what it may be.
        ModelNotFound: If the model's id is a misspelling of a known one.
    """
    model = options.get("model")
    if model is None:
        model = defaults.model
    if type(model) is not str or catalog.find(model, on) is None:
        _check_model(model, catalog, on)
    if not options and not tools:
        # The common call says nothing but its messages; what the client was made with is checked.
        _check_length(defaults.max_tokens, model, catalog, on)
        return ChatRequest(
            model=model,
            messages=coerce_messages(messages),
            sampling=Sampling(max_tokens=defaults.max_tokens, temperature=defaults.temperature),
            timeouts=defaults.timeouts,
            fit=defaults.fit,
            skip_bad_events=defaults.skip_bad_events,
        )
    _check_names(options)
    given = {name: value for name, value in options.items() if value is not None}
    given.setdefault("skip_bad_events", defaults.skip_bad_events)
    drawn: dict[str, Any] = {"max_tokens": defaults.max_tokens, "temperature": defaults.temperature}
    for name, value in given.items():
        if name in _RANGES:
            drawn[name] = checked_number(name, value)
        elif name in _TYPES:
            _check_type(name, value)
    _check_length(drawn["max_tokens"], model, catalog, on)
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
        extra=_extra(given),
        **{n: given[n] for n in _TYPES if n in given and n not in _LOGPROBS},
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
                f"messages must be a string, a Message, a dict or a list, not {_kind(given)}"
            )
    every = tuple([_message(message, i) for i, message in enumerate(given)])
    if not every:
        raise InvalidRequest("messages must hold at least one message")
    return every


def checked_fit(value: Any) -> Fit:
    """
    What happens to a request beyond the model's window.

    Args:
        value: "error" or "slide".

    Returns:
        The value itself.

    Raises:
        InvalidRequest: If it is neither.
    """
    if value in ("error", "slide"):
        return cast("Fit", value)
    raise InvalidRequest(f"'fit' must be 'error' or 'slide', not {value!r}")


def checked_flag(name: str, value: Any) -> bool:
    """
    A switch.

    Args:
        name: The option.
        value: True or False.

    Returns:
        The value itself.

    Raises:
        InvalidRequest: If it is neither.
    """
    if not isinstance(value, bool):
        raise InvalidRequest(f"'{name}' must be True or False, not {_kind(value)}")
    return value


def checked_number(name: str, value: Any) -> Any:
    """
    A number within its range.

    Args:
        name: The option.
        value: What was given.

    Returns:
        The value itself.

    Raises:
        InvalidRequest: In the words of the reference page: `'temperature' must be between 0
            and 2`.
    """
    low, high, closed, whole = _RANGES[name]
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        wanted = "a whole number" if whole else "a number"
        raise InvalidRequest(f"'{name}' must be {wanted}, not {_kind(value)}")
    if not (low <= value <= high) or (value == low and not closed):
        if high == math.inf:
            bounds = f"at least {low:g}" if closed else f"above {low:g}"
        else:
            bounds = f"between {low:g} and {high:g}" if closed else f"above {low:g}, up to {high:g}"
        raise InvalidRequest(f"'{name}' must be {bounds}")
    return value


def checked_timeouts(base: Timeouts, limits: Mapping[str, float | timedelta]) -> Timeouts:
    """
    Limits by phase, some of them replaced.

    Args:
        base: What holds otherwise.
        limits: `first_byte_s` (1 to 600) and `total_s` (above 0), as seconds or timedeltas.

    Returns:
        The limits.

    Raises:
        InvalidRequest: If one is no duration, or out of range; it is named as callers name it.
    """
    if not isinstance(base, Timeouts):
        raise InvalidRequest(f"'timeouts' must be a Timeouts, not {_kind(base)}")
    if not limits:
        return base
    changes = {field: _seconds(field, value) for field, value in limits.items()}
    return msgspec.structs.replace(base, **changes)


def _seconds(field: str, value: Any) -> float:
    name = {"first_byte_s": "timeout_s", "total_s": "deadline_s"}[field]
    low, high = (1, 600) if field == "first_byte_s" else (0.001, 86400)
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise InvalidRequest(f"'{name}' must be seconds or a timedelta, not {_kind(value)}")
    if not low <= number <= high:
        raise InvalidRequest(f"'{name}' must be between {low:g} and {high:g} seconds")
    return float(number)


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


def _check_model(model: Any, catalog: Catalog, on: date) -> None:
    if not isinstance(model, str) or not model.strip():
        raise InvalidRequest(f"'model' must be a model id that is not empty, not {_kind(model)}")
    if model != model.strip() or not model.isprintable():
        raise InvalidRequest(f"'model' must hold no white space around it: {model!r}")
    if catalog.misspelt(model, on):
        near = ", ".join(repr(name) for name in catalog.nearest(model, on))
        raise ModelNotFound(f"unknown model {model!r}; did you mean {near}?", model=model)


def _check_length(max_tokens: int | None, model: str, catalog: Catalog, on: date) -> None:
    if max_tokens is None or max_tokens <= _LONGEST_ANSWER:
        return
    card = catalog.find(model, on)
    window = None if card is None else card.context_window
    limit = max(_LONGEST_ANSWER, window or 0)
    if card is not None and max_tokens > limit:
        raise InvalidRequest(f"'max_tokens' must be between 1 and {limit} for {model!r}")


def _check_type(name: str, value: Any) -> None:
    wanted = _TYPES[name]
    if not isinstance(value, wanted):
        said = {bool: "True or False", str: "a string"}.get(wanted, "a dict")
        raise InvalidRequest(f"'{name}' must be {said}, not {_kind(value)}")


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
    limits = {field: given[name] for name, field in _LIMITS.items() if name in given}
    return checked_timeouts(given.get("timeouts", default), limits)


def _extra(given: Mapping[str, Any]) -> dict[str, Any]:
    more = given.get("extra", {})
    if not isinstance(more, Mapping):
        raise InvalidRequest(f"'extra' must be a dict of body fields, not {_kind(more)}")
    return {**{name: given[name] for name in _LOGPROBS if name in given}, **more}


def _listed(name: str, value: Any) -> list[Any]:
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        raise InvalidRequest(f"'{name}' must be a list, not {_kind(value)}")
    return list(value)


def _kind(value: object) -> str:
    return "None" if value is None else type(value).__name__
