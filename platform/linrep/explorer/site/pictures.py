"""The pictures of a site: one small file an image, shared by all pages, and where the patches of the model lie in it.

A patch's place is the product of a span across and a span down, in the base view and in the crops alike, so an image is told by
four lists of edges, which images of one size share. They are in shares of the image's width and height: a picture may be shown
in any size.
"""

import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from linrep.contents.stored import Contents
from linrep.explorer.site.shards import Site, file_name
from linrep.sample import OF_ONE_IMAGE
from linrep.store.read import Store
from linrep.vlm.card import card_of
from linrep.vlm.families import layout
from linrep.vlm.tokens import Layout, patch_box

SIDE = 320
"""Longest side of a picture in pixels; smaller images stay as they are, pixel for pixel."""
AT_ONCE = 64
"""Images held in memory."""
DIGITS = 5


class Pictures:
    """The pictures of a harvest's images on a site.

    Args:
        site: The site.
        store: The harvest.
        contents: Its images and texts; None where they are gone, and pages do without.
    """

    def __init__(self, site: Site, store: Store, contents: Contents | None) -> None:
        self._site, self._contents = site, contents
        self._samples = store.samples()
        self._row = {name: i for i, name in enumerate(self._samples["sample_id"].to_pylist())}
        self._card = card_of(store.manifest.model)
        self._known: dict[str, dict[str, Any]] = {}
        self._shown: Counter[str] = Counter()

    @property
    def samples(self) -> pa.Table:
        """The samples of the harvest, skipped ones included."""
        return self._samples

    def images(self) -> list[str]:
        """Names of the samples that have one image and were harvested; documents have no page."""
        own = self._samples.filter(pc.field("error").is_null() & pc.field("modality").isin(OF_ONE_IMAGE))
        return own["sample_id"].to_pylist()

    def row_of(self, name: str) -> int:
        """Number of a sample in the harvest's samples."""
        return self._row[name]

    def most_shown(self, n: int) -> list[str]:
        """The images that were asked for most often until now, equal ones in the order in which they came."""
        return [name for name, _ in self._shown.most_common(n)]

    def facts(self, name: str) -> dict[str, Any]:
        """What the store says of a sample."""
        row = self._samples.slice(self._row[name], 1).to_pylist()[0]
        return {key: row[key] for key in ("sample_id", "corpus", "modality", "uri", "class_name", "text", "split")}

    def draw(self, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Put the pictures of some samples on the site, those that are not there yet, and tell what pages need to show them.

        Returns:
            By sample: `file` (None where there is no picture), `width` and `height` in pixels, `name`, `label`, and `layout` with
            the edges of its patches, see `edges`. A shard holds them as `in_layouts` puts them.
        """
        asked = list(names)
        self._shown.update(asked)
        wanted = list(dict.fromkeys(asked))
        new = [name for name in wanted if name not in self._known]
        for start in range(0, len(new), AT_ONCE):
            some = new[start : start + AT_ONCE]
            if self._contents is not None:
                self._contents.load(some)
            for name in some:
                self._known[name] = self._draw(name)
        return {name: self._known[name] for name in wanted}

    def _draw(self, name: str) -> dict[str, Any]:
        row = self._samples.slice(self._row[name], 1).to_pylist()[0]
        label = row["class_name"] or row["text"] or ""
        told = {"name": name, "label": label[:200], "file": None, "width": row["width"], "height": row["height"]}
        if self._contents is not None:
            image = self._contents.image(name)
            data, ending = picture(image)
            told |= {"file": f"images/{file_name(name)}.{ending}", "width": image.width, "height": image.height}
            self._site.file(told["file"], data)
        seen = layout((row["height"], row["width"]), self._card)
        return told | {"layout": edges(seen)}


def in_layouts(pictures: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Pictures as a shard holds them: each layout once, and its number in every picture; `LineOfSight.pictures` reads them."""
    known: dict[str, int] = {}
    layouts: list[Any] = []
    rows = []
    for one in pictures:
        key = json.dumps(one["layout"])
        if key not in known:
            known[key] = len(layouts)
            layouts.append(one["layout"])
        rows.append({**one, "layout": known[key]})
    return {"pictures": rows, "layouts": layouts}


def picture(image: Image.Image) -> tuple[bytes, str]:
    """A picture's file and the ending of its name: small images losslessly, larger ones reduced."""
    out = io.BytesIO()
    image = image.convert("RGB")
    if max(image.size) <= SIDE:
        image.save(out, "PNG", compress_level=3)
        return out.getvalue(), "png"
    scale = SIDE / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    image.resize(size, Image.Resampling.LANCZOS).save(out, "WEBP", quality=80, method=4)
    return out.getvalue(), "webp"


def edges(seen: Layout) -> dict[str, Any]:
    """Where the patches of an image begin and end: of the base view and of the crops, in shares of its width and height.

    A patch that is partly padding ends at the image's edge. Patches of a whole row or column of padding have no extent.
    """
    height, width = seen.image_size
    found = {}
    for name, tile, grid in (("base", 0, seen.base), ("crops", 1, seen.crops)):
        rows, cols = (0, 0) if grid is None else (grid.rows, grid.cols)
        across = [patch_box(seen, tile, 0, col) for col in range(cols)]
        down = [patch_box(seen, tile, row, 0) for row in range(rows)]
        found[name] = {
            "x": [[round(box[0] / width, DIGITS), round(box[2] / width, DIGITS)] for box in across],
            "y": [[round(box[1] / height, DIGITS), round(box[3] / height, DIGITS)] for box in down],
        }
    return found
