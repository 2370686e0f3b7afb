"""`looms agent`: run a file, check it, its schema, and the conversations that are kept."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import jsonschema
import pytest
import yaml
from tests.cli.screen import Screen

from loom.core.messages import Message, ToolCall
from loom.providers.scripted import ScriptedProvider

if TYPE_CHECKING:
    from tests.cli.conftest import Run, Start

Serve = Callable[..., ScriptedProvider]

CODE = '''
import asyncio
from loom import tool

@tool
def look_up(word: str) -> str:
    """Look a word up."""
    return f"{word}: a word"

@tool(approval="ask")
def delete(word: str) -> str:
    """Delete a word."""
    return "gone"

@tool
async def wait_for_ever() -> None:
    """Wait."""
    await asyncio.Event().wait()
'''
AGENT = """\
apiVersion: loom/v1
kind: Agent
metadata:
  name: words
spec:
  model: mistral-small-latest
  system_prompt: Be brief.
  tools: [word_tools]
"""
LOOK = Message.assistant(tool_calls=(ToolCall("abcdefghi", "look_up", {"word": "loom"}),))
WAIT = Message.assistant(tool_calls=(ToolCall("abcdefghi", "wait_for_ever"),))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give an agent in a folder of its own, and a data folder."""
    place = tmp_path / "agents"
    place.mkdir()
    (place / "word_tools.py").write_text(CODE)
    (place / "words.yaml").write_text(AGENT)
    monkeypatch.setenv("LOOM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield place
    sys.modules.pop("word_tools", None)


def write(folder: Path, *lines: str) -> None:
    """Give the agent further lines."""
    (folder / "words.yaml").write_text(AGENT + "".join(f"  {line}\n" for line in lines))


FILE = "agents/words.yaml"
ON = ("agent", "run", FILE)


def texts(provider: ScriptedProvider, number: int) -> list[str]:
    return [message.text for message in provider.requests[number].messages]


# --- run -----------------------------------------------------------------------------------------


def test_an_agent_answers(looms: Run, serve: Serve) -> None:
    """Standard input is data; the answer stands alone; tools and the sum on the other stream."""
    provider = serve(LOOK, "A machine.")
    code, out, err = looms(*ON, "What", "is it?", stdin=b"a loom\n")
    assert (0, "A machine.\n") == (code, out)
    assert '-> look_up(word="loom")' in err
    assert "mistral-small-latest · 2 calls, 1 tool · " in err
    assert ["Be brief.", "a loom\n\nWhat is it?"] == texts(provider, 0)
    assert "loom: a word" == texts(provider, 1)[-1]


def test_json(looms: Run, serve: Serve) -> None:
    """One object, or a line for each event."""
    serve(LOOK, "A machine.", LOOK, "A machine.")
    code, out, err = looms(*ON, "hi", "--json")
    assert (0, "") == (code, err)
    assert ("A machine.", 2) == (json.loads(out)["content"], len(json.loads(out)["calls"]))
    kinds = [
        json.loads(line)["event"]
        for line in looms(*ON, "hi", "--json", "--stream").out.splitlines()
    ]
    assert ("sending", "done", 1) == (kinds[0], kinds[-1], kinds.count("tool_started"))


def test_the_simulator_answers(
    folder: Path, looms: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`--sim`, or the setting, needs no key and does not look for the file's; nothing is kept."""
    write(folder, "api_key: env:NOT_THERE")
    assert 0 == looms(*ON, "hi", "--sim").code
    assert 2 == looms(*ON, "hi").code
    monkeypatch.setenv("LOOM_SIM", "true")
    assert 0 == looms(*ON, "hi").code
    write(folder, "api_key: env:NOT_THERE", "sim: false")
    assert 2 == looms(*ON, "hi").code
    assert not (tmp_path / "data").exists()


def test_another_model(looms: Run, serve: Serve) -> None:
    """`-m` wins."""
    provider = serve("One.")
    looms(*ON, "hi", "-m", "mistral-large-latest")
    assert "mistral-large-latest" == provider.requests[0].model


def test_settings_fill_in_what_the_file_leaves_open(
    folder: Path, looms: Run, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flag beats file beats settings."""
    provider = serve("One.", "Two.")
    monkeypatch.setenv("LOOM_MODEL", "mistral-large-latest")
    monkeypatch.setenv("LOOM_MAX_TOKENS", "9")
    looms(*ON, "hi")
    bare = AGENT.replace("  model: mistral-small-latest\n", "")
    (folder / "words.yaml").write_text(f"{bare}  max_tokens: 7\n")
    looms(*ON, "hi")
    models = [request.model for request in provider.requests]
    sizes = [request.sampling.max_tokens for request in provider.requests]
    assert (["mistral-small-latest", "mistral-large-latest"], [9, 7]) == (models, sizes)


def test_a_model_of_another_server(folder: Path, looms: Run) -> None:
    """A model that nobody knows is the file's vendor's; another vendor's goes to that one."""
    write(folder, "provider: openai", "base_url: http://localhost:1/v1", "api_key: env:NOT_THERE")
    code, _, err = looms(*ON, "hi", "-m", "llama3.2")
    assert (2, True) == (code, "env:NOT_THERE" in err)
    code, _, err = looms(*ON, "hi", "-m", "mistral:mistral-small-latest")
    assert (3, True) == (code, "no key found" in err)


def test_sessions_go_on(folder: Path, looms: Run, serve: Serve) -> None:
    """In the store of the command line, or in the file's own."""
    provider = serve("One.", "Two.", "Three.", "Four.", "Five.")
    looms(*ON, "first")
    looms(*ON, "second", "--session", "ann")
    looms(*ON, "third", "-c")
    assert ["Be brief.", "second", "Two.", "third"] == texts(provider, 2)
    write(folder, "sessions: kept.db")
    looms(*ON, "fourth")
    looms(*ON, "fifth", "-c")
    assert ["Be brief.", "fourth", "Four.", "fifth"] == texts(provider, 4)
    assert (folder / "kept.db").is_file()


def test_a_broken_turn_is_resumed(start: Start, looms: Run, serve: Serve) -> None:
    """A tool that had begun is not run again: the model is told, and answers."""
    provider = serve(WAIT, "Half of it.")
    process = start(*ON, "Wait", "--session", "ann")
    assert process.stderr is not None
    assert b"-> wait_for_ever()" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (130, True) == (process.returncode, b"interrupted" in err)
    code, out, err_text = looms(*ON, "--resume", "ann")
    assert (0, "Half of it.\n") == (code, out)
    assert "session ann" in err_text
    assert texts(provider, 1)[-1].startswith("error: interrupted")


def test_there_is_nothing_to_resume(looms: Run, serve: Serve) -> None:
    """A session whose last answer is there, or that is none."""
    serve("One.")
    looms(*ON, "hi", "--session", "ann")
    for name in ("ann", "bob"):
        code, out, err = looms(*ON, "--resume", name)
        assert (5, "", True) == (code, out, "nothing to go on with" in err)


def test_money(folder: Path, looms: Run, serve: Serve) -> None:
    """The file's budget and `--max-cost` hold together; rows are the agent's."""
    serve(*["One."] * 4)
    assert 0 == looms(*ON, "hi", "--tag", "project=shop").code
    assert 4 == looms(*ON, "hi", "--max-cost", "0.000001").code
    write(folder, "budget: 0.000001")
    code, _, err = looms(*ON, "hi")
    assert (4, True) == (code, "the client 'words'" in err)
    assert 4 == looms(*ON, "hi", "--no-ledger").code
    (row,) = (json.loads(line) for line in looms("cost", "rows", "--json").out.splitlines())
    assert ("words", {"project": "shop"}) == (row["client"], row["tags"])


def test_rules_of_the_file_hold(folder: Path, looms: Run, serve: Serve) -> None:
    """`--approve auto` allows what needs an approval, and nothing that the file denies."""
    write(folder, "permissions: {deny: [look_up]}")
    calls = tuple(
        ToolCall(f"abcdefgh{n}", name, {"word": "x"})
        for n, name in enumerate(("look_up", "delete"))
    )
    asked = Message.assistant(tool_calls=calls)
    provider = serve(asked, "Done.", asked, "Done.")
    looms(*ON, "hi")
    looms(*ON, "hi", "--approve", "auto")
    assert ["error: permission denied"] * 2 == texts(provider, 1)[-2:]
    assert ["error: permission denied", "gone"] == texts(provider, 3)[-2:]


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (("agent", "run", "none.yaml", "hi"), 2, "none.yaml"),
        ((*ON,), 2, "there is no prompt"),
        ((*ON, "hi", "--resume", "ann"), 2, "--resume NAME stands alone"),
        ((*ON, "hi", "-c"), 2, "there is no conversation to go on with"),
        (("agent", "run"), 2, "FILE"),
        (("agent", "rnu"), 2, "rnu"),
    ],
)
def test_wrong_words(words: tuple[str, ...], code: int, part: str, looms: Run) -> None:
    """What was meant is named."""
    found = looms(*words)
    assert (code, "") == (found.code, found.out)
    assert part in found.err


def test_it_talks_on_a_terminal(start: Start, serve: Serve) -> None:
    """Without a prompt a line after another; it says how to go on."""
    serve(LOOK, "A machine.")
    with Screen(start, *ON) as screen:
        screen.until("mistral-small-latest · /help")
        screen.prompt()
        screen.keys("What is it?\r")
        screen.until("A machine.")
        screen.prompt()
        screen.keys("/quit\r")
        screen.until("`looms agent run agents/words.yaml -c` goes on")
        assert 0 == screen.end()


# --- validate and schema -------------------------------------------------------------------------

BAD = """\
apiVersion: loom/v2
kind: Agnet
metadata:
  title: x
spec:
  modle: mistral-small-latest
  model: mistral-smalll-latest
  provider: mistrl
  fallback: ["opnai:gpt-4.1"]
  api_key: env:NOT_THERE
  temperature: 7
  tools:
    - word_tols:look_up
    - word_tols.py:look_up
    - a-b
    - mcp: {command: x, url: y}
    -
    - word_tools
  system_prompt: a
  system_prompt_file: nothing.md
  backend: sqlite:nothing.db
  limits: {max_turns: 0}
"""
WRONG = [
    (1, "apiVersion", "did you mean 'loom/v1'"),
    (2, "kind", "did you mean 'Agent'"),
    (4, "metadata.title", "unknown key"),
    (4, "metadata.name", "is missing"),
    (6, "spec.modle", "did you mean 'model'"),
    (6, "spec", "give 'system_prompt' or 'system_prompt_file', not both"),
    (7, "spec.model", "the catalogue does not know"),
    (8, "spec.provider", "did you mean 'mistral'"),
    (9, "spec.fallback[0]", "did you mean 'openai'"),
    (10, "spec.api_key", "env:NOT_THERE"),
    (11, "spec.temperature", "out of range"),
    (13, "spec.tools[0]", "did you mean 'word_tools'"),
    (14, "spec.tools[1]", "there is no file"),
    (15, "spec.tools[2]", "names no tool"),
    (16, "spec.tools[3].mcp", "give 'command' or 'url', not both"),
    (17, "spec.tools[4]", "a text is expected"),
    (21, "spec.backend", "nothing.db"),
    (22, "spec.limits.max_turns", "0 is below 1"),
]
NOTES = ("spec.model", "spec.api_key")


def test_everything_wrong_is_told_at_once(folder: Path, looms: Run) -> None:
    """Each with its line; what depends on the machine is a note. No code runs."""
    (folder / "word_tools.py").write_text("raise SystemExit('this must not run')\n")
    (folder / "words.yaml").write_text(BAD)
    code, out, err = looms("agent", "validate", FILE, "--json")
    value = json.loads(out)
    found = [(problem["line"], problem["key"]) for problem in value["problems"]]
    assert (2, "", False) == (code, err, value["ok"])
    assert [(line, key) for line, key, _ in WRONG] == found
    for (_, key, words), problem in zip(WRONG, value["problems"], strict=True):
        assert words in problem["message"]
        assert ("note" if key in NOTES else "error") == problem["level"]
    code, out, err = looms("agent", "validate", FILE)
    assert (2, "", len(WRONG) + 1) == (code, err, len(out.splitlines()))
    assert f"{FILE}:7: note: spec.model: " in out
    assert out.endswith(f"{FILE}: 16 errors\n")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: [", 1, "is not YAML"),
        ("", 1, "is empty"),
        ("- a", 1, "a mapping is expected"),
        ("a: &x 1\nb: *x\n", 1, "anchors"),
    ],
)
def test_what_is_no_agent_at_all(
    text: str, line: int, words: str, folder: Path, looms: Run
) -> None:
    """One problem, with its line."""
    (folder / "words.yaml").write_text(text)
    code, out, _ = looms("agent", "validate", FILE, "--json")
    first = json.loads(out)["problems"][0]
    assert (2, line) == (code, first["line"])
    assert words in first["message"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["tools: {}"], [(9, "spec.tools", "a list is expected")]),
        (["limits: 3"], [(9, "spec.limits", "a mapping is expected")]),
        (["wrong: {a: [1]}"], [(9, "spec.wrong", "unknown key")]),
        (
            ["tools: [{mcp: {command: x, wrong: 1}}, {mcp: 3}, word_tools.py]"],
            [
                (9, "spec.tools[0].mcp.wrong", "unknown key"),
                (9, "spec.tools[1].mcp", "a mapping is expected"),
            ],
        ),
        (
            ["permissions: {deny: [a, '', b]}"],
            [(9, "spec.permissions.deny[1]", "is empty")],
        ),
        (["system_prompt_file: none.md"], [(9, "spec.system_prompt_file", "there is no file")]),
        (["backend: {at: 'files:none', write: true}"], [(9, "spec.backend", "none")]),
    ],
)
def test_each_place_is_named(
    lines: list[str], expected: list[tuple[int, str, str]], folder: Path, looms: Run
) -> None:
    """Also inside of lists and of what is in them; the rest is looked at all the same."""
    head = AGENT.replace("  system_prompt: Be brief.\n", "  labels: x\n")
    head = head.replace("  tools: [word_tools]\n", "  temperature: 9\n")
    text = head + "".join(f"  {line}\n" for line in lines)
    (folder / "words.yaml").write_text(text)
    value = json.loads(looms("agent", "validate", FILE, "--json").out)
    found = value["problems"]
    both = [(7, "spec.labels"), (8, "spec.temperature")]
    assert [*both, *((line, key) for line, key, _ in expected)] == [
        (problem["line"], problem["key"]) for problem in found
    ]
    for (_, _, words), problem in zip(expected, found[2:], strict=True):
        assert words in problem["message"]


