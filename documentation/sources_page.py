"""The table of sources: every form in which a corpus may lie, how a recipe names it, and what its samples are called."""

from dataclasses import dataclass

from linrep.corpora.streams import COMPRESSIONS

HEAD = ["| what lies there | in `corpora` of the recipe | id of the first sample | what a sample has |", "|---|---|---|---|"]


@dataclass(frozen=True)
class Form:
    """A form of source.

    Attributes:
        lies: What lies there.
        recipe: An example of the recipe's section `corpora`, in YAML.
        id: The id of the first sample of the example.
        gives: What a sample has.
    """

    lies: str
    recipe: str
    id: str
    gives: str


LABELLED = "image, class"
IMAGES = (
    Form("image files in a folder for each class", "images: {path: data/birds}", "images/robin/1.jpg", LABELLED),
    Form("the same in an object store", 'images: {path: "s3://bucket/birds"}', "images/robin/1.jpg", LABELLED),
    Form(
        "parquet with encoded images in a column",
        "images: {kind: parquet, path: data/birds/*.parquet, label_column: species}",
        "images/train.parquet:0",
        LABELLED,
    ),
    Form(
        "parquet as the hub has `imagenet-1k`: a struct of bytes and path, labels 0 to 999",
        "images: {kind: parquet, path: data/imagenet-1k}",
        "images/data/test-00000-of-00001.parquet:0",
        "image, class with the name of WordNet; none where the label is -1",
    ),
    Form(
        "WebDataset tar: `0001.jpg` beside `0001.cls`, or a field of `0001.json`; also `.tar.gz` and the like",
        "images: {kind: tar, path: data/birds/*.tar}",
        "images/0.tar/0001",
        LABELLED,
    ),
)
TEXTS = (
    Form("JSONL (`.jsonl`, `.ndjson`)", "text: {path: data/wiki.jsonl}", "text/wiki.jsonl:0", "text"),
    *(
        Form(f"JSONL, compressed (`{end}`)", f"text: {{path: data/wiki.jsonl{end}}}", f"text/wiki.jsonl{end}:0", "text")
        for end in COMPRESSIONS
    ),
    Form("parquet", "text: {path: data/wiki, column: body, id_column: title}", "text/Robin", "text"),
    Form("a plain file, a document a line; also compressed", "text: {path: data/lines.txt}", "text/lines.txt:0", "text"),
    Form(
        "a folder of `.txt` and `.md` files, a document a file; also compressed",
        "text: {path: data/notes, documents: files}",
        "text/2024/june.md",
        "text",
    ),
)
PAIRED = "image and caption; the caption alone"
PAIRS = (
    Form("JSONL with the paths of the images", "pairs: {path: data/coco/captions.jsonl}", "pairs/captions.jsonl:0", PAIRED),
    Form(
        "the same, with the images in another folder",
        "pairs: {path: data/captions.jsonl, image_root: data/photos}",
        "pairs/captions.jsonl:0",
        PAIRED,
    ),
    Form(
        "parquet with paths, bytes, or the hub's struct of both",
        "pairs: {path: data/coco, text_column: caption, caption_alone: false}",
        "pairs/bytes.parquet:0",
        "image and caption",
    ),
    Form(
        "WebDataset tar: `0001.jpg` beside `0001.txt`, or a field of `0001.json`",
        "pairs: {kind: tar, path: data/coco.tar}",
        "pairs/coco.tar/0001",
        PAIRED,
    ),
)
SHOWN = "a text with images in it"
DOCUMENTS = (
    Form(
        "parquet, a text with `<image>` in the place of each image, and a list of images: paths, bytes, or structs of both",
        "documents: {path: data/guides/*.parquet}",
        "documents/1.parquet:0",
        SHOWN,
    ),
    Form(
        "the same in JSONL, with the paths of the images; also compressed",
        "documents: {path: data/guides.jsonl, image_root: data/photos}",
        "documents/guides.jsonl:0",
        SHOWN,
    ),
    Form(
        "a list of texts and one of images, as OBELICS has them, of which one is given at each place",
        "documents: {path: data/obelics, text_column: texts}",
        "documents/0.parquet:0",
        SHOWN,
    ),
)
SEVERAL = (
    Form(
        "several sources, each under a name, some with a weight",
        "text: {sources: {text: {path: data/wiki.jsonl}, notes: {path: data/notes, documents: files, weight: 0.5}}}",
        "text/wiki.jsonl:0",
        "text",
    ),
)
HUB = (
    Form(
        "any of these forms in a repository of the Hugging Face hub, streamed: here parquet",
        'images: {kind: parquet, path: "hf://datasets/ILSVRC/imagenet-1k/data/train-*.parquet"}',
        "images/train-00000-of-00001.parquet:0",
        "image, class with the name of WordNet",
    ),
    Form(
        "the same at a branch, tag or commit: here compressed JSONL",
        'text: {path: "hf://datasets/OWNER/NAME@v1/wiki/*.jsonl.gz"}',
        "text/0.jsonl.gz:0",
        "text",
    ),
)
FORMS = (*IMAGES, *TEXTS, *PAIRS, *DOCUMENTS, *SEVERAL, *HUB)
"""Every form; a test writes each example and reads it."""


def sources_table() -> str:
    """The forms in a table."""
    return "\n".join([*HEAD, *(f"| {one.lies} | `{one.recipe}` | `{one.id}` | {one.gives} |" for one in FORMS)])
