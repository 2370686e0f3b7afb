"""`looms serve`: the gateway, until it is stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from loom.cli.book import default_path
from loom.cli.keep import BUDGET, RATE_LIMIT
from loom.cli.keys_options import keys_option, keys_path
from loom.cli.options import as_of_option, common_options, pass_terminal
from loom.cli.terminal import Terminal

__all__ = ["serve"]

_PORT = 5006
# As `server/gateway/limits.py`, which would cost `looms --help` its import; a test compares.
_BODY_BYTES = 8 * 1024 * 1024
_CONNECTIONS = 1024


@click.command()
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Listen on this address or name."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=_PORT,
    show_default=True,
    help="Listen there; 0 takes a free port.",
)
@click.option("-m", "--model", metavar="ID", help="Whose vendor is asked; Mistral without it.")
@click.option("--sim", is_flag=True, help="Let the simulator answer: no key, no network, no cost.")
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Settings, in place of the current folder's looms.toml; read again on SIGHUP.",
)
@click.option(
    "--fallback",
    multiple=True,
    metavar="MODEL",
    help="Ask this model when the one that was asked fails; may be given several times.",
)
@click.option(
    "--rescue", is_flag=True, help="Begin an answer anew with --fallback when it breaks midway."
)
@click.option(
    "--rate-limit",
    type=RATE_LIMIT,
    metavar="PLAN",
    help="Keep the vendor's limits: free, starter, pro or RPM/TPM, for example 60/500000.",
)
@click.option(
    "--budget",
    type=BUDGET,
    multiple=True,
    metavar="USD",
    help="What all callers together may spend: 5, 5/day, 5/week or 5/month; several are kept.",
)
@click.option(
    "--ledger",
    metavar="FILE",
    help="Write every call down there; ledger.db in the data folder, with --sim in memory.",
)
@keys_option
@click.option(
    "--drain",
    "drain_s",
    type=click.FloatRange(0, 900),
    default=30.0,
    show_default=True,
    metavar="S",
    help="Seconds that running requests get after SIGTERM.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes; more than one cannot share a ledger in a file.",
)
@click.option(
    "--max-body",
    "body_bytes",
    type=click.IntRange(min=1),
    default=_BODY_BYTES,
    show_default=True,
    metavar="BYTES",
    help="What a request's body may weigh.",
)
@click.option(
    "--max-connections",
    "connections",
    type=click.IntRange(min=1),
    default=_CONNECTIONS,
    show_default=True,
    metavar="N",
    help="Connections at once from one address; behind a proxy all have the proxy's.",
)
@as_of_option
@common_options
@pass_terminal
@click.pass_context
def serve(context: click.RichContext, terminal: Terminal, /, **given: Any) -> None:
    """
    Serve a gateway: OpenAI's and Mistral's API, with keys, limits, budgets and one ledger.

    It prints its addresses on standard error and serves until Ctrl-C or SIGTERM; a second one
    skips the wait for running requests. Callers on this machine need no key until the first one
    is made with `looms keys create`; on another address it does not start without one. With --json
    it prints one line, {"base_url": ..., "admin_key": ...}, when it is ready.
    """
    from loom.cli.serving import Serving  # noqa: PLC0415 - start-up time
    from loom.config.load import take_settings_from  # noqa: PLC0415 - the same
    from loom.server.gateway.run import refuse_workers  # noqa: PLC0415 - the same

    terminal.start_log()
    take_settings_from(given["config"])
    ledger = _ledger(given)
    refuse_workers(given["workers"], ledger)
    serving = Serving(
        ledger=ledger,
        keys=keys_path(given["file"]),
        host=given["host"],
        client=_client_arguments(given),
        rate_limit=given["rate_limit"],
        budgets=given["budget"],
        rescue=given["rescue"],
        body_bytes=given["body_bytes"],
        connections=given["connections"],
    )

    def ready(port: int) -> None:
        _told(terminal, serving, port)

    code = serving.run(port=given["port"], drain_s=given["drain_s"], on_ready=ready)
    context.exit(code)


def _ledger(given: dict[str, Any]) -> str:
    """Give the ledger's name; what the simulator answers is kept only where somebody says so."""
    if given["ledger"] is None:
        return "memory:" if given["sim"] else str(default_path())
    return str(given["ledger"])


def _client_arguments(given: dict[str, Any]) -> dict[str, Any]:
    if given["rescue"] and not given["fallback"]:
        raise click.UsageError("--rescue needs a model to begin anew with: give --fallback")
    chosen = {name: given[name] for name in ("model", "as_of") if given[name]}
    if given["fallback"]:
        chosen |= {"fallback": list(given["fallback"]), "rescue": given["rescue"]}
    return {"sim": given["sim"], **chosen}


def _told(terminal: Terminal, serving: Any, port: int) -> None:
    host = serving.host
    shown = f"[{host}]" if ":" in host else host
    root = f"http://{shown}:{port}"
    if terminal.json:
        terminal.write_json({"base_url": f"{root}/v1", "admin_key": serving.admin_key.reveal()})
        return
    lines = [
        ("OpenAI", f"{root}/v1"),
        ("Mistral", f"{root} (server_url), {root}/mistral/v1"),
        ("OpenAPI", f"{root}/openapi.json"),
        ("Metrics", f"{root}/metrics"),
        ("Health", f"{root}/health, {root}/health/ready"),
        ("Ledger", serving.ledger_name),
        ("Keys", serving.keys_state),
    ]
    if terminal.err.is_terminal:
        # Off a terminal it would stand in somebody's log.
        lines.append(("Admin key", serving.admin_key.reveal()))
    for name, text in lines:
        terminal.say(f"{name:<10}{text}", style="")
    terminal.say("A key: looms keys create --name team-a --budget 20/month")
    terminal.say("Ctrl-C stops it.")
