"""`looms keys`: the keys that a gateway gives out: make, list, change, revoke."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click

from loom.cli.book import ledger_option, opened
from loom.cli.keys_options import keys_option, keys_path, term_options, terms_of
from loom.cli.options import common_options, pass_terminal
from loom.cli.terminal import Terminal
from loom.core.ambient import SystemClock

if TYPE_CHECKING:
    from loom.server.gateway.keys import VirtualKey
    from loom.server.gateway.keys_store import KeyStore

__all__ = ["audit", "create", "keys", "list_", "revoke", "show", "update"]

F = TypeVar("F", bound=Callable[..., Any])

_EPILOG = (
    "A key is shown once, when it is made; what is kept is its hash."
    " KEY is a name, an id, or the key itself: whoever finds one can ask whose it is."
    " A running gateway hears of every change within a second."
)
_WHICH = click.argument("key", metavar="KEY")


@click.group(epilog=_EPILOG, invoke_without_command=True)
@keys_option
@ledger_option
@common_options
@pass_terminal
@click.pass_context
def keys(
    context: click.RichContext, terminal: Terminal, /, *, file: Path | None, ledger: Path | None
) -> None:
    """Look after the keys that a gateway gives out; alone it lists them."""
    if context.invoked_subcommand is None:
        _list(terminal, file, ledger, every=False)


@keys.command()
@click.option("--name", required=True, metavar="NAME", help="What you call it, for example team-a.")
@term_options
@keys_option
@common_options
@pass_terminal
def create(terminal: Terminal, /, **given: Any) -> None:
    """Make a key and print it, this once; without an option it may do everything."""
    from loom.server.gateway.keys import KeyTerms  # noqa: PLC0415 - start-up time

    store = _store(given["file"])
    made = store.create(given["name"], KeyTerms(**terms_of(given)), actor=_actor())
    if terminal.json:
        told = _object(made.key)
        terminal.write_json({"key": made.secret.reveal(), **told})
        return
    terminal.write(f"{made.secret.reveal()}\n")
    terminal.say(f"{made.key.name} ({made.key.id}): {_terms(made.key)}")
    terminal.say("Keep it now: it is not shown again.")


@keys.command("list")
@click.option("--all", "every", is_flag=True, help="Revoked keys too.")
@keys_option
@ledger_option
@common_options
@pass_terminal
def list_(terminal: Terminal, /, *, every: bool, file: Path | None, ledger: Path | None) -> None:
    """List keys, with what they spent if there is a ledger."""
    _list(terminal, file, ledger, every=every)


@keys.command()
@_WHICH
@keys_option
@ledger_option
@common_options
@pass_terminal
def show(terminal: Terminal, /, *, key: str, file: Path | None, ledger: Path | None) -> None:
    """Show one key, and what was done to it."""
    from loom.cli.keys_table import (  # noqa: PLC0415 - start-up time
        key_object,
        show_audit,
        show_keys,
        spent_by,
    )

    store, now = _store(file), SystemClock().now()
    found = _known(store, key)
    spent = spent_by(opened(terminal, ledger), [found], now)
    rows = store.audit(found.id)
    if terminal.json:
        terminal.write_json({**key_object(found, now, spent.get(found.id)), "audit": rows})
        return
    show_keys(terminal, [found], spent, now)
    terminal.write(f"{_terms(found)}\n\n")
    show_audit(terminal, rows)


@keys.command()
@_WHICH
@term_options
@keys_option
@common_options
@pass_terminal
def update(terminal: Terminal, /, **given: Any) -> None:
    """Change what a key allows; `none` takes a limit away, the rest stays."""
    terms = terms_of(given)
    if not terms:
        raise click.UsageError("nothing to change: give --rpm, --models, --budget, ...")
    store = _store(given["file"])
    key = store.update(_known(store, given["key"]).id, terms, actor=_actor())
    if terminal.json:
        terminal.write_json(_object(key))
    else:
        terminal.say(f"{key.name} ({key.id}): {_terms(key)}")


@keys.command()
@click.argument("names", nargs=-1, required=True, metavar="KEY...")
@keys_option
@common_options
@pass_terminal
def revoke(terminal: Terminal, /, *, names: tuple[str, ...], file: Path | None) -> None:
    """End keys, for good."""
    store = _store(file)
    # All are known before the first one ends: a typo in the second ends nothing.
    found = [_known(store, name) for name in names]
    gone = [store.revoke(key.id, actor=_actor()) for key in found]
    if terminal.json:
        terminal.write_json({"revoked": [_object(key) for key in gone]})
        return
    for key in gone:
        terminal.say(f"revoked {key.name} ({key.id})")


@keys.command()
@click.argument("key", required=False, metavar="[KEY]")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, metavar="N")
@keys_option
@common_options
@pass_terminal
def audit(terminal: Terminal, /, *, key: str | None, limit: int, file: Path | None) -> None:
    """Tell who made, changed and revoked keys, the newest first."""
    store = _store(file)
    if key is not None:
        _known(store, key)
    rows = store.audit(key, limit=limit)
    if terminal.json:
        terminal.write_json({"audit": rows})
    elif rows:
        from loom.cli.keys_table import show_audit  # noqa: PLC0415 - start-up time

        show_audit(terminal, rows)
    else:
        terminal.say("Nothing was done yet.")


def _list(terminal: Terminal, file: Path | None, ledger: Path | None, *, every: bool) -> None:
    from loom.cli.keys_table import (  # noqa: PLC0415 - start-up time
        key_object,
        show_keys,
        spent_by,
    )

    now, kept = SystemClock().now(), _store(file).list()
    shown = [key for key in kept if every or key.revoked_at is None]
    spent = spent_by(opened(terminal, ledger), shown, now)
    if terminal.json:
        objects = [key_object(key, now, spent.get(key.id)) for key in shown]
        terminal.write_json({"keys": objects})
        return
    if shown:
        show_keys(terminal, shown, spent, now)
    if not kept:
        terminal.say("There is no key yet: `looms keys create --name team-a` makes one.")
    elif hidden := len(kept) - len(shown):
        are = "key is" if hidden == 1 else "keys are"
        terminal.say(f"{hidden} revoked {are} not shown: --all shows them.")


def _store(file: Path | None) -> KeyStore:
    from loom.server.gateway.keys_store import KeyStore  # noqa: PLC0415 - sqlite3 costs 5 ms

    return KeyStore(keys_path(file))


def _known(store: KeyStore, which: str) -> VirtualKey:
    found = store.get(which)
    if found is not None:
        return found
    if "loom_sk_" in which.lower():
        # It may be one, with a typo: it is not shown.
        raise click.UsageError("that key is not of this file: mind typos")
    from difflib import get_close_matches  # noqa: PLC0415 - only on the way to an error

    near = get_close_matches(which, [key.name for key in store.list()], n=1)
    wish = f": did you mean {near[0]!r}?" if near else ""
    raise click.UsageError(f"there is no key {which!r}{wish}")


def _object(key: VirtualKey) -> dict[str, Any]:
    from loom.cli.keys_table import key_object  # noqa: PLC0415 - start-up time

    return key_object(key, SystemClock().now())


def _terms(key: VirtualKey) -> str:
    from loom.cli.keys_table import terms_line  # noqa: PLC0415 - start-up time

    return terms_line(key)


def _actor() -> str:
    """Name who does it: the account, not what the environment says."""
    try:
        from pwd import getpwuid  # noqa: PLC0415 - not on every system
    except ImportError:  # pragma: no cover - another system
        from getpass import getuser  # noqa: PLC0415 - only there

        return getuser()
    try:
        return getpwuid(os.getuid()).pw_name
    except KeyError:  # pragma: no cover - a container without accounts
        return f"user {os.getuid()}"
