"""
The pytest plug-in: fixture `loom_sim`, an offline Mistral for one test.

pytest loads it in every run of whoever installed Loom, so it imports nothing else of Loom before
a test asks for the fixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from loom.server.simulator import Simulator

__all__ = ["loom_sim", "pytest_configure"]


def pytest_configure(config: pytest.Config) -> None:
    """
    Name the marker, for runs that refuse unknown ones.

    Args:
        config: pytest's.
    """
    config.addinivalue_line(
        "markers", "loom_sim(**options): how the simulator of this test is set, e.g. seed=7"
    )


@pytest.fixture
def loom_sim(request: pytest.FixtureRequest) -> Iterator[Simulator]:
    """
    Mistral's API on loopback for one test, with its own port, state and journal.

    `@pytest.mark.loom_sim(seed=7)` sets options, those of `loom.testing.simulator`; a marker of
    the test wins over one of its class or module.

    Args:
        request: pytest's.

    Yields:
        The running simulator: `base_url`, `api_key`.
    """
    from loom.testing.sim import simulator  # noqa: PLC0415 - only who asks for it pays

    options: dict[str, Any] = {}
    for marker in request.node.iter_markers("loom_sim"):
        if marker.args:
            raise pytest.UsageError(f"loom_sim takes options by name, not {marker.args!r}")
        options = {**marker.kwargs, **options}
    with simulator(**options) as running:
        yield running
