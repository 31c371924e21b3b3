"""What weights and other encoders say of latents: words, neighbours, monosemanticity, uniqueness; files of embeddings."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.numpy import save_file

from linrep.errors import ModelError, RecipeError
from linrep.features.embeddings import read_embedded
from linrep.features.monosemanticity import Embedded, Weighted
from linrep.features.peaks import Peaks
from linrep.features.uniqueness import unique
from linrep.features.words import lens, nearest
from linrep.places import place
from linrep.store.tables import write_table
from linrep.vlm.config import ModelConfig
from linrep.vlm.load import load
from linrep.vlm.unembed import Unembedding, read_unembedding

N, F, E = 40, 6, 5


def activations(seed: int = 0) -> np.ndarray:
    """Activations of 40 images; latent 0 fires on all, latent 5 on none, latent 4 on one."""
    rng = np.random.default_rng(seed)
    a = rng.random((N, F)) * (rng.random((N, F)) < 0.4)
    a[:, 0] = 1 + rng.random(N)
    a[:, 4:] = 0
    a[3, 4] = 1
    return a.astype(np.float32)


def weighted(a: np.ndarray, units: np.ndarray, of: np.ndarray, parts: int) -> Weighted:
    made = [Weighted(F, E) for _ in range(parts)]
    for i, some in enumerate(np.array_split(np.random.default_rng(1).permutation(N), 7)):
        row, latent = np.nonzero(a[some])
        own = Peaks(some[row], latent, a[some[row], latent], np.zeros(len(row), np.int32))
        made[i % parts].add(own, some, Embedded(of, units))
    for other in made[1:]:
        made[0].merge(other)
    return made[0]


@pytest.mark.parametrize("parts", [1, 3])
def test_monosemanticity_is_the_sum_over_all_pairs_of_images(parts):
    rng = np.random.default_rng(2)
    units = rng.standard_normal((N - 2, E))
    units = (units / np.linalg.norm(units, axis=1, keepdims=True)).astype(np.float32)
    of = np.concatenate([[-1], np.arange(N - 2), [-1]])  # two samples have no vector
    a = activations()
    found = weighted(a, units, of, parts)
    scores = found.scores(2)
    has, s = np.flatnonzero(of >= 0), units.astype(float) @ units.T.astype(float)
    pairs = [(n, m) for n in range(len(has)) for m in range(n)]
    for k in range(4):
        own = a[has, k].astype(float)
        own = (own - own.min()) / (own.max() - own.min())
        by_hand = sum(own[n] * own[m] * s[n, m] for n, m in pairs) / sum(own[n] * own[m] for n, m in pairs)
        assert scores[k] == pytest.approx(by_hand, rel=1e-5), k
    assert np.isnan(scores[4:]).all()
    assert found.chance == pytest.approx(np.mean([s[n, m] for n, m in pairs]), rel=1e-5)


def test_a_latent_of_one_kind_of_image_scores_one_and_a_blind_one_chance():
    kinds = np.eye(E, dtype=np.float32)[np.arange(N) % E]
    a = np.zeros((N, F), np.float32)
    a[::E, 0] = 2.0  # one kind alone
    a[:, 1] = np.where(np.arange(N) % E < 2, 1.0, 0.0)  # two kinds alike
    a[:, 2] = 1.0
    a[0, 2] = 0.0
    found = weighted(a, kinds, np.arange(N), 1)
    n, own = 16, 8
    assert found.scores(2)[0] == pytest.approx(1.0)
    assert found.scores(2)[1] == pytest.approx(2 * own * (own - 1) / (n * (n - 1)))
    assert found.scores(2)[2] == pytest.approx(found.chance, abs=0.01)


def test_uniqueness_is_one_minus_the_largest_jaccard_index():
    rng = np.random.default_rng(0)
    sets = [set(rng.choice(30, size=rng.integers(0, 8), replace=False).tolist()) for _ in range(25)]
    sets[7] = sets[3] = {1, 2, 3}
    sets[9] = set()
    sets[11] = {100, 101}
    pairs = [(j, s) for j, own in enumerate(sets) for s in own]
    found = unique(np.array([j for j, _ in pairs]), np.array([s for _, s in pairs]), 25)
    for j, own in enumerate(sets):
        index = [len(own & other) / len(own | other) if i != j and own | other else 0 for i, other in enumerate(sets)]
        if not own:
            assert np.isnan(found.uniqueness[j])
            continue
        assert found.uniqueness[j] == pytest.approx(1 - max(index))
        assert found.most_alike[j] == (int(np.argmax(index)) if max(index) else -1)
    assert found.uniqueness[3] == 0
    assert found.uniqueness[11] == 1
    assert np.isnan(unique(np.zeros(0, np.int64), np.zeros(0, np.int64), 3).uniqueness).all()


def test_neighbours_are_the_nearest_by_cosine():
    torch.manual_seed(0)
    decoder = torch.randn(20, 6) * torch.rand(20, 1)
    decoder[4] = 3 * decoder[11]
    cosines, who = nearest(decoder, 3, 9, 4)
    for row, j in enumerate(range(3, 9)):
        all_of = torch.nn.functional.cosine_similarity(decoder[j][None], decoder)
        all_of[j] = -2
        assert who[row].tolist() == all_of.argsort(descending=True)[:4].tolist()
        torch.testing.assert_close(cosines[row], all_of.sort(descending=True).values[:4])
    assert who[1, 0] == 11


def test_a_latent_that_writes_a_token_names_it_first():
    torch.manual_seed(0)
    matrix = torch.randn(30, 8)
    words = Unembedding(matrix - matrix.mean(0), tuple(f"w{i}" for i in range(30)))
    ends = lens(torch.stack([matrix[7] * 5, -matrix[3] * 5]), words, 3)
    assert ends.high_at[0, 0] == 7
    assert ends.low_at[1, 0] == 3
    logits = words.matrix @ (matrix[7] * 5)
    torch.testing.assert_close(ends.low[0], logits.sort().values[:3])


def test_the_lens_is_the_models_own_head_and_norm(random_vlm):
    found = read_unembedding(random_vlm)
    whole = load(random_vlm, None)
    norm = whole.text.norm
    with torch.no_grad():
        norm.weight.copy_(torch.rand(len(norm.weight)) + 0.5)
        x = torch.randn(3, len(norm.weight))
        x = x / x.pow(2).mean(1, keepdim=True).sqrt()  # the norm divides by 1 then
        logits = whole.model.lm_head(norm(x))
    # The same with the weights that are on disk.
    on_disk = load(random_vlm, None)
    with torch.no_grad():
        theirs = on_disk.model.lm_head(on_disk.text.norm(x))
    mine = x @ found.matrix.T
    torch.testing.assert_close(mine, theirs - theirs.mean(1, keepdim=True), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(mine, logits - logits.mean(1, keepdim=True), atol=1e-2)
    assert len(found.words) == len(found.matrix)


def test_a_model_without_weights_is_one_line(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        read_unembedding(ModelConfig(path=str(tmp_path / "nothing")))


def test_embeddings_are_read_from_both_forms_and_refused_by_name(tmp_path):
    ids = [f"s{i}" for i in range(6)]
    vectors = np.arange(1, 13, dtype=np.float32).reshape(4, 3)
    names = ["s4", "other", "s0", "s2"]
    table = pa.table({"sample_id": names, "vector": pa.array(vectors.tolist(), pa.list_(pa.float32()))})
    write_table(place(tmp_path), "e.parquet", table)
    save_file({"vectors": vectors}, tmp_path / "e.safetensors", {"sample_ids": json.dumps(names)})
    one, first = read_embedded(str(tmp_path / "e.parquet"), ids)
    other, second = read_embedded(str(tmp_path / "e.safetensors"), ids)
    assert first == second
    assert one.of.tolist() == [0, -1, 1, -1, 2, -1]
    np.testing.assert_array_equal(one.units, other.units)
    np.testing.assert_allclose(one.units[0], vectors[2] / np.linalg.norm(vectors[2]))
    for name, match in (("no.parquet", "no file at"), ("bad.parquet", "it needs sample_id and vector")):
        if name.startswith("bad"):
            write_table(place(tmp_path), name, pa.table({"a": [1]}))
        with pytest.raises(RecipeError, match=match):
            read_embedded(str(tmp_path / name), ids)
    with pytest.raises(RecipeError, match="names 0 samples of the harvest"):
        read_embedded(str(tmp_path / "e.parquet"), ["z"])
    save_file({"vectors": vectors}, tmp_path / "f.safetensors")
    with pytest.raises(RecipeError, match="a JSON list of 4 names"):
        read_embedded(str(tmp_path / "f.safetensors"), ids)
