"""Selection of the fastest of several forms of an operation at a shape, which is measured once."""

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
    """A selector that runs operations in their fastest form.

    A form is one of this package's `kernels`, one of PyTorch's `libraries`, or `plain`, which runs everywhere. A
    kernel that fails in any way is not used for its operation any more, which is logged; a library that fails is no
    candidate at that shape. Running out of memory does not count as a failure of a form: that error is raised.

    Nothing is measured while a CUDA stream is captured, since nothing runs then: an operation whose choice is not
    known yet uses `plain`.
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
        """Return the form that was selected, or None if the operation has not run at this problem yet."""
        return self._selected.get((operation, problem))

    def has_failed(self, operation: str, kernel: str) -> bool:
        """Return whether that kernel has failed at the operation."""
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
        """Return the operation's result. `problem` is all that the time of its forms depends on.

        `consumer` is what follows the operation; it is timed too, where forms differ in what they leave to do.
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
        except Exception as error:  # compiler, driver and library each raise other exceptions
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
        """Return the name of the fastest form, which may be `PYTORCH`.

        Where the plain form takes less than `worth_ms`, it is chosen, and no other is compiled or timed.
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
                continue  # plain is one of the libraries
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
                "%s: the Triton kernel (%s) has failed and is not used any more: %s",
                operation,
                implementation,
                format_error(error),
            )

    def _forget(self, operation: str, problem: ProblemKey) -> None:
        self._selected.pop((operation, problem), None)
        self.cache.pop(format_key(operation, problem), None)


def format_key(operation: str, problem: ProblemKey) -> str:
    """Return the key under which a choice is kept: the operation and the whole problem, as text."""
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
