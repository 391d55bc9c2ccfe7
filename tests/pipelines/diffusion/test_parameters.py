from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters, PersonaLiveRunParameters


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"num_inference_steps": 3}, r"num_inference_steps \(3\) must equal temporal_adaptive_step \(4\)"),
        (
            {"temporal_window_size": 8, "temporal_adaptive_step": 8, "num_inference_steps": 8},
            "longer than the 32",
        ),
        ({"temporal_window_size": 2}, "experimental=true"),
        ({"temporal_adaptive_step": 2, "num_inference_steps": 2}, "experimental=true"),
        (
            {"temporal_adaptive_step": 2, "num_inference_steps": 2, "experimental": True, "latency": "low"},
            "latency low needs more than 2 noise levels",
        ),
        ({"height": 100}, "multiple of 64"),
        ({"height": 0}, "greater than or equal to 64"),
        ({"width": 2048}, "less than or equal to 1024"),
        ({"device": "tpu"}, "pattern"),
        ({"max_keyframes": 4}, "less than or equal to 3"),
        ({"vae": "huge"}, "'full' or 'tiny'"),
        ({"seed": -1}, "greater than or equal to 0"),
        ({"sed": 1}, "Extra inputs"),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_a_reason(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        PersonaLiveLoadParameters(**given)


@pytest.mark.parametrize(
    "given",
    [
        {"expression": 2.1},
        {"pose": 1.6},
        {"translation": -0.1},
        {"scale": 1.1},
        {"smoothing": 1.1},
        {"keyframe_threshold": -1},
        {"expresion": 1},
    ],
)
def test_run_parameters_out_of_bounds_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PersonaLiveRunParameters(**given)


@pytest.mark.parametrize(("latency", "delay"), [("quality", 12), ("balanced", 8), ("low", 4), ("lowest", 0)])
def test_a_latency_mode_says_its_delay(latency: Any, delay: int) -> None:
    assert PersonaLiveLoadParameters(latency=latency).delay_frames == delay


def test_other_windows_have_other_delays() -> None:
    window = PersonaLiveLoadParameters(
        temporal_window_size=2, temporal_adaptive_step=8, num_inference_steps=8, experimental=True
    )
    assert (window.delay_frames, window.skipped_levels) == (14, 0)


@pytest.mark.parametrize(
    ("given", "kept"),
    [(True, "on"), (False, "off"), ("true", "on"), ("False", "off"), ("auto", "auto"), ("least", "least")],
)
def test_low_vram_takes_what_it_took_before_it_had_more_than_two_values(given: Any, kept: str) -> None:
    assert PersonaLiveLoadParameters.model_validate({"low_vram": given}).low_vram == kept
    assert PersonaLiveLoadParameters().low_vram == "auto"
