from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise

import cv2
import numpy as np
import pytest
from pydantic import ValidationError
from typing_extensions import override

from personalive.errors import InputError, NoFaceError, SessionClosedError
from personalive.face.crop import compute_reference_crop, extract_crop
from personalive.face.tracker import FaceDetector
from personalive.media.types import Frames, Image
from personalive.pipelines.base import DetectedFace, FrameChunk, FrameState, Reference, Session
from personalive.pipelines.preview import (
    PreviewLoadParameters,
    PreviewPipeline,
    PreviewReference,
    PreviewRunParameters,
)

ANIMATED, HELD, WAITING = FrameState.ANIMATED, FrameState.HELD, FrameState.WAITING
GREY = np.full((256, 256, 3), 128, np.uint8)


@pytest.fixture(scope="module")
def pipeline() -> Iterator[PreviewPipeline]:
    with PreviewPipeline.load(PreviewLoadParameters(width=256, height=256)) as loaded:
        assert isinstance(loaded, PreviewPipeline)
        yield loaded


@pytest.fixture(scope="module")
def reference(pipeline: PreviewPipeline, sample: Image) -> PreviewReference:
    return pipeline.fuse(sample)


@pytest.fixture(scope="module")
def other(pipeline: PreviewPipeline, sample: Image) -> PreviewReference:
    """Somebody else: the sample in the mirror and in other colours."""
    return pipeline.fuse(np.ascontiguousarray(sample[:, ::-1, ::-1]))


@pytest.fixture(scope="module")
def moving(driving: list[Image]) -> list[Image]:
    """Twelve driving frames, 256 × 256, in which a good deal happens."""
    return [np.asarray(cv2.resize(frame, (256, 256)), np.uint8) for frame in driving[::6][:12]]


def chunk(frames: Sequence[Image], first: int = 0) -> FrameChunk:
    return FrameChunk(np.stack(frames), (first + np.arange(len(frames))) / 10)


def run(
    session: Session[PreviewRunParameters], frames: Sequence[Image], size: int = 4, first: int = 0
) -> tuple[Frames, list[FrameState]]:
    images: list[Frames] = []
    states: list[FrameState] = []
    for start in range(0, len(frames), size):
        piece = chunk(frames[start : start + size], first + start)
        made = session.step(piece)
        assert np.array_equal(made.times, piece.times)
        assert len(made.states) == len(made) == len(piece)
        images.append(made.images)
        states.extend(made.states)
    return np.concatenate(images), states


def apart(one: Image, two: Image) -> float:
    return float(cv2.absdiff(np.ascontiguousarray(one), np.ascontiguousarray(two)).mean())


def test_a_face_that_comes_and_goes(
    pipeline: PreviewPipeline, reference: PreviewReference, moving: list[Image]
) -> None:
    frames = [GREY, GREY, *moving[:4], GREY, GREY, *moving[4:6]]
    with pipeline.open_session(reference) as session:
        images, states = run(session, frames)
        assert session.flush() is None
    assert states == [WAITING] * 2 + [ANIMATED] * 4 + [HELD] * 2 + [ANIMATED] * 2
    assert images.dtype == np.uint8
    assert images.shape == (10, 256, 256, 3)
    assert np.array_equal(images[0], reference.image)
    assert np.array_equal(images[1], reference.image)
    assert np.array_equal(images[5], images[6]), "what is held is the last motion"
    assert np.array_equal(images[6], images[7])
    assert len({image.tobytes() for image in images[2:6]}) == 4
    assert apart(images[5], images[8]) > 0.01


def test_the_first_animated_frame_is_close_to_the_portrait(
    pipeline: PreviewPipeline, reference: PreviewReference, moving: list[Image]
) -> None:
    with pipeline.open_session(reference) as session:
        images = session.step(chunk(moving)).images
    changes = [apart(image, reference.image) for image in images]
    assert changes[0] < 0.5 * max(changes)


def test_sessions_do_not_disturb_each_other(
    pipeline: PreviewPipeline, reference: PreviewReference, other: PreviewReference, moving: list[Image]
) -> None:
    backwards = moving[::-1]
    alone = []
    for fused, frames in ((reference, moving), (other, backwards)):
        with pipeline.open_session(fused) as session:
            alone.append(run(session, frames)[0])
    with pipeline.open_session(reference) as one, pipeline.open_session(other) as two:
        together: tuple[list[Frames], list[Frames]] = ([], [])
        for start in range(0, len(moving), 4):
            made = pipeline.step_many(
                [one, two],
                [chunk(moving[start : start + 4], start), chunk(backwards[start : start + 4], start)],
            )
            for pile, piece in zip(together, made, strict=True):
                pile.append(piece.images)
    for expected, pieces in zip(alone, together, strict=True):
        assert np.array_equal(np.concatenate(pieces), expected)


