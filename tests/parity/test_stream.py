"""Whole sessions, stage by stage, against the published figures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.parity.cases import case_files
from tests.parity.networks import StreamNetworks, bank_statistics
from tests.parity.plain_session import PlainSession, per_frame
from tests.pipelines.personalive.figures import TOLERANCE, Case, relative_errors

EXACT = ("boxes", "keyframes")
STAGES = ("image_embeds", "ref_latents", "kps", "canvas", "motion", "pose", "noise_pred", "latents")


@pytest.mark.parametrize("path", case_files("stream"))
def test_networks_compute_the_published_figures_of_a_session(path: Path) -> None:
    case = Case.load(path)
    session = PlainSession(case, StreamNetworks(case.salt))
    for chunk in session.run():
        if chunk == 0:
            statistics = bank_statistics(session.banks[0])
            assert relative_errors(statistics, case.tensor("bank_stats")).max() <= TOLERANCE
    recorded = {
        **session.recorded,
        "noise_pred": [noise[0].transpose(0, 1) for noise in session.recorded["noise_pred"]],
    }
    for name in STAGES:
        figure = per_frame(name, case.arrays[name])
        errors = relative_errors(torch.cat(recorded[name]), figure)
        print(f"{name:>12}: worst frame {errors.max():.1e}")
        assert errors.max() <= TOLERANCE, f"{name}, frame {int(errors.argmax())}"
    for name in EXACT:
        assert torch.equal(session.stage(name).long(), case.tensor(name).long()), name
