"""Recorded exchanges are written without a secret, and are answered again as they were."""

from __future__ import annotations

import gzip
import http.client
import json
import queue
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.recorded import FOLDER, needed

from loom import Mistral
from loom.core.errors import ConfigInvalid
from loom.server.simulator import Simulator
from loom.server.simulator.listener import Listener
from loom.server.simulator.meaning import exact_form, meaning, steps_that_differ
from loom.server.simulator.record import Recorder
from loom.server.simulator.recordings import Recording, kind_of, read_folder, write_recording
from loom.server.simulator.replay import Replay, Shelf, parsed_body
from loom.transport.http import HttpTransport
from loom.wire.mistral.dialect import MistralDialect

# Long, and with characters that JSON and URLs write in another way.
CANARY = 'canary-"4f1d/9c2b\\7e'
MODEL = "mistral-small-latest"


class Reply(msgspec.Struct, frozen=True):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def message(self) -> str:
        return str(json.loads(self.body)["message"])


def send(
    base: str, method: str, target: str, body: Any = None, headers: dict[str, str] | None = None
) -> Reply:
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    with closing(http.client.HTTPConnection(base.split("/")[2], timeout=20)) as connection:
        connection.request(method, target, data, headers or {})
        reply = connection.getresponse()
        return Reply(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())


@contextmanager
def listening(make: Any) -> Iterator[str]:
    listener = Listener(make, 0)
    listener.start()
    try:
        yield f"http://127.0.0.1:{listener.port}"
    finally:
        listener.stop()


@contextmanager
def replaying(folder: Path) -> Iterator[str]:
    with listening(lambda: Replay(folder)) as base:
        yield base


@contextmanager
def recording(folder: Path, upstream: str) -> Iterator[str]:
    def make() -> Recorder:
        return Recorder(folder, upstream, transport=HttpTransport(), dialect=MistralDialect())

    with listening(make) as base:
        yield base


def asked(text: str, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], **more}


CHAT = "/v1/chat/completions"


