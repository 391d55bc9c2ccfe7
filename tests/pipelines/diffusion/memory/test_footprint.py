"""The formulas against the networks: sizes exactly, what is alive at the peak by running on the meta device."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from copy import deepcopy
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from personalive.pipelines.diffusion.checkpoints.network_specs import NETWORKS, TINY_VAE
from personalive.pipelines.diffusion.checkpoints.random_weights import VARIANTS, build_meta_networks
from personalive.pipelines.diffusion.components import Components
from personalive.pipelines.diffusion.memory.footprint import StepBytes, count_step_bytes, count_weight_bytes
from personalive.pipelines.diffusion.networks.autoencoder import Autoencoder
from personalive.pipelines.diffusion.networks.denoising_unet import Conditioning, DenoisingUNet
from personalive.pipelines.diffusion.networks.pose_guider import PoseGuider
from personalive.pipelines.diffusion.networks.reference_unet import ReferenceUNet
from personalive.pipelines.diffusion.networks.spatial_transformer import KeyValue
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters
from personalive.pipelines.diffusion.stages.memory_format import fuse_upsampling

HALF = torch.float16
KEPT = {network.name: network for network in (*NETWORKS, TINY_VAE)}


def kept_as(network: str, entry: str) -> torch.dtype:
    return KEPT[network].resolve_dtype(entry, HALF)


@pytest.fixture(scope="module")
def networks() -> dict[str, nn.Module]:
    """The released networks without numbers, each entry in the type it is kept in."""
    found = build_meta_networks(VARIANTS["released"])
    for name, network in found.items():
        for entry, tensor in (*network.named_parameters(), *network.named_buffers()):
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(kept_as(name, entry))
        network.to("meta").requires_grad_(False).eval()
    return found


@pytest.fixture(scope="module")
def merged(networks: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """The same as they are laid out for fused operations."""
    found = networks | {name: deepcopy(networks[name]) for name in ("denoising_unet", "vae")}
    for name in ("denoising_unet", "vae"):
        fuse_upsampling(found[name])
    return found


class Peak(TorchDispatchMode):
    """The most bytes of tensors made within that were alive at a time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes: int = 0
        self._now = 0
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # A view of a weight, or of what was there before, takes nothing.
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._alive and storage._cdata not in given:
                    self._alive[storage._cdata] = storage.nbytes()
                    self._now += storage.nbytes()
                    weakref.finalize(storage, self._gone, storage._cdata)
        self.bytes = max(self.bytes, self._now)
        return made

    def _gone(self, storage: int) -> None:
        self._now -= self._alive.pop(storage)


