"""Regions on disk: an artefact with a unit for each chunk of the harvest that holds images, see `linrep.artefact`.

regions/<name>-<digest>/
  units/part-000012/         images, regions, groups and patches of chunk 12; patches stay here
  categories.parquet         how often each category is there, once complete
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa

from linrep import artefact
from linrep.artefact import Artefact
from linrep.kind import Kind
from linrep.places import Place
from linrep.regions.study import RegionsStudy
from linrep.store.samples import SPLITS
from linrep.store.tables import write_table
from schemas.regions import REGION_CATEGORIES, REGION_GROUPS, REGION_IMAGES, REGION_PATCHES, REGIONS, VERSION

CATEGORIES = "categories"
UNMATCHED = 5
"""Annotated images that fit no image and are named."""


@dataclass(frozen=True)
class RegionsAbout:
    """What the regions are of.

    Attributes:
        store: Where the activations lay: their path in the workspace, or the address of what lies elsewhere.
        source: Where the annotations lay.
        share: What a category must cover of a patch, at least.
        unmatched: Annotated images that no image of the harvest is; once complete.
        unmatched_names: What the first of them are called.
        left_out: Annotations that are no region, by reason.
    """

    store: str
    source: str
    share: float
    unmatched: int = 0
    unmatched_names: tuple[str, ...] = ()
    left_out: dict[str, int] | None = None


REGIONS_KIND = Kind(
    "regions", "regions", "regions", VERSION, RegionsAbout,
    {"regions": REGIONS, "images": REGION_IMAGES, "groups": REGION_GROUPS}, parts={"patches": REGION_PATCHES},
    whole={CATEGORIES: REGION_CATEGORIES},
)  # fmt: skip


@dataclass(frozen=True)
class Regions(Artefact[RegionsAbout]):
    """Complete regions, as a reader sees them; `schemas.regions` explains their tables."""

    @property
    def share(self) -> float:
        """What a category must cover of a patch, at least."""
        return self.about.share

    def patches(self, chunks: Iterable[int]) -> pa.Table:
        """The patches that regions cover in some chunks of the harvest; a chunk without images has none."""
        units = set(self.units)
        parts = [self.part(name, "patches") for chunk in chunks if (name := f"part-{chunk:06d}") in units]
        return pa.concat_tables(parts) if parts else REGION_PATCHES.empty_table()


def open_regions(where: str | Place) -> Regions:
    """The regions in a folder; a workspace that holds just one artefact of regions will do.

    Raises:
        StoreError: There are none, several to choose from, or they are not complete.
    """
    return readable(artefact.open(REGIONS_KIND, where))


def readable(here: Artefact[RegionsAbout]) -> Regions:
    """The same artefact with what readers ask of it."""
    return Regions(here.kind, here.place, here.manifest)


def plan_regions(workspace: Place, name: str, study: RegionsStudy) -> Artefact[RegionsAbout]:
    """Name the artefact of a study and describe it.

    Args:
        workspace: Where everything lies.
        name: Name of the recipe.
        study: What will be done.
    """
    values = study.config.model_dump(mode="json")
    config = values | {"source": {**values["source"], "path": str(study.source)}}
    return artefact.plan(
        REGIONS_KIND,
        workspace,
        name,
        # What the annotations hold counts, not where they lie.
        decisive=values | {"source": {k: v for k, v in values["source"].items() if k not in ("path", "names")}},
        parents={"harvest": study.store.manifest.digest, "annotations": study.digest},
        config=config,
        units=list(study.chunks),
        about=RegionsAbout(study.store.place.within(workspace), str(study.source), study.config.share),
    )


def finish(here: Artefact[RegionsAbout], study: RegionsStudy) -> dict[str, Any]:
    """Put the units' tables together, count the categories; returns what can be said only now."""
    here.finish()
    requests = study.requests
    samples = study.store.samples()
    splits = dict(zip(samples["sample_id"].to_pylist(), samples["split"].to_pylist(), strict=True))
    table = categories_of(here.table("regions"), here.table("groups"), splits)
    write_table(here.place, f"{CATEGORIES}.parquet", table)
    return {
        "unmatched": len(requests.unmatched),
        "unmatched_names": list(requests.unmatched[:UNMATCHED]),
        "left_out": dict(requests.left_out),
    }


def categories_of(regions: pa.Table, groups: pa.Table, splits: Mapping[str, str]) -> pa.Table:
    """How often each category is there.

    Args:
        regions: All regions.
        groups: All groups of patches.
        splits: The split of each sample.
    """
    rows = pl.DataFrame(pl.from_arrow(regions)).drop_nulls("category").select("sample_id", "category", "n_patches")
    rows = rows.with_columns(split=pl.col("sample_id").replace_strict(splits))
    images = pl.col("sample_id")
    found = rows.group_by("category").agg(
        images=images.n_unique(),
        **{f"images_{split}": images.filter(pl.col("split") == split).n_unique() for split in SPLITS},
        regions=pl.len(),
        without_patch=(pl.col("n_patches") == 0).sum(),
    )
    labelled = pl.DataFrame(pl.from_arrow(groups)).drop_nulls("category").group_by("category").agg(pl.col("patches").sum())
    whole = found.join(labelled, on="category", how="left").with_columns(pl.col("patches").fill_null(0)).sort("category")
    return whole.select(REGION_CATEGORIES.names).to_arrow().cast(REGION_CATEGORIES)
