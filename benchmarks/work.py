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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from personalive.cli.settings import parse_settings
from personalive.pipelines.parameters import build
from personalive.pipelines.personalive.decoding import FrameDecoder
from personalive.pipelines.personalive.kernels.operations import (
    FLOAT8,
    Convolution,
    Normed,
    PlainOperations,
    Summed,
)
from personalive.pipelines.personalive.models import Models
from personalive.pipelines.personalive.parameters import PersonaLiveLoadParameters
from personalive.pipelines.personalive.schedule import Schedule
from personalive.pipelines.personalive.speed.layout import lay_out
from personalive.pipelines.personalive.speed.quantization import quantize
from personalive.pipelines.personalive.speed.stages import PlainStages
from personalive.pipelines.personalive.weights.catalogue import NETWORKS, TINY_VAE
from personalive.pipelines.personalive.weights.random_set import VARIANTS, Variant, write_configs

META = torch.device("meta")
STAGES = {"see": "motion networks", "pose": "pose guider", "predict": "denoising UNet", "show": "decoder"}
_CODES = 1
"""Bytes of an 8-bit number."""


class Kind(StrEnum):
    """What bounds a piece of work."""

    PRODUCTS = "products"
    EIGHT_BITS = "products in 8 bits"
    CONVOLUTIONS = "convolutions"
    ATTENTION = "attention"
    FLOAT32 = "float32 arithmetic"
    PASSES = "passes over memory"


@dataclass(frozen=True, slots=True)
class Piece:
    """One kernel's work: FLOP, bytes read and written, and of attention the exponentials."""

    kind: Kind
    flop: float
    nbytes: float
    exponentials: float = 0.0


class Ledger:
    """The pieces of each stage, as they are noted."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self._paused = False

    def note(self, kind: Kind, tensors: Iterable[Tensor | None], flop: float = 0, exp: float = 0) -> None:
        """Note a piece that reads and writes these tensors, unless it is part of one that is noted as a whole."""
        if self._paused:
            return
        nbytes = sum(each.nbytes for each in tensors if each is not None)
        self.pieces.append(Piece(kind, float(flop), float(nbytes), float(exp)))

    @contextmanager
    def whole(self) -> Iterator[None]:
        """In the block nothing is noted: whoever opens it notes all of it as one piece."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before


