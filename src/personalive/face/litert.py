"""The networks of the face landmark model, each run by an interpreter of LiteRT.

An interpreter is not thread-safe and holds the memory of its run, so each detector and tracker loads another one.
While a network runs, Python's interpreter lock is free.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from personalive.face.face import Float
from personalive.face.model_bundle import read_bundle_member

FACE_DETECTOR = "face_detector.tflite"
FACE_LANDMARKS = "face_landmarks_detector.tflite"
FACE_BLENDSHAPES = "face_blendshapes.tflite"

_silence_lock = threading.Lock()


@contextlib.contextmanager
def _silence_runtime() -> Iterator[None]:
    """Discard the C++ runtime's start-up messages; its errors arrive as exceptions."""
    with _silence_lock:
        try:
            saved = os.dup(2)
        except OSError:  # no stderr to protect
            yield
            return
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 2)
            os.close(nowhere)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)


class LiteRTNetwork:
    """One network of the bundle. Not thread-safe."""

    def __init__(self, name: str) -> None:
        """Load the network from the file `name` of the bundle. A run uses one thread."""
        data = read_bundle_member(name)
        with _silence_runtime():
            from ai_edge_litert.interpreter import Interpreter

            interpreter: Any = Interpreter(model_content=data, num_threads=1)
            interpreter.allocate_tensors()
        (source,) = interpreter.get_input_details()
        self._interpreter = interpreter
        self._source = int(source["index"])
        self._results = [int(result["index"]) for result in interpreter.get_output_details()]
        self.input_shape: tuple[int, ...] = tuple(int(length) for length in source["shape"])

    def run(self, values: Float) -> list[Float]:
        """Return the outputs, float32, for an input float32 of `input_shape`. Raises `RuntimeError` once closed."""
        if self._interpreter is None:
            raise RuntimeError("This network is closed.")
        self._interpreter.set_tensor(self._source, values)
        self._interpreter.invoke()
        return [np.asarray(self._interpreter.get_tensor(index), np.float32) for index in self._results]

    def close(self) -> None:
        """Release the interpreter. May be called twice."""
        self._interpreter = None
