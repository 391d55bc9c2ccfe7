from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personalive.errors import (
    MediaError,
    MediaTooLargeError,
    NoFaceError,
    PersonaLiveError,
    UnsupportedMediaError,
)
from personalive.media import MAX_IMAGE_BYTES
from personalive.server.errors import ConflictError
from personalive.server.server import Server
from personalive.server.state import reference_store
from personalive.server.state.reference_store import NoReferenceError, UnknownReferenceError
from personalive.server.state.reference_validation import validate_picture
from tests.server.parts import GREY, encoded, loaded, opened, portrait, running, two_faces


def with_pipeline(test: Callable[[Server], Coroutine[Any, Any, None]], pipeline_id: str = "preview") -> None:
    async def run() -> None:
        async with running() as server:
            await loaded(server.pipelines, pipeline_id)
            await test(server)

    asyncio.run(run())


def test_a_picture_becomes_the_default_and_is_fused() -> None:
    async def test(server: Server) -> None:
        data = encoded(portrait())
        stored = await server.references.add(data)
        assert server.references.default_id == stored.id
        assert stored.sha256 == hashlib.sha256(data).hexdigest()
        assert (stored.width, stored.height) == (512, 512)
        assert stored.face is not None
        left, top, right, bottom = stored.face.box
        assert left < 225 < right
        assert top < 125 < bottom
        assert stored.face.score > 0.8
        reference = await server.references.get_fused()
        assert reference.image.shape == (256, 256, 3)
        assert reference.face is not None
        assert await server.references.get_fused(stored.id) is reference

    with_pipeline(test)


@pytest.mark.slow
def test_the_face_is_cropped_unless_the_whole_picture_is_asked_for() -> None:
    async def test(server: Server) -> None:
        data = encoded(portrait())
        cropped = await server.references.add(data)
        whole = await server.references.add(data, crop=False)
        assert cropped.id != whole.id
        assert cropped.sha256 == whole.sha256
        share = []
        for stored in (cropped, whole):
            face = (await server.references.get_fused(stored.id)).face
            assert face is not None
            share.append((face.box[3] - face.box[1]) / 256)
        assert share[0] > 0.35
        assert share[1] < 0.25

    with_pipeline(test)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (b"", MediaError, "The picture is empty"),
        (b"not a picture at all", UnsupportedMediaError, "not a JPEG, PNG, WebP, HEIC or AVIF"),
        (encoded(portrait())[:3000], MediaError, "damaged or cut short"),
        (b"\xff\xd8\xff" + bytes(MAX_IMAGE_BYTES), MediaTooLargeError, "up to 100 MB"),
        (encoded(np.zeros((5000, 8001, 3), np.uint8)), MediaTooLargeError, "40 megapixels"),
        (encoded(GREY), NoFaceError, "No face was found in the picture"),
    ],
    ids=["empty", "other", "cut", "bytes", "pixels", "grey"],
)
def test_what_is_no_portrait_is_refused(data: bytes, error: type[Exception], words: str) -> None:
    async def test(server: Server) -> None:
        with pytest.raises(error, match=words):
            await server.references.add(data)
        assert server.references.default_id is None
        assert len(server.references) == 0

    with_pipeline(test)


@pytest.mark.slow
@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_picture_that_lies_on_its_side_is_turned(quarters: int) -> None:
    async def test(server: Server) -> None:
        wide = portrait()[:400]
        plain = await server.references.add(encoded(wide))
        stored = await server.references.add(encoded(np.rot90(wide, quarters).copy()))
        assert (stored.width, stored.height) == (plain.width, plain.height)
        assert stored.rotation == 90 * quarters
        assert f"it is rotated by {90 * quarters}° clockwise" in stored.notes[0]
        assert stored.face is not None
        assert plain.face is not None
        assert stored.face.box == pytest.approx(plain.face.box, abs=4)
        assert np.abs(stored.frame((64, 64)).image.astype(int) - plain.frame((64, 64)).image).mean() < 4
        fused = await server.references.get_fused(stored.id)
        assert (
            np.abs(fused.image.astype(int) - (await server.references.get_fused(plain.id)).image).mean() < 4
        )

    with_pipeline(test)


@pytest.mark.slow
def test_a_picture_without_a_face_is_taken_if_that_is_allowed() -> None:
    async def test(server: Server) -> None:
        data = encoded(GREY)
        stored = await server.references.add(data, allow_no_face=True)
        assert stored.face is None
        assert "No face was found" in stored.notes[0]
        assert (await server.references.get_fused()).image.shape == (256, 256, 3)
        with pytest.raises(NoFaceError):
            await server.references.add(data)

    with_pipeline(test)


def test_of_faces_that_are_alike_none_is_chosen_unasked() -> None:
    data = encoded(two_faces())
    with pytest.raises(NoFaceError, match=r"2 faces and none .* at \d+,\d+.*\?face=1.*allow_no_face=true"):
        validate_picture(data, (256, 256), allow_no_face=False, cropped=True)
    stored = validate_picture(data, (256, 256), allow_no_face=True, cropped=True).stored
    assert stored.face is not None
    assert stored.allow_no_face


def test_a_face_that_stands_out_is_taken_and_noted() -> None:
    stored = validate_picture(encoded(two_faces(0.6)), (256, 256), allow_no_face=False, cropped=True).stored
    assert stored.face is not None
    assert stored.face.box[2] < 260  # the left one, which is larger
    assert not stored.allow_no_face
    assert "more than one face" in stored.notes[0]


