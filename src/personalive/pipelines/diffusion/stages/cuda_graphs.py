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

MOST_GRAPHS = 16
"""Of one function: four numbers of keyframes, for one to four sessions at once."""

Function = Callable[..., tuple[Tensor, ...]]
Shapes = tuple[tuple[torch.Size, torch.dtype], ...]
_Key = tuple[Shapes, Shapes, int]
R = TypeVar("R")


class Recorder(Protocol):
    """Records what runs on a device, to be run again later."""

    def try_out(self, run: Callable[[], R]) -> R:
        """Run it unrecorded, where it will be recorded; what it gives may be used at once."""

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        """Record what was tried out before; return what replays it on whatever its tensors hold then."""

    def give_back(self) -> None:
        """Return to the device what nobody uses: of recordings' common memory all, once none of them is left."""


class CudaRecorder:
    """CUDA graphs that share one pool of memory: they run one after the other and keep nothing in it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None
        self._graphs: weakref.WeakSet[torch.cuda.CUDAGraph] = weakref.WeakSet()
        self._aside: torch.cuda.Stream | None = None

    def try_out(self, run: Callable[[], R]) -> R:
        """See `Recorder`. Kernels are tuned and libraries make their workspaces, which cannot be recorded."""
        with torch.cuda.device(self._device):
            aside = self._stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                result = run()
            torch.cuda.current_stream().wait_stream(aside)
        return result

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        """See `Recorder`. Raises RuntimeError where something in it cannot be recorded."""
        with torch.cuda.device(self._device):
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            # A pool that nothing was recorded to, or nothing is left of, cannot be taken again.
            if not len(self._graphs):
                self._pool = torch.cuda.graph_pool_handle()
            # Another thread may talk to CUDA meanwhile.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream(), capture_error_mode="thread_local"
            ):
                run()
            self._graphs.add(graph)
        return graph.replay

    def give_back(self) -> None:
        """See `Recorder`."""
        gc.collect()
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()

    def _stream(self) -> torch.cuda.Stream:
        """One for all: cuBLAS keeps 32 MB for every stream it has worked on."""
        self._aside = self._aside or torch.cuda.Stream(self._device)
        return self._aside


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
    the very same one is not copied again. At most `limit` recordings are kept, those used last.

    Where recording fails, the function is run as it is from then on, and a warning is logged once. Where memory
    runs out instead, recordings are dropped, the least recently used first and then, by `make_room`, other
    functions', and it is tried again; if that does not help, this call is run as it is. While `preparing` that
    error is raised, so that the caller can prepare with less.
    """

    def __init__(
        self,
        name: str,
        function: Function,
        recorder: Recorder,
        limit: int = MOST_GRAPHS,
        make_room: Callable[[], bool] = lambda: False,
    ) -> None:
        """`make_room` is told that memory ran out; returns whether it dropped anything."""
        self.preparing = False
        self._name = name
        self._function = function
        self._recorder = recorder
        self._limit = limit
        self._make_room = make_room
        self._kept: OrderedDict[_Key, _Recording] = OrderedDict()
        self._results: dict[_Key, list[Tensor]] = {}
        self._inputs, self._residents = _Room(), _Room()
        self._last: _Recording | None = None
        self._broken = False
        self._full = False

    def __len__(self) -> int:
        return len(self._kept)

    def __call__(
        self, inputs: Sequence[Tensor], resident: Sequence[Sequence[Tensor]] = ()
    ) -> tuple[Tensor, ...]:
        """The function's results, the caller's own."""
        recording = None if self._broken else self._recording(inputs, resident)
        if recording is None:
            return self.as_it_is(inputs, resident)
        if recording is not self._last and self._last is not None:
            # It may have written where this one's resident tensors were.
            recording.holds = [[] for _ in resident]
        self._last = recording
        recording.take(inputs, resident)
        recording.replay()
        return tuple(output.clone() for output in recording.outputs)

    def as_it_is(
        self, inputs: Sequence[Tensor], resident: Sequence[Sequence[Tensor]] = ()
    ) -> tuple[Tensor, ...]:
        """The function's results, unrecorded."""
        return self._function(*inputs, *_columns(resident))

    def try_out(
        self, inputs: Sequence[Tensor], resident: Sequence[Sequence[Tensor]] = ()
    ) -> tuple[Tensor, ...]:
        """The function's results, unrecorded; a later recording for these shapes needs no run before."""
        results = self._recorder.try_out(lambda: self.as_it_is(inputs, resident))
        self._results[_key(inputs, resident)] = [torch.empty_like(each, device="meta") for each in results]
        return results

    def drop(self) -> bool:
        """Let go of all recordings and of what they share; returns whether there were any."""
        had = bool(self._kept)
        self._kept.clear()
        self._last = None
        self._inputs, self._residents = _Room(), _Room()
        return had

    def _recording(self, inputs: Sequence[Tensor], resident: Sequence[Sequence[Tensor]]) -> _Recording | None:
        key = _key(inputs, resident)
        while key not in self._kept:
            try:
                made = self._recorded(key, inputs, resident)
            except Exception as error:  # CUDA, a compiler and a library may all refuse, each in its own way
                full = is_out_of_memory(error)
                if full and self.preparing:
                    raise
                said = str(error)
            else:
                while len(self._kept) >= self._limit:
                    self._kept.popitem(last=False)
                self._kept[key] = made
                break
            # Here, since the error's traceback keeps alive what filled the memory.
            if not full:
                self._broken = True
                self.drop()
                _log.warning("%s is not accelerated, it could not be recorded: %s", self._name, said)
                return None
            if not self._dropped_something():
                if not self._full:
                    _log.warning("%s is not accelerated now, there is too little memory", self._name)
                self._full = True
                return None
        self._kept.move_to_end(key)
        return self._kept[key]

    def _dropped_something(self) -> bool:
        """Make room, the cheapest first; returns whether there was anything to drop."""
        if len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            if oldest is self._last:
                self._last = None
            del oldest
            dropped = True
        else:
            dropped = self.drop()
            dropped = self._make_room() or dropped
        self._recorder.give_back()
        return dropped

    def _recorded(
        self, key: _Key, inputs: Sequence[Tensor], resident: Sequence[Sequence[Tensor]]
    ) -> _Recording:
        if key not in self._results:
            self.try_out(inputs, resident)
        places = self._inputs.places(inputs)
        columns = self._residents.places(_columns(resident))
        device = inputs[0].device
        # Outside of the recording, whose own memory the next one writes over.
        outputs = [torch.empty_like(each, device=device) for each in self._results[key]]

        def run() -> None:
            for output, result in zip(outputs, self._function(*places, *columns), strict=True):
                output.copy_(result)

        return _Recording(places, columns, outputs, self._recorder.record(run), [[] for _ in resident])


def _columns(resident: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Each tensor of the rows with those of all sessions one after the other."""
    if len(resident) == 1:
        return list(resident[0])
    return [torch.cat(column) for column in zip(*resident, strict=True)]


def _key(inputs: Sequence[Tensor], resident: Sequence[Sequence[Tensor]]) -> _Key:
    return _shapes(inputs), _shapes(resident[0] if resident else ()), len(resident)


def _shapes(tensors: Sequence[Tensor]) -> Shapes:
    return tuple((tensor.shape, tensor.dtype) for tensor in tensors)


def _same(held: Sequence[weakref.ref[Tensor]], tensors: Sequence[Tensor]) -> bool:
    return len(held) == len(tensors) and all(
        ref() is tensor for ref, tensor in zip(held, tensors, strict=True)
    )
