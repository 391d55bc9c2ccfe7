"""The manifest in docs/how-to/cluster.md: one that KubeRay's schema allows, of an application that can be built."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml  # type: ignore[import-untyped]
from scripts.make_manifest_schema import OUT, Node, manifest


def wrong_in(told: Node) -> list[str]:
    """What KubeRay's schema has against it."""
    schema = json.loads(OUT.read_text())
    return [error.json_path for error in jsonschema.Draft202012Validator(schema).iter_errors(told)]


def workers(told: Node) -> Node:
    (group,) = told["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    found: Node = group
    return found


def test_kuberay_s_schema_allows_it() -> None:
    assert not wrong_in(manifest())


@pytest.mark.parametrize(
    ("spoil", "where"),
    [
        (lambda told: told["spec"].update(serveConfig=""), "$.spec"),
        (lambda told: workers(told).update(minReplicas="1"), "workerGroupSpecs[0].minReplicas"),
        (lambda told: workers(told).pop("groupName"), "workerGroupSpecs[0]"),
        (lambda told: workers(told)["template"]["spec"].update(hostNetworks=True), "template.spec"),
        (lambda told: workers(told)["template"]["spec"]["containers"][0].pop("name"), "containers[0]"),
    ],
)
def test_the_schema_finds_what_is_wrong(spoil: Callable[[Node], Any], where: str) -> None:
    told = copy.deepcopy(manifest())
    spoil(told)
    (found,) = wrong_in(told)
    assert found.endswith(where)


@pytest.mark.filterwarnings("default")
def test_its_application_can_be_built(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.serve import Application
    from ray.serve.schema import ServeDeploySchema

    from personalive.server.cluster.application import from_config

    monkeypatch.setenv("PERSONALIVE_API_KEY", "from-the-secret")
    config = ServeDeploySchema.model_validate(yaml.safe_load(manifest()["spec"]["serveConfigV2"]))
    (application,) = config.applications
    assert application.import_path == "personalive.server.cluster.application:from_config"
    assert isinstance(from_config(application.args), Application)


def test_its_numbers_agree() -> None:
    spec = manifest()["spec"]
    (application,) = yaml.safe_load(spec["serveConfigV2"])["applications"]
    group = workers(manifest())
    (worker,) = group["template"]["spec"]["containers"]
    args = application["args"]
    assert (group["minReplicas"], group["maxReplicas"]) == (args["min_replicas"], args["max_replicas"])
    assert float(worker["resources"]["limits"]["nvidia.com/gpu"]) == args["gpus_per_replica"]
    assert int(worker["resources"]["limits"]["cpu"]) >= args["cpus_per_replica"]
