from __future__ import annotations

from typing import Any

import pytest

from personalive.pipelines import registry
from personalive.pipelines.parameters import build_parameters

MODELS = [
    model
    for pipeline in registry.all_pipelines().values()
    for model in (pipeline.load_parameters, pipeline.run_parameters)
]


@pytest.mark.usefixtures("comfy")
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_the_inputs_defaults_are_the_models(model: Any) -> None:
    from comfyui.schema_inputs import build_inputs, read_inputs

    inputs = build_inputs(model)
    assert list(inputs) == list(model.model_fields)
    defaults = {name: options["default"] for name, (_, options) in inputs.items()}
    assert build_parameters(model, read_inputs(model, defaults)) == model()
    for kind, options in inputs.values():
        assert options["tooltip"]
        if isinstance(kind, list):
            assert options["default"] in kind
        elif kind in {"INT", "FLOAT"}:
            assert options["min"] <= options["default"] <= options["max"]
            assert options["step"] > 0
        else:
            assert isinstance(options["default"], {"STRING": str, "BOOLEAN": bool}[kind])


@pytest.mark.usefixtures("comfy")
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_the_ends_of_a_range_are_valid(model: Any) -> None:
    from comfyui.schema_inputs import build_inputs

    for name, (_, options) in build_inputs(model).items():
        # These must fit each other.
        if "min" in options and not name.startswith(("temporal", "num_")):
            for end in (options["min"], options["max"]):
                build_parameters(model, {name: end})
