"""The harvest submitted to a cluster, as on a cloud: a head with token authentication, the working directory uploaded."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

import linrep.store
from linrep import tracking
from tests.house.local_head import local_head
from tests.jobs.test_harvest_job import command, run, write_recipe
from tests.stores import assert_equal

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_submitted_harvest_equals_the_direct_one(corpora, random_vlm, tmp_path):
    recipe = write_recipe(tmp_path, corpora, random_vlm)
    direct = run(*command(recipe, tmp_path / "direct"))
    assert direct.returncode == 0, direct.stderr
    words = ["env", f"{tracking.COMMIT}={'ab' * 20}-dirty", "python", "jobs/harvest.py"]
    words += ["--config", str(recipe), "--workspace", str(tmp_path / "submitted"), "--pool.gpus", "0"]
    with local_head() as head:
        for expected in ("The harvest is complete.", "Nothing to do: the harvest is complete."):
            done = head.submit(words, working_dir=ROOT, runtime_env=ROOT / "deploy/runtime_env.yaml", timeout_s=300)
            assert done.returncode == 0, done.stdout
            assert expected in done.stdout
            assert "succeeded" in done.stdout.lower()
    assert_equal(linrep.store.open(str(tmp_path / "submitted")), linrep.store.open(str(tmp_path / "direct")))
    client = MlflowClient(f"sqlite:///{tmp_path}/submitted/mlflow.db")
    (run_of_job,) = client.search_runs([client.get_experiment_by_name(tracking.EXPERIMENT).experiment_id])
    assert (run_of_job.data.tags["git.commit"], run_of_job.data.tags["git.changed"]) == ("ab" * 20, "true")
