"""A denoising UNet of which part waits on the host and arrives unit by unit, while the unit before computes.

Two places on the device take turns. Each tensor of a streamed unit lies for good at the same spot of its unit's
place, so that a step allocates nothing and can be recorded: all that happens is that bytes are copied there, by a
stream of their own, before the unit computes and once whoever had the place is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from personalive.pipelines.diffusion.device.pinned_memory import host_memory
from personalive.pipelines.diffusion.device.tensor_slots import Place, like, places_within
from personalive.pipelines.diffusion.networks.denoising_unet import DenoisingUNet

SMALLEST = 1 << 16
"""Bytes of a tensor that is worth waiting elsewhere: norms and biases stay."""
PLACES = 2
_ALIGNED = 512
_PIECE = 1 << 25
"""Page-locked memory comes in powers of two bytes: of a unit, one piece more wastes less than half of this."""


class StreamedUNet:
    """Puts a UNet's tensors on the device, and streams the units of those numbers; it computes as before.

    The network may be anywhere, and need not fit the device. Afterwards its weights must not be exchanged. To be
    run on one stream at a time.
    """

    def __init__(
        self,
        network: DenoisingUNet,
        device: torch.device,
        numbers: Sequence[int],
        smallest: int | None = None,
    ) -> None:
        self.page_locked = device.type == "cuda"
        """Whether all that streams is page-locked: only then can the copies be recorded."""
        self._turn = {number: turn for turn, number in enumerate(sorted(numbers))}
        units = network.units()
        kept = {id(tensor) for tensor in network.motion_weights()}
        layouts = [
            _Layout(
                [spot for module in units[number] for spot in places_within(module, attributes=True)],
                kept,
                smallest or SMALLEST,
            )
            for number in self._turn
        ]
        size = max((layout.nbytes for layout in layouts), default=0)
        self._places = [torch.empty(size, dtype=torch.uint8, device=device) for _ in range(PLACES)]
        self._pieces = [
            layout.move(self._places[turn % PLACES], locked=device.type == "cuda")
            for turn, layout in enumerate(layouts)
        ]
        if self.page_locked:
            self.page_locked = all(piece.is_pinned() for pieces in self._pieces for piece in pieces)
        _bring_the_rest(network, device, self._places)
        self._holds: list[int | None] = [None] * PLACES
        self._copying = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._arrived = [torch.cuda.Event() for _ in range(PLACES)] if self._copying is not None else []
        network.running, network.present = self._running, self._present

    @property
    def nbytes(self) -> int:
        """Bytes that are copied in each run of the network."""
        return sum(piece.nbytes for pieces in self._pieces for piece in pieces)

    @contextmanager
    def _running(self) -> Iterator[None]:
        # What is there from before counts for nothing: a recording must hold every copy that it needs.
        self._holds = [None] * PLACES
        try:
            for turn in range(min(PLACES, len(self._pieces))):
                self._bring(turn)
            yield
        finally:
            if self._copying is not None:
                # After a failure too: a recording cannot be ended with copies that nobody has waited for.
                torch.cuda.current_stream(self._copying.device).wait_stream(self._copying)

    @contextmanager
    def _present(self, number: int) -> Iterator[None]:
        turn = self._turn.get(number)
        if turn is None:
            yield
            return
        place = turn % PLACES
        if self._holds[place] != turn:
            self._bring(turn)
        if self._copying is not None:
            torch.cuda.current_stream(self._copying.device).wait_event(self._arrived[place])
        yield
        if turn + PLACES < len(self._pieces):
            self._bring(turn + PLACES)

    def _bring(self, turn: int) -> None:
        """Begin to copy that unit to its place, once all that was begun before on the computing stream is done."""
        place = turn % PLACES
        self._holds[place] = turn
        if self._copying is None:
            self._copy(turn, place)
            return
        self._copying.wait_stream(torch.cuda.current_stream(self._copying.device))
        with torch.cuda.stream(self._copying):
            self._copy(turn, place)
            self._arrived[place].record(self._copying)

    def _copy(self, turn: int, place: int) -> None:
        begin = 0
        for piece in self._pieces[turn]:
            self._places[place][begin : begin + len(piece)].copy_(piece, non_blocking=True)
            begin += len(piece)


def evenly(sizes: Sequence[int], share: float) -> tuple[int, ...]:
    """Which of the units to stream, so that about that share of all bytes is, spread over the run."""
    chosen: list[int] = []
    owed = 0.0
    for number, size in enumerate(sizes):
        owed += share * size
        if size and owed >= size / 2:
            chosen.append(number)
            owed -= size
    return tuple(chosen)


class _Layout:
    """Where the large tensors of a unit lie in its place. Those that share memory go on sharing it."""

    def __init__(self, spots: list[Place], kept: set[int], smallest: int) -> None:
        self._spots = [
            spot
            for spot in spots
            if spot[2].untyped_storage().nbytes() >= smallest and id(spot[2]) not in kept
        ]
        self._offsets: dict[int, int] = {}
        self._storages: list[tuple[int, torch.UntypedStorage]] = []
        end = 0
        for _, _, tensor in self._spots:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self._offsets:
                self._offsets[storage.data_ptr()] = end
                self._storages.append((end, storage))
                end += -(-storage.nbytes() // _ALIGNED) * _ALIGNED
        self.nbytes = end

    def move(self, place: Tensor, *, locked: bool) -> list[Tensor]:
        """Put all on the host, in pieces of the place's bytes, and have the modules find it in the place."""
        pieces = [
            host_memory((min(_PIECE, self.nbytes - begin),), torch.uint8, locked=locked)
            for begin in range(0, self.nbytes, _PIECE)
        ]
        for begin, storage in self._storages:
            whole = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
            _spread(whole.cpu(), begin, pieces)
        for places, name, tensor in self._spots:
            offset = self._offsets[tensor.untyped_storage().data_ptr()]
            places[name] = like(tensor, _within(place, offset, tensor))
        self._spots.clear()
        self._storages.clear()
        return pieces


def _spread(source: Tensor, begin: int, pieces: list[Tensor]) -> None:
    """Copy bytes to where they belong in a row of pieces of `_PIECE` bytes each, the last one maybe shorter."""
    done = 0
    while done < len(source):
        number, within = divmod(begin + done, _PIECE)
        count = min(len(source) - done, _PIECE - within)
        pieces[number][within : within + count].copy_(source[done : done + count])
        done += count


def _within(place: Tensor, offset: int, tensor: Tensor) -> Tensor:
    """A tensor like that one, its storage's bytes being those of the place from `offset` on."""
    begin = offset // tensor.element_size() + tensor.storage_offset()
    seen = torch.empty(0, dtype=tensor.dtype, device=place.device)
    return seen.set_(place.untyped_storage(), begin, tensor.shape, tensor.stride())


def _bring_the_rest(network: nn.Module, device: torch.device, places: Sequence[Tensor]) -> None:
    """Put on the device what does not stream; tensors that share memory go on sharing it."""
    streamed = {place.untyped_storage().data_ptr() for place in places}
    moved: dict[int, Tensor] = {}
    for where, name, tensor in places_within(network, attributes=True):
        storage = tensor.untyped_storage()
        if tensor.device == device or storage.data_ptr() in streamed:
            continue
        if storage.data_ptr() not in moved:
            whole = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
            moved[storage.data_ptr()] = whole.to(device)
        where[name] = like(tensor, _within(moved[storage.data_ptr()], 0, tensor))
