"""The pipelines as Scope's: loaded with a configuration, then called with a chunk of frames at a time."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from scope.core.pipelines.base_schema import BasePipelineConfig
from scope.core.pipelines.interface import Pipeline as ScopePipeline
from scope.core.pipelines.interface import Requirements

from personalive.errors import InputError, PersonaLiveError
from personalive.face.choice import parse_face_choice
from personalive.jobs.reference_image import crop_to_face, read_reference
from personalive.pipelines.base import AnimatedChunk, FrameChunk, FrameState, Reference, Session
from personalive.pipelines.fusing import fuse_reference
from personalive.pipelines.parameters import build_parameters
from personalive.pipelines.registry import AnyPipeline, choose_pipeline
from personalive_scope.config import REFERENCE_FIELD, SEED_FIELD, load_fields, make_config
from personalive_scope.frames import Clock, to_images, to_video

_logger = logging.getLogger(__name__)
_LARGEST_FACE = parse_face_choice("largest")
"""Of several faces in a portrait: Scope has no input in which to choose one."""


class AnimatingPipeline(ScopePipeline):
    """Animates a portrait by the input video. `make_scope_pipeline` makes a subclass for each pipeline."""

    source_name: str
    source_pipeline: AnyPipeline
    config_class: type[BasePipelineConfig]

    @classmethod
    def get_config_class(cls) -> type[BasePipelineConfig]:
        """Return the class that describes this pipeline and its parameters."""
        return cls.config_class

    def __init__(self, **values: Any) -> None:
        super().__init__()
        source = self.source_pipeline
        given = {name: values[name] for name in load_fields(source) if name in values}
        if SEED_FIELD in values:
            given["seed"] = values[SEED_FIELD]
        choose_pipeline(self.source_name, given)
        self._pipeline = source.load(build_parameters(source.load_parameters, given))
        self._session: Session[Any] | None = None
        self._clock = Clock()
        self._path: str | None = None
        self._reference: Reference | None = None
        self._told: str | None = None
        if values.get(REFERENCE_FIELD):
            self._path = str(values[REFERENCE_FIELD])
            self._reference = self._fuse(self._path)

    def prepare(self, **values: Any) -> Requirements:
        """Return how many frames a call takes."""
        del values
        return Requirements(input_size=self._pipeline.info.chunk_frames)

    def __call__(self, **values: Any) -> dict[str, Any]:
        """Animate the next frames.

        `video`: a chunk of them. Without a portrait there is no output. What is wrong with a portrait or a
        parameter is logged once, and the one before stays: Scope calls with the same values for every chunk.
        """
        if values.get("init_cache") and self._session is not None:
            self._session.reset()
            self._clock = Clock()
        self._choose_reference(values.get(REFERENCE_FIELD))
        video = values.get("video")
        if self._reference is None or not video:
            return {"video": None}
        session = self._session or self._pipeline.open_session(self._reference)
        self._session = session
        self._update(session, values)
        images = to_images(video)
        times = self._clock.read(values.get("video_timestamps") or (), len(images))
        return self._describe(session.step(FrameChunk(images, times)))

    def shutdown(self) -> None:
        """Close the session and the pipeline."""
        if self._session is not None:
            self._session.close()
            self._session = None
        self._pipeline.close()

    def __del__(self) -> None:
        # Scope unloads a pipeline by dropping it.
        if hasattr(self, "_pipeline"):
            self.shutdown()

    def _describe(self, chunk: AnimatedChunk) -> dict[str, Any]:
        kept = np.array([state is not FrameState.TRANSITION for state in chunk.states], bool)
        if not kept.any():
            return {"video": None}
        stamps = self._clock.stamps_for(chunk.times[kept])
        return {"video": to_video(chunk.images[kept]), "video_timestamps": stamps}

    def _choose_reference(self, path: Any) -> None:
        if not path:
            if self._reference is None:
                self._tell("Choose a portrait: there is no output without one.")
            return
        if str(path) == self._path:
            return
        self._path = str(path)
        try:
            fused = self._fuse(self._path)
            if self._session is not None:
                self._session.switch_reference(fused)
            self._reference = fused
        except PersonaLiveError as error:
            self._tell(str(error))

    def _fuse(self, path: str) -> Reference:
        size = (self._pipeline.parameters.width, self._pipeline.parameters.height)
        portrait = crop_to_face(read_reference(Path(path), choice=_LARGEST_FACE), size)
        for sentence in portrait.warnings:
            _logger.warning("%s", sentence)
        return fuse_reference(self._pipeline, portrait.image, portrait.face_box)

    def _update(self, session: Session[Any], values: dict[str, Any]) -> None:
        model = self.source_pipeline.run_parameters
        try:
            wanted = build_parameters(
                model, {name: values[name] for name in model.model_fields if values.get(name) is not None}
            )
        except InputError as error:
            self._tell(str(error))
            return
        if wanted != session.parameters:
            session.update(wanted)

    def _tell(self, sentence: str) -> None:
        if sentence != self._told:
            self._told = sentence
            _logger.error("%s", sentence)


def make_scope_pipeline(name: str, pipeline: AnyPipeline) -> type[AnimatingPipeline]:
    """Return Scope's class for the pipeline that is registered as `name`."""
    about = {
        "__doc__": pipeline.info.description,
        "source_name": name,
        "source_pipeline": pipeline,
        "config_class": make_config(name, pipeline),
    }
    return type(f"PersonaLive_{name}", (AnimatingPipeline,), about)
