from __future__ import annotations

import time

import torch

from personalive.pipelines.diffusion.components import Components
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters
from personalive.pipelines.diffusion.profiling.stage_timer import STAGE_NAMES, TimedStages
from personalive.pipelines.diffusion.sampling.engine import DiffusionEngine


@torch.inference_mode()
def test_each_stage_is_timed_apart_and_forgotten_when_taken(
    models: Components, set_to: PersonaLiveLoadParameters
) -> None:
    timed = TimedStages(DiffusionEngine(models, set_to).stages, models.device)
    begun = time.perf_counter()
    timed.encode_pose(torch.zeros(2, 21, 3))
    timed.encode_pose(torch.zeros(2, 21, 3))
    timed.decode(torch.zeros(1, 4, 8, 8))
    passed = time.perf_counter() - begun
    took = timed.collect()
    assert set(took) == set(STAGE_NAMES)
    assert 0 < took["encode_pose"] + took["decode"] <= passed
    assert took["encode_motion"] == took["denoise"] == 0
    assert set(timed.collect().values()) == {0.0}