class Upstream(ThreadingHTTPServer):
    """Does what the last step of the path says, and sends the key back in every way it knows."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.go_on = threading.Event()
        self.seen: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Upstream

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.seen.put({k.lower(): v for k, v in self.headers.items()})
        what = self.path.partition("?")[0].rpartition("/")[2]
        key = self.headers["authorization"].partition(" ")[2]
        match what:
            case "echo":
                body = json.dumps({"said": key, "path": self.path}).encode()
                more = {"x-echo": f"for {key}", "set-cookie": "session=opensesame12345"}
                self.whole(401, body, more)
            case "packed":
                body = gzip.compress(b'{"packed":true}')
                self.whole(200, body, {"content-encoding": "gzip"})
            case "bytes":
                self.whole(200, b"\xff\xfe\x00", {"content-type": "audio/mpeg"})
            case "moved":
                self.whole(302, b"", {"location": "https://elsewhere.test/"})
            case _:
                self.stream(cut=what == "cut")

    def whole(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        named = {"content-type": "application/json", "content-length": str(len(body)), **headers}
        for name, text in named.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def stream(self, *, cut: bool) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.piece(b'data: {"n":1}\n\n')
        self.server.go_on.wait(20)
        if cut:
            self.close_connection = True
            return
        self.piece(b"data: [DONE]\n\n")
        self.piece(b"")

    def piece(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
        thread.start()
        try:
            yield server
        finally:
            server.go_on.set()
            server.shutdown()
            thread.join()


def address(server: Upstream) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}/v1"


def test_what_was_recorded_is_replayed(tmp_path: Path) -> None:
    """Our own client gets the same answers from the recording, plain, streamed and refused."""
    with Simulator() as sim:
        with (
            recording(tmp_path, sim.base_url) as base,
            Mistral(sim.api_key, base_url=base) as m,
        ):
            first = m.chat("Tell me a story", model=MODEL)
            with m.stream("Tell me a story", model=MODEL) as stream:
                text = "".join(stream.text_stream)
            listed = send(base, "GET", "/v1/models", headers=_key(sim.api_key))
        refused = send(sim.base_url, "GET", "/v1/models", headers=_key("wrong"))

    with replaying(tmp_path) as base, Mistral("any-key", base_url=base) as m:
        assert first.content == m.chat("Tell me a story", model=MODEL).content
        with m.stream("Tell me a story", model=MODEL) as stream:
            assert text == "".join(stream.text_stream) == first.content
        assert listed.body == send(base, "GET", "/v1/models").body != refused.body
    names = sorted(path.name for path in tmp_path.iterdir())
    assert ["chat-001.json", "chat-stream-001.json", "models-001.json"] == names


def test_the_simulator_records_and_replays(tmp_path: Path) -> None:
    """Both are options of the simulator; a replay asks for no key."""
    with (
        Simulator() as real,
        Simulator(record=tmp_path, upstream=real.base_url) as proxy,
        Mistral(real.api_key, base_url=proxy.base_url) as m,
    ):
        said = m.chat("Say hello", model=MODEL).content

    with Simulator(replay=str(tmp_path)) as sim, Mistral("other", base_url=sim.base_url) as m:
        assert said == m.chat("Say hello", model=MODEL).content
        missing = send(sim.base_url, "POST", CHAT, asked("Say hi"))
    assert 404 == missing.status
    assert "differs in" in missing.message


@pytest.mark.parametrize(
    "options",
    [{"record": "a", "replay": "a"}, {"record": "a"}, {"upstream": "https://x.test/v1"}],
)
def test_options_that_contradict_are_refused(options: dict[str, Any]) -> None:
    """Nothing is started, and the message names the options."""
    with pytest.raises(ConfigInvalid, match="record and"):
        Simulator(**options)


def _key(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}", "content-type": "application/json"}


def test_no_secret_is_written(tmp_path: Path, upstream: Upstream) -> None:
    """A key that is echoed in body, headers and path stands in no file; the caller gets it all."""
    headers = {
        **_key(CANARY),
        "cookie": f"session={CANARY[:12]}",
        "x-api-key": "another-canary-1",
        "user-agent": f"tester {CANARY}",
    }
    with recording(tmp_path, address(upstream)) as base:
        target = "/v1/echo?api_key=third-canary-77&x=1"
        reply = send(base, "POST", target, {"note": CANARY}, headers)

    sent = upstream.seen.get(timeout=5)
    (file,) = tmp_path.iterdir()
    written = file.read_text()
    assert (401, CANARY) == (reply.status, json.loads(reply.body)["said"])
    assert f"Bearer {CANARY}" == sent["authorization"]
    for secret in (CANARY, json.dumps(CANARY)[1:-1], "canary", "4f1d", "opensesame12345"):
        assert secret not in written
    recorded = json.loads(written)
    assert {"content-type", "user-agent"} == recorded["request"]["headers"].keys()
    assert {"note": "[secret]"} == recorded["request"]["body"]
    assert "/v1/echo?api_key=[secret]&x=1" == recorded["request"]["path"]
    assert "for [secret]" == recorded["response"]["headers"]["x-echo"]
    assert "error-401" == recorded["kind"]
    assert 0o600 == file.stat().st_mode & 0o777


def test_a_stream_passes_as_it_comes(tmp_path: Path, upstream: Upstream) -> None:
    """The first event is at the caller while the upstream still waits with the second."""
    with (
        recording(tmp_path, address(upstream)) as base,
        closing(http.client.HTTPConnection(base.split("/")[2], timeout=20)) as connection,
    ):
        connection.request("POST", "/v1/events", b"{}", _key("k"))
        reply = connection.getresponse()
        first = reply.read1()
        upstream.go_on.set()
        rest = reply.read()

    assert (b'data: {"n":1}\n\n', b"data: [DONE]\n\n") == (first, rest)
    (written,) = read_folder(tmp_path)
    assert first + rest == written.body


def test_a_cut_answer_is_not_recorded(tmp_path: Path, upstream: Upstream) -> None:
    """The caller sees the break, and no file pretends that this was the answer."""
    upstream.go_on.set()
    with (
        recording(tmp_path, address(upstream)) as base,
        pytest.raises(http.client.IncompleteRead),
    ):
        send(base, "POST", "/v1/cut", {}, _key("k"))

    assert [] == list(tmp_path.iterdir())


def test_compressed_and_binary_answers_are_kept(tmp_path: Path, upstream: Upstream) -> None:
    """A file holds what the bytes mean; a replay gives the same bytes."""
    with recording(tmp_path, address(upstream)) as base:
        packed = send(base, "POST", "/v1/packed", {}, _key("k"))
        raw = send(base, "POST", "/v1/bytes", {}, _key("k"))
    with replaying(tmp_path) as base:
        again = [send(base, "POST", f"/v1/{name}", {}) for name in ("packed", "bytes")]

    assert [b'{"packed":true}', b"\xff\xfe\x00"] == [packed.body, raw.body]
    assert [packed.body, raw.body] == [each.body for each in again]
    assert "content-encoding" not in packed.headers
    assert "audio/mpeg" == again[1].headers["content-type"]


def test_an_upstream_that_is_not_there_is_told(tmp_path: Path, upstream: Upstream) -> None:
    """Errors on the way come in the envelope, and are no recordings; redirects are not followed."""
    upstream.server_close()
    with recording(tmp_path, address(upstream)) as base:
        gone = send(base, "POST", CHAT, {}, _key("k"))

    assert gone.status >= 500
    assert "error" == json.loads(gone.body)["object"]
    assert [] == list(tmp_path.iterdir())


def test_a_redirect_is_not_followed(tmp_path: Path, upstream: Upstream) -> None:
    """The key goes to no other address."""
    with recording(tmp_path, address(upstream)) as base:
        reply = send(base, "POST", "/v1/moved", {}, _key("k"))

    assert "error" == json.loads(reply.body)["object"]
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("base", ["http://api.example.test/v1", "ftp://x", "nonsense"])
def test_a_key_does_not_travel_in_clear(tmp_path: Path, base: str) -> None:
    """An upstream is https, or on this machine."""
    with pytest.raises(ConfigInvalid):
        Recorder(tmp_path, base, transport=HttpTransport(), dialect=MistralDialect())


def test_a_folder_that_cannot_be_written_is_told_first(tmp_path: Path) -> None:
    """A file in the folder's place is one clear error, before anything is sent."""
    place = tmp_path / "file"
    place.write_text("")

    with pytest.raises(ConfigInvalid, match="cannot record into"):
        Recorder(
            place, "http://127.0.0.1:1/v1", transport=HttpTransport(), dialect=MistralDialect()
        )


