"""Each control against its definition: where its directions come from, what is trained of it, and that a seed names it."""

from collections.abc import Callable
from functools import partial

import pytest
import torch

from linrep.sae.architectures import Largest
from linrep.sae.controls import (
    Activations,
    Active,
    Control,
    Saes,
    Training,
    covariance,
    exemplars,
    frozen_decoder,
    gaussian_twin,
    isotropic,
    principal,
    random_sae,
)
from linrep.sae.evaluate import evaluate_each
from linrep.sae.train import Rows
from linrep.store.layout import Modality
from tests.sae.reference import planted

D, N, F = 16, 600, 48
K: Active = {"image": 3, "text": 3}
BRIEF = Training(rows=6400, batch=64, learning_rate=1e-2, dead_after=2000)
CONTROLS: dict[str, Control] = {
    "isotropic": isotropic,
    "covariance": covariance,
    "exemplars": exemplars,
    "principal": principal,
    "frozen decoder": partial(frozen_decoder, training=BRIEF),
    "Gaussian twin": partial(gaussian_twin, training=BRIEF),
}
every = pytest.mark.parametrize("make", CONTROLS.values(), ids=CONTROLS.keys())


def rows(seed: int = 0, n: int = N) -> dict[Modality, torch.Tensor]:
    """Two modalities apart by far and of other size: planted images near 30, small texts near -1; two dimensions are loud."""
    generator = torch.Generator().manual_seed(seed)
    loud = torch.ones(D)
    loud[:2] = 6.0
    image = planted(n, D, 40, 3, seed)[0] * loud + 30.0
    text = 0.05 * torch.randn(n, D, generator=generator) * loud.flip(0) - 1.0
    return {"image": image, "text": text}


def held_out() -> dict[Modality, torch.Tensor]:
    """Further rows of the same world."""
    return {m: x[N:] for m, x in rows(n=2 * N).items()}


def fvu(saes: Saes, x: Activations) -> dict[Modality, float]:
    found = evaluate_each(saes, [Rows(part, torch.full((len(part),), m == "text")) for m, part in x.items()])
    return {m: found.quality[m].fvu for m in x}


@every
def test_a_seed_names_a_control(make: Control) -> None:
    one, again, other = (make(rows(), F, K, seed) for seed in (0, 0, 1))
    for modality, sae in one.items():
        assert sae.digest == again[modality].digest
        assert torch.equal(sae.decoder, other[modality].decoder) == (make is principal)  # the data alone decide those


@every
def test_a_control_is_about_each_modality_and_has_its_active_latents(make: Control) -> None:
    """One centre for both would rebuild the smaller modality worse than its mean does."""
    x = rows()
    saes = make(x, F, {"image": 5, "text": 2}, 0)
    active: Active = {"image": 5, "text": 2}
    for modality, k in active.items():
        sae = saes[modality]
        assert isinstance(sae.rule, Largest)
        assert sae.rule.k == k
        assert ((sae.encode(x[modality]) > 0).sum(1) <= k).all()
    assert torch.equal(saes["image"].decoder, saes["text"].decoder)  # the same latents
    for modality, value in fvu(saes, held_out()).items():
        assert value < 0.95, modality
    shared = random_sae(torch.cat(list(x.values())), F, 3)
    assert fvu({"image": shared, "text": shared}, x)["text"] > 10


def test_isotropic_directions_know_nothing_of_the_data() -> None:
    one, other = (isotropic(rows(seed), F, K, 0)["image"].decoder for seed in (0, 1))
    assert torch.equal(one, other)
    loud = isotropic(rows(), 4000, K, 0)["image"].decoder.square().mean(0)
    torch.testing.assert_close(loud, torch.full((D,), 1 / D), atol=0.01, rtol=0)


def test_covariance_directions_have_the_covariance_of_the_data() -> None:
    """Drawn rows are normalised: their squares go with the pooled variance, in which each modality weighs alike."""
    x = rows()
    parts = [part.double().var(0, correction=0) for part in x.values()]
    pooled = torch.stack([part / part.sum() for part in parts]).mean(0)
    drawn = covariance(x, 4000, K, 0)["image"].decoder.square().mean(0).double()
    assert torch.corrcoef(torch.stack([drawn, pooled]))[0, 1] > 0.99
    assert (drawn[:2] > 2 / D).all()  # the images' loud dimensions
    assert (drawn[-2:] > 2 / D).all()  # the texts'


