"""Settings: precedence, refusal of what is unknown, and the address of the API."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.config.load import (
    load_settings,
    normalise_base_url,
    take_settings_from,
    user_file,
)
from loom.config.settings import Settings
from loom.core.errors import ConfigInvalid


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in an empty project folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_user(text: str) -> Path:
    path = user_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_nothing_set_gives_the_defaults() -> None:
    """Without files and variables every field has its default, and the data folder is known."""
    settings = load_settings()
    expected = Settings(data_dir=Path(os.environ["XDG_DATA_HOME"]) / "looms")
    assert expected == settings


def test_environment_beats_project_beats_user(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each source covers the one below it, field by field."""
    write_user('model = "user"\nmax_tokens = 1\ntemperature = 1\n')
    (project / "looms.toml").write_text('model = "project"\nmax_tokens = 2\n')
    monkeypatch.setenv("LOOM_MODEL", "environment")
    settings = load_settings()
    assert ("environment", 2, 1.0) == (settings.model, settings.max_tokens, settings.temperature)


def test_user_file_lies_in_the_xdg_folder(monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    """XDG_CONFIG_HOME decides where the user's file is."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(project / "etc"))
    assert project / "etc" / "looms" / "config.toml" == user_file()


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("LOOM_AS_OF", "2024-11", "as_of", date(2024, 11, 30)),
        ("LOOM_AS_OF", " 2024-02-01 ", "as_of", date(2024, 2, 1)),
        ("LOOM_BASE_URL", "http://127.0.0.1:8000", "base_url", "http://127.0.0.1:8000/v1"),
        ("LOOM_DATA_DIR", "/srv/loom", "data_dir", Path("/srv/loom")),
        ("LOOM_MAX_TOKENS", "512", "max_tokens", 512),
        ("LOOM_TEMPERATURE", "0", "temperature", 0.0),
        ("LOOM_TIMEOUT_S", "1.5", "timeout_s", 1.5),
        ("LOOM_SIM", "1", "sim", True),
        ("LOOM_SIM", "false", "sim", False),
        ("LOOM_SECRETS_ORDER", "vault, environment", "secrets_order", ("vault", "environment")),
        ("LOOM_MODEL", "", "model", None),
    ],
)
def test_environment_texts_become_values(
    variable: str, text: str, field: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable's text is read as its field's type; an empty one counts as not set."""
    monkeypatch.setenv(variable, text)
    assert value == getattr(load_settings(), field)


def test_vault_path_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """LOOM_VAULT_PATH completes what the file says of Vault."""
    write_user('[vault]\nfield = "key"\n')
    monkeypatch.setenv("LOOM_VAULT_PATH", "secret/looms")
    vault = load_settings().vault
    assert ("secret/looms", "key") == (vault.path, vault.field)


def test_toml_dates_are_days() -> None:
    """A date without quotation marks works too."""
    write_user("as_of = 2024-11-05\n")
    assert date(2024, 11, 5) == load_settings().as_of


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('modle = "x"', ["'modle'", "did you mean 'model'?"]),
        ("zzz = 1", ["'zzz'", "known are"]),
        ('[vault]\npaht = "x"', ["[vault]", "'paht'", "did you mean 'path'?"]),
        ("vault = 3", ["'vault' must be a table"]),
        ("max_tokens = 0", ["'max_tokens'", "1"]),
        ('max_tokens = "many"', ["'max_tokens'", "int"]),
        ("temperature = 2.5", ["'temperature'", "2"]),
        ("temperature = nan", ["'temperature'"]),
        ("model = 3", ["'model'", "str"]),
        ('as_of = "2024-13"', ["as_of", "2024-11"]),
        ('as_of = "yesterday"', ["as_of", "'yesterday'"]),
        ('base_url = "ftp://x"', ["'base_url'", "https://"]),
        ('secrets_order = ["moon"]', ["'secrets_order'"]),
        ("model = ", ["not TOML"]),
    ],
)
def test_bad_files_are_refused_with_file_and_name(text: str, parts: list[str]) -> None:
    """What cannot be a setting is an error that names the file, the key and what is expected."""
    path = write_user(text)
    with pytest.raises(ConfigInvalid) as caught:
        load_settings()
    for part in [str(path), *parts]:
        assert part in caught.value.message


