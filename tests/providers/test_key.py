"""A key that may be replaced while its client lives."""

from __future__ import annotations

import pytest

from loom.core.secret import Secret
from loom.providers.key import Key

pytestmark = pytest.mark.anyio


async def test_a_key_that_was_given_has_no_other() -> None:
    """There is nowhere to look."""
    key = Key(Secret("old-key"))
    assert not await key.renew(Secret("old-key"))


async def test_the_same_key_again_is_no_new_one() -> None:
    """Looking it up once more found what was refused."""
    key = Key(Secret("old-key"), lambda: Secret("old-key"))
    assert not await key.renew(Secret("old-key"))
    assert Secret("old-key") == key.secret


async def test_a_new_key_takes_its_place() -> None:
    """Bearer and fingerprint are its own."""
    key = Key(Secret("old-key"), lambda: Secret("new-key"))
    assert await key.renew(Secret("old-key"))
    assert ("new-key", "Bearer new-key") == (key.secret.reveal(), key.bearer.reveal())
    assert Secret("new-key").fingerprint == key.fingerprint


async def test_who_comes_second_finds_the_new_key_there() -> None:
    """Of a hundred calls that were refused, one asks."""
    asked: list[int] = []

    def find() -> Secret:
        asked.append(1)
        return Secret("new-key")

    key = Key(Secret("old-key"), find)
    await key.renew(Secret("old-key"))
    assert await key.renew(Secret("old-key"))
    assert 1 == len(asked)
