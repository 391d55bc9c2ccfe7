"""Takes, of several forms of an operation, the one that is fastest at a shape: measured once, then known."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import torch

from personalive.pipelines.diffusion.kernels.attention import call_without_warnings
from personalive.pipelines.diffusion.kernels.choice_cache import KernelChoice, KernelChoiceCache
from personalive.pipelines.diffusion.kernels.kernel_errors import format_error, is_memory_failure
from personalive.pipelines.diffusion.kernels.timing import KernelTimer

_log = logging.getLogger(__name__)

PYTORCH = "pytorch"

ProblemKey = tuple[Hashable, ...]
Result = TypeVar("Result")
Implementations = Mapping[str, Callable[[], Result]]


def _is_stream_capturing() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


class KernelSelector:
    """Runs operations in their fastest form.

    A form is one of our `kernels`, one of PyTorch's `libraries`, or `plain`, which runs everywhere. A kernel that
    fails, whenever and however, is out for its operation from then on, and a line in the log says so; a library's
    that fails is no candidate at that shape. To run out of memory is no failure of theirs: that is raised.

    Nothing is measured while a stream is recorded, where nothing runs: what comes first then is PyTorch's.
    """

    def __init__(
        self,
        timer: KernelTimer,
        cache: KernelChoiceCache,
        is_capturing: Callable[[], bool] = _is_stream_capturing,
    ) -> None:
        self.cache = cache
        self._timer = timer
        self._is_capturing = is_capturing
        self._selected: dict[tuple[str, ProblemKey], str] = {}
        self._failed: set[tuple[str, str]] = set()
        self._lock = threading.RLock()

    def selected(self, operation: str, problem: ProblemKey) -> str | None:
        """Which form it takes, None: it was not asked for yet."""
        return self._selected.get((operation, problem))

    def has_failed(self, operation: str, kernel: str) -> bool:
        """Whether that kernel has failed at it."""
        return (operation, kernel) in self._failed

    def run(
        self,
        operation: str,
        problem: ProblemKey,
        kernels: Implementations[Result],
        plain: Callable[[], Result],
        libraries: Implementations[Result] | None = None,
        consumer: Callable[[Result], object] | None = None,
    ) -> Result:
        """The operation's result. `problem`: all that the time of its forms depends on.

        `consumer`: what is done with the result, and timed with it, where forms differ in what they leave to do.
        """
        form = self._selected.get((operation, problem)) or self._select(
            operation, problem, kernels, plain, libraries or {}, consumer
        )
        if form == PYTORCH:
            return plain()
        call = kernels.get(form) or (libraries or {}).get(form)
        if call is None or (operation, form) in self._failed:
            self._forget(operation, problem)
            return self.run(operation, problem, kernels, plain, libraries, consumer)
        try:
            return call()
        except Exception as error:  # a compiler, a driver and a library each have their own
            self._on_failure(operation, form, error, own_kernel=form in kernels)
            self._selected[operation, problem] = PYTORCH
            return plain()

    def select_fastest(
        self,
        operation: str,
        problem: ProblemKey,
        kernels: Implementations[Result],
        plain: Callable[[], Result],
        worth_ms: float = 0.0,
    ) -> str:
        """The name of the form that is fastest, `PYTORCH` among them.

        Where the plain one takes less than `worth_ms`, it is that, and no other is compiled or timed.
        """
        known = self._selected.get((operation, problem))
        if known is not None:
            return known
        if worth_ms and not self._is_capturing() and format_key(operation, problem) not in self.cache:
            call_without_warnings(plain)
            took = self._timer.measure({PYTORCH: plain})
            if took[PYTORCH] < worth_ms:
                self.cache[format_key(operation, problem)] = KernelChoice(PYTORCH, took)
        return self._select(operation, problem, kernels, plain, {}, None)

    def _select(
        self,
        operation: str,
        problem: ProblemKey,
        kernels: Implementations[Result],
        plain: Callable[[], Result],
        libraries: Implementations[Result],
        consumer: Callable[[Result], object] | None,
    ) -> str:
        left = {name: call for name, call in kernels.items() if (operation, name) not in self._failed}
        if not left and not libraries:
            return PYTORCH
        with self._lock:
            name = format_key(operation, problem)
            kept = self.cache.get(name)
            if kept is None or not (
                kept.implementation == PYTORCH
                or kept.implementation in left
                or kept.implementation in libraries
            ):
                if self._is_capturing():
                    return PYTORCH
                kept = self._measure(operation, name, left, plain, libraries, consumer)
            self._selected[operation, problem] = kept.implementation
            return kept.implementation

    def _measure(
        self,
        operation: str,
        name: str,
        kernels: Implementations[Result],
        plain: Callable[[], Result],
        libraries: Implementations[Result],
        consumer: Callable[[Result], object] | None,
    ) -> KernelChoice:
        forms = {**kernels, **libraries, PYTORCH: plain}
        calls = {form: _with_consumer(call, consumer) for form, call in forms.items()}
        running: dict[str, Callable[[], object]] = {}
        whole = True
        for form, call in calls.items():
            if form == PYTORCH and any(each in libraries for each in running):
                continue  # it is one of those
            try:
                call_without_warnings(call)
            except Exception as error:  # as above
                if form in kernels or not running:
                    if form == PYTORCH:
                        raise
                    self._on_failure(operation, form, error, own_kernel=form in kernels)
                whole = whole and not (form in kernels or is_memory_failure(error))
            else:
                running[form] = call
        took = self._timer.measure(running) if len(running) > 1 else dict.fromkeys(running, 0.0)
        choice = KernelChoice(min(took, key=lambda form: took[form]), took)
        if whole:
            self.cache[name] = choice
        else:
            self.cache.set_unsaved(name, choice)
        return choice

    def _on_failure(self, operation: str, implementation: str, error: Exception, *, own_kernel: bool) -> None:
        if is_memory_failure(error):
            raise error
        if not own_kernel:
            _log.debug("%s is no candidate for %s here: %s", implementation, operation, format_error(error))
        elif (operation, implementation) not in self._failed:
            self._failed.add((operation, implementation))
            _log.warning(
                "%s: our kernel (%s) is not used any more, it fails here: %s",
                operation,
                implementation,
                format_error(error),
            )

    def _forget(self, operation: str, problem: ProblemKey) -> None:
        self._selected.pop((operation, problem), None)
        self.cache.pop(format_key(operation, problem), None)


def format_key(operation: str, problem: ProblemKey) -> str:
    """The key by which a choice is kept: the operation, and everything of what it was given, in words."""
    return " ".join([operation, *(_format_value(each) for each in problem)])


def _format_value(value: Hashable) -> str:
    if isinstance(value, torch.Size | tuple):
        return "×".join(_format_value(each) for each in value) or "()"
    return str(value).removeprefix("torch.")


def _with_consumer(
    call: Callable[[], Result], consumer: Callable[[Result], object] | None
) -> Callable[[], object]:
    if consumer is None:
        return call
    return lambda: consumer(call())
