"""
What Mistral's API refuses, in its own words: the server role of a request.

Everything that decides whether a request is refused lives here and in the tables it reads:
`schema.py` (422, field by field), `turns.py` (400, the order of turns). The client's own path
does not come through here.

Checks run in the order of the real API: the schema, then the model, then the messages, then what
the model takes, then its window. The first refusal is the answer; a 422 names every field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

from loom.core.errors import ContextTooLong, InvalidRequest, LoomError, ModelNotFound
from loom.core.model import ModelCard
from loom.wire.mistral.embeddings import vector_size
from loom.wire.mistral.json_schema import schema_problem
from loom.wire.mistral.schema import CHAT_REQUEST, EMBEDDINGS_REQUEST, FIM_REQUEST
from loom.wire.mistral.shape import Check, Problem
from loom.wire.mistral.turns import check_function_name, check_turns

__all__ = [
    "MOST_INPUTS",
    "FindModel",
    "check_embeddings_request",
    "check_fim_request",
    "check_request",
    "check_window",
]

FindModel: TypeAlias = Callable[[str], ModelCard | None]
"""The card of a model by id or alias; None for one that is unknown or retired."""

MOST_INPUTS = 256
"""
Texts in one request for embeddings.

Source: recorded: 257 were refused with code 3210; larger batches are unknown to have passed.
"""

_ARGS = "invalid_request_invalid_args"


def check_request(
    body: object, *, find: FindModel | None = None, prompt_tokens: int | None = None
) -> None:
    """
    Refuse a chat request that the real API refuses, in its words.

    Call it with the decoded JSON body after the key was checked and before anything is charged.
    It returns nothing: what comes back without an error would be answered. An error is given to
    the caller by `encode_error_reply` (the dialect's `encode_error`) as it is; nothing else need
    be done with it. It is pure: it reads no clock, keeps nothing and edits nothing.

    Args:
        body: JSON values, of any shape.
        find: Looks up the model; None takes every model and leaves out what depends on it.
        prompt_tokens: The prompt's tokens, when they are known; None leaves out the window.
            When counting needs the card, call `check_window` afterwards instead.

    Raises:
        InvalidRequest: 422 with `detail`, one entry for each field that is wrong; 400 with the
            vendor's code for the rest (3051, 3230, 3240, 3280).
        ModelNotFound: 400, code 1500.
        ContextTooLong: 400, code 3059; 422 when only prompt and `max_tokens` together pass the
            window.

    Source: contract/mistral.md sections 2, 3 and 6; recorded bodies.
    """
    given = _shaped(body, CHAT_REQUEST)
    card = _known(given, find)
    check_turns(given["messages"])
    for tool in given.get("tools") or ():
        _check_schema(tool["function"]["parameters"], "tool")
        check_function_name(tool["function"]["name"])
    _check_schema(_schema_of_answer(given), "response")
    _check_logprobs(given)
    if card is not None:
        _check_effort(given, card)
        if prompt_tokens is not None:
            check_window(given, card, prompt_tokens)


def check_fim_request(body: object, *, find: FindModel | None = None) -> None:
    """
    Refuse a request to fill in the middle that the real API refuses.

    Args:
        body: JSON values, of any shape.
        find: As for `check_request`.

    Raises:
        InvalidRequest: 422 with `detail`; 400 for a model that does not do this.
        ModelNotFound: 400, code 1500.
    """
    card = _known(_shaped(body, FIM_REQUEST), find)
    if card is not None and "fim" not in card.abilities:
        # No real body was recorded: the words are ours.
        raise _refused("Fill-in-the-middle is not enabled for this model", _ARGS, "3051", card)


def check_embeddings_request(body: object, *, find: FindModel | None = None) -> None:
    """
    Refuse a request for embeddings that the real API refuses.

    Args:
        body: JSON values, of any shape.
        find: As for `check_request`.

    Raises:
        InvalidRequest: 422 with `detail`; 400 with code 3051 for a dimension that the model does
            not give, 3210 for too many texts.
        ModelNotFound: 400, code 1500; also for a model that makes no embeddings.
    """
    given = _shaped(body, EMBEDDINGS_REQUEST)
    card = _known(given, find)
    if card is not None and "embeddings" not in card.abilities:
        # No real body was recorded: what the endpoint does not serve is unknown to it.
        raise _unknown(card.id)
    if isinstance(given["input"], list | tuple) and len(given["input"]) > MOST_INPUTS:
        said = "Too many inputs in request, split into more batches."
        raise _refused(said, "invalid_request_prompt", "3210", card)
    wanted, most = given.get("output_dimension"), vector_size(given["model"]).most
    if wanted is not None and most is None:
        raise _refused("This model does not support output_dimension.", _ARGS, "3051", card)
    if wanted is not None and most is not None and wanted > most:
        # No real body was recorded: the words are ours.
        raise _refused(f"output_dimension must be at most {most}.", _ARGS, "3051", card)


def check_window(
    body: Mapping[str, Any],
    card: ModelCard,
    prompt_tokens: int,
    *,
    engine: Literal["new", "old"] = "new",
) -> None:
    """
    Refuse a request that does not fit the model's window.

    Args:
        body: A chat request that passed `check_request`.
        card: The model's.
        prompt_tokens: Tokens of the prompt.
        engine: Whose words: 3059 is the newer engine's, 3051 the older one's.

    Raises:
        ContextTooLong: With `tokens` and `limit`. For prompt and `max_tokens` together no real
            body was recorded, only the status 422: the sentence is the usual one of such
            servers.
    """
    window = card.context_window
    if window is None:
        return
    answer = body.get("max_tokens") or 0
    if prompt_tokens > window:
        newer = f"Prompt {prompt_tokens} > {window} maximum context length"
        older = f"Prompt contains {prompt_tokens} tokens and 0 draft tokens, too large for model"
        older += f" with {window} maximum context length"
        said, kind, code = newer, "invalid_request_prompt_too_long", "3059"
        if engine == "old":
            said, kind, code = older, _ARGS, "3051"
        error = ContextTooLong(said, http_status=400, vendor_type=kind, vendor_code=code)
    elif prompt_tokens + answer > window:
        said = f"This model's maximum context length is {window} tokens. However, you requested"
        said += f" {prompt_tokens + answer} tokens ({prompt_tokens} in the messages, {answer} in"
        said += " the completion)."
        error = ContextTooLong(said, http_status=422, vendor_type="invalid_request_error")
    else:
        return
    error.tokens, error.limit = prompt_tokens, window
    raise error


def _shaped(body: object, check: Check) -> Mapping[str, Any]:
    found: list[Problem] = []
    check(body, ("body",), found)
    if not found and isinstance(body, Mapping):
        return body
    first = found[0]
    place = ".".join(str(step) for step in first["loc"])
    raise InvalidRequest(f"{place}: {first['msg']}", http_status=422, detail=found)


def _known(body: Mapping[str, Any], find: FindModel | None) -> ModelCard | None:
    if find is None:
        return None
    card = find(body["model"])
    if card is None:
        raise _unknown(body["model"])
    return card


def _unknown(model: str) -> LoomError:
    return ModelNotFound(
        f"Invalid model: {model}",
        http_status=400,
        provider="mistral",
        model=model,
        vendor_type="invalid_model",
        vendor_code="1500",
    )


def _refused(said: str, kind: str, code: str, card: ModelCard | None = None) -> InvalidRequest:
    model = None if card is None else card.id
    return InvalidRequest(said, http_status=400, vendor_type=kind, vendor_code=code, model=model)


def _schema_of_answer(body: Mapping[str, Any]) -> Mapping[str, Any]:
    form = body.get("response_format", {})
    if form.get("type") != "json_schema":
        return {}
    schema: Mapping[str, Any] = form["json_schema"]["schema"]
    return schema


def _check_schema(schema: Mapping[str, Any], what: str) -> None:
    # The beginning is mistral-common's for a tool; how the API goes on was not recorded.
    if (problem := schema_problem(schema)) is not None:
        said = f"Invalid {what} schema: {problem}"
        raise InvalidRequest(said, http_status=400, vendor_type="invalid_request_error")


_LOGPROBS = ("logprobs", "top_logprobs", "prompt_logprobs", "top_prompt_logprobs")


def _check_logprobs(body: Mapping[str, Any]) -> None:
    # No model of the catalogue was ever recorded to give them.
    if any(body.get(name) for name in _LOGPROBS):
        raise _refused("Logprobs are not enabled for this model", _ARGS, "3051")


def _check_effort(body: Mapping[str, Any], card: ModelCard) -> None:
    effort = body.get("reasoning_effort")
    efforts = card.reasoning_efforts
    if effort is None or effort in efforts:
        return
    if not efforts:
        said = "reasoning_effort is not enabled for this model"
    elif "none" in efforts:
        allowed = ", ".join(f"<ReasoningEffort.{each}: '{each}'>" for each in efforts)
        said = f"reasoning_effort='{effort}' is not supported for this model."
        said += f" Must be one of ({allowed})"
    else:
        # Models of third parties, whose thinking cannot be switched off, have their own words.
        said = f"reasoning_effort '{effort}' is not supported for this model;"
        said += f" supported values: {list(efforts)}"
    raise _refused(said, _ARGS, "3051", card)
