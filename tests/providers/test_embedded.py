"""Vectors without a vendor."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.core.embeddings import EmbeddingsRequest
from loom.providers.embedded import HashedEmbeddings, hashed_vector


def cosine(left: list[float], right: list[float]) -> float:
    return math.fsum(a * b for a, b in zip(left, right, strict=True))


@given(st.text(max_size=50), st.integers(1, 300))
def test_every_text_has_a_vector_of_length_one(text: str, dimension: int) -> None:
    """Also the empty one, and also in one dimension; the same text has the same vector."""
    vector = hashed_vector(text, dimension)

    assert dimension == len(vector)
    assert pytest.approx(1.0) == math.fsum(each * each for each in vector)
    assert vector == hashed_vector(text, dimension)


def test_nearness_follows_shared_words() -> None:
    """A paraphrase is nearer than a text on another matter; case and spaces do not count."""
    base = hashed_vector("How do I reset my password?", 1024)
    near = hashed_vector("I forgot my password, how can I reset it?", 1024)
    far = hashed_vector("The recipe needs two eggs and some flour.", 1024)

    assert cosine(base, near) > 2 * abs(cosine(base, far))
    assert base == hashed_vector("  HOW do i reset my PASSWORD", 1024)


def test_seeds_differ() -> None:
    """Another seed gives another vector."""
    assert hashed_vector("x", 64) != hashed_vector("x", 64, seed=1)


def test_features_that_cancel_out_leave_a_vector() -> None:
    """In one dimension everything may add up to nothing; the vector has length 1 all the same."""
    texts = [f"word{i}" for i in range(200)]

    assert {1.0} == {abs(hashed_vector(text, 1)[0]) for text in texts}


def test_a_long_text_is_cut() -> None:
    """Past some thousands of features nothing more is read."""
    long = " ".join(f"w{i}" for i in range(30_000))

    assert hashed_vector(long, 64) == hashed_vector(long + " tail", 64)


@pytest.mark.anyio
async def test_usage_counts_tokens() -> None:
    """Tokens of the texts and two marks around each; ids differ from answer to answer."""
    provider = HashedEmbeddings(split=str.split, dimension=lambda _: 8)
    request = EmbeddingsRequest(model="m", texts=("a b", "c", "d", "e", "f"))
    first, second = await provider.embed(request), await provider.embed(request)

    assert (6 + 10, 6 + 10, 0) == (
        first.usage.input_tokens, first.usage.total_tokens, first.usage.output_tokens,
    )  # fmt: skip
    assert [8] * 5 == [len(vector) for vector in first.vectors]
    assert first.vectors == second.vectors
    assert (32, True) == (len(first.id), first.id != second.id)


@pytest.mark.anyio
async def test_a_request_may_choose_the_dimension() -> None:
    """The model's own is taken only when the request says nothing."""
    provider = HashedEmbeddings()
    chosen = EmbeddingsRequest(model="m", texts=("a",), dimension=4)
    usual = EmbeddingsRequest(model="m", texts=("a",))

    assert 4 == len((await provider.embed(chosen)).vectors[0])
    assert 1024 == len((await provider.embed(usual)).vectors[0])
