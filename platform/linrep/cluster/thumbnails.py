"""Small images of a harvest's samples for the report, fetched again from its corpora."""

from collections.abc import Sequence

from linrep.contents.stored import StoredContents, Token, stored_contents
from linrep.errors import LinrepError
from linrep.explorer.drawing import Drawing
from linrep.explorer.examples import Draw, Patch
from linrep.explorer.heat import thumbnail
from linrep.harvest.artefact import Harvest


def drawer(harvest: Harvest) -> Draw:
    """Gives small images of a harvest's samples; nothing where a corpus does not give one any more.

    Args:
        harvest: The harvest, complete.
    """
    plan, contents = harvest.plan, list[StoredContents]()

    def draw(sample: str, patches: Sequence[Patch]) -> Drawing | None:
        try:
            if not contents:  # only where an image is wanted
                contents.append(stored_contents(harvest.store, plan.chunks, plan.job.corpora, plan.job.model))
            own = contents[0]
            own.load([sample])
            places = [Token(-1, patch.tile, patch.row, patch.col) for patch in patches]
            image = own.image(sample)
            boxes = own.boxes(sample, places, (image.height, image.width))
            return thumbnail(image, boxes, [p.activation for p, t in zip(patches, places, strict=True) if t.is_patch])
        except (LinrepError, OSError):
            return None  # the report is complete without it

    return draw
