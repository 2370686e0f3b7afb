"""Vectors without a vendor: the same text always alike, similar texts near."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

from loom.core.ambient import Clock, SystemClock
from loom.core.embeddings import EmbeddingsProvider, EmbeddingsRequest, EmbeddingsResponse
from loom.core.response import Usage
from loom.providers.scripted import Split, rough_tokens

__all__ = ["HashedEmbeddings", "hashed_vector"]

_WORD = re.compile(r"\w+")
# A shared word says more about two texts than a shared piece of one.
_WORD_WEIGHT = 2.0
_PIECE = 3
# Numbers of a vector that one feature touches; few texts are so short that most stay 0.
_TOUCHED = 16
# A text's features are cut here, so that a megabyte does not hold the event loop.
_MOST_FEATURES = 20_000
# Texts after which others get a turn.
_TEXTS_AT_ONCE = 4
_DIMENSION = 1024
"""Of `mistral-embed`, as recorded."""


def hashed_vector(text: str, dimension: int, seed: int = 0) -> list[float]:
    """
    A vector of length 1 for a text.

    Words and pieces of three characters are features; each adds to, or takes from, sixteen
    numbers that its hash chooses. So the cosine of two texts is about the share of the features
    that they have in common.

    Args:
        text: Any text; letter case and white space do not count.
        dimension: Numbers of the vector, at least 1.
        seed: Other seeds give other vectors.

    Returns:
        The vector.

    Source: K. Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", 2009.
    """
    sums = [0.0] * dimension
    for feature, weight in _features(text).items():
        raw = hashlib.blake2b(f"{seed}/{feature}".encode(), digest_size=4 * _TOUCHED).digest()
        for start in range(0, len(raw), 4):
            number = int.from_bytes(raw[start : start + 4])
            sums[(number >> 1) % dimension] += weight if number & 1 else -weight
    length = math.sqrt(math.fsum(each * each for each in sums))
    if not length:
        # Everything cancelled out, which takes a very small dimension.
        return [1.0] + [0.0] * (dimension - 1)
    return [each / length for each in sums]


def _features(text: str) -> Counter[str]:
    words = _WORD.findall(text.lower()) or [text.strip() or "nothing"]
    found: Counter[str] = Counter()
    for word in words:
        if len(found) > _MOST_FEATURES:
            break
        found[f"word {word}"] += 1
        padded = f" {word} "
        found.update(padded[i : i + _PIECE] for i in range(len(padded) - _PIECE + 1))
    # The tenth "the" says less than the first.
    return Counter(
        {
            feature: math.sqrt(count) * (_WORD_WEIGHT if feature.startswith("word ") else 1.0)
            for feature, count in found.items()
        }
    )


class HashedEmbeddings(EmbeddingsProvider):
    """
    Answers requests for embeddings without a vendor.

    Args:
        seed: Other seeds give other vectors and ids.
        split: Cuts a text into tokens, for the usage.
        dimension: How many numbers a model's vector has when a request does not say.
        clock: Lets others in between.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        split: Split = rough_tokens,
        dimension: Callable[[str], int] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._seed = seed
        self._split = split
        self._dimension = dimension or (lambda _: _DIMENSION)
        self._clock = clock or SystemClock()
        self._count = itertools.count()

    async def embed(self, request: EmbeddingsRequest) -> EmbeddingsResponse:
        """
        Turn texts into vectors.

        Args:
            request: What is asked.

        Returns:
            A vector for each text.
        """
        dimension = request.dimension or self._dimension(request.model)
        vectors: list[Sequence[float]] = []
        tokens = 0
        for place, text in enumerate(request.texts):
            if place % _TEXTS_AT_ONCE == _TEXTS_AT_ONCE - 1:
                await self._clock.sleep(0)
            vectors.append(hashed_vector(text, dimension, self._seed))
            # The two marks around each text are tokens too.
            tokens += len(self._split(text)) + 2
        number = f"{self._seed}/embeddings/{next(self._count)}".encode()
        return EmbeddingsResponse(
            vectors=vectors,
            model=request.model,
            id=hashlib.sha256(number).hexdigest()[:32],
            usage=Usage(input_tokens=tokens, total_tokens=tokens, estimated=True),
        )
