"""A pipeline whose memory ComfyUI manages: unloaded when ComfyUI needs its memory, loaded again when it is used.

ComfyUI's `model_management` keeps a list of the models on a device. Before it loads one it unloads others, and the
page's "Unload Models" unloads all. It knows a model by its `ModelPatcher`, of which only what concerns memory
applies to a pipeline.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import torch
from comfy import model_management
from comfy.model_patcher import ModelPatcher

from personalive.pipelines.base import LoadParameters, LoadProgressCallback, Pipeline
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters
from personalive.pipelines.registry import AnyPipeline

from .progress import LoadProgress

_UNKNOWN_BYTES = 1
"""The size of a pipeline that is small or not counted; ComfyUI would count the parameters of a size of 0."""
_DEVICE_TYPES = ("cpu", "cuda", "mps")

_logger = logging.getLogger(__name__)


@contextlib.contextmanager
def plain_tensors() -> Iterator[None]:
    """Leave inference mode, in which ComfyUI runs nodes.

    A loaded pipeline outlives the node and is used by threads, which are not in that mode and could not write to
    its tensors.
    """
    with torch.inference_mode(False), torch.no_grad():
        yield


class ManagedPipeline:
    """What a loader node returns: a pipeline and how to load it again."""

    def __init__(self, pipeline_class: AnyPipeline, parameters: LoadParameters) -> None:
        device = model_management.get_torch_device()
        requested = getattr(parameters, "device", None)
        if requested == "auto" and device.type in _DEVICE_TYPES:
            parameters = parameters.model_copy(update={"device": str(device)})
        elif requested not in {None, "auto"}:
            device = torch.device(str(requested))
        self.pipeline_class = pipeline_class
        self.parameters = parameters
        self._module = _PipelineModule(pipeline_class, parameters)
        self._patcher = _PipelinePatcher(self._module, device, estimate_bytes(parameters, device))

    def load(self) -> Pipeline[Any, Any]:
        """Return the loaded pipeline; load it first if ComfyUI has unloaded it.

        ComfyUI unloads other models before, where memory is short. Raises the errors of `Pipeline.load`.
        """
        with plain_tensors():
            model_management.load_models_gpu([self._patcher])
            return self._module.load()

    @property
    def loaded(self) -> bool:
        """Whether the pipeline is loaded now."""
        return self._module.pipeline is not None


class _PipelineModule(torch.nn.Module):
    """The module that ComfyUI loads and unloads: it has the pipeline while that is loaded, and no tensors."""

    def __init__(self, pipeline_class: AnyPipeline, parameters: LoadParameters) -> None:
        super().__init__()
        self._pipeline_class = pipeline_class
        self._load_parameters = parameters
        self.pipeline: Pipeline[Any, Any] | None = None

    def load(self, report: LoadProgressCallback | None = None) -> Pipeline[Any, Any]:
        if self.pipeline is None:
            with plain_tensors():
                self.pipeline = self._pipeline_class.load(self._load_parameters, report or LoadProgress())
            for sentence in (*self.pipeline.notes, *self.pipeline.warnings):
                _logger.info("%s", sentence)
        return self.pipeline

    def unload(self) -> None:
        if self.pipeline is not None:
            self.pipeline.close()
            self.pipeline = None

    def __del__(self) -> None:
        self.unload()


class _PipelinePatcher(ModelPatcher):
    """The pipeline as `model_management` sees it: a model that is loaded as a whole or not at all."""

    model: _PipelineModule

    def __init__(self, module: _PipelineModule, device: torch.device, size: int) -> None:
        super().__init__(module, load_device=device, offload_device=torch.device("cpu"), size=size)

    def loaded_size(self) -> int:
        return self.model_size() if self.model.pipeline is not None else 0

    def current_loaded_device(self) -> torch.device:
        loaded: torch.device = self.load_device if self.model.pipeline is not None else self.offload_device
        return loaded

    def partially_load(self, device_to: torch.device, extra_memory: float = 0, **options: Any) -> int:
        del device_to, extra_memory, options
        before = self.loaded_size()
        self.model.load()
        return self.loaded_size() - before

    def partially_unload(self, device_to: torch.device, memory_to_free: float = 0, **options: Any) -> int:
        """Free nothing; ComfyUI then detaches the whole model."""
        del device_to, memory_to_free, options
        return 0

    def detach(self, unpatch_all: bool = True) -> torch.nn.Module:
        """Unload the pipeline, unless ComfyUI only moves its entry in the list (`unpatch_all=False`)."""
        if unpatch_all:
            self.model.unload()
        return self.model


def estimate_bytes(parameters: LoadParameters, device: torch.device) -> int:
    """Return the device's bytes that the pipeline will take; 1 where it takes next to none."""
    if device.type == "cpu" or not isinstance(parameters, PersonaLiveLoadParameters):
        return _UNKNOWN_BYTES
    from personalive.pipelines.diffusion.checkpoints.random_weights import VARIANTS, build_meta_networks
    from personalive.pipelines.diffusion.device.devices import resolve_dtype
    from personalive.pipelines.diffusion.memory.planner import make_plans_for_set

    dtype = resolve_dtype(parameters.dtype, device)
    plans = make_plans_for_set(build_meta_networks(VARIANTS["released"]), parameters, dtype, device)
    chosen = next((plan for plan in plans if plan.name == parameters.low_vram), plans[0])
    return chosen.need
