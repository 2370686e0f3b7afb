"""What `loom.mcp` takes, before anything is started or sent."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.core.errors import ConfigInvalid
from loom.core.secret import Secret
from loom.shuttle.mcp import mcp
from loom.shuttle.mcp_names import model_names
from loom.shuttle.mcp_place import Place

KEY = "canary-" + "k" * 24


@pytest.mark.parametrize(
    ("server", "options", "words"),
    [
        ("", {}, "give a command"),
        ([], {}, "give a command"),
        (["a", 5], {}, "give a command"),
        ("server 'half", {}, "cannot be split"),
        ("ftp://host/mcp", {}, "not an address"),
        ("http://example.org/mcp", {}, "must be reached by https"),
        ("http://127.0.0.1.example.org/mcp", {}, "must be reached by https"),
        (f"https://user:{KEY}@example.org/mcp", {}, "must not hold a user name"),
        ("server", {"headers": {"a": "b"}}, "headers has no meaning for a command"),
        ("https://example.org", {"env": {"a": "b"}}, "env has no meaning for an address"),
        ("https://example.org", {"cwd": "."}, "cwd has no meaning for an address"),
        ("https://example.org", {"headers": {"a b": KEY}}, "the header 'a b'"),
        ("https://example.org", {"headers": {"a": f"{KEY}\r\nb: c"}}, "the header 'a'"),
        ("server", {"env": {"a=b": KEY}}, "'a=b' is no variable"),
        ("server", {"env": {"A": f"{KEY}\0"}}, "'A' is no variable"),
        ("server", {"timeout_s": 0}, "timeout_s is 0"),
        ("server", {"connect_timeout_s": float("nan")}, "connect_timeout_s is nan"),
        ("server", {"prefix": "a.b"}, "prefix 'a.b'"),
        ("server", {"tools": "echo"}, "give a list of names"),
    ],
)
def test_what_makes_no_sense_is_refused(server: Any, options: dict[str, Any], words: str) -> None:
    """At once, with the argument named and no value of a secret."""
    with pytest.raises(ConfigInvalid, match=words) as caught:
        mcp(server, **options)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("server", "name"),
    [
        ("uvx mcp-server-fetch --fast", "uvx mcp-server-fetch"),
        (["python3.12", "tools/server.py"], "python3.12 server.py"),
        (["python", "-m", "server"], "python"),
        (["/opt/bin/server", KEY], "server"),
        ("https://example.org:8443/mcp?key=1", "example.org:8443"),
        ("http://localhost/mcp", "localhost:80"),
        ("http://[::1]:9/mcp", "[::1]:9"),
    ],
)
def test_a_server_is_named_by_its_program_or_host(server: Any, name: str) -> None:
    """Nothing that may be a secret is in the name, or in the repr."""
    made = mcp(server)

    assert name == made.name
    assert KEY not in repr(made)
    assert "key=1" not in repr(made)


def test_a_name_of_ones_own_wins() -> None:
    """`name=` is what errors call it."""
    assert "files" == mcp("server", name="files").name


def test_secrets_are_hidden_whole_and_in_part() -> None:
    """A header's key is hidden without its scheme too; short values stay, they are words."""
    place = Place(
        name="x", env={"LEVEL": Secret("1")}, headers={"Authorization": Secret(f"Bearer {KEY}")}
    )

    assert "*** and *** after 1 s" == place.hide(f"Bearer {KEY} and {KEY} after 1 s")


def test_the_sdk_is_not_imported_before_the_first_use() -> None:
    """It would cost each program more than a second."""
    code = "import sys, loom.shuttle.mcp as m; m.mcp('x'); print('mcp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert b"False" == done.stdout.strip()


def test_a_name_that_fits_is_kept() -> None:
    """With its prefix, if there is one."""
    assert {"read-file": "read-file"} == model_names(["read-file"])
    assert {"fs_read-file": "read-file"} == model_names(["read-file"], "fs")


def test_a_name_that_does_not_fit_is_the_same_whatever_stands_beside_it() -> None:
    """It depends on nothing but itself, so a history stays true when the list changes."""
    alone = list(model_names(["read/file"]))
    beside = list(model_names(["a", "read.file", "read/file"]))

    assert alone == beside[2:]
    assert beside[1] != beside[2]


@given(
    st.lists(st.text(max_size=80), unique=True, max_size=8),
    st.none() | st.from_regex(r"[A-Za-z0-9_-]{1,32}", fullmatch=True),
)
def test_names_are_legal_and_lead_back(names: list[str], prefix: str | None) -> None:
    """Whatever a server calls its tools, each has a name of its own that a model may use."""
    found = model_names(names, prefix)

    assert names == list(found.values())
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in found)


def test_a_name_that_looks_like_a_made_one_is_kept() -> None:
    """Even then no two tools share a name."""
    (made,) = model_names(["a b"])
    found = model_names(["a b", made])

    assert made == list(found)[1]
    assert 2 == len(found)
