"""
Scripts for the simulator: which answer and which fault a request gets.

The format is explained in `docs/scenarios.md`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from loom.core.errors import ConfigInvalid
from loom.core.events import StreamEvent
from loom.core.provider import LLMProvider
from loom.core.request import ChatRequest
from loom.server.simulator.faults import Fault, RequestInfo, parse_fault
from loom.server.simulator.scenario_file import ROLES, Reader
from loom.server.simulator.scenario_rule import Rule, check_rule

if TYPE_CHECKING:
    from loom.providers.scripted import ScriptItem

__all__ = ["Rule", "Scenario", "ScenarioProvider", "ScenarioRun", "request_info"]

_FOLDER = Path(__file__).with_name("scenarios")

_rule: ContextVar[Rule | None] = ContextVar("loom-simulator-rule", default=None)


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """
    A script: the first rule that fits a request says what happens to it.

    Attributes:
        title: What it shows.
        rules: In this order.
        answer: What a request is answered whose rule names no answer, or that no rule fits;
            None: an answer composed from the prompt.

    Raises:
        ConfigInvalid: If a rule's expression or fault is not one.
    """

    title: str = ""
    rules: tuple[Rule, ...] = ()
    answer: ScriptItem | None = None

    def __post_init__(self) -> None:
        """Refuse what would fail when a request comes."""
        for number, rule in enumerate(self.rules, 1):
            check_rule(rule, f"rule {number}")

    @classmethod
    def load(cls, name: str | Path) -> Self:
        """
        Read a script.

        Args:
            name: A file, or a script that comes with the package (`FB03`); with `:primary` or
                `:fallback` behind it the part of that provider. Without it: the primary's.

        Returns:
            The script.

        Raises:
            ConfigInvalid: If there is no such script, or it is not as it must be; the message
                names file, table and key.
        """
        text, _, role = str(name).rpartition(":")
        if role not in ROLES:
            text, role = str(name), ROLES[0]
        path = _found(text)
        try:
            source = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            raise ConfigInvalid(f"cannot read the script {str(path)!r}: {reason}") from None
        return cls.parse(source, name=str(path), role=role)

    @classmethod
    def parse(cls, source: str, *, name: str = "the script", role: str = "primary") -> Self:
        """
        Read a script from its text.

        Args:
            source: TOML.
            name: What messages call it.
            role: Whose rules are taken: "primary" or "fallback"; rules without a role are
                everybody's.

        Returns:
            The script.

        Raises:
            ConfigInvalid: If it is not as it must be; the message names file, table and key.
        """
        import tomllib  # noqa: PLC0415 - only who has a script pays for it

        try:
            tables = tomllib.loads(source)
        except tomllib.TOMLDecodeError as error:
            raise ConfigInvalid(f"{name}: not valid TOML: {error}") from None
        rules = Reader(name).rules(tables, role)
        return cls(title=tables.get("title", ""), rules=rules, answer=tables.get("answer"))

    @staticmethod
    def shipped() -> Sequence[str]:
        """The names of the scripts that come with the package, sorted."""
        return sorted(path.stem for path in _FOLDER.glob("*.toml"))


class ScenarioRun:
    """
    A script in use: it counts.

    Args:
        scenario: The script.
    """

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._faults = [
            None if rule.fault is None else parse_fault(rule.fault) for rule in scenario.rules
        ]
        self.reset()

    def reset(self) -> None:
        """Count from the beginning."""
        self._counts = [0] * len(self._scenario.rules)
        self._struck = [0] * len(self._scenario.rules)
        self._begun_s: float | None = None

    def choose(self, info: RequestInfo, now_s: float) -> Fault | None:
        """
        Find the rule of a request; its answer is kept for `ScenarioProvider`.

        Args:
            info: The request.
            now_s: The monotonic time, in seconds.

        Returns:
            The rule's fault; None if it has none, or no rule fits.
        """
        if self._begun_s is None:
            self._begun_s = now_s
        chosen: int | None = None
        for i, rule in enumerate(self._scenario.rules):
            if not rule.fits(info):
                continue
            self._counts[i] += 1
            if chosen is None and rule.holds(self._counts[i], now_s - self._begun_s):
                chosen = i
        _rule.set(None if chosen is None else self._scenario.rules[chosen])
        fault = None if chosen is None else self._faults[chosen]
        if chosen is None or fault is None:
            return None
        self._struck[chosen] += 1
        return fault if fault.holds(self._struck[chosen]) else None


class ScenarioProvider(LLMProvider):
    """
    Answers from a script, and asks another provider where the script has no answer.

    Args:
        inner: Who answers otherwise.
        scenario: The script.
        scripted: Makes a provider that gives this one answer; the number keeps ids apart.
    """

    def __init__(
        self,
        inner: LLMProvider,
        scenario: Scenario,
        scripted: Callable[[ScriptItem, int], LLMProvider],
    ) -> None:
        self._inner = inner
        self._scenario = scenario
        self._scripted = scripted
        self._count = 0

    @property
    def name(self) -> str:
        """The inner provider's."""
        return self._inner.name

    @property
    def model(self) -> str:
        """The inner provider's."""
        return self._inner.model

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        """
        Answer as the request's rule says.

        Args:
            request: What is asked.

        Yields:
            The answer's events.

        Raises:
            LoomError: What the script, or the inner provider, says.
        """
        self._count += 1
        rule = _rule.get()
        answer = self._scenario.answer if rule is None or rule.answer is None else rule.answer
        provider = self._inner if answer is None else self._scripted(answer, self._count)
        async with aclosing(provider.stream(request)) as events:
            async for event in events:
                yield event

    async def aclose(self) -> None:
        """Close the inner provider."""
        await self._inner.aclose()


