from __future__ import annotations

import numpy as np

from personalive.process_memory import peak_rss_bytes


def test_it_counts_bytes() -> None:
    before = peak_rss_bytes()
    assert 2**24 < before < 2**40
    block = np.ones(before + 2**26, np.uint8)
    assert peak_rss_bytes() >= block.nbytes
