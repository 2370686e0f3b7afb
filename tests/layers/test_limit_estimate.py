"""What a call will use is guessed, and the guesses get better."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from loom.core.messages import ImagePart, Message, TextPart, ToolCall
from loom.core.request import Attribution, ChatRequest, ResponseFormat, Sampling, ToolSpec
from loom.layers.limit_estimate import Estimator


def ask(text: str = "x" * 3184, most: int | None = 500, **tags: str) -> ChatRequest:
    return ChatRequest(
        model="m",
        messages=(Message.user(text),),
        sampling=Sampling(max_tokens=most),
        attribution=Attribution(tags=tags),
    )


def learn(estimator: Estimator, request: ChatRequest, answers: list[int], prompt: int = 0) -> None:
    for answer in answers:
        guess = estimator.estimate(request, "m")
        tokens = prompt or guess.prompt
        estimator.learn(request, "m", guess, prompt=tokens, total=tokens + answer)


def test_at_first_an_answer_is_as_long_as_it_may_be() -> None:
    """`max_tokens` of each answer; without it the client's default."""
    guess = Estimator().estimate(ask(), "m")
    assert (guess.prompt + 500,) * 3 == (guess.reserve, guess.expected, guess.most)
    two = ChatRequest(
        model="m", messages=(Message.user("x"),), sampling=Sampling(max_tokens=500, n=2)
    )
    guess = Estimator().estimate(two, "m")
    assert 1000 == guess.reserve - guess.prompt
    guess = Estimator().estimate(ask(most=None), "m")
    assert 4096 == guess.reserve - guess.prompt


def test_later_it_is_what_most_answers_stay_below() -> None:
    """The 95th of a hundred; the mean for the pace; never more than `max_tokens`."""
    estimator = Estimator()
    learn(estimator, ask(), list(range(1, 101)))
    guess = estimator.estimate(ask(), "m")
    assert (95, 51) == (guess.reserve - guess.prompt, guess.expected - guess.prompt)
    guess = estimator.estimate(ask(most=40), "m")
    assert (40, 40, 40) == tuple(
        tokens - guess.prompt for tokens in (guess.reserve, guess.expected, guess.most)
    )


def test_few_answers_prove_nothing() -> None:
    """Below twenty the longest is reserved, and only the mean is believed."""
    estimator = Estimator()
    learn(estimator, ask(), [10] * 5)
    guess = estimator.estimate(ask(), "m")
    assert (500, 10) == (guess.reserve - guess.prompt, guess.expected - guess.prompt)


def test_tags_are_learnt_apart_and_borrow_from_their_model() -> None:
    """Another tag of the model is guessed like the model, another model not at all."""
    estimator = Estimator()
    learn(estimator, ask(job="long"), [400] * 30)
    learn(estimator, ask(job="short"), [10] * 30)
    guess = estimator.estimate(ask(job="short"), "m")
    assert 10 == guess.reserve - guess.prompt
    guess = estimator.estimate(ask(job="new"), "m")
    assert 400 == guess.reserve - guess.prompt
    guess = estimator.estimate(ask(), "other")
    assert 500 == guess.reserve - guess.prompt


def test_prompts_are_corrected_by_model() -> None:
    """A text whose tokens are half of what its bytes say is guessed right in the end."""
    estimator = Estimator()
    assert 1005 == estimator.estimate(ask(), "m").prompt
    learn(estimator, ask(), [1] * 50, prompt=500)
    assert 495 <= estimator.estimate(ask(), "m").prompt <= 505


def test_a_counter_is_believed() -> None:
    """With one nothing is guessed."""
    estimator = Estimator(lambda request: len(request.messages) * 7)
    learn(estimator, ask(), [1] * 9, prompt=100)
    assert 7 == estimator.estimate(ask(), "m").prompt


def test_everything_that_the_model_reads_is_weighed() -> None:
    """Parts, calls, tools and schemas make a prompt larger."""
    plain = Estimator().estimate(ask("x"), "m").prompt
    call = ToolCall(id="1", name="f", arguments="b" * 320)
    for request in (
        ChatRequest(model="m", messages=(Message.user(TextPart("é" * 160)),)),
        ChatRequest(model="m", messages=(Message.user(ImagePart("https://x/y.png")),)),
        ChatRequest(model="m", messages=(Message(role="assistant", tool_calls=(call,)),)),
        ChatRequest(model="m", messages=(Message.user("é" * 160),)),
        ChatRequest(
            model="m",
            messages=(Message.user("x"),),
            tools=(ToolSpec(name="f", description="x" * 320),),
        ),
        ChatRequest(
            model="m",
            messages=(Message.user("x"),),
            response_format=ResponseFormat(type="json_schema", schema={"x": "y" * 320}),
        ),
    ):
        assert plain + 90 <= Estimator().estimate(request, "m").prompt


@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 9000)), max_size=60))
def test_guesses_keep_their_order(calls: list[tuple[int, int]]) -> None:
    """At least two tokens, the mean not above the reserve, the reserve not above the most."""
    estimator = Estimator()
    for most, total in calls:
        request = ask("x" * (total % 50), most=most)
        guess = estimator.estimate(request, "m")
        assert 2 <= guess.expected <= guess.reserve <= guess.most == guess.prompt + most
        estimator.learn(request, "m", guess, prompt=min(total, 100), total=total)


def test_tags_that_never_come_again_are_forgotten() -> None:
    """A request's id as a tag fills no memory."""
    estimator = Estimator()
    for number in range(2000):
        learn(estimator, ask(id=str(number)), [5])
    assert len(estimator._answers) <= 512
    guess = estimator.estimate(ask(id="new"), "m")
    assert 5 == guess.reserve - guess.prompt


def test_threads_may_learn_at_once() -> None:
    """Nothing is lost or torn."""
    estimator = Estimator()
    threads = [
        threading.Thread(target=learn, args=(estimator, ask(), list(range(100)))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 128 == estimator._answers["m", ()].count
