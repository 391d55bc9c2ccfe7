"""A few of a test's combinations of parameters that have every value, or in which every two values meet."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations

Combination = Mapping[str, Hashable]


def covering(combinations_of: Sequence[Combination], together: int) -> list[int]:
    """Places of combinations, each a value for every parameter, that have all that any has.

    With `together` 1 that is every value, with 2 every pair of values as well. Each time the first of those that
    add most is taken (Cohen et al., 1997: "The AETG system").
    """
    parts = [_parts(each, together) for each in combinations_of]
    left = set().union(*parts)
    taken: list[int] = []
    while left:
        best = max(range(len(parts)), key=lambda place: len(parts[place] & left))
        taken.append(best)
        left -= parts[best]
    return sorted(taken)


def _parts(values: Combination, together: int) -> set[frozenset[tuple[str, Hashable]]]:
    return {frozenset(part) for size in range(1, together + 1) for part in combinations(values.items(), size)}
