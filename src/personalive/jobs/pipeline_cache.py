"""The loaded pipeline and fused references that the jobs of a process share."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from personalive.closing import Closing
from personalive.face.face import Box
from personalive.media import Image
from personalive.pipelines.base import LoadParameters, LoadProgressCallback, Pipeline, Reference
from personalive.pipelines.fusing import fuse_reference
from personalive.pipelines.registry import AnyPipeline

_MAX_REFERENCES = 4
"""A fused reference of the diffusion pipeline holds some hundred megabytes, and jobs come sorted by reference."""


class PipelineCache(Closing):
    """Keeps the last loaded pipeline and the last references that it fused, for the next `run`.

    One pipeline is loaded at a time: loading another, or with other load parameters, closes it first. Of jobs on
    several threads, only one may load or close, and only while no other animates; `fuse` may be called at any time.
    """

    def __init__(self) -> None:
        self.call_lock = threading.Lock()
        """Hold it during each call of the pipeline and its sessions, except `Session.prepare`: calls take turns."""
        self._pipeline: Pipeline[Any, Any] | None = None
        self._load_parameters: LoadParameters | None = None
        self._references: OrderedDict[str, Reference] = OrderedDict()

    def is_loaded(self, pipeline_class: AnyPipeline, parameters: LoadParameters) -> bool:
        """Return whether this pipeline is loaded already with these parameters."""
        return type(self._pipeline) is pipeline_class and self._load_parameters == parameters

    def load(
        self,
        pipeline_class: AnyPipeline,
        parameters: LoadParameters,
        report: LoadProgressCallback | None = None,
    ) -> Pipeline[Any, Any]:
        """Return a pipeline with these load parameters; it stays open. Raises what `pipeline_class.load` raises."""
        if self._pipeline is not None and self.is_loaded(pipeline_class, parameters):
            return self._pipeline
        self.close()
        self._pipeline, self._load_parameters = pipeline_class.load(parameters, report), parameters
        return self._pipeline

    def fuse(self, pipeline: Pipeline[Any, Any], image: Image, face_box: Box | None = None) -> Reference:
        """Return the fused reference of the image, uint8 RGB (H, W, 3), from the cache if it is there.

        `face_box`: where the chosen face is: see `Pipeline.fuse`.
        """
        key = hashlib.sha256(repr((image.shape, face_box)).encode() + image.tobytes()).hexdigest()

        def make() -> Reference:
            return fuse_reference(pipeline, image, face_box)

        with self.call_lock:
            if pipeline is not self._pipeline:
                return make()
            return self._cached_reference(key, make)

    def _cached_reference(self, key: str, make: Callable[[], Reference]) -> Reference:
        found = self._references.pop(key, None) or make()
        self._references[key] = found
        while len(self._references) > _MAX_REFERENCES:
            self._references.popitem(last=False)
        return found

    def close(self) -> None:
        """Close the pipeline and forget its references. May be called twice; the cache can be used afterwards."""
        self._references.clear()
        pipeline, self._pipeline, self._load_parameters = self._pipeline, None, None
        if pipeline is not None:
            pipeline.close()