def test_exemplars_are_rows_less_their_mean() -> None:
    x = rows()
    decoder = exemplars(x, F, K, 0)["image"].decoder
    counts = dict.fromkeys(x, 0)
    for modality, part in x.items():
        unit = torch.nn.functional.normalize(part - part.mean(0), dim=1)
        counts[modality] = int(((decoder @ unit.t()).amax(1) > 1 - 1e-5).sum())
    assert counts == {"image": F // 2, "text": F // 2}
    few: dict[Modality, torch.Tensor] = {"image": x["image"][:5], "text": x["text"]}
    assert exemplars(few, F, K, 0)["text"].n_latents == F
    assert exemplars({m: part[:5] for m, part in x.items()}, F, K, 0)["text"].n_latents == 10


def test_principal_components_come_with_their_opposites_and_most_variance_first() -> None:
    x: dict[Modality, torch.Tensor] = {"image": rows()["image"]}
    decoder = principal(x, 2 * D, {"image": D}, 0)["image"].decoder
    assert torch.equal(decoder[::2], -decoder[1::2])
    torch.testing.assert_close(decoder[::2] @ decoder[::2].t(), torch.eye(D), atol=1e-5, rtol=0)
    _, _, expected = torch.linalg.svd(x["image"] - x["image"].mean(0), full_matrices=False)
    torch.testing.assert_close((decoder[::2] @ expected.t()).abs(), torch.eye(D), atol=2e-2, rtol=0)
    sae = principal(x, 2 * D, {"image": D}, 0)["image"]
    assert fvu({"image": sae, "text": sae}, x)["image"] < 1e-6  # all of them rebuild everything


def test_a_frozen_decoder_stays_random_and_its_encoder_learns() -> None:
    x = rows()
    start, brief = (frozen_decoder(x, F, K, 0, Training(n, 64, 1e-2, 2000))["image"] for n in (1, 6400))
    assert torch.equal(start.decoder, brief.decoder)
    assert not torch.allclose(start.encoder, brief.encoder, atol=0.1)
    late = fvu(frozen_decoder(x, F, K, 0, BRIEF), held_out())
    for modality, value in fvu(isotropic(x, F, K, 0), held_out()).items():
        assert late[modality] < value


def test_a_gaussian_twin_never_sees_the_rows() -> None:
    """Rows of equal mean and covariance give the same twin, whatever else they are: here signs instead of a Gaussian."""
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (4096, D), generator=generator) * 2.0 - 1
    other = torch.cat([signs, -signs])  # mean 0 in both
    root = torch.linalg.cholesky(other.t() @ other / len(other))
    normal = torch.randn(4096, D, generator=generator)
    normal = torch.cat([normal, -normal])
    whitened = normal @ torch.linalg.inv(torch.linalg.cholesky(normal.t() @ normal / len(normal))).t() @ root.t()
    one, twin = (gaussian_twin({"image": x}, F, {"image": 3}, 0, BRIEF)["image"] for x in (other, whitened))
    torch.testing.assert_close(torch.cosine_similarity(one.decoder, twin.decoder, dim=1), torch.ones(F), atol=5e-2, rtol=0)


@pytest.mark.slow
def test_a_trained_sae_beats_every_control_where_there_is_structure() -> None:
    from linrep.sae.config import Adam, SaeDesign, TopK
    from linrep.sae.train import Trainer

    x = planted(20_000, D, 40, 3)[0]
    config = SaeDesign(activation=TopK(k=3), expansion=F / D, adam=Adam(learning_rate=1e-2))
    trainer = Trainer.begin(config, x[:1000], 400)
    for i in range(400):
        part = x[(i * 128) % 19_000 :][:128]
        trainer.take(Rows(part, torch.zeros(len(part), dtype=torch.bool)))
    held: dict[Modality, torch.Tensor] = {"image": planted(4000, D, 40, 3)[0][2000:]}
    trained = fvu({"image": trainer.sae(), "text": trainer.sae()}, held)["image"]
    longer = Training(rows=51_200, batch=128, learning_rate=1e-2)
    controls: dict[str, Callable] = {**CONTROLS, "frozen decoder": partial(frozen_decoder, training=longer)}
    controls["Gaussian twin"] = partial(gaussian_twin, training=longer)
    for name, make in controls.items():
        saes = make({"image": x[:4000]}, F, {"image": 3}, 0)
        value = fvu({"image": saes["image"], "text": saes["image"]}, held)["image"]
        assert trained < 0.8 * value, name
