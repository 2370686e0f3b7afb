"""Agent files: what they say is typed, and what is wrong with them has a line."""

from __future__ import annotations

import copy
import os
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from loom.agent.limits import AgentLimits
from loom.config.agent_file import (
    AgentFile,
    BackendEntry,
    McpEntry,
    ToolRules,
    agent_file_schema,
    load_agent_file,
    parse_agent_file,
)
from loom.core.errors import ConfigInvalid
from loom.layers.limit_rate import RateLimit
from loom.ledger.budgets import Budget

KEY = "canary-" + "k" * 24
HEAD = "apiVersion: loom/v1\nkind: Agent\nmetadata:\n  name: shop\n"
FULL = """\
apiVersion: loom/v1
kind: Agent
metadata:
  name: shop
  description: Answers questions about the shop.
  labels: {team: sales, "on": "1"}
spec:
  provider: mistral
  model: mistral-large-latest
  api_key: env:MISTRAL_API_KEY
  base_url: http://127.0.0.1:8080/v1
  fallback: ["openai:gpt-4.1-mini", mistral-small-latest]
  system_prompt: |
    You answer questions
    about a shop.
  temperature: 0.2
  max_tokens: 1000
  tools:
    - shop_tools:lookup
    - tools/more.py
    - mcp:
        command: uvx mcp-server-fetch --fast
        env: {FETCH_TOKEN: "keyring:fetch", LEVEL: debug}
        cwd: servers
        tools: [fetch]
        timeout_s: 20
    - mcp:
        url: https://mcp.example.org/mcp
        headers: {Authorization: "Bearer file:token.txt"}
        prefix: issues
  backend: sqlite:shop.db
  limits:
    max_turns: 5
    max_tool_executions: 0
    max_calls_per_answer: 3
    max_argument_errors: 1
    deadline_s: 1e2
    tool_timeout_s: 2.5
    max_output_bytes: 1000
    max_parallel: 2
    warn_usd: 0.10
  budget: 5/month
  permissions: {allowed: [lookup, fetch], ask: [fetch], deny: [delete]}
  sessions: sqlite:///sessions.db
  context: summarise
  rate_limit: starter
  sim: true
"""


def parsed(spec: str, folder: Path = Path("/somewhere")) -> AgentFile:
    """Parse a file with the usual head and this spec."""
    return parse_agent_file(f"{HEAD}spec: {spec}\n", folder / "agent.yaml")


def test_every_value_is_typed(tmp_path: Path) -> None:
    """Each key of the format gives its value, and relative paths begin beside the file."""
    path = tmp_path / "agent.yaml"
    path.write_text(FULL, encoding="utf-8")

    assert AgentFile(
        path=path,
        name="shop",
        description="Answers questions about the shop.",
        labels={"team": "sales", "on": "1"},
        provider="mistral",
        model="mistral-large-latest",
        api_key="env:MISTRAL_API_KEY",
        base_url="http://127.0.0.1:8080/v1",
        fallback=("openai:gpt-4.1-mini", "mistral-small-latest"),
        system_prompt="You answer questions\nabout a shop.\n",
        temperature=0.2,
        max_tokens=1000,
        tools=(
            "shop_tools:lookup",
            "tools/more.py",
            McpEntry(
                command=("uvx", "mcp-server-fetch", "--fast"),
                env={"FETCH_TOKEN": "keyring:fetch", "LEVEL": "debug"},
                cwd=tmp_path / "servers",
                options={"tools": ("fetch",), "timeout_s": 20.0},
            ),
            McpEntry(
                url="https://mcp.example.org/mcp",
                headers={"Authorization": "Bearer file:token.txt"},
                options={"prefix": "issues"},
            ),
        ),
        backend=BackendEntry(kind="sqlite", path=tmp_path / "shop.db"),
        limits=AgentLimits(
            max_turns=5,
            max_tool_executions=0,
            max_calls_per_answer=3,
            max_argument_errors=1,
            deadline_s=100.0,
            tool_timeout_s=2.5,
            max_output_bytes=1000,
            max_parallel=2,
            warn_usd=Decimal("0.10"),
        ),
        budget=Budget(limit_usd="5", period="month"),
        permissions=ToolRules(
            allowed=frozenset({"lookup", "fetch"}),
            ask=frozenset({"fetch"}),
            deny=frozenset({"delete"}),
        ),
        sessions=f"sqlite:///{tmp_path}/sessions.db",
        context="summarise",
        rate_limit=RateLimit.starter(),
        sim=True,
    ) == load_agent_file(path)


