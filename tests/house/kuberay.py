"""Schemas of the fields of KubeRay's that deploy/ uses: `python -m tests.house.kuberay FOLDER` renews kuberay.json.

FOLDER holds ray.io_rayclusters.yaml and ray.io_rayjobs.yaml of version 1.7.0. Kept is what a manifest of deploy/ names: types and
what is required. Any other field is an error, as a misspelt one is.

Source: ray-project/kuberay, helm-chart/kuberay-operator/crds.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
KEPT = Path(__file__).with_suffix(".json")
MANIFESTS = {"rayclusters": "raycluster.yaml", "rayjobs": "rayjob.yaml"}
RULES = ("type", "enum", "minimum", "maximum", "minItems", "required", "pattern")


def strict(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema of Kubernetes as one that refuses fields that it does not name."""
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    kept: dict[str, Any] = {rule: schema[rule] for rule in RULES if rule in schema}
    if "properties" in schema:
        kept["properties"] = {name: strict(one) for name, one in schema["properties"].items()}
        kept["additionalProperties"] = False
    elif isinstance(schema.get("additionalProperties"), Mapping):
        kept["additionalProperties"] = strict(schema["additionalProperties"])
    if "items" in schema:
        kept["items"] = strict(schema["items"])
    return kept


def used(schema: Mapping[str, Any], *values: Any) -> dict[str, Any]:
    """What of a strict schema some values name."""
    kept = dict(schema)
    if "properties" in schema:
        found = [value for value in values if isinstance(value, Mapping)]
        names = sorted({name for value in found for name in value} & set(schema["properties"]))
        kept["properties"] = {
            name: used(schema["properties"][name], *(value[name] for value in found if name in value)) for name in names
        }
        kept["required"] = [name for name in schema.get("required", []) if name in names]
    if "items" in schema:
        kept["items"] = used(schema["items"], *(one for value in values if isinstance(value, list) for one in value))
    return kept


def of_kind(file: Path) -> dict[str, Any]:
    """The strict schema of version v1 of a file of KubeRay's."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    versions = yaml.load(file.read_text(), Loader=loader)["spec"]["versions"]
    (schema,) = [one["schema"]["openAPIV3Schema"] for one in versions if one["name"] == "v1"]
    whole = strict(schema)
    whole["properties"]["metadata"] = {"type": "object"}  # Kubernetes checks it itself
    return whole


def manifest(name: str) -> dict[str, Any]:
    """A manifest of deploy/."""
    return yaml.safe_load((ROOT / "deploy" / name).read_text())


def main(folder: Path) -> None:
    """Renew kuberay.json."""
    kept = {kind: used(of_kind(folder / f"ray.io_{kind}.yaml"), manifest(name)) for kind, name in MANIFESTS.items()}
    KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
