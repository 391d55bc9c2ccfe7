"""Running the command line in this process, as the console script does."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from personalive.cli import app


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Call = Callable[..., Outcome]


@pytest.fixture
def personalive(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Call with arguments; gives the exit code and what was printed."""

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["personalive", *map(str, arguments)])
        before = signal.getsignal(signal.SIGTERM)
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_:
            app.main()
        signal.signal(signal.SIGTERM, before)
        code = exit_.value.code
        assert isinstance(code, int)
        return Outcome(code, *capfd.readouterr())

    return call
