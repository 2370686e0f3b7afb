"""
What a body may be: plain JSON that says everything once, of a bounded size, and no host.

msgspec reads a body; what it lets pass is found by counting, not by a second reader: a key that
stands twice in an object is in the text and not in the tree, so the quotes do not add up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from loom.core.errors import InvalidRequest
from loom.server.gateway.limits import DoorLimits

__all__ = ["check_body", "names_a_host", "read_json"]

_USUAL = DoorLimits()
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# A float or an integer that no number of ours can hold.
_TOO_LARGE = "out of range"

# Fields by which a request would choose where it is sent, or as whom; without `_` and `-`, in
# lower case. Source: the parameters of LiteLLM's and Portkey's proxies that were misused so.
_HOSTS = frozenset(
    {
        "apibase", "apihost", "apikey", "apitype", "apiurl", "apiversion", "awsaccesskeyid",
        "awsbedrockruntimeendpoint", "awssecretaccesskey", "awssessiontoken", "awsregionname",
        "azureadtoken", "azureendpoint", "baseurl", "customllmprovider", "customhost",
        "defaultheaders", "endpointurl", "extrabody", "extraheaders", "extraquery", "httpproxy",
        "httpsproxy", "litellmmetadata", "litellmparams", "provideroptions", "proxyurl",
        "requestheaders", "serverurl", "upstreamurl", "vertexcredentials", "vertexlocation",
        "vertexproject",
    }
)  # fmt: skip
# These may also be words of somebody's own labels.
_HOSTS_BUT_IN_METADATA = frozenset(
    {"authorization", "endpoint", "headers", "host", "hostname", "organization", "proxies", "proxy"}
)
_NONE: frozenset[str] = frozenset()
# Below these stands what the caller says to the model, or what the model shall fill in.
_SAID = {
    "messages": ("content",),
    "prediction": ("content",),
    "tools": ("parameters",),
    "functions": ("parameters",),
    "response_format": ("schema",),
}
# Names that travel on: into headers, metrics, logs and ledgers.
_LABELS = ("model", "user", "safety_identifier", "prompt_cache_key", "service_tier")


def read_json(body: bytes, limits: DoorLimits = _USUAL) -> Any:
    """
    Read a body.

    Args:
        body: JSON, UTF-8.
        limits: How deep and how many.

    Returns:
        Its value.

    Raises:
        InvalidRequest: If it is not JSON (NaN and lone surrogates are not), is nested too
            deeply, holds too many values, or has a key twice in an object.
    """
    _count(body, limits)
    try:
        tree = msgspec.json.decode(body)
    except RecursionError:
        raise _too_deep(limits) from None
    except UnicodeDecodeError:
        raise InvalidRequest("the body is not UTF-8") from None
    except msgspec.DecodeError as error:
        # msgspec names a place, and never what stands there.
        what = "a number of the body is" if _TOO_LARGE in str(error) else "the body is not JSON:"
        said = _TOO_LARGE if _TOO_LARGE in str(error) else str(error)
        raise InvalidRequest(f"{what} {said}") from None
    if 2 * _strings(tree, limits) != _quotes(body):
        raise InvalidRequest("an object of the body has a key twice")
    return tree


def check_body(tree: Any, limits: DoorLimits = _USUAL) -> dict[str, Any]:
    """
    See that a request is of a size, and of words, that may go on.

    Args:
        tree: As `read_json` gives it.
        limits: How many messages and tools, how large a schema.

    Returns:
        The same.

    Raises:
        InvalidRequest: If it is no object, has too many messages or tools, or a schema that is
            too large; if it names a host, or a model, user or metadata with a control character.
    """
    if type(tree) is not dict:
        raise InvalidRequest("the body must be a JSON object")
    _check_number(tree, "messages", limits.messages)
    _check_number(tree, "tools", limits.tools)
    _check_number(tree, "functions", limits.tools)
    for name in _LABELS:
        value = tree.get(name)
        if type(value) is str and _CONTROL.search(value):
            raise InvalidRequest(f"{name!r} holds a control character")
    if tree.get("metadata") is not None:
        for text in _texts(tree["metadata"]):
            if _CONTROL.search(text):
                raise InvalidRequest("'metadata' holds a control character")
    for place, schema in _schemas(tree):
        # Encoded without white space, so that the form of the text does not count.
        if len(msgspec.json.encode(schema)) > limits.schema_bytes:
            raise InvalidRequest(f"{place}: a schema has at most {limits.schema_bytes} bytes")
    found = names_a_host(tree)
    if found is not None:
        raise InvalidRequest(
            f"{found}: a request cannot say where it is sent, or as whom: leave it out",
            vendor_type="host_in_request",
        )
    return tree


def names_a_host(body: Any) -> str | None:
    """
    Find a field that would choose where a request is sent, or as whom, at any depth.

    What is said to the model (`content`) and what it fills in (schemas) is not looked at: there
    `endpoint` is a word like others. Texts are never looked at.

    Args:
        body: As `read_json` gives it.

    Returns:
        The field's place, for example "metadata.api_base"; None if there is none.
    """
    if type(body) is not dict:
        return None
    waiting: list[tuple[str, Any, tuple[str, ...], frozenset[str]]] = [
        ("", body, (), _HOSTS_BUT_IN_METADATA)
    ]
    while waiting:
        place, node, said, also = waiting.pop()
        if type(node) is list:
            for number, value in enumerate(node):
                if type(value) is dict or type(value) is list:
                    waiting.append((f"{place}[{number}]", value, said, also))
            continue
        for name, value in node.items():
            bare = _bare(name)
            if bare in _HOSTS or bare in also:
                return f"{place}.{_shown(name)}" if place else _shown(name)
            if (type(value) is dict or type(value) is list) and name not in said:
                here = f"{place}.{_shown(name)}" if place else _shown(name)
                below = said if place else _SAID.get(name, ())
                waiting.append((here, value, below, _NONE if here == "metadata" else also))
    return None


def _count(body: bytes, limits: DoorLimits) -> None:
    """Refuse a body of too many values before they are made."""
    if len(body) <= limits.values:
        return
    commas = body.count(b",")
    if commas > limits.values or commas + body.count(b"[") + body.count(b"{") > limits.values:
        # Most stand in texts, as a rule. Strings are few here, or it ends at once.
        if _quotes(body) > 2 * limits.values:
            raise _too_many(limits)
        bare = _STRING.sub(b"", body)
        if bare.count(b",") + bare.count(b"[") + bare.count(b"{") > limits.values:
            raise _too_many(limits)


def _quotes(body: bytes) -> int:
    """Count the quotes that begin or end a string."""
    if b"\\" not in body:
        return body.count(b'"')
    # Backslashes that stand for themselves go first: what is left before a quote escapes it.
    plain = body.replace(b"\\\\", b"")
    return plain.count(b'"') - plain.count(b'\\"')


def _strings(tree: Any, limits: DoorLimits) -> int:
    """Count keys and texts, level by level, and refuse what is too deep."""
    if type(tree) is str:
        return 1
    count = depth = 0
    level = [tree] if type(tree) is dict or type(tree) is list else []
    while level:
        depth += 1
        if depth > limits.depth:
            raise _too_deep(limits)
        below: list[Any] = []
        for node in level:
            if type(node) is dict:
                count += len(node)
            for value in node.values() if type(node) is dict else node:
                kind = type(value)
                if kind is str:
                    count += 1
                elif kind is dict or kind is list:
                    below.append(value)
        level = below
    return count


def _too_deep(limits: DoorLimits) -> InvalidRequest:
    return InvalidRequest(f"the body is nested too deeply: at most {limits.depth} levels")


def _too_many(limits: DoorLimits) -> InvalidRequest:
    return InvalidRequest(f"the body holds more than {limits.values} values")


def _check_number(tree: Mapping[str, Any], name: str, most: int) -> None:
    value = tree.get(name)
    if type(value) is list and len(value) > most:
        raise InvalidRequest(f"{name!r} has {len(value)} entries, and at most {most} may be sent")


def _texts(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if type(node) is str:
            yield node
        elif type(node) is dict:
            waiting.extend(node)
            waiting.extend(node.values())
        elif type(node) is list:
            waiting.extend(node)


def _schemas(tree: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for field in ("tools", "functions"):
        entries = tree.get(field)
        for number, entry in enumerate(entries if type(entries) is list else ()):
            if type(entry) is dict:
                inner = entry.get("function")
                schema = (inner if type(inner) is dict else entry).get("parameters")
                if schema is not None:
                    yield f"{field}[{number}]", schema
    asked = tree.get("response_format")
    named = asked.get("json_schema") if type(asked) is dict else None
    if type(named) is dict and named.get("schema") is not None:
        yield "response_format", named["schema"]


@lru_cache(maxsize=4096)
def _bare(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower() if len(name) < 64 else ""


def _shown(name: str) -> str:
    """Give a field's name, if it is one: a caller's text stands in no error."""
    return name if _PLAIN_NAME.fullmatch(name) else "..."