@pytest.fixture(autouse=True)
def attention_without_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, whose attention kernels keep no scores."""
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda query, *_, **__: torch.empty_like(query))


def peak(run: Callable[[], object]) -> int:
    with Peak() as counted, torch.inference_mode():
        run()
    most: int = counted.bytes
    return most


def empty(*shape: int, dtype: torch.dtype = HALF) -> Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


SIZES = [(512, 512, 3), (768, 512, 0), (1024, 1024, 1)]


@pytest.fixture(params=SIZES, ids=lambda size: "x".join(map(str, size)))
def case(
    request: pytest.FixtureRequest, networks: dict[str, nn.Module]
) -> tuple[PersonaLiveLoadParameters, StepBytes]:
    height, width, keyframes = request.param
    parameters = PersonaLiveLoadParameters(height=height, width=width, max_keyframes=keyframes)
    return parameters, count_step_bytes(networks, parameters, HALF)


Case = tuple[PersonaLiveLoadParameters, StepBytes]


def about(counted: int, traced: int) -> None:
    """Never less than is needed, and at most a quarter more."""
    assert traced <= counted <= 1.25 * traced


def test_weights_are_counted_to_the_byte(models: Components) -> None:
    found = {name: deepcopy(network) for name, network in models.networks().items()}
    kept = {(n, e): t.dtype for n, module in found.items() for e, t in module.state_dict().items()}
    counted = count_weight_bytes(found, lambda *entry: kept[entry])
    for network in found.values():
        fuse_upsampling(network)
    there = {name: sum(t.nbytes for t in network.state_dict().values()) for name, network in found.items()}
    there["vae"] -= counted.networks["vae.encoder"]
    assert {name: there[name] for name in there} == {
        name: nbytes for name, nbytes in counted.networks.items() if name != "vae.encoder"
    }
    again = count_weight_bytes(found, lambda *entry: kept[entry])
    assert again.networks == counted.networks
    units = cast("DenoisingUNet", found["denoising_unet"]).units()
    assert sum(counted.units) == sum(
        t.nbytes for unit in units for module in unit for t in module.state_dict().values()
    )


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["auto", "pytorch"])
def test_the_denoising_unet(
    networks: dict[str, nn.Module], merged: dict[str, nn.Module], case: Case, kernels: str
) -> None:
    parameters = PersonaLiveLoadParameters.model_validate(case[0].model_dump() | {"kernels": kernels})
    step = count_step_bytes(networks, parameters, HALF)
    network = cast("DenoisingUNet", (merged if kernels == "auto" else networks)["denoising_unet"])
    height, width, frames = parameters.height // 8, parameters.width // 8, 16
    levels = [0, 0, 1, 1, 2, 2, 3, 2, 2, 2, 1, 1, 1, 0, 0, 0]
    channels = [layer.attention.norm.num_channels for layer in network.layers if layer.attention]
    areas = [(height >> level) * (width >> level) for level in levels]
    one = [KeyValue(empty(1, n, c), empty(1, n, c)) for n, c in zip(areas, channels, strict=True)]
    assert step.bank == sum(pair.key.nbytes + pair.value.nbytes for pair in one)
    sources = 1 + parameters.max_keyframes
    banks = tuple(KeyValue(*(t.repeat(1, sources, 1) for t in pair)) for pair in one)

    def run() -> Tensor:
        conditions = Conditioning(
            time=tuple(empty(frames, layer.resnet.norm2.num_channels) for layer in network.layers),
            motion=network.project_motion(empty(frames, 32, 16)),
            pose=empty(1, 320, frames, height, width),
            banks=banks,
            cross=tuple(empty(1, 1, count) for count in channels),
        )
        return cast("Tensor", network(empty(1, 4, frames, height, width), conditions))

    about(step.unet, peak(run))


def test_what_makes_pictures(networks: dict[str, nn.Module], case: Case) -> None:
    parameters, step = case
    height, width = parameters.height, parameters.width
    autoencoder = cast("Autoencoder", networks["vae"])
    latents = empty(1, 4, height // 8, width // 8, dtype=torch.float32)
    about(step.decode, peak(lambda: autoencoder.decode(latents).float()))
    pixels = empty(1, 3, height, width, dtype=torch.float32)
    about(step.encode, peak(lambda: autoencoder.encode(pixels)))
    guider = cast("PoseGuider", networks["pose_guider"])
    about(step.pose, peak(lambda: guider.forward_frames(empty(16, 3, height, width))))


def test_what_looks_at_a_reference(networks: dict[str, nn.Module], case: Case) -> None:
    parameters, step = case
    network = cast("ReferenceUNet", networks["reference_unet"])
    latents = empty(1, 4, parameters.height // 8, parameters.width // 8)
    about(step.reference, peak(lambda: network(latents, network.compute_cross_constants(empty(1, 1, 768)))))


def test_what_looks_at_driving_frames(networks: dict[str, nn.Module]) -> None:
    step = count_step_bytes(networks, PersonaLiveLoadParameters(), HALF)
    pictures, faces = empty(4, 3, 256, 256, dtype=torch.float32), empty(4, 3, 224, 224)
    assert peak(lambda: networks["motion_extractor"](pictures)) <= step.motion
    assert peak(lambda: networks["motion_encoder"](faces)) <= step.motion
