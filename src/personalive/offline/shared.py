"""What jobs that a process does one after the other have in common: the loaded pipeline and fused references."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from personalive.media import Image
from personalive.pipelines.interface import LoadParameters, Pipeline, ProgressReport, Reference
from personalive.pipelines.registry import AnyPipeline

_FUSED_AT_MOST = 4
"""A fused reference of the diffusion pipeline holds some hundred megabytes, and jobs come sorted by reference."""


class Shared:
    """Keeps the last pipeline loaded and the last references fused by it, for the next `run`.

    One pipeline is loaded at a time: another one, or other load parameters, close it first. Not thread-safe.
    """

    def __init__(self) -> None:
        self._pipeline: Pipeline[Any, Any] | None = None
        self._loaded_with: LoadParameters | None = None
        self._references: OrderedDict[str, Reference] = OrderedDict()

    def pipeline(
        self, wanted: AnyPipeline, parameters: LoadParameters, report: ProgressReport | None = None
    ) -> Pipeline[Any, Any]:
        """The `wanted` pipeline with these load parameters; it stays open. Raises what loading it raises."""
        if type(self._pipeline) is wanted and self._loaded_with == parameters:
            return self._pipeline
        self.close()
        self._pipeline, self._loaded_with = wanted.load(parameters, report), parameters
        return self._pipeline

    def fuse(self, pipeline: Pipeline[Any, Any], image: Image) -> Reference:
        """What `pipeline.fuse` gives for the image, uint8 RGB (H, W, 3), from before if it is that of before."""
        if pipeline is not self._pipeline:
            return pipeline.fuse(image)
        key = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
        return self._kept(key, lambda: pipeline.fuse(image))

    def _kept(self, key: str, make: Callable[[], Reference]) -> Reference:
        found = self._references.pop(key, None) or make()
        self._references[key] = found
        while len(self._references) > _FUSED_AT_MOST:
            self._references.popitem(last=False)
        return found

    def close(self) -> None:
        """Close the pipeline and forget its references. May be called twice, and used again afterwards."""
        self._references.clear()
        pipeline, self._pipeline, self._loaded_with = self._pipeline, None, None
        if pipeline is not None:
            pipeline.close()

    def __enter__(self) -> Shared:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
