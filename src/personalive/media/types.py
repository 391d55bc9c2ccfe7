"""The one way pixels are passed around: 8-bit RGB arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
"""uint8 RGB (height, width, 3)."""

Frames = NDArray[np.uint8]
"""uint8 RGB (frames, height, width, 3)."""