def test_what_is_not_said_has_its_default() -> None:
    """The smallest file is a name."""
    file = parsed("{}")

    assert AgentFile(path=Path("/somewhere/agent.yaml"), name="shop") == file
    assert AgentLimits() == file.limits
    assert Path("/somewhere") == file.folder


def test_a_text_is_what_was_written() -> None:
    """YAML's own guesses (false, 1000.0, a date) are not made."""
    file = parsed(
        "{model: 1e3, system_prompt: no, provider: 2024-11-01, fallback: [0x1F, on, 1:30]}"
    )

    assert ("1e3", "no", "2024-11-01") == (file.model, file.system_prompt, file.provider)
    assert ("0x1F", "on", "1:30") == file.fallback


@pytest.mark.parametrize(
    ("text", "limit", "period"),
    [("0.50", "0.50", None), ('"0.1"', "0.1", None), ("5/day", "5", "day"), ("$3", "3", None)],
)
def test_money_is_exact(text: str, limit: str, period: Any) -> None:
    """An amount never passes through a float, quoted or not."""
    assert Budget(limit_usd=Decimal(limit), period=period) == parsed(f"{{budget: {text}}}").budget


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("free", RateLimit.free()),
        ("60", RateLimit(requests_per_minute=60)),
        ("60/500000", RateLimit(requests_per_minute=60, tokens_per_minute=500_000)),
        ("/9000", RateLimit(tokens_per_minute=9000)),
    ],
)
def test_limits_are_those_of_the_command_line(text: str, limit: RateLimit) -> None:
    """A plan, or requests and tokens a minute."""
    assert limit == parsed(f"{{rate_limit: {text}}}").rate_limit


@pytest.mark.parametrize(
    ("spec", "entry"),
    [
        ("files:./data", BackendEntry(kind="files", path=Path("/somewhere/data"))),
        ("sqlite:/a/b.db", BackendEntry(kind="sqlite", path=Path("/a/b.db"))),
        ("sqlite:///b.db", BackendEntry(kind="sqlite", path=Path("/somewhere/b.db"))),
        ("sqlite:////a/b.db", BackendEntry(kind="sqlite", path=Path("/a/b.db"))),
        (
            '{at: "files:data", write: true}',
            BackendEntry(kind="files", path=Path("/somewhere/data"), write=True),
        ),
    ],
)
def test_a_backend_is_read_only_unless_the_file_says_otherwise(
    spec: str, entry: BackendEntry
) -> None:
    """It is a place, or a place with `write`."""
    assert entry == parsed(f"{{backend: {spec}}}").backend


@pytest.mark.parametrize(
    ("text", "sessions"),
    [
        ('"memory:"', "memory:"),
        ("chats.db", "sqlite:////somewhere/chats.db"),
        ("sqlite:////var/chats.db", "sqlite:////var/chats.db"),
    ],
)
def test_sessions_lie_beside_the_file(text: str, sessions: str) -> None:
    """A path that begins at the root stays where it is."""
    assert sessions == parsed(f"{{sessions: {text}}}").sessions


def test_a_prompt_may_have_a_file_of_its_own(tmp_path: Path) -> None:
    """It is found beside the agent's file."""
    (tmp_path / "prompt.md").write_text("Be kind.\n", encoding="utf-8")

    file = parsed("{system_prompt_file: prompt.md}", tmp_path)

    assert "Be kind.\n" == file.system_prompt
    assert tmp_path / "prompt.md" == file.system_prompt_file


