from __future__ import annotations

import pickle
import threading

import pytest

from personalive.errors import InputError, MediaTooLargeError, PersonaLiveError
from personalive.out_of_memory import is_out_of_memory
from personalive.server.process.remote_errors import RemoteError, make_portable


class OutOfMemoryError(RuntimeError):
    """Named as PyTorch's."""


class OddError(PersonaLiveError):
    """Wants two arguments, so a pickle of it cannot be read."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


class StrangeError(Exception):
    """Of a type that only this module knows."""


@pytest.mark.parametrize(
    "error",
    [InputError("bad"), MediaTooLargeError("large"), ValueError("v"), RuntimeError(), MemoryError("m")],
)
def test_what_every_process_knows_stays_what_it_is(error: Exception) -> None:
    told = pickle.loads(pickle.dumps(make_portable(error)))
    assert (type(told), str(told)) == (type(error), str(error))


def test_another_librarys_way_to_say_it_survives_too() -> None:
    ended = RuntimeError("operation failed due to a previous error during capture")
    ended.__context__ = OutOfMemoryError("CUDA out of memory")
    for error in (ended, RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")):
        assert is_out_of_memory(pickle.loads(pickle.dumps(make_portable(error))))


def test_running_out_of_memory_is_told_apart_everywhere() -> None:
    told = pickle.loads(pickle.dumps(make_portable(OutOfMemoryError("CUDA out of memory"))))
    assert is_out_of_memory(told)
    assert str(told) == "CUDA out of memory"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (StrangeError("odd"), "StrangeError: odd"),
        (OddError("one", "two"), "OddError: onetwo"),
        (ValueError("a lock", threading.Lock()), "ValueError: ('a lock', <unlocked"),
    ],
)
def test_others_are_told_by_name_and_text(error: Exception, text: str) -> None:
    told = pickle.loads(pickle.dumps(make_portable(error)))
    assert isinstance(told, RemoteError)
    assert str(told).startswith(text)
