from __future__ import annotations

import itertools
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from personalive import InputError, LiveSession, MediaError, NoFaceError, PersonaLive, SessionClosedError
from personalive.errors import PipelineUnavailableError
from personalive.media import Image, open_driving, read_image
from personalive.pipelines.base import AnimatedChunk, FrameState
from personalive.pipelines.diffusion.motion.driving_motion import DrivingMotion
from personalive.pipelines.diffusion.pipeline import PersonaLivePipeline
from personalive.pipelines.diffusion.sampling.reference import FusedReference

SAMPLES = Path(str(files("personalive") / "samples"))
PORTRAIT, CLIP = SAMPLES / "portrait.jpg", SAMPLES / "driving.mp4"


@pytest.fixture(scope="module")
def live(test_weights: Path) -> Iterator[PersonaLive]:
    # Two levels of two frames: as a real window, and quicker.
    with PersonaLive.from_pretrained(
        test_weights, device="cpu", width=64, height=64, experimental=True,
        temporal_window_size=2, temporal_adaptive_step=2, num_inference_steps=2,
    ) as loaded:  # fmt: skip
        yield loaded


@pytest.fixture(scope="module")
def reference(live: PersonaLive) -> FusedReference:
    return live.fuse(PORTRAIT)


@pytest.fixture(scope="module")
def frames() -> Image:
    with open_driving(CLIP) as source:
        return np.stack([frame.image for frame in itertools.islice(source, 5)])


@pytest.fixture
def session(live: PersonaLive, reference: FusedReference) -> Iterator[LiveSession]:
    with live.session(reference) as opened:
        yield opened


def joined(*chunks: AnimatedChunk) -> tuple[Image, list[float], list[FrameState]]:
    states = [state for chunk in chunks for state in chunk.states]
    times = [float(time) for chunk in chunks for time in chunk.times]
    return np.concatenate([chunk.images for chunk in chunks]), times, states


def test_one_frame_comes_back_for_each(session: LiveSession, frames: Image) -> None:
    assert (session.chunk_frames, session.delay_frames) == (2, 2)
    empty = session.step(frames[0])
    assert (len(empty), empty.images.shape, empty.images.dtype.name) == (0, (0, 64, 64, 3), "uint8")
    lead_in = session.step(frames[1])
    assert lead_in.states == (FrameState.TRANSITION,) * 2
    images, times, states = joined(session.step(frames[2:]), session.flush())
    assert images.shape == (5, 64, 64, 3)
    assert times == pytest.approx([0, 0.04, 0.08, 0.12, 0.16])
    assert states == [FrameState.ANIMATED] * 5
    assert len(session.flush()) == 0


def test_how_frames_are_handed_over_does_not_matter(
    live: PersonaLive, reference: FusedReference, frames: Image
) -> None:
    with live.session(reference) as one, live.session(reference) as other:
        whole = joined(one.step(frames), one.flush())
        again = joined(*[other.step(frame) for frame in frames], other.flush())
    np.testing.assert_array_equal(whole[0], again[0])
    assert whole[1:] == again[1:]


def test_a_frame_may_be_overwritten_by_its_owner(session: LiveSession, frames: Image) -> None:
    expected = joined(session.step(frames[:2]), session.flush())[0]
    buffer = frames[0].copy()
    first = session.step(buffer)
    buffer[:] = 0
    np.testing.assert_array_equal(joined(first, session.step(frames[1]), session.flush())[0], expected)


def test_seed_and_parameters_matter(live: PersonaLive, reference: FusedReference, frames: Image) -> None:
    def animated(seed: int, **given: float) -> Image:
        with live.session(reference, seed=seed, **given) as session:
            return joined(session.step(frames[:2]), session.flush())[0]

    same = animated(3)
    np.testing.assert_array_equal(animated(3), same)
    assert (animated(4) != same).any()
    with live.session(reference, expression=0.5) as session:
        session.update(pose=0.25)
        assert (session.parameters.expression, session.parameters.pose) == (0.5, 0.25)
        with pytest.raises(InputError, match="pose = 9"):
            session.update(pose=9, expression=1)
        assert session.parameters.expression == 0.5
    with pytest.raises(InputError, match="nonesuch"):
        live.session(reference, nonesuch=1)


@pytest.mark.slow
def test_a_motion_gives_what_its_clip_gives(session: LiveSession, live: PersonaLive) -> None:
    motion = live.extract_motion(CLIP, end=0.2)
    with open_driving(CLIP, end=0.2) as source:
        frames = np.stack([frame.image for frame in source])
    expected, _, states = joined(session.step(frames), session.flush())
    own = [k for k, state in enumerate(states) if state is not FrameState.TRANSITION]
    assert len(own) == len(motion) == len(frames)
    driven, times, _ = joined(*session.drive(motion))
    np.testing.assert_array_equal(driven, expected[own])
    assert times == pytest.approx(list(motion.times))


