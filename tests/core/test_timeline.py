"""What a timeline tells people."""

from __future__ import annotations

from loom.core.timeline import Attempt, Timeline


def test_the_lines_tell_each_attempt_and_wait() -> None:
    """Each thing that happened stands on a line, with the seconds since the call began."""
    failed = Attempt(
        provider="mistral", model="m", origin="x", sent_s=10.5, first_byte_s=11.0,
        ended_s=11.25, sends=2, status=503, code="service_unavailable", wait_s=2.0,
    )  # fmt: skip
    refused = Attempt(
        provider="mistral", model="m", sent_s=13.25, ended_s=13.25, sends=0, code="circuit_open"
    )
    assert [
        "    0.000 s  queued for 0.500 s",
        "    0.500 s  attempt 1: sent twice (the kept connection was closed) to mistral m at x",
        "    1.000 s  first byte, status 503",
        "    1.250 s  service_unavailable; nothing is charged",
        "    1.250 s  waited 2.000 s",
        "    3.250 s  not sent to mistral m: circuit_open",
    ] == Timeline(began_s=10.0, attempts=(failed, refused)).lines()


def test_no_line_begins_before_the_call() -> None:
    """A beginning that was computed is off by a tiny bit, and shows no minus."""
    attempt = Attempt(provider="mistral", model="m", sent_s=1000.0, ended_s=1000.0)
    began_s = 1000.0 + 1e-10
    lines = Timeline(began_s=began_s, attempts=(attempt,)).lines()
    assert ["    0.000 s", "    0.000 s"] == [line[:11] for line in lines]
