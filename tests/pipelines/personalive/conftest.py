"""The quick case and the extractor it was computed with, made once: the networks in it are at full size."""

from __future__ import annotations

import pytest

from personalive.pipelines.personalive.networks.motion_extractor import MotionExtractor, MotionExtractorParams
from tests.pipelines.personalive.figures import DATA, Case, Motions, extract, filled

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
