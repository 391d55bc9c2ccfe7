"""Speed without touching the algorithm: stages recorded as CUDA graphs, and compiled before where asked.

A step launches thousands of kernels, and a GPU waits for many of them. A CUDA graph is recorded once, with fixed
shapes and fixed places in memory, and replayed by one launch. So each stage has a graph per shape, which is a graph
per number of history keyframes and of sessions stepped together; the least recently used are dropped.
"""

from __future__ import annotations

import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from personalive.errors import InputError
from personalive.pipelines.personalive.driving import Perceived
from personalive.pipelines.personalive.speed.artefacts import keep_in
from personalive.pipelines.personalive.speed.stages import PlainStages, Stages, flat, perceived
from personalive.pipelines.personalive.weights.layout import home

_log = logging.getLogger(__name__)

MOST_GRAPHS = 16
"""Of one stage: four numbers of keyframes, for one to four sessions at once."""
_MOST_VARIANTS = 4 * MOST_GRAPHS

Function = Callable[..., tuple[Tensor, ...]]
Shapes = tuple[tuple[torch.Size, torch.dtype], ...]


class Recorder(Protocol):
    """Records what runs on a device, to be run again later."""

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        """Run it once unrecorded, then once recorded; return what replays it on whatever its tensors hold then."""


class CudaRecorder:
    """CUDA graphs that share one pool of memory: they run one after the other and keep nothing in it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None
        self._aside: torch.cuda.Stream | None = None

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        """See `Recorder`. Raises RuntimeError where something in it cannot be recorded."""
        with torch.cuda.device(self._device):
            # Kernels are tuned and libraries make their workspaces in a first run, which cannot be recorded.
            # One stream for all: cuBLAS keeps 32 MB for every stream it has worked on.
            self._aside = self._aside or torch.cuda.Stream()
            self._aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._aside):
                run()
            torch.cuda.current_stream().wait_stream(self._aside)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            # Another thread may talk to CUDA meanwhile.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._aside, capture_error_mode="thread_local"
            ):
                run()
        return graph.replay


class _Room:
    """Memory that recordings of several shapes share, as only one of them runs at a time."""

    def __init__(self) -> None:
        self._rows: dict[tuple[int, torch.dtype, torch.device], Tensor] = {}

    def places(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """For each tensor a place laid out like it, in what others of its position have, where that is enough."""
        return [self._place(number, tensor) for number, tensor in enumerate(tensors)]

    def _place(self, number: int, tensor: Tensor) -> Tensor:
        key = (number, tensor.dtype, tensor.device)
        row = self._rows.get(key)
        if row is None or len(row) < tensor.numel():
            row = self._rows[key] = torch.empty(tensor.numel(), dtype=tensor.dtype, device=tensor.device)
        # Dense, in the tensor's own order of dimensions.
        strides = torch.empty_like(tensor, device="meta").stride()
        return row.as_strided(tensor.shape, strides).copy_(tensor)


@dataclass(slots=True, eq=False)
class _Recording:
    """A recorded run: where its inputs are put, where its results appear, and whose rows it holds."""

    inputs: list[Tensor]
    resident: list[Tensor]
    outputs: list[Tensor]
    replay: Callable[[], None]
    holds: list[list[weakref.ref[Tensor]]] = field(default_factory=list)

    def take(self, inputs: Sequence[Tensor], resident: Sequence[Sequence[Tensor]]) -> None:
        """Put the inputs in place; what is resident is copied only where it is not there from before."""
        for place, tensor in zip(self.inputs, inputs, strict=True):
            place.copy_(tensor, non_blocking=True)
        for row, tensors in enumerate(resident):
            if _same(self.holds[row], tensors):
                continue
            for place, tensor in zip(self.resident, tensors, strict=True):
                place[row : row + 1].copy_(tensor, non_blocking=True)
            self.holds[row] = [weakref.ref(tensor) for tensor in tensors]


class Replayed:
    """A function of tensors that is recorded once for each set of shapes it is called with.

    What a call is given is its `inputs`, copied at every call, and for each session a row of `resident` tensors,
    each (1, …), which the function gets joined along the first axis. Resident tensors must not be changed in place:
    the very same one is not copied again. At most `limit` recordings are kept, those used last. Where recording
    fails, the function is run as it is from then on, and a warning is logged once.
    """

    def __init__(self, name: str, function: Function, recorder: Recorder, limit: int = MOST_GRAPHS) -> None:
        self._name = name
        self._function = function
        self._recorder = recorder
        self._limit = limit
        self._kept: OrderedDict[tuple[Shapes, Shapes, int], _Recording] = OrderedDict()
        self._inputs, self._residents = _Room(), _Room()
        self._last: _Recording | None = None
        self._broken = False

    def __len__(self) -> int:
        return len(self._kept)

    def __call__(
        self, inputs: Sequence[Tensor], resident: Sequence[Sequence[Tensor]] = ()
    ) -> tuple[Tensor, ...]:
        """The function's results, the caller's own."""
        recording = None if self._broken else self._recording(inputs, resident)
        if recording is None:
            return self._function(*inputs, *_columns(resident))
        if recording is not self._last and self._last is not None:
            # It may have written where this one's resident tensors were.
            recording.holds = [[] for _ in resident]
        self._last = recording
        recording.take(inputs, resident)
        recording.replay()
        return tuple(output.clone() for output in recording.outputs)

    def _recording(self, inputs: Sequence[Tensor], resident: Sequence[Sequence[Tensor]]) -> _Recording | None:
        key = (_shapes(inputs), _shapes(resident[0] if resident else ()), len(resident))
        if key not in self._kept:
            try:
                made = self._recorded(inputs, resident)
            except Exception as error:  # CUDA, a compiler and a library may all refuse, each in its own way
                self._broken, self._last = True, None
                self._kept.clear()
                self._inputs, self._residents = _Room(), _Room()
                _log.warning("%s is not accelerated, it could not be recorded: %s", self._name, error)
                return None
            while len(self._kept) >= self._limit:
                self._kept.popitem(last=False)
            self._kept[key] = made
        self._kept.move_to_end(key)
        return self._kept[key]

    def _recorded(self, inputs: Sequence[Tensor], resident: Sequence[Sequence[Tensor]]) -> _Recording:
        places = self._inputs.places(inputs)
        columns = self._residents.places(_columns(resident))
        outputs: list[Tensor] = []

        def run() -> None:
            results = self._function(*places, *columns)
            if not outputs:
                # In the first run, outside of the recording, whose own memory the next one writes over.
                outputs.extend(result.clone() for result in results)
                return
            for output, result in zip(outputs, results, strict=True):
                output.copy_(result)

        return _Recording(places, columns, outputs, self._recorder.record(run), [[] for _ in resident])


class ReplayedStages:
    """Stages that are recorded, each on its own; see `Stages`."""

    def __init__(self, plain: PlainStages, recorder: Recorder, limit: int = MOST_GRAPHS) -> None:
        self._see = Replayed(
            "looking at driving frames", lambda *given: flat(plain.see(*given)), recorder, limit
        )
        self._pose = Replayed("drawing poses", lambda points: (plain.pose(points),), recorder, limit)
        self._predict = Replayed("denoising", lambda *given: (plain.predict_joined(*given),), recorder, limit)
        self._show = Replayed("decoding", lambda latents: (plain.show(latents),), recorder, limit)

    def see(self, pixels: Tensor, found: Tensor) -> Perceived:
        """See `Stages`."""
        return perceived(self._see([pixels, found]))

    def pose(self, points: Tensor) -> Tensor:
        """See `Stages`."""
        return self._pose([points])[0]

    def predict(
        self, latents: Tensor, motion: Tensor, pose: Tensor, attended: Sequence[Sequence[Tensor]]
    ) -> Tensor:
        """See `Stages`."""
        return self._predict([latents, motion, pose], attended)[0]

    def show(self, latents: Tensor) -> Tensor:
        """See `Stages`."""
        return self._show([latents])[0]

    def counts(self) -> dict[str, int]:
        """How many recordings each stage keeps."""
        return {name: len(getattr(self, f"_{name}")) for name in ("see", "pose", "predict", "show")}


def chosen(mode: str, device: torch.device) -> str:
    """What auto stands for: graphs on CUDA, which need no compiler and give the same numbers, else off.

    Raises `InputError` where graphs are asked for without CUDA.
    """
    if mode == "auto":
        return "graphs" if device.type == "cuda" else "off"
    if mode == "graphs" and device.type != "cuda":
        raise InputError(f"compile=graphs needs a CUDA device, and this is {device}: take off, full or auto.")
    return mode


def accelerated(plain: PlainStages, mode: str) -> Stages:
    """The stages as `mode` wants them: off, graphs or full; see `PersonaLiveLoadParameters.compile`.

    Raises `InputError` where compiled code cannot be kept safely.
    """
    device = plain.models.device
    if mode == "full":
        keep_in(home(), device)
        compile_stages(plain)
    if mode == "off" or device.type != "cuda":
        return plain
    return ReplayedStages(plain, CudaRecorder(device))


def compile_stages(plain: PlainStages, backend: str = "inductor") -> None:
    """Have PyTorch compile the denoising UNet and the decoder; each shape is compiled when it is first run."""
    # Each number of keyframes and of sessions is a variant of the same code; the default refuses a ninth.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MOST_VARIANTS)
    plain.unet = torch.compile(plain.unet, backend=backend, dynamic=False)
    plain.decoder = torch.compile(plain.decoder, backend=backend, dynamic=False)


def _columns(resident: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Each tensor of the rows with those of all sessions one after the other."""
    if len(resident) == 1:
        return list(resident[0])
    return [torch.cat(column) for column in zip(*resident, strict=True)]


def _shapes(tensors: Sequence[Tensor]) -> Shapes:
    return tuple((tensor.shape, tensor.dtype) for tensor in tensors)


def _same(held: Sequence[weakref.ref[Tensor]], tensors: Sequence[Tensor]) -> bool:
    return len(held) == len(tensors) and all(
        ref() is tensor for ref, tensor in zip(held, tensors, strict=True)
    )
