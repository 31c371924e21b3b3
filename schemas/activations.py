"""Tables of the activation store: samples, vectors, statistics."""

import pyarrow as pa

from schemas.columns import column

VERSION = 4
"""Raised whenever a column changes its meaning, its type or its name."""

BYTES_PER_VALUE = {"float16": 2, "bfloat16": 2, "float32": 4}
"""Number formats a vector can be stored in, all little-endian, and their width in bytes."""

PLACES = pa.list_(pa.field("element", pa.int32()))
"""Named as in a file, so that a table that was read is written to the same bytes."""
GRIDS = pa.list_(pa.field("element", pa.string()))

SAMPLES = pa.schema(
    [
        column("sample_id", pa.string(), "Name of the sample, the same on every run and machine"),
        column("corpus", pa.string(), "Section of the recipe that the sample came from: images, text, pairs or documents"),
        column("modality", pa.string(), "What the sample holds: image, text, pair or document"),
        column("uri", pa.string(), "Where the sample's file lies, relative to its corpus"),
        column("label", pa.int32(), "Class number: rank of the class among the sorted classes of the corpus", nullable=True),
        column("class_name", pa.string(), "The class in words", nullable=True),
        column("text", pa.string(), "The text or the caption; in a document <image> stands for each image", nullable=True),
        column("pair_id", pa.string(), "Shared by the samples made from one image-caption pair", nullable=True),
        column("split", pa.string(), "train, val or test, fixed by a hash of the sample"),
        column(
            "width", pa.int32(), "Width of the image as the model's processor saw it; not of documents", "pixels", nullable=True
        ),
        column("height", pa.int32(), "Height of the image likewise", "pixels", nullable=True),
        column("grid", pa.string(), "Rows x columns of the image's patches over all crops, padding removed", nullable=True),
        column("image_widths", PLACES, "Of a document the width of each of its images, in order", "pixels", nullable=True),
        column("image_heights", PLACES, "Height of each likewise", "pixels", nullable=True),
        column("image_grids", GRIDS, "Rows x columns of the patches of each likewise", nullable=True),
        column("n_image_tokens", pa.int32(), "Image positions of the sequence, newlines included", "tokens"),
        column("n_text_tokens", pa.int32(), "Positions of the sample's own text, without prompt and special tokens", "tokens"),
        column(
            "turn_first",
            PLACES,
            "Place in the sequence, from 0, of the first token of what each turn of a chat says; null where there is no chat",
            nullable=True,
        ),
        column("turn_last", PLACES, "Place of the last token of each turn likewise", nullable=True),
        column("question_last", pa.int32(), "Place of the last token of the user's last turn likewise", nullable=True),
        column(
            "answer_first",
            pa.int32(),
            "Place where the assistant's part begins: the template's words before its answer, or what the chat has it say",
            nullable=True,
        ),
        column("error", pa.string(), "Why the sample was skipped; null where it was harvested", nullable=True),
    ]
)

STATISTICS = pa.schema(
    [
        column("layer", pa.int32(), "Layer k: the residual stream entering block k; -1 for the vision tower, which has none"),
        column(
            "group",
            pa.string(),
            "image (newlines included), text (the samples' own) or special (prompt, template, start); last_image and last_text: "
            "the last position of each sample. Of other sites with their name: mlp_image; tower_special are patches of padding",
        ),
        column("n", pa.int64(), "Vectors without those of high norm", "tokens"),
        column(
            "n_nonfinite",
            pa.int64(),
            "Of these, how many are not finite in the stored number format; the sums are over the others",
            "tokens",
        ),
        column("sum", pa.binary(), "Sum of the vectors: float64, little-endian, one per dimension"),
        column("sum_squares", pa.binary(), "Sum of the squared vectors: float64, little-endian, one per dimension"),
        column("norm_counts", pa.binary(), "Histogram of the norms: int64, little-endian, bins as in linrep.store.statistics"),
        column("n_high_norm", pa.int64(), "Vectors above the manifest's limit, kept apart from all of these sums", "tokens"),
        column(
            "high_norm_counts",
            pa.binary(),
            "Histogram of their norms, with the same bins; null where the store has no limits",
            nullable=True,
        ),
        column(
            "high_norm_positions",
            pa.binary(),
            "How many of them stand at each place of the sequence, or among the sample's patches, from 0: int64, little-endian; "
            "null likewise",
            nullable=True,
        ),
    ]
)


