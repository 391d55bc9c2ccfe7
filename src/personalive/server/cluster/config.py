"""The size of the cluster's service: replicas, the resources of each, and when there are more or fewer."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from personalive.errors import InputError
from personalive.pipelines.parameters import build_parameters

TARGET_UTILIZATION = 0.8
"""The share of its slots that a replica should use; the rest serves new sessions while another replica starts."""
LOOK_BACK_PERIOD_S = 15.0
"""Seconds over which used slots are averaged to decide how many replicas there should be."""


class ClusterConfig(BaseModel):
    """The options of `personalive cluster serve`, made by `read_cluster_config`. Times are in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_replicas: int = Field(1, ge=1, le=10_000, description="Replicas that are always there.")
    max_replicas: int = Field(1, ge=1, le=10_000, description="Replicas that there may be.")
    gpus_per_replica: float = Field(
        0.0, ge=0.0, le=16.0, description="GPUs of one replica; 0.5 is half a GPU."
    )
    cpus_per_replica: float = Field(1.0, ge=0.0, le=512.0, description="Cores that a replica reserves.")
    sessions_per_replica: int = Field(1, ge=1, le=256, description="Sessions at a time on one replica.")
    upscale_delay_s: float = Field(
        5.0, ge=0, le=86_400, description="Seconds with too few replicas before more are started."
    )
    downscale_delay_s: float = Field(
        300.0, ge=0, le=86_400, description="Seconds with too many replicas before some are drained."
    )
    drain_limit_s: float = Field(
        86_400.0,
        ge=1,
        le=2_592_000,
        description="How long a replica that is no longer needed waits for its last session to end.",
    )
    every_node: bool = Field(
        False, description="Listen on every node that has a replica, not on the head only."
    )

    def to_deployment_options(self) -> dict[str, Any]:
        """Return the options of the replicas' deployment, by Ray Serve's names.

        A session is one long call, so used slots are ongoing requests.
        """
        told: dict[str, Any] = {
            "max_ongoing_requests": self.sessions_per_replica,
            "graceful_shutdown_timeout_s": self.drain_limit_s,
            "ray_actor_options": {"num_gpus": self.gpus_per_replica, "num_cpus": self.cpus_per_replica},
        }
        if self.min_replicas == self.max_replicas:
            return told | {"num_replicas": self.min_replicas}
        return told | {
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
