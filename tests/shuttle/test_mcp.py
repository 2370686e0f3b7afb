"""MCP servers of the official package, over real processes and sockets; and faulty ones."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import select
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from loom.core.errors import ConfigInvalid, ToolArgumentsInvalid, ToolFailed, ToolTimedOut
from loom.core.messages import AudioPart, DocumentPart, ImagePart, TextPart
from loom.core.secret import Secret
from loom.shuttle.mcp import McpServer, McpTool, mcp
from loom.shuttle.source import ToolSource
from loom.shuttle.tool import Tool, tool_specs

pytestmark = pytest.mark.anyio

HERE = Path(__file__).parent
KITCHEN = [sys.executable, str(HERE / "mcp_server.py"), "stdio"]
KEY = "canary-" + "k" * 24


async def tool_of(server: McpServer, name: str) -> McpTool:
    return {tool.name: tool for tool in await server.tools()}[name]


async def run(server: McpServer, name: str, **arguments: Any) -> Any:
    return await (await tool_of(server, name)).execute(arguments)


class Life:
    """A named pipe that a faulty server holds open as long as it lives."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._pipe = -1

    def command(self, fault: str) -> list[str]:
        return [sys.executable, str(HERE / "mcp_faulty.py"), fault, str(self.path)]

    def begin(self) -> int:
        """Wait until the server runs; give the number of its process."""
        self._pipe = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        return int(self._read())

    def end(self) -> None:
        """Wait until the process is gone."""
        said = self._read()
        os.close(self._pipe)
        assert b"" == said

    def _read(self) -> bytes:
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        assert poll.poll(20_000), "the server did not begin, or did not end"
        return os.read(self._pipe, 100)


