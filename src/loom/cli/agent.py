"""`looms agent`: run an agent file, check it, and look after the conversations that are kept."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import rich_click as click
from click.exceptions import Exit

from loom.cli.agent_sessions import sessions
from loom.cli.approve import Approver
from loom.cli.attachment import utf8
from loom.cli.connect import connection_options
from loom.cli.converse import Conversation, is_live
from loom.cli.keep import account_options, accounts, within_cost
from loom.cli.options import DOLLARS, common_options, pass_terminal
from loom.cli.prompt import read_question
from loom.cli.session_store import session_of, stored
from loom.cli.terminal import Terminal
from loom.cli.tool_options import approve_option, continue_option
from loom.cli.turn_text import counted
from loom.config.load import load_settings

if TYPE_CHECKING:
    from loom.client.agent import AsyncAgent
    from loom.config.agent_file import AgentFile

__all__ = ["agent", "run", "schema", "validate"]

_FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))


@click.group()
@common_options
@pass_terminal
def agent(terminal: Terminal) -> None:
    """Run agents that a YAML file describes, and keep their conversations."""
    del terminal


@agent.command(
    epilog="Piped text comes first, then the prompt. Without a prompt, on a terminal, it talks:"
    " a line after another. The file's paths begin where it lies; its modules are looked for there"
    " and in the current folder."
)
@_FILE
@click.argument("prompt", nargs=-1)
@click.option("-a", "--attach", multiple=True, metavar="FILE", help="Add a file; `-`: piped.")
@connection_options
@account_options
@continue_option
@click.option("--resume", metavar="NAME", help="Finish the answer that broke off in this session.")
@approve_option
@click.option("--max-cost", type=DOLLARS, metavar="USD", help="Send nothing that may cost more.")
@click.option("--stream/--no-stream", default=None, help="Print text as it is made, or the answer.")
@common_options
@pass_terminal
@click.pass_context
def run(context: click.RichContext, terminal: Terminal, /, **given: Any) -> None:
    """Run the agent of a file; its answer goes to standard output, the rest to standard error."""
    from loom.config.agent_file import load_agent_file  # noqa: PLC0415 - start-up time

    every = {**given, "messages": None, "system": None}
    resumes = given["resume"] is not None
    bare = not resumes and terminal.is_bare(asked=bool(given["prompt"] or given["attach"]))
    if resumes and (given["prompt"] or given["session"] or given["go_on"]):
        raise click.UsageError("--resume NAME stands alone: it finishes what was asked before")
    file = load_agent_file(given["file"])
    question = None if bare or resumes else read_question(context, every)
    with _conversing(terminal, file, every, kept=bare) as conversation:
        if question is not None:
            conversation.say(question.messages)
        elif resumes:
            conversation.resume()
        else:
            from loom.cli.repl import Repl  # noqa: PLC0415 - start-up time

            Repl(conversation, again=f"looms agent run {given['file']} -c").run()


@contextmanager
def _conversing(
    terminal: Terminal, file: AgentFile, given: Mapping[str, Any], *, kept: bool
) -> Iterator[Conversation]:
    kept = kept or bool(given["session"] or given["go_on"] or given["resume"])
    said = load_settings().sim if file.sim is None else file.sim
    given = {**given, "sim": given["sim"] or said}
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())
        store = session = None
        if kept or file.sessions is not None:
            store = stack.enter_context(stored(runner, file.sessions))
            named = given["resume"] or given["session"]
            session = runner.run(session_of(store, named, go_on=given["go_on"]))
        approver = Approver(terminal, given["approve"])
        own, limits = within_cost({**given, "session": session}, also=file.budget)
        money = stack.enter_context(accounts(own))
        # A budget of the file is the agent's, and not that of all commands.
        more = {**limits, **money, "client_name": file.name}
        changes = {"permissions": approver.permissions, "sessions": store, **more}
        made = _agent(terminal, file, given, changes)
        stack.callback(lambda: runner.run(made.aclose()))
        yield Conversation(
            terminal,
            runner,
            made,
            approver,
            store=store,
            session=session,
            as_of=given["as_of"],
            live=is_live(terminal, given["stream"]),
        )


def _agent(
    terminal: Terminal, file: AgentFile, given: Mapping[str, Any], changes: Mapping[str, Any]
) -> AsyncAgent:
    from loom.cli.whose import whose  # noqa: PLC0415 - start-up time
    from loom.client.agent_file import agent_from_file  # noqa: PLC0415 - the same
    from loom.client.tool_import import importable  # noqa: PLC0415 - the same

    terminal.start_log()
    settings = load_settings()
    usual = settings.model if file.model is None else None
    if usual is not None and whose(usual, given["as_of"], file.provider)[0] != file.provider:
        usual = None  # the settings' model is another vendor's
    named = given["model"] or usual
    if named is not None:
        vendor, model = whose(named, given["as_of"], file.provider)
        file = msgspec.structs.replace(file, model=model)
        if vendor != file.provider:
            # Address and key are those of the file's own vendor.
            file = msgspec.structs.replace(file, provider=vendor, base_url=None, api_key=None)
    chosen = {
        "as_of": given["as_of"],
        "sim": given["sim"],
        "max_tokens": settings.max_tokens if file.max_tokens is None else None,
        "temperature": settings.temperature if file.temperature is None else None,
        "timeout_s": settings.timeout_s,
        "deadline_s": settings.deadline_s,
    }
    importable(Path.cwd())
    return agent_from_file(
        file, **changes, **{name: value for name, value in chosen.items() if value is not None}
    )


@agent.command(
    epilog="Nothing is sent, and without --import no code runs. 2 when the agent cannot run;"
    " notes are what may be different on another machine."
)
@_FILE
@click.option("--import", "imports", is_flag=True, help="Import the tools too: their code runs.")
@common_options
@pass_terminal
def validate(terminal: Terminal, /, *, file: Path, imports: bool) -> None:
    """Check an agent file, and tell everything that is wrong with it."""
    from loom.cli.agent_problems import problems_of  # noqa: PLC0415 - start-up time

    found = problems_of(_text(file), file.absolute().parent, imports=imports)
    errors = sum(problem.level == "error" for problem in found)
    if terminal.json:
        terminal.write_json({"file": str(file), "ok": not errors, "problems": found})
    else:
        for problem in found:
            key = f" {problem.key}:" if problem.key else ""
            note = "" if problem.level == "error" else " note:"
            stop = "" if problem.message.endswith((".", "?")) else "."
            hint = f"{stop} {problem.hint}" if problem.hint else ""
            terminal.write(f"{file}:{problem.line}:{note}{key} {problem.message}{hint}\n")
        terminal.write(f"{file}: {counted(errors, 'error') if errors else 'ok'}\n")
    if errors:
        raise Exit(2)


def _text(path: Path) -> str:
    try:
        return utf8(path.read_bytes(), str(path))
    except OSError as error:
        raise click.UsageError(f"cannot read {str(path)!r}: {error.strerror}") from None


@agent.command(
    epilog="looms agent schema > agent.schema.json, and"
    " `# yaml-language-server: $schema=agent.schema.json` as the first line of the file."
)
@common_options
@pass_terminal
def schema(terminal: Terminal) -> None:
    """Print the JSON schema of agent files, for editors."""
    from loom.config.agent_file import agent_file_schema  # noqa: PLC0415 - start-up time

    text = msgspec.json.format(msgspec.json.encode(agent_file_schema()), indent=2)
    terminal.write(f"{text.decode()}\n")


agent.add_command(sessions)
