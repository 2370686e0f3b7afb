"""
The commands: finds the one that is called, catches every error, and gives the exit code.

Each command stands in a module of its name and is imported when it is called.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, TypeVar

import rich_click as click
from click.exceptions import Exit, NoArgsIsHelpError

from loom.cli.clean import cleaned
from loom.cli.options import common_options
from loom.cli.terminal import Terminal
from loom.core.errors import LoomError
from loom.core.version import VERSION

__all__ = ["COMMANDS", "EXIT_CODES", "SECTIONS", "looms", "run"]

F = TypeVar("F", bound=Callable[..., Any])

# As `--help` shows them.
SECTIONS = {
    "Talk": ("chat", "agent"),
    "Models and keys": ("models", "ping", "count", "quote"),
    "Costs": ("cost", "reconcile", "what-if"),
    "Gateway": ("serve", "keys"),
    "Without a key": ("demo", "sim", "fault-matrix"),
}

COMMANDS = tuple(sorted(name for names in SECTIONS.values() for name in names))

_INTERRUPTED = 130  # 128 + SIGINT, as shells count
_BROKEN_PIPE = 141  # 128 + SIGPIPE

# What `core/error_table.py` gives, in words; a test compares the numbers.
EXIT_CODES = {
    0: "done",
    1: "another error",
    2: "wrong usage, or a wrong setting",
    3: "no key, a bad key, or no permission",
    4: "no credit left, or over your budget",
    5: "bad request, or too long for the model",
    6: "no such model",
    7: "content blocked",
    75: "temporary: the same may succeed later",
    _INTERRUPTED: "interrupted",
}


class _Commands(click.RichGroup):
    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        command = getattr(import_module(f"loom.cli.{name}"), name)
        return command if isinstance(command, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        # `looms "a prompt"`: a command's name holds no white space, a prompt nearly always does.
        if any(character.isspace() for character in args[0]):
            return super().resolve_command(ctx, ["chat", *args])
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches  # noqa: PLC0415 - only on the way to an error

            near = get_close_matches(args[0], COMMANDS, n=1)
            wish = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"No such command {args[0]!r}.{wish}", ctx)
        return super().resolve_command(ctx, args)


def _in_sections(group: F) -> F:
    for name, commands in SECTIONS.items():
        group = click.command_panel(name, commands=list(commands))(group)
    return group


def _show_version(context: click.Context, _option: click.Parameter, given: bool) -> None:  # noqa: FBT001 - click's signature
    if given and not context.resilient_parsing:
        click.echo(f"looms {VERSION}")
        context.exit()


_EPILOG = "Exit codes:\n\n" + "\n\n".join(f"{code}  {text}" for code, text in EXIT_CODES.items())


@_in_sections
@click.group(
    cls=_Commands,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Print the version.",
)
@common_options
def looms() -> None:
    """
    Talk to Mistral's models, and know what it costs.

    Standard output is the answer and nothing else; `looms "a question"` is short for `looms chat`.
    """


def run(args: Sequence[str]) -> int:
    """
    Run a command and give its exit code.

    Args:
        args: The words after `looms`.

    Returns:
        One of `EXIT_CODES`, or 141 when the reader of a pipe left.
    """
    terminal = Terminal()
    try:
        # Not `looms.main()`: it would take Ctrl-C and a closed pipe into its own hands.
        with looms.make_context("looms", list(args), obj=terminal) as context:
            looms.invoke(context)
        sys.stdout.flush()
    except Exit as leaving:
        return leaving.exit_code
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the outermost border
        return _ended_by(error, terminal, args)
    return 0


def _ended_by(error: BaseException, terminal: Terminal, args: Sequence[str]) -> int:
    code = 1
    match error:
        case NoArgsIsHelpError():
            click.echo(error.format_message(), err=True)
            code = error.exit_code
        case click.ClickException():
            code = _usage(error, terminal, args)
        case click.Abort() | KeyboardInterrupt():
            terminal.end_line()
            code = _INTERRUPTED
        case BrokenPipeError():
            # Python flushes once more at its end: let that go nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = _BROKEN_PIPE
        case LoomError():
            _trace(terminal)
            terminal.fail(error)
            code = error.exit_code
        case _:
            _trace(terminal)
            terminal.print_error(
                "ERR_INTERNAL",
                f"{type(error).__name__}: {error}",
                "this is a fault of Loom: run it again with --debug and report what it shows.",
            )
    return code


def _usage(error: click.ClickException, terminal: Terminal, args: Sequence[str]) -> int:
    # The words may be wrong before `--json` was reached.
    terminal.json = terminal.json or "--json" in args
    context = error.ctx if isinstance(error, click.UsageError) else None
    command = context.command_path if context is not None else "looms"
    terminal.print_error("ERR_USAGE", error.format_message(), f"see `{command} --help`")
    return error.exit_code


def _trace(terminal: Terminal) -> None:
    if terminal.debug:
        from traceback import format_exc  # noqa: PLC0415 - start-up time

        # Without the values of variables: a prompt or a key may be among them.
        terminal.err.print(cleaned(format_exc()), style="dim")
