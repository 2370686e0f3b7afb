"""The form of a virtual key: what is random in it, and which slips its checksum finds."""

from __future__ import annotations

import hashlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.server.gateway.keys_text import (
    KEY_CHARACTERS,
    KEY_PREFIX,
    digest_of,
    is_well_formed,
    new_key,
)

DIGITS = string.digits + string.ascii_letters

drawn = st.binary(min_size=32, max_size=32)


def key_of(draw: bytes) -> str:
    """Give the key that is made of these bytes."""
    return new_key(lambda _count: draw).reveal()


@given(drawn)
def test_every_key_is_well_formed(draw: bytes) -> None:
    """Prefix, length, letters and digits, checksum."""
    key = key_of(draw)
    assert KEY_CHARACTERS == len(key)
    assert is_well_formed(key)
    assert key.startswith(KEY_PREFIX)
    assert key[len(KEY_PREFIX) :].isalnum()


@given(drawn, st.integers(0, KEY_CHARACTERS - 1), st.characters(codec="utf-8"))
def test_any_single_wrong_character_is_found(draw: bytes, place: int, wrong: str) -> None:
    """Wherever it stands, whatever it is."""
    key = key_of(draw)
    typo = key[:place] + wrong + key[place + 1 :]
    assert (typo == key) == is_well_formed(typo)


@pytest.mark.parametrize("draw", [bytes(range(32)), bytes(32), b"\xff" * 32])
def test_every_wrong_character_of_a_key_is_found(draw: bytes) -> None:
    """All 62 at all places, without exception."""
    key = key_of(draw)
    typos = [
        key[:place] + wrong + key[place + 1 :]
        for place in range(len(key))
        for wrong in DIGITS
        if wrong != key[place]
    ]
    assert not [typo for typo in typos if is_well_formed(typo)]


@given(drawn)
def test_two_characters_that_changed_places_are_found(draw: bytes) -> None:
    """Any two of the random part, as CRC-32 promises, and here any two at all."""
    key = key_of(draw)
    for one in range(len(key)):
        for other in range(one + 1, len(key)):
            letters = list(key)
            letters[one], letters[other] = letters[other], letters[one]
            swapped = "".join(letters)
            assert (swapped == key) == is_well_formed(swapped)


@given(st.text(max_size=64))
def test_other_texts_are_no_keys(text: str) -> None:
    """Nothing that was not made as a key is one; no text is too odd to be asked."""
    assert not is_well_formed(text)
    assert not is_well_formed(f"{KEY_PREFIX}{text}")


@pytest.mark.parametrize("around", [" {}", "{}\n", "{}0", "0{}", "Bearer {}", "{0}{0}"])
def test_what_stands_around_a_key_is_not_a_key(around: str) -> None:
    """The text must be the key and nothing else."""
    assert not is_well_formed(around.format(key_of(bytes(range(32)))))


def test_a_hundred_thousand_keys_are_different() -> None:
    """No two, and none that differ only in their checksum."""
    keys = {new_key().reveal()[:-6] for _ in range(100_000)}
    assert 100_000 == len(keys)


def test_every_digit_comes_as_often_at_every_place() -> None:
    """With 20,000 keys each of 62 digits is within half of its share everywhere."""
    keys = [new_key().reveal() for _ in range(20_000)]
    share = 20_000 / 62
    for place in range(len(KEY_PREFIX), KEY_CHARACTERS - 6):
        counts = dict.fromkeys(DIGITS, 0)
        for key in keys:
            counts[key[place]] += 1
        assert share / 2 < min(counts.values())
        assert share * 3 / 2 > max(counts.values())


def test_it_holds_enough_chance() -> None:
    """At least 128 bits: all of the draw counts that the characters can hold."""
    assert 2**128 < 62 ** (KEY_CHARACTERS - len(KEY_PREFIX) - 6)
    assert key_of(bytes(31) + b"\x01") != key_of(bytes(32))


@given(st.text())
def test_what_is_stored_is_its_hash(text: str) -> None:
    """SHA-256, of any text that a header can hold."""
    assert hashlib.sha256(text.encode()).digest() == digest_of(text)


def test_a_new_key_is_a_secret() -> None:
    """It is not shown by accident."""
    key = new_key()
    assert key.reveal() not in f"{key!r} {key} {[key]}"
