"""Which device a name stands for: cameras, microphones and speakers alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from personalive.errors import InputError


class NamedDevice(Protocol):
    """A device with a name that people know."""

    @property
    def name(self) -> str:
        """The name."""


D = TypeVar("D", bound=NamedDevice)


def match_name(
    wanted: str, devices: Sequence[D], exact: Sequence[D], kind: str, error: type[InputError]
) -> D | None:
    """Return the device that is wanted, or None; part of a name is enough where it fits one only.

    Those in `exact` fit before others. Raises `error` where several of a `kind`, such as "camera", fit.
    """
    similar = exact or [one for one in devices if wanted.lower() in one.name.lower()]
    if len(similar) > 1:
        names = ", ".join(repr(one.name) for one in similar)
        raise error(f"{wanted!r} fits more than one {kind}: {names}. Give more of the name.")
    return similar[0] if similar else None
