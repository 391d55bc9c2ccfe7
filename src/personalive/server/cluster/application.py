"""The Ray Serve application: the ingress, the ledger and the replicas, as one thing to deploy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from personalive.server.cluster.config import Plan, read_plan
from personalive.server.cluster.controller import Ledger
from personalive.server.cluster.dependencies import Parts
from personalive.server.cluster.ingress import create_ingress
from personalive.server.cluster.messages import Wanted
from personalive.server.cluster.replica import Replica
from personalive.server.settings import Settings, read_settings
from personalive.server.telemetry import logs

NAME = "personalive"
_CALLS = 1000
"""Requests that the ingress, and calls that the ledger, may have at hand at the same time."""
_HEALTH_S = 2.0
_ON_THE_HEAD = {"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}}
"""Where the proxy is too: no machine that may be lost, or let go when replicas are few, takes these with it."""
_QUIET = {"enable_access_log": False}
"""The ingress logs requests itself, without queries."""


def from_config(args: dict[str, Any]) -> Application:
    """The application of a Serve config file, which names this function as its `import_path`.

    `args` are the names of `Plan` and of the server's settings; the environment counts too. Raises `InputError`.
    """
    given = dict(args)
    plan = read_plan(given)
    return build(plan, read_settings(given))


def build(plan: Plan, chosen: Settings, *, awaits_reference: bool = False) -> Application:
    """The application, with those settings that are not left at their defaults.

    `awaits_reference`: whoever deploys it gives it a first portrait, and it is not ready before.
    """
    settings = {name: getattr(chosen, name) for name in chosen.model_fields_set}
    settings["max_sessions"] = plan.sessions_per_replica
    ledger = serve.deployment(
        Ledger,
        name="Ledger",
        num_replicas=1,
        max_ongoing_requests=_CALLS,
        ray_actor_options=_ON_THE_HEAD,
        logging_config=_QUIET,
    ).bind(
        Wanted(1, settings.get("pipeline"), settings.get("load_params", {})),
        awaits_reference=awaits_reference,
    )
    replicas = serve.deployment(
        Replica,
        name="Replica",
        health_check_period_s=_HEALTH_S,
        logging_config=_QUIET,
        **plan.deployment(),
    ).bind(settings, ledger)
    return serve.deployment(
        serve.ingress(_app_of(settings))(),
        name="Ingress",
        num_replicas=1,
        max_ongoing_requests=_CALLS,
        ray_actor_options=_ON_THE_HEAD,
        logging_config=_QUIET,
    ).bind(replicas, ledger)


def _app_of(given: Mapping[str, Any]) -> Any:
    """What makes the web application, on the ingress's own machine."""

    def make() -> FastAPI:
        settings = Settings(**given)
        logs.configure(settings.log_format, settings.log_level)

        def parts() -> Parts:
            return Parts.of(settings, _handle("Ledger"), _handle("Replica"))

        return create_ingress(settings, parts)

    return make


def _handle(deployment: str) -> DeploymentHandle[Any]:
    return serve.get_deployment_handle(deployment, serve.get_replica_context().app_name)
