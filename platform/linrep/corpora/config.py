"""Where images, texts and image-text pairs lie, and which of them to take: the `corpora` section of a recipe."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from linrep.config import Section


class Splits(Section):
    """Shares of the samples held out; the rest is for training."""

    val: float = Field(default=0.1, ge=0, lt=1, description="Share of the samples kept for choosing hyperparameters.")
    test: float = Field(default=0.1, ge=0, lt=1, description="Share of the samples kept for reported numbers.")

    @model_validator(mode="after")
    def _leave_some_to_train(self) -> "Splits":
        if self.val + self.test >= 1:
            raise ValueError(f"val {self.val} and test {self.test} leave nothing to train on: their sum must be below 1")
        return self


class ImageFolder(Section):
    """Images in a folder for each class, as ImageNet has them: <path>/<class>/**/<file>.

    Images directly in the folder have no label.
    """

    kind: Literal["folder"] = Field(default="folder", description="Images as files, in a folder for each class.")
    path: str = Field(description="The folder that holds the class folders: a local path or a URI (s3://, gs://).")
    classes: tuple[str, ...] | None = Field(
        default=None, description="Classes to take, by folder name (wnid) or by name; all if absent."
    )
    names: str | None = Field(
        default=None,
        description="File that maps wnids to names (JSON, or ImageNet's LOC_synset_mapping.txt); if absent, classes.json, "
        "imagenet_class_index.json or LOC_synset_mapping.txt in the folder or its parent.",
    )
    per_class: PositiveInt | None = Field(default=None, description="Images to take of each class, chosen by a hash of the id.")
    max_samples: PositiveInt | None = Field(default=None, description="Images to take in all, chosen by a hash of the id.")


class ImageParquet(Section):
    """Images as bytes in parquet files, as the Hugging Face hub has them."""

    kind: Literal["parquet"] = Field(default="parquet", description="Images as bytes in a column of parquet files.")
    path: str = Field(description="A file, a folder or a glob of parquet files: a local path or a URI (s3://, gs://).")
    image_column: str = Field(default="image", description="Encoded images: bytes, or a struct of bytes and path.")
    label_column: str = Field(
        default="label",
        description="Classes, as integers or strings; null, NaN, blank and -1 are no label. Images have none where it is absent.",
    )
    id_column: str = Field(default="id", description="Unique ids, used where present; else the file and the row name the sample.")
    classes: tuple[str, ...] | None = Field(default=None, description="Classes to take, by label or by name; all if absent.")
    names: str | None = Field(
        default=None,
        description='JSON file that maps labels to names, {"0": "tench"}; if absent, the names written in the files.',
    )
    per_class: PositiveInt | None = Field(default=None, description="Images to take of each class, chosen by a hash of the id.")
    max_samples: PositiveInt | None = Field(default=None, description="Images to take in all, chosen by a hash of the id.")


class ImageTar(Section):
    """Images in tar shards, as WebDataset has them: <key>.jpg beside <key>.cls or <key>.json."""

    kind: Literal["tar"] = Field(default="tar", description="Images in tar shards, members grouped by key.")
    path: str = Field(
        description="A file, a folder or a glob of .tar (.tar.gz, ...) files: a local path or a URI (s3://, gs://)."
    )
    label_column: str = Field(
        default="label", description="Where a key has no .cls file: field of its .json that holds the class; else no label."
    )
    classes: tuple[str, ...] | None = Field(default=None, description="Classes to take, by label or by name; all if absent.")
    names: str | None = Field(
        default=None, description="File that maps labels to names; if absent, classes.json beside the shards, as for folders."
    )
    per_class: PositiveInt | None = Field(default=None, description="Images to take of each class, chosen by a hash of the id.")
    max_samples: PositiveInt | None = Field(default=None, description="Images to take in all, chosen by a hash of the id.")
    id_column: ClassVar[str] = "id"
    image_column: ClassVar[str] = "image"


class TextFiles(Section):
    """Texts in files: .parquet, .jsonl (.ndjson), .txt with one document a line; the last two also compressed (.gz, .zst)."""

    kind: Literal["files"] = Field(default="files", description="Texts as rows of parquet, JSONL or plain files.")
    path: str = Field(description="A file, a folder or a glob (*, **, ?) of one format: a local path or a URI (s3://, gs://).")
    column: str = Field(default="text", description="The column, or JSON field, that holds the text.")
    id_column: str = Field(default="id", description="Unique ids, used where present; else the file and the row name the sample.")
    max_samples: PositiveInt | None = Field(default=None, description="Texts to take, chosen by a hash of the id.")


class PairFiles(Section):
    """Images with a caption each, listed in .parquet or .jsonl files."""

    kind: Literal["files"] = Field(default="files", description="Image-caption pairs as rows of parquet or JSONL files.")
    path: str = Field(description="A file, a folder or a glob (*, **, ?) of one format: a local path or a URI (s3://, gs://).")
    image_column: str = Field(
        default="image", description="The image: a path, or in parquet also bytes or a struct of bytes and path."
    )
    text_column: str = Field(default="text", description="The caption.")
    id_column: str = Field(default="id", description="Unique ids, used where present; else the file and the row name the sample.")
    image_root: str | None = Field(
        default=None, description="Folder that the images' paths start from; if absent, the listing file's."
    )
    outside: bool = Field(
        default=False,
        description="Also read images outside the folder (or bucket) of the list, or of image_root; else such a pair is skipped.",
    )
    caption_alone: bool = Field(default=True, description="Also give each caption as a text of its own, with the pair's id.")
    max_samples: PositiveInt | None = Field(default=None, description="Pairs to take, chosen by a hash of the id.")


class PairTar(Section):
    """Images with a caption each in tar shards, as WebDataset has them: <key>.jpg beside <key>.txt or <key>.json."""

    kind: Literal["tar"] = Field(default="tar", description="Image-caption pairs in tar shards, members grouped by key.")
    path: str = Field(
        description="A file, a folder or a glob of .tar (.tar.gz, ...) files: a local path or a URI (s3://, gs://)."
    )
    text_column: str = Field(
        default="caption", description="Where a key has no .txt file: field of its .json that holds the caption."
    )
    caption_alone: bool = Field(default=True, description="Also give each caption as a text of its own, with the pair's id.")
    max_samples: PositiveInt | None = Field(default=None, description="Pairs to take, chosen by a hash of the id.")
    id_column: ClassVar[str] = "id"
    image_column: ClassVar[str] = "image"
    image_root: ClassVar[None] = None
    outside: ClassVar[bool] = False


# Unions of one kind so far are written as that kind; a second kind makes them `Annotated[A | B, Field(discriminator="kind")]`.
ImageSource = Annotated[ImageFolder | ImageParquet | ImageTar, Field(discriminator="kind")]
TextSource = TextFiles
PairSource = Annotated[PairFiles | PairTar, Field(discriminator="kind")]
Containers = ImageParquet | ImageTar | TextFiles | PairFiles | PairTar
Source = ImageFolder | Containers


class Corpora(Section):
    """What the model looks at and reads; at least one of images, text and pairs."""

    images: ImageSource | None = Field(default=None, description="Images, with labels where there are any.")
    text: TextSource | None = Field(default=None, description="Texts without images.")
    pairs: PairSource | None = Field(default=None, description="Images with a caption each.")
    splits: Splits = Field(default=Splits(val=0.1, test=0.1), description="Shares held out, fixed by a hash of each sample.")

    @field_validator("images", mode="before")
    @classmethod
    def _folder_unless_said(cls, value: Any) -> Any:
        return {"kind": "folder", **value} if isinstance(value, dict) else value

    @field_validator("pairs", mode="before")
    @classmethod
    def _files_unless_said(cls, value: Any) -> Any:
        return {"kind": "files", **value} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _need_one(self) -> "Corpora":
        if not self.sources:
            raise ValueError("no corpus: give at least one of images, text and pairs")
        return self

    @property
    def sources(self) -> dict[str, Source]:
        """The corpora that are given, by name, in their fixed order."""
        given = {"images": self.images, "text": self.text, "pairs": self.pairs}
        return {name: source for name, source in given.items() if source is not None}
