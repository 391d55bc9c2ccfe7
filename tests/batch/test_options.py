from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.batch import options
from personalive.errors import InputError, UnknownPipelineError


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"size": "256", "crop": "false", "fps": "12.5"}, {"size": 256, "crop": False, "fps": 12.5}),
        ({"end": "none", "audio": False, "max_frames": 3.0}, {"end": None, "audio": False, "max_frames": 3}),
        ({"rotate": "90", "rotate_reference": "auto"}, {"rotate": 90, "rotate_reference": "auto"}),
        ({"rotate": "Auto"}, {"rotate": "auto"}),
        ({"face": "2", "driver_face": "left"}, {"face": "2", "parameters": {"driver_face": "left"}}),
        (
            {"face_box": "9,9,50,50", "preset": "calm"},
            {"face_box": "9,9,50,50", "parameters": {"preset": "calm"}},
        ),
        ({"expression": "1.2"}, {"parameters": {"expression": 1.2}}),
        ({"motion": "absolute", "pipeline": "preview"}, {"parameters": {"motion": "absolute"}}),
    ],
)
def test_text_and_values_are_read_as_what_they_are_for(given: Any, expected: dict[str, Any]) -> None:
    made = options.validate_options(given)
    assert {name: made[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"size": "large"}, "size cannot be 'large'"),
        ({"size": "300"}, "multiple of 64"),
        ({"fps": "nan"}, "fps cannot be 'nan'"),
        ({"start": 5, "end": 2}, "must come after the start"),
        ({"segment_frames": 3}, "8 frames or more"),
        ({"face": "middle"}, "left, right, largest"),
        ({"face": 1, "face_box": "9,9,50,50"}, "not both"),
        ({"driver_face": "middle"}, "driver_face = 'middle'"),
        ({"preset": "wild"}, "no preset 'wild'.*calm"),
        ({"rotate": "45"}, "rotation must be auto, 0, 90, 180 or 270"),
        ({"expresion": "1"}, "There is no option 'expresion'. Available: pipeline, size"),
        ({"expression": 9}, "expression = 9"),
        ({"motion": "sideways"}, "motion = 'sideways'"),
        ({"width": "300"}, "width = 300"),
        ({"seed": -1, "smoothing": "calm"}, "smoothing = 'calm'"),
        ({"resume": "true"}, "'resume' is not an option of a job"),
        ({"pipeline": "preview", "expression": 9}, "expression = 9"),
        ({"pipeline": "preview", "weights": "x"}, "no parameter 'weights'"),
    ],
)
def test_what_cannot_be_is_refused(given: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        options.validate_options(given)


def test_an_unknown_pipeline_is_refused() -> None:
    with pytest.raises(UnknownPipelineError, match="no pipeline 'echoo'"):
        options.validate_options({"pipeline": "echoo"})


@given(
    st.dictionaries(
        st.sampled_from([*options.job_fields(), "expression"]), st.none() | st.text() | st.floats()
    )
)
def test_any_values_are_taken_or_refused(given: dict[str, Any]) -> None:
    with contextlib.suppress(InputError):
        assert options.validate_options(given)["parameters"].keys() <= given.keys()


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("rotate", "left", "rotate cannot be 'left': it must be auto, 0, 90, 180 or 270 degrees clockwise."),
        ("rotate_reference", "", "it must be auto, 0, 90, 180 or 270 degrees clockwise."),
        ("size", "big", "size cannot be 'big': it must be a whole number."),
        ("start", "x", "start cannot be 'x': it must be a number."),
        ("end", "x", "end cannot be 'x': it must be a number."),
        ("fps", "nan", "fps cannot be 'nan': it must be a finite number."),
        ("crop", "maybe", "crop cannot be 'maybe': it must be true or false."),
    ],
)
def test_what_a_field_takes_is_said_in_one_sentence(field: str, value: str, sentence: str) -> None:
    with pytest.raises(InputError) as error:
        options.validate_options({field: value})
    assert str(error.value).endswith(sentence)
