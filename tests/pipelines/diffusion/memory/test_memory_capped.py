"""A whole pipeline of the released size in a process that may take no more of a GPU than smaller cards have."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from personalive.media.types import Frames
from personalive.pipelines.diffusion.checkpoints.random_weights import VARIANTS, build_random_components
from personalive.pipelines.diffusion.device import unet_streaming
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters, PersonaLiveRunParameters
from personalive.pipelines.diffusion.pipeline import PersonaLivePipeline
from tests.pipelines.diffusion.streams import chunk, picture

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

PROGRAM = """
import json, logging, sys, torch
from personalive.errors import PipelineUnavailableError
from personalive.pipelines.diffusion.profiling.benchmark import BenchmarkConfig, run_benchmark
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters

gib, sessions = float(sys.argv[1]), int(sys.argv[2])
total = torch.cuda.get_device_properties(0).total_memory
torch.cuda.set_per_process_memory_fraction(min(gib * 2**30 / total, 1.0))
said = []
handler = logging.Handler(logging.WARNING)
handler.emit = lambda record: said.append(record.getMessage())
logging.getLogger().addHandler(handler)
parameters = PersonaLiveLoadParameters(batch_sessions=sessions)
try:
    config = BenchmarkConfig(parameters, "released", whole=False, sessions=(sessions,), steps=3, warmup=1)
    result = run_benchmark(config)
except PipelineUnavailableError as error:
    print(json.dumps({"refused": str(error)}))
else:
    ms = result.steps[0].networks.median_ms
    facts = {"plan": result.memory_plan, "recorded": result.recorded, "held": result.held_gb, "ms": ms}
    print(json.dumps(facts | {"said": [one for one in said if "accelerated" in one or "memory" in one]}))
"""


def capped(gib: float, sessions: int = 1) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(gib), str(sessions)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    facts: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return facts


@pytest.mark.parametrize(("gib", "sessions"), [(11.2, 2), (7.4, 1), (5.5, 1)])
def test_a_smaller_card_records_every_stage_within_its_memory(gib: float, sessions: int) -> None:
    facts = capped(gib, sessions)
    assert facts["said"] == []
    counts = {
        "encode_motion": sessions,
        "encode_pose": 2 * sessions,
        "denoise": 4 * sessions,
        "decode": sessions,
    }
    assert facts["recorded"] == counts
    assert isinstance(facts["held"], float)
    assert facts["held"] <= gib * 2**30 / 1e9


def test_a_card_of_four_runs_without_recording() -> None:
    facts = capped(3.6)
    assert facts.get("refused") is None
    assert facts["plan"] in {"stream", "least"}


def test_a_card_of_two_is_refused_in_one_sentence() -> None:
    assert "too little GPU memory" in str(capped(2.0)["refused"])


@pytest.mark.parametrize("plan", ["half", "stream", "least"])
def test_streaming_changes_no_frame_on_a_gpu(plan: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unet_streaming, "MIN_STREAMED_BYTES", 1024)
    device, run = torch.device("cuda"), PersonaLiveRunParameters(keyframe_threshold=0.0)

    def images(name: str) -> Frames:
        parameters = PersonaLiveLoadParameters.model_validate(
            {"low_vram": name, "height": 256, "width": 256, "face_detection": False}
        )
        models = build_random_components(VARIANTS["small"], device=device, dtype=torch.float16)
        with PersonaLivePipeline(models, parameters) as own:
            assert bool(own.engine.plan.streamed) == (name != "on")
            own.warm_up()
            with own.open_session(own.fuse(picture(1), allow_no_face=True), run) as session:
                return np.concatenate([session.step(chunk(1, index)).images for index in range(11)])

    assert (images(plan) == images("on")).all()
