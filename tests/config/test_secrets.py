"""Keys: which source wins, what a key may look like, and that a key is never shown."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import keyring
import keyring.backend
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keyring.backends.fail import Keyring as NoKeyring
from keyrings.alt.file import PlaintextKeyring  # type: ignore[import-untyped] # has no types

from loom.config import secrets
from loom.config.secrets import find_api_key
from loom.config.settings import Settings, VaultSettings
from loom.core.errors import ConfigInvalid, InvalidAPIKey
from loom.core.secret import Secret

# The one form of a fake key in this project: no scanner takes it for a real one.
CANARY = "loom-canary-key-0123456789"


@pytest.fixture(autouse=True)
def no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in an empty folder, without Vault."""
    monkeypatch.chdir(tmp_path)
    for name in ("VAULT_ADDR", "BAO_ADDR", "VAULT_TOKEN", "BAO_TOKEN", "VAULT_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("LOOM_LLM_MISTRAL_API_KEY", raising=False)


@pytest.fixture
def use_keyring() -> Iterator[None]:
    """Put the keyring back that was there before."""
    before = keyring.get_keyring()
    yield
    keyring.set_keyring(before)


@pytest.fixture
def file_keyring(tmp_path: Path, use_keyring: None) -> PlaintextKeyring:
    """Use a real keyring: one that keeps its entries in a file."""
    ring = PlaintextKeyring()
    ring.file_path = str(tmp_path / "keyring.cfg")
    keyring.set_keyring(ring)
    return ring


class Vault(BaseHTTPRequestHandler):
    """A KV version 2 engine at `secret/`, as the HTTP API of Vault and OpenBao describes it."""

    protocol_version = "HTTP/1.1"
    data: ClassVar[dict[str, object]] = {}
    token = "vault-token"

    def do_GET(self) -> None:
        """Answer a read of the newest version."""
        if self.headers.get("X-Vault-Token") != self.token:
            self.answer(403, {"errors": ["permission denied"]})
        elif self.path not in self.data:
            self.answer(404, {"errors": []})
        else:
            self.answer(200, self.wrap(self.data[self.path]))

    @staticmethod
    def wrap(data: object) -> object:
        """Give a secret as the engine does."""
        return {"data": {"data": data, "metadata": {"version": 1}}}

    def answer(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Stay quiet."""


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    """Run a loopback Vault; give its secrets by API path."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Vault)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("VAULT_ADDR", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("VAULT_TOKEN", Vault.token)
    Vault.data.clear()
    yield Vault.data
    server.shutdown()
    thread.join()
    server.server_close()


IN_VAULT = Settings(vault=VaultSettings(path="secret/team/looms"))


def test_the_argument_wins_over_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that the caller gives is the one, white space around it stripped."""
    monkeypatch.setenv("MISTRAL_API_KEY", "other")
    for given_key in (f" {CANARY}\n", Secret(CANARY)):
        found = find_api_key(given_key)
        assert (CANARY, "argument") == (found.secret.reveal(), found.source)


def test_our_own_variable_wins_over_the_vendors(monkeypatch: pytest.MonkeyPatch) -> None:
    """LOOM_LLM_MISTRAL_API_KEY comes before MISTRAL_API_KEY."""
    monkeypatch.setenv("MISTRAL_API_KEY", CANARY)
    assert find_api_key().source == "env:MISTRAL_API_KEY"
    monkeypatch.setenv("LOOM_LLM_MISTRAL_API_KEY", CANARY)
    assert find_api_key().source == "env:LOOM_LLM_MISTRAL_API_KEY"


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shells say "not set" with an empty variable: the next place is asked."""
    monkeypatch.setenv("LOOM_LLM_MISTRAL_API_KEY", " ")
    monkeypatch.setenv("MISTRAL_API_KEY", CANARY)
    assert find_api_key().source == "env:MISTRAL_API_KEY"


@pytest.mark.parametrize("blank", ["", "  \n", Secret("")])
def test_a_blank_argument_is_an_error(blank: str | Secret, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty key does not fall through to the environment."""
    monkeypatch.setenv("MISTRAL_API_KEY", CANARY)
    with pytest.raises(InvalidAPIKey, match="empty"):
        find_api_key(blank)


@pytest.mark.parametrize(
    ("key", "word"),
    [
        (f"{CANARY} {CANARY}", "white space"),
        (f"{CANARY}\n{CANARY}", "line break"),
        (f"Bearer {CANARY}", "white space"),
        (f"{CANARY}\x00{CANARY}", "control characters"),
        (f"{CANARY}\x7f{CANARY}", "control characters"),
        (f"{CANARY}\u200b", "not ASCII"),
        (f"\u201c{CANARY}\u201d", "not ASCII"),
        (f'"{CANARY}"', "quotation marks"),
    ],
)
def test_what_cannot_be_a_key_is_refused(
    key: str, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says what is wrong and where, and shows nothing of the key."""
    monkeypatch.setenv("MISTRAL_API_KEY", key.replace("\x00", "\x01"))
    for source, argument in (("argument", key), ("env:MISTRAL_API_KEY", None)):
        with pytest.raises(InvalidAPIKey, match=word) as caught:
            find_api_key(argument)
        assert source in str(caught.value)
        assert "canary" not in str(caught.value) + caught.value.hint


@given(st.text())
def test_a_key_is_clean_or_refused(text: str) -> None:
    """Whatever is given, only printable ASCII comes out, or InvalidAPIKey without the text."""
    try:
        key = find_api_key(text).secret.reveal()
    except InvalidAPIKey as error:
        # Short texts occur in the message's own words.
        assert len(text) < 8 or text not in str(error)
        return
    assert text.strip() == key
    assert key.isascii()
    assert key.isprintable()


def test_no_key_names_two_ways(use_keyring: None) -> None:
    """Without a key anywhere the error begins as promised and says what to do."""
    keyring.set_keyring(NoKeyring())  # type: ignore[no-untyped-call] # the package's own
    with pytest.raises(InvalidAPIKey) as caught:
        find_api_key()
    message = str(caught.value)
    assert message.startswith("API key is required")
    assert "api_key=" in message
    assert "MISTRAL_API_KEY" in message
    assert caught.value.exit_code == 3


def test_the_keyring_is_asked_after_the_environment(file_keyring: PlaintextKeyring) -> None:
    """A key that was stored in the keyring is found under Loom's service."""
    file_keyring.set_password(secrets.KEYRING_SERVICE, "mistral_api_key", CANARY)
    found = find_api_key()
    assert (CANARY, "keyring:mistral_api_key") == (found.secret.reveal(), found.source)


def test_a_keyring_entry_of_another_name(file_keyring: PlaintextKeyring) -> None:
    """The name may be chosen."""
    file_keyring.set_password(secrets.KEYRING_SERVICE, "mistral_key", CANARY)
    assert find_api_key(name="mistral_key").source == "keyring:mistral_key"


def test_a_keyring_that_raises_counts_as_absent(use_keyring: None) -> None:
    """A back end that fails in its own way is one word in the message, not a stack trace."""

    class Broken(keyring.backend.KeyringBackend):
        priority = 1

        def get_password(self, service: str, username: str) -> str | None:
            raise OSError("no session bus")

        def set_password(self, service: str, username: str, password: str) -> None:
            raise OSError

    keyring.set_keyring(Broken())  # type: ignore[no-untyped-call] # the package's own
    with pytest.raises(InvalidAPIKey, match="no usable keyring here: OSError"):
        find_api_key()


def test_a_keyring_that_hangs_is_left(use_keyring: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A back end that waits for somebody to unlock it does not hold the program up."""
    done = threading.Event()

    class Locked(keyring.backend.KeyringBackend):
        priority = 1

        def get_password(self, service: str, username: str) -> str | None:
            done.wait()
            return None

        def set_password(self, service: str, username: str, password: str) -> None:
            raise NotImplementedError

    monkeypatch.setattr(secrets, "_KEYRING_PATIENCE_S", 0.05)
    keyring.set_keyring(Locked())  # type: ignore[no-untyped-call] # the package's own
    try:
        with pytest.raises(InvalidAPIKey, match="gave no answer"):
            find_api_key()
    finally:
        done.set()


def test_without_the_keyring_package_nothing_breaks(tmp_path: Path) -> None:
    """Where the extra is not installed the key is just not found."""
    program = (
        "import sys; sys.modules['keyring'] = None\n"
        "from loom.config.secrets import find_api_key\n"
        "from loom.core.errors import InvalidAPIKey\n"
        "try:\n    find_api_key()\n"
        "except InvalidAPIKey as error:\n    print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert run.stdout.startswith("API key is required")


@pytest.mark.parametrize("path", ["secret/team/looms", "/secret/data/team/looms/"])
def test_vault_gives_the_field(path: str, vault: dict[str, object]) -> None:
    """A KV version 2 secret is read; both spellings of its path work."""
    vault["/v1/secret/data/team/looms"] = {"mistral_api_key": f"{CANARY}\n"}
    found = find_api_key(settings=Settings(vault=VaultSettings(path=path)))
    assert CANARY == found.secret.reveal()
    assert f"vault:{path}#mistral_api_key" == found.source


def test_vault_gives_no_vendor_the_key_of_another(vault: dict[str, object]) -> None:
    """The field of the settings holds Mistral's key; OpenAI's lies in a field of its own."""
    vault["/v1/secret/data/team/looms"] = {"mistral_api_key": "not-for-others", "k": CANARY}
    settings = Settings(vault=VaultSettings(path="secret/team/looms", field="k"))
    assert CANARY == find_api_key(settings=settings).secret.reveal()
    with pytest.raises(InvalidAPIKey, match="vault:secret/team/looms#openai_api_key"):
        find_api_key(name="openai_api_key", settings=settings)


def test_openbao_names_work_too(vault: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """BAO_ADDR and BAO_TOKEN stand for VAULT_ADDR and VAULT_TOKEN."""
    vault["/v1/secret/data/team/looms"] = {"mistral_api_key": CANARY}
    for kind in ("ADDR", "TOKEN"):
        monkeypatch.setenv(f"BAO_{kind}", os.environ[f"VAULT_{kind}"])
        monkeypatch.delenv(f"VAULT_{kind}")
    assert CANARY == find_api_key(settings=IN_VAULT).secret.reveal()


@pytest.mark.parametrize(
    ("content", "token", "word"),
    [
        (None, Vault.token, "nothing there"),
        ({"other": "x"}, Vault.token, "no such field"),
        ({"mistral_api_key": ""}, Vault.token, "no such field"),
        ({"mistral_api_key": 3}, Vault.token, "no such field"),
        ({"mistral_api_key": CANARY}, "wrong", "Forbidden"),
    ],
)
def test_a_vault_without_the_key_says_why(
    content: object, token: str, word: str, vault: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The error of the whole search says what was wrong with Vault."""
    if content is not None:
        vault["/v1/secret/data/team/looms"] = content
    monkeypatch.setenv("VAULT_TOKEN", token)
    with pytest.raises(InvalidAPIKey, match=word) as caught:
        find_api_key(settings=IN_VAULT)
    assert str(caught.value).startswith("API key is required")
    assert CANARY not in str(caught.value)


def test_a_vault_without_its_package_names_the_extra(
    vault: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where hvac is not installed the error says how to get it."""
    monkeypatch.setitem(sys.modules, "hvac", None)
    with pytest.raises(InvalidAPIKey, match=r"pip install 'looms\[vault\]'"):
        find_api_key(settings=IN_VAULT)


@pytest.mark.parametrize("reply", [{"data": None}, {"data": {"data": None}}, {"other": 1}])
def test_another_engine_in_vault_is_not_taken_for_a_secret(
    reply: object, vault: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reply of another form says so, and gives no stack trace."""
    monkeypatch.setattr(Vault, "wrap", staticmethod(lambda _data: reply))
    vault["/v1/secret/data/team/looms"] = {}
    with pytest.raises(InvalidAPIKey, match=r"version 2 engine|no such field"):
        find_api_key(settings=IN_VAULT)


def test_a_vault_that_is_down_falls_through(
    vault: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings file's reference is used when Vault cannot be reached."""
    monkeypatch.setenv("VAULT_ADDR", "http://127.0.0.1:1")
    monkeypatch.setenv("TEAM_KEY", CANARY)
    settings = Settings(vault=IN_VAULT.vault, mistral_api_key="env:TEAM_KEY")
    assert find_api_key(settings=settings).source == "env:TEAM_KEY"


def test_the_order_can_be_chosen(vault: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Places are asked as `secrets_order` lists them; those left out are not asked."""
    vault["/v1/secret/data/team/looms"] = {"mistral_api_key": CANARY}
    monkeypatch.setenv("MISTRAL_API_KEY", "other")
    first = Settings(vault=IN_VAULT.vault, secrets_order=("vault", "environment"))
    assert CANARY == find_api_key(settings=first).secret.reveal()
    with pytest.raises(InvalidAPIKey):
        find_api_key(settings=Settings(secrets_order=("reference",)))


def test_a_key_file_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file of mode 0600 is taken without a word; a mark of Windows editors does not matter."""
    path = tmp_path / "key"
    path.write_bytes(b"\xef\xbb\xbf" + CANARY.encode() + b"\r\n")
    path.chmod(0o600)
    found = find_api_key(settings=Settings(mistral_api_key=f"file:{path}"))
    assert (CANARY, f"file:{path}") == (found.secret.reveal(), found.source)
    assert not caplog.records


def test_a_key_file_that_others_may_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The key is used, and a warning names the file and the command that closes it."""
    path = tmp_path / "key"
    path.write_text(CANARY)
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        find_api_key(settings=Settings(mistral_api_key=f"file:{path}"))
    assert f"chmod 600 {path}" in caplog.text
    assert CANARY not in caplog.text


@pytest.mark.parametrize("reference", ["file:/no/such/file", "file:/", "env:NO_SUCH_NAME"])
def test_a_reference_to_nothing_says_so(reference: str) -> None:
    """The error of the search names the reference."""
    with pytest.raises(InvalidAPIKey, match="API key is required") as caught:
        find_api_key(settings=Settings(mistral_api_key=reference))
    assert reference in str(caught.value)


@pytest.mark.parametrize("value", [CANARY, f"key:{CANARY}", "env:", "file:", ""])
def test_a_key_in_the_settings_is_refused(value: str) -> None:
    """Settings say where a key is; a key itself is refused and not shown."""
    with pytest.raises(ConfigInvalid, match="never be the key") as caught:
        find_api_key(settings=Settings(mistral_api_key=value))
    assert "canary" not in str(caught.value)


def test_a_keyring_reference(file_keyring: PlaintextKeyring) -> None:
    """`keyring:NAME` takes an entry of another name."""
    file_keyring.set_password(secrets.KEYRING_SERVICE, "team", CANARY)
    found = find_api_key(settings=Settings(mistral_api_key="keyring:team"))
    assert (CANARY, "keyring:team") == (found.secret.reveal(), found.source)


def test_a_found_key_is_not_shown() -> None:
    """The value that carries the key prints without it."""
    assert CANARY not in repr(find_api_key(CANARY))
