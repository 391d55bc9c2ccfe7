"""Bytes from strangers: any of them give a `PersonaLiveError` or a success, and soon."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import PIL.Image
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from personalive.errors import PersonaLiveError
from personalive.media import VideoReader, decode_image, read_provenance, resample

from .clips import patches, write_clip

LIMIT_SECONDS = 5.0
MODERATE = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
THOROUGH = settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])

Mutation = Callable[[bytes], bytes]


def flip(data: bytes, place: float, value: int) -> bytes:
    position = int(place * (len(data) - 1))
    return data[:position] + bytes([data[position] ^ value]) + data[position + 1 :]


def insert(data: bytes, place: float, extra: bytes) -> bytes:
    position = int(place * len(data))
    return data[:position] + extra + data[position:]


# Squared, so that most of the damage is done to headers.
PLACES = st.floats(0, 1).map(lambda x: x**2)
MUTATIONS = st.lists(
    st.one_of(
        st.tuples(PLACES, st.integers(1, 255)).map(lambda args: lambda data: flip(data, *args)),
        st.tuples(PLACES, st.binary(min_size=1, max_size=40)).map(
            lambda args: lambda data: insert(data, *args)
        ),
        PLACES.map(lambda place: lambda data: data[: 1 + int(place * len(data))]),
    ),
    min_size=1,
    max_size=6,
)


@cache
def picture(kind: str) -> bytes:
    buffer = io.BytesIO()
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.fromarray(patches()).save(buffer, kind, exif=exif)
    return buffer.getvalue()


@cache
def clip(suffix: str) -> bytes:
    codec, pixel_format = {
        "gif": ("gif", "pal8"),
        "avi": ("mjpeg", "yuvj420p"),
        "webm": ("libvpx", "yuv420p"),
    }.get(suffix, ("libx264", "yuv420p"))
    if suffix == "webp":
        buffer = io.BytesIO()
        frames = [PIL.Image.fromarray(np.roll(patches(), i, 1)) for i in range(5)]
        frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:])
        return buffer.getvalue()
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{suffix}"
        images = [np.ascontiguousarray(np.roll(patches(), i, 1)) for i in range(12)]
        audio = {"mp4": "aac", "webm": "libopus"}.get(suffix)
        write_clip(path, images, codec=codec, pixel_format=pixel_format, audio=audio)
        return path.read_bytes()


def mutate(data: bytes, mutations: list[Mutation]) -> bytes:
    for mutation in mutations:
        if data:
            data = mutation(data)
    return data


def check_decode(data: bytes) -> None:
    begun = time.perf_counter()
    with contextlib.suppress(PersonaLiveError):
        image = decode_image(data)
        assert image.ndim == 3
        assert image.dtype == np.uint8
    assert time.perf_counter() - begun < LIMIT_SECONDS


def check_read(data: bytes, suffix: str) -> None:
    begun = time.perf_counter()
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{suffix}"
        path.write_bytes(data)
        for start in (0.0, 0.2):
            with (
                contextlib.suppress(PersonaLiveError),
                VideoReader(path, start=start, max_frames=100) as reader,
            ):
                last = -1.0
                for frame in reader:
                    assert frame.image.shape == (reader.info.height, reader.info.width, 3)
                    assert frame.time > last
                    last = frame.time
        with contextlib.suppress(PersonaLiveError):
            read_provenance(path)
    assert time.perf_counter() - begun < LIMIT_SECONDS


@MODERATE
@given(st.binary(max_size=200))
def test_random_bytes(data: bytes) -> None:
    for head in (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x00\x01\x00\x00WEBPVP8 "):
        check_decode(head + data)
    for head in (b"", b"\x00\x00\x00\x20ftypisom", b"GIF89a", b"\x1a\x45\xdf\xa3"):
        check_read(head + data, "mp4")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_mutated_pictures(kind: str) -> None:
    @MODERATE
    @given(MUTATIONS)
    def check(mutations: list[Mutation]) -> None:
        check_decode(mutate(picture(kind), mutations))

    check()


@pytest.mark.parametrize("suffix", ["mp4", "gif", "webm", "avi", "webp"])
def test_mutated_clips(suffix: str) -> None:
    @MODERATE
    @given(MUTATIONS)
    def check(mutations: list[Mutation]) -> None:
        check_read(mutate(clip(suffix), mutations), suffix)

    check()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "mp4", "gif", "webm", "avi", "webp"])
def test_many_mutations(kind: str) -> None:
    @THOROUGH
    @given(MUTATIONS)
    def check(mutations: list[Mutation]) -> None:
        if kind.isupper():
            check_decode(mutate(picture(kind), mutations))
        else:
            check_read(mutate(clip(kind), mutations), kind)

    check()


def test_wild_timestamps_do_not_fill_the_output(tmp_path: Path) -> None:
    # A last frame a year after the others must not become a year of repeats.
    times = [Fraction(0), Fraction(1, 25), Fraction(365 * 86400)]
    path = write_clip(tmp_path / "a.mkv", [patches()] * 3, times=times)
    assert len(list(resample(VideoReader(path), 25))) < 10
