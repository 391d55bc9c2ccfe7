"""How much later than the picture the sound of a session comes, by flashes and clicks.

    python -m benchmarks.lip_sync                                    # ten minutes for each case
    python -m benchmarks.lip_sync --minutes 1 --case changing        # a try

A driver's picture flashes every two seconds while a click sounds. It goes by WebRTC, or by a WebSocket, to
`personalive serve` in another process, and what comes back is compared: when the first white frame arrived (its
last packet), and when the first loud sample did. The server runs a pipeline of the tests that shows its driving
frames: a portrait would not flash; so transport, timestamps and pacing are measured, not the animation.

Columns, each with the median, p95 and largest size of the offset; a positive one means that the sound is late:
`arrived` compares the times of arrival, as a program sees it that shows and plays what comes at once. `reported`
compares by the server's RTCP sender reports, as browsers play it, or by the timestamps of the WebSocket's messages,
as the page plays it. The picture has 30 frames per second.

Cases: `steady`, chunks of four frames and a delay of twelve, as the diffusion pipeline has them; `changing`, the
same, with each step 80 ms longer for twenty seconds out of forty; `quick`, each frame at once; `no reports`, as
`steady` from a client that does not say when it captured sound and picture, so what arrives together counts as
captured together; `websocket`, as `steady` over a WebSocket.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import dataclass

from tests.server.client import PORTRAIT
from tests.server.flashes import FlashClient, Offsets, describe
from tests.server.running import running
from tests.server.websocket.flashes import FlashWebSocketClient

LIMIT_S = 0.045
"""What people do not notice, by ITU-R BT.1359."""
SKIP_S = 10.0
"""Seconds at the beginning that do not count: the server has no report of the client's yet."""
_CHANGE_EVERY_S = 20.0


@dataclass(frozen=True)
class Case:
    """A pipeline of chunks of `chunk` frames and a delay of `delay`; each step is longer by `pause` at times."""

    chunk: int = 4
    delay: int = 12
    pause: float = 0.0
    reports: bool = True
    websocket: bool = False


CASES = {
    "steady": Case(),
    "changing": Case(pause=0.08),
    "quick": Case(chunk=1, delay=0),
    "no reports": Case(reports=False),
    "websocket": Case(websocket=True),
}


async def measure_by_webrtc(url: str, case: Case, seconds: float) -> tuple[Offsets, float]:
    """Run a case; return what came, and by how much the server says that sound was delayed."""
    async with FlashClient(url, reports=case.reports) as client:
        (
            await client.http.post("/api/v1/personalive/reference", content=PORTRAIT.read_bytes())
        ).raise_for_status()
        await client.connect({"audio": True})
        passed, slow = 0.0, False
        while passed < seconds:
            step = min(_CHANGE_EVERY_S, seconds - passed)
            await asyncio.sleep(step)
            passed += step
            slow = not slow
            if case.pause:
                client.channel.send(json.dumps({"pause": case.pause if slow else 0.0}))
        delay = (await client.figures())["audio"]["delay_ms"] / 1000
        return client.offsets(SKIP_S), delay


async def measure_by_websocket(url: str, seconds: float) -> tuple[Offsets, float]:
    """Run a case over a WebSocket; return what `measure_by_webrtc` does."""
    async with FlashWebSocketClient(url) as client:
        (
            await client.http.post("/api/v1/personalive/reference", content=PORTRAIT.read_bytes())
        ).raise_for_status()
        (await client.offer(initialParameters={"audio": True})).raise_for_status()
        await client.connect()
        await client.drive()
        await asyncio.sleep(seconds)
        delay = (await client.figures())["audio"]["delay_ms"] / 1000
        return client.offsets(SKIP_S), delay


def run(case: Case, seconds: float) -> tuple[Offsets, float]:
    """Run a case on its own server."""
    load = {
        "chunk_frames": case.chunk,
        "delay_frames": case.delay,
        "cost": 0.005,
        "width": 256,
        "height": 256,
    }
    with running({"pipeline": "paced", "load_params": load}) as server:
        server.wait_until_loaded()
        if case.websocket:
            return asyncio.run(measure_by_websocket(server.url, seconds))
        return asyncio.run(measure_by_webrtc(server.url, case, seconds))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="for each case")
    parser.add_argument(
        "--case", action="append", choices=sorted(CASES), help="may be repeated; default: all"
    )
    args = parser.parse_args()
    print("| case | clicks | delay at the end | arrived: median, p95, max | reported: median, p95, max |")
    print("|---|--:|--:|--:|--:|", flush=True)
    met = True
    for name in args.case or CASES:
        offsets, delay = run(CASES[name], 60 * args.minutes)
        arrived, reported = describe(offsets.arrived), describe(offsets.reported)
        print(
            f"| {name} | {len(offsets.arrived)} | {1000 * delay:.0f} ms | {arrived} | {reported} |",
            flush=True,
        )
        met = met and bool(offsets.reported) and all(abs(one) <= LIMIT_S for one in offsets.reported)
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