def test_no_end_of_problems(folder: Path, looms: Run) -> None:
    """Another kind of document is not told line for line."""
    (folder / "words.yaml").write_text("".join(f"a{n}: 1\n" for n in range(80)))
    code, out, _ = looms("agent", "validate", FILE, "--json")
    assert (2, 50) == (code, len(json.loads(out)["problems"]))


def test_a_good_file_is_ok(folder: Path, looms: Run) -> None:
    """Without the code of its tools; the answer is one word."""
    (folder / "word_tools.py").write_text("raise SystemExit('this must not run')\n")
    assert (0, f"{FILE}: ok\n", "") == looms("agent", "validate", FILE)
    code, out, _ = looms("agent", "validate", FILE, "--import")
    assert (2, True) == (code, f"{FILE}:8: spec.tools[0]: 'word_tools' cannot be imported" in out)


def test_a_folder_that_is_looked_at_runs_nothing(folder: Path) -> None:
    """Not even where it has a module that is called as one of ours; `python -m` would take it."""
    looms = Path(sys.executable).with_name("looms")
    for place in (folder, folder.parent):
        for name in ("yaml", "difflib", "msgspec", "word_tools"):
            (place / f"{name}.py").write_text("open('it_ran', 'w').close()\n")
    words = [str(looms), "agent", "validate", FILE, "--json"]
    done = subprocess.run(words, cwd=folder.parent, capture_output=True, check=False)
    assert (0, b"", True) == (done.returncode, done.stderr, json.loads(done.stdout)["ok"])
    assert not (folder.parent / "it_ran").exists()


