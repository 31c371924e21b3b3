"""What came of asking, for a terminal and as a page that opens from disk; text is data, and nothing is loaded from outside."""

import io
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image

from linrep.explorer.picture import note_values, picture_data, spread
from linrep.places import Place
from linrep.reading.asked import Asked
from linrep.reading.attribution import Attribution
from linrep.reading.live import Answer, ChangedAnswer
from linrep.reading.probes import MODALITY, ProbeReading
from linrep.reading.read import strongest_of
from linrep.vlm.card import ModelCard

POLICY = (
    "default-src 'none'; script-src 'self' file:; style-src 'self' file:; img-src 'self' file: data:; base-uri 'none'; "
    "form-action 'none'"
)
"""What a page from disk may load: the files beside it."""
SERVED_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'"
)
"""What a served page may load: what the same server gives, and images that it was handed as data."""
ASSETS = ("core.css", "picture.css", "ask.css", "picture.js", "ask.js")
INDEX = "index.html"
SIDE = 1024
"""Most pixels of a side of the image on the page."""
MOST_LINES = 25
WIDE = 118
"""Columns of a terminal's line, but for paths and commands."""
PROBED = 7
"""Layers whose probes a terminal shows."""
TOP = 4
"""Latents of each SAE that it shows."""
NOTHING = "(nothing)"


def page_html(scripts: Sequence[str], title: str = "Asked", policy: str = POLICY) -> str:
    """The page without its data; it holds no text of anybody's."""
    styles = "".join(f'<link rel="stylesheet" href="{name}">\n' for name in ASSETS if name.endswith(".css"))
    loaded = "".join(f'<script defer src="{name}"></script>\n' for name in scripts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n{styles}{loaded}</head>\n<body>\n"
        '<main id="asked"><noscript>This page needs JavaScript: it shows what lies in the files beside it.</noscript></main>\n'
        "</body>\n</html>\n"
    )


def script_of(call: str, value: Any) -> str:
    """A script that hands a value to a function: plain ASCII, in which no text can end the script or begin markup."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f"{call}({text});\n"


def asset(name: str) -> bytes:
    """A file that pages are made of."""
    return (files("linrep.explorer") / "assets" / name).read_bytes()


def write_asked(where: Place, asked: Asked, card: ModelCard, image: Image.Image | None) -> Place:
    """Write the page of an asking; gives the file to open.

    Args:
        where: The folder.
        asked: What came of it.
        card: Of the model, for its tiling.
        image: The image, if there is one.
    """
    src = None
    if image is not None:
        src, data = shown_image(image)
        (where / src).write_bytes(data)
    for name in ASSETS:
        (where / name).write_bytes(asset(name))
    (where / "data.js").write_bytes(script_of("LineOfSight.asked", asked_data(asked, card, src)).encode())
    scripts = [*(name for name in ASSETS if name.endswith(".js")), "data.js"]
    (where / INDEX).write_bytes(page_html(scripts).encode())
    return where / INDEX


def shown_image(image: Image.Image) -> tuple[str, bytes]:
    """Name and bytes of an image as the page shows it: pixels alone, without what else its file held; small ones exactly."""
    small = max(image.size) <= SIDE // 2
    shown = image.copy()
    shown.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    shown.convert("RGB").save(stream, "PNG") if small else shown.convert("RGB").save(stream, "JPEG", quality=88)
    return ("image.png" if small else "image.jpg"), stream.getvalue()


def asked_data(asked: Asked, card: ModelCard, src: str | None) -> dict[str, Any]:
    """What came of asking, as `assets/ask.js` takes it.

    Args:
        asked: It.
        card: Of the model.
        src: Address of the image from the page.
    """
    return {
        "prompt": asked.prompt,
        "name": asked.name,
        "answer": _answer(asked, asked.answer),
        "changed": [_changed(asked, one) for one in asked.changed],
        "speaking": _speaking(asked),
        "made_from": dict(asked.made_from),
        "notes": list(asked.notes),
        "missing": list(asked.missing),
        "picture": picture_data(
            asked.reading, card, lambda token: word_of(asked, token), asked.latents, src, f"the image {asked.name}".strip()
        ),
    }


def _answer(asked: Asked, answer: Answer) -> dict[str, Any]:
    return {"text": answer.text, "first": [[word_of(asked, token), round(p, 4)] for token, p in answer.first]}


def _changed(asked: Asked, one: ChangedAnswer) -> dict[str, Any]:
    change = one.change
    about = next(
        (note for (layer, _, latent), note in asked.latents.items() if (layer, latent) == (change.layer, change.latent)), None
    )
    return {
        "label": change.label,
        "control_label": change.control_label,
        "answer": _answer(asked, one.answer),
        "control": _answer(asked, one.control),
        "n_positions": one.n_positions,
        "n_high_norm": one.n_high_norm,
        "about": None if about is None else note_values(about),
    }


def _speaking(asked: Asked) -> dict[str, Any] | None:
    """The latents that speak for the answer's first word, without those of SAEs of which none fires."""
    found = asked.attributed
    if found is None:
        return None
    return {
        "answer": word_of(asked, found.answer),
        "against": word_of(asked, found.against),
        "difference": round(found.difference, 3),
        "saes": [_speaking_of(asked, one) for one in found.saes if len(one.latents)],
    }


