"""The preview pipeline: it warps a portrait by a driver's landmarks, without weights to download, on any CPU."""

from personalive.pipelines.preview.parameters import PreviewLoadParameters, PreviewRunParameters
from personalive.pipelines.preview.pipeline import PreviewPipeline, PreviewReference, PreviewSession

__all__ = [
    "PreviewLoadParameters",
    "PreviewPipeline",
    "PreviewReference",
    "PreviewRunParameters",
    "PreviewSession",
]
