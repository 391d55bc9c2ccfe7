"""The progress of a load, its cancellation, and its errors as messages for a user."""

from __future__ import annotations

from personalive.errors import PersonaLiveError
from personalive.out_of_memory import is_out_of_memory
from personalive.server.process.remote_errors import RemoteError
from personalive.server.state.load_plan import LoadPlan


class LoadCancelledError(Exception):
    """Raised to end a load that was cancelled."""


class LoadProgress:
    """The progress of a load. The worker's thread writes, and the event loop reads."""

    def __init__(self) -> None:
        self.stage, self.progress = "waiting for the worker", 0.0
        self.is_cancelled = False

    def report(self, stage: str, progress: float) -> None:
        """Record the stage and the progress, 0 to 1. Raises `LoadCancelledError` if the load was cancelled."""
        if self.is_cancelled:
            raise LoadCancelledError
        self.stage, self.progress = stage, min(max(float(progress), 0.0), 1.0)


def explain_load_error(plan: LoadPlan, error: Exception) -> str:
    """Return a message for the user that says why the load failed."""
    if isinstance(error, RemoteError):
        return f"Loading the {plan.id} pipeline failed: {error}"
    if isinstance(error, PersonaLiveError):
        return str(error)
    if isinstance(error, LoadCancelledError):
        return f"Loading the {plan.id} pipeline was given up."
    if is_out_of_memory(error):
        return (
            f"There is not enough memory for the {plan.id} pipeline: close other programs that use it, or load "
            "with a smaller height and width."
        )
    return f"Loading the {plan.id} pipeline failed: {type(error).__name__}: {error}"
