"""Evaluation by hand: explained variance about the mean, shrinkage, histograms, pursuit, matching, best latents, probes."""

import math
from dataclasses import replace

import pytest
import torch

from linrep.sae.activity import Activity, highest
from linrep.sae.architectures import Largest, Rectify
from linrep.sae.controls import random_sae
from linrep.sae.evaluate import evaluate, firing_histogram
from linrep.sae.pursuit import latents_needed, pursue, random_vectors
from linrep.sae.sae import Sae
from linrep.sae.stability import living, match
from linrep.sae.start import geometric_median, unit_rows
from linrep.sae.train import Rows
from linrep.sae.truth import best_latents, f1_of, sparse_probe
from linrep.sae.window import fraction
from tests.sae.reference import planted
from tests.sae.saes import KINDS, D, F, inputs, make_sae


def rows(x: torch.Tensor, text: bool = False) -> Rows:
    return Rows(x, torch.full((len(x),), text))


def identity(d: int, shift: float = 0.0, scale: float = 1.0) -> Sae:
    """Two latents for each dimension, one a sign: reconstructs scale * x + shift exactly."""
    both = torch.cat([torch.eye(d), -torch.eye(d)])
    return Sae(both, torch.zeros(2 * d), both * scale, torch.full((d,), shift), Rectify(), sees_centred=False)


def test_perfect_and_constant_reconstructions() -> None:
    x = inputs()
    perfect = evaluate(identity(D), [rows(x)]).quality["image"]
    assert perfect.fvu == pytest.approx(0, abs=1e-12)
    assert perfect.cosine == pytest.approx(1)
    assert perfect.l0 == D
    mean = Sae(torch.zeros(1, D), torch.zeros(1), torch.zeros(1, D), x.mean(0), Rectify(), False)
    nothing = evaluate(mean, [rows(x)]).quality["image"]
    assert nothing.fvu == pytest.approx(1, rel=1e-5)
    assert nothing.explained_variance == pytest.approx(0, abs=1e-5)
    assert nothing.alive == 0


def test_explained_variance_is_about_the_mean() -> None:
    """A constant added to inputs and reconstructions changes nothing; a formula without the mean would say nearly 1."""
    x = inputs()
    near = Sae(torch.zeros(1, D), torch.zeros(1), torch.zeros(1, D), x.mean(0), Rectify(), False)
    far = Sae(torch.zeros(1, D), torch.zeros(1), torch.zeros(1, D), x.mean(0) + 100, Rectify(), False)
    one, other = (evaluate(sae, [rows(x + c)]).quality["image"].fvu for sae, c in ((near, 0), (far, 100)))
    assert one == pytest.approx(other, rel=1e-4)


def test_the_spread_of_rows_far_from_zero_is_exact() -> None:
    """Norms of 3e4 and a spread of 1: squares rounded in float32 would leave the difference of two sums 1e-7 of 1e9."""
    x = 8192 + torch.randint(-8, 9, (300, D), generator=torch.Generator().manual_seed(0)).float() / 8
    zero = Sae(torch.zeros(1, D), torch.zeros(1), torch.zeros(1, D), torch.full((D,), 8192.0), Rectify(), False)
    wide = x.double()
    true = (wide - 8192).square().sum() / (wide - wide.mean(0)).square().sum()
    assert evaluate(zero, [rows(x)]).quality["image"].fvu == pytest.approx(float(true), rel=1e-6)


def test_inputs_without_variance_have_a_defined_value() -> None:
    same = torch.full((5, D), 3.0)
    assert evaluate(identity(D), [rows(same)]).quality["image"].fvu == 0
    assert evaluate(identity(D, shift=1.0), [rows(same)]).quality["image"].fvu == math.inf
    assert fraction(0.0, 0.0, 0.0) == 0


def test_shrinkage_is_the_size_of_reconstructions() -> None:
    for scale in (0.5, 1.0, 1.25):
        assert evaluate(identity(D, scale=scale), [rows(inputs())]).quality["image"].shrinkage == pytest.approx(scale)


