"""A stranger's pipeline whose sessions can be continued: an echo that remembers all it has heard.

Each answer is the mean of the one before and what it is told, and a snapshot leaves a trace in the session that
takes it: a run that takes up the wrong state, or takes it at other steps, looks different to the end.
"""

from __future__ import annotations

import pickle

import numpy as np
from numpy.typing import NDArray

from personalive.pipelines.base import (
    AnimatedChunk,
    FrameChunk,
    LoadParameters,
    LoadProgressCallback,
    PipelineInfo,
    Reference,
)
from tests.plugin.echo_pipeline import EchoParameters, EchoPipeline, EchoSession


class LastingSession(EchoSession):
    def __init__(self, pipeline: EchoPipeline, reference: Reference, parameters: EchoParameters) -> None:
        super().__init__(pipeline, reference, parameters)
        self._heard: NDArray[np.float64] = np.zeros(3)

    def step(self, chunk: FrameChunk) -> AnimatedChunk:
        images = np.empty((len(chunk), 16, 16, 3), np.uint8)
        for image, given in zip(images, chunk.images, strict=True):
            self._heard = (self._heard + given.mean((0, 1))) / 2
            image[:] = np.rint(self._heard)
        return super().step(FrameChunk(images, chunk.times))

    def snapshot(self) -> bytes:
        self._heard = self._heard + 3
        return pickle.dumps((self._inside, self._taken, self._heard))

    def restore(self, snapshot: bytes) -> None:
        self._inside, self._taken, self._heard = pickle.loads(snapshot)


class LastingPipeline(EchoPipeline):
    info: PipelineInfo = PipelineInfo(
        id="lasting",
        name="lasting",
        description="Remembers all it has heard.",
        chunk_frames=4,
        exact_chunks=True,
        delay_frames=3,
    )

    @classmethod
    def load(cls, parameters: LoadParameters, report: LoadProgressCallback | None = None) -> LastingPipeline:
        return cls(parameters)

    def open_session(
        self, reference: Reference, parameters: EchoParameters | None = None, *, seed: int | None = None
    ) -> LastingSession:
        return LastingSession(self, reference, parameters or EchoParameters())
