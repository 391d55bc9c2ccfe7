"""A scan of a clip's packets before its frames are decoded: their timestamps and their number."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import av.error

from personalive.media.containers import open_container
from personalive.media.frame_timing import make_increasing
from personalive.media.ratios import to_fraction

# Enough to estimate the rate, and little to read even in studio formats.
_MAX_PACKETS = 1000
_MAX_BYTES = 64_000_000


@dataclass(frozen=True, slots=True)
class PacketScan:
    """The timestamps of a track's first packets, in seconds of the container's clock and in decoding order.

    `tick` is the clock's unit in seconds. `last` is the stated duration of the latest in seconds, 0 if none is
    stated. `frames` is the number of all packets, None where the scan ended before the track did.
    """

    timestamps: tuple[float, ...]
    tick: float
    last: float
    frames: int | None

    @property
    def is_in_order(self) -> bool:
        """Whether every packet is shown after those before it."""
        return all(later > stamp for stamp, later in pairwise(self.timestamps))

    def length(self, step: float, last: float) -> float | None:
        """Return the seconds of the whole track; None where the scan ended before the track did.

        Frames are usually `step` seconds apart, and the last is shown for `last` seconds.
        """
        if not self.frames or not self.timestamps:
            return None
        begin = min(self.timestamps)
        times = make_increasing(((None, stamp - begin) for stamp in sorted(self.timestamps)), step)
        return max(time for _, time in times) + last


def scan_packets(path: Path, index: int) -> PacketScan:
    """Read the first packets of the track `index`, without those that an edit list cuts away.

    Raises:
        MediaError: the file cannot be opened.

    """
    stamps: list[float] = []
    latest, last = -math.inf, 0.0
    count = taken = 0
    whole = True
    with open_container(path) as container:
        stream = container.streams[index]
        base = to_fraction(stream.time_base) if stream.time_base else Fraction(1, av.time_base)
        try:
            for packet in container.demux(stream):
                if not packet.size or packet.is_discard:
                    continue
                if count == _MAX_PACKETS or taken >= _MAX_BYTES:
                    whole = False
                    break
                stamp = packet.pts if packet.pts is not None else packet.dts
                if stamp is not None:
                    stamps.append(float(stamp * base))
                    if stamps[-1] >= latest:
                        latest = stamps[-1]
                        last = float((packet.duration or 0) * base)
                count += 1
                taken += packet.size
        except (av.error.FFmpegError, OSError):
            # Decoding will meet the damage too, and report it.
            whole = False
    return PacketScan(tuple(stamps), float(base), last, count if whole else None)
