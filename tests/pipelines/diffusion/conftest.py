"""The quick case and the extractor it was computed with, made once: the networks in it are at full size.

And the whole pipeline with small random networks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from personalive.pipelines.diffusion.checkpoints.random_weights import write_random_weights
from personalive.pipelines.diffusion.components import Components
from personalive.pipelines.diffusion.motion.driving_motion import DrivingMotion
from personalive.pipelines.diffusion.networks.motion_extractor import MotionExtractor, MotionExtractorParams
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters, PersonaLiveRunParameters
from personalive.pipelines.diffusion.pipeline import PersonaLivePipeline
from personalive.pipelines.diffusion.sampling.reference import FusedReference
from tests.pipelines.diffusion.figures import DATA, Case, Motions, extract, filled
from tests.pipelines.diffusion.streams import CHUNK, FPS, SIDE, chunk, picture, video

SAMPLED = (0, 17, 34, 51)


@pytest.fixture(scope="session")
def case() -> Case:
    return Case.load(DATA / "stream_tiny.json")


@pytest.fixture(scope="session")
def extractor(case: Case) -> MotionExtractor:
    return filled(lambda: MotionExtractor(MotionExtractorParams()), f"{case.salt}motion_extractor")


@pytest.fixture(scope="session")
def motions(case: Case, extractor: MotionExtractor) -> Motions:
    """Of the reference and a few of the driving frames."""
    return extract(case, extractor, SAMPLED)


@pytest.fixture(scope="session")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weights, small and random."""
    return write_random_weights(tmp_path_factory.mktemp("small") / "weights")


@pytest.fixture(scope="session")
def set_to(small_set: Path) -> PersonaLiveLoadParameters:
    """The small set at 64 × 64 pixels, where every frame is a face."""
    return PersonaLiveLoadParameters(
        height=SIDE, width=SIDE, face_detection=False, weights=small_set, device="cpu"
    )


@pytest.fixture(scope="session")
def pipeline(set_to: PersonaLiveLoadParameters) -> Iterator[PersonaLivePipeline]:
    with PersonaLivePipeline.load(set_to) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def models(pipeline: PersonaLivePipeline) -> Components:
    """The pipeline's networks, for pipelines with other settings."""
    return pipeline._require_engine().components


@pytest.fixture(scope="session")
def reference(pipeline: PersonaLivePipeline) -> FusedReference:
    return pipeline.fuse(picture(1))


@pytest.fixture(scope="session")
def other_reference(pipeline: PersonaLivePipeline) -> FusedReference:
    return pipeline.fuse(picture(2))


@pytest.fixture(scope="session")
def aged(pipeline: PersonaLivePipeline, reference: FusedReference) -> bytes:
    """The snapshot of a session that takes a keyframe as often as it may, after its first nine chunks.

    The next chunk makes the first keyframe.
    """
    run = PersonaLiveRunParameters(keyframe_threshold=0.0)
    with pipeline.open_session(reference, run) as session:
        for index in range(9):
            session.step(chunk(1, index))
        return session.snapshot()


@pytest.fixture(scope="session")
def motion(pipeline: PersonaLivePipeline) -> DrivingMotion:
    """Of the first driver's 14 chunks."""
    return pipeline.extract_motion(video(1, 14 * CHUNK), FPS)
