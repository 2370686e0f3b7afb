"""The simulator for the tests of others: a context manager and a pytest fixture."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import loom.testing
from loom import Mistral
from loom.server.simulator import Simulator

# Each costs tens of milliseconds in every run of pytest of whoever installed Loom.
HEAVY = {"aiohttp", "starlette", "uvicorn", "loom.server", "loom.client", "loom.core.errors"}


def ask(sim: Simulator, text: str) -> str:
    with Mistral(sim.api_key, base_url=sim.base_url) as m:
        return m.chat(text).content


def test_the_context_manager_serves_until_it_ends() -> None:
    """A client gets an answer inside; afterwards nobody listens."""
    with loom.testing.simulator(seed=7) as sim:
        assert "hello" == ask(sim, "Say hello")

    with pytest.raises(RuntimeError, match="not running"):
        _ = sim.base_url


def test_the_seed_chooses_the_answers() -> None:
    """Equal seeds give equal answers, others do not."""
    answers = []
    for seed in (7, 7, 8):
        with loom.testing.simulator(seed=seed) as sim:
            answers.append(ask(sim, "Tell me a story"))

    assert answers[0] == answers[1] != answers[2]


def test_a_day_may_be_a_text() -> None:
    """The models are those of the day."""
    with (
        loom.testing.simulator(as_of="2024-11") as sim,
        Mistral(sim.api_key, base_url=sim.base_url) as m,
    ):
        reply = m.chat("Say hello", model="mistral-large-2407")

    assert "mistral-large-2407" == reply.model


def test_an_unknown_option_is_named() -> None:
    """The message names the option and those that there are."""
    with pytest.raises(TypeError, match=r"no option 'sed'; it has .*seed"):
        loom.testing.simulator(sed=7)


def test_the_fixture_answers(loom_sim: Simulator) -> None:
    """Without a marker it is a simulator with defaults."""
    assert "hello" == ask(loom_sim, "Say hello")


@pytest.mark.parametrize("text", ["one", "two"])
def test_each_test_has_its_own_journal(loom_sim: Simulator, text: str) -> None:
    """What other tests asked is not in it."""
    ask(loom_sim, text)

    (entry,) = loom_sim.journal.entries()
    assert text in entry.body.decode()


@pytest.mark.loom_sim(as_of="2024-11", seed=1)
class TestMarkers:
    """A class's marker and a test's."""

    @pytest.mark.loom_sim(seed=2)
    def test_a_test_wins_over_its_class(self, loom_sim: Simulator) -> None:
        """What both set is the test's; the rest is the class's."""
        with loom.testing.simulator(as_of="2024-11", seed=2) as other:
            assert ask(other, "Tell me a story") == ask(loom_sim, "Tell me a story")


def run_pytest(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    folder.joinpath("test_it.py").write_text(code)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("COV", "PYTEST"))}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--strict-markers", "-p", "no:cacheprovider"],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_an_installed_loom_brings_the_fixture(tmp_path: Path) -> None:
    """pytest finds the plug-in by itself, knows the marker, and says what is wrong with one."""
    code = """
import pytest

def test_plain(loom_sim):
    assert loom_sim.base_url.startswith("http://127.0.0.1:")

@pytest.mark.loom_sim(any_key=True)
def test_marked(loom_sim):
    pass

@pytest.mark.loom_sim(7)
def test_wrong(loom_sim):
    pass
"""
    done = run_pytest(tmp_path, code)

    assert "2 passed, 1 error" in done.stdout, done.stdout + done.stderr
    assert "takes options by name, not (7,)" in done.stdout


def test_the_start_of_pytest_stays_light(tmp_path: Path) -> None:
    """A run that does not use the fixture loads nothing heavy."""
    code = """
import json, sys
def test_it():
    print("MODULES", json.dumps(sorted(sys.modules)))
    assert False
"""
    done = run_pytest(tmp_path, code)
    line = next(line for line in done.stdout.splitlines() if line.startswith("MODULES"))

    modules = set(json.loads(line.removeprefix("MODULES")))
    assert "loom.testing.plugin" in modules
    assert set() == HEAVY & modules


def test_the_lazy_names_are_those_of_the_room() -> None:
    """Each public name resolves; a wrong one is an attribute error."""
    assert set(loom.testing.__all__) == set(loom.testing._HOME_OF)
    for name in loom.testing.__all__:
        assert getattr(loom.testing, name) is not None
        assert name in dir(loom.testing)
    with pytest.raises(AttributeError, match="simulater"):
        _ = loom.testing.simulater  # type: ignore[attr-defined]  # the misspelling is the test
