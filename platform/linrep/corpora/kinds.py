"""The kinds of source that a corpus can have: what lies there, and which of it to take."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveInt, model_serializer

from linrep.config import Section


class Weighted(Section):
    """A source of samples, of which a share can be taken."""

    @model_serializer(mode="wrap")
    def _without_what_says_nothing(self, dump: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        # A recipe's digests are those that it had before there were weights, and documents other than lines.
        return {name: value for name, value in dump(self).items() if (name, value) not in (("weight", 1), ("documents", "lines"))}


class ImageFolder(Weighted):
    """Images in a folder for each class, as ImageNet has them: <path>/<class>/**/<file>.

    Images directly in the folder have no label.
    """

    kind: Literal["folder"] = Field(default="folder", description="Images as files, in a folder for each class.")
    path: str = Field(description="The folder that holds the class folders: a local path or a URI (s3://, gs://, hf://).")
    classes: tuple[str, ...] | None = Field(
        default=None, description="Classes to take, by folder name (wnid) or by name; all if absent."
    )
    names: str | None = Field(
        default=None,
        description="File that maps wnids to names (JSON, or ImageNet's LOC_synset_mapping.txt); if absent, classes.json, "
        "imagenet_class_index.json or LOC_synset_mapping.txt in the folder or its parent, else those of ILSVRC-2012.",
    )
    per_class: PositiveInt | None = Field(default=None, description="Images to take of each class, chosen by a hash of the id.")
    weight: float = Field(default=1.0, gt=0, le=1, description="Share of the images to take, chosen by a hash of the id.")
    max_samples: PositiveInt | None = Field(default=None, description="Images to take in all, chosen by a hash of the id.")


class ImageParquet(Weighted):
    """Images as bytes in parquet files, as the Hugging Face hub has them."""

    kind: Literal["parquet"] = Field(default="parquet", description="Images as bytes in a column of parquet files.")
    path: str = Field(description="A file, a folder or a glob of parquet files: a local path or a URI (s3://, gs://, hf://).")
    image_column: str = Field(default="image", description="Encoded images: bytes, or a struct of bytes and path.")
    label_column: str = Field(
        default="label",
        description="Classes, as integers or strings; null, NaN, blank and -1 are no label. Images have none where it is absent.",
    )
    id_column: str = Field(default="id", description="Unique ids, used where present; else the file and the row name the sample.")
    classes: tuple[str, ...] | None = Field(default=None, description="Classes to take, by label or by name; all if absent.")
    names: str | None = Field(
        default=None,
        description='JSON file that maps labels to names, {"0": "tench"}, or ilsvrc2012 for the names of its 1,000 classes; '
        "if absent, the names written in the files, and those of ILSVRC-2012 where the labels are its numbers.",
    )
    per_class: PositiveInt | None = Field(default=None, description="Images to take of each class, chosen by a hash of the id.")
    weight: float = Field(default=1.0, gt=0, le=1, description="Share of the images to take, chosen by a hash of the id.")
    max_samples: PositiveInt | None = Field(default=None, description="Images to take in all, chosen by a hash of the id.")


class ImageTar(Weighted):
    """Images in tar shards, as WebDataset has them: <key>.jpg beside <key>.cls or <key>.json."""

    kind: Literal["tar"] = Field(default="tar", description="Images in tar shards, members grouped by key.")
    path: str = Field(
        description="A file, a folder or a glob of .tar (.tar.gz, ...) files: a local path or a URI (s3://, gs://, hf://)."
    )
    label_column: str = Field(
        default="label", description="Where a key has no .cls file: field of its .json that holds the class; else no label."
    )
    classes: tuple[str, ...] | None = Field(default=None, description="Classes to take, by label or by name; all if absent.")
    names: str | None = Field(
        default=None,
        description="File that maps labels to names, or ilsvrc2012; if absent, classes.json beside the shards, as for folders.",
    )
    per_class: PositiveInt | None = Field(default=None, description="Images to take of each class, chosen by a hash of the id.")
    weight: float = Field(default=1.0, gt=0, le=1, description="Share of the images to take, chosen by a hash of the id.")
    max_samples: PositiveInt | None = Field(default=None, description="Images to take in all, chosen by a hash of the id.")
    id_column: ClassVar[str] = "id"
    image_column: ClassVar[str] = "image"


class TextFiles(Weighted):
    """Texts in files: .parquet, .jsonl (.ndjson), .txt with one document a line; the last two also compressed (.gz, .zst).

    With `documents` files, each .txt or .md file is one document.
    """

    kind: Literal["files"] = Field(default="files", description="Texts as rows of parquet, JSONL or plain files.")
    path: str = Field(
        description="A file, a folder or a glob (*, **, ?) of one format: a local path or a URI (s3://, gs://, hf://)."
    )
    documents: Literal["lines", "files"] = Field(
        default="lines", description="What is one document of plain text: a line of a .txt file, or a whole .txt or .md file."
    )
    column: str = Field(default="text", description="The column, or JSON field, that holds the text.")
    id_column: str = Field(default="id", description="Unique ids, used where present; else the file and the row name the sample.")
    weight: float = Field(default=1.0, gt=0, le=1, description="Share of the texts to take, chosen by a hash of the id.")
    max_samples: PositiveInt | None = Field(default=None, description="Texts to take, chosen by a hash of the id.")


class PairFiles(Weighted):
    """Images with a caption each, listed in .parquet or .jsonl files."""

    kind: Literal["files"] = Field(default="files", description="Image-caption pairs as rows of parquet or JSONL files.")
    path: str = Field(
        description="A file, a folder or a glob (*, **, ?) of one format: a local path or a URI (s3://, gs://, hf://)."
    )
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
    weight: float = Field(default=1.0, gt=0, le=1, description="Share of the pairs to take, chosen by a hash of the id.")
    max_samples: PositiveInt | None = Field(default=None, description="Pairs to take, chosen by a hash of the id.")


class PairTar(Weighted):
    """Images with a caption each in tar shards, as WebDataset has them: <key>.jpg beside <key>.txt or <key>.json."""

    kind: Literal["tar"] = Field(default="tar", description="Image-caption pairs in tar shards, members grouped by key.")
    path: str = Field(
        description="A file, a folder or a glob of .tar (.tar.gz, ...) files: a local path or a URI (s3://, gs://, hf://)."
    )
    text_column: str = Field(
        default="caption", description="Where a key has no .txt file: field of its .json that holds the caption."
    )
    caption_alone: bool = Field(default=True, description="Also give each caption as a text of its own, with the pair's id.")
    weight: float = Field(default=1.0, gt=0, le=1, description="Share of the pairs to take, chosen by a hash of the id.")
    max_samples: PositiveInt | None = Field(default=None, description="Pairs to take, chosen by a hash of the id.")
    id_column: ClassVar[str] = "id"
    image_column: ClassVar[str] = "image"
    image_root: ClassVar[None] = None
    outside: ClassVar[bool] = False


class DocumentFiles(Weighted):
    """Documents, which are texts with images in them, as rows of .parquet or .jsonl files."""

    kind: Literal["files"] = Field(default="files", description="Documents as rows of parquet or JSONL files.")
    path: str = Field(
        description="A file, a folder or a glob (*, **, ?) of one format: a local path or a URI (s3://, gs://, hf://)."
    )
    text_column: str = Field(
        default="text",
        description="A text with <image> in the place of each image, or a list of texts with null in the place of each image.",
    )
    images_column: str = Field(
        default="images",
        description="A list of the images (paths; in parquet also bytes or structs of bytes and path); beside a list of texts as "
        "long as that, with null in the place of each text.",
    )
    id_column: str = Field(default="id", description="Unique ids, used where present; else the file and the row name the sample.")
    image_root: str | None = Field(
        default=None, description="Folder that the images' paths start from; if absent, the listing file's."
    )
    outside: bool = Field(
        default=False,
        description="Also read images outside the folder (or bucket) of the file, or image_root; else the document is skipped.",
    )
    max_images: PositiveInt = Field(default=8, description="A document that shows more images is skipped.")
    weight: float = Field(default=1.0, gt=0, le=1, description="Share of the documents to take, chosen by a hash of the id.")
    max_samples: PositiveInt | None = Field(default=None, description="Documents to take, chosen by a hash of the id.")


Containers = ImageParquet | ImageTar | TextFiles | PairFiles | PairTar | DocumentFiles
Source = ImageFolder | Containers
