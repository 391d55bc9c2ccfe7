"""The settings of a replica: the deployed ones, and those from its host's environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from personalive.server.settings import ENV_PREFIX, Settings

HOST_SETTINGS = ("public_ip", "udp_ports", "recordings_dir")
"""Settings that differ between hosts: a variable in the environment of a host's `ray start` overrides the deployed
value there."""
_INGRESS_ONLY = {"port": 0, "cors_origins": (), "insecure": False, "pipeline": None, "reference": None}
"""Settings that only the ingress needs, and their values in a replica, which its environment cannot change."""


def make_replica_settings(given: Mapping[str, Any], *, host: str, key: str) -> Settings:
    """Return the settings of a replica's server. It listens at `host`, requires `key`, and loads nothing at start.

    Load parameters that are paths are kept, so that pipelines may be loaded from these paths.
    """
    own = {name for name in HOST_SETTINGS if ENV_PREFIX + name.upper() in os.environ}
    taken = {name: value for name, value in given.items() if name not in own}
    return Settings(**{**taken, **_INGRESS_ONLY, "host": host, "api_key": key})
