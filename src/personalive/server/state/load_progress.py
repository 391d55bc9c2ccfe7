"""A load on its way: how far it is, whether anybody waits for it, and why it failed in words for a user."""

from __future__ import annotations

from personalive.errors import PersonaLiveError
from personalive.out_of_memory import is_out_of_memory
from personalive.server.process.remote_errors import RemoteError
from personalive.server.state.load_plan import LoadPlan


class LoadCancelledError(Exception):
    """Ends a load that nobody waits for any more."""


class LoadProgress:
    """How far a load is. The worker's thread writes, the event loop reads."""

    def __init__(self) -> None:
        self.stage, self.progress = "waiting for the worker", 0.0
        self.is_cancelled = False

    def report(self, stage: str, progress: float) -> None:
        """Note what the pipeline says, `progress` in 0 to 1. Raises to end a load that was given up."""
        if self.is_cancelled:
            raise LoadCancelledError
        self.stage, self.progress = stage, min(max(float(progress), 0.0), 1.0)


def explain_load_error(plan: LoadPlan, error: Exception) -> str:
    """Return why the load failed, as a user is told."""
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
