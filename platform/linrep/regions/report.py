"""What people read of regions: how many images have some, of which categories, and what was not found."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import polars as pl

SHOWN = 12
"""Categories that are listed, the most frequent."""


def regions_headline(images: pl.DataFrame, categories: pl.DataFrame, share: float) -> list[str]:
    """How much has regions, in a sentence.

    Args:
        images: Rows of the `REGION_IMAGES` contract.
        categories: Rows of the `REGION_CATEGORIES` contract.
        share: What a category must cover of a patch.
    """
    own = images.drop_nulls("annotated")
    patches = int(own["n_patches"].sum())
    of = f"{own['n_labelled'].sum() / patches:.0%} of their patches" if patches else "no patch"
    n, c = int(own["n_regions"].sum()), len(categories)
    return [
        f"{len(own):,} of {len(images):,} images have regions: {n:,} of {c:,} categories, which cover {of} "
        f"by {share:.0%} or more."
    ]


def summary_lines(images: pl.DataFrame, categories: pl.DataFrame, about: Any) -> list[str]:
    """What has no regions and why, and a line for each of the frequent categories.

    Args:
        images: Rows of the `REGION_IMAGES` contract.
        categories: Rows of the `REGION_CATEGORIES` contract.
        about: What the artefact says of itself.
    """
    lines = []
    if reasons := Counter(images.drop_nulls("why_not")["why_not"].to_list()):
        lines.append(f"  images without regions: {_listed(reasons)}")
    if about.unmatched:
        more = " ..." if about.unmatched > len(about.unmatched_names) else ""
        some = ", ".join(about.unmatched_names) + more
        lines.append(f"  annotated images that the harvest does not have: {about.unmatched:,} ({some})")
    if about.left_out:
        lines.append(f"  annotations left out: {_listed(about.left_out)}")
    if small := int(categories["without_patch"].sum()):
        lines.append(
            f"  too small to cover {about.share:.0%} of any patch alone: {small:,} of {categories['regions'].sum():,} regions"
        )
    wide = max(map(len, categories["category"].to_list()), default=0)
    for row in categories.sort("images", "category", descending=[True, False]).head(SHOWN).iter_rows(named=True):
        lines.append(
            f"  {row['category']:{wide}}  {row['images']:,} images, {row['regions']:,} regions, {row['patches']:,} patches"
        )
    if len(categories) > SHOWN:
        lines.append(f"  and {len(categories) - SHOWN} further categories, see categories.parquet")
    return lines


def regions_metrics(images: pl.DataFrame, categories: pl.DataFrame) -> dict[str, float]:
    """The main counts."""
    return {
        "images_with_regions": float(images["annotated"].is_not_null().sum()),
        "regions": float(categories["regions"].sum()),
        "categories": float(len(categories)),
        "labelled_patches": float(images["n_labelled"].sum()),
    }


def _listed(counts: Mapping[str, int]) -> str:
    return "; ".join(f"{n:,} {why}" for why, n in Counter(counts).most_common())