WRONG = [
    ("{modle: x}", "5: spec.modle: unknown key: did you mean 'model'?"),
    ("{limits: {max_turn: 1}}", "5: spec.limits.max_turn: unknown key: did you mean 'max_turns'?"),
    ("{zzz: x}", "5: spec.zzz: unknown key: known are provider, model, "),
    ("\n  model: a\n  model: b", "7: 'model' stands here and in line 6"),
    ("[]", "5: spec: a mapping is expected, not a list"),
    ("", "5: spec: a mapping is expected, not nothing"),
    ("{model: }", "5: spec.model: a text is expected, not nothing"),
    ("{model: [a]}", "5: spec.model: a text is expected, not a list"),
    ('{model: " "}', "5: spec.model: is empty"),
    ("{max_tokens: many}", "5: spec.max_tokens: a whole number of at least 1 is expected, not 'ma"),
    ("{max_tokens: 1.5}", "a whole number of at least 1 is expected, not '1.5'"),
    ('{max_tokens: "5"}', "is expected, not '5' (in quotes it is a text)"),
    ("{max_tokens: 0}", "5: spec.max_tokens: 0 is below 1"),
    ("{max_tokens: 1_000}", "not '1_000'"),
    ("{max_tokens: {}}", "not a mapping"),
    ("{temperature: 2.1}", "5: spec.temperature: 2.1 is out of range: at least 0 and at most 2"),
    ("{temperature: .nan}", "a number is expected, not '.nan'"),
    ("{temperature: 1e999}", "out of range"),
    ("{limits: {deadline_s: 0}}", "5: spec.limits.deadline_s: 0 is out of range: above 0"),
    ("{limits: {warn_usd: -1}}", "spec.limits.warn_usd: US dollars is expected, not '-1'"),
    ("{sim: yes}", "5: spec.sim: true or false is expected, not 'yes'"),
    ('{sim: "true"}', "true or false is expected, not a text"),
    ("{sim: 1}", "true or false is expected, not a value"),
    ("{context: slid}", "5: spec.context: 'slid' is not known: did you mean 'slide'?"),
    ("{budget: 5/year}", "USD/month, for example 5/month is expected, not '5/year'"),
    ("{budget: 1e3}", "is expected, not '1e3'"),
    ("{rate_limit: huge}", "RPM/TPM, for example 60/500000 is expected, not 'huge'"),
    ("{backend: mysql:x}", "sqlite:FILE or files:FOLDER is expected, not 'mysql:x'"),
    ("{backend: 'sqlite:'}", "sqlite:FILE or files:FOLDER is expected"),
    ("{sessions: 'postgres://x'}", "memory:, sqlite:///FILE or a path is expected"),
    ("{fallback: mistral-small}", "5: spec.fallback: a list is expected, not a value"),
    ("{base_url: 'http://example.org'}", "5: spec.base_url: 'base_url' must use https"),
    ("{permissions: {allow: []}}", "spec.permissions.allow: unknown key: did you mean 'allowed'?"),
    ("{permissions: {ask: [[a]]}}", "spec.permissions.ask[0]: a text is expected, not a list"),
    ("{system_prompt: a, system_prompt_file: b}", "give 'system_prompt' or 'system_prompt_file', "),
    ("{system_prompt_file: '~nobody-here/x'}", "spec.system_prompt_file: a path is expected"),
    ("{tools: [{mpc: {}}]}", "5: spec.tools[0].mpc: unknown key: did you mean 'mcp'?"),
    ("{tools: [{mcp: {}}]}", "5: spec.tools[0].mcp: give 'command' or 'url'"),
    ("{tools: [{mcp: {command: a, url: b}}]}", "give 'command' or 'url', not both"),
    ("{tools: [{mcp: {command: []}}]}", "spec.tools[0].mcp.command: at least 1 is expected"),
    ('{tools: [{mcp: {command: "a \'b"}}]}', "spec.tools[0].mcp.command: a command is expected"),
    ("{tools: [{mcp: {command: a, headers: {}}}]}", "give 'command' or 'headers', not both"),
    ("{tools: [{mcp: {url: 'http://example.org'}}]}", "must be reached by https"),
    ("{tools: [{mcp: {command: a, prefix: b.c}}]}", "prefix 'b.c' must be 1 to 32"),
    ("&a {}", "5: anchors and aliases (&, *) are not taken: write it out"),
    ("{model: *a}", "5: anchors and aliases (&, *) are not taken"),
    ("!!python/object:os.system {}", "5: tags (!) are not taken"),
    ("{model: !!str x}", "5: tags (!) are not taken"),
    ("{<<: {model: x}}", "5: spec.<<: unknown key"),
    ("{[a]: b}", "5: a key is a list; it must be a name"),
    ('{model: "a\\0b"}', "5: holds a character that no text has"),
    ('{model: "\\ud800"}', "5: holds a character that no text has"),
    ("{model: a\n---\nb", "is not YAML"),
    ("{}\n---\nb: c", "6: a second document begins here"),
    ("[" * 17 + "]" * 17, "5: is nested too deeply, or has too many values"),
    ("[" + "a," * 10_001 + "]", "5: is nested too deeply, or has too many values"),
    ("{model: [}", "5: is not YAML: "),
    ("{model: a\tb\x07}", "1: is not YAML: "),
]