def test_the_size_of_the_chunks_does_not_matter(
    pipeline: PreviewPipeline, reference: PreviewReference, moving: list[Image]
) -> None:
    results = []
    for size in (1, 4, 7):
        with pipeline.open_session(reference) as session:
            results.append(run(session, moving, size))
    for images, states in results[1:]:
        assert np.array_equal(images, results[0][0])
        assert states == results[0][1]
    with pipeline.open_session(reference) as session:
        empty = session.step(FrameChunk(np.zeros((0, 64, 64, 3), np.uint8), np.zeros(0)))
        assert (len(empty), empty.states, empty.images.shape[1:]) == (0, (), (256, 256, 3))


def test_reset_begins_anew(
    pipeline: PreviewPipeline, reference: PreviewReference, moving: list[Image]
) -> None:
    with pipeline.open_session(reference) as session:
        first, _ = run(session, moving[:6])
        run(session, [GREY, *moving[6:9]], first=6)
        session.reset()
        again, _ = run(session, moving[:6])
        assert np.array_equal(first, again)
        session.reset()
        images, states = run(session, [GREY])
        assert states == [WAITING]
        assert np.array_equal(images[0], reference.image)


def test_a_new_reference_takes_over_whole(
    pipeline: PreviewPipeline, reference: PreviewReference, other: PreviewReference, moving: list[Image]
) -> None:
    """Where the session began makes no difference: only the tracker goes on, and it knows no reference."""
    grey = pipeline.fuse(GREY, allow_no_face=True)
    results = []
    for start in (reference, grey, other):
        with pipeline.open_session(start) as session:
            run(session, moving[:8])
            session.switch_reference(other)
            images, states = run(session, moving[8:], first=8)
        assert states == [ANIMATED] * 4
        results.append(images)
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])
    with pipeline.open_session(other) as session:
        fresh, _ = run(session, moving[8:], first=8)
    for switched, new in zip(results[0], fresh, strict=True):
        assert apart(switched, new) < 0.2 * apart(switched, reference.image)


def test_nothing_is_held_over_to_a_new_reference(
    pipeline: PreviewPipeline, reference: PreviewReference, other: PreviewReference, moving: list[Image]
) -> None:
    with pipeline.open_session(reference) as session:
        assert run(session, [*moving[:3], GREY])[1][-1] == HELD
        session.switch_reference(other)
        images, states = run(session, [GREY], first=4)
    assert states == [WAITING]
    assert np.array_equal(images[0], other.image)


def test_parameters_change_between_steps(
    pipeline: PreviewPipeline, reference: PreviewReference, moving: list[Image]
) -> None:
    off = PreviewRunParameters(expression=0.0, pose=0.0, translation=0.0)
    with pipeline.open_session(reference) as session:
        assert session.parameters == PreviewRunParameters()
        moved, _ = run(session, moving[:6])
        session.update(off)
        assert session.parameters == off
        still, states = run(session, moving[6:], first=6)
        session.update(PreviewRunParameters(motion="absolute"))
        absolute, _ = run(session, moving[6:], first=12)
    assert apart(moved[5], reference.image) > 0.1
    assert states == [ANIMATED] * 6
    assert all(np.array_equal(image, reference.image) for image in still)
    assert apart(absolute[0], reference.image) > 0.1
    with pipeline.open_session(reference, off) as session:
        assert np.array_equal(run(session, moving[3:4])[0][0], reference.image)


def test_a_closed_session_is_closed(
    pipeline: PreviewPipeline, reference: PreviewReference, moving: list[Image]
) -> None:
    session = pipeline.open_session(reference)
    session.step(chunk(moving[:1]))
    session.close()
    session.close()
    with pytest.raises(SessionClosedError):
        session.step(chunk(moving[:1]))
    with pipeline.open_session(reference) as second:
        assert second.step(chunk(moving[:1])).states == (ANIMATED,)
    with pytest.raises(SessionClosedError):
        second.step(chunk(moving[:1]))