def test_bad_variables_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the environment variable."""
    monkeypatch.setenv("LOOM_MAX_TOKENS", "many")
    with pytest.raises(ConfigInvalid, match="LOOM_MAX_TOKENS"):
        load_settings()


def test_files_that_are_not_utf8_are_refused() -> None:
    """A file in another encoding is an error, not a stack trace."""
    write_user("").write_bytes(b'model = "\xff"')
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        load_settings()


@pytest.mark.parametrize(
    "text",
    ['base_url = "https://elsewhere.example"', 'proxy = "http://x"', '[vault]\npath = "a/b"'],
)
def test_a_project_does_not_choose_where_the_key_goes(text: str, project: Path) -> None:
    """A downloaded folder cannot send the user's key to its own address."""
    (project / "looms.toml").write_text(text)
    with pytest.raises(ConfigInvalid, match="project"):
        load_settings()


def test_a_project_may_name_a_loopback_address(project: Path) -> None:
    """A simulator on this machine is no danger."""
    (project / "looms.toml").write_text('base_url = "http://localhost:8000"')
    assert load_settings().base_url == "http://localhost:8000/v1"


@pytest.mark.parametrize(
    ("given_url", "expected"),
    [
        ("https://api.mistral.ai", "https://api.mistral.ai/v1"),
        ("https://api.mistral.ai/", "https://api.mistral.ai/v1"),
        ("https://api.mistral.ai/v1", "https://api.mistral.ai/v1"),
        ("https://api.mistral.ai/v1//", "https://api.mistral.ai/v1"),
        (" https://API.mistral.ai:8443/proxy ", "https://api.mistral.ai:8443/proxy/v1"),
        ("http://localhost:1", "http://localhost:1/v1"),
        ("http://127.8.9.1/v1", "http://127.8.9.1/v1"),
        ("http://[::1]:80", "http://[::1]:80/v1"),
    ],
)
def test_addresses_are_brought_into_one_form(given_url: str, expected: str) -> None:
    """With or without /v1 and slashes: one form comes out."""
    assert expected == normalise_base_url(given_url)


@pytest.mark.parametrize(
    "url",
    [
        "", "   ", "api.mistral.ai", "//api.mistral.ai", "https://", "ftp://x", "file:///etc/passwd",
        "http://api.mistral.ai", "http://0.0.0.0:80", "http://127.0.0.1.evil.example",
        "http://localhost.evil.example", "http://2130706433", "https://x:99999", "https://x:port",
        "https://user:secret@x", "https://x?key=1", "https://x#part", "https://x/\ny", "https://ä.de",
        "https://x y", "https://[::1", "https://api.mistral.ai/v1/chat/completions",
    ],
)  # fmt: skip
def test_addresses_that_cannot_be_one_are_refused(url: str) -> None:
    """Plain http to elsewhere, passwords, queries and nonsense are configuration errors."""
    with pytest.raises(ConfigInvalid, match="'base_url'") as caught:
        normalise_base_url(url)
    assert "secret" not in str(caught.value)


@given(st.text(max_size=40) | st.text(max_size=40).map("https://{}".format))
def test_any_text_is_one_form_or_a_refusal(url: str) -> None:
    """Normalising is idempotent, and nothing but ConfigInvalid comes out of bad input."""
    try:
        once = normalise_base_url(url)
    except ConfigInvalid:
        return
    assert once == normalise_base_url(once)
    assert once.endswith("/v1")


def test_a_named_file_takes_the_place_of_the_projects(project: Path) -> None:
    """Who names a file trusts it: it may choose an address, and the user's own still holds."""
    write_user('model = "user"\ntemperature = 0.1')
    (project / "looms.toml").write_text('model = "project"')
    named = project / "named.toml"
    named.write_text('model = "named"\nbase_url = "https://relay.example"')
    take_settings_from(named)
    try:
        settings = load_settings()
    finally:
        take_settings_from(None)
    assert ("named", 0.1) == (settings.model, settings.temperature)
    assert "https://relay.example/v1" == settings.base_url
    assert "project" == load_settings().model


def test_a_named_file_must_be_there(project: Path) -> None:
    """A slip in its name is no empty file."""
    with pytest.raises(ConfigInvalid, match=r"there is no file .*none\.toml"):
        take_settings_from(project / "none.toml")