@pytest.mark.parametrize(("spec", "words"), WRONG)
def test_a_fault_is_told_with_line_and_key(spec: str, words: str) -> None:
    """The message says where, what was expected, and what is there."""
    with pytest.raises(ConfigInvalid) as caught:
        parsed(spec)
    assert f"/somewhere/agent.yaml:{words}" in str(caught.value) or (
        str(caught.value).startswith("/somewhere/agent.yaml:") and words in str(caught.value)
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "1: is empty"),
        ("# nothing\n", "1: is empty"),
        ("just words", "1: the document: a mapping is expected, not a value"),
        (HEAD, "1: spec: is missing"),
        (
            HEAD.replace("loom/v1", "loom/v2") + "spec: {}",
            "1: apiVersion: 'loom/v2' is not known: ",
        ),
        (
            HEAD.replace("Agent", "Agend") + "spec: {}",
            "2: kind: 'Agend' is not known: did you mean",
        ),
        (
            HEAD.replace("name:", "nome:") + "spec: {}",
            "4: metadata.nome: unknown key: did you mean",
        ),
        ("x" * 200_000, "1: is longer than 131,072 characters"),
    ],
)
def test_the_head_is_checked(text: str, words: str) -> None:
    """Version, kind and name must be there."""
    with pytest.raises(ConfigInvalid) as caught:
        parse_agent_file(text, Path("a.yaml"))
    assert str(caught.value).startswith(f"a.yaml:{words}")


@pytest.mark.parametrize(
    "spec",
    [
        f"{{api_key: {KEY}}}",
        f"{{api_key: 'Bearer env:{KEY}'}}",
        f"{{api_key: [{KEY}]}}",
        f"{{tools: [{{mcp: {{command: a, env: {{API_KEY: {KEY}}}}}}}]}}",
        f"{{tools: [{{mcp: {{command: a, env: {{github-token: {KEY}}}}}}}]}}",
        f"{{tools: [{{mcp: {{command: a, env: {{LEVEL: [{KEY}]}}}}}}]}}",
        f"{{tools: [{{mcp: {{command: [a, --api-key, {KEY}]}}}}]}}",
        f"{{tools: [{{mcp: {{command: 'a --token={KEY}'}}}}]}}",
        f"{{tools: [{{mcp: {{url: 'https://x.org/?api_key={KEY}'}}}}]}}",
        f"{{tools: [{{mcp: {{url: 'https://u:{KEY}@x.org/'}}}}]}}",
        f"{{tools: [{{mcp: {{url: 'https://x.org/', headers: {{X-Api-Key: {KEY}}}}}}}]}}",
    ],
)
def test_a_secret_itself_is_refused_and_not_shown(spec: str) -> None:
    """Only where it is may stand in the file."""
    with pytest.raises(ConfigInvalid, match=r"agent\.yaml:5: spec\.") as caught:
        parsed(spec)
    assert KEY not in str(caught.value)
    assert KEY not in repr(caught.value.__context__)


