"""The crosscoder: what it chooses, its gradient against autograd, its blocks, and how it is read from one row alone."""

import pytest
import torch
from torch import Tensor

from linrep.errors import FormatError
from linrep.sae.architecture import Step
from linrep.sae.config import SaeDesign, TopK
from linrep.sae.paired.crosscoder import Blocks, CrosscoderTraining
from linrep.sae.paired.designs import Budget, crosscoder
from linrep.sae.paired.rows import PairRows
from linrep.sae.paired.sides import read_apart
from linrep.sae.passes import Weights
from linrep.sae.sae import Sae
from linrep.sae.select import scratch
from linrep.sae.start import first_weights
from linrep.workers import Alone

BLOCKS = Blocks(shared=5, private=4, k=3)
D = 6


def begun() -> tuple[CrosscoderTraining, Weights]:
    way = CrosscoderTraining(BLOCKS)
    config = SaeDesign(activation=TopK(k=3), expansion=BLOCKS.n_latents / (2 * D), center="zero", seed=3)
    sample = torch.zeros(1, 2 * D)
    weights = way.first(first_weights(config, sample), sample, BLOCKS.n_latents)
    weights["b_enc"] += 0.1 * torch.randn(BLOCKS.n_latents, generator=torch.Generator().manual_seed(1))
    return way, weights


def slowly_chosen(pre: Tensor, blocks: Blocks) -> Tensor:
    """One pair after the other, one activation after the other, until a row or the pair is full."""
    found = torch.zeros_like(pre)
    for row, own in enumerate(pre.tolist()):
        left = [blocks.k, blocks.k, round(1.5 * blocks.k)]
        for latent in sorted(range(len(own)), key=lambda i: -own[i]):
            to = [latent < blocks.shared + blocks.private, not blocks.shared <= latent < blocks.shared + blocks.private, True]
            if own[latent] > 0 and all(n >= spent for n, spent in zip(left, to, strict=True)):
                left = [n - spent for n, spent in zip(left, to, strict=True)]
                found[row, latent] = own[latent]
    return found


def test_rows_and_pair_are_filled_by_the_largest():
    """k 2, so 2 of each row and 3 of the pair: shared 3, text 2.5, then the second shared finds its text row full."""
    rule = Blocks(shared=2, private=1, k=2).rule
    chosen = rule.chosen(torch.tensor([[3.0, 1.0, 0.5, 2.5], [-1.0, 2.0, 3.0, 1.0]]))
    assert chosen.dense().tolist() == [[3.0, 0, 0.5, 2.5], [0, 2.0, 3.0, 1.0]]
    full = Blocks(shared=1, private=3, k=2).rule
    assert full.chosen(torch.tensor([[1.0, 5, 4, 3, 9, 0.2, 0.1]])).dense().tolist() == [[0, 5, 4, 0, 9, 0, 0]]


def test_what_is_chosen_is_what_a_slow_loop_chooses():
    pre = torch.randn(300, BLOCKS.n_latents, generator=torch.Generator().manual_seed(0))
    chosen = BLOCKS.rule.chosen(pre).dense()
    torch.testing.assert_close(chosen, slowly_chosen(pre, BLOCKS))
    shared, image, text = (chosen > 0).split([5, 4, 4], dim=1)
    assert int((shared.sum(1) + image.sum(1)).max()) <= 3
    assert int((shared.sum(1) + text.sum(1)).max()) <= 3
    assert int((chosen > 0).sum(1).max()) <= 4


def test_the_gradient_is_autograd_s():
    way, weights = begun()
    x = torch.randn(40, 2 * D, generator=torch.Generator().manual_seed(2))
    done = way.pass_over(weights, x, Step(scratch(40, BLOCKS.n_latents, 2**10, weights["decoder"]), Alone()))
    leaves = {name: weight.double().clone().requires_grad_() for name, weight in weights.items()}
    seen = x.double() - leaves["b_dec"]
    pre = seen @ leaves["encoder"].t() + leaves["b_enc"]
    z = torch.where(slowly_chosen(pre.detach(), BLOCKS) > 0, pre, 0.0)
    residual = z @ leaves["decoder"] - seen
    (residual.square().sum() / 40).backward()
    torch.testing.assert_close(done.residual, residual.detach().float(), atol=1e-4, rtol=1e-4)
    for name, gradient in done.gradients.whole().items():
        torch.testing.assert_close(gradient, leaves[name].grad.float(), atol=1e-4, rtol=1e-4)


def test_private_latents_keep_to_their_half_and_all_rows_have_norm_1():
    way, weights = begun()
    rows = PairRows(*torch.randn(2, 200, D, generator=torch.Generator().manual_seed(4)))
    seen = []
    budget = Budget(decoder_rows=16, k=2, steps=30, batch=32, dead_after=100)
    sides = crosscoder(rows, budget, 0)
    for private in (slice(4, 8), slice(8, 12)):
        seen.append([bool(sae.decoder[private].any()) for sae in (sides.image, sides.text)])
    assert seen == [[True, False], [False, True]]
    assert bool(sides.image.decoder[:4].any())
    weights["encoder"] += 1.0
    weights["decoder"] += 1.0
    way.settle(weights)
    assert not weights["encoder"][5:9, D:].any()
    assert not weights["decoder"][9:, :D].any()
    torch.testing.assert_close(weights["decoder"][5:].norm(dim=1), torch.ones(8))


def test_one_row_alone_reads_what_both_say():
    """Shared: (3, 4) / 5 in images, (0, 1) in texts; each half writes 1 / sqrt 2 of it. The pair shows it with z = 2."""
    image, text = torch.tensor([0.6, 0.8]), torch.tensor([0.0, 1.0])
    half = 0.5**0.5
    decoder = torch.zeros(4, 4)
    decoder[0] = torch.cat([image, text]) * half
    decoder[1] = torch.cat([image.flip(0), 1e-3 * text])  # called shared, and of images alone
    decoder[2, :2], decoder[3, 2:] = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0])
    blocks = Blocks(shared=2, private=1, k=4)
    pair = Sae(decoder, torch.zeros(4), decoder, torch.zeros(4), blocks.rule, True)
    shown = PairRows(2 * half * image[None], 2 * half * text[None])
    assert float(pair.encode(shown.beside)[0, 0]) == pytest.approx(2.0)
    sides = read_apart(pair, blocks)
    codes = sides.codes(shown)
    # As much as it writes into that row: 2 of norm 1 / sqrt 2, the same from either.
    assert float(codes.image[0, 0]) == pytest.approx(2 * half)
    assert float(codes.text[0, 0]) == pytest.approx(2 * half)
    torch.testing.assert_close(sides.image.decoder[0], image)
    # What hardly writes to texts is not read from texts, and private latents are of their own modality.
    other = sides.codes(PairRows(torch.tensor([[5.0, 5.0]]), torch.tensor([[5.0, 5.0]])))
    assert (other.image > 0).tolist() == [[True, True, True, False]]
    assert (other.text > 0).tolist() == [[True, False, False, True]]


def test_no_format_holds_one():
    way, weights = begun()
    pair = way.sae(weights, torch.zeros(()), True)
    with pytest.raises(FormatError, match="no format"):
        pair.rule.saelens(pair)
    assert pair.rule.dictionary_learning(pair) is None
    x = torch.randn(7, 2 * D)
    torch.testing.assert_close(pair.codes(x, budget=100).dense(), pair.encode(x))
    torch.testing.assert_close(pair.rebuild(x), pair(x))
