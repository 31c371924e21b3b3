"""Trained SAEs as MLflow lists its models."""

from collections.abc import Mapping

import polars as pl
import pyarrow as pa

from linrep.sae.config import SaeDesign
from linrep.sae.study import sparsity_of
from linrep.tracking import Model

MEASURES = ("fvu", "l0")


def sae_models(quality: pa.Table, designs: Mapping[str, SaeDesign], width: int) -> list[Model]:
    """The SAEs of a recipe, with architecture, sparsity and width, and with FVU and L0 on each modality.

    Args:
        quality: Rows of the `QUALITY` contract.
        designs: What each SAE is, by name.
        width: Of the residual stream, in dimensions.
    """
    frame = pl.DataFrame(pl.from_arrow(quality)).drop_nulls("value").filter(pl.col("measure").is_in(MEASURES))
    models = []
    for (name, layer), own in frame.group_by(["sae", "layer"], maintain_order=True):
        design = designs[str(name)]
        params = {"architecture": design.activation.kind, "sparsity": sparsity_of(design), "width": design.n_latents(width)}
        metrics = {f"{row['measure']}_{row['modality']}": row["value"] for row in own.iter_rows(named=True)}
        models.append(Model(str(name), int(str(layer)), params, metrics))
    return models
