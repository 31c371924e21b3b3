"""The tables of regions: images that have some, the regions, patches that they cover, groups of patches, and categories."""

import pyarrow as pa

from schemas.columns import column

VERSION = 1
"""Raised whenever a column changes its meaning, its type or its name."""

_SAMPLE = column("sample_id", pa.string(), "Name of the sample")
_METADATA = {"schema_version": str(VERSION)}

REGION_IMAGES = pa.schema(
    [
        _SAMPLE,
        column("annotated", pa.string(), "What its annotations call it; null where it has none", nullable=True),
        column("why_not", pa.string(), "Why it has none", nullable=True),
        column("n_regions", pa.int32(), "Its regions of the categories that are taken", "regions"),
        column(
            "n_patches", pa.int32(), "Its patches, in the base view and in the crops; 0 where it has no annotations", "patches"
        ),
        column("n_labelled", pa.int32(), "Those of them that a category covers by the share that is asked", "patches"),
    ],
    metadata=_METADATA,
)

REGIONS = pa.schema(
    [
        _SAMPLE,
        column("region", pa.int32(), "From 0 within the sample, in the order of the annotations"),
        column("category", pa.string(), "Its category; null where nothing is known: a crowd, or ignored pixels", nullable=True),
        *(column(side, pa.float64(), f"The {side} edge of the box around it", "share of the image") for side in ("left", "top")),
        *(
            column(side, pa.float64(), f"The {side} edge of the box around it", "share of the image")
            for side in ("right", "bottom")
        ),
        column("area", pa.float64(), "What it covers", "share of the image"),
        column("n_patches", pa.int32(), "Patches that it covers, alone, by the share that is asked", "patches"),
        column(
            "outline",
            pa.list_(pa.list_(pa.float32())),
            "Its loops, holes included: x and y of each corner in turn",
            "share of the image",
        ),
    ],
    metadata=_METADATA,
)

REGION_PATCHES = pa.schema(
    [
        _SAMPLE,
        column("tile", pa.int16(), "0 the base view, 1.. the crops in reading order"),
        column("row", pa.int16(), "Row of the patch, in the base view's or the image's grid"),
        column("col", pa.int16(), "Column likewise"),
        column("category", pa.string(), "A category that covers the patch; null where nothing is known of it", nullable=True),
        column(
            "cover", pa.float32(), "What all its regions cover of the patch together: the share that is asked, or more", "share"
        ),
        column("first", pa.bool_(), "Whether probes label the patch with it: it covers most, or of equal ones less of the image"),
        column("shuffled", pa.bool_(), "The control: regions of another image of the split, dealt to this one at their places"),
    ],
    metadata=_METADATA,
)

REGION_GROUPS = pa.schema(
    [
        _SAMPLE,
        column("category", pa.string(), "The label of the patches; null for background", nullable=True),
        column("shuffled", pa.string(), "Their label in the control; null for background", nullable=True),
        column("patches", pa.int32(), "Patches with both, of the base view and the crops", "patches"),
    ],
    metadata=_METADATA,
)

REGION_CATEGORIES = pa.schema(
    [
        column("category", pa.string(), "The category"),
        column("images", pa.int64(), "Images that show it", "images"),
        *(column(f"images_{split}", pa.int64(), f"Those of the {split} split", "images") for split in ("train", "val", "test")),
        column("regions", pa.int64(), "Its regions", "regions"),
        column("without_patch", pa.int64(), "Those that alone cover no patch by the share that is asked: too small", "regions"),
        column("patches", pa.int64(), "Patches that it labels", "patches"),
    ],
    metadata=_METADATA,
)
