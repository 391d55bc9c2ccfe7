from __future__ import annotations

from typing import Any

import pytest
import torch

from personalive.errors import PipelineUnavailableError
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters
from personalive.pipelines.diffusion.pipeline import PersonaLivePipeline
from personalive.pipelines.preview.parameters import PreviewLoadParameters
from personalive.pipelines.preview.pipeline import PreviewPipeline


def unload(patcher: Any) -> None:
    """Unload a model as ComfyUI's `LoadedModel.model_unload` does: first a part, then all."""
    freed = patcher.partially_unload(patcher.offload_device, 1 << 20)
    assert freed < 1 << 20
    patcher.detach(True)


@pytest.mark.usefixtures("comfy")
def test_an_unloaded_pipeline_is_loaded_again() -> None:
    from comfyui.managed_pipeline import ManagedPipeline

    managed = ManagedPipeline(PreviewPipeline, PreviewLoadParameters(width=256, height=256))
    assert not managed.loaded
    first = managed.load()
    assert managed.load() is first
    patcher = managed._patcher
    assert patcher.loaded_size() == patcher.model_size() > 0
    # ComfyUI moves an entry of its list so.
    patcher.detach(unpatch_all=False)
    assert managed.loaded
    unload(patcher)
    assert not managed.loaded
    assert patcher.loaded_size() == 0
    assert managed.load() is not first
    assert managed.loaded


@pytest.mark.usefixtures("comfy")
def test_comfyuis_device_is_the_default() -> None:
    from comfyui.managed_pipeline import ManagedPipeline, estimate_bytes

    automatic = ManagedPipeline(PersonaLivePipeline, PersonaLiveLoadParameters())
    assert automatic.parameters == PersonaLiveLoadParameters(device="cpu")
    chosen = ManagedPipeline(PersonaLivePipeline, PersonaLiveLoadParameters(device="mps"))
    assert chosen.parameters == PersonaLiveLoadParameters(device="mps")
    cuda = torch.device("cuda")
    fastest = estimate_bytes(PersonaLiveLoadParameters(dtype="float16"), cuda)
    leanest = estimate_bytes(PersonaLiveLoadParameters(dtype="float16", low_vram="least"), cuda)
    assert 1 < leanest < fastest < 1 << 35
    assert estimate_bytes(PreviewLoadParameters(), cuda) == 1


@pytest.mark.usefixtures("comfy")
def test_a_failed_load_leaves_nothing_loaded() -> None:
    from comfyui.managed_pipeline import ManagedPipeline

    managed = ManagedPipeline(PersonaLivePipeline, PersonaLiveLoadParameters())
    with pytest.raises(PipelineUnavailableError, match="there are no weights"):
        managed.load()
    assert not managed.loaded