def test_a_disk_that_fails_leaves_the_answer_whole(
    tmp_path: Path, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be written is logged; the caller has the answer."""
    folder = tmp_path / "recordings"
    with recording(folder, address(upstream)) as base:
        folder.rmdir()
        reply = send(base, "POST", "/v1/packed", {}, _key("k"))

    assert b'{"packed":true}' == reply.body
    assert "an exchange was not recorded" in caplog.text


def test_the_recorded_exchanges_can_be_replayed() -> None:
    """Every recorded request gets a recorded answer to it, byte for byte."""
    needed()
    recordings = read_folder(FOLDER)
    answers: dict[tuple[str, ...], list[tuple[int, bytes]]] = {}
    for each in recordings:
        key = (each.method, each.path, meaning(each.request_body))
        answers.setdefault(key, []).append((each.status, each.body))

    with replaying(FOLDER) as base:
        for each in recordings:
            reply = send(base, each.method, each.path, each.request_body)
            key = (each.method, each.path, meaning(each.request_body))
            assert (reply.status, reply.body) in answers[key], each.file


def test_what_is_not_recorded_is_said(tmp_path: Path) -> None:
    """The answer names the request, the nearest recording and the difference, and no prompt."""
    save(tmp_path, asked("a word", temperature=0))
    save(tmp_path, {**asked("b word"), "model": "mistral-large-latest", "n": 2})

    with replaying(tmp_path) as base:
        near = send(base, "POST", CHAT, asked("another word", temperature=0.5))
        far = send(base, "GET", "/v1/files?page=2")

    assert (404, 404) == (near.status, far.status)
    assert (
        f"No recording of POST {CHAT} for {MODEL} with this body. The nearest of 2 is"
        " chat-001.json; it differs in messages[0].content, temperature."
    ) == near.message
    assert f"No recording of GET /v1/files?page=2. Recorded are: POST {CHAT}." == far.message
    assert "not_recorded" == json.loads(near.body)["type"]
    assert b"word" not in near.body


def save(folder: Path, body: Any, answer: bytes = b"{}") -> None:
    sent = Recording(method="POST", path=CHAT, request_body=body, body=answer)
    write_recording(folder, sent, "test")


def test_no_recording_is_written_over(tmp_path: Path) -> None:
    """A number that is in use is passed over, also when an earlier file was taken away."""
    for number in range(3):
        save(tmp_path, {"n": number})
    tmp_path.joinpath("chat-001.json").unlink()
    save(tmp_path, {"n": 3})

    assert [1, 2, 3] == [each.request_body["n"] for each in read_folder(tmp_path)]


def test_an_exact_recording_comes_first(tmp_path: Path) -> None:
    """Of two that mean the same the one that is written alike answers; both answer others."""
    save(tmp_path, {"model": "m", "n": 1}, b"1")
    save(tmp_path, {"n": 1, "model": "m"}, b"2")
    shelf = Shelf(read_folder(tmp_path))

    def find(body: Any) -> bytes:
        found = shelf.find("POST", CHAT, body)
        assert found is not None
        return found.body

    assert [b"2", b"1"] == [find({"n": 1, "model": "m"}), find({"model": "m", "n": 1})]
    other = {"stream": False, "model": "m", "n": 1}
    assert [b"1", b"2", b"2"] == [find(other), find(other), find(other)]


def call(id: str, arguments: Any) -> dict[str, Any]:  # noqa: A002  the word of the wire
    return {"id": id, "function": {"name": "f", "arguments": arguments}}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"temperature": 0.0}, {"temperature": 0}, True),
        ({"n": True}, {"n": 1}, False),
        ({"model": "m", "stop": None, "stream": False}, {"model": "m"}, True),
        ({"stream": True}, {}, False),
        ({"metadata": {"a": None}}, {"metadata": {}}, False),
        ([call("a", '{"x": 1, "y": 2}')], [call("b", {"y": 2, "x": 1})], True),
        ([call("a", '{"id": "x"}')], [call("a", '{"id": "y"}')], False),
        (
            [call("a", "{}"), call("b", "{}"), {"tool_call_id": "b"}],
            [call("c", "{}"), call("d", "{}"), {"tool_call_id": "d"}],
            True,
        ),
        (
            [call("a", "{}"), call("b", "{}"), {"tool_call_id": "b"}],
            [call("c", "{}"), call("d", "{}"), {"tool_call_id": "c"}],
            False,
        ),
        ([call("a", "{not json")], [call("a", "{not json!")], False),
        ({"messages": []}, {"messages": [{}]}, False),
        ("text", None, False),
    ],
)
def test_the_meaning_of_a_body(one: Any, other: Any, same: bool) -> None:  # noqa: FBT001 - a column
    """Writing makes no difference, everything else does; the places agree with the verdict."""
    assert same == (meaning(one) == meaning(other))
    assert same == (steps_that_differ(one, other) == [])


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(JSON_VALUES)
def test_a_body_means_what_it_means_when_written_again(value: Any) -> None:
    """Through JSON and back nothing changes; the exact form tells orders of keys apart."""
    again = parsed_body(json.dumps(value).encode())

    assert exact_form(value) == exact_form(again)
    assert meaning(value) == meaning(again)
    assert [] == steps_that_differ(value, again)


@given(st.binary(max_size=50), st.sampled_from([200, 404, 500]), JSON_VALUES)
def test_a_recording_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, body: bytes, status: int, asked_for: Any
) -> None:
    """Any bytes and any request come back."""
    folder = tmp_path_factory.mktemp("recordings")
    written = Recording(
        method="POST",
        path="/v1/x?y=1",
        request_body=asked_for,
        status=status,
        headers={"content-type": "text/plain"},
        body=body,
    )
    path = write_recording(folder, written, "test")

    assert [msgspec.structs.replace(written, file=path.name)] == read_folder(folder)


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("/v1/chat/completions", 200, "chat"),
        ("/v1/models?x=/../../y", 200, "models"),
        ("/v1/../../etc/passwd", 200, "other"),
        ("/", 200, "other"),
        ("/v1/fim/completions", 429, "error-429"),
    ],
)
def test_a_file_is_named_after_what_it_shows(path: str, status: int, kind: str) -> None:
    """The name is a word of the path, or the error; never a way out of the folder."""
    assert kind == kind_of(Recording(method="GET", path=path, status=status))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no file there is a recorded exchange"),
        ("[]", "a.json: not a recorded exchange"),
        ('{"response": {"body": "!", "encoding": "base64"}}', "a.json: not a recorded exchange"),
        ('{"response": {"body": ""}}', "no file there is a recorded exchange"),
    ],
)
def test_a_bad_folder_is_told_before_serving(
    tmp_path: Path, content: str | None, reason: str
) -> None:
    """One clear line names the folder or the file."""
    if content is not None:
        tmp_path.joinpath("a.json").write_text(content)

    with pytest.raises(ConfigInvalid, match=reason):
        Replay(tmp_path)
    with pytest.raises(ConfigInvalid, match="cannot replay from"):
        Replay(tmp_path / "absent")


def test_strange_bodies_are_answered(tmp_path: Path) -> None:
    """No JSON, deep nesting and no body at all are requests like others."""
    save(tmp_path, {"model": "m"})
    with replaying(tmp_path) as base:
        replies = [
            send(base, "POST", CHAT, body)
            for body in (b"", b"\xff", b"[" * 100_000, b"[" * 900 + b"]" * 900, b"{}")
        ]

    assert {400, 404} >= {reply.status for reply in replies}
    assert all("error" == json.loads(reply.body)["object"] for reply in replies)
