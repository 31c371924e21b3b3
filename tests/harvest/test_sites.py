"""Rows of what attention and MLP add, against a plain pass of each sample alone; and the store that holds them."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest

import linrep.store
from linrep.config import digest
from linrep.corpora import Corpora
from linrep.errors import RecipeError, StoreError
from linrep.harvest.config import HarvestConfig
from linrep.harvest.harvester import Harvester
from linrep.harvest.plan import plan_harvest
from linrep.places import place
from linrep.store import Store
from linrep.store.limits import norm_limits
from linrep.vlm.batch import collate
from linrep.vlm.config import ModelConfig
from linrep.vlm.hooks import forward
from linrep.vlm.load import VLM
from linrep.vlm.prepared import Prepared, Role
from linrep.vlm.recorder import record_sites
from linrep.vlm.sites import Site
from tests.harvest.test_harvester import ALL, LAYERS, prepared, rows_of, vlm  # noqa: F401
from tests.steering import write_workspace

BOTH = ALL.model_copy(update={"sites": ("attention", "mlp")})
ADDED = [Site(site, layer) for site in BOTH.sites for layer in (0, 2)]


@pytest.fixture(scope="module")
def alone(vlm: VLM, prepared: list[Prepared]) -> dict[str, dict[Site, np.ndarray]]:  # noqa: F811
    """What is added in each sample on its own."""
    found = {}
    for one in prepared:
        with record_sites(vlm, ADDED) as seen:
            forward(vlm, collate([one], vlm))
        found[one.sample.id] = {site: h[0].numpy().copy() for site, h in seen.items()}
    return found


def test_rows_of_a_site_equal_a_plain_pass_of_each_sample_alone(vlm, prepared, alone):  # noqa: F811
    rows = rows_of(vlm, BOTH, prepared)
    by_id = {one.sample.id: one for one in prepared}
    for site, modality in product(ADDED, ("image", "text")):
        whole = {name: own[site] for name, own in alone.items()}
        size = max(np.abs(h).max() for h in whole.values())
        for row in rows[f"tokens/site={site.name}", site.layer, modality]:
            assert np.abs(row["vector"] - whole[row["sample_id"]][row["position"]]).max() <= 2e-5 * size
        for row in rows[f"last/site={site.name}", site.layer, modality]:
            assert np.abs(row["vector"] - whole[row["sample_id"]][-1]).max() <= 2e-5 * size
        wanted = (Role.IMAGE, Role.NEWLINE) if modality == "image" else (Role.TEXT,)
        for row in rows[f"pooled/site={site.name}", site.layer, modality]:
            mean = whole[row["sample_id"]][np.isin(by_id[row["sample_id"]].role, wanted)].mean(0)
            assert np.abs(row["vector"] - mean).max() <= 2e-5 * size
    for site in ADDED:
        n = sum(len(rows[f"tokens/site={site.name}", site.layer, modality]) for modality in ("image", "text"))
        assert n == sum(map(len, prepared))


def test_beside_sites_the_residual_stream_is_the_same_and_layer_n_has_none(vlm, prepared):  # noqa: F811
    plain, both = rows_of(vlm, ALL, prepared[:4]), rows_of(vlm, BOTH, prepared[:4])
    for key, rows in plain.items():
        for one, other in zip(rows, both[key], strict=True):
            assert (one.pop("vector") == other.pop("vector")).all()
            assert one == other
    assert {key[1] for key in both if "site=" in key[0]} == {0, 2}
    assert len(both) == len(plain) + 2 * sum(key[1] != LAYERS[-1] for key in plain)


def test_a_recipe_without_sites_has_the_digest_that_it_had_before_there_were_any():
    """By hand: the section as it was."""
    before = {name: value for name, value in ALL.model_dump(mode="json").items() if name != "sites"}
    assert digest(ALL) == digest(before)
    assert "sites" not in ALL.model_dump()
    assert HarvestConfig.model_validate(BOTH.model_dump()) == BOTH
    assert digest(BOTH) != digest(ALL)
    assert HarvestConfig(sites=("mlp", "attention", "mlp")) == HarvestConfig(sites=("attention", "mlp"))


def test_a_sites_limits_are_held_against_its_own_norms(vlm, prepared):  # noqa: F811
    """All text tokens of one site at one layer are of high norm: it has no means of texts there, all others have theirs."""
    harvester = Harvester(vlm, BOTH, LAYERS, 10**6, {(0, "mlp_text"): 1e-9})
    keys, sums = set(), {}
    for rows in harvester(prepared):
        keys |= {(folder, layer) for (folder, layer, modality), table in rows.tables.items() if modality == "text" and len(table)}
        sums |= rows.sums
    pooled = {("pooled", 0), ("pooled", 2), ("pooled", 4), ("pooled/site=attention", 0), ("pooled/site=attention", 2)}
    assert {key for key in keys if key[0].startswith("pooled")} == pooled | {("pooled/site=mlp", 2)}
    assert (sums[0, "mlp_text"].n, sums[0, "text"].n_high_norm, sums[2, "mlp_text"].n_high_norm) == (0, 0, 0)
    assert sums[0, "mlp_text"].n_high_norm == sums[0, "text"].n > 0


@pytest.fixture(scope="module")
def store(corpora: Corpora, random_vlm: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Store:
    config = HarvestConfig(layers=(0, 2, 4), sites=("mlp",), chunk_size=16)
    workspace = write_workspace(tmp_path_factory.mktemp("ws"), "t", corpora, random_vlm, config)
    return linrep.store.open(str(workspace))


def test_a_store_gives_the_rows_of_a_site_and_knows_its_files(store):
    plain, added = store.select("tokens", 2, "image"), store.select("tokens", 2, "image", site="mlp")
    assert len(plain) > 0
    assert {file.path.split("/part-")[0] for file in plain.files} == {"tokens/layer=2/modality=image"}
    assert {file.path.split("/part-")[0] for file in added.files} == {"tokens/site=mlp/layer=2/modality=image"}
    names = ["sample_id", "position"]
    assert (
        store.select("tokens", 2, "image", high_norm=None, site="mlp")
        .table(names)
        .equals(store.select("tokens", 2, "image", high_norm=None).table(names))
    )
    assert added.torch().shape[1] == store.manifest.width
    assert not store.strangers()
    assert "residual, mlp: each has these rows" in str(store)


def test_a_damaged_file_of_a_site_is_found(store, tmp_path):
    assert store.verify().whole
    file = Path(store.place.path) / store.select("last", 0, "image", site="mlp").files[0].path
    whole = file.read_bytes()
    file.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    try:
        assert not store.verify().whole
    finally:
        file.write_bytes(whole)


def test_statistics_and_limits_know_a_site(store):
    sums = store.statistics()
    for group in ("image", "text", "special", "last_image"):
        assert sums[0, f"mlp_{group}"].n + sums[0, f"mlp_{group}"].n_high_norm == sums[0, group].n + sums[0, group].n_high_norm
        assert (4, f"mlp_{group}") not in sums
    assert store.limit("tokens/site=mlp", 2, "image") == pytest.approx(10 * sums[2, "mlp_image"].norm_quantile(0.5), rel=1e-6)
    assert store.limit("pooled/site=mlp", 2, "image") == float("inf")
    limits = norm_limits(sums)
    assert limits[0, "mlp_special"] == limits[0, "mlp_text"] != limits[0, "text"]  # they stand under the site's texts


@pytest.mark.parametrize(
    ("layer", "site", "reason"),
    [
        (0, "attention", "no site 'attention' in .*: it has residual, mlp"),
        (4, "mlp", "no mlp at layer 4 in .*: no block begins there"),
    ],
)
def test_what_a_store_lacks_is_refused_by_name(store, layer, site, reason):
    with pytest.raises(StoreError, match=reason):
        store.select("tokens", layer, site=site)


def test_a_recipe_of_layer_n_alone_has_no_sites(corpora, random_vlm, tmp_path):
    config = HarvestConfig(layers=(4,), sites=("mlp",))
    with pytest.raises(RecipeError, match=r"harvest\.sites: no block begins at layer 4"):
        plan_harvest("t", corpora, random_vlm, config, place(tmp_path))
