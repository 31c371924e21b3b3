"""A workspace in an object store: the same rows, resumable, one driver at a time."""

import pytest

import linrep.store
from linrep.cluster import lock
from linrep.cluster.lock import sole_driver
from linrep.cluster.run_harvest import run_harvest
from linrep.errors import WorkspaceBusy
from linrep.places import place
from tests.cluster.test_harvest import CONFIG, POOL, harvest_plainly, recipe_of
from tests.stores import assert_equal


@pytest.fixture(scope="module")
def bucket():
    """Names a folder of a local S3; the key travels in the URI, so that workers need no environment."""
    from moto.server import ThreadedMotoServer

    boto3 = pytest.importorskip("boto3")
    server = ThreadedMotoServer(port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        client = boto3.client(
            "s3",
            endpoint_url=f"http://{host}:{port}",
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        client.create_bucket(Bucket="work")
        yield lambda path: f"s3://test:test@work/{path}?region=us-east-1&scheme=http&endpoint_override={host}:{port}"
    finally:
        server.stop()


@pytest.mark.usefixtures("local_ray")
def test_a_harvest_into_an_object_store_equals_one_on_disk(bucket, corpora, random_vlm, tmp_path, monkeypatch):
    from linrep.harvest.plan import plan_harvest

    monkeypatch.chdir(tmp_path)  # the MLflow database of a workspace that cannot hold one lies in the current folder
    plain = harvest_plainly(plan_harvest("t", corpora, random_vlm, CONFIG, place(tmp_path / "plain")))
    recipe = recipe_of(corpora, random_vlm, pool=POOL)
    first = run_harvest(recipe, place(bucket("ws")))
    assert first.n_new == 8
    assert_equal(first.store, plain)
    assert run_harvest(recipe, place(bucket("ws"))).n_new == 0
    assert linrep.store.open(bucket("ws")).select("pooled", 2).polars().height == len(plain.select("pooled", 2))
    assert (tmp_path / "mlflow.db").exists()


def test_a_lease_keeps_the_second_driver_out_until_it_runs_out(bucket, monkeypatch):
    folder = place(bucket("leased"))
    with sole_driver(folder), pytest.raises(WorkspaceBusy, match="another driver"), sole_driver(folder):
        pass
    with sole_driver(folder):  # given back
        pass
    (folder / lock.LOCK).write_json({"id": "x", "time": 0, "who": "a driver that died long ago"})
    with sole_driver(folder):
        pass
