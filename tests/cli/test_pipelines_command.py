from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Call


def test_every_parameter_has_default_bounds_and_description(personalive: Call) -> None:
    done = personalive("pipelines")
    assert done.code == 0
    assert "preview: preview (landmark warp), not the diffusion model" in done.out
    assert "personalive: PersonaLive (diffusion)" in done.out
    lines = [line for line in done.out.splitlines() if line.startswith("    expression")]
    assert [line.split()[:4] for line in lines] == [["expression", "=", "1.0", "0.0…2.0"]] * 2
    (line,) = [line for line in done.out.splitlines() if "keyframe_threshold" in line]
    assert line.split()[:4] == ["keyframe_threshold", "=", "17.0", "0.0…"]
    assert "motion = relative       relative | absolute" in done.out


@pytest.mark.usefixtures("plugins")
def test_json_describes_strangers_too(personalive: Call) -> None:
    done = personalive("pipelines", "--json")
    assert "warning: Pipeline 'broken' cannot be imported from no_such_module_anywhere:Pipeline" in done.err
    cards = {card["id"]: card for card in json.loads(done.out)}
    assert set(cards) == {"echo", "missing", "paced", "personalive", "preview"}
    assert cards["echo"]["exact_chunks"] is True
    assert cards["echo"]["run_parameters"]["gain"] == {
        "default": 1.0,
        "description": "Factor on the colour.",
        "maximum": 2.0,
        "minimum": 0.0,
        "type": "number",
    }
    assert cards["personalive"]["remedy"] == "Run: personalive download"
    assert cards["preview"]["load_parameters"]["height"]["multipleOf"] == 64
    assert cards["missing"]["ready"] is False
    assert "download_models" in cards["missing"]["remedy"]
