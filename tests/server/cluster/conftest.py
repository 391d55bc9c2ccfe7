"""Ray Serve's import warns of Ray's own use of pydantic, which is not ours to mend."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import ray.serve

__all__ = ["ray"]
