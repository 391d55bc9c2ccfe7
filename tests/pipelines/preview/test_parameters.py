from __future__ import annotations

import pytest
from pydantic import ValidationError

from personalive.pipelines.preview import PreviewLoadParameters, PreviewRunParameters


@pytest.mark.parametrize(
    "wrong",
    [
        {"motion": "sideways"},
        {"expression": 2.01},
        {"expression": -0.1},
        {"pose": 1.51},
        {"pose": -0.1},
        {"translation": 1.1},
        {"translation": -0.1},
        {"smoothing": 1.1},
        {"smoothing": -0.1},
        {"smoothing": float("nan")},
        {"expression": float("inf")},
        {"strength": 1.0},
    ],
)
def test_run_parameters_are_bounded(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PreviewRunParameters.model_validate(wrong)


@pytest.mark.parametrize("wrong", [{"height": 500}, {"width": 2048}, {"weights": "x"}])
def test_load_parameters_are_bounded(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PreviewLoadParameters.model_validate(wrong)


def test_every_bound_itself_is_allowed_and_every_field_explains_itself() -> None:
    for values in (
        {"expression": 0.0, "pose": 0.0, "translation": 0.0, "smoothing": 0.0},
        {"expression": 2.0, "pose": 1.5, "translation": 1.0, "smoothing": 1.0, "motion": "absolute"},
    ):
        assert PreviewRunParameters.model_validate(values).model_dump().items() >= values.items()
    for model in (PreviewRunParameters, PreviewLoadParameters):
        assert all(field.description for field in model.model_fields.values())


def test_parameters_never_change_in_place() -> None:
    parameters = PreviewRunParameters()
    assert parameters.motion == "relative"
    with pytest.raises(ValidationError):
        parameters.pose = 0.0  # type: ignore[misc]
