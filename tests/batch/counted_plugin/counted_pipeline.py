"""The preview, and a file in which it notes all that it does, in whichever process it runs.

`COUNTED_LOG` names the file. A line is what was done (load, fuse, step), the process, and for a step how many
frames it had. Lines of a few bytes are appended in one piece, so that processes do not mix theirs.
"""

from __future__ import annotations

import os
import time

from pydantic import Field
from typing_extensions import override

from personalive.face.face import Box
from personalive.media.types import Image
from personalive.pipelines.base import (
    AnimatedChunk,
    FrameChunk,
    LoadProgressCallback,
    PipelineInfo,
    Reference,
)
from personalive.pipelines.preview import PreviewLoadParameters, PreviewPipeline, PreviewReference
from personalive.pipelines.preview.parameters import PreviewRunParameters
from personalive.pipelines.preview.pipeline import PreviewSession
from tests.signals import KILL


class CountedParameters(PreviewRunParameters):
    pause: float = Field(0.0, ge=0.0, description="Seconds that every step takes longer.")
    die_after: float | None = Field(None, description="Kill the process at the frame of this time.")


def note(what: str, frames: int = 0) -> None:
    with open(os.environ["COUNTED_LOG"], "ab", buffering=0) as file:  # noqa: PTH123
        file.write(f"{what} {os.getpid()} {frames}\n".encode())


class CountedSession(PreviewSession):
    @override
    def step(self, chunk: FrameChunk) -> AnimatedChunk:
        assert isinstance(self.parameters, CountedParameters)
        time.sleep(self.parameters.pause)
        if self.parameters.die_after is not None and chunk.times[-1] >= self.parameters.die_after:
            os.kill(os.getpid(), KILL)
        note("step", len(chunk))
        return super().step(chunk)


class CountedPipeline(PreviewPipeline):
    info = PipelineInfo(id="counted", name="counted", description="Notes what it does.", chunk_frames=4)
    run_parameters = CountedParameters

    @classmethod
    @override
    def load(
        cls, parameters: PreviewLoadParameters, report: LoadProgressCallback | None = None
    ) -> CountedPipeline:
        note("load")
        return cls(parameters)

    @override
    def fuse(
        self, image: Image, *, allow_no_face: bool = False, face_box: Box | None = None
    ) -> PreviewReference:
        note("fuse")
        return super().fuse(image, allow_no_face=allow_no_face, face_box=face_box)

    @override
    def open_session(
        self, reference: Reference, parameters: PreviewRunParameters | None = None, *, seed: int | None = None
    ) -> CountedSession:
        assert isinstance(reference, PreviewReference)
        return CountedSession(reference, parameters or CountedParameters())
