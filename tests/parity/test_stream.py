"""Whole sessions on the real pipeline, stage by stage, against the published figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.parity.cases import case_files
from tests.parity.session import run
from tests.pipelines.diffusion.figures import TOLERANCE, Case, relative_errors

EXACT = ("boxes", "keyframes")


def comparable(stage: str, values: list[Tensor]) -> Tensor:
    """What was recorded of a stage, as its figure shows it, frames in front."""
    match stage:
        case "noise_pred":
            shown = sorted({0, 1, len(values) - 1} & set(range(len(values))))
            return torch.cat([values[chunk][0].transpose(0, 1) for chunk in shown])
        case "pose":
            return torch.cat(values)[:, :, ::8, ::8]
        case "canvas":
            return torch.cat(values).sum(dim=(2, 3))
        case "frames":
            return torch.cat(values)[:, ::4, ::4]
        case _:
            return torch.cat(values)


def per_frame(stage: str, figure: np.ndarray) -> Tensor:
    """A figure with its frames in front."""
    tensor = torch.from_numpy(figure)
    match stage:
        case "motion":
            return tensor[0]
        case "pose":
            return tensor[0].transpose(0, 1)
        case "noise_pred":
            return tensor[:, 0].transpose(1, 2).flatten(0, 1)
        case _:
            return tensor


def compare(stage: str, ours: Tensor, theirs: Tensor) -> None:
    """Fail unless every frame is within the tolerance, or the same where the stage is exact."""
    if stage in EXACT:
        assert torch.equal(ours.long(), theirs.long()), stage
        return
    errors = relative_errors(ours, theirs)
    print(f"{stage:>12}: worst frame {errors.max():.1e}")
    assert errors.max() <= TOLERANCE, f"{stage}, frame {int(errors.argmax())}"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("path", case_files("stream"))
def test_a_session_computes_the_published_figures(path: Path) -> None:
    case = Case.load(path)
    recorded = run(case, int(case.facts["chunks"]))
    assert set(case.arrays) <= set(recorded)
    for stage, figure in case.arrays.items():
        compare(stage, comparable(stage, recorded[stage]), per_frame(stage, figure))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", case_files("stream")[:1])
def test_its_first_chunk_computes_the_published_figures(path: Path) -> None:
    case = Case.load(path)
    recorded = run(case, 1)
    for stage, figure in case.arrays.items():
        ours, theirs = comparable(stage, recorded[stage]), per_frame(stage, figure)
        compare(stage, ours, theirs[: len(ours)])
