"""Reading a sequence: every part against a plain reference, and the same sample from a store and from the live model."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from linrep.directions import Directions, DirectionSet
from linrep.errors import RecipeError
from linrep.probe.closed import class_means, lda
from linrep.probe.moments import gather
from linrep.reading.changes import NamedEdit, NamedLatent, parse_edit, parse_latent
from linrep.reading.latents import NONE, Strongest, peaks, strongest
from linrep.reading.live import high_norm, read_live
from linrep.reading.probes import Probe, probes_of, read_probes
from linrep.reading.read import Reader, ReadSae, mean_vector
from linrep.reading.stored import find_samples, read_stored
from linrep.reading.tokens import Tokens
from linrep.sae.controls import random_sae
from linrep.steer.sinks import NormLimits
from linrep.store.read import Store
from linrep.store.read import open as open_store
from linrep.store.tables import table_of
from linrep.vlm.card import describe
from linrep.vlm.config import ModelConfig
from linrep.vlm.decode import embed, lens
from linrep.vlm.families import layout
from linrep.vlm.load import VLM, load
from linrep.vlm.nearest_words import nearest_words
from linrep.vlm.prepare import Preparer
from linrep.vlm.prepared import Prepared
from linrep.vlm.unembed import read_unembedding
from schemas.probes import PROBE_LABELS, PROBES
from tests.reading.workspace import HARVEST, SAMPLE, write_store

MORE = ("centred", "n_per_class", "top1", "chance")


@pytest.fixture(scope="module")
def vlm(random_vlm: ModelConfig) -> VLM:
    return load(random_vlm, None)


@pytest.fixture(scope="module")
def store(random_vlm: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(str(write_store(tmp_path_factory.mktemp("read"), random_vlm)))


@pytest.fixture(scope="module")
def prepared(random_vlm: ModelConfig) -> Prepared:
    found = Preparer.from_path(random_vlm, image_prompt="a <image> what is it ?")(SAMPLE)
    assert isinstance(found, Prepared)
    return found


def test_the_strongest_latents_are_those_of_a_sort_of_the_dense_code():
    sae, x = random_sae(torch.randn(64, 12), 30, 5), torch.randn(9, 12, generator=torch.Generator().manual_seed(3))
    keep = torch.ones(9, dtype=torch.bool)
    keep[4] = False
    found, dense = strongest(sae, x, 3, keep), sae.encode(x)
    assert (dense[keep] > 0).sum(1).min() > 3
    for row in range(9):
        fires = sorted(((float(v), -i) for i, v in enumerate(dense[row]) if v > 0), reverse=True)
        wanted = [(-i, v) for v, i in fires][:3] if keep[row] else []
        wanted += [(NONE, 0.0)] * (3 - len(wanted))
        assert found.latents[row].tolist() == [latent for latent, _ in wanted]
        assert found.values[row].tolist() == pytest.approx([value for _, value in wanted])
        assert int(found.n_active[row]) == (len(fires) if keep[row] else 0)


def test_peaks_name_each_latent_once_with_its_largest_activation():
    latents, values = torch.tensor([[7, 2], [2, 5], [7, NONE]]), torch.tensor([[1.0, 0.5], [3.0, 2.0], [9.0, 0.0]])
    found = peaks(Strongest(latents, values, torch.tensor([2, 2, 1])), torch.tensor([True, True, False]), 2)
    assert found.latents.tolist() == [2, 5]
    assert found.values.tolist() == [3.0, 2.0]
    assert found.positions.tolist() == [1, 1]
    assert found.n_tokens.tolist() == [2, 1]


def test_nearest_words_are_those_of_the_models_own_norm_and_head(vlm, random_vlm, prepared):
    stream = embed(vlm, [prepared])[0]
    everywhere = torch.ones(len(stream), dtype=torch.bool)
    logits = dict(lens(vlm, stream, dict.fromkeys((0, 3, 4), everywhere), piece=10_000))
    reading, _ = read_live(vlm, prepared, Reader((), read_unembedding(random_vlm), (), 8, 4), (0, 3, 4), {}, 2)
    for i, layer in enumerate((0, 3, 4)):
        wanted = logits[layer].softmax(-1).topk(4)
        assert reading.words is not None
        assert torch.equal(reading.words.ids[i], wanted.indices)
        torch.testing.assert_close(reading.words.p[i], wanted.values, atol=1e-6, rtol=1e-4)


def test_no_vectors_have_no_words(random_vlm):
    found = nearest_words(torch.zeros(2, 0, 32), read_unembedding(random_vlm), 3)
    assert found.ids.shape == found.p.shape == (2, 0, 3)


def test_a_probe_rebuilt_from_directions_and_labels_gives_the_fitted_posteriors():
    rng = np.random.default_rng(0)
    y = np.concatenate([np.arange(3), rng.choice(3, 200, p=[0.6, 0.3, 0.1])])
    x = torch.from_numpy(5 + rng.standard_normal((len(y), 8)) + 1.5 * rng.standard_normal((3, 8))[y])
    moments, names = gather(x, {"y": y}), ("boat", "tree", "key")
    (fitted,), means = lda(moments, "y", [0.1]), class_means(moments, "y")

    def entry(kind: str, vectors: torch.Tensor) -> Directions:
        return Directions(kind, 2, "pooled", "image", "class", names, vectors.float(), 1.0)

    entries = (entry("class_mean", means.centre + means.weights.T), entry("lda", fitted.weights.T.contiguous()))
    same = {"modality": "image", "attribute": "class", "shuffled": "tree"}
    labels = [
        {"sample_id": f"s{i}", "split": split, "class_name": names[c], **same}
        for split, codes in (("train", y), ("test", y[:3]))
        for i, c in enumerate(codes)
    ]
    score = {"attribute": "class", "view": "pooled", "layer": 2, "kind": "lda", "tested_on": "image", "fitted_on": "image"}
    scores = table_of([{**score, "centred": False, "top1": 0.75, "chance": 0.5}], pa.schema(map(PROBES.field, [*score, *MORE])))
    probes = probes_of(DirectionSet(entries), pa.Table.from_pylist(labels, schema=PROBE_LABELS), scores, "image")
    assert len(probes) == 1
    for row in x[:40]:
        (found,) = read_probes({("pooled", 2): row.float()}, probes)
        wanted = fitted.scores(row[None]).softmax(-1)[0].sort(descending=True)
        assert (found.value, found.runner_up) == tuple(names[i] for i in wanted.indices[:2].tolist())
        assert (found.p, found.p_runner_up) == pytest.approx(tuple(wanted.values[:2].tolist()), abs=1e-4)
        assert (found.top1, found.chance) == (0.75, 0.5)


def test_probes_read_only_vectors_of_their_view_and_layer_that_are_finite():
    linear = class_means(gather(torch.eye(4).double(), {"y": np.array([0, 1, 0, 1])}), "y")
    probe = Probe("class", "pooled", 2, "image", ("a", "b"), linear)
    x = torch.ones(4)
    assert len(read_probes({("pooled", 2): x}, [probe])) == 1
    for vectors in ({("last", 2): x}, {("pooled", 1): x}, {("pooled", 2): x / 0}):
        assert read_probes(vectors, [probe]) == ()


def test_a_stored_sample_reads_as_the_live_one(vlm, store, random_vlm, prepared):
    """The store holds every token of it, in float32: latents, words, means and places are the same."""
    saes = [ReadSae(2, "random", random_sae(torch.randn(64, 32), 24, 4))]
    eye = class_means(gather(torch.randn(40, 32).double(), {"y": np.arange(40) % 3}), "y")
    probes = [Probe("class", view, layer, "image", ("a", "b", "c"), eye) for view in ("pooled", "last") for layer in (0, 2)]
    reader = Reader(saes, read_unembedding(random_vlm), probes, 5, 3)
    live, _ = read_live(vlm, prepared, reader, (0, 2), {}, 1)
    ((name, held),) = read_stored(store, ["images/n02/p000.JPEG"], reader)
    assert name == "images/n02/p000.JPEG"
    for field in Tokens.__dataclass_fields__:
        assert np.array_equal(getattr(held.tokens, field), getattr(live.tokens, field)), field
    assert (held.n_image, held.n_text, held.seen, held.layers) == (live.n_image, live.n_text, live.seen, live.layers)
    assert held.words is not None
    assert live.words is not None
    torch.testing.assert_close(held.words.p, live.words.p, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(held.fires[0].strongest.values, live.fires[0].strongest.values, atol=1e-4, rtol=1e-4)
    assert torch.equal(held.fires[0].strongest.latents, live.fires[0].strongest.latents)
    assert len(held.probes) == len(live.probes) == 4
    for a, b in zip(held.probes, live.probes, strict=True):
        assert (a.value, a.view, a.layer) == (b.value, b.view, b.layer)
        assert a.p == pytest.approx(b.p, abs=1e-4)


def test_a_draw_of_tokens_says_how_many_there_are(random_vlm, tmp_path):
    drawn = HARVEST.model_copy(update={"tokens_per_sample": 6})
    held = open_store(str(write_store(tmp_path, random_vlm, drawn)))
    names = [name for name in held.samples()["sample_id"].to_pylist() if name.startswith("images/")]
    found = dict(read_stored(held, names, Reader()))
    assert list(found) == sorted(names)
    known = find_samples(held, names)
    for name, reading in found.items():
        assert int(reading.tokens.of_image.sum()) == 6 < reading.n_image == known[name].n_image
        assert (np.diff(reading.tokens.position) > 0).all()
        boxes = reading.tokens.boxes(reading.seen, describe(random_vlm))
        assert all(box is None or 0 <= box[0] <= box[2] <= 1 for box in boxes)
    with pytest.raises(ValueError, match="no sample 'images/gone'"):
        list(read_stored(held, ["images/gone"], Reader()))


def test_tokens_of_high_norm_are_kept_apart(vlm, prepared):
    h = torch.ones(1, len(prepared), 4)
    at = int(np.flatnonzero(prepared.role >= 2)[3])
    h[0, at] = 50
    limits = {7: NormLimits(10.0, 10.0, 10.0)}
    high = high_norm(h, (7,), prepared, limits)
    assert high[0].nonzero()[:, 0].tolist() == [at]
    mean = mean_vector(h[0], prepared.role >= 2, high[0])
    assert mean is not None
    assert mean.tolist() == [1.0] * 4
    sae = ReadSae(7, "s", random_sae(torch.randn(16, 4), 6, 2))
    reading = Reader([sae]).read(h, (7,), Tokens.of(prepared), high, {})
    assert int(reading.fires[0].strongest.n_active[at]) == 0
    assert int(reading.fires[0].strongest.n_active.sum()) > 0


def test_boxes_are_shares_of_the_image(prepared, random_vlm):
    card = describe(random_vlm)
    tokens = Tokens.of(prepared)
    boxes = tokens.boxes(prepared.image_size, card)
    side = card.tile_size // card.patch_size
    first = [box for box, tile in zip(boxes, tokens.tile, strict=True) if tile == 0]
    assert first[0] == pytest.approx((0, 0, 1 / side, 1 / side))
    assert first[-1] == pytest.approx((1 - 1 / side, 1 - 1 / side, 1, 1))
    assert sum(box is not None for box in boxes) == int((tokens.role == 2).sum())
    assert layout(prepared.image_size, card).n_tokens == int(tokens.of_image.sum())


def test_edits_are_read_as_they_are_typed():
    classes = ["a:b", "c", "d@2", "e=1"]
    assert parse_latent("309=4.0") == NamedLatent(309, 4.0)
    assert parse_latent("3@2=-1e1") == NamedLatent(3, -10.0, 2)
    assert parse_edit("a:b:c@4=2", classes) == NamedEdit("a:b", "c", 4, 2.0)
    assert parse_edit("c:d@2", ["c", "d"]) == NamedEdit("c", "d", 2)
    assert parse_edit("c:e=1=3", classes) == NamedEdit("c", "e=1", None, 3.0)
    for wrong in ("309", "x=1", "3@=1", "3=nan", "3=", "=4"):
        with pytest.raises(RecipeError, match=r"--latent .*for example"):
            parse_latent(wrong)
    mistaken = {"c": "no pair of classes", "c:c": "two classes", "c:dd@2=1": "no class 'dd'", "boat:c": "no class 'boat'"}
    for wrong, said in mistaken.items():
        with pytest.raises(RecipeError, match=said):
            parse_edit(wrong, classes)
