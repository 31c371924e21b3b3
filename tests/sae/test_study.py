"""A section that asks for what no SAE can be is refused when its width is known, before anything is trained."""

import pytest

from linrep.errors import RecipeError
from linrep.sae.config import BatchTopK, Gated, JumpReLU, Matryoshka, ReLU, SaeDesign, TopK
from linrep.sae.study import Grid, SaeConfig

MANY = [TopK(k=9999), BatchTopK(k=257), Matryoshka(k=257), JumpReLU(target_l0=256.5)]


@pytest.mark.parametrize("activation", MANY, ids=lambda one: one.kind)
def test_more_active_latents_than_latents_are_refused(activation) -> None:
    for config in (
        SaeConfig(design=SaeDesign(activation=activation, expansion=8)),
        SaeConfig(design=SaeDesign(activation=type(activation)(), expansion=8), grid=Grid(sparsity=(4, 9999))),
        SaeConfig(design=SaeDesign(activation=activation, expansion=1000), grid=Grid(expansion=(8, 1000))),
    ):
        with pytest.raises(RecipeError, match="gives 256 latents: lower") as caught:
            config.check_active(32)
        assert "\n" not in str(caught.value)


def test_as_many_active_latents_as_latents_are_allowed_and_penalties_are_no_counts() -> None:
    for activation in (TopK(k=256), JumpReLU(target_l0=256.0), ReLU(l1=9999.0), Gated(l1=9999.0)):
        SaeConfig(design=SaeDesign(activation=activation, expansion=8)).check_active(32)