def test_modalities_are_apart_and_batches_do_not_matter() -> None:
    sae, x = make_sae("topk"), inputs(60)
    text = torch.arange(60) % 4 == 0
    whole = evaluate(sae, [Rows(x, text)])
    pieces = evaluate(sae, [Rows(x[i : i + 7], text[i : i + 7]) for i in range(0, 60, 7)])
    for name in ("image", "text", "both"):
        assert pieces.quality[name].fvu == pytest.approx(whole.quality[name].fvu, rel=1e-6)
        assert pieces.quality[name].firing == whole.quality[name].firing
    alone = evaluate(sae, [rows(x[text], True)])
    assert set(alone.quality) == {"text"}
    assert alone.quality["text"].fvu == pytest.approx(whole.quality["text"].fvu, rel=1e-6)
    assert whole.quality["both"].n_rows == 60
    assert whole.values()["n_rows/text"] == 15
    residual = (sae(x[text]) - x[text]).square().sum() / (x[text] - x[text].mean(0)).square().sum()
    assert alone.quality["text"].fvu == pytest.approx(float(residual), rel=1e-5)


def test_rows_that_are_not_finite_are_left_out_and_counted() -> None:
    x = inputs()
    bad = x.clone()
    bad[3, 2], bad[7, 0] = float("nan"), float("inf")
    kept = torch.ones(len(x), dtype=torch.bool)
    kept[[3, 7]] = False
    sae = make_sae("topk")
    one, other = (evaluate(sae, [rows(part)]).quality["image"] for part in (bad, x[kept]))
    assert (one.n_nonfinite, other.n_nonfinite) == (2, 0)
    assert one.fvu == other.fvu


def test_what_cannot_be_evaluated_is_said() -> None:
    with pytest.raises(ValueError, match="no rows"):
        evaluate(make_sae("topk"), [])
    with pytest.raises(ValueError, match="width 12, the rows have 13"):
        evaluate(make_sae("topk"), [rows(torch.zeros(2, 13))])


def test_firing_histogram_counts_every_latent_once() -> None:
    histogram = firing_histogram(torch.tensor([0, 1, 1, 10, 1000]), 1000)
    assert len(histogram) == 25
    assert histogram[0] == 1
    assert histogram[1 + 12] == 2  # 1e-3 begins the fourth decade
    assert histogram[1 + 16] == 1
    assert histogram[-1] == 1
    assert sum(histogram) == 5


def test_the_geometric_median_ignores_what_pulls_the_mean() -> None:
    x = torch.cat([torch.randn(99, 3, generator=torch.Generator().manual_seed(0)) * 0.1, torch.full((1, 3), 1000.0)])
    assert geometric_median(x).norm() < 0.1
    assert x.mean(0).norm() > 10
    corners = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 3.0], [4.0, 3.0]])
    assert geometric_median(corners).tolist() == pytest.approx([2.0, 1.5], abs=1e-4)


def test_a_planted_combination_is_pursued_to_its_parts() -> None:
    decoder = unit_rows(80, 32, seed=0)
    vector = 2 * decoder[5] - 1.5 * decoder[40] + decoder[77]
    cosines, chosen = pursue(decoder * torch.rand(80, 1), vector[None], 5)
    assert set(chosen[0, :3].tolist()) == {5, 40, 77}
    assert cosines[0, 2] == pytest.approx(1, abs=1e-6)
    assert (cosines[0].diff() >= -1e-6).all()
    assert latents_needed(cosines, 0.999).tolist() == [3]
    # The control needs far more.
    control, _ = pursue(decoder, random_vectors(vector[None], seed=1), 12)
    assert latents_needed(control, 0.999).item() > 10
    assert random_vectors(vector[None], 1).norm() == pytest.approx(vector.norm().item())


def test_controls_are_no_relatives_of_the_directions_that_an_sae_begins_with() -> None:
    """All are drawn with the recipe's seed; equal draws would let a control share vectors with what it controls for."""
    begins = unit_rows(64, 32, seed=0)
    sample = torch.randn(256, 32, generator=torch.Generator().manual_seed(5))
    control = random_sae(sample, 64, 4, seed=0).decoder
    vectors = random_vectors(torch.ones(64, 32), seed=0)
    for a, b in ((begins, control), (begins, vectors), (control, vectors)):
        cosines = torch.nn.functional.normalize(a, dim=1) @ torch.nn.functional.normalize(b, dim=1).T
        assert cosines.abs().max() < 0.8


def test_pursuit_equals_least_squares_on_its_choice() -> None:
    decoder, vectors = unit_rows(20, 8, seed=0), unit_rows(3, 8, seed=1)
    cosines, chosen = pursue(decoder, vectors, 4)
    for i, vector in enumerate(vectors):
        basis = decoder[chosen[i]].T
        fitted = basis @ torch.linalg.lstsq(basis, vector).solution
        assert cosines[i, 3] == pytest.approx(torch.cosine_similarity(fitted, vector, dim=0).item(), abs=1e-5)
    with pytest.raises(ValueError, match="1 to 8 rows"):
        pursue(decoder, vectors, 9)
    with pytest.raises(ValueError, match="vector 1 is zero"):
        pursue(decoder, torch.stack([vectors[0], vectors[0] * 0]), 2)


