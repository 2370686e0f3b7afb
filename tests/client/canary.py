"""Where a secret may hide in an error, in a log, in a report: each place as text."""

from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.pretty import pretty_repr

from loom.core.errors import LoomError

TESTS = str(Path(__file__).resolve().parents[1])


def places(error: BaseException) -> Iterator[tuple[str, str]]:
    """
    Give every place where an error, or what it stands on, shows something.

    Of frames only those outside the tests: a caller's own frames are his.
    """
    for each in chain(error):
        name = type(each).__name__
        yield f"str of {name}", str(each)
        yield f"repr of {name}", repr(each)
        yield f"args of {name}", repr(each.args)
        yield f"fields of {name}", repr({k: v for k, v in vars(each).items() if k != "partial"})
        yield f"notes of {name}", repr(getattr(each, "__notes__", ()))
        if isinstance(each, LoomError):
            yield f"explanation of {name}", each.explain(curl=True)
            yield f"curl of {name}", str(each.curl)
            yield f"pickle of {name}", pickle.dumps(each).decode("latin-1")
    yield "traceback", "".join(traceback.format_exception(error))
    yield from _locals(traceback.TracebackException.from_exception(error, capture_locals=True))
    yield from _frames(error)


def chain(error: BaseException) -> Iterator[BaseException]:
    """Give an error, and all that it stands on, shown or not."""
    left: list[BaseException | None] = [error]
    seen: set[int] = set()
    while left:
        each = left.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            yield each
            left += [each.__cause__, each.__context__]


def _locals(told: traceback.TracebackException) -> Iterator[tuple[str, str]]:
    for frame in told.stack:
        if not frame.filename.startswith(TESTS):
            for name, value in (frame.locals or {}).items():
                yield f"local {name} of {frame.filename}:{frame.name}", value
    for other in (told.__cause__, told.__context__):
        if other is not None:
            yield from _locals(other)


def _frames(error: BaseException) -> Iterator[tuple[str, str]]:
    """Locals as rich shows them: structures are opened, and not asked for their `repr`."""
    for each in chain(error):
        trace = each.__traceback__
        while trace is not None:
            code = trace.tb_frame.f_code
            if not code.co_filename.startswith(TESTS):
                for name, value in trace.tb_frame.f_locals.items():
                    shown = pretty_repr(value, max_string=10_000, max_length=100, max_depth=6)
                    yield f"rich local {name} of {code.co_filename}:{code.co_name}", shown
            trace = trace.tb_next


class Log(logging.Handler):
    """Everything that anybody logs, at any level."""

    def __init__(self) -> None:
        super().__init__(level=0)
        self.said: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = "" if record.exc_info is None else "".join(
            traceback.format_exception(*record.exc_info)
        )  # fmt: skip
        self.said.append((f"log of {record.name}", f"{record.getMessage()} {vars(record)} {error}"))


def leaks(words: Iterable[str], shown: Iterable[tuple[str, str]]) -> list[str]:
    """Name each place that shows one of the words."""
    wanted = tuple(words)
    return [f"{word!r} in {place}" for place, text in shown for word in wanted if word in text]
