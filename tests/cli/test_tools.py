"""`looms chat` with tools, backends, MCP servers and sessions: what goes where."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.cli.screen import Screen

from loom.core.errors import ServiceUnavailable
from loom.core.events import StreamEvent, TextDelta
from loom.core.messages import Message, ToolCall
from loom.providers.scripted import ScriptedProvider

if TYPE_CHECKING:
    from tests.cli.conftest import Run, Start

Serve = Callable[..., ScriptedProvider]

CODE = '''
import asyncio
from loom import tool

@tool
async def get_weather(location: str) -> dict:
    """The weather in a place, now."""
    return {"c": 18}

@tool(approval="ask")
def delete_file(path: str) -> str:
    """Delete a file."""
    return "gone"

@tool
def fail_now(why: str) -> str:
    """Fail."""
    raise ValueError(why)

@tool
async def wait_for_ever() -> None:
    """Wait."""
    await asyncio.Event().wait()
'''
CALL = ToolCall("abcdefghi", "get_weather", {"location": "Lyon"})
ASKED = Message.assistant("Let me look.", tool_calls=(CALL,))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stand beside a module of tools, with a data folder of its own."""
    (tmp_path / "my_tools.py").write_text(CODE)
    monkeypatch.setenv("LOOM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("my_tools", None)


def test_a_tool_is_used(looms: Run, serve: Serve) -> None:
    """The answer alone on standard output; calls, results and the sum on the other."""
    provider = serve(ASKED, "18 degrees.")
    code, out, err = looms("chat", "-t", "my_tools:get_weather", "Weather in Lyon?")
    assert (0, "18 degrees.\n") == (code, out)
    said, call, result, cost = err.splitlines()[:4]
    assert ("Let me look.", '-> get_weather(location="Lyon")') == (said, call)
    assert result.startswith("<- 0.0 s, 8 bytes")
    assert cost.startswith("mistral-large-latest · 2 calls, 1 tool · ")
    assert '{"c":18}' == provider.requests[1].messages[-1].text


@pytest.mark.parametrize("words", [("--no-stream",), ()])
def test_off_a_terminal_the_answer_stands_alone(
    words: tuple[str, ...], looms: Run, serve: Serve
) -> None:
    """What a model says before its tools is no answer; `--stream` shows all as it comes."""
    serve(ASKED, "Done.", ASKED, "Done.")
    assert "Done.\n" == looms("chat", "-q", "-t", "my_tools", "hi", *words).out
    assert "Let me look.\nDone.\n" == looms("chat", "-q", "-t", "my_tools", "hi", "--stream").out


def test_several_tools_at_once_are_named(looms: Run) -> None:
    """Whose result it is, where more than one runs; errors are told by their first line."""
    code, _, err = looms(
        "chat", "--sim", "-t", "my_tools", "Call get_weather for Lyon and Rome, and fail_now."
    )
    assert 0 == code
    lines = err.splitlines()
    assert 3 == sum(line.startswith("-> ") for line in lines)
    assert 2 == sum(line.startswith("<- get_weather: ") for line in lines)
    assert any(line.startswith("<- fail_now: error: ValueError: ") for line in lines)
    assert "2 calls, 3 tools" in err


def test_json_is_one_object(looms: Run, serve: Serve) -> None:
    """Calls, tools, the sum of tokens and cost, and the session."""
    serve(ASKED, "18 degrees.")
    code, out, err = looms("chat", "--json", "-t", "my_tools", "--session", "ann", "hi")
    value = json.loads(out)
    assert (0, "", 1) == (code, err, out.count("\n"))
    assert ("18 degrees.", "ann", None) == (value["content"], value["session"], value["stopped_by"])
    (tool,) = value["tool_executions"]
    assert (True, None, {"location": "Lyon"}) == (tool["ok"], tool["error"], tool["input"])
    assert "get_weather" == value["calls"][0]["tool_calls"][0]["name"]
    costs = [Decimal(call["usage"]["cost_usd"]) for call in value["calls"]]
    assert sum(costs) == Decimal(value["usage"]["cost_usd"])
    assert sum(costs) == Decimal(value["session_cost_usd"])


def test_json_stream_is_a_line_for_each_event(looms: Run, serve: Serve) -> None:
    """Tools that start and finish stand among the events; the last one is the whole answer."""
    serve(ASKED, "18 degrees.")
    _, out, err = looms("chat", "--json", "--stream", "-t", "my_tools", "hi")
    events = [json.loads(line) for line in out.splitlines()]
    kinds = [event["event"] for event in events]
    assert ("", "sending", "done") == (err, kinds[0], kinds[-1])
    assert [1, 1, 2] == [
        kinds.count(kind) for kind in ("tool_started", "tool_finished", "call_completed")
    ]
    started = next(event for event in events if event["event"] == "tool_started")
    assert {"location": "Lyon"} == started["call"]["input"]
    assert "18 degrees." == events[-1]["response"]["content"]


def test_what_a_terminal_would_obey_is_taken_out(looms: Run, serve: Serve) -> None:
    """From texts, from arguments of calls, and from errors of tools."""
    evil = "\x1b]52;c;aGk=\x07\x1b[31m"
    call = ToolCall("abcdefghi", "fail_now", {"why": evil})
    serve(Message.assistant(f"a{evil}b", tool_calls=(call,)), f"c{evil}d")
    code, out, err = looms("chat", "-t", "my_tools", "hi")
    assert (0, "cd\n") == (code, out)
    assert "\x1b" not in err
    assert "\x07" not in err
    assert '-> fail_now(why="\\u001b]52;c;aGk=\\u0007\\u001b[31m")' in err


# --- who approves ------------------------------------------------------------------------------

DELETE = Message.assistant(tool_calls=(ToolCall("abcdefghi", "delete_file", {"path": "x"}),))


@pytest.mark.parametrize(
    ("words", "read"),
    [
        ((), "error: permission denied"),
        (("--approve", "ask"), "error: permission denied"),
        (("--approve", "never"), "error: permission denied"),
        (("--approve", "auto"), "gone"),
    ],
)
def test_off_a_terminal_nobody_is_asked(
    words: tuple[str, ...], read: str, looms: Run, serve: Serve
) -> None:
    """A tool that needs an approval is denied there, with a line that says how to allow it."""
    provider = serve(DELETE, "Well.")
    code, out, err = looms("chat", "-t", "my_tools", "hi", *words)
    assert (0, "Well.\n") == (code, out)
    assert read == provider.requests[1].messages[-1].text
    told = 'warning: delete_file(path="x") needs an approval, and nobody can be asked' in err
    assert (read != "gone" and "never" not in words) == told
    assert told == ("(--approve auto allows it)" in err)


def test_without_an_approval_tools_just_run(looms: Run, serve: Serve) -> None:
    """`--approve never` denies those too."""
    provider = serve(ASKED, "Well.", ASKED, "Well.")
    looms("chat", "-t", "my_tools", "hi")
    looms("chat", "-t", "my_tools", "hi", "--approve", "never")
    assert ['{"c":18}', "error: permission denied"] == [
        provider.requests[n].messages[-1].text for n in (1, 3)
    ]


@pytest.mark.parametrize(
    ("keys", "read"),
    [
        ("y\r", "gone"),
        ("YES\r", "gone"),
        ("what\ry\r", "gone"),
        ("n\r", "error: permission denied"),
        ("\r", "error: permission denied"),
        ("\x04", "error: permission denied"),
    ],
)
def test_on_a_terminal_somebody_is_asked(keys: str, read: str, start: Start, serve: Serve) -> None:
    """The question has the name and the arguments; whatever is no yes is a no."""
    provider = serve(DELETE, "Well.")
    with Screen(start, "chat", "-q", "-t", "my_tools", "hi") as screen:
        for key in keys.splitlines(keepends=True):
            screen.until('Run delete_file(path="x")? [y]es, [n]o, [a]lways: ')
            screen.keys(key)
        screen.until("Well.")
        assert 0 == screen.end()
    assert read == provider.requests[1].messages[-1].text


def test_a_long_call_says_how_much_is_hidden(start: Start, serve: Serve) -> None:
    """Who approves knows that there is more."""
    call = ToolCall("abcdefghi", "delete_file", {"path": "x" * 5000})
    serve(Message.assistant(tool_calls=(call,)), "Well.")
    with Screen(start, "chat", "-q", "-t", "my_tools", "hi") as screen:
        # The line is folded where the terminal ends.
        screen.until("more characters)?")
        screen.keys("n\r")
        screen.until("Well.")
        assert 0 == screen.end()


def test_always_asks_once(start: Start, serve: Serve) -> None:
    """`a` holds for all later calls of this tool, and for no other."""
    calls = tuple(ToolCall(f"abcdefgh{n}", "delete_file", {"path": str(n)}) for n in range(3))
    provider = serve(Message.assistant(tool_calls=calls), DELETE, ASKED, "Well.")
    words = ("chat", "-q", "-t", "my_tools", "hi", "--approve", "ask")
    with Screen(start, *words) as screen:
        screen.until("Run delete_file")
        screen.keys("a\r")
        screen.until('Run get_weather(location="Lyon")?')
        screen.keys("n\r")
        screen.until("Well.")
        assert 0 == screen.end()
    assert ["gone"] * 3 == [message.text for message in provider.requests[1].messages[-3:]]
    assert 1 == screen.text.count("Run delete_file")


def test_what_was_typed_before_a_question_is_no_answer(start: Start, serve: Serve) -> None:
    """A line that was typed ahead does not approve what nobody has seen."""
    provider = serve(DELETE, "Well.", words_per_second=None)
    with Screen(start, "chat", "-q", "-t", "my_tools", "hi") as screen:
        screen.keys("y\r")
        screen.until("Run delete_file")
        screen.until("[a]lways: ")
        screen.keys("n\r")
        screen.until("Well.")
        screen.end()
    assert "error: permission denied" == provider.requests[1].messages[-1].text


def test_ctrl_c_in_a_question(start: Start, serve: Serve) -> None:
    """It ends the program as everywhere, and runs nothing."""
    provider = serve(DELETE, "never")
    with Screen(start, "chat", "-t", "my_tools", "hi") as screen:
        screen.until("[a]lways: ")
        screen.keys("\x03")
        screen.until("interrupted · mistral-large-latest · ")
        assert 130 == screen.end()
    assert 1 == len(provider.requests)
    assert "Traceback" not in screen.text


# --- Ctrl-C and errors -------------------------------------------------------------------------


def test_ctrl_c_while_a_tool_runs(start: Start, serve: Serve) -> None:
    """The tool ends, and the calls before it are in the sum: exact, because nothing is open."""
    serve(Message.assistant("Wait.", tool_calls=(ToolCall("abcdefghi", "wait_for_ever"),)))
    process = start("chat", "-t", "my_tools", "hi", "--stream")
    assert process.stderr is not None
    line = process.stderr.readline()
    assert b"-> wait_for_ever()\n" == line
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (130, b"Wait.\n") == (process.returncode, out)
    text = err.decode()
    assert text.startswith("interrupted · mistral-large-latest · 1 call, 1 tool · ")
    assert "about" not in text
    assert "Traceback" not in text


def test_ctrl_c_in_the_answer_keeps_the_text(start: Start, serve: Serve) -> None:
    """Off a terminal too, where it was held back; what it cost is an estimate then."""
    serve(words_per_second=10)
    words = ("chat", "--session", "ann", "--json", "--stream", "Tell me a story about a loom")
    process = start(*words)
    assert process.stdout is not None
    first = b""
    while b"text_delta" not in first:
        first += os.read(process.stdout.fileno(), 4096)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    error = json.loads(err)["error"]
    assert (130, "ERR_INTERRUPTED") == (process.returncode, error["name"])
    assert error["partial"]["text"]
    assert error["partial"]["usage"]["estimated"]
    assert "ann" == error["partial"]["session"]


def test_an_error_in_the_middle_keeps_the_text(looms: Run, serve: Serve) -> None:
    """What came stands on standard output; the calls so far are in the sum."""
    events: list[StreamEvent | ServiceUnavailable] = [TextDelta("half"), ServiceUnavailable("gone")]
    serve(ASKED, events)
    code, out, err = looms("chat", "-t", "my_tools", "hi")
    assert (75, "half\n") == (code, out)
    assert "ended early · mistral-large-latest · 2 calls, 1 tool · about " in err
    assert err.splitlines()[-1].startswith("error[ERR_")


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (("-t", "my_tols:x"), 2, "there is no module 'my_tols': did you mean 'my_tools'?"),
        (("-t", "my_tools:get_wether"), 2, "did you mean 'get_weather'?"),
        (("-t", "my_tools:asyncio"), 2, "not a tool. Fix: Decorate"),
        (("-t", "my_tools", "-t", "my_tools:fail_now"), 5, "the same name"),
        (("--backend", "shop.db"), 2, "sqlite:FILE or files:FOLDER"),
        (("--backend", "mysql:x"), 2, "sqlite:FILE or files:FOLDER"),
        (("--backend", "sqlite:none.db"), 2, "none.db"),
        (("--write",), 2, "give it too"),
        (("--mcp", "https://user:pw@host/mcp"), 2, "mcp"),
        (("-c",), 2, "there is no conversation to go on with"),
        (("-c", "--session", "x"), 2, "leave out --session"),
        (("--session", "a\nb"), 5, "printable"),
        (("--max-turns", "0"), 2, "--max-turns"),
        (("--approve", "sometimes"), 2, "'auto', 'ask', 'never'"),
    ],
)
def test_wrong_words(
    words: tuple[str, ...], code: int, part: str, looms: Run, serve: Serve
) -> None:
    """What was meant is named, and nothing is sent."""
    provider = serve("never")
    found = looms("chat", "hi", *words)
    assert (code, "") == (found.code, found.out)
    assert part in found.err
    assert [] == provider.requests


