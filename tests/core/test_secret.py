"""A secret is shown by nothing but `reveal()`."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import inspect
import io
import json
import logging
import pickle
import pprint
import traceback
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import rich.console
import rich.pretty
import rich.traceback

from loom.core.secret import Secret

CANARY = "c4n4ry-9f8e7d"
SECRET = Secret(CANARY)


@dataclasses.dataclass
class Holder:
    key: Secret


class Value(msgspec.Struct):
    key: Secret


def test_reveal_gives_it() -> None:
    """Asked for by name, the secret comes out as it went in."""
    assert CANARY == SECRET.reveal()


SHOWN: dict[str, Callable[[], object]] = {
    "repr": lambda: repr(SECRET),
    "str": lambda: str(SECRET),
    "format": lambda: format(SECRET),
    "f-string": lambda: f"{SECRET} {SECRET!r} {SECRET!s} {SECRET!a}",
    "percent": lambda: "%s %r" % (SECRET, SECRET),  # noqa: UP031 - that is the test
    "format method": lambda: "{0} {0!r}".format(SECRET),  # noqa: UP032 - that is the test
    "in a list": lambda: str([SECRET, {"key": SECRET}]),
    "in a dataclass": lambda: repr(Holder(SECRET)),
    "as dict of a dataclass": lambda: [str(Holder(SECRET).__dict__)],
    "in a struct": lambda: repr(Value(SECRET)),
    "pprint": lambda: pprint.pformat({"key": SECRET, "held": Holder(SECRET)}),
    "dir": lambda: dir(SECRET),
    "members": lambda: repr(inspect.getmembers(SECRET)),
    "rich pretty": lambda: rich.pretty.pretty_repr({"key": SECRET, "held": Holder(SECRET)}),
    "exception": lambda: repr(ValueError(SECRET)) + str(ValueError(SECRET)),
}


@pytest.mark.parametrize("way", SHOWN)
def test_no_way_to_show_it_shows_it(way: str) -> None:
    """Whatever people and tools print values with, the secret is not in it."""
    assert CANARY not in str(SHOWN[way]())


REFUSED: dict[str, Callable[[], object]] = {
    "vars": lambda: vars(SECRET),
    "pickle": lambda: pickle.dumps(SECRET),
    "pickle within": lambda: pickle.dumps(Holder(SECRET)),
    "copy": lambda: copy.copy(SECRET),
    "deepcopy": lambda: copy.deepcopy(Holder(SECRET)),
    "asdict": lambda: dataclasses.asdict(Holder(SECRET)),
    "json": lambda: json.dumps({"key": SECRET}),
    "msgspec": lambda: msgspec.json.encode(Value(SECRET)),
    "to builtins": lambda: msgspec.to_builtins(Value(SECRET)),
    "padding": lambda: f"{SECRET:>40}",
    "joining": lambda: "Bearer " + SECRET,  # type: ignore[operator]  # that is the test
    "bytes": lambda: bytes(SECRET),  # type: ignore[call-overload]  # that is the test
}


@pytest.mark.parametrize("way", REFUSED)
def test_ways_to_carry_it_are_refused(way: str) -> None:
    """What would write the secret down fails, and the error does not hold it either."""
    with pytest.raises(TypeError) as caught:
        REFUSED[way]()
    assert CANARY not in str(caught.value)


def _fail(key: Secret) -> Any:
    held = {"key": key, "holder": Holder(key)}
    raise ValueError(f"no luck with {held['key']}")


def test_tracebacks_with_locals_do_not_show_it() -> None:
    """rich and the standard library print all local variables, and the secret is not there."""
    buffer = io.StringIO()
    console = rich.console.Console(file=buffer, width=200)
    with pytest.raises(ValueError, match="no luck") as caught:
        _fail(SECRET)
    error = caught.value
    shown = rich.traceback.Traceback.from_exception(
        type(error), error, error.__traceback__, show_locals=True, locals_max_length=100
    )
    console.print(shown)
    assert "Secret(***)" in buffer.getvalue()
    assert CANARY not in buffer.getvalue()
    plain = traceback.TracebackException.from_exception(error, capture_locals=True)
    text = "".join(plain.format())
    assert "Secret(***)" in text
    assert CANARY not in text


def test_logs_do_not_show_it(caplog: pytest.LogCaptureFixture) -> None:
    """A log line with a secret among its arguments holds stars."""
    logging.getLogger("test").warning("key %s", SECRET, extra={"key": SECRET})
    assert "key ***" == caplog.messages[0]
    assert CANARY not in str(vars(caplog.records[0]))


def test_equal_secrets_are_equal() -> None:
    """Secrets compare and hash by what they hold; a string is never equal to one."""
    assert Secret(CANARY) == SECRET
    assert hash(Secret(CANARY)) == hash(SECRET)
    assert Secret("other") != SECRET
    assert CANARY != SECRET
    assert 1 == len({SECRET, Secret(CANARY)})


def test_fingerprint_tells_keys_apart() -> None:
    """Eight hex digits of the hash: enough to name a key in a log, too few to find it."""
    assert hashlib.sha256(CANARY.encode()).hexdigest()[:8] == SECRET.fingerprint
    assert SECRET.fingerprint != Secret("other").fingerprint


def test_nothing_can_be_added_to_it() -> None:
    """A secret has no place for further attributes."""
    with pytest.raises(AttributeError):
        SECRET.note = "mine"  # type: ignore[attr-defined]  # that is the test
