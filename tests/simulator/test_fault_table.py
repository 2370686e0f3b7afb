"""Which faults there are, and which request gets which."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.core.errors import ERROR_TABLE, ConfigInvalid
from loom.server.simulator import faults as faults_module
from loom.server.simulator.fault_acts import ACTS
from loom.server.simulator.faults import (
    FaultPlan,
    RequestInfo,
    fault_table,
    parse_fault,
    split_model,
)

# The rows of the project's fault matrix for clients, all of them.
VARIANTS = ("3b", "33b", "33c", "33d", "33e", "36b")
MATRIX = {*(str(number) for number in range(1, 66)), *VARIANTS}
# github.com/Shopify/toxiproxy, README, "Toxics".
TOXICS = {"latency", "bandwidth", "slow_close", "timeout", "reset_peer", "slicer", "limit_data"}

ROWS = fault_table().rows


def test_every_row_of_the_matrix_is_a_fault_or_has_a_reason() -> None:
    """No row is forgotten, none is both, and none is made up."""
    caused = {row.row for row in ROWS} - {"toxic"}
    elsewhere = set(fault_table().elsewhere)

    assert MATRIX == caused | elsewhere
    assert not caused & elsewhere
    assert all(reason.endswith(".") for reason in fault_table().elsewhere.values())


def test_the_kinds_of_toxiproxy_are_there() -> None:
    """All seven, by their own names."""
    assert TOXICS == {row.short for row in ROWS if row.row == "toxic"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_a_row_is_whole(row: Any) -> None:
    """It has a sentence, an act, errors of the tree, and a main setting that it has."""
    assert row.says.endswith(".")
    assert row.act in ACTS
    assert row.raises == "" or row.raises in ERROR_TABLE
    assert not row.plain or row.plain in ERROR_TABLE
    assert not row.main or row.main in row.settings


def test_ids_and_short_names_are_unique() -> None:
    """Each fault is found by its id and by its name without the row."""
    assert len(ROWS) == len({row.id for row in ROWS})
    for row in ROWS:
        assert row == parse_fault(row.id).row
        assert row == parse_fault(row.short).row


def test_the_table_lies_beside_the_code() -> None:
    """It is a file of the package, so that a wheel holds it."""
    assert Path(faults_module.__file__).with_name("fault_table.toml").is_file()


def test_settings_are_read_with_their_kinds() -> None:
    """A main setting follows a colon, others follow semicolons; spaces do not count."""
    fault = parse_fault(" stall:7 ; seconds = 1.5 ; times=2 ; nth=1 ")

    assert ("14-stall", 7, 1.5) == (
        fault.row.id,
        fault.settings["after"],
        fault.settings["seconds"],
    )
    assert (2, 1) == (fault.times, fault.nth)
    assert "5" == parse_fault("retry-after:5").settings["value"]
    assert 3 == parse_fault("stall").settings["after"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("stal", "unknown fault 'stal' (did you mean 'stall'?); known: 7-unread, "),
        ("", "unknown fault ''; known: "),
        ("stall;afterwards=3", "the fault '14-stall' has no setting 'afterwards=3'; it has after"),
        ("stall;after", "has no setting 'after'"),
        ("stall;after=x", "'after' of the fault '14-stall' must be a whole number, not 'x'"),
        ("stall;after=1.5", "must be a whole number"),
        ("stall;after=-2", "'after' of the fault '14-stall' is out of range: '-2'"),
        ("stall;after=9999999999999999999", "out of range"),
        ("stall;seconds=soon", "'seconds' of the fault '14-stall' must be a number, not 'soon'"),
        ("stall;seconds=nan", "'seconds' of the fault '14-stall' is out of range: 'nan'"),
        ("gzip-bomb:1000000", "'mib' of the fault '26-gzip-bomb' must be 1 to 1024"),
        ("stall;times=0", "'times' of the fault '14-stall' is out of range: '0'"),
        ("503:1", "the fault '40-503' takes no value: write '40-503' alone"),
        ("slicer:0", "'size' of the fault 'toxic-slicer' must be 1 to 1000000000, not '0'"),
        ("html:42", "'status' of the fault '29-html' must be 200 to 599, not '42'"),
        ("retry-after:1\r\nx-evil: 1", "'value' of the fault '33-retry-after' must be printable"),
    ],
)
def test_what_is_no_fault_is_refused_by_name(text: str, says: str) -> None:
    """The message names the fault, the setting and what there is."""
    with pytest.raises(ConfigInvalid, match=re.escape(says)):
        parse_fault(text)


@given(st.text(max_size=60))
def test_any_text_is_a_fault_or_one_clear_error(text: str) -> None:
    """Nothing else than ConfigInvalid leaves, and its message is one line."""
    try:
        parse_fault(text)
    except ConfigInvalid as error:
        assert error.message.isprintable()


def test_a_model_is_parted_from_its_fault() -> None:
    """What stands behind the first plus is the fault."""
    assert ("mistral-small-latest", "stall:3") == split_model("mistral-small-latest+stall:3")
    assert ("a", "b+c") == split_model("a+b+c")
    assert ("a", None) == split_model("a")


def test_a_header_goes_before_a_suffix_and_both_before_chance() -> None:
    """The nearest to the request wins."""
    plan = FaultPlan({"503": 1.0})

    chosen = [
        plan.plan(RequestInfo(number=1, header="stall", suffix="502")),
        plan.plan(RequestInfo(number=2, suffix="502")),
        plan.plan(RequestInfo(number=3)),
    ]

    assert ["14-stall", "40-502", "40-503"] == [fault and fault.row.id for fault in chosen]


def test_times_and_nth_count_the_requests_that_ask() -> None:
    """`times` ends a fault, `nth` picks one request; a reset counts anew."""
    plan = FaultPlan()

    def struck(asked: str) -> list[bool]:
        return [plan.plan(RequestInfo(number=i, header=asked)) is not None for i in range(1, 5)]

    assert [True, True, False, False] == struck("503;times=2")
    assert [False, False, True, False] == struck("503;nth=3")
    assert [False, False, False, False] == struck("503;times=2")
    plan.reset()
    assert [True, True, False, False] == struck("503;times=2")


def test_chances_repeat_with_their_seed() -> None:
    """Equal seeds strike equal requests, about as many as was asked."""

    def struck(seed: int) -> list[str]:
        plan = FaultPlan({"503": 0.2, "stall": 0.1}, seed=seed)
        drawn = [plan.plan(RequestInfo(number=i)) for i in range(1, 2001)]
        return [fault.row.id if fault else "" for fault in drawn]

    first = struck(7)

    assert first == struck(7)
    assert first != struck(8)
    assert 330 < first.count("40-503") < 470
    assert 140 < first.count("14-stall") < 260


@pytest.mark.parametrize("chances", [{"503": 1.1}, {"503": -0.1}, {"503": 0.6, "502": 0.6}])
def test_chances_that_are_none_are_refused(chances: dict[str, float]) -> None:
    """They lie between 0 and 1, together too."""
    with pytest.raises(ConfigInvalid, match="must be 0 to 1 together"):
        FaultPlan(chances)


def test_an_unknown_fault_of_chance_is_refused_at_once() -> None:
    """Not only when a request comes."""
    with pytest.raises(ConfigInvalid, match="unknown fault '999'"):
        FaultPlan({"999": 0.1})