class CountedOperations(PlainOperations):
    """The operations with the bytes of fused kernels; what is not told here is counted as PyTorch does it.

    `pairs`: gates are opened in the kernel of the product before them.
    """

    accumulates = True

    def __init__(self, ledger: Ledger, *, pairs: bool) -> None:
        self._pairs = pairs
        self._ledger = ledger

    def pairs(self, rows: int, linear: nn.Linear) -> bool:
        """See `Operations`."""
        del rows, linear
        return self._pairs

    def _pass(self, made: Callable[[], Any], *tensors: Tensor | None) -> Any:
        """The result of a kernel that reads `tensors` and writes its result."""
        with self._ledger.whole():
            out = made()
        written = out if isinstance(out, tuple) else (out,)
        self._ledger.note(Kind.PASSES, (*tensors, *(each for each in written if isinstance(each, Tensor))))
        return out

    def group_norm(
        self, x: Summed, norm: nn.GroupNorm, *, silu: bool = False, shift: Tensor | None = None
    ) -> Tensor:
        """The picture is read once more where nobody took down its sums."""
        picture = x.picture
        sums = picture if x.sums is None else None
        out: Tensor = self._pass(
            lambda: super(CountedOperations, self).group_norm(x, norm, silu=silu, shift=shift), picture, sums
        )
        return out

    def add(self, x: Tensor, update: Tensor | None, bias: Tensor | None = None) -> Summed:
        """The sums of the norm behind it are taken down on the way."""
        if update is None and bias is None:
            return Summed(x)
        with self._ledger.whole():
            picture = super().add(x, update, bias).picture
        self._ledger.note(Kind.PASSES, (x, update, picture))
        return Summed(picture, picture.new_empty(0))

    def convolve(self, x: Tensor, layer: Convolution) -> tuple[Tensor, Tensor | None]:
        """A 1×1 convolution is a product, and adds its bias; another leaves it to whoever comes next."""
        if isinstance(layer, nn.ConvTranspose2d):
            return F.conv_transpose2d(x, layer.weight, None, layer.stride, layer.padding), layer.bias  # type: ignore[arg-type]
        if layer.kernel_size == (1, 1) and layer.stride == (1, 1):
            pixels = F.linear(x.flatten(2).transpose(1, 2), layer.weight.flatten(1), layer.bias)
            return pixels.transpose(1, 2).unflatten(2, x.shape[2:]), None
        return F.conv2d(x, layer.weight, None, layer.stride, layer.padding), layer.bias

    def rectified_convolution(self, x: Tensor, layer: nn.Conv2d, residual: Tensor | None = None) -> Tensor:
        """The library's kernel adds bias and residual before it writes."""
        with self._ledger.whole():
            out = super().rectified_convolution(x, layer, residual)
        flop = 2 * out.numel() * math.prod(layer.weight.shape[1:])
        self._ledger.note(Kind.CONVOLUTIONS, (x, layer.weight, residual, out), flop)
        return out

    def rectified_norm(self, x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        """One kernel."""
        out: Tensor = self._pass(lambda: super(CountedOperations, self).rectified_norm(x, norm), x)
        return out

    def join(self, own: Tensor, shared: Tensor) -> Tensor:
        """One kernel; what is shared comes from memory once."""
        out: Tensor = self._pass(lambda: super(CountedOperations, self).join(own, shared), own, shared)
        return out

    def layer_norm(
        self,
        tokens: Tensor,
        norm: nn.LayerNorm,
        update: Tensor | None = None,
        shift: Tensor | None = None,
        code: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Normed:
        """The sum is written only where something was added."""
        with self._ledger.whole():
            out = super().layer_norm(tokens, norm, update, shift, code, bias)
        added = update is not None or shift is not None or bias is not None
        self._ledger.note(Kind.PASSES, (tokens, update, out.normed, out.sum if added else None))
        return out

    def accumulate(self, total: Tensor, values: Tensor, weight: Tensor) -> Tensor:
        """A product that reads what it is added to."""
        self._ledger.note(Kind.PRODUCTS, (total, values, weight, total), 2 * values.numel() * weight.shape[0])
        return total

    def plus(self, tokens: Tensor, update: Tensor) -> Tensor:
        """One pass, whatever the types."""
        out: Tensor = self._pass(lambda: super(CountedOperations, self).plus(tokens, update), tokens, update)
        return out

    def gated(self, projected: Tensor) -> Tensor:
        """One kernel."""
        out: Tensor = self._pass(lambda: super(CountedOperations, self).gated(projected), projected)
        return out

    def gated_product(self, tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """A product of which the gated half is written."""
        out = tokens.new_empty(*tokens.shape[:-1], len(weight) // 2)
        self._ledger.note(Kind.PRODUCTS, (tokens, weight, bias, out), 2 * tokens.numel() * len(weight))
        return out

    def attend_wide(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Two products and a pass between them, over scores that are kept."""
        (batch, rows, width), columns = query.shape, key.shape[1]
        scores = query.new_empty(batch, rows, columns)
        flop = 2 * scores.numel() * width
        self._ledger.note(Kind.PRODUCTS, (query, key, scores), flop)
        self._ledger.note(Kind.PASSES, (scores, scores))
        self._ledger.note(Kind.PRODUCTS, (scores, value, query), flop)
        return torch.empty_like(query)

    def attend_along_time(self, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        """One kernel, at the speed of memory."""
        del heads
        out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
        self._ledger.note(Kind.PASSES, (query, key, value, out))
        return out

    def quantized(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """One kernel."""
        made: tuple[Tensor, Tensor] = self._pass(
            lambda: super(CountedOperations, self).quantized(values), values
        )
        return made

    def gated_quantized(self, projected: Tensor) -> tuple[Tensor, Tensor]:
        """One kernel."""
        made: tuple[Tensor, Tensor] = self._pass(
            lambda: super(CountedOperations, self).gated_quantized(projected), projected
        )
        return made


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


def meta_models(variant: Variant, dtype: torch.dtype = torch.float16) -> Models:
    """The networks of such a set without numbers, on the meta device, each in the type that it is kept in."""
    networks = {}
    with tempfile.TemporaryDirectory() as name:
        write_configs(Path(name), variant)
        for network in (*NETWORKS, TINY_VAE):
            module = network.build(Path(name), variant.sizes).to(META).requires_grad_(False).eval()
            for entry, tensor in (*module.named_parameters(), *module.named_buffers()):
                if tensor.dtype.is_floating_point:
                    tensor.data = tensor.to(network.dtype_of(entry, dtype))
            networks[network.name] = module
    return Models(**networks, device=META, dtype=dtype)  # type: ignore[arg-type]


def count(
    variant: Variant, parameters: PersonaLiveLoadParameters, *, keyframes: int = 0, pairs: bool = True
) -> dict[str, list[Piece]]:
    """The pieces of each stage of one session's step, by the stage's name in `STAGES`."""
    models, ledger = meta_models(variant), Ledger()
    if parameters.dtype == "float8":
        quantize(models)
    lay_out(models, CountedOperations(ledger, pairs=pairs))
    schedule = Schedule.build(parameters.temporal_adaptive_step, parameters.temporal_window_size, META)
    with torch.no_grad():
        time = models.denoising_unet.time_features(schedule.timesteps)
        decoder = FrameDecoder(models, parameters.vae)
        stages = PlainStages(models, decoder, time, parameters.height, parameters.width)
        return {
            name: _counted(ledger, run)
            for name, run in _calls(models, stages, parameters, keyframes, schedule.window).items()
        }


def _calls(
    models: Models, stages: PlainStages, parameters: PersonaLiveLoadParameters, keyframes: int, window: int
) -> dict[str, Callable[[], object]]:
    """A call of each stage, as a session's step makes it."""
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
        "see": lambda: stages.see(made(chunk, *side, 3, kind=torch.uint8), made(chunk, kind=torch.bool)),
        "pose": lambda: stages.pose(points),
        "predict": lambda: stages.predict(
            made(1, unet.params.in_channels, window, *small),
            motion,
            made(1, channels, window, *small, kind=dtype),
            [attended],
        ),
        "show": lambda: stages.show(made(chunk, unet.params.in_channels, *small)),
    }


def _attended(
    models: Models, small: tuple[int, int], references: int, made: Callable[..., Tensor]
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


def _level(models: Models, resnet: nn.Module) -> int:
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
    """The work of each stage by kind: TFLOP, GB and kernels, as Markdown."""
    lines = ["| stage | kind | TFLOP | GB | kernels |", "|---|---|--:|--:|--:|"]
    for name, pieces in stages.items():
        sums: dict[Kind, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
        for piece in pieces:
            for place, value in enumerate((piece.flop / 1e12, piece.nbytes / 1e9, 1)):
                sums[piece.kind][place] += value
        for kind in Kind:
            if kind in sums:
                flop, gigabytes, kernels = sums[kind]
                lines.append(f"| {STAGES[name]} | {kind} | {flop:.3f} | {gigabytes:.2f} | {kernels:.0f} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--keyframes", type=int, action="append", choices=range(4))
    parser.add_argument("--set", dest="settings", action="append", metavar="NAME=VALUE")
    parser.add_argument(
        "--apart", action="store_true", help="gates in kernels of their own, as before capability 9.0"
    )
    args = parser.parse_args()
    parameters = build(PersonaLiveLoadParameters, parse_settings(args.settings))
    for keyframes in args.keyframes or [0, 3]:
        print(f"{keyframes} keyframes\n")
        print(
            table(count(VARIANTS["released"], parameters, keyframes=keyframes, pairs=not args.apart)) + "\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