def _speaking_of(asked: Asked, one: Attribution) -> dict[str, Any]:
    notes = [asked.latents.get((one.layer, one.sae, latent)) for latent in one.latents.tolist()]
    columns = {name: _rounded(getattr(one, name)) for name in ("attribution", "activation", "loss", "control")}
    return {
        "layer": one.layer,
        "sae": one.sae,
        "latents": one.latents.tolist(),
        "n_tokens": one.n_tokens.tolist(),
        **columns,
        "together": round(one.together, 4),
        "together_control": _rounded(np.array([one.together_control]))[0],
        "n_active": one.n_active,
        "about": [None if note is None else note_values(note) for note in notes],
    }


def _rounded(values: np.ndarray) -> list[float | None]:
    return [round(value, 4) if np.isfinite(value) else None for value in values.astype(float).tolist()]


def word_of(asked: Asked, token: int) -> str:
    """A token as people read it."""
    return asked.words[token] if token < len(asked.words) else f"<{token}>"


def asked_lines(asked: Asked, page: str) -> list[str]:
    """What a terminal shows of it: no more than 25 lines, whatever was asked."""
    head = [f"Asked    {_line(asked.prompt)}", f"Answer   {_line(asked.answer.text) or NOTHING}{_sure(asked)}"]
    tail = [*(f"note: {_line(one)}" for one in asked.notes), *(_line(one) for one in asked.missing), f"Page     {page}"]
    sections = [
        _changed_lines(asked.changed),
        _probe_lines(asked.reading.probes),
        _latent_lines(asked),
        _speaking_lines(asked),
    ]
    return [*(_cut(line) for line in head), *_fit(sections, MOST_LINES - len(head) - len(tail)), *tail]


def _fit(sections: Sequence[Sequence[str]], room: int) -> list[str]:
    """The lines of some sections; where there is not room for all, the longest are cut first."""
    sizes = [len(section) for section in sections]
    while sum(sizes) > max(room, 0):
        sizes[sizes.index(max(sizes))] -= 1
    lines = []
    for section, size in zip(sections, sizes, strict=True):
        whole = size == len(section)
        lines += [*section] if whole else [*section[: max(0, size - 1)], "  ... the page has the rest"][:size]
    return [_cut(line) for line in lines]


def _sure(asked: Asked) -> str:
    if not asked.answer.first:
        return ""
    token, p = asked.answer.first[0]
    return f"   ({_line(word_of(asked, token)) or 'its first word'} {p:.0%})"


def _changed_lines(changed: Sequence[ChangedAnswer]) -> list[str]:
    lines = ["Under edits:"] if changed else []
    for one in changed:
        said, control = (_line(answer.text) or NOTHING for answer in (one.answer, one.control))
        lines.append(f"  {_line(one.change.label)}: {said}   ({one.change.control_label}: {control})")
    return lines


def _probe_lines(readings: Sequence[ProbeReading]) -> list[str]:
    """A line for each of some layers: what is read in the mean, or else in the last token, and the runner-up."""
    view = "pooled" if any(one.view == "pooled" for one in readings) else "last"
    own = [one for one in readings if one.view == view and one.attribute != MODALITY]
    if not own:
        return []
    attributes = list(dict.fromkeys(one.attribute for one in own))
    where = "the mean of the tokens" if view == "pooled" else "the last token"
    lines = [f"Probes read in {where}, by layer, the runner-up behind: {', '.join(_line(a) for a in attributes)}"]
    layers = sorted({one.layer for one in own})
    for layer in (layers[i] for i in sorted(spread(len(layers), PROBED))):
        by = {one.attribute: one for one in own if one.layer == layer}
        cells = [
            _line(f"{one.value} {one.p:.2f} ({one.runner_up} {one.p_runner_up:.2f})") for one in map(by.get, attributes) if one
        ]
        lines.append(f"  {layer:>2}  {'  '.join(cells)}")
    return lines


def _latent_lines(asked: Asked) -> list[str]:
    lines, what = [], "patches" if asked.reading.tokens.of_image.any() else "words"
    for fires in asked.reading.fires:
        top = strongest_of(asked.reading, fires, TOP)
        if len(top.latents):
            lines.append(f"Strongest latents of {fires.sae}, layer {fires.layer}:")
        for latent, value, n in zip(top.latents.tolist(), top.values.tolist(), top.n_tokens.tolist(), strict=True):
            note = asked.latents.get((fires.layer, fires.sae, latent))
            lines.append(f"  {latent:>5}  {value:7.3g} on {n:>3} {what}  {_line(str(note)) if note else ''}".rstrip())
    return lines


def _speaking_lines(asked: Asked) -> list[str]:
    found, lines = asked.attributed, []
    if found is None:
        return lines
    answer, against = (repr(_line(word_of(asked, token))) for token in (found.answer, found.against))
    for one in found.saes:
        if not len(one.latents):
            continue
        lines.append(f"For {answer} over {against} ({found.difference:.2f} nats) by latents of {one.sae}, layer {one.layer}:")
        rows = zip(one.latents.tolist(), one.attribution.tolist(), one.loss.tolist(), one.control.tolist(), strict=True)
        for latent, value, loss, control in list(rows)[:TOP]:
            note = asked.latents.get((one.layer, one.sae, latent))
            other = "" if np.isnan(control) else f" (another {control:+.2f})"
            lines.append(f"  {latent:>5}  {value:+.2f}, lost {loss:+.2f}{other}  {_line(str(note)) if note else ''}".rstrip())
    return lines


def _line(text: str) -> str:
    """A text in one line, without signs that move a terminal's cursor or turn it around."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def _cut(text: str) -> str:
    return text if len(text) <= WIDE else f"{text[: WIDE - 3]}..."