def test_tools_of_a_file_of_messages_are_refused(looms: Run, folder: Path) -> None:
    """Nobody here can run what a file only describes."""
    body = {"messages": [{"role": "user", "content": "hi"}], "tools": []}
    (folder / "ask.json").write_text(json.dumps(body))
    code, _, err = looms("chat", "--sim", "-t", "my_tools", "--messages", "ask.json")
    assert (2, True) == (code, "names tools that nobody here can run" in err)


# --- limits and money --------------------------------------------------------------------------


def test_max_turns_ends_in_an_answer(looms: Run, serve: Serve) -> None:
    """The limit is told, and is no error."""
    serve(ASKED, "What I know.")
    code, out, err = looms("chat", "-t", "my_tools", "--max-turns", "2", "hi")
    assert (0, "What I know.\n") == (code, out)
    assert "warning: the model answered without further tools: the model was asked as often" in err


def test_max_cost_holds_for_all_calls_together(looms: Run, serve: Serve) -> None:
    """A call that fits alone and not with those before it is not sent as it is."""
    provider = serve(*[ASKED] * 20, "Well.")
    words = ("-t", "my_tools", "hi", "--max-tokens", "100")
    code, _, err = looms("chat", *words, "--max-cost", "0.0000001")
    assert (4, 0) == (code, len(provider.requests))
    assert "more than --max-cost 0.0000001" in err
    _, _, err = looms("chat", *words, "--max-cost", "0.002")
    assert 1 <= len(provider.requests) < 20
    assert "the budget has no room for more" in err or "--max-cost 0.002 for all calls" in err


