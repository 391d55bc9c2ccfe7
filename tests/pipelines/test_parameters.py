from __future__ import annotations

import pytest

from personalive.errors import InputError
from personalive.pipelines import registry
from personalive.pipelines.parameters import build_parameters, split_parameters


@pytest.mark.usefixtures("plugins")
def test_values_are_sorted_into_run_and_load() -> None:
    run, load = split_parameters(registry.get_pipeline("echo"), {"gain": 1.5, "height": 256})
    assert (run, load) == ({"gain": 1.5}, {"height": 256})


@pytest.mark.usefixtures("plugins")
def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(InputError, match=r"echo pipeline has no parameter 'gane'\. It has: gain, .*height"):
        split_parameters(registry.get_pipeline("echo"), {"gane": 1.0})


@pytest.mark.usefixtures("plugins")
def test_all_that_is_wrong_is_said_in_one_sentence() -> None:
    model = registry.get_pipeline("echo").run_parameters
    assert build_parameters(model, {"gain": "1.5"}) == model(gain=1.5)  # type: ignore[call-arg]
    with pytest.raises(InputError, match=r"gain = 7: .*less than or equal to 2; pause = 'x': .*\.$"):
        build_parameters(model, {"gain": 7, "pause": "x"})


@pytest.mark.usefixtures("plugins")
def test_unknown_names_are_told_with_those_that_there_are() -> None:
    model = registry.get_pipeline("echo").load_parameters
    with pytest.raises(InputError, match=r"^There is no parameter 'widht'; there are: height, width, .*\.$"):
        build_parameters(model, {"widht": 256})
    with pytest.raises(InputError, match=r"width = 'x': .*; There are no parameters 'a', 'b'; there are: "):
        build_parameters(model, {"width": "x", "a": 1, "b": 2})