def test_motion_waits_for_no_frames(session: LiveSession, live: PersonaLive, frames: Image) -> None:
    motion = live.extract_motion(CLIP, end=0.1)
    session.step(frames[0])
    with pytest.raises(InputError, match="flush"):
        session.step_motion(motion.select(slice(0, 2)))
    session.reset()
    assert len(session.step_motion(motion.select(slice(0, 2)))) == 2
    with pytest.raises(InputError, match="chunks of 2"):
        session.step_motion(motion.select(slice(0, 1)))
    foreign = DrivingMotion(motion.head, motion.tokens, motion.valid, motion.times, motion.fps, "other")
    with pytest.raises(InputError, match="other weights"):
        list(session.drive(foreign))


def test_every_kind_of_picture_is_fused(live: PersonaLive, reference: FusedReference) -> None:
    pixels = read_image(PORTRAIT)
    assert live.fuse(pixels).id == live.fuse(PIL.Image.fromarray(pixels)).id == reference.id
    whole = live.fuse(PORTRAIT, crop=False)
    assert whole.id != reference.id
    assert whole.image.shape == (64, 64, 3)
    with pytest.raises(NoFaceError):
        live.fuse(np.full((200, 200, 3), 128, np.uint8))
    lying = np.rot90(pixels)
    assert live.fuse(lying).id == live.fuse(lying, rotate=90).id == reference.id
    with pytest.raises(NoFaceError, match="is not upright"):
        live.fuse(lying, rotate=0)
    assert live.fuse(lying, crop=False, rotate=90).id == whole.id
    with pytest.raises(InputError, match="auto, 0, 90, 180 or 270"):
        live.fuse(lying, rotate=45)
    with pytest.raises(MediaError, match="does not exist"):
        live.fuse("nonesuch.jpg", crop=False)
    with pytest.raises(InputError, match="uint8"):
        live.fuse(np.zeros((8, 8)))  # type: ignore[arg-type]


def test_the_reference_can_be_switched(session: LiveSession, live: PersonaLive, frames: Image) -> None:
    session.step(frames[:2])
    session.switch_reference(live.fuse(PORTRAIT, crop=False))
    assert session.step(frames[2:4]).states == (FrameState.TRANSITION,) * 2


@pytest.mark.parametrize(
    ("given", "times", "words"),
    [
        (np.zeros((4, 20, 20), np.uint8), None, "uint8 RGB"),
        (np.zeros((20, 20, 3), np.float32), None, "uint8 RGB"),
        (np.zeros((8, 20, 3), np.uint8), None, "16 pixels"),
        (np.zeros((2, 20, 20, 3), np.uint8), [1.0], "2 frames need"),
        (np.zeros((2, 20, 20, 3), np.uint8), [1.0, 0.5], "never decrease"),
        (np.zeros((20, 20, 3), np.uint8), float("nan"), "never decrease"),
    ],
)
def test_other_frames_are_refused(
    session: LiveSession, given: Image, times: list[float] | None, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        session.step(given, times)
    assert len(session.flush()) == 0


def test_times_never_decrease_from_call_to_call(session: LiveSession, frames: Image) -> None:
    session.step(frames[:2], [1.0, 1.5])
    with pytest.raises(InputError, match="never decrease"):
        session.step(frames[2], 1.4)


def test_sizes_do_not_mix_within_a_chunk(session: LiveSession, frames: Image) -> None:
    session.step(frames[0])
    with pytest.raises(InputError, match="the same size"):
        session.step(frames[1, :100])


def test_closing(live: PersonaLive, reference: FusedReference, frames: Image) -> None:
    session = live.session(reference)
    session.close()
    session.close()
    for use in (lambda: session.step(frames[0]), session.flush, session.reset):
        with pytest.raises(SessionClosedError):
            use()


def test_what_cannot_be_loaded(test_weights: Path, tmp_path: Path) -> None:
    with pytest.raises(PipelineUnavailableError, match="no weights"):
        PersonaLive.from_pretrained(tmp_path)
    with pytest.raises(InputError, match="width = 65"):
        PersonaLive.from_pretrained(test_weights, width=65)


def test_animating_a_file_uses_what_is_loaded(
    live: PersonaLive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_again(*_: object) -> None:
        raise AssertionError("the networks are loaded already")

    monkeypatch.setattr(PersonaLivePipeline, "load", load_again)
    out = tmp_path / "out.mp4"
    report = live.animate(PORTRAIT, CLIP, out, max_frames=4, parameters={"expression": 1.2})
    assert (report.frames, report.width, report.height, out.exists()) == (4, 64, 64, True)
    with pytest.raises(InputError, match="latency is chosen when the pipeline is loaded"):
        live.animate(PORTRAIT, CLIP, out, parameters={"latency": "low"})
