"""The work of a step, counted: what each stage multiplies and moves, from the real networks without their numbers.

    python -m benchmarks.work                      # the released sizes at 512×512, without and with three keyframes
    python -m benchmarks.work --keyframes 0 --set vae=tiny --set dtype=float8

The networks are built on PyTorch's meta device, laid out as on a GPU, and run once through the pipeline's own
stages: shapes pass through them, numbers do not. Each product, convolution and attention is one piece of work,
with its FLOP (a multiplication and an addition are two) and the bytes that it must read and write. A fused
operation is a piece too, with the bytes that its kernel reads and writes. Views are no work; all else is a pass
over memory.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.counted_operations import CountedOperations, Kind, Ledger, Piece
from personalive.cli.set_options import parse_settings
from personalive.pipelines.diffusion.checkpoints.network_specs import NETWORKS, TINY_VAE
from personalive.pipelines.diffusion.checkpoints.random_weights import (
    VARIANTS,
    RandomWeightsVariant,
    write_config_files,
)
from personalive.pipelines.diffusion.components import Components
from personalive.pipelines.diffusion.kernels.fp8 import FLOAT8
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters
from personalive.pipelines.diffusion.profiling.stage_timer import STAGE_NAMES
from personalive.pipelines.diffusion.sampling.scheduler import DDIMScheduler
from personalive.pipelines.diffusion.stages.frame_decoder import FrameDecoder
from personalive.pipelines.diffusion.stages.memory_format import optimize
from personalive.pipelines.diffusion.stages.quantization import quantize
from personalive.pipelines.diffusion.stages.stages import EagerStages
from personalive.pipelines.parameters import build_parameters

META = torch.device("meta")


class _Functions(TorchFunctionMode):
    """Sees attention before PyTorch takes it apart, which on the meta device it does as no GPU would."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self._ledger = ledger

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query, key, value = args[:3]
        scores = math.prod(query.shape[:-1]) * key.shape[-2]
        # As attention kernels give it: the heads of a token side by side.
        shape = (*query.shape[:-3], query.shape[-2], query.shape[-3], value.shape[-1])
        out = torch.empty(shape, dtype=query.dtype, device=query.device).transpose(-2, -3)
        flop = 2 * scores * (query.shape[-1] + value.shape[-1])
        self._ledger.note(Kind.ATTENTION, (query, key, value, out), flop, scores)
        return out


class _Calls(TorchDispatchMode):
    """Sees every operation that reaches PyTorch's dispatcher."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._ledger = ledger

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        read = [each for each in args if isinstance(each, Tensor)]
        read += [
            each for row in args if isinstance(row, list | tuple) for each in row if isinstance(each, Tensor)
        ]
        written = [
            each for each in (out if isinstance(out, list | tuple) else (out,)) if isinstance(each, Tensor)
        ]
        if not _is_view(func) and any(each.is_meta for each in written):
            self._ledger.note(*_kind_and_tensors(func, args, read, written))
        return out


def _is_view(func: Any) -> bool:
    """Whether the result lies in an argument's memory, or nothing is written."""
    name = func._schema.name
    returns = func._schema.returns
    aliases = any(each.alias_info is not None and not each.alias_info.is_write for each in returns)
    return (
        aliases
        or name.startswith(("aten::empty", "aten::new_empty"))
        or name in {"aten::_unsafe_view", "aten::detach", "aten::expand"}
    )


def _kind_and_tensors(
    func: Any, args: Sequence[Any], read: list[Tensor], written: list[Tensor]
) -> tuple[Kind, list[Tensor], float]:
    name = func._schema.name.removeprefix("aten::")
    out, tensors = written[0], [*read, *written]
    flop, kind = 0.0, Kind.PASSES
    if name in {"mm", "bmm", "addmm", "addmm_", "baddbmm", "_scaled_mm"}:
        inner = read[1 if name.startswith(("add", "badd")) else 0].shape[-1]
        flop = 2 * out.numel() * inner
        kind = Kind.EIGHT_BITS if read[0].dtype == FLOAT8 else Kind.PRODUCTS
    elif name == "linear":
        flop, kind = 2 * out.numel() * args[1].shape[-1], Kind.PRODUCTS
    elif name == "convolution":
        weight, transposed = args[1], args[6]
        pixels = args[0] if transposed else out
        flop, kind = 2 * pixels.numel() * math.prod(weight.shape[1:]), Kind.CONVOLUTIONS
    if flop and out.dtype == torch.float32:
        kind = Kind.FLOAT32
    return kind, tensors, flop


def meta_models(variant: RandomWeightsVariant, dtype: torch.dtype = torch.float16) -> Components:
    """Return the networks of such a set on the meta device, each in the type that it is kept in."""
    networks = {}
    with tempfile.TemporaryDirectory() as name:
        write_config_files(Path(name), variant)
        for network in (*NETWORKS, TINY_VAE):
            module = network.build(Path(name), variant.sizes).to(META).requires_grad_(False).eval()
            for entry, tensor in (*module.named_parameters(), *module.named_buffers()):
                if tensor.dtype.is_floating_point:
                    tensor.data = tensor.to(network.resolve_dtype(entry, dtype))
            networks[network.name] = module
    return Components(**networks, device=META, dtype=dtype)  # type: ignore[arg-type]


