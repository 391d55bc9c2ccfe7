"""What the jobs that a process does have in common: the loaded pipeline and fused references."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from personalive.media import Image
from personalive.pipelines.base import LoadParameters, LoadProgressCallback, Pipeline, Reference
from personalive.pipelines.registry import AnyPipeline

_MAX_REFERENCES = 4
"""A fused reference of the diffusion pipeline holds some hundred megabytes, and jobs come sorted by reference."""


class PipelineCache:
    """Keeps the last pipeline loaded and the last references fused by it, for the next `run`.

    One pipeline is loaded at a time: another one, or other load parameters, close it first. Of jobs on several
    threads, only one may load or close, and only while no other animates; `fuse` may be called at any time.
    """

    def __init__(self) -> None:
        self.call_lock = threading.Lock()
        """To be held during each call of the pipeline and of its sessions, `Session.prepare` apart: pipelines take
        one call at a time."""
        self._pipeline: Pipeline[Any, Any] | None = None
        self._load_parameters: LoadParameters | None = None
        self._references: OrderedDict[str, Reference] = OrderedDict()

    def is_loaded(self, pipeline_class: AnyPipeline, parameters: LoadParameters) -> bool:
        """Whether `load` would load nothing."""
        return type(self._pipeline) is pipeline_class and self._load_parameters == parameters

    def load(
        self,
        pipeline_class: AnyPipeline,
        parameters: LoadParameters,
        report: LoadProgressCallback | None = None,
    ) -> Pipeline[Any, Any]:
        """The `pipeline_class` pipeline with these load parameters; it stays open. Raises what loading it raises."""
        if self._pipeline is not None and self.is_loaded(pipeline_class, parameters):
            return self._pipeline
        self.close()
        self._pipeline, self._load_parameters = pipeline_class.load(parameters, report), parameters
        return self._pipeline

    def fuse(self, pipeline: Pipeline[Any, Any], image: Image) -> Reference:
        """What `pipeline.fuse` gives for the image, uint8 RGB (H, W, 3), from before if it is that of before."""
        key = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
        with self.call_lock:
            if pipeline is not self._pipeline:
                return pipeline.fuse(image)
            return self._cached_reference(key, lambda: pipeline.fuse(image))

    def _cached_reference(self, key: str, make: Callable[[], Reference]) -> Reference:
        found = self._references.pop(key, None) or make()
        self._references[key] = found
        while len(self._references) > _MAX_REFERENCES:
            self._references.popitem(last=False)
        return found

    def close(self) -> None:
        """Close the pipeline and forget its references. May be called twice, and used again afterwards."""
        self._references.clear()
        pipeline, self._pipeline, self._load_parameters = self._pipeline, None, None
        if pipeline is not None:
            pipeline.close()

    def __enter__(self) -> PipelineCache:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
