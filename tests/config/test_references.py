"""Secrets by reference: found where they are said to be, and shown nowhere."""

from __future__ import annotations

from pathlib import Path

import keyring
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keyring.backends.fail import Keyring as NoKeyring
from keyrings.alt.file import PlaintextKeyring  # type: ignore[import-untyped] # has no types

from loom.config.secrets import KEYRING_SERVICE, is_reference, resolve_reference
from loom.core.errors import ConfigInvalid

CANARY = "loom-canary-key-0123456789"


def test_a_variable_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """White space around the value is not part of it."""
    monkeypatch.setenv("SHOP_KEY", f" {CANARY}\n")

    found = resolve_reference("env:SHOP_KEY")

    assert (CANARY, "env:SHOP_KEY") == (found.secret.reveal(), found.source)
    assert CANARY not in repr(found)


def test_a_scheme_stands_before_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """As HTTP headers have it."""
    monkeypatch.setenv("SHOP_KEY", CANARY)
    assert f"Bearer {CANARY}" == resolve_reference("Bearer env:SHOP_KEY").secret.reveal()


def test_a_file_is_found_beside_the_folder(tmp_path: Path) -> None:
    """A relative path begins in the folder that is given, another where it says."""
    path = tmp_path / "key"
    path.write_text(f"{CANARY}\n", encoding="utf-8")
    path.chmod(0o600)

    assert CANARY == resolve_reference("file:key", folder=tmp_path).secret.reveal()
    assert CANARY == resolve_reference(f"file:{path}", folder=Path("/")).secret.reveal()


def test_an_entry_of_the_keyring_is_found(tmp_path: Path) -> None:
    """Under Loom's service."""
    before = keyring.get_keyring()
    ring = PlaintextKeyring()
    ring.file_path = str(tmp_path / "keyring.cfg")
    keyring.set_keyring(ring)
    try:
        ring.set_password(KEYRING_SERVICE, "shop", CANARY)
        assert CANARY == resolve_reference("keyring:shop").secret.reveal()
        keyring.set_keyring(NoKeyring())  # type: ignore[no-untyped-call] # the package's own
        with pytest.raises(ConfigInvalid, match="keyring:shop: this machine has no keyring"):
            resolve_reference("keyring:shop")
    finally:
        keyring.set_keyring(before)


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("env:NOT_SET_ANYWHERE", "env:NOT_SET_ANYWHERE: not set, or empty"),
        ("file:nowhere", "nowhere: No such file"),
        ("file:~nobody-here/x", "is no path"),
        ("file:a\0b", "is no path"),
    ],
)
def test_what_is_not_there_is_named(reference: str, words: str, tmp_path: Path) -> None:
    """The error says where it was looked for."""
    with pytest.raises(ConfigInvalid, match=words):
        resolve_reference(reference, folder=tmp_path)


@pytest.mark.parametrize("text", [CANARY, f"env {CANARY}", f"vault:{CANARY}", "env:", "env: ", ""])
def test_a_secret_itself_is_refused_and_not_shown(text: str) -> None:
    """What is no reference may be the key."""
    assert not is_reference(text)
    with pytest.raises(ConfigInvalid, match="where it is") as caught:
        resolve_reference(text)
    assert CANARY not in str(caught.value)


def test_a_scheme_is_no_part_of_a_key() -> None:
    """Only where it is asked for."""
    assert is_reference("env:X")
    assert not is_reference("Bearer env:X")
    assert is_reference("Bearer env:X", scheme=True)


@given(st.text())
def test_any_text_is_found_or_config_invalid(text: str) -> None:
    """Nothing else is raised, whatever stands there."""
    for kind in ("env", "file"):
        try:
            resolve_reference(f"{kind}:{text}", folder=Path("/nowhere"))
        except ConfigInvalid:
            continue
