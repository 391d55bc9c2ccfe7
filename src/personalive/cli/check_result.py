"""One finding of the doctor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CheckLevel = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """`ok`: True, False, or None for what is neither. `required`: without it no portrait can be animated.

    `remedy` is what to do about it, where there is something to do: a note may have one too.
    """

    name: str
    ok: bool | None
    detail: str
    remedy: str | None = None
    required: bool = False

    @property
    def level(self) -> CheckLevel:
        """How much it matters."""
        return "note" if self.ok is None else "ok" if self.ok else "problem"
