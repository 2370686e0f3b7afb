"""Sizes of images, read from their first bytes, and the tokens they become."""

import base64
import re
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mistral_common.tokens.tokenizers.image import ImageConfig, ImageEncoder, SpecialImageIDs
from PIL import Image

from loom.catalog.media import ImageRule, image_size, image_tokens

PIXTRAL = ImageRule(patch=16, most=1024)
MERGED = ImageRule(patch=28, most=1540)
SIDE = st.integers(1, 9000)


def _uri(form: str, size: tuple[int, int] = (123, 45), mode: str = "RGB", **options: Any) -> str:
    file = BytesIO()
    Image.new(mode, size).save(file, form, **options)
    data = base64.b64encode(file.getvalue()).decode()
    return f"data:image/{form.lower()};base64,{data}"


@pytest.mark.parametrize(
    "uri",
    [
        _uri("PNG"),
        _uri("GIF"),
        _uri("JPEG"),
        _uri("JPEG", progressive=True),
        _uri("JPEG", comment=b"x" * 60_000),
        _uri("WEBP"),
        _uri("WEBP", lossless=True),
        _uri("WEBP", mode="RGBA", exif=b"Exif\0\0" + b"x" * 40),
        _uri("PNG").partition(",")[2],
        "\n".join(re.findall(".{1,76}", _uri("JPEG"))),
        _uri("PNG")[:80] + "...",
    ],
    ids=[
        "png",
        "gif",
        "jpeg",
        "progressive",
        "comment",
        "webp",
        "lossless",
        "extended",
        "bare",
        "wrapped",
        "cut",
    ],
)
def test_size_is_read(uri: str) -> None:
    """Width and height come from the header of each usual format."""
    assert (123, 45) == image_size(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "https://example.org/cat.png",
        "data:image/png;base64,%%%%",
        "data:image/png;base64,QUJD",
        "data:image/bmp;base64," + base64.b64encode(b"BM" + bytes(60)).decode(),
        "data:image/webp;base64," + base64.b64encode(b"RIFF....WEBPVP9 " + bytes(30)).decode(),
        "data:image/jpeg;base64," + base64.b64encode(b"\xff\xd8\xff\xff\xfe\x00\x04ab").decode(),
        "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(20)).decode(),
        "",
    ],
)
def test_unknown_size(uri: str) -> None:
    """An address, another format, a damaged or empty file: the size is not known."""
    assert image_size(uri) is None


@given(data=st.binary(max_size=200), head=st.sampled_from([b"\xff\xd8", b"RIFF1234WEBP", b""]))
def test_any_bytes_are_survived(data: bytes, head: bytes) -> None:
    """Whatever stands in the data, reading its size gives an answer."""
    size = image_size("data:;base64," + base64.b64encode(head + data).decode())
    assert size is None or min(size) > 0


@given(width=SIDE, height=SIDE, rule=st.sampled_from([PIXTRAL, MERGED]))
def test_tokens_beside_the_vendors_rule(width: int, height: int, rule: ImageRule) -> None:
    """Any size becomes as many tokens as `mistral-common` makes of it."""
    config = ImageConfig(image_patch_size=rule.patch, max_image_size=rule.most)
    encoder = ImageEncoder(config, SpecialImageIDs(1, 2, 3))

    class Sized:
        size = (width, height)

    columns, rows = encoder._image_to_num_tokens(Sized())  # type: ignore[arg-type] # it reads .size
    assert (columns + 1) * rows == image_tokens((width, height), rule)
