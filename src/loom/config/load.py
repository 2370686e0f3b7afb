"""
Settings from the environment and two files.

The first that says something wins: a flag or an argument, then `LOOM_*` in the environment, then
`looms.toml` in the current folder, then the user's `config.toml`, then the default.
Flags and arguments are the business of whoever has them; the rest is here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from loom.catalog.dates import parse_as_of
from loom.config.settings import Settings, VaultSettings
from loom.core.errors import ConfigInvalid

__all__ = [
    "is_loopback",
    "load_settings",
    "normalise_base_url",
    "project_file",
    "started_by_uv",
    "take_settings_from",
    "user_file",
    "wants_latest_genai_names",
]

# A folder that somebody downloaded must not send the user's key to an address of its choice.
_NOT_IN_PROJECT = ("proxy", "vault")
_FROM_ENVIRONMENT = tuple(
    name for name in Settings.__struct_fields__ if not name.endswith("_api_key") and name != "vault"
)
_ADDRESSES = ("base_url", "openai_base_url")
# The file that somebody named, for the whole process.
_named: list[Path] = []


def user_file() -> Path:
    """The user's settings: `~/.config/looms/config.toml` on Linux, XDG variables honoured."""
    from platformdirs import user_config_path  # noqa: PLC0415 - start-up time

    return user_config_path("looms") / "config.toml"


def project_file() -> Path:
    """The project's settings: `looms.toml` in the current folder, not in those above it."""
    return Path("looms.toml")


def take_settings_from(path: Path | None) -> None:
    """
    Let a file take the place of the project's, for the whole process.

    Who names a file trusts it: it may say everything that the user's own may.

    Args:
        path: The file; None: the project's again.

    Raises:
        ConfigInvalid: If there is no such file.
    """
    if path is not None and not path.is_file():
        raise ConfigInvalid(f"there is no file {path}")
    _named[:] = [] if path is None else [path]


def load_settings() -> Settings:
    """
    Read the environment and the two files, each once.

    Returns:
        The settings; `base_url` normalised, `data_dir` always filled.

    Raises:
        ConfigInvalid: If a file is not TOML, a name is unknown or a value does not fit.
    """
    values = _read_file(user_file(), project=False)
    nearer = [_read_file(path, project=False) for path in _named]
    nearer = nearer or [_read_file(project_file(), project=True)]
    for source in (*nearer, _read_environment(os.environ)):
        vault = {**values.get("vault", {}), **source.get("vault", {})}
        values = {**values, **source, "vault": vault}
    values["vault"] = VaultSettings(**values["vault"])
    if values.get("data_dir") is None:
        from platformdirs import user_data_path  # noqa: PLC0415 - start-up time

        values["data_dir"] = user_data_path("looms")
    return Settings(**values)


def started_by_uv() -> bool:
    """Whether this command runs below `uv run`, and so may not be on the user's path."""
    return "UV_RUN_RECURSION_DEPTH" in os.environ


def wants_latest_genai_names() -> bool:
    """
    Whether traces and metrics keep to the newest GenAI conventions alone.

    Source: OpenTelemetry semantic conventions, `OTEL_SEMCONV_STABILITY_OPT_IN`, a list of words.
    """
    words = os.environ.get("OTEL_SEMCONV_STABILITY_OPT_IN", "").split(",")
    return "gen_ai_latest_experimental" in (word.strip() for word in words)