@pytest.mark.parametrize("size", [(16, 16), (40, 300), (300, 40)])
def test_driving_frames_may_be_tiny_or_narrow(
    pipeline: PreviewPipeline, reference: PreviewReference, size: tuple[int, int]
) -> None:
    frames = FrameChunk(np.full((2, *size, 3), 90, np.uint8), np.zeros(2))
    with pipeline.open_session(reference) as session:
        assert session.step(frames).states == (WAITING, WAITING)


def test_driving_frames_may_change_their_size(
    pipeline: PreviewPipeline, reference: PreviewReference, moving: list[Image]
) -> None:
    wide = [np.asarray(cv2.resize(frame, (400, 300)), np.uint8) for frame in moving[4:6]]
    with pipeline.open_session(reference) as session:
        run(session, moving[:4])
        images, states = run(session, wide, first=4)
    assert states == [ANIMATED] * 2
    assert images.shape == (2, 256, 256, 3)


def test_no_face_is_an_error_unless_allowed(pipeline: PreviewPipeline, moving: list[Image]) -> None:
    scene = np.random.default_rng(0).integers(0, 256, (300, 200, 3)).astype(np.uint8)
    with pytest.raises(NoFaceError, match="No face"):
        pipeline.fuse(scene)
    fused = pipeline.fuse(scene, allow_no_face=True)
    assert fused.face is None
    assert fused.image.shape == (256, 256, 3)
    with pipeline.open_session(fused) as session:
        images, states = run(session, [*moving[:2], GREY])
        session.reset()
    assert states == [WAITING] * 3
    assert all(np.array_equal(image, fused.image) for image in images)


def test_a_reference_says_what_it_is(
    pipeline: PreviewPipeline, sample: Image, reference: PreviewReference, other: PreviewReference
) -> None:
    assert pipeline.fuse(sample.copy()).id == reference.id
    assert other.id != reference.id
    assert reference.image.shape == (256, 256, 3)
    with pytest.raises(ValueError, match="read-only"):
        reference.image[0] = 0
    assert np.array_equal(reference.draw(None), reference.image)


def test_the_face_is_given_in_the_images_own_pixels(
    pipeline: PreviewPipeline, portrait: Image, detector: FaceDetector
) -> None:
    seen = detector.detect_dominant(portrait)
    assert seen is not None
    image = np.ascontiguousarray(portrait[:400, :480])
    for factor in (1.0, 0.6, 1.7):
        resized = np.asarray(cv2.resize(image, None, fx=factor, fy=factor), np.uint8)
        face = pipeline.fuse(resized).face
        assert isinstance(face, DetectedFace)
        assert 0.5 < face.score <= 1
        for found, expected in zip(face.box, seen.box, strict=True):
            assert found == pytest.approx(expected * factor, abs=8 * factor)


@pytest.mark.parametrize(("width", "height"), [(256, 320), (1024, 512)])
def test_other_sizes_work(
    sample: Image, detector: FaceDetector, moving: list[Image], width: int, height: int
) -> None:
    face = detector.detect_dominant(sample)
    assert face is not None
    box = compute_reference_crop(face, (512, 512), width / height)
    with PreviewPipeline.load(PreviewLoadParameters(width=width, height=height)) as loaded:
        assert (loaded.parameters.width, loaded.parameters.height) == (width, height)
        fused = loaded.fuse(extract_crop(sample, box, (width, height)))
        with loaded.open_session(fused) as session:
            made = session.step(chunk(moving[:6]))
    assert made.images.shape == (6, height, width, 3)
    assert set(made.states) == {ANIMATED}
    assert all(apart(a, b) > 0.01 for a, b in pairwise(made.images))
    assert np.array_equal(made.images[:, 0, 0], np.broadcast_to(fused.image[0, 0], (6, 3)))


def test_references_of_others_are_refused(
    pipeline: PreviewPipeline, sample: Image, reference: PreviewReference
) -> None:
    class Stranger(Reference):
        @override
        def __init__(self) -> None:
            self.id, self.image, self.face = "x", reference.image, None

    with pytest.raises(InputError, match="another pipeline"):
        pipeline.open_session(Stranger())
    with PreviewPipeline.load(PreviewLoadParameters(width=320, height=256)) as wide:
        larger = wide.fuse(sample)
    assert larger.id != reference.id
    with pipeline.open_session(reference) as session:
        with pytest.raises(InputError, match="another pipeline"):
            session.switch_reference(Stranger())
        with pytest.raises(InputError, match="size"):
            session.switch_reference(larger)
        assert np.array_equal(session.step(chunk([GREY])).images[0], reference.image), "it goes on as it was"


