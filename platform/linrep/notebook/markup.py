"""HTML that a notebook shows: all text escaped, images inside, no script, no style sheet, nothing loaded from elsewhere.

Texts, class names, file names and explanations come from corpora and models: here they are data, whatever they look like.
"""

import base64
import html
import io
from collections.abc import Iterable, Sequence

from PIL import Image

LONGEST = 600
"""Characters of one text that are shown."""
HEAT = "213,94,0"
"""Red, green and blue of the shade behind tokens, that of heat maps."""


def plain(value: object, longest: int = LONGEST) -> str:
    """A value on one line for a terminal: what cannot be printed, such as marks of direction or of control, is replaced.

    >>> plain("a\\nboat\\x1b[2J")
    'a boat�[2J'
    """
    text = "" if value is None else str(value)[: 2 * longest]
    text = "".join(c if c.isprintable() or c.isspace() else "\ufffd" for c in text)
    return cut(" ".join(text.split()), longest)


def cut(text: str, longest: int = LONGEST) -> str:
    """The text, or its beginning with an ellipsis."""
    return text if len(text) <= longest else text[: longest - 1] + "\u2026"


def text(value: object, longest: int = LONGEST) -> str:
    """A value as HTML, isolated from the direction of what stands around it.

    >>> text("<b>")
    '<bdi>&lt;b&gt;</bdi>'
    """
    return f"<bdi>{html.escape(plain(value, longest))}</bdi>"


def lines(value: str) -> str:
    """A text of several lines as HTML that keeps its columns."""
    shown = "".join(c if c.isprintable() or c in "\n " else "\ufffd" for c in value)
    return f'<pre style="white-space:pre-wrap"><bdi>{html.escape(shown)}</bdi></pre>'


def attribute(value: object) -> str:
    """A value as the content of an attribute in double quotes."""
    return html.escape(plain(value, 200), quote=True)


def number(value: object, digits: int = 2) -> str:
    """A number with some digits; nothing for None and NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"


def png(image: Image.Image) -> bytes:
    """An image encoded as PNG."""
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def image_tag(image: Image.Image, alternative: str, style: str = "") -> str:
    """An image that the page carries itself, as JPEG of at most its own size.

    Args:
        image: RGB.
        alternative: What it shows, for those who do not see it.
        style: CSS.
    """
    out = io.BytesIO()
    image.save(out, "JPEG", quality=88, subsampling=0)
    data = base64.b64encode(out.getvalue()).decode()
    return (
        f'<img src="data:image/jpeg;base64,{data}" width="{image.width}" height="{image.height}" '
        f'alt="{attribute(alternative)}" style="{style}">'
    )


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """A table of cells that are HTML already; the heads and the caption are text."""
    top = "".join(f'<th style="text-align:left">{html.escape(head)}</th>' for head in heads)
    cells = ("".join(f'<td style="text-align:left">{cell}</td>' for cell in row) for row in rows)
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    said = f'<caption style="text-align:left">{html.escape(caption)}</caption>' if caption else ""
    return f"<table>{said}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def shaded(pieces: Sequence[str], values: Sequence[float | None], most: float) -> str:
    """Tokens of a text, each the darker the larger its value.

    Args:
        pieces: What each token stands for, spaces included.
        values: Of each token; None where it is not known, which is printed pale.
        most: The value of the darkest shade.
    """
    out = []
    for piece, value in zip(pieces, values, strict=True):
        shown = html.escape("".join(c if c.isprintable() or c.isspace() else "\ufffd" for c in cut(piece)))
        if value is None:
            out.append(f'<span style="opacity:.55">{shown}</span>')
        elif value > 0:
            share = 0.2 + 0.7 * min(value / most, 1.0) if most > 0 else 0.2
            out.append(f'<span style="background:rgba({HEAT},{share:.2f})" title="{value:.3g}">{shown}</span>')
        else:
            out.append(shown)
    return f'<bdi style="white-space:pre-wrap">{"".join(out)}</bdi>'
