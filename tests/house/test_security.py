"""What SECURITY.md says of the code: nothing foreign is unpickled or run, and what listens does so on this machine alone."""

import ast
import contextlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from linrep.errors import ModelError
from linrep.vlm.processor import load_processor
from linrep.vlm.untrained import write_untrained

ROOT = Path(__file__).resolve().parents[2]
CODE = [
    path
    for top in ("platform", "jobs", "schemas", "deploy", "demo_training", "smol_training")
    for path in (ROOT / top).rglob("*.py")
]
OWN_PICKLES = {f"platform/linrep/cluster/{name}.py" for name in ("steer", "harvest", "actors")}
"""They unpickle blocks of a data set that tasks of the same job pickled."""
FOREIGN = {
    *("pickle.load", "pickle.Unpickler", "dill.load", "dill.loads", "joblib.load", "pd.read_pickle", "pandas.read_pickle"),
    *("cloudpickle.load", "cloudpickle.loads", "marshal.loads", "yaml.load", "yaml.unsafe_load", "os.system", "os.popen"),
}

ALLOWED = ("False", "named")
"""What says that no code of the folder runs; `named` is the dictionary of smol_training/build.py that says so."""


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Calls by their dotted names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def mistakes(path: str, text: str) -> list[str]:
    """Calls that would unpickle or run what somebody else wrote."""
    found = []
    for name, call in calls(ast.parse(text)):
        given = {word.arg: ast.unparse(word.value) for word in call.keywords}
        if name == "pickle.loads" and path not in OWN_PICKLES:
            found.append(f"{path}:{call.lineno}: {name}")
        if name in FOREIGN or name in ("eval", "exec"):
            found.append(f"{path}:{call.lineno}: {name}")
        if name == "torch.load" and given.get("weights_only") != "True":
            found.append(f"{path}:{call.lineno}: torch.load without weights_only=True")
        if given.get("allow_pickle", "False") != "False" or given.get("shell", "False") != "False":
            found.append(f"{path}:{call.lineno}: {name} with pickles or a shell")
        # Local classes of transformers' own take none of it: those that are looked up by a name in the folder do.
        if (
            re.search(r"(^|\.)(Auto\w+|cls)\.from_pretrained$", name)
            and given.get("trust_remote_code", given.get(None)) not in ALLOWED
        ):
            found.append(f"{path}:{call.lineno}: {name} without trust_remote_code=False")
    return found


def test_nothing_is_unpickled_or_run_that_did_not_come_from_our_own_processes():
    assert len(CODE) > 200
    assert [said for path in CODE for said in mistakes(str(path.relative_to(ROOT)), path.read_text())] == []


@pytest.mark.parametrize(
    "line",
    ["pickle.loads(x)", "pickle.load(f)", "torch.load(f)", "torch.load(f, weights_only=False)", "np.load(f, allow_pickle=True)",
     "yaml.load(f, Loader=x)", "subprocess.run(x, shell=True)", "eval(x)", "AutoTokenizer.from_pretrained(f)"],
)  # fmt: skip
def test_such_a_call_is_found(line):
    assert len(mistakes("platform/linrep/x.py", line)) == 1


def test_code_in_a_model_s_folder_never_runs(random_vlm, tmp_path):
    """Classes of the folder's own for tokenizer, processor, configuration and model: left alone, or the model is refused."""
    folder, flag = tmp_path / "model", tmp_path / "it ran"
    shutil.copytree(random_vlm.path, folder)
    (folder / "evil.py").write_text(f"open({str(flag)!r}, 'w').close()\nclass Evil: pass\n")
    for name, classes in {
        "tokenizer_config.json": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]},
        "preprocessor_config.json": {"AutoImageProcessor": "evil.Evil"},
        "processor_config.json": {"AutoProcessor": "evil.Evil"},
        "config.json": {"AutoConfig": "evil.Evil", "AutoModelForImageTextToText": "evil.Evil"},
    }.items():
        said = json.loads((folder / name).read_text()) if (folder / name).is_file() else {}
        (folder / name).write_text(json.dumps(said | {"auto_map": classes}))
    for use in (lambda: load_processor(folder), lambda: write_untrained(folder, tmp_path / "untrained")):
        with contextlib.suppress(ModelError):
            use()
        assert not flag.exists()


def test_what_serves_pages_listens_on_this_machine_alone():
    hosts = {}
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in ("0.0.0.0", "::"):
                hosts[str(path.relative_to(ROOT))] = node.value
    assert hosts == {}


def test_ray_s_dashboard_is_at_loopback_unless_it_is_told_otherwise():
    """And nobody tells it so but Kubernetes, where a pod's loopback is nobody's."""
    from ray.scripts.scripts import start

    (host,) = [one.default for one in start.params if one.name == "dashboard_host"]
    assert host in ("127.0.0.1", "::1", "localhost")
    files = [ROOT / "cluster.yaml", *(ROOT / "deploy").iterdir(), *(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    opened = {path.name: found for path in files if (found := re.findall(r"dashboard-host[=: ]+(\S+)", path.read_text()))}
    assert opened == {
        "cluster.yaml": ["127.0.0.1"],
        "gcp.yaml": ["127.0.0.1"],
        "rayjob.yaml": ["0.0.0.0"],
        "raycluster.yaml": ["0.0.0.0"],
    }
    kinds = {one["kind"]: one for one in yaml.safe_load_all((ROOT / "deploy" / "raycluster.yaml").read_text())}
    assert kinds["RayCluster"]["spec"]["authOptions"] == {"mode": "token"}
    outside = [
        path.name
        for path in (ROOT / "deploy").glob("*.yaml")
        if re.search("LoadBalancer|NodePort|kind: Ingress", path.read_text())
    ]
    assert outside == []