@pytest.mark.slow
def test_a_half_seen_face_is_a_reference_or_a_sentence(pipeline: PreviewPipeline, sample: Image) -> None:
    """For any part that is cut off, the answer is a reference or `NoFaceError`."""
    used = 0
    for left, top, right, bottom in (
        (258, 100, 512, 400),
        (265, 158, 420, 439),
        (0, 100, 258, 400),
        (100, 240, 400, 512),
        (100, 0, 400, 260),
    ):
        try:
            fused = pipeline.fuse(np.ascontiguousarray(sample[top:bottom, left:right]))
        except NoFaceError:
            continue
        used += 1
        assert fused.image.shape == (256, 256, 3)
    assert used >= 2


def test_what_it_says_of_itself() -> None:
    assert PreviewPipeline.availability().ready
    assert not PreviewPipeline.info.generative
    assert PreviewPipeline.info.delay_frames == 0
    assert not PreviewPipeline.info.exact_chunks
    told: list[tuple[str, float]] = []
    with PreviewPipeline.load(
        PreviewLoadParameters(width=256, height=256), lambda stage, share: told.append((stage, share))
    ) as loaded:
        loaded.close()
    assert told[-1][1] == 1.0
    assert [share for _, share in told] == sorted(share for _, share in told)
    with pytest.raises(ValidationError):
        PreviewPipeline.run_parameters.model_validate({"pose": 9})


@pytest.mark.parametrize("at", [0, 1, 4, 8])
def test_another_session_goes_on_from_a_snapshot(
    pipeline: PreviewPipeline, reference: PreviewReference, moving: list[Image], at: int
) -> None:
    """Taken before a face was seen, right after the first, and while it is held."""
    frames = [GREY, *moving[:6], GREY, GREY, *moving[6:]]
    parameters = PreviewRunParameters(motion="absolute", smoothing=0.7)
    with pipeline.open_session(reference, parameters) as one, pipeline.open_session(reference) as two:
        run(one, frames[:at], 1) if at else None
        run(two, moving[4:9], 1)
        two.restore(one.snapshot() or b"")
        assert two.parameters == parameters
        expected, states = run(one, frames[at:], 4, at)
        images, again = run(two, frames[at:], 4, at)
        assert states == again
        assert np.array_equal(images, expected)


def test_a_snapshot_of_something_else_is_refused(
    pipeline: PreviewPipeline, reference: PreviewReference, other: PreviewReference, moving: list[Image]
) -> None:
    with pipeline.open_session(reference) as session, pipeline.open_session(other) as stranger:
        session.step(chunk(moving[:2]))
        kept = session.snapshot() or b""
        with pytest.raises(InputError, match="another reference"):
            stranger.restore(kept)
        for damaged in (
            b"",
            b"[]",
            b"{}",
            kept[:-9],
            kept.replace(b'"retargeter": {', b'"retargeter": null, "x": {'),
        ):
            with pytest.raises(InputError, match="no snapshot"):
                session.restore(damaged)
        assert session.snapshot() == kept
    with pytest.raises(SessionClosedError):
        session.snapshot()


def test_a_continued_session_follows_the_same_person(portrait: Image) -> None:
    """Of two people in the frame, the right one."""
    two = np.hstack([portrait, portrait[:, ::-1]])

    with PreviewPipeline.load(PreviewLoadParameters(height=256, width=256)) as own:
        reference = own.fuse(portrait)
        with (
            own.open_session(reference, PreviewRunParameters(driver_face="2")) as one,
            own.open_session(reference) as other,
        ):
            one.step(FrameChunk(two[None], np.array([0.0])))
            other.restore(one.snapshot())
            assert other.parameters.driver_face == "2"
            rolled = FrameChunk(np.roll(two, 40, axis=1)[None], np.array([0.04]))
            assert np.array_equal(one.step(rolled).images, other.step(rolled).images)
            assert one.snapshot() == other.snapshot()
            assert json.loads(one.snapshot())["driver"]["centre"][0] > 512
            one.update(PreviewRunParameters(driver_face="left"))
            one.step(FrameChunk(two[None], np.array([0.08])))
            assert json.loads(one.snapshot())["driver"]["centre"][0] < 512