def test_what_is_named_harmlessly_may_be_written_out() -> None:
    """A variable that holds no secret needs no reference."""
    (tool,) = parsed("{tools: [{mcp: {command: a, env: {TOKENIZERS: 1, MONKEY: no}}}]}").tools
    assert isinstance(tool, McpEntry)
    assert {"TOKENIZERS": "1", "MONKEY": "no"} == tool.env


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """It is missing, a folder, a pipe, no UTF-8 or endless; so may be a prompt's."""
    bad = tmp_path / "bad.yaml"
    bad.write_bytes(b"\xff\xfe\xff")
    long = tmp_path / "long.yaml"
    long.write_bytes(b"#" * 600_000)
    os.mkfifo(tmp_path / "pipe")

    for name, words in [
        ("none.yaml", "cannot be read: No such file"),
        ("", "is not a file"),
        ("pipe", "is not a file"),
        ("bad.yaml", "cannot be read: it is not UTF-8"),
        ("long.yaml", "is longer than 524,288 bytes"),
    ]:
        with pytest.raises(ConfigInvalid, match=words):
            load_agent_file(tmp_path / name)
    with pytest.raises(ConfigInvalid, match=r"none\.md: cannot be read: No such file"):
        parsed("{system_prompt_file: none.md}", tmp_path)


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PyYAML there is one error."""
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ConfigInvalid, match=r"pip install 'looms\[yaml\]'"):
        parsed("{}")


def test_a_whole_mark_at_the_beginning_is_no_harm(tmp_path: Path) -> None:
    """Editors on Windows put one there."""
    path = tmp_path / "agent.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + FULL.encode())
    assert "shop" == load_agent_file(path).name


def accepted(document: Any) -> bool:
    """Whether the schema takes a document."""
    return jsonschema.Draft202012Validator(agent_file_schema()).is_valid(document)


def test_the_schema_is_one_and_takes_what_the_parser_takes() -> None:
    """An editor that checks by it is content with a good file."""
    jsonschema.Draft202012Validator.check_schema(agent_file_schema())

    # To PyYAML 1e2 is a text; to YAML 1.2, and to editors, it is a number.
    assert accepted(yaml.safe_load(FULL.replace("1e2", "100.0")))
    assert accepted(yaml.safe_load(f"{HEAD}spec: {{}}"))
    assert accepted(yaml.safe_load(f"{HEAD}spec: {{budget: 0.50, rate_limit: 60}}"))


# What a schema cannot say, or what YAML itself does not hand on.
_BEYOND_SCHEMA = (
    "stands here", "anchors", "tags", "is not YAML", "a second", "a key is", "deeply", "spec.<<",
    "no text has", "expected, not 'yes'", "1_000", "https", "a command is", "prefix", "RPM/TPM",
    "in quotes", "a path is", "1e999", ".nan",
)  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "words"), [case for case in WRONG if not any(w in case[1] for w in _BEYOND_SCHEMA)]
)
def test_the_schema_refuses_what_the_parser_refuses(spec: str, words: str) -> None:
    """An editor marks each of these faults."""
    assert not accepted(yaml.safe_load(f"{HEAD}spec: {spec}\n")), words


def paths(schema: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Each key that a schema knows."""
    found = []
    for name, inner in schema.get("properties", {}).items():
        found += [(*path, name), *paths(inner, (*path, name))]
    return found


def test_every_key_of_the_schema_is_used_by_the_full_example() -> None:
    """So the test above it tries each of them."""
    document = yaml.safe_load(FULL)
    document["spec"]["system_prompt_file"] = "x"
    for path in paths(agent_file_schema()):
        value = copy.copy(document)
        for key in path:
            assert key in value, path
            value = value[key]


_KEYS = st.sampled_from(
    ["apiVersion", "kind", "metadata", "spec", "name", "model", "tools", "mcp", "command", "env",
     "limits", "max_turns", "budget", "api_key", "sim", "<<", "backend", "labels"]
)  # fmt: skip
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates()
    | st.sampled_from(["loom/v1", "Agent", "env:X", "sqlite:x", "5/month"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=6),
    max_leaves=20,
)  # fmt: skip


def outcome(text: str) -> None:
    """Parse; whatever is raised beside `ConfigInvalid` fails the test."""
    try:
        file = parse_agent_file(text, Path("/nowhere/agent.yaml"))
    except ConfigInvalid:
        return
    assert "shop" == file.name or file.name


@given(st.text(max_size=300))
@example("\ufeff")
@example("%YAML 99999999999.1\n---\na")
@example('"\\UFFFFFFFF"')
@example("? ? ? a")
@example("- " * 500)
@example("{" * 3000)
def test_any_text_gives_a_file_or_config_invalid(text: str) -> None:
    """Nothing else is raised, whatever a file holds."""
    outcome(text)


@given(_VALUES, _VALUES)
def test_any_document_gives_a_file_or_config_invalid(spec: Any, metadata: Any) -> None:
    """The same for whatever is YAML."""
    document = {"apiVersion": "loom/v1", "kind": "Agent", "metadata": metadata, "spec": spec}
    outcome(yaml.safe_dump(document, allow_unicode=True))


@given(st.integers(0, len(FULL)), st.text(alphabet=" :-[]{}&*!|>'\"%@`#,?\nx0\t", max_size=4))
def test_any_slip_of_the_pen_gives_a_file_or_config_invalid(at: int, slip: str) -> None:
    """A good file with some characters put in or taken out."""
    outcome(FULL[:at] + slip + FULL[at:])
    outcome(FULL[:at] + FULL[at + len(slip) :])
