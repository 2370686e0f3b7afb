"""`-a`: what a file, an address or standard input becomes."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import rich_click as click
from hypothesis import given
from hypothesis import strategies as st

from loom.cli.attachment import read_attachment, utf8
from loom.core.messages import AudioPart, DocumentPart, ImagePart, Part, TextPart

RIFF_WEBP, PDF = b"RIFF....WEBP", b"%PDF-1.7"
PNG = b"\x89PNG\r\n\x1a\n rest"


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.png", PNG, ImagePart(f"data:image/png;base64,{encoded(PNG)}")),
        ("noname", PNG, ImagePart(f"data:image/png;base64,{encoded(PNG)}")),
        ("wrong.txt", PNG, ImagePart(f"data:image/png;base64,{encoded(PNG)}")),
        ("a.webp", RIFF_WEBP, ImagePart(f"data:image/webp;base64,{encoded(RIFF_WEBP)}")),
        ("a.wav", b"RIFF....WAVE", AudioPart(encoded(b"RIFF....WAVE"), "wav")),
        ("a.mp3", b"ID3 sound", AudioPart(encoded(b"ID3 sound"), "mp3")),
        ("a.flac", b"fLaC", AudioPart(encoded(b"fLaC"), "flac")),
        ("a.pdf", PDF, DocumentPart(f"data:application/pdf;base64,{encoded(PDF)}", "a.pdf")),
        ("a.txt", "größer".encode(), TextPart("größer")),
        ("a.py", b"print()", TextPart("print()")),
        ("a.json", b"\xef\xbb\xbf{}", TextPart("{}")),
        ("a.svg", b"<svg/>", TextPart("<svg/>")),
        ("noname", b"words", TextPart("words")),
    ],
)  # fmt: skip
def test_a_file_becomes_its_part(name: str, data: bytes, expected: Part, tmp_path: Path) -> None:
    """Content decides before the name; what is neither image, sound nor document is text."""
    path = tmp_path / name
    path.write_bytes(data)
    assert expected == read_attachment(str(path))


def test_office_documents_are_documents(tmp_path: Path) -> None:
    """Their media types are recognised by name."""
    path = tmp_path / "a.docx"
    path.write_bytes(b"PK..")
    part = read_attachment(str(path))
    assert isinstance(part, DocumentPart)
    assert "a.docx" == part.name


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://x.example/a.jpg?size=1", ImagePart("https://x.example/a.jpg?size=1")),
        ("https://x.example/a.mp3", AudioPart("https://x.example/a.mp3")),
        ("https://x.example/paper", DocumentPart("https://x.example/paper")),
    ],
)
def test_an_address_is_passed_on(url: str, expected: Part) -> None:
    """Nothing is fetched: the vendor does that."""
    assert expected == read_attachment(url)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "cannot read"),
        (b"", "is empty"),
        (b"latin \xe9", "not UTF-8: byte 0xe9 at offset 6"),
        (b"\x00\xff", "byte 0xff at offset 1"),
    ],
)
def test_what_cannot_be_attached_says_why(data: bytes | None, words: str, tmp_path: Path) -> None:
    """A missing, empty or unreadable file is a usage error that names it."""
    path = tmp_path / "it"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(click.UsageError, match=words) as caught:
        read_attachment(str(path))
    assert "it" in caught.value.format_message()


@given(st.binary(max_size=40))
def test_the_named_byte_is_the_wrong_one(data: bytes) -> None:
    """Everything before the named offset is UTF-8, mark or no mark; the byte there is not."""
    try:
        text = utf8(data, "it")
    except click.UsageError as error:
        offset = int(error.format_message().split("offset ")[1].split(".")[0])
        data[:offset].decode()
        with pytest.raises(UnicodeDecodeError):
            data[: offset + 4].decode()
    else:
        assert text == data.decode("utf-8-sig")
