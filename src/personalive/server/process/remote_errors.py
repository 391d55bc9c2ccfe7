"""Exceptions that are passed from one process to another."""

from __future__ import annotations

import builtins
import pickle

from personalive.errors import PersonaLiveError
from personalive.out_of_memory import is_out_of_memory


class RemoteError(Exception):
    """An exception of a type that only the other process knows. Its text begins with that type's name."""


class OutOfMemoryError(RuntimeError):
    """The device has no memory left. Named like PyTorch's error, so that it is recognised without PyTorch."""


def make_portable(error: Exception) -> Exception:
    """Return an exception that any process can unpickle.

    Exceptions of this package and built-in ones are unchanged; others become a `RemoteError` with name and text.
    """
    name, text = type(error).__name__, str(error)
    if not isinstance(error, PersonaLiveError | MemoryError) and is_out_of_memory(error):
        return OutOfMemoryError(text or name)
    known = isinstance(error, PersonaLiveError) or getattr(builtins, name, None) is type(error)
    if known and _is_picklable(error):
        return error
    return RemoteError(f"{name}: {text}")


def _is_picklable(error: Exception) -> bool:
    try:
        return type(pickle.loads(pickle.dumps(error))) is type(error)
    except Exception:  # any class may refuse in any way
        return False
