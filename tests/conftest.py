"""What tests of several packages share: a tiny model of random weights, small corpora, one local cluster."""

import tests.typecheck  # noqa: F401  isort: skip  # before the packages, whose functions it checks

import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from linrep.corpora import Corpora, ImageFolder, PairFiles, TextFiles
from linrep.vlm.config import ModelConfig

os.environ["MLFLOW_TRACKING_URI"] = ""  # never the server of whoever runs the tests
torch.set_num_threads(1)  # as actors have: sums are split by threads, and only the same split gives the same bits
SIZES = [(56, 56), (56, 100), (120, 56), (90, 90)]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that needs a cluster is slow, but for those that say that they are quick: each process of a cluster is seconds."""
    for item in items:
        if "local_ray" in getattr(item, "fixturenames", ()) and item.get_closest_marker("quick") is None:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def random_vlm(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    """A LLaVA-NeXT of four blocks, d = 32, random weights."""
    from linrep.vlm.random import write_random_vlm

    folder = tmp_path_factory.mktemp("model") / "random"
    return ModelConfig(path=str(write_random_vlm(folder, width=32, n_layers=4)))


def encoded_image(seed: int, brightness: float = 1.0) -> bytes:
    """A noise image as JPEG; every fourth one has another shape."""
    height, width = SIZES[seed % len(SIZES)]
    pixels = (brightness * np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def write_corpora(folder: Path, n_images: int = 22, n_texts: int = 17, n_pairs: int = 9) -> Corpora:
    """Images of two classes, texts, and captions of some of the images."""
    for i in range(n_images):
        path = folder / "images" / ("n01" if i % 2 else "n02") / f"p{i:03d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded_image(i))
    (folder / "images" / "classes.json").write_text(json.dumps({"n01": "tench", "n02": "church"}))
    words = ["a", "boat", "on", "the", "water", "near", "some", "tall", "trees", "and", "one", "red", "house"]
    texts = [{"id": f"t{i}", "text": " ".join(words[: 2 + i % len(words)])} for i in range(n_texts)]
    (folder / "text.jsonl").write_text("".join(json.dumps(t) + "\n" for t in texts))
    pairs = [
        {"id": f"p{i}", "image": f"images/{'n01' if i % 2 else 'n02'}/p{i:03d}.JPEG", "text": " ".join(words[: 3 + i])}
        for i in range(n_pairs)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(p) + "\n" for p in pairs))
    return Corpora(
        images=ImageFolder(path=str(folder / "images")),
        text=TextFiles(path=str(folder / "text.jsonl")),
        pairs=PairFiles(path=str(folder / "pairs.jsonl")),
    )


@pytest.fixture(scope="session")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Corpora:
    """22 images, 17 texts, 9 pairs with their captions alone: 57 samples."""
    return write_corpora(tmp_path_factory.mktemp("corpora"))


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One cluster for all tests of this process; more logical CPUs than real ones, so that nothing waits for a slot."""
    import logging

    import ray

    from linrep.cluster.session import PATHS

    ray.init(
        "local",
        num_cpus=8,
        include_dashboard=False,
        object_store_memory=300_000_000,
        logging_level=logging.ERROR,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": PATHS}},
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def s3_address() -> Iterator[tuple[str, int]]:
    """Host and port of a local S3."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        yield server.get_host_and_port()
    finally:
        server.stop()


@pytest.fixture
def bucket(s3_address: tuple[str, int]) -> Callable[[str], str]:
    """Names a folder of a local S3; the key travels in the URI, so that workers need no environment."""
    boto3 = pytest.importorskip("boto3")
    host, port = s3_address
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    client.create_bucket(Bucket="work")  # anew for each test: one that simulates AWS in this process takes all buckets away
    return lambda path: f"s3://test:test@work/{path}?region=us-east-1&scheme=http&endpoint_override={host}:{port}"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real images and texts beside the project."""
    folder = Path(os.environ.get("LINREP_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not (folder / "imagenette").is_dir():
        pytest.skip(f"no real photographs and texts at {folder}: set LINREP_DATA")
    return folder
