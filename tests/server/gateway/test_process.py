"""What a server takes of its process, and gives back."""

from __future__ import annotations

import gc

import pytest

from loom.server.gateway.process import rarely_collected


def test_cycles_are_looked_for_as_before_afterwards() -> None:
    """Whoever runs a gateway within a program has the collector back, however it ended."""
    before = gc.get_threshold(), gc.get_freeze_count()

    def serve() -> None:
        with rarely_collected():
            assert gc.get_threshold() > before[0]
            assert gc.get_freeze_count() > before[1]
            raise OSError("ended")

    with pytest.raises(OSError, match="ended"):
        serve()

    assert before == (gc.get_threshold(), gc.get_freeze_count())
