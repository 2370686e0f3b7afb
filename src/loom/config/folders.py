"""Where the command line keeps what it writes; the folders are made by who writes there."""

from __future__ import annotations

from pathlib import Path

from loom.config.load import load_settings
from loom.core.errors import ConfigInvalid

__all__ = ["data_folder", "state_folder"]


def data_folder() -> Path:
    """
    The folder for what is kept: ledger and sessions; `data_dir` moves it.

    Raises:
        ConfigInvalid: If a settings file is not as it must be.
    """
    folder = load_settings().data_dir
    if folder is None:  # pragma: no cover - `load_settings` always fills it
        raise ConfigInvalid("there is no data folder: set LOOM_DATA_DIR")
    return folder


def state_folder() -> Path:
    """The folder for what may be lost: `~/.local/state/looms` on Linux, XDG variables honoured."""
    from platformdirs import user_state_path  # noqa: PLC0415 - start-up time

    return user_state_path("looms")
