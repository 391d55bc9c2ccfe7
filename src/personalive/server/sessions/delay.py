"""Where the delay of a session's frames comes from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepTiming:
    """A step that took `seconds`; times are of `time.monotonic`. `figures`: what the pipeline counted so far."""

    seconds: float
    started_at: float
    ended_at: float
    figures: dict[str, float]


@dataclass(frozen=True, slots=True)
class CapturedFrame:
    """When a driving frame came, and when its chunk was taken."""

    arrived_at: float
    dequeued_at: float

    def delay_parts(self, step: StepTiming, *, trails: bool) -> dict[str, float]:
        """Return where the frame that shows it, made by `step`, was until then: seconds by part of the delay.

        Only a pipeline that `trails` its input keeps frames from one step to a later one.
        """
        chunk = self.dequeued_at - self.arrived_at
        if not trails:
            return {"chunk": chunk, "step": step.ended_at - self.dequeued_at}
        return {
            "chunk": chunk,
            "window": step.started_at - self.dequeued_at,
            "step": step.ended_at - step.started_at,
        }
