"""Figures and images as a page carries them: drawings with nothing in them that could act, and their bytes as addresses."""

import base64
import re
import struct
from dataclasses import dataclass
from xml.etree import ElementTree

SVG, LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
LARGEST = 400_000
"""Bytes of a drawing; of a larger one the pixels are taken."""
_ELEMENTS = frozenset(("svg", "g", "defs", "style", "path", "use", "rect", "clipPath", "text", "tspan", "image", "title", "desc"))
"""What matplotlib draws with, and what describes a drawing."""
_INSIDE = re.compile(r"#[\w.:-]+|data:image/png;base64,[A-Za-z0-9+/=\s]*")
_STYLE = re.compile(r"url\(\s*(?!#)|@|expression|javascript|\\|/\*|<", re.IGNORECASE)
_LENGTH = re.compile(r"([0-9.]+)(pt|px)?")


@dataclass(frozen=True)
class Drawing:
    """A figure that a page can carry.

    Attributes:
        data: Its bytes.
        kind: Its media type.
        width: In CSS pixels.
        height: Likewise.
    """

    data: bytes
    kind: str
    width: int
    height: int

    @property
    def address(self) -> str:
        """A URL that carries the figure."""
        return f"data:{self.kind};base64,{base64.b64encode(self.data).decode()}"


def drawing(svg: bytes | None, png: bytes | None) -> Drawing | None:
    """A figure of the two forms in which stages keep it: the lines if they are safe and small, else the pixels.

    Args:
        svg: The lines, None where there are none.
        png: The pixels likewise.
    """
    safe = None if svg is None else safe_svg(svg)
    if safe is not None and len(safe.data) <= LARGEST:
        return safe
    return None if png is None else pixels(png)


def pixels(png: bytes) -> Drawing | None:
    """A PNG in its own size; None for what is none."""
    if png[:8] != b"\x89PNG\r\n\x1a\n" or len(png) < 24:
        return None
    width, height = struct.unpack(">II", png[16:24])
    return Drawing(png, "image/png", width, height)


def safe_svg(data: bytes) -> Drawing | None:
    """An SVG with drawing elements alone: no script, no handler, nothing from outside; None for what cannot be read as one.

    Notes on who made it when, and the document type, are left out. An unknown element goes with all that it holds.
    """
    text = data.decode("utf-8", "replace")
    if "<!ENTITY" in text.upper():
        return None  # entities may multiply without end
    try:
        root = ElementTree.fromstring(re.sub(r"<!DOCTYPE[^>]*>", "", text, count=1))
    except ElementTree.ParseError:
        return None
    if root.tag != f"{{{SVG}}}svg":
        return None
    _clean(root)
    width, height = (_pixels(root.get(side, "")) for side in ("width", "height"))
    if not width or not height:
        return None
    if "viewBox" not in root.attrib:
        root.set("viewBox", f"0 0 {width} {height}")
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", LINK)
    return Drawing(ElementTree.tostring(root, "utf-8", xml_declaration=True), "image/svg+xml", width, height)


def _clean(element: ElementTree.Element) -> None:
    for name, value in list(element.attrib.items()):
        plain = name.rpartition("}")[2].lower()
        outside = plain == "href" and not _INSIDE.fullmatch(value.strip())
        if plain.startswith("on") or outside or (_STYLE.search(value) is not None and plain != "href"):
            del element.attrib[name]
    for child in list(element):
        tag = child.tag if isinstance(child.tag, str) else ""  # comments have a function for a tag
        if tag.removeprefix(f"{{{SVG}}}") not in _ELEMENTS or (tag.endswith("style") and _STYLE.search(child.text or "")):
            element.remove(child)
        else:
            _clean(child)


def _pixels(length: str) -> int:
    found = _LENGTH.fullmatch(length.strip())
    return 0 if found is None else round(float(found[1]) * (4 / 3 if found[2] == "pt" else 1))