def count(
    variant: RandomWeightsVariant,
    parameters: PersonaLiveLoadParameters,
    *,
    keyframes: int = 0,
    pairs: bool = True,
) -> dict[str, list[Piece]]:
    """Return the pieces of each stage of one session's step, by the stage's name in `STAGE_NAMES`."""
    models, ledger = meta_models(variant), Ledger()
    operations = CountedOperations(ledger, pairs=pairs)
    optimize(models, operations)
    if parameters.dtype == "float8":
        quantize(models, operations, parameters.float8_layers)
    schedule = DDIMScheduler.build(parameters.temporal_adaptive_step, parameters.temporal_window_size, META)
    with torch.no_grad():
        time = models.denoising_unet.compute_time_features(schedule.timesteps)
        decoder = FrameDecoder(models, parameters.vae)
        stages = EagerStages(models, decoder, time, parameters.height, parameters.width)
        return {
            name: _counted(ledger, run)
            for name, run in _calls(models, stages, parameters, keyframes, schedule.window_frames).items()
        }


def _calls(
    models: Components,
    stages: EagerStages,
    parameters: PersonaLiveLoadParameters,
    keyframes: int,
    window: int,
) -> dict[str, Callable[[], object]]:
    """Return a call of each stage, as a session's step makes it."""
    chunk, side = parameters.temporal_window_size, (parameters.height, parameters.width)
    small = (side[0] // 8, side[1] // 8)
    unet, dtype = models.denoising_unet, models.dtype

    def made(*shape: int, kind: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=kind, device=META)

    tokens = models.motion_encoder.params
    motion = made(window, tokens.tokens, tokens.token_width, kind=dtype)
    channels = unet.params.block_out_channels[0]
    attended = _attended(models, small, 1 + keyframes, made)
    points = made(chunk, models.motion_extractor.params.keypoints, 3)
    return {
        "encode_motion": lambda: stages.encode_motion(
            made(chunk, *side, 3, kind=torch.uint8), made(chunk, kind=torch.bool)
        ),
        "encode_pose": lambda: stages.encode_pose(points),
        "denoise": lambda: stages.denoise(
            made(1, unet.params.in_channels, window, *small),
            motion,
            made(1, channels, window, *small, kind=dtype),
            [attended],
        ),
        "decode": lambda: stages.decode(made(chunk, unet.params.in_channels, *small)),
    }


def _attended(
    models: Components, small: tuple[int, int], references: int, made: Callable[..., Tensor]
) -> list[Tensor]:
    """Keys and values of a reference's and its keyframes' banks, and the cross-attention's constants."""
    banks: list[Tensor] = []
    constants: list[Tensor] = []
    for layer in models.denoising_unet.layers:
        if layer.attention is None:
            continue
        width = layer.attention.block.attn1.to_k.weight.shape[0]
        level = _level(models, layer.resnet)
        pixels = (small[0] >> level) * (small[1] >> level)
        banks += [made(1, references * pixels, width, kind=models.dtype) for _ in range(2)]
        constants.append(made(1, 1, width, kind=models.dtype))
    return [*banks, *constants]


def _level(models: Components, resnet: nn.Module) -> int:
    """How often the latents have been halved where that residual block runs."""
    unet = models.denoising_unet
    lowest = unet.params.levels - 1
    for level, block in enumerate(unet.down_blocks):
        if resnet in list(block.resnets):  # type: ignore[arg-type]
            return level
    for number, block in enumerate(unet.up_blocks):
        if resnet in list(block.resnets):  # type: ignore[arg-type]
            return lowest - number
    return lowest


def _counted(ledger: Ledger, run: Callable[[], object]) -> list[Piece]:
    ledger.pieces = []
    with _Functions(ledger), _Calls(ledger):
        run()
    return ledger.pieces


def table(stages: dict[str, list[Piece]]) -> str:
    """Return the work of each stage by kind: TFLOP, GB and kernels, as Markdown."""
    lines = ["| stage | kind | TFLOP | GB | kernels |", "|---|---|--:|--:|--:|"]
    for name, pieces in stages.items():
        sums: dict[Kind, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
        for piece in pieces:
            for place, value in enumerate((piece.flop / 1e12, piece.nbytes / 1e9, 1)):
                sums[piece.kind][place] += value
        for kind in Kind:
            if kind in sums:
                flop, gigabytes, kernels = sums[kind]
                lines.append(
                    f"| {STAGE_NAMES[name]} | {kind} | {flop:.3f} | {gigabytes:.2f} | {kernels:.0f} |"
                )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--keyframes", type=int, action="append", choices=range(4))
    parser.add_argument("--set", dest="settings", action="append", metavar="NAME=VALUE")
    parser.add_argument(
        "--apart", action="store_true", help="gates in kernels of their own, as before capability 9.0"
    )
    args = parser.parse_args()
    parameters = build_parameters(PersonaLiveLoadParameters, parse_settings(args.settings))
    for keyframes in args.keyframes or [0, 3]:
        print(f"{keyframes} keyframes\n")
        print(
            table(count(VARIANTS["released"], parameters, keyframes=keyframes, pairs=not args.apart)) + "\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
