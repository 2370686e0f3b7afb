"""Every recorded chat request, sent to the simulator: the recorded status and form come back."""

from __future__ import annotations

import http.client
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any

import pytest
from tests.recorded import FOLDER, Exchange, chat_exchanges, needed, with_legal_ids
from tests.recorded_prompts import Prompt, prompts

from loom.server.simulator import Simulator
from loom.testing import simulator

# Of recordings that do not say when they were made, most are of this month.
SOME_DAY = date(2026, 8, 15)

# What the simulator writes is the form of August 2026. Older answers had fewer fields; each is
# named in docs/simulator.md under "What is not imitated".
NOW = frozenset(
    {"prompt_tokens", "total_tokens", "completion_tokens", "prompt_tokens_details", "service_tier"}
)
OLDER = (
    NOW - {"service_tier"},
    NOW - {"service_tier", "prompt_tokens_details"} | {"num_cached_tokens"},
    NOW - {"service_tier", "prompt_tokens_details"},
)
AUDIO = "prompt_audio_seconds"

SAME, EXPLAINED, OTHER = "agree", "explained", "DISAGREE"


def day_of(exchange: Exchange) -> date:
    """When it was recorded, as far as it says."""
    if "date" in exchange.headers:
        return parsedate_to_datetime(exchange.headers["date"]).date()
    created = re.search(rb'"created": ?([1-9]\d*)', exchange.body)
    return datetime.fromtimestamp(int(created[1]), UTC).date() if created else SOME_DAY


@lru_cache
def prompts_by_file() -> Mapping[str, Prompt]:
    return {prompt.file: prompt for prompt in prompts()}


