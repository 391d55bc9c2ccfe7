"""Cut KubeRay's schema of a RayService down to what the manifest in docs/how-to/cluster.md says.

    git clone --depth 1 --branch v1.7.0 https://github.com/ray-project/kuberay
    python scripts/make_manifest_schema.py kuberay/ray-operator/config/crd/bases/ray.io_rayservices.yaml

The whole is a megabyte, most of it what a pod can be. Here the manifest is checked against all of it; kept for the
tests is each part that the manifest goes through, with the names beside it: so a name that KubeRay does not know, a
value of the wrong type, or a part that is missing fails there as it would here.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "tests/server/cluster/rayservice.schema.json"

Node = dict[str, Any]


def manifest() -> Node:
    """Return the one in the documentation."""
    text = (ROOT / "docs/how-to/cluster.md").read_text()
    found = re.search(r"<!-- manifest: begin -->\n```yaml\n(.*?)```", text, re.DOTALL)
    assert found is not None
    told: Node = yaml.safe_load(found[1])
    return told


def strict(schema: Node) -> Node:
    """As the API server reads it: a field that is not known is an error, unless the schema keeps such."""
    told = {
        name: strict(part) if isinstance(part, dict) and name != "properties" else part
        for name, part in schema.items()
        if name not in {"description", "format"} and not name.startswith("x-kubernetes-")
    }
    if "properties" in schema:
        told["properties"] = {name: strict(part) for name, part in schema["properties"].items()}
        keeps = schema.get("x-kubernetes-preserve-unknown-fields", False)
        if "additionalProperties" not in schema and not keeps:
            told["additionalProperties"] = False
    return told


def cut(schema: Node, value: Any) -> Node:
    """Return the part that `value` goes through; of its siblings only the names."""
    told = {name: part for name, part in schema.items() if name not in {"properties", "items"}}
    if "properties" in schema:
        told["properties"] = {
            name: cut(part, value[name]) if name in value else {}
            for name, part in schema["properties"].items()
        }
    if "items" in schema:
        told["items"] = {}
        for each in value:
            told["items"] = merged(told["items"], cut(schema["items"], each))
    return told


def merged(one: Any, other: Any) -> Any:
    """Return all that is in either of two cuts of a schema."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return one or other
    return {name: merged(one.get(name, {}), other.get(name, {})) for name in one | other}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("crd", type=Path, help="ray.io_rayservices.yaml")
    told = yaml.safe_load(parser.parse_args().crd.read_text())
    (version,) = (each for each in told["spec"]["versions"] if each["name"] == "v1")
    whole = strict(version["schema"]["openAPIV3Schema"])
    whole["properties"]["metadata"] = {"type": "object"}  # what the API server knows itself
    wrong = list(jsonschema.Draft202012Validator(whole).iter_errors(manifest()))
    for error in wrong:
        print(f"{error.json_path}: {error.message}", file=sys.stderr)
    if not wrong:
        OUT.write_text(json.dumps(cut(whole, manifest()), indent=1, sort_keys=True) + "\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
