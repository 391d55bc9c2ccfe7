"""The Ray Serve application: the ingress, the controller and the replicas, as one thing to deploy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from personalive.server.cluster.config import ClusterConfig, read_cluster_config
from personalive.server.cluster.controller import ClusterController
from personalive.server.cluster.dependencies import IngressDependencies
from personalive.server.cluster.ingress import create_ingress
from personalive.server.cluster.messages import DesiredState
from personalive.server.cluster.replica import ServerReplica
from personalive.server.settings import Settings, read_settings
from personalive.server.telemetry import logs

APPLICATION_NAME = "personalive"
_MAX_ONGOING_REQUESTS = 1000
"""How many requests the ingress, and how many calls the controller, may handle at the same time."""
_HEALTH_CHECK_PERIOD_S = 2.0
_LOGGING_CONFIG = {"enable_access_log": False}
"""Serve's access log is off: the ingress logs requests, without their queries."""
_HEAD_DEPLOYMENT: dict[str, Any] = {
    "num_replicas": 1,
    "max_ongoing_requests": _MAX_ONGOING_REQUESTS,
    "ray_actor_options": {"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}},
    "logging_config": _LOGGING_CONFIG,
}
"""Options of one replica on the head, beside the proxy: losing or releasing another machine does not end it."""


def from_config(args: dict[str, Any]) -> Application:
    """Build the application of a Serve config file, which names this function as its `import_path`.

    The keys of `args` are fields of `ClusterConfig` and server settings; settings in the environment apply too.
    Raises `InputError`.
    """
    given = dict(args)
    plan = read_cluster_config(given)
    return build_application(plan, read_settings(given))


def build_application(
    config: ClusterConfig, base_settings: Settings, *, awaits_reference: bool = False
) -> Application:
    """Build the application with those settings that are not left at their defaults.

    `awaits_reference`: the caller will upload a first portrait, and the service is not ready before that.
    """
    settings = {name: getattr(base_settings, name) for name in base_settings.model_fields_set}
    settings["max_sessions"] = config.sessions_per_replica
    controller = serve.deployment(ClusterController, name="Controller", **_HEAD_DEPLOYMENT).bind(
        DesiredState(1, settings.get("pipeline"), settings.get("load_params", {})),
        awaits_reference=awaits_reference,
    )
    replicas = serve.deployment(
        ServerReplica,
        name="Replica",
        health_check_period_s=_HEALTH_CHECK_PERIOD_S,
        logging_config=_LOGGING_CONFIG,
        **config.to_deployment_options(),
    ).bind(settings, controller)
    return serve.deployment(
        serve.ingress(_make_app_factory(settings))(), name="Ingress", **_HEAD_DEPLOYMENT
    ).bind(replicas, controller)


def _make_app_factory(given: Mapping[str, Any]) -> Any:
    """Return the function that makes the web application on the ingress's machine."""

    def make() -> FastAPI:
        settings = Settings(**given)
        logs.configure_logging(settings.log_format, settings.log_level)

        def parts() -> IngressDependencies:
            return IngressDependencies.create(settings, _get_handle("Controller"), _get_handle("Replica"))

        return create_ingress(settings, parts)

    return make


def _get_handle(deployment: str) -> DeploymentHandle[Any]:
    return serve.get_deployment_handle(deployment, serve.get_replica_context().app_name)