def test_a_shuffled_sae_matches_itself() -> None:
    decoder = unit_rows(50, 16, seed=0)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(3))
    mean, columns = match(decoder, decoder[order] * 3)
    assert mean == pytest.approx(1, abs=1e-6)
    assert torch.equal(order[columns], torch.arange(50))
    control, _ = match(decoder, unit_rows(50, 16, seed=1))
    assert control < 0.7
    assert match(decoder, decoder, most=10)[0] == pytest.approx(1)
    with pytest.raises(ValueError, match="cannot match 50 latents with 20"):
        match(decoder, decoder[:20])


def test_stability_is_of_latents_that_fire() -> None:
    """Ten living latents found again and ninety that never fire: 1, where all together would say hardly more than chance."""
    shared, dead = unit_rows(10, 16, seed=0), [unit_rows(90, 16, seed=seed) for seed in (1, 2)]
    one, other = (torch.cat([shared, part]) for part in dead)
    rates = torch.cat([torch.full((10,), 0.1), torch.zeros(90)])
    assert match(living(one, rates), living(other, rates))[0] == pytest.approx(1, abs=1e-6)
    assert match(one, other)[0] < 0.8
    # Of more than are matched a sample is drawn by seed, not the first ones.
    drawn = living(one, torch.ones(100), most=30, seed=5)
    assert len(drawn) == 30
    assert torch.equal(drawn, living(one, torch.ones(100), most=30, seed=5))
    assert not torch.equal(drawn, one[:30])
    assert not torch.equal(drawn, living(one, torch.ones(100), most=30, seed=6))


def attributes(n: int = 600, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Forty latents of noise; latent 7 fires above 1 for value 2 exactly, latent 9 for half of value 0."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(3, (n,), generator=generator)
    z = torch.rand(n, 40, generator=generator) * (torch.rand(n, 40, generator=generator) < 0.3)
    z[:, 7] = torch.where(y == 2, 1 + torch.rand(n, generator=generator), torch.rand(n, generator=generator))
    z[:, 9] = torch.where((y == 0) & (torch.rand(n, generator=generator) < 0.5), 2.0, 0.0)
    return z, y


def test_the_best_latent_is_found_and_scored_on_other_samples() -> None:
    (z, y), (z_test, y_test) = attributes(seed=0), attributes(seed=1)
    active, active_test = Activity.from_dense(z), Activity.from_dense(z_test)
    best = best_latents(active, y, active_test, y_test)
    assert [b.value for b in best] == [0, 1, 2]
    assert (best[2].latent, best[2].f1) == (7, 1.0)
    assert 0.99 < best[2].threshold <= 1.1
    assert best[0].latent == 9
    assert best[0].f1 == pytest.approx(f1_of(z_test[:, 9] >= 2, y_test == 0))
    assert best[0].f1 == pytest.approx(2 / 3, abs=0.06)  # precision 1, recall 1/2
    # The control: on shuffled values nothing is better than always saying yes (precision 1/3, recall 1: F1 1/2).
    shuffled = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(0))]
    assert all(b.f1 < 0.56 for b in best_latents(active, shuffled, active_test, y_test))


def test_the_best_latents_are_those_of_trying_every_threshold() -> None:
    """Against all latents and all thresholds one by one, with many ties and silent samples; areas against scikit-learn's."""
    from sklearn.metrics import f1_score, roc_auc_score

    generator = torch.Generator().manual_seed(3)
    z, z_test = ((torch.randint(-3, 5, (60, 9), generator=generator)).clamp_min(0).float() for _ in range(2))
    y, y_test = (torch.randint(4, (60,), generator=generator) for _ in range(2))
    z[y == 1, 4] += 1
    best = best_latents(Activity.from_dense(z), y, Activity.from_dense(z_test), y_test)
    for v, one in enumerate(best):
        f1 = {(j, float(t)): f1_score(y == v, z[:, j] >= t) for j in range(9) for t in z[:, j].unique() if t > 0}
        assert one.f1_chosen_on == pytest.approx(max(f1.values()))
        assert f1[one.latent, one.threshold] == pytest.approx(max(f1.values()))
        assert one.f1 == pytest.approx(f1_score(y_test == v, z_test[:, one.latent] >= one.threshold))
        areas = [roc_auc_score(y == v, z[:, j]) for j in range(9)]
        among = [roc_auc_score(y_test == v, z_test[:, j]) for j in range(9) if areas[j] == pytest.approx(max(areas))]
        assert any(one.auroc == pytest.approx(area) for area in among)
    dead = best_latents(Activity.from_dense(z * 0), y, Activity.from_dense(z_test), y_test)
    assert [(one.f1, one.auroc) for one in dead] == [(0.0, 0.5)] * 4


