"""`looms chat` and `looms ping`: what goes where, and what is refused before anything is sent."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from loom.cli.listen import Listener
from loom.cli.terminal import Terminal
from loom.client.blocking import Mistral
from loom.core.errors import ServiceUnavailable
from loom.core.events import (
    Completed,
    Finished,
    Restarted,
    Retried,
    StreamEvent,
    TextDelta,
    Throttled,
)
from loom.core.messages import ImagePart, Message, TextPart, ThinkingPart
from loom.core.response import Choice, LLMResponse, Usage
from loom.providers.scripted import ScriptedProvider
from loom.testing import no_waits

if TYPE_CHECKING:
    from tests.cli.conftest import Run

CANARY = "loom-canary-key-0123456789"
COST = r"mistral-large-latest · \d+ in, \d+ out · \$0\.\d{6} · \d+\.\d s\n"

Serve = Callable[..., ScriptedProvider]


def pieces(*texts: str) -> list[StreamEvent]:
    """Give an answer whose text comes in these pieces."""
    message = Message.assistant("".join(texts))
    choice = Choice(message=message, finish_reason="stop")
    response = LLMResponse(choices=(choice,), usage=Usage(), model="mistral-large-latest")
    return [*map(TextDelta, texts), Finished("stop"), Completed(response)]


@pytest.fixture
def asked_nothing(looms: Run, serve: Serve) -> Iterator[Run]:
    """Run commands beside a server that must not be asked."""
    provider = serve("never")
    yield looms
    assert [] == provider.requests


def test_the_answer_and_nothing_else_is_on_stdout(looms: Run) -> None:
    """The cost goes to standard error, in the words of the documentation."""
    code, out, err = looms("chat", "--sim", "Say hello")
    assert (0, "hello\n") == (code, out)
    assert re.match(COST, err)


def test_quiet_keeps_standard_error_empty(looms: Run) -> None:
    """-q leaves out costs and notes."""
    assert (0, "hello\n", "") == looms("chat", "--sim", "-q", "Say hello")


def test_piped_text_comes_first(looms: Run, serve: Serve) -> None:
    """Standard input is data: it stands before the argument, a blank line between."""
    provider = serve("done")
    looms("chat", "-q", "summarise", "it", stdin=b"the notes\n")
    assert "the notes\n\nsummarise it" == provider.requests[0].messages[0].text


@pytest.mark.parametrize("words", [("chat", "what?"), ("chat", "-"), ("what is it?",)])
def test_where_the_prompt_comes_from(words: tuple[str, ...], looms: Run, serve: Serve) -> None:
    """An argument, standard input, or both make the prompt."""
    provider = serve("done")
    code, out, _ = looms(*words, stdin=b"piped")
    assert (0, "done\n") == (code, out)
    assert provider.requests[0].messages[0].text.startswith("piped")


def test_flags_reach_the_request(looms: Run, serve: Serve) -> None:
    """Model, system prompt and sampling are those of the flags; 0 is a value."""
    provider = serve("done")
    looms(
        "chat", "-m", "mistral-small-latest", "-s", "Be brief.", "--temperature", "0",
        "--max-tokens", "7", "hi",
    )  # fmt: skip
    request = provider.requests[0]
    assert "mistral-small-latest" == request.model
    assert [Message.system("Be brief."), Message.user("hi")] == list(request.messages)
    assert (0, 7) == (request.sampling.temperature, request.sampling.max_tokens)


def test_settings_fill_in_what_flags_leave_open(
    looms: Run, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flag beats environment beats project file."""
    provider = serve("one", "two")
    Path("looms.toml").write_text('model = "codestral-latest"\nmax_tokens = 9\n')
    looms("chat", "hi")
    monkeypatch.setenv("LOOM_MODEL", "mistral-small-latest")
    looms("chat", "--max-tokens", "5", "hi")
    models = [request.model for request in provider.requests]
    sizes = [request.sampling.max_tokens for request in provider.requests]
    assert (["codestral-latest", "mistral-small-latest"], [9, 5]) == (models, sizes)


def test_attachments_go_along(looms: Run, serve: Serve, tmp_path: Path) -> None:
    """Files stand behind the text; `-a -` takes standard input for itself."""
    provider = serve("one")
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n")
    looms("chat", "-a", str(picture), "-a", "-", "compare", stdin=b"some words")
    content = provider.requests[0].messages[0].content
    assert isinstance(content, tuple)
    text, image, words = content
    assert (TextPart("compare"), TextPart("some words")) == (text, words)
    assert isinstance(image, ImagePart)


def test_a_schema_shapes_the_answer(looms: Run, tmp_path: Path) -> None:
    """The answer is JSON as the schema says."""
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    path = tmp_path / "one number.json"
    path.write_text(json.dumps({**schema, "additionalProperties": False}))
    code, out, _ = looms("chat", "--sim", "--schema", str(path), "How many?")
    assert 0 == code
    assert isinstance(json.loads(out)["n"], int)


