"""Rules of style that no linter knows, checked in every tracked file."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

# A reader holds about so many lines in the head; the aim is 150.
LONGEST_MODULE = 450

_MONEY = re.compile(r"cost|price|usd|money|budget", re.IGNORECASE)


def _lines(pattern: str, message: str) -> Callable[[str], Iterator[str]]:
    expression = re.compile(pattern)

    def check(text: str) -> Iterator[str]:
        for number, line in enumerate(text.splitlines(), 1):
            if expression.search(line):
                yield f"{number}: {message}"

    return check


def long_module(text: str) -> Iterator[str]:
    lines = len(text.splitlines())
    if lines > LONGEST_MODULE:
        yield f"1: {lines} lines; a module has at most {LONGEST_MODULE}"


def unexplained_ignore(text: str) -> Iterator[str]:
    """Find an ignore without its code, or with no word of reason beside or above it."""
    coded = re.compile(r"#\s*(noqa: [A-Z]+\d+(, ?[A-Z]+\d+)*|type: ignore\[[\w, -]+\])(.*)")
    before = ""
    for number, line in enumerate(text.splitlines(), 1):
        if re.search(r"#\s*(noqa|type:\s*ignore|pyright:\s*ignore)", line):
            found = coded.search(line)
            if not found:
                yield f"{number}: an ignore names its code"
            elif not re.search(r"[a-z]{2,}", found[3]) and not before.startswith("#"):
                yield f"{number}: an ignore says its reason"
        before = line.strip()


def float_money(text: str) -> Iterator[str]:
    """Find a name of money that is a float, or is made one."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.AnnAssign(target=target, annotation=note):
                name, kind = ast.unparse(target), ast.unparse(note)
            case ast.arg(arg=name, annotation=ast.expr() as note):
                kind = ast.unparse(note)
            case ast.FunctionDef(name=name, returns=ast.expr() as note):
                kind = ast.unparse(note)
            case ast.Call(func=ast.Name(id="float"), args=[argument]):
                name, kind = ast.unparse(argument), "float"
            case _:
                continue
        if _MONEY.search(name) and re.search(r"\bfloat\b", kind):
            yield f"{node.lineno}: {name} is money: Decimal, never float"


def secret(text: str) -> Iterator[str]:
    """Find what looks like a real key: a known prefix, or 32 mixed characters after `key =`."""
    known = re.compile(
        r"-----BEGIN [A-Z ]*PRIVATE KEY|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_\w{36}|\bsk-\w{32,}"
        r"|\bloom_sk_[0-9A-Za-z]{36}\b|\bhvs\.\w{24,}|\bxox[abprs]-[\w-]{10,}"
    )
    assigned = re.compile(
        r"(?i)(?:key|secret|token|password)\"?\s*[:=]\s*[\"']?([A-Za-z0-9]{32})\b"
    )
    for number, line in enumerate(text.splitlines(), 1):
        value = assigned.search(line)
        # A made-up key repeats itself; a drawn one hardly does.
        if known.search(line) or (value and len(set(value[1])) > 16):
            yield f"{number}: looks like a secret"


CODE: list[Callable[[str], Iterator[str]]] = [
    unexplained_ignore,
    _lines(r"unittest\.mock|\bMagicMock\b|\bmocker\.", "fakes, not mocks (loom.testing)"),
    _lines(r"\b(TODO|FIXME|XXX|HACK)\b", "nothing is left to do"),
]
SOURCE: list[Callable[[str], Iterator[str]]] = [
    long_module,
    float_money,
    _lines(r"NotImplementedError", "nothing is left to do"),
    _lines(r"[=!]= \"(mistral|open-mi|codestral|gpt|claude)-", "facts about a model are data"),
]
TESTS: list[Callable[[str], Iterator[str]]] = [
    _lines(r"\btime\.sleep\(|asyncio\.sleep\((?!0\))", "a test waits for an event, not for time"),
    _lines(r"\bport=[1-9]\d*\b(?!\*)|\bbind\(\(.*, [1-9]", "port 0: a fixed port may be in use"),
]
# The patterns are cut in two, so that this file does not hold what it looks for.
EVERYWHERE: list[Callable[[str], Iterator[str]]] = [
    secret,
    _lines(r"/(work|farm|root|home/[a-z]+)/\w", "a path of one machine"),
    _lines(r"https?://\S+/(simple|packages|dists)\b|pythonhosted" r"\.org", "an index address"),
]

# Where a rule does not hold, and why.
EXCEPTIONS = {
    # These name what they look for.
    ("tests/test_style.py", ""),
    ("tests/test_floors.py", "not for time"),
}