def normalise_base_url(url: str, *, exact: bool = False) -> str:
    """
    Bring an API address into the one form that is used inside.

    Args:
        url: With or without a trailing `/v1`; `https`, or `http` for a loopback address.
        exact: Whether a path stays as it is: servers that speak as OpenAI does have others, for
            example `/v1beta/openai`. An address without any path gets `/v1` all the same.

    Returns:
        The address, ending in `/v1` or in the path that was given.

    Raises:
        ConfigInvalid: If it is not such an address. A password in it is not repeated.
    """
    from urllib.parse import urlsplit  # noqa: PLC0415 - most calls have no base_url

    text = url.strip()
    if not text or any(not "!" <= character <= "~" for character in text):
        raise ConfigInvalid("'base_url' must not be empty and must hold printable ASCII only")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ConfigInvalid(f"'base_url' is not an address: {error}") from None
    if "@" in parts.netloc:
        raise ConfigInvalid("'base_url' must not hold a user name or password: give the key apart")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigInvalid(f"'base_url' must start with https:// and name a host: {text!r}")
    if parts.scheme == "http" and not _loops_back(parts.hostname):
        raise ConfigInvalid(
            f"'base_url' must use https, or the key would travel in clear: {text!r}"
            " (http is accepted for loopback addresses only)"
        )
    if parts.query or parts.fragment:
        raise ConfigInvalid(f"'base_url' must have no query and no fragment: {text!r}")
    path = parts.path.rstrip("/")
    if path.endswith("/chat/completions"):
        raise ConfigInvalid(f"'base_url' must end before /chat/completions: {text!r}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    origin = f"{parts.scheme}://{host}" if port is None else f"{parts.scheme}://{host}:{port}"
    whole = path.endswith("/v1") or (exact and path)
    return f"{origin}{path}" if whole else f"{origin}{path}/v1"


def is_loopback(address: str) -> bool:
    """
    Whether an address is on this machine.

    Args:
        address: In the form that is used inside.

    Returns:
        True for `localhost` and the addresses of the loopback device.
    """
    from urllib.parse import urlsplit  # noqa: PLC0415 - most calls have no base_url

    return _loops_back(urlsplit(address).hostname or "")


def _loops_back(host: str) -> bool:
    from ipaddress import ip_address  # noqa: PLC0415 - only plain http comes here

    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761, section 6.3
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _read_file(path: Path, *, project: bool) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"{path}: cannot be read: {error}") from error
    import tomllib  # noqa: PLC0415 - most machines have no file

    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigInvalid(f"{path}: not TOML: {error}") from error
    values = {key: _value(key, value, place=f"{path}: ") for key, value in table.items()}
    if project:
        _refuse_in_project(values, path)
    return values


def _refuse_in_project(values: Mapping[str, Any], path: Path) -> None:
    refused = [name for name in _NOT_IN_PROJECT if name in values]
    refused += [name for name in _ADDRESSES if not values.get(name, "http:").startswith("http:")]
    if refused:
        raise ConfigInvalid(
            f"{path}: {refused[0]!r} is not taken from a project's file, because a folder must not"
            f" choose where your key is sent: set it in {user_file()} or as"
            f" LOOM_{refused[0].upper()}"
        )


def _read_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in _FROM_ENVIRONMENT:
        variable = f"LOOM_{name.upper()}"
        text = environment.get(variable, "").strip()
        if text:
            values[name] = _value(name, text, place=f"{variable}: ")
    vault = {
        field: environment[variable].strip()
        for field in VaultSettings.__struct_fields__
        if environment.get(variable := f"LOOM_VAULT_{field.upper()}", "").strip()
    }
    return {**values, "vault": vault} if vault else values


def _value(key: str, value: Any, *, place: str) -> Any:
    _check_name(key, Settings.__struct_fields__, place)
    if key == "vault":
        if not isinstance(value, dict):
            raise ConfigInvalid(f"{place}'vault' must be a table: [vault]")
        for field in value:
            _check_name(field, VaultSettings.__struct_fields__, f"{place}[vault] ")
    try:
        return _converted(key, value)
    except (msgspec.ValidationError, ValueError) as error:
        raise ConfigInvalid(f"{place}{key!r}: {error}") from None
    except ConfigInvalid as error:
        raise ConfigInvalid(f"{place}{error.message}") from None


def _converted(key: str, value: Any) -> Any:
    if key in _ADDRESSES and isinstance(value, str):
        return normalise_base_url(value, exact=key != "base_url")
    if key == "as_of" and isinstance(value, str):
        return parse_as_of(value)
    if key == "data_dir" and isinstance(value, str):
        return Path(value).expanduser()
    if key == "vault":
        msgspec.convert(value, VaultSettings)
        return value
    if key == "secrets_order" and isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    kinds = msgspec.structs.fields(Settings)
    kind = next(field.type for field in kinds if field.name == key)
    # Not strict: the environment has only texts ("0.5", "true").
    return msgspec.convert(value, kind, strict=not isinstance(value, str))


def _check_name(name: str, known: tuple[str, ...], place: str) -> None:
    if name in known:
        return
    from difflib import get_close_matches  # noqa: PLC0415 - only on the way to an error

    near = get_close_matches(name, known, n=1)
    wish = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    raise ConfigInvalid(f"{place}unknown setting {name!r}: {wish}")
