"""
Recorded exchanges as files: one JSON object each, as people read and edit them.

The form is that of the recorded answers that the tests of this project are judged by.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from loom.core.errors import ConfigInvalid

__all__ = [
    "Recording",
    "kept_headers",
    "kind_of",
    "prepare_folder",
    "read_folder",
    "write_recording",
]

# Lists of recordings stand beside them under these names.
_NOT_RECORDINGS = frozenset({"index.json", "observed-errors.json"})
# What a server sets anew for the bytes that it sends; a body is kept without its compression.
_OF_THE_CONNECTION = frozenset(
    {"connection", "content-encoding", "content-length", "date", "keep-alive", "transfer-encoding"}
)


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """
    One exchange.

    Attributes:
        method: "POST", "GET", ...
        path: With the query, from `/v1` on.
        request_headers: Names in lower case; none that could hold a secret.
        request_body: JSON values; a text where it is no JSON; None where there is none.
        status: The HTTP status of the reply.
        headers: The reply's, names in lower case.
        body: The reply's, as it came.
        file: The file's name; empty before it has one.
    """

    method: str
    path: str
    request_headers: Mapping[str, str] = {}
    request_body: Any = None
    status: int = 200
    headers: Mapping[str, str] = {}
    body: bytes = b""
    file: str = ""

    @property
    def stream(self) -> bool:
        """Whether the reply is a stream of events."""
        return self.headers.get("content-type", "").startswith("text/event-stream")


def kind_of(recording: Recording) -> str:
    """
    How a recording is named: `chat`, `chat-stream`, `models`, `error-401`, ...

    Args:
        recording: Any.
    """
    parts = recording.path.partition("?")[0].strip("/").split("/")
    subject = (parts[1] if parts[0] == "v1" else parts[0]) if len(parts) > 1 else parts[0]
    # A file's name, and no way out of its folder.
    subject = "".join(c for c in subject if c.isascii() and c.isalnum())[:40] or "other"
    if recording.status >= 400:
        subject = f"error-{recording.status}"
    return f"{subject}-stream" if recording.stream else subject


def prepare_folder(folder: Path) -> None:
    """
    Make a folder for recordings.

    Args:
        folder: Made if it is not there; readable by its owner alone, because it holds prompts.

    Raises:
        ConfigInvalid: If nothing can be written there.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigInvalid(f"cannot record into {str(folder)!r}: {error.strerror}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigInvalid(f"cannot record into {str(folder)!r}: not writable")


def write_recording(folder: Path, recording: Recording, source: str) -> Path:
    """
    Write an exchange into a file of its own; never over another.

    Args:
        folder: Where.
        recording: What; must hold no secret.
        source: Where it was recorded: scheme, host and port.

    Returns:
        The file.

    Raises:
        OSError: If it cannot be written.
    """
    kind = kind_of(recording)
    text, extra = _text_of(recording.body)
    value = {
        "source": source,
        "notes": [],
        "request": {
            "method": recording.method,
            "path": recording.path,
            "headers": recording.request_headers,
            "body": recording.request_body,
        },
        "response": {
            "status": recording.status,
            "headers": recording.headers,
            "body": text,
            **extra,
        },
        "kind": kind,
        "stream": recording.stream,
    }
    data = msgspec.json.format(msgspec.json.encode(value), indent=1)
    number = 1 + sum(1 for _ in folder.glob(f"{kind}-[0-9]*.json"))
    while True:
        path = folder / f"{kind}-{number:03d}.json"
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            number += 1
            continue
        with os.fdopen(file, "wb") as writing:
            writing.write(data + b"\n")
        return path


def _text_of(body: bytes) -> tuple[str, dict[str, str]]:
    try:
        return body.decode(), {}
    except UnicodeDecodeError:
        return base64.b64encode(body).decode(), {"encoding": "base64"}


def read_folder(folder: Path) -> list[Recording]:
    """
    Read all recordings of a folder, by name.

    Args:
        folder: Where they are. A file that keeps no request (method and path) is left out.

    Returns:
        At least one.

    Raises:
        ConfigInvalid: If there are none, or a file is not a recording; the message names it.
    """
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix == ".json")
        found = [_read(path) for path in files if path.name not in _NOT_RECORDINGS]
    except OSError as error:
        raise ConfigInvalid(f"cannot replay from {str(folder)!r}: {error.strerror}") from None
    recordings = [recording for recording in found if recording is not None]
    if not recordings:
        raise ConfigInvalid(
            f"cannot replay from {str(folder)!r}: no file there is a recorded exchange",
            hint="Record some first: looms sim --record DIR --upstream URL.",
        )
    return recordings


class _Sent(msgspec.Struct):
    method: str | None = None
    path: str | None = None
    headers: dict[str, str] | None = None
    body: Any = None


class _Came(msgspec.Struct):
    body: str
    status: int | None = None
    headers: dict[str, str] | None = None
    encoding: str | None = None


class _File(msgspec.Struct):
    response: _Came
    request: _Sent | None = None


def _read(path: Path) -> Recording | None:
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_File)
        sent, came = file.request or _Sent(), file.response
        body = came.body.encode()
        body = base64.b64decode(body, validate=True) if came.encoding == "base64" else body
    except (ValueError, RecursionError) as error:
        raise ConfigInvalid(f"{path}: not a recorded exchange: {error}") from None
    if sent.method is None or sent.path is None:
        return None
    return Recording(
        method=sent.method,
        path=sent.path,
        request_headers=sent.headers or {},
        request_body=sent.body,
        status=came.status or 200,
        headers=kept_headers(came.headers or {}),
        body=body,
        file=path.name,
    )


def kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """
    Those headers of a reply that say something of the answer, not of the connection.

    Args:
        headers: Names in any case.

    Returns:
        Names in lower case.
    """
    lower = {name.lower(): text for name, text in headers.items()}
    return {name: text for name, text in lower.items() if name not in _OF_THE_CONNECTION}
