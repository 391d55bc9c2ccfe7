from __future__ import annotations

from itertools import product

import pytest

from tests.pipelines.diffusion.kernels.covering import covering


@pytest.mark.parametrize("counts", [[1, 1], [4, 1], [2, 3, 4], [3, 1, 2, 2]])
def test_every_two_values_meet(counts: list[int]) -> None:
    every = [dict(zip("abcd", values, strict=False)) for values in product(*map(range, counts))]
    kept = [every[place] for place in covering(every, together=2)]
    for one, other in product(every, every):
        for name, second in product(one, other):
            if name != second:
                asked = {name: one[name], second: other[second]}
                assert any(asked.items() <= values.items() for values in kept)


def test_few_are_enough() -> None:
    every = [dict(zip("abcd", values, strict=True)) for values in product(range(3), repeat=4)]
    assert 9 <= len(covering(every, together=2)) <= 15


def test_without_parameters_there_is_one_case_and_of_one_parameter_all_values_stay() -> None:
    assert covering([], together=2) == []
    assert covering([{"a": 1}, {"a": 2}], together=2) == [0, 1]


def test_every_value_alone_needs_as_many_as_the_longest_parameter_has() -> None:
    every = [dict(zip("abc", values, strict=True)) for values in product(range(2), range(5), range(3))]
    kept = [every[place] for place in covering(every, together=1)]
    assert len(kept) == 5
    assert [len({values[name] for values in kept}) for name in "abc"] == [2, 5, 3]
