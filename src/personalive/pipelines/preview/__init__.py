"""The preview: a portrait moved by a driver's landmarks, with no weights to download, on any CPU."""

from personalive.pipelines.preview.parameters import PreviewLoadParameters, PreviewRunParameters
from personalive.pipelines.preview.pipeline import PreviewPipeline, PreviewReference, PreviewSession

__all__ = [
    "PreviewLoadParameters",
    "PreviewPipeline",
    "PreviewReference",
    "PreviewRunParameters",
    "PreviewSession",
]
