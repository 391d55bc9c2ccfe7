from __future__ import annotations

import time

import torch

from personalive.pipelines.diffusion.components import Models
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters
from personalive.pipelines.diffusion.profiling.stage_timer import NAMES, TimedStages
from personalive.pipelines.diffusion.sampling.engine import Engine


@torch.inference_mode()
def test_each_stage_is_timed_apart_and_forgotten_when_taken(
    models: Models, set_to: PersonaLiveLoadParameters
) -> None:
    timed = TimedStages(Engine(models, set_to).stages, models.device)
    begun = time.perf_counter()
    timed.pose(torch.zeros(2, 21, 3))
    timed.pose(torch.zeros(2, 21, 3))
    timed.show(torch.zeros(1, 4, 8, 8))
    passed = time.perf_counter() - begun
    took = timed.take()
    assert set(took) == set(NAMES)
    assert 0 < took["pose"] + took["show"] <= passed
    assert took["see"] == took["predict"] == 0
    assert set(timed.take().values()) == {0.0}
