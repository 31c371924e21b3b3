"""SAEs of constant activations have no FVU: summaries, cards and figures say so instead of failing."""

import math

import pyarrow as pa
import pytest
import torch

from linrep.explorer.sae_figures import figures
from linrep.explorer.saes import card_lines, summary_lines
from linrep.sae.controls import random_sae
from linrep.sae.report import LayerSae, Report
from linrep.store.tables import table_of
from schemas import saes

HELD_OUT = {
    "constant": torch.ones(64, 8),
    "one row": torch.randn(1, 8, generator=torch.Generator().manual_seed(1)),
    "zero": torch.zeros(64, 8),
    "one heavy row": torch.cat([torch.zeros(63, 8), torch.full((1, 8), 1e30)]),
}


def tables_of(x: torch.Tensor, both: bool) -> dict[str, pa.Table]:
    sae = random_sae(torch.randn(64, 8, generator=torch.Generator().manual_seed(0)), 32, 4)
    one, rows, report = LayerSae(3, "topk-4", sae, sae), {"image": x, **({"text": x} if both else {})}, Report()
    found = one.evaluate(rows)
    control = one.random(rows, found)
    report.add_quality(one, found, control.evaluate(rows))
    report.add_rebuilt(one, control, torch.zeros(2, 8), 4)
    schemas = {"quality": saes.QUALITY, "truth": saes.TRUTH, "rebuilt": saes.REBUILT}
    return {name: table_of(getattr(report, name), schema) for name, schema in schemas.items()}


@pytest.mark.parametrize("both", [True, False], ids=["both modalities", "one modality"])
@pytest.mark.parametrize("held_out", HELD_OUT)
def test_an_sae_of_degenerate_rows_has_a_summary(held_out, both):
    tables = tables_of(HELD_OUT[held_out], both)
    lines = summary_lines(tables, {})
    assert any("image: FVU" in line for line in lines)
    if held_out in ("constant", "zero", "one row"):
        assert any("FVU undefined (constant rows)" in line for line in lines)
    assert "L0" in " ".join(lines)
    assert isinstance(card_lines(tables, 3, "topk-4"), dict)
    assert isinstance(figures(tables), dict)


def test_rows_that_are_not_finite_have_no_quality():
    """Zero errors over no rows were a perfect FVU."""
    sae = random_sae(torch.randn(64, 8, generator=torch.Generator().manual_seed(0)), 32, 4)
    found = LayerSae(3, "topk-4", sae, sae).evaluate({"image": torch.full((5, 8), torch.nan)}).quality["image"]
    assert (found.n_rows, found.n_nonfinite) == (0, 5)
    for measure in ("fvu", "explained_variance", "cosine", "l0", "alive", "dense", "shrinkage"):
        assert math.isnan(getattr(found, measure)), measure
