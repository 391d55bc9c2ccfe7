from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from personalive.face.blendshapes import BlendshapeScorer
from personalive.face.face import BLENDSHAPES, Face, FaceMesh


@pytest.fixture(scope="module")
def scorer() -> Iterator[BlendshapeScorer]:
    scorer = BlendshapeScorer()
    yield scorer
    scorer.close()
    scorer.close()


def test_a_smile_is_a_smile(face: Face, scorer: BlendshapeScorer) -> None:
    scored = scorer.score(FaceMesh(face.landmarks))
    assert scored.landmarks is face.landmarks
    assert scored.blendshapes.shape == (len(BLENDSHAPES),)
    assert scored.blendshapes.dtype == np.float32
    assert scored.score("mouthSmileLeft", "mouthSmileRight") > 0.5
    assert scored.score("eyeBlinkLeft", "eyeBlinkRight") < 0.3


def test_left_and_right_are_the_subjects_own(face: Face, scorer: BlendshapeScorer) -> None:
    """The subject's right lids, on the left of the picture, are drawn shut."""
    shut = face.landmarks.copy()
    for upper, lower in ((160, 144), (159, 145), (158, 153), (161, 163), (157, 154)):
        shut[upper] = shut[lower]
    scored = scorer.score(FaceMesh(shut))
    assert scored.score("eyeBlinkRight") > scored.score("eyeBlinkLeft") + 0.2


def test_scores_do_not_depend_on_where_and_how_large_the_face_is(
    face: Face, scorer: BlendshapeScorer
) -> None:
    moved = scorer.score(FaceMesh(face.landmarks).scale(2.5, (300.0, -40.0)))
    assert moved.blendshapes == pytest.approx(face.blendshapes, abs=0.01)


@pytest.mark.parametrize("points", [np.zeros((478, 3)), np.full((478, 3), 1e30)])
def test_nonsense_is_scored_with_numbers(points: np.ndarray, scorer: BlendshapeScorer) -> None:
    scores = scorer.score(FaceMesh(points.astype(np.float32))).blendshapes
    assert np.isfinite(scores).all()
    assert ((scores >= 0) & (scores <= 1)).all()
