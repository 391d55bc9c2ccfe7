"""The prefixes that wrappers add to the names of a network's entries, found by the names that fit without them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator

from personalive.pipelines.diffusion.checkpoints.state_dict_search import WRAPPER_KEYS

# Parts that compiling, sharding and checkpointing insert, at the front or in the middle; no layer has such a name.
_WRAPPER_NAMES = re.compile(r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")


class KeyPrefix:
    """The `prefix` that a file puts before the names of a network's entries, which is to be removed, or "".

    `is_known` returns whether a name is one of the network's. A prefix is recognised if more names fit without it,
    and if all entries have it or it is made of the usual names of wrappers.
    """

    def __init__(self, names: Collection[str], network: str, is_known: Callable[[str], bool]) -> None:
        self.wrapper_names = any(_WRAPPER_NAMES.search(name) for name in names)
        bare = {_WRAPPER_NAMES.sub("", name) for name in names}
        found, self.prefix = -1, ""
        for prefix in sorted(_candidate_prefixes(bare, network), key=len):
            count = sum(is_known(name[len(prefix) :]) for name in bare if name.startswith(prefix))
            if count > found:
                found, self.prefix = count, prefix

    def __call__(self, name: str) -> str | None:
        """Return the entry's name without the prefix; None for an entry that lacks it."""
        bare = _WRAPPER_NAMES.sub("", name)
        return bare[len(self.prefix) :] if bare.startswith(self.prefix) else None

    @property
    def note(self) -> str | None:
        """A message on what is removed from the names; None where nothing is."""
        parts = (["_orig_mod."] if self.wrapper_names else []) + ([self.prefix] if self.prefix else [])
        return f"{' and '.join(map(repr, parts))} in its entries' names is taken off" if parts else None


def _candidate_prefixes(names: Collection[str], network: str) -> set[str]:
    usual = {*WRAPPER_KEYS, network}
    found = {""}
    for name in names:
        prefix = ""
        for part in name.split(".")[:-1]:
            if part not in usual:
                break
            prefix += f"{part}."
            found.add(prefix)
    return found | set(_common_prefixes(names))


def _common_prefixes(names: Collection[str]) -> Iterator[str]:
    """Yield what all of several names begin with: "a." and "a.b." of "a.b.c" and "a.b.d"."""
    if len(names) > 1:
        first, last = min(names), max(names)  # what these two share, all share
        for place, (one, other) in enumerate(zip(first, last, strict=False)):
            if one != other:
                return
            if one == ".":
                yield first[: place + 1]
