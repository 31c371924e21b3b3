"""Images of a store without a store: samples of the demo's model, and the patches of theirs that regions cover."""

from collections.abc import Sequence
from dataclasses import asdict

import polars as pl

from linrep.contents.stored import StoredContents, places_in
from linrep.demo import model_folder
from linrep.regions.annotated import Listed, Region
from linrep.regions.config import Coco, RegionsConfig
from linrep.regions.matching import Window
from linrep.regions.unit import Annotated, ImageTask, label_images
from linrep.store.write import samples_table
from linrep.vlm.card import describe
from linrep.vlm.config import ModelConfig

CARD = describe(ModelConfig(path=str(model_folder())))
"""A tile has 72 pixels and 6 x 6 patches."""
CONFIG = RegionsConfig(source=Coco(path="x"))


def samples(**sizes: tuple[int, int]) -> StoredContents:
    """Samples with images of some height and width, and where their patches lie."""
    rows = [
        {
            "sample_id": name, "corpus": "images", "modality": "image", "uri": f"{name}.jpg", "split": "train",
            "height": height, "width": width, "n_image_tokens": 1, "n_text_tokens": 0,
        }
        for name, (height, width) in sizes.items()
    ]  # fmt: skip
    return places_in(samples_table(rows), asdict(CARD))


def annotated(
    regions: Sequence[Region], size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> Annotated:
    """Regions of an annotated image, which an image shows as a whole or a part of."""
    whole = (0.0, 0.0, float(size[1]), float(size[0]))
    return Annotated(Listed("x", size, tuple(regions)), Window(size, box or whole))


def labelled(contents: StoredContents, tasks: Sequence[ImageTask], **config) -> dict[str, pl.DataFrame]:
    """The tables of some images."""
    tables = label_images(contents, tasks, CONFIG.model_copy(update=config))
    return {name: pl.DataFrame(pl.from_arrow(table)) for name, table in tables.items()}


def places(patches: pl.DataFrame, crops: bool = False, **chosen: object) -> set[tuple[int, int]]:
    """Rows and columns of covered patches, of the base view or the crops."""
    wanted = [pl.col("tile") > 0 if crops else pl.col("tile") == 0]
    wanted += [pl.col(name).is_null() if value is None else pl.col(name) == value for name, value in chosen.items()]
    return set(patches.filter(wanted).select("row", "col").iter_rows())


def block(rows: range, columns: range) -> set[tuple[int, int]]:
    """All places in some rows and columns."""
    return {(row, column) for row in rows for column in columns}
