"""The parts of which the delay of a session's frames consists."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepTiming:
    """A step that took `seconds`. Times are of `time.monotonic`; `figures` are the pipeline's counts so far."""

    seconds: float
    started_at: float
    ended_at: float
    figures: dict[str, float]


@dataclass(frozen=True, slots=True)
class CapturedFrame:
    """The times at which a driving frame arrived, and at which its chunk was taken."""

    arrived_at: float
    dequeued_at: float

    def delay_parts(self, step: StepTiming, *, trails: bool) -> dict[str, float]:
        """Return the parts of the delay, in seconds, until `step` made the frame that shows this one.

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