def faults(place: str, text: str) -> list[str]:
    """Give every broken rule of a file, one line each."""
    checks = [*EVERYWHERE]
    if place.endswith(".py"):
        checks += CODE
        checks += SOURCE if place.startswith("src/") else []
        checks += TESTS if place.startswith("tests/") else []
    return [
        f"{place}:{fault}"
        for check in checks
        for fault in check(text)
        if not any(place.startswith(head) and rule in fault for head, rule in EXCEPTIONS)
    ]


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"],  # noqa: S607  git is where the PATH says
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("not a git checkout: it is not known which files belong to the project")
    paths = [REPOSITORY / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and path.suffix not in (".png", ".ico")]


def test_every_tracked_file_keeps_the_rules() -> None:
    """No tracked file breaks a rule of style."""
    broken = [
        fault
        for path in tracked()
        for fault in faults(
            path.relative_to(REPOSITORY).as_posix(), path.read_text(encoding="utf-8")
        )
    ]

    assert [] == broken


def test_no_lock_file_is_tracked() -> None:
    """`uv.lock` holds addresses of an index, so it stays out."""
    assert "uv.lock" not in {path.name for path in tracked()}


def test_pinned_requirements_hold_hashes_and_no_address() -> None:
    """Each pinned package has a hash, and no line says where packages come from."""
    for path in sorted((REPOSITORY / "requirements").glob("*.txt")):
        text = path.read_text(encoding="utf-8")
        pins = re.split(r"(?m)^(?=\w)", text)[1:]

        assert pins
        assert [] == [pin.splitlines()[0] for pin in pins if "--hash=sha256:" not in pin]
        assert "://" not in text
        assert not re.search(r"(?m)^--(index|extra|find)", text)


@pytest.mark.parametrize(
    ("place", "text", "fault"),
    [
        ("src/loom/core/a.py", "x = 1\n" * 451, "at most 450"),
        ("src/loom/core/a.py", "x = f()  # noqa", "names its code"),
        ("src/loom/core/a.py", "x = f()  # noqa: S311", "says its reason"),
        ("src/loom/core/a.py", "x = f()  # type: ignore", "names its code"),
        ("src/loom/core/a.py", "x = f()  # type: ignore[misc]", "says its reason"),
        ("src/loom/core/a.py", "cost_usd: float = 0.0", "never float"),
        ("src/loom/core/a.py", "def f(price: float | None): ...", "never float"),
        ("src/loom/core/a.py", "def cost() -> float: ...", "never float"),
        ("src/loom/core/a.py", "x = float(row.price)", "never float"),
        ("src/loom/core/a.py", 'if model == "mistral-large-latest": ...', "are data"),
        ("src/loom/core/a.py", "x = 1  # TODO: more", "left to do"),
        ("tests/a.py", "from unittest.mock import Mock", "not mocks"),
        ("tests/a.py", "import time\ntime.sleep(1)", "not for time"),
        ("tests/a.py", "await asyncio.sleep(0.1)", "not for time"),
        ("tests/a.py", "run(app, port=8080)", "port 0"),
        ("tests/a.py", 'server.bind(("127.0.0.1", 8080))', "port 0"),
        ("docs/a.md", "see /home/ann/notes", "one machine"),
        ("requirements/a.txt", "--index-url https://example.org/simple", "index address"),
        ("docs/a.md", "-----BEGIN RSA PRIVATE KEY-----", "a secret"),
        ("docs/a.md", 'api_key = "q8Zr1TnXw4Lb7VdKs2Hy9PcMf3Jg6RuA"', "a secret"),
    ],
)
def test_a_planted_fault_is_found(place: str, text: str, fault: str) -> None:
    """Each rule finds what it is for, once."""
    found = faults(place, text)

    assert 1 == len(found), found
    assert fault in found[0]


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("src/loom/core/a.py", "x = f()  # noqa: S311  jitter needs no secrecy"),
        ("src/loom/core/a.py", "# The stubs lag behind.\nx = f()  # type: ignore[misc]"),
        ("src/loom/core/a.py", "cost_usd: Decimal | None = None\ntimeout_s: float = 1.0"),
        ("tests/a.py", "await asyncio.sleep(0)"),
        ("tests/a.py", 'api_key = "k" * 32\nother_key = "00000000000000000000000000000001"'),
    ],
)
def test_what_is_allowed_passes(place: str, text: str) -> None:
    """No rule fires on what it allows."""
    assert [] == faults(place, text)