def is_gone(pid: int) -> bool:
    """Whether a process is neither alive nor a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def faulty(fault: str, **options: Any) -> McpServer:
    return mcp([sys.executable, str(HERE / "mcp_faulty.py"), fault], name="faulty", **options)


@pytest.fixture
def life(tmp_path: Path) -> Life:
    return Life(tmp_path / "life")


@pytest.fixture(scope="module")
def kitchen() -> Iterator[McpServer]:
    """Give one server, started at first use, for every loop of this file."""
    server = mcp(KITCHEN, name="kitchen", env={"KITCHEN_KEY": KEY}, timeout_s=20.0)
    yield server
    asyncio.run(server.aclose())


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Serve the kitchen by streamable HTTP on a free port."""
    command = [*KITCHEN[:2], "http"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/mcp"
        process.kill()


@pytest.fixture
async def by_http(address: str) -> AsyncIterator[McpServer]:
    server = mcp(address, headers={"x-kitchen": Secret(KEY)}, timeout_s=20.0)
    yield server
    await server.aclose()


async def test_a_server_is_a_source_of_tools(kitchen: McpServer) -> None:
    """It brings tools in the server's order, with their schema whole."""
    tools = await kitchen.tools()

    assert isinstance(kitchen, ToolSource)
    assert all(isinstance(tool, Tool) for tool in tools)
    assert "add" == tools[0].name
    assert "Add two numbers." == tools[0].description
    properties = tools[0].parameters["properties"]
    assert {"a": "integer", "b": "integer"} == {n: p["type"] for n, p in properties.items()}
    assert ["a", "b"] == tools[0].parameters["required"]
    assert len(tools) == len(tool_specs(tools))
    assert 20.0 == tools[0].timeout_s


async def test_tools_that_did_not_change_are_equal(kitchen: McpServer) -> None:
    """Who asks twice sees that nothing changed; another name is another tool."""
    first, second = await kitchen.tools(), await kitchen.tools()
    assert first == second
    assert len(first) == len({*first, *second})
    assert first[0] != first[1]


async def test_a_call_gives_the_text(kitchen: McpServer) -> None:
    """One text is a text, and a structure that says the same is not repeated."""
    assert "3" == await run(kitchen, "add", a=1, b=2)
    assert "grüß" == await run(kitchen, "echo", text="grüß")
    assert "ann\nbob" == await run(kitchen, "names")


async def test_structure_that_no_text_tells_is_added(kitchen: McpServer) -> None:
    """The model reads structured content as JSON behind the text."""
    assert 'two rows\n{"rows": [1, 2]}' == await run(kitchen, "structured")


async def test_an_empty_structure_is_told(kitchen: McpServer) -> None:
    """A result without a block still says what it is."""
    assert '{"result": []}' == await run(kitchen, "nothing")


async def test_every_kind_of_content_becomes_a_part(kitchen: McpServer) -> None:
    """Images, sounds, resources and links keep their order and their bytes."""
    assert (
        TextPart("look:"),
        ImagePart("data:image/png;base64,iVBORyBwaXhlbA=="),
        AudioPart("dG9uZQ==", "mp3"),
        TextPart("[resource: file:///a.txt]\nthe file"),
        DocumentPart("data:application/pdf;base64,UERG", "report.pdf"),
        ImagePart("data:image/png;base64,SU1H"),
        AudioPart("V0FW", "wav"),
        TextPart("[resource: more, https://example.org/more, text/html]"),
    ) == await run(kitchen, "gallery")


async def test_a_tool_that_fails_is_an_error_in_its_words(kitchen: McpServer) -> None:
    """`isError` is never taken for a result."""
    with pytest.raises(ToolFailed, match="no salt"):
        await run(kitchen, "refuse", reason="no salt")
    with pytest.raises(ToolFailed, match=r"(?s)no salt.*ImagePart left out"):
        await run(kitchen, "refuse", reason="no salt", image=True)


async def test_arguments_that_do_not_fit_are_the_servers_to_refuse(kitchen: McpServer) -> None:
    """The server's words reach the model, which can do better."""
    with pytest.raises(ToolFailed, match="valid integer"):
        await run(kitchen, "add", a="x", b=1)


@pytest.mark.parametrize("value", [object(), "\ud800", {1, 2}])
async def test_arguments_that_are_not_json_are_refused(kitchen: McpServer, value: Any) -> None:
    """Before they are sent, so the session goes on."""
    with pytest.raises(ToolArgumentsInvalid, match="not JSON"):
        await run(kitchen, "echo", text=value)
    assert "3" == await run(kitchen, "add", a=1, b=2)


async def test_the_child_sees_no_variable_but_the_short_list(
    kitchen: McpServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No key of this program leaks; what `env` says is there."""
    monkeypatch.setenv("MISTRAL_API_KEY", KEY)
    server = mcp(KITCHEN, env={"KITCHEN_KEY": "x"}, cwd=tmp_path)

    seen = json.loads(await run(server, "environment"))
    await server.aclose()

    # Python sets LC_CTYPE itself (PEP 538).
    known = {"HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER", "LC_CTYPE"}
    assert {"KITCHEN_KEY"} == set(seen) - known
    assert str(tmp_path) == await run_once(KITCHEN, "folder", cwd=tmp_path)


async def run_once(command: list[str], name: str, **options: Any) -> Any:
    server = mcp(command, **options)
    try:
        return await run(server, name)
    finally:
        await server.aclose()


async def test_calls_of_many_tasks_run_at_once(kitchen: McpServer) -> None:
    """Twenty calls share the session, and each has its own answer."""
    tool = await tool_of(kitchen, "add")

    found = await asyncio.gather(*(tool.execute({"a": n, "b": n}) for n in range(20)))

    assert [str(2 * n) for n in range(20)] == found


def test_one_server_serves_loops_and_threads(kitchen: McpServer) -> None:
    """A tool that one loop found runs on the next, and on another thread's, in one process."""
    tool = asyncio.run(tool_of(kitchen, "process"))
    found = [asyncio.run(tool.execute({}))]
    threads = [
        threading.Thread(target=lambda: found.append(asyncio.run(tool.execute({}))))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 4 == len(found)
    assert 1 == len(set(found))


@pytest.mark.parametrize("way", ["stdio", "http"])
async def test_a_cancelled_call_is_cancelled_on_the_server(
    way: str, kitchen: McpServer, by_http: McpServer
) -> None:
    """The server is told, and the session goes on."""
    server = kitchen if way == "stdio" else by_http
    call = asyncio.create_task(run(server, "wait"))
    assert "yes" == await run(server, "has_begun")

    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    assert "cancelled" == await run(server, "was_cancelled")
    assert "3" == await run(server, "add", a=1, b=2)


@pytest.mark.parametrize("way", ["stdio", "http"])
async def test_changed_tools_are_listed_anew(
    way: str, kitchen: McpServer, by_http: McpServer
) -> None:
    """A server that says that its tools changed is asked again, and only then."""
    server = kitchen if way == "stdio" else by_http
    before = {tool.name for tool in await server.tools()}

    await run(server, "grow")
    async with asyncio.timeout(20):  # the notice may come behind the answer
        while not (new := [tool for tool in await server.tools() if tool.name not in before]):
            pass

    assert "grown.tool/with a name that no model may use" == new[0].server_name
    assert "grown_tool_with_a_name" == new[0].name[:22]
    assert "hello" == await new[0].execute({"text": "hello"})
    await run(server, "shrink")


async def test_an_older_server_tells_of_changes_too() -> None:
    """Before 2026 the notice comes between the answers."""
    server = faulty("changes")
    await run(server, "echo")

    async with asyncio.timeout(20):
        while 2 != len(tools := await server.tools()):
            pass

    assert ["echo", "grown-0"] == [tool.name for tool in tools]
    assert tools[0].parameters is (await server.tools())[0].parameters  # not listed again
    await server.aclose()


async def test_by_http_headers_are_sent_and_never_shown(by_http: McpServer, address: str) -> None:
    """A secret header reaches the server, and no repr."""
    assert KEY == await run(by_http, "told_headers")
    assert KEY not in repr(by_http)
    assert address in repr(by_http)
    assert KEY not in repr(await by_http.tools())


async def test_a_server_that_dies_in_a_call_is_an_error() -> None:
    """The call is not made again, and says that nobody knows what was done; the next one works."""
    server = mcp(KITCHEN, name="kitchen", prefix="my")
    tools = {tool.name: tool for tool in await server.tools()}
    first = await tools["my_process"].execute({})

    with pytest.raises(ToolFailed, match=r"ended before it answered.*the cook has left") as caught:
        await tools["my_die"].execute({})

    assert caught.value.uncertain
    assert first != await tools["my_process"].execute({})
    await server.aclose()


async def test_a_call_is_not_sent_twice(life: Life) -> None:
    """A server that dies with each call is started once for each."""
    server = mcp(life.command("dies-in-call"), connect_timeout_s=20.0)
    pids = asyncio.create_task(asyncio.to_thread(life.begin))
    tool = (await server.tools())[0]
    await pids

    with pytest.raises(ToolFailed, match="ended before it answered"):
        await tool.execute({})

    await asyncio.to_thread(life.end)  # no second one has opened the pipe
    await server.aclose()


async def test_a_server_that_died_between_calls_is_started_again(life: Life) -> None:
    """Nothing was sent, so the call is made on a new session."""
    server = mcp(life.command("dies-idle"), connect_timeout_s=20.0)
    first = asyncio.create_task(asyncio.to_thread(life.begin))
    tool = (await server.tools())[0]
    pid = await first
    await asyncio.to_thread(life.end)
    while not is_gone(pid):
        await server.tools()
    for _ in range(20):  # its loop turns, and sees the end of the output
        await server.tools()
    second = asyncio.create_task(asyncio.to_thread(life.begin))

    assert '{"a": 1}' == await tool.execute({"a": 1})

    assert pid != await second
    await server.aclose()
    await asyncio.to_thread(life.end)


async def test_a_server_that_exits_at_once_tells_why() -> None:
    """Its last words are in the error."""
    with pytest.raises(ToolFailed, match="it ended; its last words: usage: faulty"):
        await faulty("exits").tools()


async def test_a_server_that_hangs_at_its_start_is_ended(life: Life) -> None:
    """After `connect_timeout_s` it is gone, and the error says how long it had."""
    server = mcp(life.command("hangs"), connect_timeout_s=0.5)
    begun = asyncio.create_task(asyncio.to_thread(life.begin))

    with pytest.raises(ToolTimedOut, match=r"was not ready after 0\.5 s"):
        await server.tools()

    assert is_gone(await begun)
    await asyncio.to_thread(life.end)
    await server.aclose()


async def test_a_server_that_writes_garbage_is_quoted(caplog: pytest.LogCaptureFixture) -> None:
    """What it wrote in place of messages is in the error."""
    caplog.set_level(logging.CRITICAL, logger="mcp")
    with pytest.raises(ToolTimedOut, match=r"it wrote what is no message.*Welcome to the"):
        await faulty("garbage", connect_timeout_s=0.5).tools()


async def test_garbage_beside_messages_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    """A server that greets on its standard output, even with no text, still works."""
    caplog.set_level(logging.CRITICAL, logger="mcp")
    server = faulty("noisy")

    assert '{"a": 1}' == await run(server, "echo", a=1)

    await server.aclose()


async def test_a_line_without_end_ends_the_session(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is gathered has a limit; the server that passes it is ended, and said to have."""
    monkeypatch.setattr("loom.shuttle.mcp_door.MOST_BYTES", 1024 * 1024)
    server = mcp(life.command("floods"))
    begun = asyncio.create_task(asyncio.to_thread(life.begin))
    tool = (await server.tools())[0]
    await begun

    with pytest.raises(ToolFailed, match="it wrote a line of more than 1048576 characters"):
        await tool.execute({})

    await asyncio.to_thread(life.end)
    await server.aclose()


async def test_a_cancelled_start_leaves_no_process(life: Life) -> None:
    """The child is ended when nobody waits for it any more."""
    server = mcp(life.command("hangs"))
    starting = asyncio.create_task(server.tools())
    pid = await asyncio.to_thread(life.begin)

    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting

    await asyncio.to_thread(life.end)
    await server.aclose()
    assert is_gone(pid)


async def test_close_ends_a_start(life: Life) -> None:
    """Who waits is told, and the child is gone."""
    server = mcp(life.command("hangs"))
    starting = asyncio.create_task(server.tools())
    pid = await asyncio.to_thread(life.begin)

    await server.aclose()

    with pytest.raises(ToolFailed, match="closed"):
        await starting
    assert is_gone(pid)
    await asyncio.to_thread(life.end)


@pytest.mark.parametrize("way", ["stdio", "http"])
async def test_close_ends_a_call(way: str, address: str) -> None:
    """Who waits for an answer is told that none will come, and is not cancelled."""
    server = mcp(KITCHEN if way == "stdio" else address)
    tools = {tool.name: tool for tool in await server.tools()}
    call = asyncio.create_task(tools["wait"].execute({}))
    await tools["has_begun"].execute({})

    await server.aclose()

    with pytest.raises(ToolFailed, match=r"(ended|was closed) before it answered"):
        await call


@pytest.mark.realtime
async def test_a_stubborn_server_is_killed(life: Life) -> None:
    """One that ignores the end of its input and SIGTERM is gone after `aclose` all the same."""
    server = mcp(life.command("stubborn"))
    begun = asyncio.create_task(asyncio.to_thread(life.begin))
    await server.tools()

    await server.aclose()

    assert is_gone(await begun)
    await asyncio.to_thread(life.end)


async def test_a_server_that_is_forgotten_ends(life: Life) -> None:
    """Without `aclose` the child goes with the last reference: the server's, or a tool's."""
    server = mcp(life.command("plain"))
    begun = asyncio.create_task(asyncio.to_thread(life.begin))
    tools = await server.tools()
    await begun

    del server
    gc.collect()
    assert "{}" == await tools[0].execute({})  # a second process would wait for a reader
    del tools
    gc.collect()

    await asyncio.to_thread(life.end)


def test_no_process_is_left_when_the_interpreter_exits(life: Life, tmp_path: Path) -> None:
    """A program that ends without `aclose` takes its servers with it, and prints nothing."""
    code = (
        "import asyncio\n"
        "from loom.shuttle.mcp import mcp\n"
        f"server = mcp({life.command('plain')!r})\n"
        "asyncio.run(server.tools())\n"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as program:
        pid = life.begin()
        output, _ = program.communicate()

    life.end()
    assert b"" == output
    assert 0 == program.returncode
    assert is_gone(pid)


def test_a_forked_child_has_a_server_of_its_own() -> None:
    """Neither process talks into the other's session, and both can end."""
    code = f"""
import asyncio, os, warnings
from loom.shuttle.mcp import mcp

server = mcp({KITCHEN!r})

async def number():
    return await {{tool.name: tool for tool in await server.tools()}}["process"].execute({{}})

before = asyncio.run(number())
warnings.simplefilter("ignore")  # Python 3.12 warns of a fork beside threads
child = os.fork()
if child == 0:
    differs = asyncio.run(number()) != before
    asyncio.run(server.aclose())
    os._exit(0 if differs else 1)
assert 0 == os.waitpid(child, 0)[1]
assert before == asyncio.run(number())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (0, b"") == (done.returncode, done.stderr)


async def test_a_call_that_takes_too_long_ends_and_is_taken_back() -> None:
    """The server is told, and the session goes on."""
    server = faulty("silent", timeout_s=0.3)
    tool = await tool_of(server, "echo")

    with pytest.raises(ToolTimedOut, match=r"'echo' timed out after 0\.3 s"):
        await tool.execute({})

    assert "1" == await tool.execute({"ask": 1})
    await server.aclose()


async def test_a_thousand_tools_come_in_pages() -> None:
    """All pages are read, in order."""
    server = faulty("pages")

    names = [tool.name for tool in await server.tools()]

    assert [f"tool-{number}" for number in range(1_000)] == names
    await server.aclose()


async def test_a_listing_without_end_is_refused() -> None:
    """A page that names itself as the next one is an error."""
    server = faulty("endless")
    with pytest.raises(ToolFailed, match="lists its tools without end"):
        await server.tools()
    await server.aclose()


async def test_a_server_without_tools_brings_none() -> None:
    """One that offers only prompts or resources is no error."""
    server = faulty("toolless")
    assert () == await server.tools()
    await server.aclose()


async def test_an_error_of_the_protocol_is_told() -> None:
    """The server's words are in the error."""
    server = faulty("no-listing")
    with pytest.raises(ToolFailed, match="'faulty' answered with an error: the list is lost"):
        await server.tools()
    await server.aclose()


async def test_an_unknown_kind_of_content_is_an_error() -> None:
    """It is not dropped."""
    server = faulty("hologram")
    with pytest.raises(ToolFailed, match="not as MCP has it"):
        await run(server, "echo")
    await server.aclose()


async def test_secrets_are_hidden_in_what_the_server_says(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither its errors nor its log lines show what `env` gave it."""
    caplog.set_level(logging.DEBUG, logger="loom.shuttle")
    server = faulty("tells", env={"KEY": KEY})

    with pytest.raises(ToolFailed, match=r"refused: \*\*\*") as caught:
        await run(server, "echo")
    await server.aclose()

    assert KEY not in str(caught.value)
    assert "my key is ***" in caplog.text
    assert KEY not in caplog.text


async def test_the_log_has_what_the_server_wrote_at_debug(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing of it reaches the terminal."""
    caplog.set_level(logging.DEBUG, logger="loom.shuttle")
    with pytest.raises(ToolFailed):
        await faulty("exits").tools()

    (line,) = [record for record in caplog.records if "usage:" in record.getMessage()]
    assert logging.DEBUG == line.levelno


async def test_only_listed_tools_are_offered() -> None:
    """`tools=` is an allow-list of the server's own names; the prefix comes after."""
    server = mcp(KITCHEN, tools=["echo", "add"], prefix="kitchen")

    assert ["kitchen_add", "kitchen_echo"] == [tool.name for tool in await server.tools()]
    assert "3" == await run(server, "kitchen_add", a=1, b=2)
    await server.aclose()


async def test_a_listed_tool_that_is_not_there_is_refused() -> None:
    """The error names the nearest."""
    server = faulty("plain", tools=["ecko"])
    with pytest.raises(ConfigInvalid, match="has no tool 'ecko': did you mean 'echo'"):
        await server.tools()
    await server.aclose()


async def test_a_command_that_is_not_there_is_named() -> None:
    """The caller can mend it, so it is `ConfigInvalid`; the arguments are not repeated."""
    server = mcp(["no-such-server", "--key", KEY])
    with pytest.raises(ConfigInvalid, match=r"No such file.*no-such-server") as caught:
        await server.tools()
    assert KEY not in str(caught.value)
    assert KEY not in repr(server)
    await server.aclose()


async def test_it_may_be_used_again_after_close() -> None:
    """`aclose` twice does nothing, and a later use begins anew."""
    server = faulty("plain")
    tool = (await server.tools())[0]
    await server.aclose()
    await server.aclose()

    assert "{}" == await tool.execute({})
    await server.aclose()


async def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package there is one error, at first use."""
    for name in list(sys.modules):
        if name.startswith("loom.shuttle.mcp_connection"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mcp", None)
    server = faulty("plain")

    with pytest.raises(ConfigInvalid, match=r"pip install 'looms\[mcp\]'"):
        await server.tools()
    await server.aclose()
