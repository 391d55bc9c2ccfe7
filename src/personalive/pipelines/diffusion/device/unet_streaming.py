"""Streaming of a denoising UNet's weights from the host, each unit while the unit before it computes.

Two buffers on the device take turns. Each tensor of a streamed unit always lies at the same offset of its unit's
buffer, so a step allocates nothing and can be recorded. A separate CUDA stream copies the bytes into the buffer,
before the unit computes and after the previous user of the buffer is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from personalive.pipelines.diffusion.device.pinned_memory import allocate_host_tensor
from personalive.pipelines.diffusion.device.tensor_slots import TensorSlot, network_slots, wrap_like
from personalive.pipelines.diffusion.networks.denoising_unet import DenoisingUNet

MIN_STREAMED_BYTES = 1 << 16
"""The smallest tensor, in bytes, that is worth streaming; norms and biases stay on the device."""
BUFFER_COUNT = 2
_ALIGNMENT = 512
_BLOCK_BYTES = 1 << 25
"""The size of a block of page-locked memory, which is allocated in powers of two bytes.

In blocks of this size, only a unit's last block wastes memory, and less than half of this.
"""


class StreamedUNet:
    """A UNet whose selected units are streamed from the host, and whose other tensors are on the device.

    Its results stay the same. The network may be on any device before, and need not fit this one. Afterwards its
    weights must not be replaced, and it must be run on one CUDA stream at a time.
    """

    def __init__(
        self,
        network: DenoisingUNet,
        device: torch.device,
        unit_indices: Sequence[int],
        min_bytes: int | None = None,
    ) -> None:
        self.pinned = device.type == "cuda"
        """Whether all streamed memory is page-locked, since only then the copies can be recorded."""
        self._order = {number: turn for turn, number in enumerate(sorted(unit_indices))}
        units = network.units()
        kept = {id(tensor) for tensor in network.motion_projection_weights()}
        layouts = [
            _UnitLayout(
                [spot for module in units[number] for spot in network_slots(module, attributes=True)],
                kept,
                min_bytes or MIN_STREAMED_BYTES,
            )
            for number in self._order
        ]
        size = max((layout.nbytes for layout in layouts), default=0)
        self._buffers = [torch.empty(size, dtype=torch.uint8, device=device) for _ in range(BUFFER_COUNT)]
        self._blocks = [
            layout.move_to_host(self._buffers[turn % BUFFER_COUNT], pinned=device.type == "cuda")
            for turn, layout in enumerate(layouts)
        ]
        if self.pinned:
            self.pinned = all(piece.is_pinned() for pieces in self._blocks for piece in pieces)
        _move_remaining(network, device, self._buffers)
        self._buffered: list[int | None] = [None] * BUFFER_COUNT
        self._copy_stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._copy_done = (
            [torch.cuda.Event() for _ in range(BUFFER_COUNT)] if self._copy_stream is not None else []
        )
        network.run_context, network.block_context = self._stream_run, self._stream_unit

    @property
    def nbytes(self) -> int:
        """The number of bytes that are copied in each run of the network."""
        return sum(piece.nbytes for pieces in self._blocks for piece in pieces)

    @contextmanager
    def _stream_run(self) -> Iterator[None]:
        # What the buffers hold from before is ignored, since a recording must contain every copy that it needs.
        self._buffered = [None] * BUFFER_COUNT
        try:
            for turn in range(min(BUFFER_COUNT, len(self._blocks))):
                self._start_copy(turn)
            yield
        finally:
            if self._copy_stream is not None:
                # After a failure too, since a recording cannot end while copies have not been waited for.
                torch.cuda.current_stream(self._copy_stream.device).wait_stream(self._copy_stream)

    @contextmanager
    def _stream_unit(self, number: int) -> Iterator[None]:
        turn = self._order.get(number)
        if turn is None:
            yield
            return
        place = turn % BUFFER_COUNT
        if self._buffered[place] != turn:
            self._start_copy(turn)
        if self._copy_stream is not None:
            torch.cuda.current_stream(self._copy_stream.device).wait_event(self._copy_done[place])
        yield
        if turn + BUFFER_COUNT < len(self._blocks):
            self._start_copy(turn + BUFFER_COUNT)

    def _start_copy(self, turn: int) -> None:
        """Start to copy that unit to its buffer, once everything launched on the computing stream is done."""
        place = turn % BUFFER_COUNT
        self._buffered[place] = turn
        if self._copy_stream is None:
            self._copy_unit(turn, place)
            return
        self._copy_stream.wait_stream(torch.cuda.current_stream(self._copy_stream.device))
        with torch.cuda.stream(self._copy_stream):
            self._copy_unit(turn, place)
            self._copy_done[place].record(self._copy_stream)

    def _copy_unit(self, turn: int, place: int) -> None:
        begin = 0
        for piece in self._blocks[turn]:
            self._buffers[place][begin : begin + len(piece)].copy_(piece, non_blocking=True)
            begin += len(piece)


def select_evenly(sizes: Sequence[int], share: float) -> tuple[int, ...]:
    """Select the units to stream, so that about that share of all bytes is streamed, evenly over the run."""
    chosen: list[int] = []
    pending_bytes = 0.0
    for number, size in enumerate(sizes):
        pending_bytes += share * size
        if size and pending_bytes >= size / 2:
            chosen.append(number)
            pending_bytes -= size
    return tuple(chosen)


class _UnitLayout:
    """The offsets of a unit's large tensors in its buffer. Tensors that share memory continue to share it."""

    def __init__(self, slots: list[TensorSlot], kept: set[int], min_bytes: int) -> None:
        self._slots = [
            spot
            for spot in slots
            if spot[2].untyped_storage().nbytes() >= min_bytes and id(spot[2]) not in kept
        ]
        self._offsets: dict[int, int] = {}
        self._storages: list[tuple[int, torch.UntypedStorage]] = []
        end = 0
        for _, _, tensor in self._slots:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self._offsets:
                self._offsets[storage.data_ptr()] = end
                self._storages.append((end, storage))
                end += -(-storage.nbytes() // _ALIGNMENT) * _ALIGNMENT
        self.nbytes = end

    def move_to_host(self, buffer: Tensor, *, pinned: bool) -> list[Tensor]:
        """Copy the tensors to the host, in blocks of the buffer's layout, and point the modules to the buffer."""
        pieces = [
            allocate_host_tensor((min(_BLOCK_BYTES, self.nbytes - begin),), torch.uint8, pinned=pinned)
            for begin in range(0, self.nbytes, _BLOCK_BYTES)
        ]
        for begin, storage in self._storages:
            whole = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
            _scatter(whole.cpu(), begin, pieces)
        for places, name, tensor in self._slots:
            offset = self._offsets[tensor.untyped_storage().data_ptr()]
            places[name] = wrap_like(tensor, _view_in_buffer(buffer, offset, tensor))
        self._slots.clear()
        self._storages.clear()
        return pieces


def _scatter(source: Tensor, begin: int, blocks: list[Tensor]) -> None:
    """Copy bytes to offset `begin` of a row of blocks of `_BLOCK_BYTES` bytes each; the last may be shorter."""
    done = 0
    while done < len(source):
        number, within = divmod(begin + done, _BLOCK_BYTES)
        count = min(len(source) - done, _BLOCK_BYTES - within)
        blocks[number][within : within + count].copy_(source[done : done + count])
        done += count


def _view_in_buffer(buffer: Tensor, offset: int, tensor: Tensor) -> Tensor:
    """Return a tensor like that one, whose storage's bytes are those of the buffer from `offset` on."""
    begin = offset // tensor.element_size() + tensor.storage_offset()
    seen = torch.empty(0, dtype=tensor.dtype, device=buffer.device)
    return seen.set_(buffer.untyped_storage(), begin, tensor.shape, tensor.stride())


def _move_remaining(network: nn.Module, device: torch.device, buffers: Sequence[Tensor]) -> None:
    """Move the tensors that are not streamed to the device; those that share memory continue to share it."""
    streamed = {place.untyped_storage().data_ptr() for place in buffers}
    moved: dict[int, Tensor] = {}
    for where, name, tensor in network_slots(network, attributes=True):
        storage = tensor.untyped_storage()
        if tensor.device == device or storage.data_ptr() in streamed:
            continue
        if storage.data_ptr() not in moved:
            whole = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
            moved[storage.data_ptr()] = whole.to(device)
        where[name] = wrap_like(tensor, _view_in_buffer(moved[storage.data_ptr()], 0, tensor))
