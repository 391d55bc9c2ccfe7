"""A function of tensors recorded as a CUDA graph for each set of shapes, and replayed.

A CUDA graph is recorded once, with fixed shapes and fixed places in memory, and replayed by one launch. Recordings
share memory, as only one of them runs at a time; the least recently used are dropped.
"""

from __future__ import annotations

import gc
import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from personalive.out_of_memory import is_out_of_memory

_log = logging.getLogger(__name__)

MAX_GRAPHS = 16
"""Of one function: four numbers of keyframes, for one to four sessions at once."""

TensorFunction = Callable[..., tuple[Tensor, ...]]
Shapes = tuple[tuple[torch.Size, torch.dtype], ...]
_Key = tuple[Shapes, Shapes, int]
R = TypeVar("R")


class GraphCapturer(Protocol):
    """Records what runs on a device, to be run again later."""

    def warm_up(self, run: Callable[[], R]) -> R:
        """Run it unrecorded, where it will be recorded; what it gives may be used at once."""

    def capture(self, run: Callable[[], None]) -> Callable[[], None]:
        """Record what was tried out before; return what replays it on whatever its tensors hold then."""

    def release_unused(self) -> None:
        """Return to the device what nobody uses: of recordings' common memory all, once none of them is left."""


class CudaGraphCapturer:
    """CUDA graphs that share one pool of memory: they run one after the other and keep nothing in it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None
        self._graphs: weakref.WeakSet[torch.cuda.CUDAGraph] = weakref.WeakSet()
        self._capture_stream: torch.cuda.Stream | None = None

    def warm_up(self, run: Callable[[], R]) -> R:
        """See `GraphCapturer`. Kernels are tuned and libraries make their workspaces, which cannot be recorded."""
        with torch.cuda.device(self._device):
            aside = self._get_capture_stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                result = run()
            torch.cuda.current_stream().wait_stream(aside)
        return result

    def capture(self, run: Callable[[], None]) -> Callable[[], None]:
        """See `GraphCapturer`. Raises RuntimeError where something in it cannot be recorded."""
        with torch.cuda.device(self._device):
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            # A pool that nothing was recorded to, or nothing is left of, cannot be taken again.
            if not len(self._graphs):
                self._pool = torch.cuda.graph_pool_handle()
            # Another thread may talk to CUDA meanwhile.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._get_capture_stream(), capture_error_mode="thread_local"
            ):
                run()
            self._graphs.add(graph)
        return graph.replay

    def release_unused(self) -> None:
        """See `GraphCapturer`."""
        gc.collect()
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()

    def _get_capture_stream(self) -> torch.cuda.Stream:
        """One for all: cuBLAS keeps 32 MB for every stream it has worked on."""
        self._capture_stream = self._capture_stream or torch.cuda.Stream(self._device)
        return self._capture_stream


class _StaticBuffers:
    """Memory that recordings of several shapes share, as only one of them runs at a time."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[int, torch.dtype, torch.device], Tensor] = {}

    def copy_in(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """For each tensor a place laid out like it, in what others of its position have, where that is enough."""
        return [self._copy_one(number, tensor) for number, tensor in enumerate(tensors)]

    def _copy_one(self, number: int, tensor: Tensor) -> Tensor:
        key = (number, tensor.dtype, tensor.device)
        row = self._buffers.get(key)
        if row is None or len(row) < tensor.numel():
            row = self._buffers[key] = torch.empty(tensor.numel(), dtype=tensor.dtype, device=tensor.device)
        # Dense, in the tensor's own order of dimensions.
        strides = torch.empty_like(tensor, device="meta").stride()
        return row.as_strided(tensor.shape, strides).copy_(tensor)


@dataclass(slots=True, eq=False)
class _CapturedGraph:
    """A recorded run: where its inputs are put, where its results appear, and whose rows it holds."""

    inputs: list[Tensor]
    resident: list[Tensor]
    outputs: list[Tensor]
    replay: Callable[[], None]
    resident_refs: list[list[weakref.ref[Tensor]]] = field(default_factory=list)

    def load_inputs(self, inputs: Sequence[Tensor], resident: Sequence[Sequence[Tensor]]) -> None:
        """Put the inputs in place; what is resident is copied only where it is not there from before."""
        for place, tensor in zip(self.inputs, inputs, strict=True):
            place.copy_(tensor, non_blocking=True)
        for row, tensors in enumerate(resident):
            if _is_same(self.resident_refs[row], tensors):
                continue
            for place, tensor in zip(self.resident, tensors, strict=True):
                place[row : row + 1].copy_(tensor, non_blocking=True)
            self.resident_refs[row] = [weakref.ref(tensor) for tensor in tensors]


class GraphedCallable:
    """A function of tensors that is recorded once for each set of shapes it is called with.

    What a call is given is its `inputs`, copied at every call, and for each session a row of `resident` tensors,
    each (1, …), which the function gets joined along the first axis. Resident tensors must not be changed in place:
    the very same one is not copied again. At most `limit` recordings are kept, those used last.

    Where recording fails, the function is run as it is from then on, and a warning is logged once. Where memory
    runs out instead, recordings are dropped, the least recently used first and then, by `free_memory`, other
    functions', and it is tried again; if that does not help, this call is run as it is. While `raise_out_of_memory` that
    error is raised, so that the caller can prepare with less.
    """

    def __init__(
        self,
        name: str,
        function: TensorFunction,
        capturer: GraphCapturer,
        limit: int = MAX_GRAPHS,
        free_memory: Callable[[], bool] = lambda: False,
    ) -> None:
        """`free_memory` is told that memory ran out; returns whether it dropped anything."""
        self.raise_out_of_memory = False
        self._name = name
        self._function = function
        self._capturer = capturer
        self._limit = limit
        self._free_others = free_memory
        self._graphs: OrderedDict[_Key, _CapturedGraph] = OrderedDict()
        self._result_shapes: dict[_Key, list[Tensor]] = {}
        self._input_buffers, self._resident_buffers = _StaticBuffers(), _StaticBuffers()
        self._last_replayed: _CapturedGraph | None = None
        self._disabled = False
        self._memory_warning_logged = False

    def __len__(self) -> int:
        return len(self._graphs)

    def __call__(
        self, inputs: Sequence[Tensor], resident: Sequence[Sequence[Tensor]] = ()
    ) -> tuple[Tensor, ...]:
        """The function's results, the caller's own."""
        recording = None if self._disabled else self._get_or_capture(inputs, resident)
        if recording is None:
            return self.run_eager(inputs, resident)
        if recording is not self._last_replayed and self._last_replayed is not None:
            # It may have written where this one's resident tensors were.
            recording.resident_refs = [[] for _ in resident]
        self._last_replayed = recording
        recording.load_inputs(inputs, resident)
        recording.replay()
        return tuple(output.clone() for output in recording.outputs)

    def run_eager(
        self, inputs: Sequence[Tensor], resident: Sequence[Sequence[Tensor]] = ()
    ) -> tuple[Tensor, ...]:
        """The function's results, unrecorded."""
        return self._function(*inputs, *_concat_residents(resident))

    def warm_up(
        self, inputs: Sequence[Tensor], resident: Sequence[Sequence[Tensor]] = ()
    ) -> tuple[Tensor, ...]:
        """The function's results, unrecorded; a later recording for these shapes needs no run before."""
        results = self._capturer.warm_up(lambda: self.run_eager(inputs, resident))
        self._result_shapes[_graph_key(inputs, resident)] = [
            torch.empty_like(each, device="meta") for each in results
        ]
        return results

    def drop_graphs(self) -> bool:
        """Let go of all recordings and of what they share; returns whether there were any."""
        had = bool(self._graphs)
        self._graphs.clear()
        self._last_replayed = None
        self._input_buffers, self._resident_buffers = _StaticBuffers(), _StaticBuffers()
        return had

    def _get_or_capture(
        self, inputs: Sequence[Tensor], resident: Sequence[Sequence[Tensor]]
    ) -> _CapturedGraph | None:
        key = _graph_key(inputs, resident)
        while key not in self._graphs:
            try:
                made = self._capture(key, inputs, resident)
            except Exception as error:  # CUDA, a compiler and a library may all refuse, each in its own way
                full = is_out_of_memory(error)
                if full and self.raise_out_of_memory:
                    raise
                said = str(error)
            else:
                while len(self._graphs) >= self._limit:
                    self._graphs.popitem(last=False)
                self._graphs[key] = made
                break
            # Here, since the error's traceback keeps alive what filled the memory.
            if not full:
                self._disabled = True
                self.drop_graphs()
                _log.warning("%s is not accelerated, it could not be recorded: %s", self._name, said)
                return None
            if not self._free_memory():
                if not self._memory_warning_logged:
                    _log.warning("%s is not accelerated now, there is too little memory", self._name)
                self._memory_warning_logged = True
                return None
        self._graphs.move_to_end(key)
        return self._graphs[key]

    def _free_memory(self) -> bool:
        """Make room, the cheapest first; returns whether there was anything to drop."""
        if len(self._graphs) > 1:
            _, oldest = self._graphs.popitem(last=False)
            if oldest is self._last_replayed:
                self._last_replayed = None
            del oldest
            dropped = True
        else:
            dropped = self.drop_graphs()
            dropped = self._free_others() or dropped
        self._capturer.release_unused()
        return dropped

    def _capture(
        self, key: _Key, inputs: Sequence[Tensor], resident: Sequence[Sequence[Tensor]]
    ) -> _CapturedGraph:
        if key not in self._result_shapes:
            self.warm_up(inputs, resident)
        places = self._input_buffers.copy_in(inputs)
        columns = self._resident_buffers.copy_in(_concat_residents(resident))
        device = inputs[0].device
        # Outside of the recording, whose own memory the next one writes over.
        outputs = [torch.empty_like(each, device=device) for each in self._result_shapes[key]]

        def run() -> None:
            for output, result in zip(outputs, self._function(*places, *columns), strict=True):
                output.copy_(result)

        return _CapturedGraph(places, columns, outputs, self._capturer.capture(run), [[] for _ in resident])


def _concat_residents(resident: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Each tensor of the rows with those of all sessions one after the other."""
    if len(resident) == 1:
        return list(resident[0])
    return [torch.cat(column) for column in zip(*resident, strict=True)]


def _graph_key(inputs: Sequence[Tensor], resident: Sequence[Sequence[Tensor]]) -> _Key:
    return _tensor_shapes(inputs), _tensor_shapes(resident[0] if resident else ()), len(resident)


def _tensor_shapes(tensors: Sequence[Tensor]) -> Shapes:
    return tuple((tensor.shape, tensor.dtype) for tensor in tensors)


def _is_same(held: Sequence[weakref.ref[Tensor]], tensors: Sequence[Tensor]) -> bool:
    return len(held) == len(tensors) and all(
        ref() is tensor for ref, tensor in zip(held, tensors, strict=True)
    )
