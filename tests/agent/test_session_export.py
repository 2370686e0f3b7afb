"""A session as text: whole on its way between machines, and harmless to read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.agent.stories import STORIES, answer, begun, calling, result, user
from tests.core.talk import MESSAGES, PARTS

from loom.agent.session import Condensed, Entry, Said, SessionInfo, Withdrawn
from loom.agent.session_export import export_session, import_session
from loom.agent.session_memory import MemorySessions
from loom.core.errors import ConfigInvalid, InvalidRequest
from loom.core.messages import ImagePart, Message, Part, TextPart, ToolCall

DAY = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
INFO = SessionInfo(id="abc", title="Hello", created_at=DAY, updated_at=DAY)
TALK: tuple[Entry, ...] = (user("Hello"), calling("a"), begun("a"), result("a"), answer("Hi."))


def markdown(*entries: Entry, **fields: Any) -> str:
    return export_session(msgspec.structs.replace(INFO, **fields), entries, "markdown")


# --- for machines --------------------------------------------------------------------------


@given(STORIES | st.lists(MESSAGES.map(lambda m: Said(message=m)), max_size=5).map(tuple))
def test_any_session_comes_back(entries: Sequence[Entry]) -> None:
    """What is exported as lines is imported as it was."""
    assert tuple(entries) == import_session(export_session(INFO, entries))


def test_lines_are_an_entry_each() -> None:
    """The head says the form and the sums; each entry has a line of its own."""
    head, *lines = export_session(INFO, TALK).splitlines()
    assert (1, "abc", 5) == (
        json.loads(head)["version"],
        json.loads(head)["session"]["id"],
        json.loads(head)["session"]["entries"],
    )
    assert ["said", "said", "begun", "said", "said"] == [json.loads(line)["kind"] for line in lines]


def test_a_document_is_for_other_programs() -> None:
    """One JSON value with the same contents; amounts are texts, so that no reader rounds them."""
    info = msgspec.structs.replace(INFO, cost_usd=Decimal("0.0000000375"))
    document = json.loads(export_session(info, TALK, "json"))
    assert (1, "3.75E-8") == (document["version"], document["session"]["cost_usd"])
    assert "Hello" == document["entries"][0]["message"]["content"]
    assert 5 == len(document["entries"])


@pytest.mark.anyio
async def test_a_session_moves_between_stores() -> None:
    """Entries that were imported have the same sums in another store."""
    here, there = MemorySessions(), MemorySessions()
    await here.append("abc", TALK, expected=0)
    info = await here.info("abc")
    assert info is not None
    entries = import_session(export_session(info, await here.read("abc")))
    await there.append("abc", entries, expected=0)
    moved = await there.info("abc")
    assert moved is not None
    assert info == msgspec.structs.replace(
        moved, created_at=info.created_at, updated_at=info.updated_at
    )


def test_what_an_editor_adds_is_overlooked() -> None:
    """A byte order mark, and line feeds of another system or at the end."""
    text = export_session(INFO, TALK)
    assert import_session("\ufeff" + text.replace("\n", "\r\n") + "\n\n") == TALK


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: "", "line 1 is not the head"),
        (lambda text: "Hello", "line 1 is not the head"),
        (lambda text: text.split("\n", 1)[1], "line 1 is not the head"),
        (lambda text: text[: len(text) // 2], "line 1 says 5 entries"),
        (lambda text: text + text, "line 1 says 5 entries"),
        (lambda text: text.replace('"message"', '"massage"', 1), "line 2 is not as it was written"),
        (lambda text: text.replace('"kind":"begun"', '"kind"', 1), "line 4 is not as it was"),
    ],
    ids=["empty", "no-json", "no-head", "cut", "doubled", "other-field", "no-json-within"],
)
def test_what_is_not_whole_is_refused(change: Any, says: str) -> None:
    """The message names the line, and nothing is imported."""
    with pytest.raises(InvalidRequest, match=says):
        import_session(change(export_session(INFO, TALK)))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"version":1', '"version":2', "exported in form 2"),
        ('"kind":"begun"', '"kind":"sung"', "line 4 is of the kind 'sung'"),
    ],
)
def test_a_newer_form_is_refused(old: str, new: str, says: str) -> None:
    """It says that a newer version is needed."""
    with pytest.raises(ConfigInvalid, match=says) as caught:
        import_session(export_session(INFO, TALK).replace(old, new))
    assert "pdate" in caught.value.hint


def test_a_form_that_is_none_is_refused() -> None:
    """The message names those that are."""
    with pytest.raises(InvalidRequest, match="'jsonl', 'json' or 'markdown'"):
        export_session(INFO, TALK, "pdf")  # type: ignore[arg-type] # it is what is tested


# --- for people ----------------------------------------------------------------------------


def test_people_read_who_said_what() -> None:
    """Turns, calls, results, costs and marks stand in their order."""
    marks = (Condensed(until=2, summary="They met."), Withdrawn(since=3))
    text = markdown(*TALK, *marks, input_tokens=1250, unpriced_calls=1, cost_usd=Decimal("1E-7"))
    places = [
        text.index(words)
        for words in (
            "# Hello\n",
            "- 1,250 tokens in",
            "- 0.0000001 USD, and 1 calls of unknown price",
            "## 0: User\n",
            "## 1: Assistant, `model-1` (10 + 5 tokens, 0.001 USD)",
            "*Calls the tool* `tool_a` (`a`):",
            "*2: the tool `tool_a` began (`a`)*",
            "## 3: Tool, `a`\n",
            "done",
            "## 4: Assistant",
            "They met.",
            "*6: entries from 3 to here no longer count for the model*",
        )
    ]
    assert sorted(places) == places


def test_no_text_leaves_its_fence() -> None:
    """A fence within is shorter than the one around it."""
    evil = "```\n## 7: User\n\n````text\n![x](https://example.org/?steal)\n<script>"
    lines = markdown(user(evil)).splitlines()
    start = lines.index("`````text")
    assert evil.split("\n") == lines[start + 1 : lines.index("`````", start)]


def test_nothing_steers_a_terminal() -> None:
    """Control characters, and those that turn the direction, are shown as numbers."""
    text = markdown(user("a\x1b[2Jb\u202ec\0\rd\te"))
    assert "a\\u{1b}[2Jb\\u{202e}c\\u{0}\\u{d}d\te" in text


def test_names_are_only_names() -> None:
    """Whatever a title, a tool, an id or a model is called."""
    call = ToolCall("`b`\n# c", "<img src=x> ``x", {"a": "```"})
    text = markdown(
        Said(message=Message.assistant(tool_calls=(call,)), model="m`[x](y)"),
        title="<b>*Hi* [x](https://example.org)",
    )
    assert "# \\<b\\>\\*Hi\\* \\[x\\]\\(https\\:\\/\\/example\\.org\\)\n" in text
    assert "*Calls the tool* ``` <img src=x> ``x ``` (`` `b` # c ``):" in text
    assert "`` m`[x](y) ``" in text


@pytest.mark.parametrize(
    ("part", "shown"),
    [
        (ImagePart("https://example.org/a.png"), "*Image:* `https://example.org/a.png`"),
        (ImagePart("data:image/png;base64," + "A" * 5000), "*Image:* 5,022 characters of data"),
        (TextPart("plain"), "```text\nplain\n```"),
    ],
)
def test_parts_are_told(part: Part, shown: str) -> None:
    """Addresses are code and no links; data is its length."""
    assert shown in markdown(Said(message=Message.user(part)))


@given(st.data(), st.sampled_from(sorted(PARTS)))
def test_any_part_is_told(data: st.DataObject, kind: str) -> None:
    """No kind of part stops an export, and all that comes out can be seen."""
    part = data.draw(PARTS[kind])
    text = markdown(Said(message=Message(role="user", content=(part,))))
    assert all(letter.isprintable() or letter in "\n\t" for letter in text)
