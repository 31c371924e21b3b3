"""cluster.yaml passes Ray's own checks, offline, and costs nothing while nobody works."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.house.pins import pins

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def config() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def test_matches_rays_schema(config: dict[str, Any]) -> None:
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(config, schema)


def test_passes_rays_own_validation(config: dict[str, Any]) -> None:
    prepared = prepare_config(config)
    validate_config(prepared)
    # A misspelt key would leave the default of Ray in place: nightly wheels, another image.
    assert "ray-wheels" not in json.dumps(prepared)
    assert set(prepared["available_node_types"]) == {"head", "reader", "gpu"}


def test_images_have_the_pinned_ray(config: dict[str, Any]) -> None:
    docker = config["docker"]
    images = [docker["head_image"], docker["worker_image"]]
    images += [kind["docker"]["worker_image"] for kind in config["available_node_types"].values() if "docker" in kind]
    assert images
    assert {image.rsplit("-", 1)[0] for image in images} == {f"rayproject/ray:{pins()['ray']}-py311"}


def test_grows_from_nothing_and_has_a_cap(config: dict[str, Any]) -> None:
    kinds = config["available_node_types"]
    head = kinds[config["head_node_type"]]
    assert head["resources"]["CPU"] == 0, "work on the head starves the scheduler"
    workers = [kind for kind in kinds.values() if kind is not head]
    assert all(kind["min_workers"] == 0 for kind in workers)
    assert sum(kind["max_workers"] for kind in workers) == config["max_workers"]
    assert config["idle_timeout_minutes"] <= 30
    assert config["provider"]["cache_stopped_nodes"] is False


def test_gpu_workers_are_spot(config: dict[str, Any]) -> None:
    gpus = [kind for kind in config["available_node_types"].values() if kind["resources"].get("GPU")]
    assert gpus
    assert all(kind["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot" for kind in gpus)


def test_every_node_has_the_token(config: dict[str, Any]) -> None:
    options = [option.removeprefix("--env ") for option in config["docker"]["run_options"] if option.startswith("--env ")]
    env = dict(option.split("=", 1) for option in options)
    assert env["RAY_AUTH_MODE"] == "token"
    assert env["RAY_AUTH_TOKEN_PATH"] in config["file_mounts"]


def test_mounted_files_exist_and_are_what_the_setup_installs_from(config: dict[str, Any]) -> None:
    mounts = {remote: local for remote, local in config["file_mounts"].items() if not local.startswith("~")}
    assert len(mounts) == 3
    assert [local for local in mounts.values() if not (ROOT / local).is_file()] == []
    commands = " ".join(config["setup_commands"])
    assert [remote for remote in mounts if remote not in commands] == []


@pytest.mark.slow
def test_nodes_start_on_a_simulated_aws(config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own preparation and its node provider, with moto in AWS's place: roles, keys, network, then one node of each kind."""
    import boto3
    from moto import mock_aws
    from ray.autoscaler._private.aws import config as aws_config
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    monkeypatch.setenv("HOME", str(tmp_path))  # Ray saves the key pair that it makes under ~/.ssh
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "simulated")
    monkeypatch.setenv("AWS_DEFAULT_REGION", config["provider"]["region"])
    monkeypatch.setenv("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")  # the role that Ray makes uses Amazon's own policies
    monkeypatch.setattr(aws_config.time, "sleep", lambda _: None)  # 15 s for real IAM to settle
    (tmp_path / ".ssh").mkdir()
    with mock_aws():
        image = boto3.client("ec2").describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        ready = aws_config.bootstrap_aws(prepare_config(config))
        provider = AWSNodeProvider(ready["provider"], ready["cluster_name"])
        bought = {}
        for name, kind in ready["available_node_types"].items():
            tags = {"ray-node-type": "head" if name == "head" else "worker", "ray-user-node-type": name}
            nodes = provider.create_node({**kind["node_config"], "ImageId": image}, tags, 1)
            bought[name] = [(node.instance_type, getattr(node, "instance_lifecycle", None)) for node in nodes.values()]
    assert bought == {
        "head": [("r6i.xlarge", None)],
        "reader": [("c6i.4xlarge", "spot")],
        "gpu": [("g5.4xlarge", "spot")],
    }