@pytest.mark.parametrize("kind", KINDS)
def test_the_highest_activation_of_a_sample_is_that_of_its_rows(kind: str) -> None:
    """Against the dense maximum, with samples that lie in several pieces and one without rows; nothing dense is kept."""
    sae, x = make_sae(kind), inputs(50)
    owner = torch.arange(50) * 7 % 6
    pieces = [(x[:20], owner[:20]), (x[:0], owner[:0]), (x[20:], owner[20:])]
    active, other = highest([sae, make_sae("topk", seed=1)], pieces, 7)
    dense = torch.stack([sae.encode(x[owner == i]).amax(0) if i < 6 else torch.zeros(F) for i in range(7)])
    torch.testing.assert_close(active.columns(torch.arange(F)), dense, rtol=1e-5, atol=1e-5)
    assert active.values.min() > 0
    assert other.n_latents == F
    few = active.only(torch.tensor([4, 6, 0]))
    torch.testing.assert_close(few.columns(torch.tensor([9, 2])), dense[[4, 6, 0]][:, [9, 2]], rtol=1e-5, atol=1e-5)
    of = torch.tensor([True, False, True, True, False, False, True])
    torch.testing.assert_close(active.sums(of).float(), dense[of].sum(0), rtol=1e-5, atol=1e-5)


def test_examining_holds_no_dense_activations_of_all_rows() -> None:
    """A control of 262,144 latents on 256 rows: dense activations alone would take a quarter of a gigabyte."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest = max(largest, out.numel() * out.element_size())
            return out

    x, n_latents = torch.randn(256, 2, generator=torch.Generator().manual_seed(0)), 2**18
    with Watch():
        control = random_sae(x, n_latents, 4)
        evaluate(control, [rows(x)])
        (active,) = highest([control], [(x, torch.arange(256))], 256)
        best_latents(active, torch.arange(256) % 3, active, torch.arange(256) % 3)
    assert largest <= 64 * 2**20


def test_sparse_probes_find_a_concept_and_not_a_shuffled_one() -> None:
    from sklearn.linear_model import LogisticRegression

    (z, y), (z_test, y_test) = attributes(seed=0), attributes(seed=1)
    active, active_test = Activity.from_dense(z), Activity.from_dense(z_test)
    assert sparse_probe(active, y == 2, active_test, y_test == 2, k=1) > 0.95
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    assert sparse_probe(active, (y == 2)[order], active_test, (y_test == 2)[order], k=5) == pytest.approx(0.5, abs=0.1)
    mine = sparse_probe(active, y == 0, active_test, y_test == 0, k=2)
    chosen = (z[y == 0].mean(0) - z[y != 0].mean(0)).abs().topk(2).indices
    theirs = LogisticRegression(C=1.0, class_weight="balanced").fit(z[:, chosen], y == 0).predict(z_test[:, chosen])
    expected = ((theirs[y_test == 0]).mean() + (~theirs[y_test != 0]).mean()) / 2
    assert mine == pytest.approx(float(expected), abs=0.02)
    with pytest.raises(ValueError, match="both classes, got 0 positive"):
        sparse_probe(active, y == 9, active_test, y_test == 2, k=1)


def test_the_true_directions_beat_random_ones() -> None:
    x, directions = planted(2000, D, 30, 3)
    raw = Sae(directions, torch.zeros(30), directions, torch.zeros(D), Largest(3), True)
    written = raw(x[:1000])
    factor = (written * x[:1000]).sum() / written.square().sum()  # as the control is fitted
    true = replace(raw, encoder=directions * factor)
    control = random_sae(x[:1000], 30, 3)
    one, other = (evaluate(sae, [rows(x[1000:])]).quality["image"] for sae in (true, control))
    assert one.cosine > other.cosine
    assert one.fvu < other.fvu
