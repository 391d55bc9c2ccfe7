"""Cores that a session's video takes on this machine: encoding it as the server does, and decoding a camera's.

python -m benchmarks.encoding
"""

from __future__ import annotations

import argparse
import sys
import time
from fractions import Fraction

import av
from aiortc.codecs import depayload, get_decoder, get_encoder
from aiortc.jitterbuffer import JitterFrame
from aiortc.rtcrtpparameters import RTCRtpCodecParameters

from tests.server.camera import footage
from tests.server.client import CLIP


def cost(codec: str, seconds: float, fps: int = 25, side: int = 512) -> tuple[float, float]:
    """Seconds of a core for one second of video: encoding as the server does, and decoding what it made."""
    kind = RTCRtpCodecParameters(mimeType=f"video/{codec}", clockRate=90_000, payloadType=97)
    encoder, decoder = get_encoder(kind), get_decoder(kind)
    scene = footage(CLIP)
    frames = [
        av.VideoFrame.from_ndarray(scene(k, (side, side)), format="yuv420p")
        for k in range(round(seconds * fps))
    ]
    made = []
    begun = time.process_time()
    for k, frame in enumerate(frames):
        frame.pts, frame.time_base = k * 90_000 // fps, Fraction(1, 90_000)
        made.append(encoder.encode(frame, force_keyframe=k == 0))
    encoding = time.process_time() - begun
    begun = time.process_time()
    for payloads, stamp in made:
        decoder.decode(JitterFrame(b"".join(depayload(kind, each) for each in payloads), stamp))
    return encoding / seconds, (time.process_time() - begun) / seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the video (default 10)")
    seconds: float = parser.parse_args().seconds
    for codec in ("H264", "VP8"):
        encoding, decoding = cost(codec, seconds)
        print(
            f"{codec}: {encoding:.3f} cores to encode 25 frames per second of 512², {decoding:.3f} to decode"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
