"""
The vocabularies that cut text into tokens, read from the files of the `mistral-common` package.

Only its data files are used, through `tiktoken` and `sentencepiece`: the package itself costs 0.5 s
to import and 2 s to read a file; this way both together cost 0.3 s (benchmarks/tokens.py).
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from itertools import accumulate, pairwise
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from loom.catalog.template import VocabularyName
from loom.core.errors import ConfigInvalid

if TYPE_CHECKING:
    from tiktoken import Encoding

__all__ = ["INSTALL", "Vocabulary", "available", "vocabulary"]

INSTALL = "pip install 'looms[tokens]'"

# All tekken models share one vocabulary (contract, section 10); the SentencePiece ones differ by
# their control tokens, and v1 by its size.
_FILES: dict[VocabularyName, str] = {
    "tekken": "tekken_240911.json",
    "sentencepiece-v1": "tokenizer.model.v1",
    "sentencepiece-v2": "mistral_instruct_tokenizer_240216.model.v2",
    "sentencepiece-v3": "mistral_instruct_tokenizer_240323.model.v3",
    "sentencepiece-v7": "mistral_instruct_tokenizer_241114.model.v7",
}

# `\s+(?!\S)` in tekken's pattern goes back sign by sign: a run of a million blanks overflowed the
# stack of the regex engine and printed a panic. Longer runs are cut, which may cost a token each.
_BLANKS = re.compile(r"\s{10000}")

# How SentencePiece writes a byte of a sign that it has no token for.
_BYTE = re.compile("<0x([0-9A-F]{2})>")

_HALF = re.compile("[\ud800-\udfff]")

# Two threads that load the same file at once would hold it twice.
_loading = Lock()


class Vocabulary(NamedTuple):
    """
    Cuts text into tokens.

    Attributes:
        count: Gives the number of tokens of a text.
        split: Gives the tokens as texts; joined they are the text. A sign that takes several
            tokens stands in the last of them, the others are empty.
    """

    count: Callable[[str], int]
    split: Callable[[str], Sequence[str]]


class _Entry(msgspec.Struct):
    rank: int
    token_bytes: bytes


class _Config(msgspec.Struct):
    pattern: str
    default_vocab_size: int
    default_num_special_tokens: int


class _File(msgspec.Struct):
    config: _Config
    vocab: list[_Entry]


@cache
def available() -> bool:
    """Whether the packages of the extra `tokens` are installed; nothing is imported."""
    return all(find_spec(name) for name in ("mistral_common", "tiktoken", "sentencepiece"))


def vocabulary(name: VocabularyName) -> Vocabulary:
    """
    Load a vocabulary at the first call, then keep it.

    The first call takes up to 0.3 s: a program with an event loop makes it in a thread.

    Args:
        name: Which one.

    Returns:
        The vocabulary; it may be used from several threads.

    Raises:
        ConfigInvalid: If the extra `tokens` is not installed, or lacks the file.
    """
    with _loading:
        exact = _load(name)
    return Vocabulary(
        count=lambda text: exact.count(_legal(text)),
        split=lambda text: _cut(text, exact.split(_legal(text))),
    )


def _legal(text: str) -> str:
    # Half a sign has no UTF-8; neither has it a place on the wire, but counting must not fail.
    return text if text.isascii() else _HALF.sub("\ufffd", text)


def _cut(text: str, pieces: Sequence[str]) -> Sequence[str]:
    ends = accumulate(map(len, pieces), initial=0)
    return [text[start:end] for start, end in pairwise(ends)]


@cache
def _load(name: VocabularyName) -> Vocabulary:
    # find_spec, because importing mistral_common brings numpy, pillow and pydantic with it.
    found = find_spec("mistral_common")
    folders = found.submodule_search_locations if found is not None else None
    if not folders or not available():
        raise ConfigInvalid(f"tokens cannot be counted exactly: {INSTALL}")
    file = Path(folders[0]) / "data" / _FILES[name]
    if not file.is_file():
        raise ConfigInvalid(f"mistral-common has no {file.name}: take another version of it")
    return _tekken(file) if name == "tekken" else _sentencepiece(file)


def _tekken(file: Path) -> Vocabulary:
    from tiktoken import Encoding  # noqa: PLC0415 - an extra, and loaded when first needed

    read = msgspec.json.decode(file.read_bytes(), type=_File)
    # The file lists more entries than the models have.
    size = read.config.default_vocab_size - read.config.default_num_special_tokens
    ranks = {entry.token_bytes: entry.rank for entry in read.vocab[:size]}
    encoding = Encoding(
        "tekken", pat_str=read.config.pattern, mergeable_ranks=ranks, special_tokens={}
    )
    return Vocabulary(
        count=lambda text: sum(len(encoding.encode_ordinary(part)) for part in _parts(text)),
        split=lambda text: list(_pieces(text, encoding)),
    )


def _parts(text: str) -> Iterator[str]:
    start = 0
    for run in _BLANKS.finditer(text):
        yield text[start : run.end()]
        start = run.end()
    yield text[start:]


def _pieces(text: str, encoding: Encoding) -> Iterator[str]:
    decode = codecs.getincrementaldecoder("utf-8")().decode
    for part in _parts(text):
        for token in encoding.encode_ordinary(part):
            yield decode(encoding.decode_single_token_bytes(token))


def _sentencepiece(file: Path) -> Vocabulary:
    from sentencepiece import (  # noqa: PLC0415 - an extra, and loaded when first needed
        SentencePieceProcessor,
    )

    processor = SentencePieceProcessor(model_file=str(file))

    return Vocabulary(
        count=lambda text: len(processor.encode(text)),
        split=lambda text: list(_surfaces(text, processor.encode(text, out_type=str))),
    )


def _surfaces(text: str, pieces: Sequence[str]) -> Iterator[str]:
    # The package's own offsets changed their name between its versions; lengths tell the same.
    decode = codecs.getincrementaldecoder("utf-8")().decode
    # The first piece begins with a blank that the text has not got.
    place = -1
    for piece in pieces:
        byte = _BYTE.fullmatch(piece)
        end = place + len(piece if byte is None else decode(bytes.fromhex(byte[1])))
        yield text[max(0, place) : max(0, end)]
        place = end