def vectors(width: int, dtype: str) -> pa.Schema:
    """The schema of a table of vectors of every view; the columns that a view has no use for are null.

    Args:
        width: Dimensions of the residual stream (d).
        dtype: float16, bfloat16 or float32.
    """
    size = width * BYTES_PER_VALUE[dtype]
    vector = column("vector", pa.binary(size), f"The residual stream: {width} x {dtype}, little-endian", "model's own scale")
    vector = vector.with_metadata({**vector.metadata, b"dtype": dtype.encode(), b"width": str(width).encode()})
    return pa.schema(
        [
            column("sample_id", pa.string(), "Name of the sample"),
            column("position", pa.int32(), "Place in the sequence, from 0; null for means", nullable=True),
            column("token_id", pa.int32(), "Token at this position; the image placeholder's for patches", nullable=True),
            column("tile", pa.int16(), "0 the base view, 1.. the crops in reading order; null elsewhere", nullable=True),
            column("row", pa.int16(), "Row of the patch, in the base view's or the image's grid", "patches", nullable=True),
            column("col", pa.int16(), "Column of the patch likewise; null for newlines", "patches", nullable=True),
            column("image", pa.int16(), "Which of its sample's images it belongs to, from 0; null for text", nullable=True),
            column("is_newline", pa.bool_(), "The learned vector that ends a row of patches", nullable=True),
            column(
                "is_special",
                pa.bool_(),
                "Start of sequence, prompt or template (of images, too: under text), not the sample's own; null for means",
                nullable=True,
            ),
            column("n_tokens", pa.int32(), "How many tokens a mean is over; null for single tokens", "tokens", nullable=True),
            column(
                "n_high_norm",
                pa.int32(),
                "Tokens of high norm that were kept out of the mean; null for single tokens, whose norm says it",
                "tokens",
                nullable=True,
            ),
            column("norm", pa.float32(), "Euclidean norm of the vector before it was rounded for storage", "model's own scale"),
            column("label", pa.int32(), "Class number of the sample", nullable=True),
            column("split", pa.string(), "train, val or test"),
            vector,
        ],
        metadata={"schema_version": str(VERSION)},
    )


def tower_vectors(width: int, dtype: str) -> pa.Schema:
    """The schema of a table of the vision tower's patches, single or as means; the columns that these have no use for are null.

    The columns are those of `vectors`, and `patch`: what reads the one reads the other.

    Args:
        width: Dimensions of a patch as the projector takes it.
        dtype: float16, bfloat16 or float32.
    """
    own = {field.name: field for field in vectors(width, dtype)}
    vector = column("vector", own["vector"].type, f"The tower's patch: {width} x {dtype}, little-endian", "model's own scale")
    return pa.schema(
        [
            own["sample_id"],
            column("patch", pa.int32(), "Place among its sample's patches, from 0; null for means", nullable=True),
            column(
                "position",
                pa.int32(),
                "Place in the sequence of the image token that it is a part of, as other sites have it; null where there is none",
                nullable=True,
            ),
            column("token_id", pa.int32(), "Null: patches are no tokens", nullable=True),
            own["tile"],
            column(
                "row",
                pa.int16(),
                "Row on the tower's own grid: the base view's, or that of all crops with padding",
                "patches",
                nullable=True,
            ),
            column("col", pa.int16(), "Column likewise", "patches", nullable=True),
            own["image"],
            column("is_newline", pa.bool_(), "Null likewise", nullable=True),
            column("is_special", pa.bool_(), "Shows padding alone, so that the model drops it; null for means", nullable=True),
            column("n_tokens", pa.int32(), "How many patches a mean is over; null for single ones", "patches", nullable=True),
            column(
                "n_high_norm",
                pa.int32(),
                "Patches of high norm that were kept out of the mean; null for single ones",
                "patches",
                nullable=True,
            ),
            own["norm"],
            own["label"],
            own["split"],
            vector.with_metadata({**vector.metadata, b"dtype": dtype.encode(), b"width": str(width).encode()}),
        ],
        metadata={"schema_version": str(VERSION)},
    )


def vectors_of(site: str, width: int, dtype: str) -> pa.Schema:
    """The schema of a table of vectors of a site, see `linrep.store.layout`."""
    return tower_vectors(width, dtype) if site == "tower" else vectors(width, dtype)


EXCERPT_SAMPLES = pa.schema([field for field in SAMPLES if field.name not in ("corpus", "uri", "error")])
"""Samples that are shared with others: without what says where their files lie."""


def excerpt_vectors(width: int, texts: bool) -> pa.Schema:
    """The schema of vectors that are shared with others: lists of float32, which every program reads.

    Args:
        width: Dimensions of the residual stream (d).
        texts: Whether ids of tokens are there, from which texts can be read.
    """
    kept = [field for field in vectors(width, "float32") if field.name != "vector" and (texts or field.name != "token_id")]
    modality = column("modality", pa.string(), "image, or text: what is no patch and no newline stands under text")
    vector = column("vector", pa.list_(pa.float32(), width), f"The residual stream: {width} x float32", "model's own scale")
    return pa.schema([kept[0], modality, *kept[1:], vector], metadata={"schema_version": str(VERSION)})
