"""Where the delay of a session's frames comes from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepTiming:
    """A step that took `seconds`; times are of `time.monotonic`. `figures`: what the pipeline counted so far."""

    seconds: float
    begun: float
    ended: float
    figures: dict[str, float]


@dataclass(frozen=True, slots=True)
class CapturedFrame:
    """When a driving frame came, and when its chunk was taken."""

    at: float
    taken: float

    def parts(self, step: StepTiming, *, trails: bool) -> dict[str, float]:
        """Return where the frame that shows it, made by `step`, was until then: seconds by part of the delay.

        Only a pipeline that `trails` its input keeps frames from one step to a later one.
        """
        chunk = self.taken - self.at
        if not trails:
            return {"chunk": chunk, "step": step.ended - self.taken}
        return {"chunk": chunk, "window": step.begun - self.taken, "step": step.ended - step.begun}