def test_imported_tools_are_known(folder: Path, looms: Run) -> None:
    """With `--import` a rule for a tool that is not there is a note."""
    write(folder, "permissions: {deny: [look_upp, delete]}")
    code, out, _ = looms("agent", "validate", FILE, "--import")
    assert 0 == code
    note = "note: spec.permissions.deny[0]: there is no tool 'look_upp': did you mean 'look_up'?"
    assert f"{FILE}:9: {note}\n{FILE}: ok\n" == out


def test_a_file_that_cannot_be_read(folder: Path, looms: Run) -> None:
    """It is named; so is a byte that is no UTF-8."""
    assert "cannot read 'none.yaml'" in looms("agent", "validate", "none.yaml").err
    (folder / "words.yaml").write_bytes(b"caf\xe9")
    assert "not UTF-8" in looms("agent", "validate", FILE).err


def test_the_schema_judges_as_the_reader(looms: Run) -> None:
    """Standard output is the schema; the good file fits it and the bad one does not."""
    schema = json.loads(looms("agent", "schema").out)
    jsonschema.Draft202012Validator.check_schema(schema)
    judge = jsonschema.Draft202012Validator(schema)
    assert judge.is_valid(yaml.safe_load(AGENT))
    assert not judge.is_valid(yaml.safe_load(BAD))


