"""Functions of tensors that are recorded as a CUDA graph for each set of shapes, and replayed.

A CUDA graph is recorded once, with fixed shapes and fixed memory addresses, and replayed by one launch. Recordings
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
"""Graphs of one function: for each of four numbers of keyframes, and for one to four sessions at once."""

TensorFunction = Callable[..., tuple[Tensor, ...]]
Shapes = tuple[tuple[torch.Size, torch.dtype], ...]
_Key = tuple[Shapes, Shapes, int]
R = TypeVar("R")


class GraphCapturer(Protocol):
    """The interface of what records work on a device, so that it can be run again later."""

    def warm_up(self, run: Callable[[], R]) -> R:
        """Run the function unrecorded, on the stream that records it later; its results may be used at once."""

    def capture(self, run: Callable[[], None]) -> Callable[[], None]:
        """Record a function that was warmed up; return what replays it on the current values of its tensors."""

    def release_unused(self) -> None:
        """Return unused memory to the device, including the recordings' shared memory once no recording is left."""


class CudaGraphCapturer:
    """A recorder of CUDA graphs that share one memory pool, since they run in turn and keep no results in it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None
        self._graphs: weakref.WeakSet[torch.cuda.CUDAGraph] = weakref.WeakSet()
        self._capture_stream: torch.cuda.Stream | None = None

    def warm_up(self, run: Callable[[], R]) -> R:
        """See `GraphCapturer`. Tuning kernels and allocating the libraries' workspaces cannot be recorded."""
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
            # A pool without any recording, or whose recordings were all dropped, cannot be used again.
            if not len(self._graphs):
                self._pool = torch.cuda.graph_pool_handle()
            # Thread-local, since other threads may call CUDA meanwhile.
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
        """Return the one stream for all recordings, since cuBLAS keeps 32 MB for every stream it has used."""
        self._capture_stream = self._capture_stream or torch.cuda.Stream(self._device)
        return self._capture_stream


class _StaticBuffers:
    """Input buffers that recordings of several shapes share, as only one of them runs at a time."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[int, torch.dtype, torch.device], Tensor] = {}

    def copy_in(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Copy each tensor into a view with its layout of the buffer for its position, which grows if too small."""
        return [self._copy_one(number, tensor) for number, tensor in enumerate(tensors)]

    def _copy_one(self, number: int, tensor: Tensor) -> Tensor:
        key = (number, tensor.dtype, tensor.device)
        row = self._buffers.get(key)
        if row is None or len(row) < tensor.numel():
            row = self._buffers[key] = torch.empty(tensor.numel(), dtype=tensor.dtype, device=tensor.device)
        # Dense, in the tensor's order of dimensions.
        strides = torch.empty_like(tensor, device="meta").stride()
        return row.as_strided(tensor.shape, strides).copy_(tensor)


