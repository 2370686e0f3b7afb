"""
Where a key comes from.

An argument wins; then the places of `Settings.secrets_order`: environment, keyring, Vault, and the
reference in the settings file. A place that cannot be asked counts as empty; if no place has a
key, the error says of each why.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from loom.config.load import load_settings
from loom.config.settings import SecretPlace, Settings
from loom.core.errors import ConfigInvalid, InvalidAPIKey
from loom.core.secret import Secret

__all__ = [
    "KEYRING_SERVICE",
    "FoundSecret",
    "find_api_key",
    "find_in_keyring",
    "is_reference",
    "resolve_reference",
]

# The name under which Loom for Go stores its keys (cmd/looms/config.go, ServiceName): both find
# each other's.
KEYRING_SERVICE = "loom"
# A keyring may wait for a person to unlock it; a program without one must not wait for ever.
_KEYRING_PATIENCE_S = 5.0
_VAULT_TIMEOUT_S = 5.0
# Keys have some hundred bytes at most; this guards against a path to something else.
_LONGEST_KEY_FILE = 64 * 1024

# A scheme may stand before it, as HTTP headers have it: `Bearer env:TOKEN`.
_REFERENCE = re.compile(r"(?:([A-Za-z]+) )?(env|file|keyring):(\S(?:.*\S)?)")


class FoundSecret(msgspec.Struct, frozen=True, kw_only=True):
    """
    A key, and where it was.

    Attributes:
        secret: The key.
        source: For example `argument`, `env:MISTRAL_API_KEY`, `keyring:mistral_api_key`,
            `vault:secret/looms#mistral_api_key`, `file:/run/secrets/mistral`.
    """

    secret: Secret
    source: str


class _Absent(Exception):
    """A place has no key; the message says why, if there is anything to say."""


def find_api_key(
    explicit: str | Secret | None = None,
    *,
    name: str = "mistral_api_key",
    settings: Settings | None = None,
    console: str = "",
) -> FoundSecret:
    """
    Find a key.

    Args:
        explicit: The caller's own; None: look for one. An empty one is an error.
        name: The key's name in settings and keyring; in capitals, its environment variable.
        settings: Which places to ask; None: read the settings files.
        console: Where the vendor makes keys, for the hint.

    Returns:
        The key without the white space around it, and its source.

    Raises:
        InvalidAPIKey: If there is none, or it cannot be one (white space inside, say).
        ConfigInvalid: If the settings are not as they must be.
    """
    if explicit is not None:
        value = explicit.reveal() if isinstance(explicit, Secret) else explicit
        return _checked(value, "argument")
    if settings is None:
        settings = load_settings()
    notes: list[str] = []
    for place in settings.secrets_order:
        try:
            value, source = _PLACES[place](name, settings)
        except _Absent as absent:
            notes.extend(str(reason) for reason in absent.args)
        else:
            return _checked(value, source)
    variable = name.upper()
    tried = f" ({'; '.join(notes)})" if notes else ""
    error = InvalidAPIKey(
        f"API key is required: pass api_key=..., or set the environment variable {variable}{tried}",
        hint=f"export {variable}=..., or pass api_key=...; "
        + (f"make one at {console}; " if console else "")
        + "without a key, use the simulator (sim=True, --sim).",
    )
    for note in notes:
        error.add_note(note)
    raise error


def find_in_keyring(name: str) -> FoundSecret:
    """
    Take a key from the machine's keyring, and from nowhere else.

    Args:
        name: The entry's name under the service `loom`, for example "mistral_key".

    Returns:
        The key without the white space around it, and its source.

    Raises:
        InvalidAPIKey: If there is no such entry, no keyring that can be asked (a headless
            machine), or the extra `keyring` is not installed; the message says which.
    """
    try:
        return _checked(_keyring_entry(name), f"keyring:{name}")
    except _Absent as absent:
        why = "".join(map(str, absent.args)) or _why_no_entry()
    variable = "MISTRAL_API_KEY"
    raise InvalidAPIKey(
        f"API key is required: none in the keyring under {name!r} ({why})",
        hint=f"Store it: `keyring set {KEYRING_SERVICE} {name}`. On a machine without a keyring set"
        f" the environment variable {variable}, or pass the key itself.",
    )


def is_reference(text: str, *, scheme: bool = False) -> bool:
    """
    Whether a text says where a secret is, and is none itself.

    Args:
        text: For example "env:MISTRAL_API_KEY", "file:/run/secrets/x", "keyring:mistral_key".
        scheme: Whether a word may stand before it, as in "Bearer env:TOKEN".

    Returns:
        True if it does.
    """
    match = _REFERENCE.fullmatch(text)
    return match is not None and (scheme or match[1] is None)


def resolve_reference(reference: str, *, folder: Path | None = None) -> FoundSecret:
    """
    Take a secret from where a reference says it is, and from nowhere else.

    Args:
        reference: As for `is_reference`; a scheme before it stands before the secret, too.
        folder: Where relative paths of files begin; None: the current folder.

    Returns:
        The secret without the white space around it, and its source.

    Raises:
        ConfigInvalid: If the text is no reference (it is not repeated), or nothing is there; the
            message says why.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise ConfigInvalid(
            'a secret must be given by where it is: "env:NAME", "file:/path" or "keyring:name"'
        )
    scheme, kind, target = match.groups()
    source = f"{kind}:{target}"
    try:
        value = _referred(kind, target, folder or Path()).strip()
    except _Absent as absent:
        why = "".join(map(str, absent.args)) or f"{source}: {_why_no_entry()}"
        raise ConfigInvalid(f"a secret is missing: {why}") from None
    return FoundSecret(secret=Secret(f"{scheme} {value}" if scheme else value), source=source)


