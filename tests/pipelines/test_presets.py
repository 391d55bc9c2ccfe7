from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.errors import InputError
from personalive.pipelines import registry
from personalive.pipelines.base import RunParameters
from personalive.pipelines.diffusion.parameters import PersonaLiveRunParameters
from personalive.pipelines.parameters import build_run_parameters, split_parameters
from personalive.pipelines.presets import PRESETS, find_preset, list_presets
from personalive.pipelines.preview.parameters import PreviewRunParameters

MODELS = (PreviewRunParameters, PersonaLiveRunParameters)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_every_preset_is_valid_and_changes_something(model: type[RunParameters], preset: object) -> None:
    name = getattr(preset, "name")  # noqa: B009
    built = build_run_parameters(model, {"preset": name})
    assert built != model()
    unset = build_run_parameters(model, {"preset": name, "driver_face": 2}).model_dump()
    assert unset == {**built.model_dump(), "driver_face": "2"}


@given(
    st.sampled_from(MODELS),
    st.sampled_from(PRESETS),
    st.fixed_dictionaries({}, optional={"expression": st.floats(0, 2), "smoothing": st.floats(0, 1)}),
)
def test_a_preset_forgets_what_was_set_and_yields_to_what_is_given(
    model: type[RunParameters], preset: object, given_beside: dict[str, float]
) -> None:
    name = getattr(preset, "name")  # noqa: B009
    before = build_run_parameters(model, {"expression": 0.3, "pose": 0.2, "smoothing": 0.9})
    fresh = build_run_parameters(model, {"preset": name, **given_beside})
    assert build_run_parameters(model, {"preset": name, **given_beside}, before) == fresh
    for key, value in given_beside.items():
        assert getattr(fresh, key) == value


def test_names_are_found_however_they_are_written() -> None:
    assert find_preset("Expression Only").name == find_preset("expression_only").name == "expression-only"
    with pytest.raises(InputError, match="expression-only, head-only, calm, exaggerated"):
        find_preset("wild")


def test_a_pipeline_without_these_parameters_has_no_presets() -> None:
    assert list_presets(RunParameters) == []
    with pytest.raises(InputError, match="none of the parameters"):
        build_run_parameters(RunParameters, {"preset": "calm"})


def test_a_job_gets_what_the_preset_sets() -> None:
    run, load = split_parameters(registry.get_pipeline("preview"), {"preset": "calm", "seed": 3})
    assert (run["pose"], load) == (0.5, {"seed": 3})
    assert "preset" not in run
