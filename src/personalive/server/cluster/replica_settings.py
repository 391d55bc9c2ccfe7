"""The settings of a replica: what was deployed for all, and what its own host's environment says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from personalive.server.settings import ENV_PREFIX, Settings

HOST_SETTINGS = ("public_ip", "udp_ports", "recordings_dir")
"""What differs from host to host: a variable in the environment of a host's `ray start` weighs more there than
what was deployed for all."""
_INGRESS_ONLY = {"port": 0, "cors_origins": (), "insecure": False, "pipeline": None, "reference": None}
"""What only the ingress needs, as a replica has it whatever its environment says."""


def make_replica_settings(given: Mapping[str, Any], *, host: str, key: str) -> Settings:
    """For the replica's own server: it listens at `host` for requests that carry `key`, and begins with nothing.

    Paths that load parameters name stay known, so that they may be loaded from.
    """
    own = {name for name in HOST_SETTINGS if ENV_PREFIX + name.upper() in os.environ}
    taken = {name: value for name, value in given.items() if name not in own}
    return Settings(**{**taken, **_INGRESS_ONLY, "host": host, "api_key": key})
