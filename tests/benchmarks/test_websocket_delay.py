from __future__ import annotations

import socket
import threading
import time

from benchmarks.shaped_link import shaped_link
from benchmarks.websocket_delay import LEAD_S, SECONDS_OF_CAMERA, match


def test_a_frame_s_delay_is_taken_from_when_it_was_last_the_driver() -> None:
    later = LEAD_S + SECONDS_OF_CAMERA
    film = {
        "driver": [(7, LEAD_S + 1), (8, LEAD_S + 2), (7, later + 1)],
        "result": [(7, 0.0), (8, LEAD_S + 2.2), (7, later + 1.1), (500, later + 1.2), (9999, later + 1.3)],
    }
    delays = match(film, count=900)
    assert [round(delay, 3) for _, delay in delays] == [0.2, 0.1]


def test_a_shaped_link_carries_all_bytes_in_their_order_and_no_faster_than_told() -> None:
    sent = bytes(range(256)) * 40
    listener = socket.create_server(("127.0.0.1", 0))

    def echo() -> None:
        connection, _ = listener.accept()
        with connection:
            while data := connection.recv(65_536):
                connection.sendall(data)

    threading.Thread(target=echo, daemon=True).start()
    with listener, shaped_link(listener.getsockname()[1], 1e6, 0.05) as port:
        begun = time.monotonic()
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(sent)
            came = b""
            while len(came) < len(sent):
                came += client.recv(65_536)
        took = time.monotonic() - begun
    assert came == sent
    assert took >= 0.05 + 8 * len(sent) / 1e6, "the line has a rate and a length"