def _why_no_entry() -> str:
    try:
        import keyring  # noqa: PLC0415 - an extra, and slow to import
    except ImportError:
        return "the keyring is not installed: pip install 'looms[keyring]'"
    if type(keyring.get_keyring()).__module__ == "keyring.backends.fail":
        return "this machine has no keyring"
    return f"the service {KEYRING_SERVICE!r} has no such entry"


def _checked(value: str, source: str) -> FoundSecret:
    key = value.strip()
    if not key:
        raise InvalidAPIKey(f"the API key ({source}) is empty")
    if any(character.isspace() for character in key):
        raise InvalidAPIKey(
            f"the API key ({source}) holds white space or a line break inside: copy it again"
        )
    if not all("!" <= character <= "~" for character in key):
        raise InvalidAPIKey(
            f"the API key ({source}) holds control characters, or others that are not ASCII:"
            " copy it again"
        )
    if key[0] in "\"'" or key[-1] in "\"'":
        raise InvalidAPIKey(f"the API key ({source}) is in quotation marks: remove them")
    return FoundSecret(secret=Secret(key), source=source)


def _from_environment(name: str, _settings: Settings) -> tuple[str, str]:
    for variable in (f"LOOM_LLM_{name.upper()}", name.upper()):
        value = os.environ.get(variable, "")
        # An empty variable is how shells and CI systems say "not set".
        if value.strip():
            return value, f"env:{variable}"
    raise _Absent


def _from_keyring(name: str, _settings: Settings) -> tuple[str, str]:
    return _keyring_entry(name), f"keyring:{name}"


def _keyring_entry(name: str) -> str:
    import threading  # noqa: PLC0415 - start-up time

    try:
        import keyring  # noqa: PLC0415 - an extra, and slow to import
    except ImportError:
        raise _Absent from None
    answers: list[str | Exception | None] = []

    def ask() -> None:
        try:
            answers.append(keyring.get_password(KEYRING_SERVICE, name))
        except Exception as error:  # noqa: BLE001 - back ends are plug-ins: they raise anything
            answers.append(error)

    thread = threading.Thread(target=ask, name="loom-keyring", daemon=True)
    thread.start()
    thread.join(_KEYRING_PATIENCE_S)
    if not answers:
        raise _Absent(f"the keyring gave no answer in {_KEYRING_PATIENCE_S:.0f} s")
    answer = answers[0]
    if isinstance(answer, Exception):
        if type(answer).__name__ == "NoKeyringError":  # headless: common, and no news
            raise _Absent
        raise _Absent(f"no usable keyring here: {type(answer).__name__}")
    if not answer:
        raise _Absent
    return answer


