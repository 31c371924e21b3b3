"""What is pushed, as others load it: SAELens by the repository's name, `datasets` by the card's configurations.

The hub is the one of the tests, in this process. Without sae-lens, which brings `datasets`, every test here is skipped.
"""

import io
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from linrep.places import place
from linrep.sae import formats
from linrep.store.excerpt import vectors_excerpt
from linrep.store.tables import write_table
from tests.hub.conftest import point_to
from tests.hub.fake_hub import WRITES, FakeHub
from tests.sae.saes import inputs
from tests.store.planted_store import numbered, write_store

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """The hub, for every library of this process."""
    pytest.importorskip("sae_lens", reason="sae-lens is not installed here: `make test-peers` has it")
    import datasets

    with FakeHub() as fake:
        point_to(fake.url, tmp_path, monkeypatch)
        monkeypatch.setenv("HF_TOKEN", WRITES)
        for module in (datasets.config, datasets.utils.file_utils.config):
            monkeypatch.setattr(module, "HF_ENDPOINT", fake.url)
            monkeypatch.setattr(module, "HF_DATASETS_CACHE", tmp_path / "datasets")
            monkeypatch.setattr(module, "HF_HUB_OFFLINE", False)
        yield fake


def sent(hub: FakeHub, name: str, kind: str, files: dict[str, Path | bytes]) -> None:
    """A repository with the files of a bundle."""
    hub.make(name, kind).put({path: own if isinstance(own, bytes) else own.read_bytes() for path, own in files.items()})


@torch.no_grad()
def test_saelens_loads_what_is_pushed_by_its_name(hub: FakeHub, tmp_path: Path) -> None:
    import sae_lens

    from linrep.hub.bundle import Wishes
    from linrep.hub.saes import SaeChoice, bundle_saes
    from tests.hub.planted import NAMES, planted_saes

    trained = planted_saes(tmp_path / "ws", "llava-hf/llava-v1.6-mistral-7b-hf")
    bundle = bundle_saes(place(tmp_path / "ws"), "me/saes", SaeChoice(), Wishes(), None)
    sent(hub, "me/saes", "model", dict(bundle.files))
    for layer in (2, 4):
        folder = f"layer-{layer:03d}/{NAMES[1]}"
        theirs = sae_lens.SAE.from_pretrained("me/saes", folder)
        ours, x = formats.read(f"hf://me/saes/{folder}"), inputs()
        assert ours.digest == formats.read(trained.place / folder).digest
        torch.testing.assert_close(theirs.encode(x), ours.encode(x), rtol=1e-5, atol=1e-5)
        assert theirs.cfg.metadata.model_name == "llava-hf/llava-v1.6-mistral-7b-hf"
        assert theirs.cfg.metadata.hook_name == f"blocks.{layer - 1}.hook_resid_post"


def test_datasets_loads_every_table_of_pushed_results(hub: FakeHub, tmp_path: Path) -> None:
    import datasets

    from linrep.hub.bundle import Wishes
    from linrep.hub.results import bundle_results
    from tests.hub.planted import planted_workspace

    bundle = bundle_results(
        place(planted_workspace(tmp_path / "ws")), "me/results", (), Wishes(license="mit"), place(tmp_path / "scratch")
    )
    sent(hub, "me/results", "dataset", dict(bundle.files))
    names = datasets.get_dataset_config_names("me/results")
    assert len(names) == sum(path.endswith(".parquet") for path in bundle.files)
    probes = datasets.load_dataset("me/results", "probe-probes", split="train")
    assert probes["top1"] == pq.read_table(next((tmp_path / "ws").glob("probes/*/probes.parquet")))["top1"].to_pylist()
    assert datasets.load_dataset("me/results", split="train").num_rows == probes.num_rows  # it comes first


def test_datasets_loads_vectors_and_images_of_a_sample(hub: FakeHub, tmp_path: Path) -> None:
    import datasets

    from linrep.hub.cards import front_matter
    from linrep.hub.sample import IMAGE, with_images

    rows = numbered(6, 8).astype(np.float16)
    store = write_store(tmp_path / "s", {(3, "image"): [rows]})
    vectors = vectors_excerpt(store, "tokens", 3, [f"image/0-{i}" for i in range(6)], texts=False)
    png = io.BytesIO()
    Image.new("RGB", (5, 3), "red").save(png, "PNG")
    samples = with_images(pa.table({"sample_id": ["a", "b"]}), [{"bytes": png.getvalue(), "path": None}, None])
    assert samples.schema.field("image").type == IMAGE
    write_table(place(tmp_path), "vectors.parquet", vectors)
    write_table(place(tmp_path), "samples.parquet", samples)
    configs = [{"config_name": name, "data_files": f"data/{name}.parquet"} for name in ("vectors", "samples")]
    card = "\n".join(front_matter(huggingface_hub.DatasetCardData(configs=configs)))
    files = {f"data/{name}.parquet": tmp_path / f"{name}.parquet" for name in ("vectors", "samples")}
    sent(hub, "me/sample", "dataset", {**files, "README.md": card.encode()})
    loaded = datasets.load_dataset("me/sample", "vectors", split="train").with_format("numpy")
    np.testing.assert_array_equal(np.stack(loaded["vector"]), rows.astype(np.float32))
    shown = datasets.load_dataset("me/sample", "samples", split="train")
    assert shown[0]["image"].size == (5, 3)
    assert shown[1]["image"] is None
