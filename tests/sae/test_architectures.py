"""Laws of every architecture in the table: it is one, grids and searches can vary it, and what it trains can be saved."""

from typing import get_args

import pytest
import torch
from pydantic import ValidationError

from linrep.places import place
from linrep.sae import formats
from linrep.sae.architecture import Architecture
from linrep.sae.architectures import ARCHITECTURES, RULES, architecture_of
from linrep.sae.config import SPARSITY, Activation, SaeDesign, WithK, WithL1
from linrep.sae.formats import saelens
from linrep.sae.search import Chosen, Penalised, TuneConfig
from linrep.sae.study import Grid, SaeConfig
from linrep.sae.train import Rows, Trainer, fit
from tests.sae.reference import planted

D, BATCH = 16, 64
each = pytest.mark.parametrize("kind", ARCHITECTURES)


def section(kind: str, **numbers: float) -> Activation:
    return SaeDesign.model_validate({"activation": {"kind": kind, **numbers}}).activation


def test_the_table_is_the_union_that_recipes_may_name() -> None:
    union = get_args(get_args(Activation)[0])
    assert [type(section(kind)) for kind in ARCHITECTURES] == list(union)
    assert {made().kind: made.sparsity for made in union} == SPARSITY
    assert all(isinstance(architecture_of(section(kind)), Architecture) for kind in ARCHITECTURES)


@pytest.mark.parametrize("kind", list(ARCHITECTURES))
def test_a_recipe_refuses_several_workers_where_training_does(kind: str) -> None:
    own = section(kind)
    assert own.splits == (architecture_of(own).common is not None)
    values = {"workers": 2, "design": {"activation": {"kind": kind}}}
    if own.splits:
        SaeConfig.model_validate(values)
    else:
        with pytest.raises(ValidationError, match=f"the latents of {kind} cannot lie on several: set workers to 1"):
            SaeConfig.model_validate(values)


def test_no_two_rules_or_architectures_share_a_name_in_a_format() -> None:
    assert len({rule.saelens_name for rule in RULES}) == len(RULES)
    theirs = [name for made in ARCHITECTURES.values() for name in made.dictionary_learning]
    assert len(set(theirs)) == len(theirs)


@each
def test_grids_and_searches_vary_its_sparsity(kind: str) -> None:
    made = section(kind)
    assert (kind in get_args(WithK)) == (made.sparsity == "k")
    assert (kind in get_args(WithL1)) == (made.sparsity == "l1")
    config = SaeConfig.model_validate({"design": {"activation": {"kind": kind}}, "grid": Grid(sparsity=(3, 5))})
    assert [getattr(design.activation, made.sparsity) for design in config.designs().values()] == [3, 5]
    space = TuneConfig.model_validate({"space": {"architectures": [{"kind": kind, made.sparsity: [3, 5]}]}}).space
    assert isinstance(space.architectures[0], Chosen) == (made.sparsity == "k")
    assert isinstance(space.architectures[0], Penalised) == (made.sparsity == "l1")


@each
def test_what_it_trains_reconstructs_equally_after_saving(kind: str, tmp_path) -> None:
    """Read back, the SAE has the same digest, which is of all weights and the whole rule, and takes raw inputs."""
    x, _ = planted(20 * BATCH, D, 24, 3)
    config = SaeDesign.model_validate({"activation": {"kind": kind, SPARSITY[kind]: 4}, "expansion": 4})
    trainer = Trainer.begin(config, x[:256], 20)
    list(fit([Rows(part, torch.zeros(BATCH, dtype=torch.bool)) for part in x.split(BATCH)], [trainer]))
    sae = trainer.sae()
    raw = sae.unscaled(3.7)
    saelens.write(place(tmp_path), raw)
    back = formats.read(tmp_path)
    assert back.digest == raw.digest
    assert back.rule.kind == sae.rule.kind
    assert back.about["training_architecture"] == kind
    torch.testing.assert_close(back(x / 3.7), sae(x) / 3.7, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(back.codes(x / 3.7).dense(), sae.encode(x) / 3.7, rtol=1e-3, atol=1e-4)
    norms = sae.decoder.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))


@each
def test_a_run_that_goes_on_equals_the_uninterrupted_one_whatever_it_begins_with(kind: str, tmp_path) -> None:
    """A worker that resumes has no sample: it begins with a row of zeros, and the checkpoint says the rest."""
    x, _ = planted(20 * BATCH, D, 24, 3)
    rows = [Rows(part, torch.zeros(BATCH, dtype=torch.bool)) for part in x.split(BATCH)]
    config = SaeDesign.model_validate(
        {"activation": {"kind": kind, SPARSITY[kind]: 4}, "expansion": 4, "aux": {"dead_after": 3 * BATCH}}
    )
    whole, first = (Trainer.begin(config, x[:256], 20) for _ in range(2))
    list(fit(rows, [whole]))
    list(fit(rows[:10], [first]))
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = Trainer.begin(config, torch.zeros(1, D), 20)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    list(fit(rows[10:], [second]))
    assert whole.weights.keys() == second.weights.keys()
    assert all(torch.equal(tensor, second.weights[name]) for name, tensor in whole.weights.items())


@each
def test_a_decoder_that_it_does_not_have_is_refused(kind: str) -> None:
    for decoder in ("unit", "weighted"):
        if decoder in section(kind).decoders:
            SaeDesign.model_validate({"activation": {"kind": kind}, "decoder": decoder})
        else:
            with pytest.raises(ValueError, match=f"decoder of {kind} must be"):
                SaeDesign.model_validate({"activation": {"kind": kind}, "decoder": decoder})
