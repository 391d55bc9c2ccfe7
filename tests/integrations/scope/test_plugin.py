from __future__ import annotations

from typing import Any

import pytest

import personalive
from personalive.errors import InputError, PipelineUnavailableError
from personalive.pipelines import registry


def properties(pipeline: Any) -> dict[str, Any]:
    found: dict[str, Any] = pipeline.get_config_class().model_json_schema()["properties"]
    return found


def test_every_pipeline_is_registered(pipelines: dict[str, Any]) -> None:
    assert set(pipelines) == {"personalive", "personalive-preview"}
    for name, pipeline in pipelines.items():
        config = pipeline.get_config_class()
        source = registry.get_pipeline(name.removeprefix("personalive-"))
        assert config.pipeline_description == source.info.description
        assert config.pipeline_version == personalive.__version__
        assert [mode for mode, defaults in config.modes.items() if defaults.default] == ["video"]
        assert not config.supports_prompts


def test_the_page_offers_the_pipelines_parameters(pipelines: dict[str, Any]) -> None:
    for name, pipeline in pipelines.items():
        source = registry.get_pipeline(name.removeprefix("personalive-"))
        shown = properties(pipeline)
        for model, is_load_param in ((source.run_parameters, False), (source.load_parameters, True)):
            for field, ours in model.model_json_schema()["properties"].items():
                if field in {"seed", "batch_sessions"}:
                    assert field not in shown
                    continue
                ui = shown[field].pop("ui")
                assert ui["is_load_param"] == is_load_param
                # The rest is the field as it is: its type, bounds, default and description.
                assert shown[field] == ours
        assert shown["reference_image"]["ui"]["component"] == "image"
        assert shown["reference_image"]["default"] is None


def test_the_defaults_are_valid(pipelines: dict[str, Any]) -> None:
    for pipeline in pipelines.values():
        config = pipeline.get_config_class()
        assert config.model_validate(config().model_dump()) == config()


def test_loading_fails_with_a_sentence(pipelines: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="width = 500: Input should be a multiple of 64"):
        pipelines["personalive-preview"](width=500)
    with pytest.raises(PipelineUnavailableError, match="Run: personalive download"):
        pipelines["personalive"]()