def _from_vault(name: str, settings: Settings) -> tuple[str, str]:
    address = os.environ.get("VAULT_ADDR") or os.environ.get("BAO_ADDR")
    path = settings.vault.path
    if not address or path is None:
        raise _Absent
    # The setting names the field of Mistral's key: another vendor must not be sent that one.
    field = settings.vault.field if name == "mistral_api_key" else name
    source = f"vault:{path}#{field}"
    fields = _vault_entry(address, path, source)
    value = fields.get(field) if isinstance(fields, dict) else None
    if not isinstance(value, str) or not value.strip():
        raise _Absent(f"{source}: there is no such field, or it is empty")
    return value, source


def _vault_entry(address: str, path: str, source: str) -> Any:
    try:
        import hvac  # noqa: PLC0415 - an extra
        from hvac.exceptions import InvalidPath, VaultError  # noqa: PLC0415 - an extra
        from requests.exceptions import RequestException  # noqa: PLC0415 - comes with hvac
    except ImportError:
        raise _Absent("Vault is set, but not installed: pip install 'looms[vault]'") from None
    mount, _, rest = path.strip("/").partition("/")
    environment = os.environ
    client = hvac.Client(
        url=address,
        token=environment.get("VAULT_TOKEN") or environment.get("BAO_TOKEN"),
        namespace=environment.get("VAULT_NAMESPACE") or environment.get("BAO_NAMESPACE"),
        timeout=_VAULT_TIMEOUT_S,
    )
    try:
        reply = client.secrets.kv.v2.read_secret_version(
            # The API's own spelling of a path, `secret/data/looms`, is accepted too.
            path=rest.removeprefix("data/"),
            mount_point=mount,
            raise_on_deleted_version=True,
        )
        return reply["data"]["data"]
    except InvalidPath:
        raise _Absent(f"{source}: Vault has nothing there") from None
    except (VaultError, RequestException) as error:
        # Their texts can hold the request; the class says enough.
        raise _Absent(f"{source}: Vault could not be read: {type(error).__name__}") from None
    except (KeyError, TypeError, ValueError):
        raise _Absent(f"{source}: the reply is not one of a KV version 2 engine") from None
    finally:
        client.adapter.close()


def _from_reference(name: str, settings: Settings) -> tuple[str, str]:
    reference = getattr(settings, name, None)
    if reference is None:
        raise _Absent
    if not is_reference(reference.strip()):
        # What stands there may be the key itself: it is not repeated.
        raise ConfigInvalid(
            f"{name!r} in the settings must say where the key is, and never be the key:"
            ' "env:NAME", "file:/path" or "keyring:name"'
        )
    kind, _, target = reference.strip().partition(":")
    return _referred(kind, target, Path()), reference.strip()


def _referred(kind: str, target: str, folder: Path) -> str:
    match kind:
        case "env":
            value = os.environ.get(target, "")
        case "file":
            try:
                value = _read_key_file(folder / Path(target).expanduser())
            except (RuntimeError, ValueError):  # no such home, a NUL
                raise _Absent(f"file:{target}: is no path") from None
        case _:
            value = _keyring_entry(target)
    if not value.strip():
        raise _Absent(f"{kind}:{target}: not set, or empty")
    return value


def _read_key_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            content = file.read(_LONGEST_KEY_FILE)
    except OSError as error:
        raise _Absent(f"file:{path}: {error.strerror}") from None
    if mode & 0o177 and os.name == "posix":
        import logging  # noqa: PLC0415 - start-up time

        logging.getLogger(__name__).warning(
            "The key file %s has mode %04o; other users may read it: chmod 600 %s", path, mode, path
        )
    # utf-8-sig: editors on Windows put a mark at the beginning.
    return content.decode("utf-8-sig", errors="replace")


_PLACES: dict[SecretPlace, Callable[[str, Settings], tuple[str, str]]] = {
    "environment": _from_environment,
    "keyring": _from_keyring,
    "vault": _from_vault,
    "reference": _from_reference,
}
