from __future__ import annotations

import pytest

from personalive.cli.memory_plan import NEEDS_FULL, NEEDS_LOW, plan_memory


@pytest.mark.parametrize(
    ("free", "fit"),
    [
        (NEEDS_FULL, "full"),
        (NEEDS_FULL - 1, "low_vram"),
        (NEEDS_LOW, "low_vram"),
        (NEEDS_LOW - 1, "too_little"),
        (0, "too_little"),
    ],
)
def test_what_is_free_decides(free: int, fit: str) -> None:
    plan = plan_memory(free)
    assert plan.fit == fit
    assert f"{free / 1e9:.1f} GB free" in plan.sentence
    assert (plan.remedy is None) == (fit == "full")
