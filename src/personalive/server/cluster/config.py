"""The size of the cluster's service: replicas, the resources of each, and when there are more or fewer."""

from __future__ import annotations

from collections.abc import MutableMapping
from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict

from personalive.errors import InputError
from personalive.pipelines.parameters import build_parameters
from personalive.server.options import CLUSTER_OPTIONS, make_field

TARGET_UTILIZATION = 0.8
"""The share of its slots that a replica should use; the rest serves new sessions while another replica starts."""
LOOK_BACK_PERIOD_S = 15.0
"""Seconds over which used slots are averaged to decide how many replicas there should be."""


_field = partial(make_field, CLUSTER_OPTIONS)


class ClusterConfig(BaseModel):
    """The options of `personalive cluster serve`, made by `read_cluster_config`. Times are in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_replicas: int = _field("min_replicas", default=1, ge=1, le=10_000)
    max_replicas: int = _field("max_replicas", default=1, ge=1, le=10_000)
    gpus_per_replica: float = _field("gpus_per_replica", ge=0.0, le=16.0)
    cpus_per_replica: float = _field("cpus_per_replica", ge=0.0, le=512.0)
    sessions_per_replica: int = _field("sessions_per_replica", ge=1, le=256)
    upscale_delay_s: float = _field("upscale_delay_s", ge=0, le=86_400)
    downscale_delay_s: float = _field("downscale_delay_s", ge=0, le=86_400)
    drain_limit_s: float = _field("drain_limit_s", ge=1, le=2_592_000)
    every_node: bool = _field("every_node")

    def to_deployment_options(self) -> dict[str, Any]:
        """Return the options of the replicas' deployment, by Ray Serve's names.

        A session is one long call, so used slots are ongoing requests.
        """
        options: dict[str, Any] = {
            "max_ongoing_requests": self.sessions_per_replica,
            "graceful_shutdown_timeout_s": self.drain_limit_s,
            "ray_actor_options": {"num_gpus": self.gpus_per_replica, "num_cpus": self.cpus_per_replica},
        }
        if self.min_replicas == self.max_replicas:
            return options | {"num_replicas": self.min_replicas}
        return options | {
            "autoscaling_config": {
                "min_replicas": self.min_replicas,
                "max_replicas": self.max_replicas,
                "target_ongoing_requests": TARGET_UTILIZATION * self.sessions_per_replica,
                "upscale_delay_s": self.upscale_delay_s,
                "downscale_delay_s": self.downscale_delay_s,
                "look_back_period_s": LOOK_BACK_PERIOD_S,
            }
        }


def read_cluster_config(given: MutableMapping[str, object]) -> ClusterConfig:
    """Take the cluster's options out of `given` and return them. `replicas` sets both the minimum and the maximum.

    Raises `InputError` with a message of one sentence.
    """
    replicas = given.pop("replicas", None)
    own = {name: given.pop(name) for name in list(given) if name in ClusterConfig.model_fields}
    if replicas is not None:
        if {"min_replicas", "max_replicas"} & set(own):
            raise InputError("Give --replicas, or --min-replicas and --max-replicas: not both.")
        own |= {"min_replicas": replicas, "max_replicas": replicas}
    elif "min_replicas" in own and "max_replicas" not in own:
        own["max_replicas"] = own["min_replicas"]
    plan = build_parameters(ClusterConfig, own)
    if plan.max_replicas < plan.min_replicas:
        raise InputError(
            f"{plan.max_replicas} replicas at most are fewer than {plan.min_replicas} at least: "
            "raise --max-replicas, or lower --min-replicas."
        )
    if plan.gpus_per_replica > 1 and not plan.gpus_per_replica.is_integer():
        raise InputError(
            "More than one GPU per replica must be a whole number of them: see --gpus-per-replica."
        )
    return plan
