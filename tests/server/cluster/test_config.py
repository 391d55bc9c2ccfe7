from __future__ import annotations

from typing import Any

import pytest

from personalive.errors import InputError
from personalive.server.cluster.config import read_cluster_config


def test_a_number_of_replicas_is_kept_as_it_is() -> None:
    given: dict[str, object] = {"replicas": 3, "sessions_per_replica": 4, "port": 8000}
    plan = read_cluster_config(given)
    told = plan.to_deployment_options()
    assert told["num_replicas"] == 3
    assert told["max_ongoing_requests"] == 4
    assert "autoscaling_config" not in told
    assert given == {"port": 8000}


def test_a_range_of_replicas_follows_the_used_slots() -> None:
    given: dict[str, object] = {"min_replicas": 1, "max_replicas": 8, "sessions_per_replica": 5}
    scaling = read_cluster_config(given).to_deployment_options()["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["max_replicas"]) == (1, 8)
    assert scaling["target_ongoing_requests"] == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"replicas": 2, "max_replicas": 3}, "not both"),
        ({"min_replicas": 3, "max_replicas": 2}, "--max-replicas"),
        ({"gpus_per_replica": 1.5}, "whole number"),
        ({"replicas": 0}, "greater than or equal to 1"),
        ({"sessions_per_replica": 0}, "sessions_per_replica"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(given: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_cluster_config(given)
