"""The shipped pipelines with a fault on demand: as after an illegal access of a GPU, every call fails from then on.

The fault begins in the process that finds the file named by `SPOIL`, and stays there when the file is gone:
only another process works again. Where the file says "exit", the process ends instead, also right after a load.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from personalive.pipelines.base import AnimatedChunk, FrameChunk, Reference, Session
from personalive.pipelines.diffusion.pipeline import PersonaLivePipeline
from personalive.pipelines.preview import PreviewPipeline

SPOIL = "SPOIL_THE_PIPELINE"
_state = {"spoiled": False}


def check() -> None:
    """Raise, or end the process, if the fault is there."""
    file = Path(os.environ[SPOIL])
    if file.exists():
        if file.read_text() == "exit":
            os._exit(3)
        file.unlink()
        _state["spoiled"] = True
    if _state["spoiled"]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


class _Spoiled:
    """What both have in common: each call looks for the fault first."""

    @classmethod
    def load(cls, *args: Any, **kwargs: Any) -> Any:
        check()
        return super().load(*args, **kwargs)  # type: ignore[misc]

    def fuse(self, *args: Any, **kwargs: Any) -> Any:
        check()
        return super().fuse(*args, **kwargs)  # type: ignore[misc]

    def open_session(self, reference: Reference, *args: Any, **kwargs: Any) -> Session[Any]:
        check()
        session: Session[Any] = super().open_session(reference, *args, **kwargs)  # type: ignore[misc]
        return session

    def step_many(self, sessions: Any, chunks: list[FrameChunk]) -> list[AnimatedChunk]:
        check()
        made: list[AnimatedChunk] = super().step_many(sessions, chunks)  # type: ignore[misc]
        return made


class SpoiledPreview(_Spoiled, PreviewPipeline):  # type: ignore[misc]
    """The preview."""

    info = replace(PreviewPipeline.info, id="spoiled-preview")


class SpoiledPersonaLive(_Spoiled, PersonaLivePipeline):  # type: ignore[misc]
    """The diffusion pipeline."""

    info = replace(PersonaLivePipeline.info, id="spoiled-personalive")
