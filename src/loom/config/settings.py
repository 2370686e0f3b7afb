"""What can be set outside a program: the fields that files and the environment may hold."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import msgspec

__all__ = ["SecretPlace", "Settings", "VaultSettings"]

SecretPlace: TypeAlias = Literal["environment", "keyring", "vault", "reference"]
"""Where a key is looked for; `reference` is the line in the settings file."""


class VaultSettings(msgspec.Struct, frozen=True, kw_only=True):
    """
    Where the key lies in HashiCorp Vault or OpenBao, KV version 2.

    Attributes:
        path: Mount and path, as `vault kv get` takes them: `secret/looms`. None: not asked.
        field: The field of the secret that holds Mistral's key; another vendor's lies in the
            field of its own name, for example `openai_api_key`.
    """

    path: str | None = None
    field: str = "mistral_api_key"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """
    Settings after all sources were read; None means "not set anywhere".

    Attributes:
        model: The model of the command line when no flag names one.
        max_tokens: The longest answer in tokens, at least 1.
        temperature: 0.0 to 2.0.
        timeout_s: Seconds to wait for the first byte, 1 to 600.
        deadline_s: Seconds for the whole call with all attempts.
        base_url: The address of Mistral's API; ends in `/v1`.
        openai_base_url: The address of OpenAI's API, or of a server that speaks as it does.
        proxy: The address of an HTTP proxy.
        as_of: The day whose models and prices hold; None: today.
        sim: Whether calls go to the simulator.
        data_dir: The folder for what is kept: ledger, sessions.
        mistral_api_key: Where the key is: `env:NAME`, `file:/path` or `keyring:name`.
        openai_api_key: The same for OpenAI's key.
        secrets_order: The places where a key is looked for, first to last.
        vault: Where the key lies in Vault.
    """

    model: str | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    timeout_s: Annotated[float, msgspec.Meta(ge=1, le=600)] | None = None
    deadline_s: Annotated[float, msgspec.Meta(gt=0)] | None = None
    base_url: str | None = None
    openai_base_url: str | None = None
    proxy: str | None = None
    as_of: date | None = None
    sim: bool = False
    data_dir: Path | None = None
    mistral_api_key: str | None = None
    openai_api_key: str | None = None
    secrets_order: tuple[SecretPlace, ...] = ("environment", "keyring", "vault", "reference")
    vault: VaultSettings = VaultSettings()