# --- sessions ------------------------------------------------------------------------------------


@pytest.fixture
def kept(looms: Run, serve: Serve) -> ScriptedProvider:
    """Keep two conversations."""
    provider = serve(LOOK, "A machine.", "It rains.")
    looms("chat", "-t", "agents/word_tools.py", "--session", "ann", "What is a loom?")
    looms("chat", "--session", "bob", "How is the weather?\x1b[31m")
    return provider


def sessions(looms: Run, *words: str) -> list[str]:
    value = json.loads(looms("agent", "sessions", *words, "--json").out)
    return [each["id"] for each in value["sessions"]]


def test_conversations_are_listed(kept: ScriptedProvider, looms: Run) -> None:
    """The newest first; a table, or JSON with exact money."""
    del kept
    assert ["bob", "ann"] == sessions(looms)
    assert ["bob", "ann"] == sessions(looms, "list")
    assert ["bob"] == sessions(looms, "list", "--limit", "1")
    assert ["ann"] == sessions(looms, "search", "MACHINE", "loom")
    code, out, err = looms("agent", "sessions")
    assert (0, "") == (code, err)
    for words in ("ann", "bob", "What is a loom?", "How is the weather?", "$0.0"):
        assert words in out
    assert "\x1b[31m" not in out
    found = json.loads(looms("agent", "sessions", "--json").out)["sessions"][1]
    assert ("What is a loom?", 1) == (found["title"], found["turns"])
    assert found["cost_usd"].startswith("0.000")


