from __future__ import annotations

import io
import itertools

from hypothesis import given
from hypothesis import strategies as st

from personalive.media.iso_boxes import IsoBox, iter_boxes


@given(
    bodies=st.lists(st.tuples(st.binary(min_size=4, max_size=4), st.binary(max_size=40), st.booleans())),
    tail=st.binary(max_size=7),
)
def test_every_box_is_found_where_it_is(bodies: list[tuple[bytes, bytes, bool]], tail: bytes) -> None:
    written = [
        (1).to_bytes(4, "big") + kind + (16 + len(body)).to_bytes(8, "big") + body
        if large
        else (8 + len(body)).to_bytes(4, "big") + kind + body
        for kind, body, large in bodies
    ]
    starts = itertools.accumulate(map(len, written), initial=0)
    expected = [
        IsoBox(kind, start, len(box))
        for (kind, _, _), start, box in zip(bodies, starts, written, strict=False)
    ]
    assert list(iter_boxes(io.BytesIO(b"".join(written) + tail))) == expected


@given(st.binary(max_size=200))
def test_any_bytes_come_to_an_end(data: bytes) -> None:
    boxes = list(iter_boxes(io.BytesIO(data)))
    assert all(box.length >= 8 for box in boxes[:-1])