def test_thumbnails_are_small_and_hold_no_metadata() -> None:
    file = io.BytesIO()
    exif = PIL.Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "secret"
    turned = PIL.Image.fromarray(np.rot90(portrait()).copy())
    turned.save(file, "JPEG", exif=exif, quality=95)
    stored = validate_picture(file.getvalue(), (256, 256), allow_no_face=False, cropped=True).stored
    small = PIL.Image.open(io.BytesIO(stored.thumbnail))
    assert small.format == "JPEG"
    assert small.size == (256, 256)
    assert not dict(small.getexif())
    assert b"secret" not in stored.thumbnail
    upright = PIL.Image.fromarray(portrait()).resize((256, 256))
    assert np.abs(np.asarray(small, float) - np.asarray(upright, float)).mean() < 4


def test_without_a_pipeline_or_a_reference_it_says_so() -> None:
    async def test() -> None:
        async with running() as server:
            with pytest.raises(ConflictError, match="No pipeline is loaded"):
                await server.references.add(encoded(portrait()))
            with pytest.raises(NoReferenceError, match="no reference yet"):
                await server.references.get_fused()
            with pytest.raises(UnknownReferenceError):
                await server.references.get_fused("../etc/passwd")

    asyncio.run(test())


@pytest.mark.slow
def test_after_another_load_it_is_fused_again_at_the_new_size(plugins: None) -> None:
    async def test(server: Server) -> None:
        stored = await server.references.add(encoded(portrait()))
        first = await server.references.get_fused()
        await loaded(server.pipelines, "preview", height=320)
        second = await server.references.get_fused()
        assert second is not first
        assert second.image.shape == (320, 256, 3)
        await loaded(server.pipelines, "echo")
        assert type(await server.references.get_fused(stored.id)) is not type(first)
        await server.pipelines.unload()
        with pytest.raises(ConflictError):
            await server.references.get_fused()

    with_pipeline(test)


@pytest.mark.slow
def test_the_same_bytes_are_one_reference_and_are_looked_at_once() -> None:
    async def test(server: Server) -> None:
        data = encoded(portrait())
        first = await server.references.add(data)
        other = await server.references.add(encoded(portrait()[:, ::-1].copy()))
        assert server.references.default_id == other.id
        assert await server.references.add(data) is first
        assert server.references.default_id == first.id
        assert len(server.references) == 2

    with_pipeline(test)


@pytest.mark.slow
def test_one_that_is_forgotten_goes_on_in_its_session(plugins: None) -> None:
    async def test(server: Server) -> None:
        stored = await server.references.add(encoded(portrait()))
        stream = await opened(server)
        server.references.remove(stored.id)
        assert not stream.ended
        assert server.references.default_id is None
        assert server.references.all() == []
        with pytest.raises(UnknownReferenceError):
            server.references.remove(stored.id)

    with_pipeline(test, "echo")


@pytest.mark.slow
def test_the_oldest_go_but_never_the_default(plugins: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_store, "MAX_REFERENCES", 3)

    async def test(server: Server) -> None:
        pictures = [encoded(np.full((64, 64, 3), 10 * k, np.uint8)) for k in range(1, 6)]
        stored = [await server.references.add(data, allow_no_face=True) for data in pictures[:3]]
        await server.references.get_fused(stored[0].id)  # used: not the oldest any more
        late = [await server.references.add(data, allow_no_face=True) for data in pictures[3:]]
        kept = [one.id for one in server.references.all()]
        assert kept == [late[1].id, late[0].id, stored[0].id]
        assert server.references.default_id == late[1].id
        monkeypatch.setattr(reference_store, "MAX_REFERENCE_BYTES", 1)
        last = await server.references.add(pictures[1], allow_no_face=True)
        assert [one.id for one in server.references.all()] == [last.id]

    with_pipeline(test, "echo")


@pytest.mark.slow
def test_many_at_once(plugins: None) -> None:
    async def test(server: Server) -> None:
        pictures = [encoded(np.full((64, 64, 3), k, np.uint8)) for k in range(1, 9)]
        adding = [server.references.add(data, allow_no_face=True) for data in pictures]
        stored = await asyncio.gather(*adding)
        assert len({one.id for one in stored}) == len(server.references) == 8

    with_pipeline(test, "echo")


@pytest.mark.slow
def test_a_pipeline_replaced_meanwhile_is_a_conflict_not_a_defect(plugins: None) -> None:
    async def test(server: Server) -> None:
        adding = [
            asyncio.create_task(server.references.add(encoded(portrait()), crop=crop))
            for crop in (True, False)
        ]
        await asyncio.sleep(0.02)
        await server.pipelines.load("echo", {"height": 320, "width": 320}, force=True)
        for result in await asyncio.gather(*adding, return_exceptions=True):
            assert isinstance(result, ConflictError) or not isinstance(result, BaseException)

    with_pipeline(test, "echo")


@settings(max_examples=25)
@given(
    data=st.one_of(
        st.binary(max_size=300),
        st.binary(max_size=300).map(lambda tail: b"\xff\xd8\xff" + tail),
        st.binary(max_size=300).map(lambda tail: b"\x89PNG\r\n\x1a\n" + tail),
        st.integers(0, 700).map(lambda at: encoded(GREY)[:at]),
    )
)
def test_any_bytes_are_refused_in_words(data: bytes) -> None:
    with pytest.raises(PersonaLiveError):
        validate_picture(data, (256, 256), allow_no_face=False, cropped=True)


@settings(max_examples=15)
@given(width=st.integers(16, 90), height=st.integers(16, 90), crop=st.booleans())
def test_pictures_of_any_size_are_framed(width: int, height: int, crop: bool) -> None:
    data = encoded(np.full((height, width, 3), 90, np.uint8))
    examined = validate_picture(data, (256, 320), allow_no_face=True, cropped=crop)
    assert examined.crop.image.shape == (320, 256, 3)
    assert (examined.stored.width, examined.stored.height) == (width, height)
    again = examined.stored.frame((256, 256)).image
    assert again.shape == (256, 256, 3)