def test_no_conversations(tmp_path: Path, looms: Run) -> None:
    """Nothing is made by looking."""
    code, out, err = looms("agent", "sessions")
    assert (0, "", "No conversation is kept yet.\n") == (code, out, err)
    assert "No conversation matches.\n" == looms("agent", "sessions", "search", "x").err
    assert not (tmp_path / "data").exists()


def test_a_conversation_is_shown(kept: ScriptedProvider, looms: Run) -> None:
    """With its tools; nothing in it is obeyed by a terminal."""
    del kept
    out = looms("agent", "sessions", "show", "ann").out
    for words in ("What is a loom?", "look_up", "loom: a word", "A machine."):
        assert words in out
    assert "\x1b" not in looms("agent", "sessions", "show", "bob").out
    assert (
        "ann"
        == json.loads(looms("agent", "sessions", "show", "ann", "--json").out)["session"]["id"]
    )
    code, _, err = looms("agent", "sessions", "show", "anm")
    assert (2, True) == (code, "there is no session 'anm': did you mean 'ann'?" in err)


@pytest.mark.parametrize("form", ["markdown", "json", "jsonl"])
def test_a_conversation_is_exported(
    form: str, kept: ScriptedProvider, looms: Run, tmp_path: Path
) -> None:
    """To standard output or a file; what is there is not written over."""
    del kept
    words = ("agent", "sessions", "export", "ann", "--form", form)
    out = looms(*words).out
    assert "A machine." in out
    code, again, err = looms(*words, "-o", "ann.out")
    assert (0, "", "written to ann.out\n") == (code, again, err)
    assert out.strip() == (tmp_path / "ann.out").read_text().strip()
    assert 2 == looms(*words, "-o", "ann.out").code


def test_conversations_are_deleted(kept: ScriptedProvider, looms: Run) -> None:
    """Off a terminal only with `--yes`; one that is not there deletes none."""
    del kept
    assert "--yes deletes" in looms("agent", "sessions", "delete", "ann").err
    assert 2 == looms("agent", "sessions", "delete", "ann", "zoe", "--yes").code
    assert ["bob", "ann"] == sessions(looms)
    assert "deleted ann\n" == looms("agent", "sessions", "delete", "ann", "--yes").err
    out = looms("agent", "sessions", "delete", "bob", "--yes", "--json").out
    assert (["bob"], []) == (json.loads(out)["deleted"], sessions(looms))


@pytest.mark.parametrize(("key", "left"), [("y", ["bob"]), ("n", ["bob", "ann"])])
def test_deleting_is_asked_for(
    key: str, left: list[str], kept: ScriptedProvider, start: Start, looms: Run
) -> None:
    """On a terminal somebody is asked."""
    del kept
    with Screen(start, "agent", "sessions", "delete", "ann") as screen:
        screen.until("Delete ann? [y/N]: ")
        screen.keys(f"{key}\r")
        assert (0 if key == "y" else 130) == screen.end()
    assert left == sessions(looms)


def test_another_store(kept: ScriptedProvider, looms: Run, tmp_path: Path) -> None:
    """`--store` takes a file, wherever the option stands, or an address."""
    del kept
    (tmp_path / "data" / "sessions.db").rename(tmp_path / "mine.db")
    assert ["bob", "ann"] == sessions(looms, "--store", "mine.db")
    assert ["bob", "ann"] == sessions(looms, "list", "--store", "sqlite:///mine.db")
    assert [] == sessions(looms)
    assert 2 == looms("agent", "sessions", "--store", "postgres://x/y").code
