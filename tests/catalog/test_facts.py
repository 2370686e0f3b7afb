"""The public questions: today by default, another day on demand."""

import subprocess
import sys
from datetime import date
from decimal import Decimal

import pytest

from loom.client import facts
from loom.config.assemble import overlay_file
from loom.core.ambient import SystemClock
from loom.core.errors import ConfigInvalid, InvalidRequest


def test_today_is_the_default() -> None:
    """Without `as_of` the rows of today hold."""
    today = SystemClock().now().date()
    assert facts.models(today) == facts.models()
    assert facts.recommend("development", today) == facts.recommend("development")
    assert facts.cost("mistral-large-2512", 10**6, 10**6, today) == facts.cost(
        "mistral-large-2512", 10**6, 10**6
    )


def test_days_are_dates_or_words() -> None:
    """The same day in three ways is the same answer."""
    costs = [
        facts.cost("mistral-large-2407", 1000, 2000, as_of)
        for as_of in ("2024-11", "2024-11-30", date(2024, 11, 30))
    ]
    assert [Decimal("0.028")] * 3 == costs


@pytest.mark.parametrize("model", ["nobody", "", "gpt-9", "gpt-6-sol", "voxtral-mini-tts-2603"])
def test_unknown_is_none(model: str) -> None:
    """A model or a price that is not known costs None, never 0."""
    assert facts.cost(model, 100, 200, as_of="2026-11") is None


def test_the_setting_names_the_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """`LOOM_AS_OF` holds where no argument says otherwise."""
    monkeypatch.setenv("LOOM_AS_OF", "2024-11")
    assert "open-mistral-7b" == facts.recommend("development").id
    assert 6 == len(facts.models())
    assert Decimal("0.0028") == facts.cost("mistral-large-latest", 100, 200)
    assert Decimal("0.00035") == facts.cost("mistral-large-latest", 100, 200, as_of="2026-11")


def test_the_users_prices_hold() -> None:
    """`prices.toml` beside the settings corrects what the catalogue says, and a change is seen."""
    file = overlay_file()
    file.parent.mkdir(parents=True)
    for rate, dollars in (("1", "0.0001"), ("2", "0.0002")):
        file.write_text(f'[[model]]\nid = "house"\ninput = {rate}\n', encoding="utf-8")
        assert Decimal(dollars) == facts.cost("house", 100, 0)


def test_unknown_before_it_is_known() -> None:
    """A model has no price before its first row."""
    assert facts.cost("mistral-large-2512", 1, 1, as_of="2024-11") is None


def test_negative_tokens_are_refused() -> None:
    """Fewer than no tokens is a mistake."""
    for tokens in ((-1, 0), (0, -1)):
        with pytest.raises(InvalidRequest, match="-1"):
            facts.cost("mistral-large-latest", *tokens)


def test_bad_day() -> None:
    """A day that is none is refused by all three."""
    for ask in (
        lambda: facts.cost("mistral-large-latest", 1, 1, as_of="soon"),
        lambda: facts.recommend("development", as_of="soon"),
        lambda: facts.models(as_of="soon"),
    ):
        with pytest.raises(ConfigInvalid, match="'soon'"):
            ask()


def test_importing_reads_no_rows() -> None:
    """The import is cheap: neither the rows nor a TOML reader is loaded by it."""
    code = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "import loom.client.facts as f\n"
        "from loom.catalog.lookup import Catalog\n"
        "assert not {'tomllib', 'importlib.resources'} & (set(sys.modules) - before)\n"
        "assert Catalog.builtin.cache_info().currsize == 0\n"
        "f.models(); assert Catalog.builtin.cache_info().currsize == 1\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (0, b"") == (done.returncode, done.stderr)
