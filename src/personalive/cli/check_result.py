"""The result of one of the doctor's checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CheckLevel = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of a check. `ok`: True, False, or None for a note. `required`: animating needs it.

    `remedy` is what to do about it, if anything: a note may have one too.
    """

    name: str
    ok: bool | None
    detail: str
    remedy: str | None = None
    required: bool = False

    @property
    def level(self) -> CheckLevel:
        """The severity of the result."""
        return "note" if self.ok is None else "ok" if self.ok else "problem"