def test_every_call_has_a_row(looms: Run, serve: Serve) -> None:
    """The ledger knows each call of the turn, with the session and the run."""
    serve(ASKED, "18 degrees.")
    looms("chat", "-t", "my_tools", "--session", "ann", "--max-cost", "1", "hi")
    rows = [json.loads(line) for line in looms("cost", "rows", "--json").out.splitlines()]
    assert ["ann", "ann"] == [row["session"] for row in rows]
    assert 1 == len({row["tags"]["looms.run"] for row in rows})


def test_a_dry_run_shows_tools_and_history(looms: Run, serve: Serve) -> None:
    """The body that would be sent, instructions, session and tools in it; nothing is kept."""
    provider = serve("One.")
    looms("chat", "-s", "Be brief.", "--session", "ann", "first")
    code, out, _ = looms("chat", "-c", "--dry-run", "-t", "my_tools:get_weather", "second")
    body = json.loads(out)
    assert (0, 1) == (code, len(provider.requests))
    assert ["Be brief.", "first", "One.", "second"] == [m["content"] for m in body["messages"]]
    assert "get_weather" == body["tools"][0]["function"]["name"]
    again = json.loads(looms("chat", "-c", "--dry-run", "third").out)
    assert "third" == again["messages"][-1]["content"]
    assert 4 == len(again["messages"])