class Answered:
    """Both answers to one request, and what was found when they were compared."""

    def __init__(self, exchange: Exchange, status: int, body: bytes) -> None:
        self.theirs = exchange
        self.status = status
        self.body = body
        self.findings: list[tuple[str, str, str]] = []

    def note(self, kind: str, *, same: bool, reason: str = "") -> None:
        verdict = SAME if same else EXPLAINED if reason else OTHER
        self.findings.append((kind, verdict, reason))

    def compare(self) -> None:
        wanted = self.theirs.status
        # The catalogue goes by the vendor's published days; the API sometimes answers for longer.
        unknown = b"Invalid model" in self.body and wanted == 200
        self.note(
            "status",
            same=self.status == wanted,
            reason="a model is unknown or retired on that day" if unknown else "",
        )
        if self.status != wanted:
            return
        if wanted != 200:
            self.compare_errors()
        elif self.theirs.stream:
            self.compare_chunks()
        else:
            self.compare_answers()

    def compare_errors(self) -> None:
        ours, theirs = json.loads(self.body), json.loads(self.theirs.body)
        self.note("error body", same=ours == theirs)
        self.compare_keys("error key", ours, theirs)

    def compare_answers(self) -> None:
        ours, theirs = json.loads(self.body), json.loads(self.theirs.body)
        self.compare_keys("answer key", ours, theirs)
        self.compare_keys("choice key", ours["choices"][0], theirs["choices"][0])
        messages = [each["choices"][0]["message"] for each in (ours, theirs)]
        self.compare_keys("message key", *messages)
        self.compare_usage(ours["usage"], theirs["usage"])
        self.compare_calls(*(message.get("tool_calls") or [] for message in messages))
        self.note("choices", same=len(ours["choices"]) == len(theirs["choices"]))

    def compare_chunks(self) -> None:
        ours, theirs = chunks_of(self.body), chunks_of(self.theirs.body)
        self.note("stream end", same=done(self.body) == done(self.theirs.body))
        # Mistral's own models write so; a foreign one streams calls in fragments.
        form = "r+[tkc]*[TKC]+"
        self.note(
            "chunk order",
            same=bool(re.fullmatch(form, letters(ours)) and re.fullmatch(form, letters(theirs))),
            reason="" if re.fullmatch(form, letters(theirs)) else "another engine's stream",
        )
        for place, kind in ((0, "first chunk"), (-1, "last chunk")):
            one, other = ours[place], theirs[place]
            # Padding came on 2025-08-27 (contract, section 4).
            older = "p" in one and "p" not in other
            ours_then = {key: one[key] for key in one if key != "p" or not older}
            self.compare_keys(f"{kind} key", ours_then, other)
            self.note(f"{kind} padding", same=not older, reason="older form" if older else "")
            choice = dict(other["choices"][0])
            # 2024 (contract, section 4).
            older = choice.pop("logprobs", 0) is None
            self.note(f"{kind} logprobs", same=not older, reason="older form" if older else "")
            self.compare_keys(f"{kind} choice key", one["choices"][0], choice)
        self.compare_usage(ours[-1]["usage"], theirs[-1]["usage"])
        self.compare_calls(streamed_calls(ours), streamed_calls(theirs))

    def compare_keys(self, kind: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
        self.note(f"{kind} set", same=ours.keys() == theirs.keys())
        # Two recorders sorted the keys; what is in the order of the alphabet says nothing.
        if list(theirs) != sorted(theirs):
            self.note(f"{kind} order", same=list(ours) == list(theirs))

    def compare_usage(self, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
        prompt = prompts_by_file()[self.theirs.file]
        media = "" if prompt.text_only else "media that only the vendor has whole"
        self.note(
            "prompt tokens",
            same=ours["prompt_tokens"] == theirs["prompt_tokens"],
            reason="a history with thinking" if prompt.thinks else media,
        )
        older, heard = theirs.keys() in OLDER, AUDIO in theirs
        reason = "older form" if older else "audio is not counted in seconds" if heard else ""
        self.note("usage key set", same=ours.keys() == theirs.keys(), reason=reason)
        if list(theirs) != sorted(theirs):
            shared = [key for key in ours if key in theirs]
            self.note("usage key order", same=shared == [key for key in theirs if key in ours])

    def compare_calls(self, ours: list[Any], theirs: list[Any]) -> None:
        self.note(
            "calls tools",
            same=bool(ours) == bool(theirs),
            reason="whether to call is the model's choice",
        )
        if ours and theirs:
            older = ours[0].keys() - theirs[0].keys() <= {"id", "index", "type"}
            # 2024 and 2025: without `type`, then without `index`, at first without an id.
            same = ours[0].keys() == theirs[0].keys()
            self.note("call key set", same=same, reason="older form" if older else "")
            self.note(
                "ids of nine letters and digits",
                same=all(re.fullmatch("[A-Za-z0-9]{9}", call["id"]) for call in ours),
            )


def chunks_of(body: bytes) -> list[dict[str, Any]]:
    lines = body.decode().split("\n")
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


def streamed_calls(chunks: list[dict[str, Any]]) -> list[Any]:
    deltas = (chunk["choices"][0]["delta"] for chunk in chunks)
    return [call for delta in deltas for call in delta.get("tool_calls") or []]


def done(body: bytes) -> bool:
    return body.endswith(b"data: [DONE]\n\n")


def letters(chunks: list[dict[str, Any]]) -> str:
    """Give one letter for each chunk: role, text, thinking, calls; capital where it ends."""
    word = ""
    for chunk in chunks:
        choice = chunk["choices"][0]
        delta = choice["delta"]
        letter = "c" if delta.get("tool_calls") else "k" if _is_list(delta) else "t"
        letter = "r" if delta.get("role") else letter
        word += letter.upper() if choice["finish_reason"] else letter
    return word


def _is_list(delta: Mapping[str, Any]) -> bool:
    return isinstance(delta.get("content"), list)


@pytest.fixture(scope="module")
def answers() -> Iterator[list[Answered]]:
    """Send every recorded request to a simulator of its day."""
    with ExitStack() as stack:

        @lru_cache
        def of_day(day: date) -> Simulator:
            return stack.enter_context(simulator(as_of=day, any_key=True))

        found = []
        for exchange in chat_exchanges():
            if exchange.request is not None:
                answered = Answered(exchange, *ask(of_day(day_of(exchange)), exchange))
                answered.compare()
                found.append(answered)
        yield found


def ask(sim: Simulator, exchange: Exchange) -> tuple[int, bytes]:
    assert exchange.request is not None
    headers = {} if exchange.status == 401 else {"authorization": "Bearer any"}
    # As it was before its recorder sorted the keys, which count as tokens.
    prompt = prompts_by_file().get(exchange.file)
    body = json.dumps(with_legal_ids(exchange.request if prompt is None else prompt.body))
    with closing(http.client.HTTPConnection(sim.base_url.split("/")[2], timeout=20)) as connection:
        connection.request("POST", "/v1/chat/completions", body, headers)
        reply = connection.getresponse()
        return reply.status, reply.read()


def test_every_recorded_request_agrees(
    answers: list[Answered], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever differs is explained, and the explained are few; the table is printed."""
    needed()
    assert answers
    table = Counter((kind, verdict) for each in answers for kind, verdict, _ in each.findings)
    reasons = Counter(
        (kind, reason) for each in answers for kind, verdict, reason in each.findings
        if verdict == EXPLAINED
    )  # fmt: skip
    with capsys.disabled():
        print(f"\n{len(answers)} recorded requests of {FOLDER.name}:")  # noqa: T201 - shown on purpose
        for kind in sorted({kind for kind, _ in table}):
            row = ", ".join(f"{table[kind, v]} {v}" for v in (SAME, EXPLAINED, OTHER))
            why = "; ".join(f"{n} {why}" for (of, why), n in reasons.items() if of == kind)
            print(f"  {kind:32} {row}" + (f" ({why})" if why else ""))  # noqa: T201 - the same

    wrong = [
        f"{each.theirs}: {kind}"
        for each in answers
        for kind, verdict, _ in each.findings
        if verdict == OTHER
    ]
    assert [] == wrong
    assert table["status", SAME] >= 0.9 * len(answers)


def test_the_calls_agree_mostly(answers: list[Answered]) -> None:
    """Where the API called tools the simulator calls some too, in nine of ten."""
    needed()
    verdicts = Counter(
        verdict for each in answers for kind, verdict, _ in each.findings if kind == "calls tools"
    )

    assert verdicts[SAME] >= 0.9 * verdicts.total()
