"""What a simulator answers with in place of made-up answers: recordings, or the real API."""

from __future__ import annotations

from loom.server.simulator.front import SimulatedEdge
from loom.server.simulator.gate import AsgiApp
from loom.server.simulator.options import SimulatorOptions
from loom.wire.dialect import Dialect

__all__ = ["OpenEdge", "archive_app"]


class OpenEdge(SimulatedEdge):
    """Compares no key: a recorded refusal is an answer, and the upstream compares for itself."""

    def admit(self, authorization: str | None) -> None:
        """
        Let everyone in.

        Args:
            authorization: Not looked at.
        """


def archive_app(options: SimulatorOptions, dialect: Dialect) -> AsgiApp | None:
    """
    The application that replays or records.

    Args:
        options: `replay`, or `record` with `upstream`.
        dialect: How errors on the way to the upstream are told.

    Returns:
        The application; None if neither was chosen.

    Raises:
        ConfigInvalid: If a folder or the upstream is not as it must be.
    """
    if options.replay is not None:
        from loom.server.simulator.replay import Replay  # noqa: PLC0415 - start-up time

        return Replay(options.replay)
    if options.record is not None and options.upstream is not None:
        from loom.server.simulator.record import Recorder  # noqa: PLC0415 - start-up time
        from loom.transport.http import HttpTransport  # noqa: PLC0415 - start-up time

        transport = HttpTransport()
        return Recorder(options.record, options.upstream, transport=transport, dialect=dialect)
    return None