# --- backends and servers ----------------------------------------------------------------------


@pytest.fixture
def shop(folder: Path) -> Path:
    """Make a database."""
    path = folder / "shop.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE orders (city TEXT)")
        connection.executemany("INSERT INTO orders VALUES (?)", [("Lyon",), ("Lyon",), ("Rome",)])
    connection.close()
    return path


def query(name: str, text: str) -> Message:
    return Message.assistant(tool_calls=(ToolCall("abcdefghi", name, {"query": text}),))


@pytest.mark.parametrize("place", ["sqlite:shop.db", "sqlite:///shop.db"])
def test_a_database_is_read(place: str, shop: Path, looms: Run, serve: Serve) -> None:
    """Its schema is told, its tools are there, and it is read-only."""
    del shop
    provider = serve(query("execute_query", "SELECT count(*) AS n FROM orders"), "Three.")
    assert "Three.\n" == looms("chat", "--backend", place, "How many?").out
    assert "orders" in provider.requests[0].messages[0].text
    assert "n\n3" == provider.requests[1].messages[-1].text
    names = {tool.name for tool in provider.requests[0].tools}
    assert "execute_query" in names
    assert "execute_statement" not in names


def test_writing_is_asked_for(shop: Path, looms: Run, serve: Serve) -> None:
    """With `--write` there is a tool that writes; it needs an approval."""
    statement = query("execute_statement", "DELETE FROM orders")
    serve(statement, "No.", statement, "Done.")
    words = ("chat", "--backend", "sqlite:shop.db", "--write", "hi")
    assert "needs an approval" in looms(*words).err
    count = "SELECT count(*) FROM orders"
    with sqlite3.connect(shop) as connection:
        assert (3,) == connection.execute(count).fetchone()
        looms(*words, "--approve", "auto")
        assert (0,) == connection.execute(count).fetchone()
    connection.close()


