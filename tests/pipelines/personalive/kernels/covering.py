"""A few of a test's combinations of parameters in which still every two values meet."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations

Combination = Mapping[str, Hashable]


def covering(combinations_of: Sequence[Combination]) -> list[int]:
    """Places of combinations, each a value for every parameter, that have all pairs of values that any has.

    Each time the first of those that add most (Cohen et al., 1997: "The AETG system").
    """
    pairs = [_pairs(each) for each in combinations_of]
    left = set().union(*pairs)
    taken: list[int] = []
    while left:
        best = max(range(len(pairs)), key=lambda place: len(pairs[place] & left))
        taken.append(best)
        left -= pairs[best]
    return sorted(taken)


def _pairs(values: Combination) -> set[frozenset[tuple[str, Hashable]]]:
    single = {frozenset([each]) for each in values.items()}
    return single | {frozenset(two) for two in combinations(values.items(), 2)}
