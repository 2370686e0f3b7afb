"""The page of virtual keys says what the code does."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from loom.cli.keys import keys
from loom.cli.keys_options import term_options
from loom.server.gateway.keys import KeyTerms
from loom.server.gateway.keys_failures import Failures
from loom.server.gateway.keys_file import BUSY_S
from loom.server.gateway.keys_text import KEY_CHARACTERS, KEY_PREFIX, new_key

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "keys.md").read_text(encoding="utf-8")


def test_the_page_names_each_term_with_its_option() -> None:
    """A row for each, in the order of the code."""
    terms = dict(re.findall(r"(?m)^\| `(\w+)` \| `(--[a-z-]+)` \|", PAGE))
    assert KeyTerms.__struct_fields__ == tuple(terms)
    command = term_options(lambda: None)
    options = {option.opts[0] for option in getattr(command, "__click_params__", ())}
    assert options == set(terms.values())


def test_the_page_names_each_command() -> None:
    """A row for each."""
    assert set(keys.commands) == set(re.findall(r"(?m)^\| `looms keys (\w+)", PAGE))


def test_the_page_has_the_numbers_of_the_code() -> None:
    """How long a key is, how often it may be wrong, how long a lock is waited for."""
    (pattern,) = re.findall(r"look for `([^`]+)`", PAGE)
    assert re.fullmatch(pattern, new_key().reveal())
    assert f"{KEY_PREFIX}... ({KEY_CHARACTERS - len(KEY_PREFIX)} more characters)" in PAGE
    defaults = inspect.signature(Failures).parameters
    assert f"After {defaults['burst'].default:g} wrong keys" in PAGE
    assert defaults["a_second"].default == 1
    assert f"for more than {BUSY_S:g} s" in PAGE