def test_a_folder_is_read(folder: Path, looms: Run, serve: Serve) -> None:
    """`files:` gives the tools of a folder."""
    (folder / "notes").mkdir()
    (folder / "notes" / "a.txt").write_text("the loom is red")
    call = ToolCall("abcdefghi", "read_file", {"path": "a.txt"})
    provider = serve(Message.assistant(tool_calls=(call,)), "Red.")
    assert "Red.\n" == looms("chat", "--backend", "files:./notes", "Which colour?").out
    assert "the loom is red" in provider.requests[1].messages[-1].text


SERVER = """
from mcp.server.mcpserver import MCPServer

server = MCPServer("shop")

@server.tool()
def price(item: str) -> str:
    "The price of an item."
    return f"{item}: 3 EUR"

server.run()
"""


def test_an_mcp_server_is_used(folder: Path, looms: Run, serve: Serve) -> None:
    """A command is started, and its tools are there."""
    (folder / "server.py").write_text(SERVER)
    call = ToolCall("abcdefghi", "price", {"item": "tea"})
    provider = serve(Message.assistant(tool_calls=(call,)), "Three.")
    code, out, _ = looms("chat", "--mcp", f"{sys.executable} server.py", "What is tea?")
    assert (0, "Three.\n") == (code, out)
    assert "tea: 3 EUR" in provider.requests[1].messages[-1].text


# --- sessions ------------------------------------------------------------------------------------


def texts(provider: ScriptedProvider, number: int) -> list[str]:
    return [message.text for message in provider.requests[number].messages]


def test_a_session_goes_on(folder: Path, looms: Run, serve: Serve) -> None:
    """By its name, or the newest; the file is its owner's alone."""
    provider = serve("One.", "Two.", "Three.", "Four.")
    looms("chat", "--session", "ann", "first")
    looms("chat", "--session", "bob", "other")
    looms("chat", "--session", "ann", "second")
    _, _, err = looms("chat", "-c", "third")
    assert ["first", "One.", "second", "Three.", "third"] == texts(provider, 3)
    assert "session ann" in err
    assert 0o600 == (folder / "data" / "sessions.db").stat().st_mode & 0o777


def test_instructions_are_kept_with_a_session(looms: Run, serve: Serve) -> None:
    """A new session keeps `-s`; an old one is told of other instructions for now."""
    provider = serve("One.", "Two.", "Three.", "Four.")
    looms("chat", "-s", "Be brief.", "--session", "ann", "first")
    looms("chat", "-c", "second")
    looms("chat", "-c", "-s", "Be rude.", "third")
    looms("chat", "-c", "fourth")
    assert ["Be brief.", "first", "One.", "second"] == texts(provider, 1)
    assert "Be rude." in "".join(texts(provider, 2))
    assert "Be rude." not in "".join(texts(provider, 3))


def test_without_a_session_nothing_is_kept(folder: Path, looms: Run) -> None:
    """Tools alone leave no conversation behind."""
    assert 0 == looms("chat", "--sim", "-t", "my_tools", "hi").code
    assert not (folder / "data").exists()


def test_a_session_holds_the_tools(looms: Run, serve: Serve) -> None:
    """Calls and results are part of the conversation that goes on."""
    provider = serve(ASKED, "18 degrees.", "Yes.")
    looms("chat", "-t", "my_tools", "--session", "ann", "hi")
    looms("chat", "-c", "Sure?")
    roles = [message.role for message in provider.requests[2].messages]
    assert ["user", "assistant", "tool", "assistant", "user"] == roles