def request_info(
    fields: Mapping[str, Any] | None, *, number: int, header: str | None, suffix: str | None
) -> RequestInfo:
    """
    Read from a body what rules and faults ask for; what is malformed counts as absent.

    Args:
        fields: The body's JSON object; None if it is none.
        number: The request's number.
        header: The value of `x-loom-fault`.
        suffix: What was cut off from the model's name.

    Returns:
        What is known.
    """
    body = fields or {}
    messages = _dicts(body.get("messages"))
    users = [message for message in messages if message.get("role") == "user"]
    last = messages[-1] if messages else {}
    model = body.get("model")
    return RequestInfo(
        number=number,
        header=header,
        suffix=suffix,
        model=model if isinstance(model, str) else "",
        text=_text(users[-1].get("content")) if users else "",
        tools=tuple(_names(tool.get("function") for tool in _dicts(body.get("tools")))),
        result_of=_answered_tool(messages) if last.get("role") == "tool" else None,
        last_role=str(last.get("role", "")),
        turn=len(users),
        stream=body.get("stream") is True,
    )


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _names(functions: Iterable[Any]) -> Iterable[str]:
    for function in functions:
        name = function.get("name") if isinstance(function, dict) else None
        if isinstance(name, str):
            yield name


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    texts = [part.get("text") for part in _dicts(content)]
    return "".join(text for text in texts if isinstance(text, str))


def _answered_tool(messages: Sequence[Mapping[str, Any]]) -> str | None:
    last = messages[-1]
    if isinstance(last.get("name"), str):
        return str(last["name"])
    # The result need not name its tool: its call does.
    calls = [call for message in messages for call in _dicts(message.get("tool_calls"))]
    named = [c.get("function") for c in calls if c.get("id") == last.get("tool_call_id")]
    return next(iter(_names(reversed(named))), None)


def _found(text: str) -> Path:
    path = Path(text)
    shipped = _FOLDER / f"{text.upper()}.toml"
    # A name is letters and digits: everything else is somebody's file.
    if text.isalnum() and not path.is_file() and shipped.is_file():
        return shipped
    if text.isalnum() and not path.is_file():
        names = ", ".join(Scenario.shipped())
        raise ConfigInvalid(f"no script {text!r}: not a file, and not one of {names}")
    return path
