from __future__ import annotations

from dataclasses import replace

import pytest

from personalive.errors import PipelineUnavailableError
from personalive.pipelines.diffusion.memory.plan import MemoryPlan, describe_shortage, select_plans

GB = 10**9
OFF = MemoryPlan("off", ("image_encoder",), None, 2, (), recorded=True, references=8, need=9 * GB)
ON = replace(OFF, name="on", waiting=("image_encoder", "reference_unet"), frames_at_once=1, need=7 * GB)
IN_TURN = replace(ON, batch_sessions=1, in_turn=True, need=6 * GB)
STREAM = replace(IN_TURN, name="stream", in_turn=False, streamed=(0, 1), share=0.625, need=4 * GB)
LEAST = replace(STREAM, name="least", recorded=False, need=3 * GB)
PLANS = (OFF, ON, IN_TURN, STREAM, LEAST)


@pytest.mark.parametrize(
    ("free", "first"), [(9 * GB, 0), (9 * GB - 1, 1), (6 * GB, 2), (5 * GB, 3), (3 * GB, 4), (None, 0)]
)
def test_those_that_fit_are_tried_from_the_fastest_on(free: int | None, first: int) -> None:
    assert select_plans(PLANS, "auto", free) == PLANS[first:]


def test_too_little_for_anything_is_said_with_what_is_needed_and_free() -> None:
    with pytest.raises(PipelineUnavailableError) as caught:
        select_plans(PLANS, "auto", 3 * GB - 1)
    assert caught.value.exit_code == 2
    assert str(caught.value) == (
        "There is too little GPU memory: some 3.0 GB are needed as set and 3.0 GB are free. Close other programs "
        "that use the GPU, or load with a smaller height and width."
    )
    assert describe_shortage(3 * GB, 2 * GB, "CUDA out of memory").endswith(
        "2.0 GB are free (CUDA out of memory)."
    )


def test_a_plan_may_be_forced_whether_it_fits_or_not() -> None:
    assert select_plans(PLANS, "off", 0) == (OFF,)
    assert select_plans(PLANS, "least", 80 * GB) == (LEAST,)
    with pytest.raises(PipelineUnavailableError, match="low_vram=half would save nothing here"):
        select_plans(PLANS, "half", 80 * GB)


def test_what_a_plan_says_names_what_is_given_up() -> None:
    assert [plan.description for plan in PLANS] == [
        "nothing is given up",
        (on := "references wait on the host, frames are decoded one by one"),
        f"{on}, sessions are stepped in turn",
        (stream := f"{on}, 62 % of the denoising UNet is streamed from the host"),
        f"{stream}, steps are not recorded",
    ]
    # An RTX 3070 has a little less than it is sold with.
    assert ON.describe_for_card(8_360_000_000) == f"8 GB card: {on}"
    assert OFF.summary(10 * GB) == "memory plan off: nothing is given up (10.0 GB free, some 9.0 needed)"


def test_only_a_network_that_is_streamed_is_left_to_be_brought() -> None:
    assert [plan.host_networks for plan in PLANS] == [(), (), (), ("denoising_unet",), ("denoising_unet",)]