@pytest.mark.parametrize("stream", ["--stream", "--no-stream"])
def test_what_a_terminal_would_obey_is_taken_out(stream: str, looms: Run, serve: Serve) -> None:
    """Also from a pipe's text, and where a sequence is cut between two events."""
    serve(pieces("a\x1b]52;c;aGk", "=\x07b\x1b[3", "1mc\r\n\x9b2J"))
    code, out, _ = looms("chat", "-q", stream, "hi")
    assert (0, "abc\n") == (code, out)


def test_thinking_is_shown_only_when_asked_for(looms: Run, serve: Serve) -> None:
    """With -v, on standard error: standard output stays the answer."""
    thought = Message.assistant((ThinkingPart((TextPart("let me see"),)), TextPart("done")))
    serve(thought, thought, thought)
    _, quiet_out, quiet_err = looms("chat", "hi")
    assert ("done\n", False) == (quiet_out, "let me see" in quiet_err)
    for stream in ("--stream", "--no-stream"):
        _, out, err = looms("chat", "-v", stream, "hi")
        assert ("done\n", True) == (out, "let me see" in err)


def test_a_cut_answer_is_warned_of(looms: Run) -> None:
    """An answer that reached max_tokens says so beside it."""
    _, _, err = looms("chat", "--sim", "--max-tokens", "3", "Tell me a story")
    assert "warning: the answer was cut" in err


def test_json_is_one_object(looms: Run) -> None:
    """Everything that is known of the answer; exact money; nothing on standard error."""
    code, out, err = looms("chat", "--sim", "--json", "Say hello")
    value = json.loads(out)
    assert (0, "", 1) == (code, err, out.count("\n"))
    assert ("hello", "stop") == (value["content"], value["finish_reason"])
    assert value["usage"]["cost_usd"].startswith("0.0000")
    assert value["usage"]["input_tokens"] > 0


def test_json_stream_is_a_line_for_each_event(looms: Run) -> None:
    """The texts add up to the answer in the last line."""
    _, out, err = looms("chat", "--sim", "--json", "--stream", "Say hello there")
    events = [json.loads(line) for line in out.splitlines()]
    text = "".join(event["text"] for event in events if event["event"] == "text_delta")
    assert ("", "sending", "completed") == (err, events[0]["event"], events[-1]["event"])
    assert text == events[-1]["response"]["content"]


def test_json_is_safe_on_a_terminal(looms: Run, serve: Serve) -> None:
    """Control characters are escaped, and nothing is lost."""
    serve("a\x9b31m\x7fb\x1b[0m")
    _, out, _ = looms("chat", "--json", "hi")
    assert out.rstrip("\n").isprintable()
    assert "a\x9b31m\x7fb\x1b[0m" == json.loads(out)["content"]


@pytest.mark.parametrize(
    ("words", "stdin", "code", "part"),
    [
        ("--temperature 2.5 hi", b"", 5, "'temperature' must be between 0 and 2"),
        ("--temperature nan hi", b"", 5, "'temperature' must be between 0 and 2"),
        ("--max-tokens 0 hi", b"", 5, "'max_tokens' must be"),
        ("--max-tokens 999999999 hi", b"", 5, "'max_tokens' must be"),
        ("-m mistral-larg-latest hi", b"", 6, "did you mean 'mistral-large-latest'"),
        ("-m ' ' hi", b"", 5, "'model'"),
        ("", b"", 2, "there is no prompt"),
        ("'  '", b" \n", 2, "there is no prompt"),
        ("hi", b"caf\xe9", 2, "not UTF-8: byte 0xe9 at offset 3. Convert it first (iconv"),
        ("-a none.pdf hi", b"", 2, "cannot read 'none.pdf'"),
        ("--schema none.json hi", b"", 2, "cannot read 'none.json'"),
        ("--nope hi", b"", 2, "No such option"),
    ],
)
def test_bad_input_is_refused(
    words: str, stdin: bytes, code: int, part: str, asked_nothing: Run
) -> None:
    """Each is one clear line with its own exit code; no request leaves."""
    found = asked_nothing("chat", *shlex.split(words), stdin=stdin)
    assert (code, "") == (found.code, found.out)
    assert found.err.startswith("error[ERR_")
    assert part in found.err


