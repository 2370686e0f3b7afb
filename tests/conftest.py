"""What every test stands on: one event loop, a clean environment, no skips in CI."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

# Installed, pytest finds it by itself; here it comes when coverage has begun to measure.
pytest_plugins = ["loom.testing.plugin"]

# A busy machine is no failure, and a test that depends on the examples of an earlier run is.
settings.register_profile("loom", deadline=None, database=None, derandomize=True)
settings.load_profile("loom")

# A shell starts a background job with Ctrl-C ignored, and every process below inherits that: the
# tests of Ctrl-C would wait for an answer that nobody breaks off.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_UNWANTED = (
    "MISTRAL_API_KEY",
    "UV_RUN_RECURSION_DEPTH",
    "NO_COLOR",
    "FORCE_COLOR",
    "TTY_COMPATIBLE",
    "COLUMNS",
    "LINES",
)
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")

# A plain clone has no recorded exchanges beside it; everything else must run in CI.
_MAY_SKIP = "shared/fixtures"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run the asynchronous tests on asyncio."""
    return "asyncio"


@pytest.fixture(autouse=True)
def clean_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Hide the machine's keys, settings, proxies and folders from a test."""
    for name in list(os.environ):
        if name.startswith("LOOM_") or name in _UNWANTED or name.lower() in _PROXIES:
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    for kind in ("CONFIG", "DATA", "STATE", "CACHE"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(home / kind.lower()))
    # Nothing is read from, or left in, the keyring of whoever runs the tests.
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")


@pytest.fixture(scope="session")
def repository() -> Path:
    """Give the repository's top folder."""
    return Path(__file__).resolve().parents[1]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure in CI: a check that was not made shall not look green."""
    report = yield
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr)
        if _MAY_SKIP not in reason:
            report.outcome = "failed"
            report.longrepr = f"skipped, and in CI nothing may be: {reason}"
    return report
