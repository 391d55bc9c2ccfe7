from __future__ import annotations

import io
from typing import Literal

import numpy as np
import PIL.Image
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from personalive.errors import MediaError, MediaTooLargeError
from personalive.media import MAX_IMAGE_PIXELS, decode_image
from personalive.media.picture_header import (
    HEAD_BYTES,
    detect_image_type,
    is_sequence,
    read_jpeg_info,
    read_stored_size,
)

from .clips import patches

FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def jpeg(picture: PIL.Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def with_scans(data: bytes, count: int) -> bytes:
    """A progressive JPEG with its last scan repeated."""
    start = data.rindex(b"\xff\xda")
    return data[:-2] + data[start:-2] * count + data[-2:]


@FEW
@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.sampled_from(["JPEG", "PNG", "WEBP"]),
    st.booleans(),
    st.booleans(),
)
def test_the_size_is_what_the_decoder_says(
    width: int, height: int, kind: Literal["JPEG", "PNG", "WEBP"], lossless: bool, clear: bool
) -> None:
    buffer = io.BytesIO()
    mode = "RGBA" if clear and kind != "JPEG" else "RGB"
    PIL.Image.new(mode, (width, height)).save(buffer, kind, lossless=lossless)
    data = buffer.getvalue()
    assert detect_image_type(data[:HEAD_BYTES]) == kind
    assert read_stored_size(data, kind) == (width, height)


@FEW
@given(
    st.integers(16, 200), st.integers(16, 200), st.booleans(), st.sampled_from([0, 1, 2]),
    st.sampled_from(["L", "RGB", "CMYK"]), st.integers(0, 20), st.binary(max_size=300),
)  # fmt: skip
def test_scans_and_samples_are_counted(
    width: int, height: int, progressive: bool, subsampling: int, mode: str, more: int, comment: bytes
) -> None:
    noise = np.random.default_rng(width).integers(0, 256, (height, width, 3)).astype(np.uint8)
    picture = PIL.Image.fromarray(noise).convert(mode)
    data = jpeg(picture, progressive=progressive, subsampling=subsampling, comment=comment + b"\xff\xda\xff")
    facts = read_jpeg_info(data)
    assert facts is not None
    assert (facts.width, facts.height) == (width, height)
    assert facts.needs_full_buffer == progressive
    assert facts.scans > 1 if progressive else facts.scans == 1
    if mode == "L":
        assert facts.samples == width * height
    else:
        assert width * height <= facts.samples <= 4 * width * height
    if progressive:
        again = read_jpeg_info(with_scans(data, more))
        assert again is not None
        assert again.scans == facts.scans + more


@given(st.binary(max_size=400))
def test_any_bytes_have_facts_or_none(data: bytes) -> None:
    for head in (b"\xff\xd8\xff", b"\xff\xd8\xff\xc0\x00\x0b\x08", b"\xff\xd8\xff\xda"):
        read_jpeg_info(head + data)
    for kind in ("PNG", "WEBP"):
        read_stored_size(data, kind)
    detect_image_type(data)
    detect_image_type(b"\0\0\0\x20ftyp" + data)


def test_what_follows_the_picture_is_not_counted() -> None:
    data = jpeg(PIL.Image.fromarray(patches()))
    facts, followed = read_jpeg_info(data), read_jpeg_info(data + data + b"\xff\xda" * 5000)
    assert facts == followed


@pytest.mark.parametrize(
    ("head", "kind", "sequence"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIF", False),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIF", False),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF", False),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", "AVIF", False),
        (b"\0\0\0\x1cftypavis\0\0\0\0avisavifmsf1", "AVIF", True),
        (b"\0\0\0\x18ftyphevc\0\0\0\0msf1hevc", "HEIF", True),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", None, False),
        (b"\0\0\0\x18ftypqt  \0\0\0\0qt  mif1", None, False),
    ],
)
def test_brands(head: bytes, kind: str | None, sequence: bool) -> None:
    assert detect_image_type(head) == kind
    assert is_sequence(head) == sequence


@pytest.mark.parametrize("count", [2000, 20_000])
def test_thousands_of_scans_are_refused_unread(count: int) -> None:
    data = jpeg(PIL.Image.new("RGB", (4000, 3000)), progressive=True, quality=5)
    with pytest.raises(MediaTooLargeError, match=r"scans, which takes too long .* plain"):
        decode_image(with_scans(data, count))


def test_usual_numbers_of_scans_are_decoded() -> None:
    data = jpeg(PIL.Image.fromarray(patches()), progressive=True)
    assert decode_image(with_scans(data, 50)).shape == (48, 64, 3)


@pytest.mark.parametrize(
    "size", [(7400, 5600), pytest.param((16_320, 12_240), marks=pytest.mark.slow), (17_000, 1200)]
)
@pytest.mark.parametrize("progressive", [False, True])
def test_large_jpegs_are_decoded_at_a_fraction(size: tuple[int, int], progressive: bool) -> None:
    picture = PIL.Image.new("L", size, 90)
    picture.paste(200, (0, 0, size[0] // 2, size[1] // 2))
    image = decode_image(jpeg(picture, progressive=progressive))
    assert image.shape[0] * image.shape[1] <= MAX_IMAGE_PIXELS
    assert image.shape[1] / image.shape[0] == pytest.approx(size[0] / size[1], rel=0.01)
    assert image[[10, -10], [10, -10]].tolist() == [[200] * 3, [90] * 3]


def test_larger_than_any_camera_makes_is_refused_unread() -> None:
    data = bytearray(jpeg(PIL.Image.new("L", (64, 64))))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = (20_000).to_bytes(2, "big") + (20_000).to_bytes(2, "big")
    with pytest.raises(MediaTooLargeError, match="250 megapixels"):
        decode_image(bytes(data))
    del data[place:]
    with pytest.raises(MediaError, match="damaged"):
        decode_image(bytes(data))
