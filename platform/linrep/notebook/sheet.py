"""A contact sheet of a latent: images under a heat map of its activation on their patches, and texts with shaded tokens."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from linrep.contents.draw import fit
from linrep.contents.stored import StoredContents, Token
from linrep.notebook.images import SampleImage
from linrep.notebook.markup import image_tag, number, plain, shaded, text

SIDE = 128
"""The longer side of an image on a sheet, in pixels: twice for each, bare and under the heat map."""
LINES = 10
"""Words of the logit lens that are shown."""


@dataclass(frozen=True)
class ImageExample:
    """An image on which a latent fires.

    Attributes:
        sample: The image, its patches with the latent's activations.
        row: The features' row of the example.
    """

    sample: SampleImage
    row: dict[str, Any]


@dataclass(frozen=True)
class TextExample:
    """A stretch of a text on which a latent fires.

    Attributes:
        pieces: What each token stands for.
        values: The latent's activation at each; None where the store holds no row of it.
        row: The features' row of the example.
    """

    pieces: tuple[str, ...]
    values: tuple[float | None, ...]
    row: dict[str, Any]


@dataclass(frozen=True)
class LatentSheet:
    """What a latent does, at a glance.

    Attributes:
        facts: The latent's row of the features.
        explanation: What an interpretation says of it, None where there is none.
        images: Images, in the order of the sheet.
        texts: Texts likewise.
    """

    facts: dict[str, Any]
    explanation: str | None
    images: tuple[ImageExample, ...]
    texts: tuple[TextExample, ...]

    @property
    def title(self) -> str:
        """Which latent it is."""
        return f"latent {self.facts['latent']} of {plain(self.facts['sae'], 80)}, layer {self.facts['layer']}"

    def page(self, side: int = SIDE, columns: int = 6) -> Image.Image:
        """The images alone on one white page, each bare and under its heat map: to save, or to send.

        Args:
            side: The longer side of an image, in pixels.
            columns: Images in a row.
        """
        gap = 8
        pairs = [(fit(one.sample.image, side), one.sample.drawn(side)) for one in self.images]
        rows = -(-len(pairs) // columns)
        width = gap + min(columns, max(len(pairs), 1)) * (side + gap)
        page = Image.new("RGB", (width, gap + max(rows, 1) * (2 * side + 2 * gap)), (255, 255, 255))
        for i, (bare, hot) in enumerate(pairs):
            left, top = gap + i % columns * (side + gap), gap + i // columns * (2 * side + 2 * gap)
            page.paste(bare, (left, top))
            page.paste(hot, (left, top + side + 2))
        return page

    def __repr__(self) -> str:
        lines = [
            f"{self.title}: {plain(self.explanation) or 'no explanation'}",
            *(plain(line) for line in facts_lines(self.facts)),
        ]
        for one in self.images:
            lines.append(f"  {one.row['activation']:8.3f}  {plain(one.row['sample_id'], 90)}")
        for one in self.texts:
            most = max((value or 0.0 for value in one.values), default=0.0)
            said = "".join(
                f"[{piece}]" if value is not None and value > most / 2 else piece
                for piece, value in zip(one.pieces, one.values, strict=True)
            )
            lines.append(f"  {one.row['activation']:8.3f}  {plain(said, 110)}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        said = text(self.explanation) if self.explanation else "<i>no explanation yet</i>"
        facts = "<br>".join(text(line) for line in facts_lines(self.facts))
        most = {m: float(self.facts[f"max_{m}"]) for m in ("image", "text")}
        cells = "".join(_cell(one) for one in self.images)
        lines = "".join(_line(one, most["text"]) for one in self.texts)
        return (
            f"<div><p><b>{text(self.title)}</b><br>{said}<br>{facts}</p>"
            f'<div style="display:flex;flex-wrap:wrap;gap:10px">{cells}</div>'
            f'<div style="margin-top:10px">{lines}</div></div>'
        )


def facts_lines(facts: dict[str, Any]) -> list[str]:
    """The main numbers of a latent, in lines."""
    rates = ", ".join(f"{facts[f'rate_{m}']:.2%} of {m} tokens" for m in ("image", "text"))
    lines = [f"fires on {rates}; modality score {number(facts['modality_score']) or 'undefined'} (1 image only, 0 text only)"]
    if facts["best_value"] is not None:
        lines.append(f"best label: {facts['best_attribute']} {facts['best_value']}, F1 {number(facts['f1'])}")
    if facts["words_up"]:
        lines.append("words it raises: " + ", ".join(word.strip() or repr(word) for word in facts["words_up"][:LINES]))
    return lines


def _cell(one: ImageExample) -> str:
    row, name = one.row, f"image {one.row['sample_id']}"
    what = one.sample.facts.get("class_name") or one.sample.facts.get("text") or one.sample.facts["sample_id"]
    said = f"{number(row['activation'])} {text(what, 60)}<br>{row['n_active']} of {row['n_held']} tokens held"
    return (
        f'<figure style="margin:0;width:{SIDE}px">{image_tag(fit(one.sample.image, SIDE), name, "display:block")}'
        f"{image_tag(one.sample.drawn(SIDE), f'{name}, activations', 'display:block;margin-top:2px')}"
        f'<figcaption style="font-size:11px;overflow-wrap:anywhere">{said}</figcaption></figure>'
    )


def _line(one: TextExample, most: float) -> str:
    return f"<div><small>{number(one.row['activation'])}</small> {shaded(one.pieces, one.values, most)}</div>"


def image_example(contents: StoredContents, row: dict[str, Any], most: float) -> ImageExample:
    """An example of an image, whose image is loaded.

    Args:
        contents: Of the store.
        row: Of the features' examples.
        most: The activation of full colour.
    """
    name = row["sample_id"]
    sample = SampleImage(contents.facts(name), contents.image(name), contents.layout(name), most=most)
    tokens = [Token(*place) for place in zip(row["positions"], row["tiles"], row["rows"], row["cols"], strict=True)]
    return ImageExample(sample.at(tokens, row["activations"]), row)


def text_example(contents: StoredContents, row: dict[str, Any]) -> TextExample:
    """An example of a text: the tokens around the largest activation."""
    window = contents.window(row["sample_id"], row["position"])
    held = dict(zip(row["positions"], row["activations"], strict=True))
    return TextExample(window.pieces, tuple(held.get(position) for position in window.positions), row)


def distinct(examples: Iterable[TextExample], n: int) -> tuple[TextExample, ...]:
    """The first of them that say something else than those before."""
    found: dict[tuple[str, ...], TextExample] = {}
    for example in examples:
        if len(found) == n:
            break
        found.setdefault(example.pieces, example)
    return tuple(found.values())


def chosen_rows(rows: Sequence[dict[str, Any]], kind: str, n: int) -> list[dict[str, Any]]:
    """Some examples of one modality: the strongest, or as many of each part of the activation's range as can be.

    Args:
        rows: Of the features' examples.
        kind: top or quantile.
        n: How many, at most.
    """
    own = [row for row in rows if row["kind"] == kind]
    if kind == "top":
        return sorted(own, key=lambda row: row["rank"])[:n]
    turns = sorted(own, key=lambda row: (row["rank"], -row["quantile"]))[:n]
    return sorted(turns, key=lambda row: -row["activation"])
