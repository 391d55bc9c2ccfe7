"""The manifest in docs/cluster.md: its application is one that can be built."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

DOCS = Path(__file__).parents[3] / "docs/cluster.md"


def manifest() -> dict[str, Any]:
    found = re.search(r"<!-- manifest: begin -->\n```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert found
    told: dict[str, Any] = yaml.safe_load(found[1])
    return told


@pytest.mark.filterwarnings("default")
def test_its_application_can_be_built(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.serve import Application
    from ray.serve.schema import ServeDeploySchema

    from personalive.cluster.serving.application import from_config

    monkeypatch.setenv("PERSONALIVE_API_KEY", "from-the-secret")
    config = ServeDeploySchema.model_validate(yaml.safe_load(manifest()["spec"]["serveConfigV2"]))
    (application,) = config.applications
    assert application.import_path == "personalive.cluster.serving.application:from_config"
    assert isinstance(from_config(application.args), Application)


def test_its_numbers_agree() -> None:
    spec = manifest()["spec"]
    (application,) = yaml.safe_load(spec["serveConfigV2"])["applications"]
    (workers,) = spec["rayClusterConfig"]["workerGroupSpecs"]
    (worker,) = workers["template"]["spec"]["containers"]
    args = application["args"]
    assert (workers["minReplicas"], workers["maxReplicas"]) == (args["min_replicas"], args["max_replicas"])
    assert float(worker["resources"]["limits"]["nvidia.com/gpu"]) == args["gpus_per_replica"]
    assert int(worker["resources"]["limits"]["cpu"]) >= args["cpus_per_replica"]
