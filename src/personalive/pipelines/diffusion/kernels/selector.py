"""Takes, of several forms of an operation, the one that is fastest at a shape: measured once, then known."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import torch

from personalive.pipelines.diffusion.kernels.attention import quietly
from personalive.pipelines.diffusion.kernels.choice_cache import Choice, Choices
from personalive.pipelines.diffusion.kernels.kernel_errors import first_line, out_of_memory
from personalive.pipelines.diffusion.kernels.timing import Stopwatch

_log = logging.getLogger(__name__)

PLAIN_FORM = "pytorch"

Given = tuple[Hashable, ...]
Result = TypeVar("Result")
Forms = Mapping[str, Callable[[], Result]]


def _recording() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


class Chooser:
    """Runs operations in their fastest form.

    A form is one of our `kernels`, one of PyTorch's `libraries`, or `plain`, which runs everywhere. A kernel that
    fails, whenever and however, is out for its operation from then on, and a line in the log says so; a library's
    that fails is no candidate at that shape. To run out of memory is no failure of theirs: that is raised.

    Nothing is measured while a stream is recorded, where nothing runs: what comes first then is PyTorch's.
    """

    def __init__(
        self, stopwatch: Stopwatch, choices: Choices, recording: Callable[[], bool] = _recording
    ) -> None:
        self.choices = choices
        self._stopwatch = stopwatch
        self._recording = recording
        self._known: dict[tuple[str, Given], str] = {}
        self._out: set[tuple[str, str]] = set()
        self._lock = threading.RLock()

    def form(self, operation: str, given: Given) -> str | None:
        """Which form it takes, None: it was not asked for yet."""
        return self._known.get((operation, given))

    def out(self, operation: str, kernel: str) -> bool:
        """Whether that kernel has failed at it."""
        return (operation, kernel) in self._out

    def run(
        self,
        operation: str,
        given: Given,
        kernels: Forms[Result],
        plain: Callable[[], Result],
        libraries: Forms[Result] | None = None,
        followed: Callable[[Result], object] | None = None,
    ) -> Result:
        """The operation's result. `given`: all that the time of its forms depends on.

        `followed`: what is done with the result, and timed with it, where forms differ in what they leave to do.
        """
        form = self._known.get((operation, given)) or self._chosen(
            operation, given, kernels, plain, libraries or {}, followed
        )
        if form == PLAIN_FORM:
            return plain()
        call = kernels.get(form) or (libraries or {}).get(form)
        if call is None or (operation, form) in self._out:
            self._forget(operation, given)
            return self.run(operation, given, kernels, plain, libraries, followed)
        try:
            return call()
        except Exception as error:  # a compiler, a driver and a library each have their own
            self._failed(operation, form, error, ours=form in kernels)
            self._known[operation, given] = PLAIN_FORM
            return plain()

    def fastest(
        self,
        operation: str,
        given: Given,
        kernels: Forms[Result],
        plain: Callable[[], Result],
        worth_ms: float = 0.0,
    ) -> str:
        """The name of the form that is fastest, `PLAIN_FORM` among them.

        Where the plain one takes less than `worth_ms`, it is that, and no other is compiled or timed.
        """
        known = self._known.get((operation, given))
        if known is not None:
            return known
        if worth_ms and not self._recording() and described(operation, given) not in self.choices:
            quietly(plain)
            took = self._stopwatch.measure({PLAIN_FORM: plain})
            if took[PLAIN_FORM] < worth_ms:
                self.choices[described(operation, given)] = Choice(PLAIN_FORM, took)
        return self._chosen(operation, given, kernels, plain, {}, None)

    def _chosen(
        self,
        operation: str,
        given: Given,
        kernels: Forms[Result],
        plain: Callable[[], Result],
        libraries: Forms[Result],
        followed: Callable[[Result], object] | None,
    ) -> str:
        left = {name: call for name, call in kernels.items() if (operation, name) not in self._out}
        if not left and not libraries:
            return PLAIN_FORM
        with self._lock:
            name = described(operation, given)
            kept = self.choices.get(name)
            if kept is None or not (kept.form == PLAIN_FORM or kept.form in left or kept.form in libraries):
                if self._recording():
                    return PLAIN_FORM
                kept = self._measured(operation, name, left, plain, libraries, followed)
            self._known[operation, given] = kept.form
            return kept.form

    def _measured(
        self,
        operation: str,
        name: str,
        kernels: Forms[Result],
        plain: Callable[[], Result],
        libraries: Forms[Result],
        followed: Callable[[Result], object] | None,
    ) -> Choice:
        forms = {**kernels, **libraries, PLAIN_FORM: plain}
        calls = {form: _both(call, followed) for form, call in forms.items()}
        running: dict[str, Callable[[], object]] = {}
        whole = True
        for form, call in calls.items():
            if form == PLAIN_FORM and any(each in libraries for each in running):
                continue  # it is one of those
            try:
                quietly(call)
            except Exception as error:  # as above
                if form in kernels or not running:
                    if form == PLAIN_FORM:
                        raise
                    self._failed(operation, form, error, ours=form in kernels)
                whole = whole and not (form in kernels or out_of_memory(error))
            else:
                running[form] = call
        took = self._stopwatch.measure(running) if len(running) > 1 else dict.fromkeys(running, 0.0)
        choice = Choice(min(took, key=lambda form: took[form]), took)
        if whole:
            self.choices[name] = choice
        else:
            self.choices.put_for_now(name, choice)
        return choice

    def _failed(self, operation: str, form: str, error: Exception, *, ours: bool) -> None:
        if out_of_memory(error):
            raise error
        if not ours:
            _log.debug("%s is no candidate for %s here: %s", form, operation, first_line(error))
        elif (operation, form) not in self._out:
            self._out.add((operation, form))
            _log.warning(
                "%s: our kernel (%s) is not used any more, it fails here: %s",
                operation,
                form,
                first_line(error),
            )

    def _forget(self, operation: str, given: Given) -> None:
        self._known.pop((operation, given), None)
        self.choices.pop(described(operation, given), None)


def described(operation: str, given: Given) -> str:
    """The key by which a choice is kept: the operation, and everything of what it was given, in words."""
    return " ".join([operation, *(_word(each) for each in given)])


def _word(value: Hashable) -> str:
    if isinstance(value, torch.Size | tuple):
        return "×".join(_word(each) for each in value) or "()"
    return str(value).removeprefix("torch.")


def _both(call: Callable[[], Result], followed: Callable[[Result], object] | None) -> Callable[[], object]:
    if followed is None:
        return call
    return lambda: followed(call())
