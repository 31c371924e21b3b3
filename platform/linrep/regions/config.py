"""Where boxes and masks of the images lie, and when a patch belongs to one: the `regions` section of a recipe."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from linrep.config import Section


class Coco(Section):
    """Boxes and masks in one JSON file, as COCO has them: images, annotations, categories."""

    kind: Literal["coco"] = Field(default="coco", description="A JSON file in COCO's form.")
    path: str = Field(description="The JSON file: a local path, a URI, or demo://regions.json.", examples=["instances.json"])
    match: Literal["file_name", "id"] = Field(
        default="file_name",
        description="What names an image of the corpus: the end of its path, or the image's id as the sample's id.",
    )
    shape: Literal["segmentation", "box"] = Field(
        default="segmentation",
        description="What is taken of an annotation: its polygons or run lengths, else its box; or always its box.",
    )


class Masks(Section):
    """A PNG for each image, whose grey value or palette number is the category of the pixel."""

    kind: Literal["masks"] = Field(default="masks", description="One PNG for each image.")
    path: str = Field(description="Folder of the PNGs, which are called as the images: a local path or a URI.")
    names: str | None = Field(
        default=None, description='JSON file that maps values to categories, {"1": "boat"}; if absent, the values name them.'
    )
    background: tuple[int, ...] = Field(default=(0,), description="Values of pixels that belong to no region.")
    ignored: tuple[int, ...] = Field(default=(255,), description="Values of pixels about which nothing is known.")


class ClassMasks(Section):
    """A folder for each category, with a PNG for each image that shows it: <path>/<category>/<image>.png."""

    kind: Literal["class_masks"] = Field(default="class_masks", description="A folder of PNGs for each category.")
    path: str = Field(description="The folder that holds the categories' folders: a local path or a URI; pixels above 0 count.")


RegionSource = Annotated[Coco | Masks | ClassMasks, Field(discriminator="kind")]


class RegionsConfig(Section):
    """Boxes or masks of the images, as labels of single patches."""

    source: RegionSource = Field(description="Where they lie, and in which form.")
    categories: tuple[str, ...] | None = Field(default=None, description="Categories to take, by name; null takes all.")
    share: float = Field(
        default=0.5, gt=0, le=1, description="Share of a patch that a category must cover, at least, for the patch to be its."
    )
    resized: Literal["squashed", "cropped"] | None = Field(
        default=None,
        description="How an image was made of the annotated one, where their proportions differ: squashed as a whole, or its "
        "middle cropped; null leaves such images out.",
    )
    seed: int = Field(default=0, description="Seed of the control: which image's regions each image is dealt.")

    @field_validator("source", mode="before")
    @classmethod
    def _coco_unless_said(cls, value: Any) -> Any:
        return {"kind": "coco", **value} if isinstance(value, dict) else value

    @field_validator("categories")
    @classmethod
    def _some(cls, categories: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if categories is not None and (not categories or len(set(categories)) < len(categories)):
            raise ValueError(f"must name categories, each once, or be null, got {list(categories)}")
        return categories