def test_a_bad_schema_is_refused(asked_nothing: Run, tmp_path: Path) -> None:
    """A file that is not a JSON object is a usage error."""
    path = tmp_path / "schema.json"
    for content in ("{", "[]", "3"):
        path.write_text(content)
        code, _, err = asked_nothing("chat", "--schema", str(path), "hi")
        assert (2, True) == (code, "is not a JSON schema" in err)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (f"{CANARY} {CANARY}", "white space"),
        (f"{CANARY}\n{CANARY}", "line break"),
        (f"{CANARY}\x07", "control characters"),
    ],
)
def test_a_key_that_cannot_be_one(
    key: str, words: str, looms: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 3, what is wrong with it, and nothing of it."""
    monkeypatch.setenv("MISTRAL_API_KEY", key)
    for command in (("chat", "hi"), ("ping",)):
        code, out, err = looms(*command, "--debug")
        assert (3, "") == (code, out)
        assert words in err
        assert CANARY not in err


def test_no_key_says_the_two_ways(looms: Run) -> None:
    """One line: the simulator, or the variable."""
    code, out, err = looms("chat", "hi")
    assert (3, "") == (code, out)
    line = "no key found: run with --sim, or export MISTRAL_API_KEY=..."
    assert f"error[ERR_INVALID_API_KEY]: {line}\n" == err


def test_a_refused_key_is_not_shown(looms: Run, serve: Serve) -> None:
    """The vendor's 401 is exit 3; the key is in no stream, not even with --debug."""
    serve(key=CANARY)
    code, out, err = looms("chat", "--debug", "hi")
    assert (3, "") == (code, out)
    assert "error[ERR_INVALID_API_KEY]" in err
    assert CANARY not in err


def test_a_bad_setting_is_2(looms: Run) -> None:
    """The file and the key are named, with the nearest right one."""
    Path("looms.toml").write_text('modle = "x"\n')
    code, _, err = looms("chat", "--sim", "hi")
    assert 2 == code
    assert "looms.toml: unknown setting 'modle': did you mean 'model'?" in err


def test_an_error_in_the_middle_keeps_the_text(looms: Run, serve: Serve) -> None:
    """What came stays on standard output; error and cost so far are on the other."""
    serve([TextDelta("half an"), ServiceUnavailable("gone")])
    code, out, err = looms("chat", "hi")
    assert (75, "half an\n") == (code, out)
    cost, error = err.splitlines()[0], err.splitlines()[-1]
    assert cost.startswith("ended early · mistral-large-latest · about ")
    assert error.startswith("error[ERR_")


@pytest.mark.parametrize("stream", ["--stream", "--no-stream"])
def test_an_error_as_json(stream: str, looms: Run, serve: Serve) -> None:
    """One object on standard error with code, hint and whether to try again."""
    serve(ServiceUnavailable("gone"))
    with no_waits():
        code, out, err = looms("chat", "--json", stream, "hi")
    # Before it, the log told of each retry.
    error = json.loads(err.splitlines()[-1])["error"]
    assert 75 == code
    assert ("service_unavailable", True) == (error["code"], error["retryable"])
    assert "completed" not in out


def test_ping_says_ok_and_the_cost(looms: Run) -> None:
    """The connection test uses a small model and shows latency, tokens and cost."""
    code, out, err = looms("ping", "--sim", "-q")
    assert (0, "") == (code, err)
    assert out.startswith("ok · mistral-small-latest · ")
    _, out, _ = looms("ping", "--sim", "--json", "-m", "mistral-large-latest")
    value = json.loads(out)
    assert (True, "mistral-large-latest") == (value["ok"], value["model"])


def test_as_of_prices_the_call_of_that_day(looms: Run) -> None:
    """The same tokens cost what they cost in November 2024."""
    _, out, _ = looms("ping", "--sim", "--json", "--as-of", "2024-11")
    usage = json.loads(out)["usage"]
    assert "1.00" == usage["price"]["input_usd_per_mtok"]


def test_thinking_parts_are_in_the_object(looms: Run, serve: Serve) -> None:
    """`--json` has the thoughts in a field of their own."""
    parts = (ThinkingPart((TextPart("hm"),), closed=True), TextPart("so"))
    serve(Message.assistant(parts))
    _, out, _ = looms("chat", "--json", "hi")
    value = json.loads(out)
    assert ("so", "hm") == (value["content"], value["thinking"])


@pytest.mark.parametrize(
    ("event", "words"),
    [
        # The library's log tells of a retry, whoever reads the events.
        (Retried(2, 1.5, ServiceUnavailable("gone")), ""),
        (Throttled(3.0), "waiting 3.0 s for the rate limit\n"),
        (Restarted("cut", "mistral", "other"), "warning: the answer begins anew with other\n"),
    ],
)
def test_notices_are_told(
    event: StreamEvent, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What happens on the way is a line on standard error, and an object with --json."""
    terminal = Terminal()
    with Mistral(sim=True) as client:
        listener = Listener(terminal, client)
        listener._show(event)
        terminal.json = True
        listener._show(event)
    out, err = capsys.readouterr()
    assert words == err
    assert json.loads(out)["event"] == type(event).__name__.lower()
