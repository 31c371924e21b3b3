"""Matching, correlation, and what is called shared: against slow references, hand-made codes, and codes that share nothing."""

import numpy as np
import pytest
import torch

from linrep.sae.paired.matching import by_correlation, by_cosine, correlations
from linrep.sae.paired.rows import PairRows, batches, shifted, standardised
from linrep.sae.paired.shared import called, chances, discoveries, own_correlations
from linrep.sae.paired.sides import Codes


def sparse(n: int, f: int, seed: int, rate: float = 0.1) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return (torch.rand(n, f, generator=draw) < rate) * (1 + torch.rand(n, f, generator=draw))


def test_a_pair_has_a_row_of_each():
    with pytest.raises(ValueError, match=r"a row of each modality, got \(3, 2\) and \(2, 2\)"):
        PairRows(torch.zeros(3, 2), torch.zeros(2, 2))


def test_dealt_pairs_are_the_same_rows_and_no_pair_keeps_its_own():
    rows = PairRows(torch.arange(9.0)[:, None], torch.arange(9.0)[:, None])
    dealt = rows.dealt(4)
    assert sorted(dealt.text[:, 0].tolist()) == list(range(9))
    assert not bool((dealt.text == rows.text).any())
    with pytest.raises(ValueError, match="no other"):
        shifted(1, 0)


def test_rows_are_put_on_one_scale_by_training_rows_alone():
    train = PairRows(5 + 3 * torch.randn(400, 8), 100 * torch.randn(400, 8))
    held = PairRows(train.image[:3] + 1, train.text[:3] + 1)
    a, b = standardised(train, held)
    for x in (a.image, a.text):
        torch.testing.assert_close(x.mean(0), torch.zeros(8), atol=1e-4, rtol=0)
        assert float(x.norm(dim=1).mean()) == pytest.approx(8**0.5, rel=1e-4)
    scale = (a.text[1] - a.text[0]).norm() / (train.text[1] - train.text[0]).norm()
    torch.testing.assert_close(b.text - a.text[:3], (scale * torch.ones(3, 8)), atol=1e-4, rtol=1e-3)


def test_every_design_sees_the_same_pairs():
    rows = PairRows(torch.arange(50.0)[:, None], torch.arange(50.0)[:, None])
    seen = [torch.cat([batch.text[:, 0] for batch in batches(rows, 3, 4, seed)]).tolist() for seed in (7, 7, 8)]
    assert seen[0] == seen[1] != seen[2]
    assert len(seen[0]) == 12


def test_correlations_are_numpy_s():
    a, b = sparse(200, 5, 0), sparse(200, 4, 1)
    a[:, 2] = 0.7  # never varies
    wanted = np.corrcoef(np.delete(a.numpy(), 2, 1).T, b.numpy().T)[:4, 4:]
    found = correlations(a, b)
    np.testing.assert_allclose(np.delete(found.numpy(), 2, 0), wanted, atol=1e-6)
    assert not found[2].any()


def test_matching_finds_a_permutation_by_activations_and_by_directions():
    z, directions = sparse(300, 12, 0), torch.randn(12, 8, generator=torch.Generator().manual_seed(1))
    order = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    shown = Codes(z, (2 * z + 0.1 * sparse(300, 12, 5))[:, order])
    assert order[by_correlation(shown)].tolist() == list(range(12))
    assert order[by_cosine(directions, 3 * directions[order])].tolist() == list(range(12))
    # The one knows nothing of directions, the other nothing of pairs.
    assert order[by_correlation(shown.dealt(shifted(300, 0)))].tolist() != list(range(12))


def test_weights_count_pairs_as_often():
    z = Codes(sparse(60, 6, 0, 0.5), sparse(60, 6, 1, 0.5))
    often = torch.randint(0, 4, (3, 60), generator=torch.Generator().manual_seed(0))
    found = own_correlations(z, often.double())
    for row, w in zip(found, often, strict=True):
        x, y = (part.repeat_interleave(w, dim=0).numpy() for part in (z.image, z.text))
        np.testing.assert_allclose(row.numpy(), [np.corrcoef(x[:, i], y[:, i])[0, 1] for i in range(6)], atol=1e-6)
    same = torch.full((5, 1), 2.0)
    assert own_correlations(Codes(same, same)).tolist() == [[0.0]]


def test_chances_are_those_of_dealing():
    z = Codes(sparse(40, 3, 0, 0.3), sparse(40, 3, 1, 0.4))
    z.text[:, 2] = z.image[:, 2]
    rng, both = np.random.default_rng(0), ((z.image > 0) & (z.text > 0)).sum(0).numpy()
    dealt = [((z.image > 0).numpy() & (z.text > 0).numpy()[rng.permutation(40)]).sum(0) for _ in range(20_000)]
    np.testing.assert_allclose(chances(z), (np.array(dealt) >= both).mean(0), atol=0.015)
    assert chances(z)[2] < 1e-6


def test_false_discoveries_are_held_to_their_share():
    """Of 40 true effects and 160 nothings, over 200 draws: at most a twentieth of what stands, and all that is plain."""
    rng, false, missed = np.random.default_rng(0), [], []
    for _ in range(200):
        p = np.concatenate([np.full(40, 1e-5), rng.random(160)])
        found = discoveries(p)
        false.append(found[40:].sum() / max(found.sum(), 1))
        missed.append(40 - found[:40].sum())
    assert 0.025 < np.mean(false) < 0.05  # .05 times the share of nothings, .04
    assert sum(missed) == 0
    assert not discoveries(np.zeros(0)).any()
    assert not discoveries(np.array([0.06, 0.9])).any()


def test_nothing_is_called_where_nothing_is_shared_and_all_where_all_is():
    worlds = [called(Codes(sparse(400, 100, seed), sparse(400, 100, 1000 + seed))) for seed in range(40)]
    assert sum(bool(found.any()) for found in worlds) <= 5  # one in twenty may
    z = sparse(400, 100, 3)
    assert bool(called(Codes(z, z * 1.5)).all())
    dead = torch.cat([z[:, :1], torch.zeros(400, 1)], dim=1)
    assert called(Codes(dead, dead)).tolist() == [True, False]


def test_a_trace_is_no_sharing():
    """With 20,000 pairs a correlation of .1 is no chance; it is not called all the same."""
    z, other = sparse(20_000, 1, 0), sparse(20_000, 1, 1)
    there = torch.rand(20_000, 1, generator=torch.Generator().manual_seed(2)) < 0.1
    trace = Codes(z, torch.where(there, z, other))
    assert 0.05 < float(own_correlations(trace)) < 0.2
    assert chances(trace)[0] < 1e-6
    assert not called(trace).any()
    assert called(trace, least=0.05).all()