@dataclass(slots=True, eq=False)
class _CapturedGraph:
    """A recorded run: its input and output buffers, and references to the resident tensors that they hold."""

    inputs: list[Tensor]
    resident: list[Tensor]
    outputs: list[Tensor]
    replay: Callable[[], None]
    resident_refs: list[list[weakref.ref[Tensor]]] = field(default_factory=list)

    def load_inputs(self, inputs: Sequence[Tensor], resident: Sequence[Sequence[Tensor]]) -> None:
        """Copy the inputs into their buffers, and those resident tensors that the buffers do not hold already."""
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

    A call takes `inputs`, which are copied every time, and for each session a row of `resident` tensors, each
    (1, …), which are concatenated along the first axis for the function. Resident tensors must not be changed in
    place, since the same tensor object is not copied again. At most `limit` recordings are kept, those used last.

    When recording fails, the function runs unrecorded from then on, and a warning is logged once. When memory runs
    out instead, recordings are dropped, the least recently used first and then, by `free_memory`, those of other
    functions, and recording is retried; if that does not help, this call runs unrecorded. While
    `raise_out_of_memory` is set, the error is raised, so that the caller can prepare with less memory.
    """

    def __init__(
        self,
        name: str,
        function: TensorFunction,
        capturer: GraphCapturer,
        limit: int = MAX_GRAPHS,
        free_memory: Callable[[], bool] = lambda: False,
    ) -> None:
        """Start without recordings. `free_memory`, called when memory runs out, returns whether it dropped any."""
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
        """Return copies of the function's results, which the caller may keep."""
        recording = None if self._disabled else self._get_or_capture(inputs, resident)
        if recording is None:
            return self.run_eager(inputs, resident)
        if recording is not self._last_replayed and self._last_replayed is not None:
            # The last one may have overwritten this one's resident tensors.
            recording.resident_refs = [[] for _ in resident]
        self._last_replayed = recording
        recording.load_inputs(inputs, resident)
        recording.replay()
        return tuple(output.clone() for output in recording.outputs)

    def run_eager(
        self, inputs: Sequence[Tensor], resident: Sequence[Sequence[Tensor]] = ()
    ) -> tuple[Tensor, ...]:
        """Return the function's results without recording it."""
        return self._function(*inputs, *concat_sessions(resident))

    def warm_up(
        self, inputs: Sequence[Tensor], resident: Sequence[Sequence[Tensor]] = ()
    ) -> tuple[Tensor, ...]:
        """Return the function's results unrecorded; a later recording for these shapes needs no run before it."""
        results = self._capturer.warm_up(lambda: self.run_eager(inputs, resident))
        self._result_shapes[_graph_key(inputs, resident)] = [
            torch.empty_like(each, device="meta") for each in results
        ]
        return results

    def drop_graphs(self) -> bool:
        """Drop all recordings and the buffers they share; return whether there were any."""
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
            except Exception as error:  # CUDA, a compiler and a library may raise errors of any type
                full = is_out_of_memory(error)
                if full and self.raise_out_of_memory:
                    raise
                message = str(error)
            else:
                while len(self._graphs) >= self._limit:
                    self._graphs.popitem(last=False)
                self._graphs[key] = made
                break
            # Outside of the handler, since the error's traceback keeps alive what filled the memory.
            if not full:
                self._disabled = True
                self.drop_graphs()
                _log.warning("%s is not accelerated, it could not be recorded: %s", self._name, message)
                return None
            if not self._free_memory():
                if not self._memory_warning_logged:
                    _log.warning("%s is not accelerated now, there is too little memory", self._name)
                self._memory_warning_logged = True
                return None
        self._graphs.move_to_end(key)
        return self._graphs[key]

    def _free_memory(self) -> bool:
        """Drop the recordings that are cheapest to lose; return whether there was anything to drop."""
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
        columns = self._resident_buffers.copy_in(concat_sessions(resident))
        device = inputs[0].device
        # Allocated outside of the recording, since the next one overwrites the memory of this one.
        outputs = [torch.empty_like(each, device=device) for each in self._result_shapes[key]]

        def run() -> None:
            for output, result in zip(outputs, self._function(*places, *columns), strict=True):
                output.copy_(result)

        return _CapturedGraph(places, columns, outputs, self._capturer.capture(run), [[] for _ in resident])


def concat_sessions(rows: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Concatenate each tensor of the sessions' rows over all sessions; those of a single one are not copied."""
    if len(rows) == 1:
        return list(rows[0])
    return [torch.cat(column) for column in zip(*rows, strict=True)]


def _graph_key(inputs: Sequence[Tensor], resident: Sequence[Sequence[Tensor]]) -> _Key:
    return _tensor_shapes(inputs), _tensor_shapes(resident[0] if resident else ()), len(resident)


def _tensor_shapes(tensors: Sequence[Tensor]) -> Shapes:
    return tuple((tensor.shape, tensor.dtype) for tensor in tensors)


def _is_same(held: Sequence[weakref.ref[Tensor]], tensors: Sequence[Tensor]) -> bool:
    return len(held) == len(tensors) and all(
        ref() is tensor for ref, tensor in zip(held, tensors, strict=True)
    )
