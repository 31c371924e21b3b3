"""cluster.yaml and its twin on Google Cloud pass Ray's own checks, cost nothing while nobody works, and fit the recipes."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from linrep.harvest.config import Pool

ROOT = Path(__file__).resolve().parents[2]


FILES = ["cluster.yaml", "deploy/gcp.yaml"]


@pytest.fixture(params=FILES)
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    return yaml.safe_load((ROOT / request.param).read_text())


@pytest.fixture
def aws() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def test_matches_rays_schema(config: dict[str, Any]) -> None:
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(config, schema)


def test_passes_rays_own_validation(config: dict[str, Any]) -> None:
    prepared = prepare_config(config)
    validate_config(prepared)
    # A misspelt key would leave the default of Ray in place: nightly wheels, another image.
    assert "ray-wheels" not in json.dumps(prepared)
    assert "ray_bootstrap_config" in " ".join(prepared["head_start_ray_commands"])
    assert set(prepared["available_node_types"]) == {"head", "reader", "gpu"}


def test_one_image_for_all_nodes_here_and_on_kubernetes_and_nodes_install_nothing(config: dict[str, Any]) -> None:
    docker = config["docker"]
    assert not {"head_image", "worker_image"} & set(docker)
    assert [name for name, kind in config["available_node_types"].items() if "docker" in kind] == []
    pods = yaml.safe_load((ROOT / "deploy" / "raycluster.yaml").read_text())["spec"]
    containers = [group["template"]["spec"]["containers"] for group in (pods["headGroupSpec"], *pods["workerGroupSpecs"])]
    assert {one["image"] for pod in containers for one in pod} == {docker["image"]}
    prepared = prepare_config(config)
    commands = [prepared[name] for name in ("setup_commands", "head_setup_commands", "worker_setup_commands")]
    assert commands == [[], [], []], "packages are in the image"


def test_grows_from_nothing_and_has_a_cap(config: dict[str, Any]) -> None:
    kinds = config["available_node_types"]
    head = kinds[config["head_node_type"]]
    assert head["resources"]["CPU"] == 0, "work on the head starves the scheduler"
    workers = [kind for kind in kinds.values() if kind is not head]
    assert all(kind["min_workers"] == 0 for kind in workers)
    assert sum(kind["max_workers"] for kind in workers) == config["max_workers"]
    assert config["idle_timeout_minutes"] <= 30
    assert config["provider"]["cache_stopped_nodes"] is False


def is_spot(node: dict[str, Any]) -> bool:
    aws, google = node.get("InstanceMarketOptions", {}), node.get("scheduling", [{}])
    return aws.get("MarketType") == "spot" or google[0].get("preemptible", False)


def test_workers_are_spot_and_the_head_is_not(config: dict[str, Any]) -> None:
    found = {name: is_spot(kind["node_config"]) for name, kind in config["available_node_types"].items()}
    assert found == {"head": False, "reader": True, "gpu": True}


def test_the_twins_differ_in_what_the_clouds_differ_in_alone() -> None:
    first, second = (yaml.safe_load((ROOT / file).read_text()) for file in FILES)
    for one in (first, second):
        del one["provider"]
        for kind in one["available_node_types"].values():
            del kind["node_config"]
    assert first == second


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_fits_the_nodes(recipe: Path, config: dict[str, Any]) -> None:
    """Each actor on one node of some kind, and all that a recipe wants at least within the caps."""
    pool = merged_pool(recipe)
    kinds = [kind for kind in config["available_node_types"].values() if kind["max_workers"]]
    wanted = pool.gpus if pool.gpus is not None else 1.0
    fits = [k for k in kinds if k["resources"].get("GPU", 0) >= wanted and k["resources"]["CPU"] >= pool.cpus]
    assert fits, f"no node has {wanted} GPUs and {pool.cpus} CPUs"
    fewest = 1 if pool.actors is None else pool.actors[0]
    room = sum(kind["max_workers"] * int(kind["resources"]["GPU"] / wanted) for kind in fits)
    assert room >= fewest


@pytest.mark.parametrize("name", ["rayjob.yaml", "raycluster.yaml"])
def test_pods_have_room_for_what_a_recipe_asks_for(name: str) -> None:
    spec = yaml.safe_load((ROOT / "deploy" / name).read_text())["spec"]
    groups = spec.get("rayClusterSpec", spec)["workerGroupSpecs"]
    (gpu,) = [group for group in groups if group["groupName"] == "gpu"]
    limits = gpu["template"]["spec"]["containers"][0]["resources"]["limits"]
    for recipe in (ROOT / "recipes").glob("*.yaml"):
        pool = merged_pool(recipe)
        assert (pool.gpus or 1) <= int(limits["nvidia.com/gpu"])
        assert pool.cpus <= int(limits["cpu"])
        assert (1 if pool.actors is None else pool.actors[0]) * (pool.gpus or 1) <= gpu["maxReplicas"]


def merged_pool(recipe: Path) -> Pool:
    return Pool.model_validate(yaml.safe_load(recipe.read_text()).get("pool", {}))


def test_every_node_has_the_token(config: dict[str, Any]) -> None:
    options = [option.removeprefix("--env ") for option in config["docker"]["run_options"] if option.startswith("--env ")]
    env = dict(option.split("=", 1) for option in options)
    assert env["RAY_AUTH_MODE"] == "token"
    assert env["RAY_AUTH_TOKEN_PATH"] in config["file_mounts"]


def test_nothing_is_mounted_but_the_token(config: dict[str, Any]) -> None:
    assert list(config["file_mounts"].values()) == ["~/.ray/auth_token"]


def test_dashboard_and_jobs_listen_on_the_head_alone_and_no_key_is_written_down(config: dict[str, Any]) -> None:
    assert " --dashboard-host=127.0.0.1 " in " ".join(config["head_start_ray_commands"])
    assert "AKIA" not in json.dumps(config)
    assert not [option for option in config["docker"]["run_options"] if "KEY" in option or "PASSWORD" in option]


def test_workers_watch_for_the_notice_with_a_program_that_the_image_holds(config: dict[str, Any]) -> None:
    (line,) = [line for line in config["worker_start_ray_commands"] if "drain.py" in line]
    assert "python /home/ray/line_of_sight/deploy/drain.py $RAY_HEAD_IP:6379 " in line
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    assert "WORKDIR /home/ray/line_of_sight" in dockerfile
    assert "COPY --chown=ray:users deploy/drain.py deploy/drain.py" in dockerfile


def test_roles_are_what_cloudformation_reads() -> None:
    """It takes no anchors, and the linter that Amazon keeps for it finds nothing but that it wants notes for machines (I4010)."""
    text = (ROOT / "deploy" / "aws_roles.yaml").read_text()
    assert not [token for token in yaml.scan(text) if isinstance(token, yaml.AnchorToken | yaml.AliasToken)]
    lint = pytest.importorskip("cfnlint.api", reason="comes with moto")
    assert [str(found) for found in lint.lint_all(text) if found.rule.id != "I4010"] == []


@pytest.mark.slow
def test_nodes_start_on_a_simulated_aws(aws: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The roles' template, Ray's own preparation and its node provider, with moto in AWS's place; then one node of each kind."""
    import boto3
    from moto import mock_aws
    from ray.autoscaler._private.aws import config as aws_config
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    monkeypatch.setenv("HOME", str(tmp_path))  # Ray saves the key pair that it makes under ~/.ssh
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "simulated")
    monkeypatch.setenv("AWS_DEFAULT_REGION", aws["provider"]["region"])
    monkeypatch.setenv("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")  # the head's role uses one of Amazon's own policies
    monkeypatch.setattr(aws_config.time, "sleep", lambda _: None)  # 15 s for real IAM to settle
    (tmp_path / ".ssh").mkdir()
    with mock_aws():
        boto3.client("cloudformation").create_stack(
            StackName="roles",
            TemplateBody=(ROOT / "deploy" / "aws_roles.yaml").read_text(),
            Parameters=[{"ParameterKey": "Bucket", "ParameterValue": "bucket"}],
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
        profiles = {one["InstanceProfileName"]: one for one in boto3.client("iam").list_instance_profiles()["InstanceProfiles"]}
        image = boto3.client("ec2").describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        ready = aws_config.bootstrap_aws(prepare_config(aws))
        provider = AWSNodeProvider(ready["provider"], ready["cluster_name"])
        bought, roles = {}, {}
        for name, kind in ready["available_node_types"].items():
            tags = {"ray-node-type": "head" if name == "head" else "worker", "ray-user-node-type": name}
            nodes = provider.create_node({**kind["node_config"], "ImageId": image}, tags, 1)
            bought[name] = [(node.instance_type, getattr(node, "instance_lifecycle", None)) for node in nodes.values()]
            roles[name] = [node.iam_instance_profile["Arn"] for node in nodes.values()]
        iam = boto3.client("iam")
        allowed = {
            role: json.dumps([iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
                              for policy in iam.list_role_policies(RoleName=role)["PolicyNames"]])
            for role in ("line-of-sight-head", "line-of-sight-worker")
        }  # fmt: skip
    assert bought == {
        "head": [("r6i.xlarge", None)],
        "reader": [("c6i.4xlarge", "spot")],
        "gpu": [("g5.4xlarge", "spot")],
    }
    head, worker = profiles["line-of-sight-head"]["Arn"], profiles["line-of-sight-worker"]["Arn"]
    assert roles == {"head": [head], "reader": [worker], "gpu": [worker]}
    assert [one["RoleName"] for one in profiles["line-of-sight-worker"]["Roles"]] == ["line-of-sight-worker"]
    assert all("arn:aws:s3:::bucket/*" in text for text in allowed.values())
    assert ("iam:PassRole" in allowed["line-of-sight-head"], "iam:PassRole" in allowed["line-of-sight-worker"]) == (True, False)
