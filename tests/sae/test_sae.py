"""An SAE for use: the sparse way equals the dense one, and rescalings change weights, not what the SAE does."""

from dataclasses import replace

import pytest
import torch

from linrep.sae.architectures import Above, Gate, Largest, Rectify
from linrep.sae.controls import random_sae
from linrep.sae.sae import Sae
from tests.sae.saes import KINDS, D, F, inputs, make_sae

each = pytest.mark.parametrize("kind", KINDS)


@each
def test_encode_is_the_formula(kind: str) -> None:
    sae, x = make_sae(kind), inputs(3)
    for row, z in zip(x, sae.encode(x), strict=True):
        projected = [float(sae.encoder[i] @ (row - sae.b_dec)) for i in range(F)]
        pre = [p + float(b) for p, b in zip(projected, sae.b_enc, strict=True)]
        match kind:
            case "relu":
                expected = [max(p, 0) for p in pre]
            case "topk":
                bound = sorted(pre)[-5]
                expected = [p if p >= bound and p > 0 else 0 for p in pre]
            case "jumprelu":
                expected = [p if p > float(t) else 0 for p, t in zip(pre, sae.rule.threshold, strict=True)]
            case "gated":
                sizes = [p * float(r.exp()) + float(b) for p, r, b in zip(projected, sae.rule.r_mag, sae.rule.b_mag, strict=True)]
                expected = [max(s, 0) if p > 0 else 0 for s, p in zip(sizes, pre, strict=True)]
        assert z.tolist() == pytest.approx(expected, abs=1e-5)


@each
@pytest.mark.parametrize("budget", [1, 7 * F * 4, 1 << 20])
def test_sparse_codes_equal_dense_ones(kind: str, budget: int) -> None:
    sae, x = make_sae(kind), inputs()
    torch.testing.assert_close(sae.codes(x, budget).dense(), sae.encode(x), rtol=1e-5, atol=1e-5)


@each
@pytest.mark.parametrize("centred", [True, False])
def test_an_input_scale_folds_into_the_biases(kind: str, centred: bool) -> None:
    sae, x = make_sae(kind, centred), inputs()
    raw = sae.unscaled(3.7)
    torch.testing.assert_close(raw.encode(x), sae.encode(3.7 * x) / 3.7, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(raw(x), sae(3.7 * x) / 3.7, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="above 0, got 0"):
        sae.unscaled(0.0)


@each
def test_unit_rows_reconstruct_equally(kind: str) -> None:
    if kind == "topk":
        pytest.skip("with rows of unequal norm a top-k chooses by other sizes; see the test of weighted decoders in test_train")
    sae, x = make_sae(kind), inputs()
    unit = sae.with_unit_decoder()
    torch.testing.assert_close(unit(x), sae(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(unit.encode(x), sae.encode(x) * sae.decoder.norm(dim=1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(unit.decoder.norm(dim=1), torch.ones(F))


@each
def test_biases_take_up_where_the_encoder_looks(kind: str) -> None:
    sae, x = make_sae(kind), inputs()
    moved = sae.seeing(centred=False)
    assert not moved.sees_centred
    torch.testing.assert_close(moved.encode(x), sae.encode(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(moved.seeing(centred=True).b_enc, sae.b_enc)


def test_a_negative_threshold_is_a_relu() -> None:
    """dictionary_learning writes -1 for a threshold that was never set."""
    sae = make_sae("relu")
    unset = Sae(sae.encoder, sae.b_enc, sae.decoder, sae.b_dec, Above(torch.full((F,), -1.0)), True)
    assert torch.equal(unset.encode(inputs()), sae.encode(inputs()))


def test_random_directions_are_fitted_by_one_factor_only() -> None:
    """The control explains something, since k of f directions are chosen, and its one factor is the best one."""
    x = inputs(400) + 5
    control = random_sae(x, 256, 8)
    assert isinstance(control.rule, Largest)
    torch.testing.assert_close(control.decoder.norm(dim=1), torch.ones(256))
    torch.testing.assert_close(control.b_dec, x.mean(0))
    error = (control(x) - x).square().sum()
    assert 0.05 < float(error / (x - x.mean(0)).square().sum()) < 0.9
    written = control(x) - control.b_dec
    for factor in (0.98, 1.02):
        assert (written * factor + control.b_dec - x).square().sum() > error
    assert torch.equal(control.encoder, random_sae(x, 256, 8).encoder)
    assert control.d_model == D


def test_a_digest_names_everything_that_an_sae_computes_with() -> None:
    """One changed bit of any tensor, another k, another rule: another digest. Where it came from does not count."""
    wide, d = 3000, 2  # beyond what torch prints in full
    ones = torch.ones(wide)
    base = Sae(torch.ones(wide, d), ones, torch.ones(wide, d), torch.ones(d), Largest(4), True)
    nudged = ones.clone()
    nudged[wide // 2] = 1 + 1e-6
    others = [
        replace(base, rule=Largest(64)),
        replace(base, rule=Rectify()),
        replace(base, sees_centred=False),
        replace(base, b_enc=nudged),
        replace(base, encoder=nudged[:, None] * base.encoder),
        replace(base, decoder=nudged[:, None] * base.decoder),
        replace(base, b_dec=base.b_dec + 1e-6),
        *(replace(base, rule=Above(threshold)) for threshold in (ones, nudged)),
        *(replace(base, rule=Gate(*pair)) for pair in ((ones, ones), (nudged, ones), (ones, nudged))),
    ]
    assert len({sae.digest for sae in [base, *others]}) == 1 + len(others)
    assert replace(base, about={"layer": 9}).digest == base.digest
    assert base.to(dtype=torch.float64).digest == base.digest
