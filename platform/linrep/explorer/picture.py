"""A reading as plain values for `assets/picture.js`, which shows the image with its patches and what is read in each.

The shape, as JSON; positions without a place in image or text (newlines) are left out:

    {"image": {"src", "alt"} or null,
     "layers": [layer, ...],
     "tokens": [{"position", "kind": "patch" | "text" | "prompt", "word", "view": "whole" | "detail", "box": [l, t, r, b],
                 "high": [layer, ...]}, ...],            box: shares of the image's width and height; of patches alone
     "held": {"image", "of_image", "text", "of_text"},   tokens that are shown, and those that the sample has
     "saes": [{"layer", "name", "fires": [[latent, strength, latent, strength, ...] by token], "active": [number by token]}],
     "about": [{latent: {"explanation", "label", "f1", "words"}} by SAE],
     "vocabulary": [word, ...],
     "words": [[[word number, p, word number, p, ...] by token] by layer] or null,
     "probes": [{"attribute", "view", "layer", "value", "p", "runner_up", "p_runner_up", "top1", "chance"}, ...],
     "regions": [{"category", "left", "top", "outline": [[x, y, x, y, ...], ...]}, ...]}      of pages of a site: shares likewise,
                                              and a category of null where nothing is known; may be missing

Texts are data: the script puts them on the page as text and never as markup.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import polars as pl

from linrep.reading.asked import LatentNote
from linrep.reading.latents import NONE
from linrep.reading.read import Reading
from linrep.vlm.card import ModelCard
from linrep.vlm.prepared import Role

MOST_LAYERS = 12
"""Layers whose words are shown: evenly spread, the first and the last among them."""

Notes = Mapping[tuple[int, str, int], LatentNote]


def picture_data(
    reading: Reading, card: ModelCard, words: Callable[[int], str], notes: Notes, src: str | None, alt: str
) -> dict[str, Any]:
    """A reading in the shape above.

    Args:
        reading: What was read.
        card: Of the model, for its tiling.
        words: The text of a token.
        notes: What is known of latents, by layer, SAE and latent.
        src: Address of the image from the page; None without one.
        alt: What it shows, for who cannot see it.
    """
    boxes = reading.tokens.boxes(reading.seen, card)
    shown = [i for i, role in enumerate(reading.tokens.role) if role != int(Role.NEWLINE)]
    tokens = reading.tokens
    data: dict[str, Any] = {
        "image": None if src is None else {"src": src, "alt": alt},
        "layers": list(reading.layers),
        "tokens": [_token(reading, i, boxes[i], words) for i in shown],
        "held": {
            "image": int(tokens.of_image.sum()),
            "of_image": reading.n_image,
            "text": int(tokens.of_text.sum()),
            "of_text": reading.n_text,
        },
        "saes": [],
        "about": [],
        "probes": [{**vars(one), "p": _short(one.p), "p_runner_up": _short(one.p_runner_up)} for one in reading.probes],
    }
    for fires in reading.fires:
        latents, values = fires.strongest.latents.tolist(), fires.strongest.values.tolist()
        own = [
            [x for latent, value in zip(latents[i], values[i], strict=True) if latent != NONE for x in (latent, _short(value))]
            for i in shown
        ]
        active = fires.strongest.n_active.tolist()
        there = sorted({latent for i in shown for latent in latents[i] if latent != NONE})
        data["saes"].append({"layer": fires.layer, "name": fires.sae, "fires": own, "active": [active[i] for i in shown]})
        known = {latent: notes[fires.layer, fires.sae, latent] for latent in there if (fires.layer, fires.sae, latent) in notes}
        data["about"].append({str(latent): note_values(note) for latent, note in known.items()})
    data["vocabulary"], data["words"] = _words(reading, shown, words)
    return data


def _token(reading: Reading, i: int, box: tuple[float, ...] | None, words: Callable[[int], str]) -> dict[str, Any]:
    tokens, role = reading.tokens, int(reading.tokens.role[i])
    kind = "patch" if role == int(Role.IMAGE) else "text" if role == int(Role.TEXT) else "prompt"
    found: dict[str, Any] = {"position": int(tokens.position[i]), "kind": kind}
    if box is not None:
        found |= {"view": "whole" if tokens.tile[i] == 0 else "detail", "box": [round(edge, 4) for edge in box]}
    else:
        found["word"] = words(int(tokens.token_id[i]))
    high = [layer for layer, own in zip(reading.layers, reading.high_norm[:, i].tolist(), strict=True) if own]
    return found | ({"high": high} if high else {})


def _words(reading: Reading, shown: list[int], words: Callable[[int], str]) -> tuple[list[str], list[Any] | None]:
    if reading.words is None:
        return [], None
    number: dict[int, int] = {}
    found: list[Any] = []
    kept = spread(len(reading.layers), MOST_LAYERS)
    for at, (ids, p) in enumerate(zip(reading.words.ids.tolist(), reading.words.p.tolist(), strict=True)):
        if at not in kept:
            found.append(None)
            continue
        own = []
        for i in shown:
            row = [] if bool(reading.high_norm[at, i]) else list(zip(ids[i], p[i], strict=True))
            own.append([x for token, share in row for x in (number.setdefault(token, len(number)), round(share, 3))])
        found.append(own)
    return [words(token) for token in number], found


def spread(n: int, most: int) -> set[int]:
    """Some of n places, evenly spread, the first and the last among them.

    >>> sorted(spread(33, 5)), sorted(spread(3, 5))
    ([0, 8, 16, 24, 32], [0, 1, 2])
    """
    return set(range(n)) if n <= most else {round(i * (n - 1) / (most - 1)) for i in range(most)}


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def note_values(note: LatentNote) -> dict[str, Any]:
    """What is known of a latent, as the script takes it."""
    found = {"explanation": note.explanation, "words": [word.strip() for word in note.words[:5]]}
    if note.value is not None:
        found |= {"label": f"{note.attribute} {note.value}", "f1": None if note.f1 is None else round(note.f1, 3)}
    return found


def latent_notes(
    features: pl.DataFrame | None, explanations: pl.DataFrame | None, wanted: Iterable[tuple[int, str, int]]
) -> dict[tuple[int, str, int], LatentNote]:
    """What tables know of some latents, by layer, SAE and latent.

    Args:
        features: Rows of the `FEATURES` contract, if there are any.
        explanations: Rows of the `EXPLANATIONS` contract, if there are any.
        wanted: The latents.
    """
    wanted = list(wanted)
    if not wanted:
        return {}
    keys = pl.DataFrame(wanted, schema={"layer": pl.Int32, "sae": pl.String, "latent": pl.Int32}, orient="row")
    found: dict[tuple[int, str, int], LatentNote] = {}
    said: dict[tuple[int, str, int], str] = {}
    if explanations is not None:
        rows = explanations.join(keys, on=["layer", "sae", "latent"], how="semi").drop_nulls("explanation")
        said = {(row["layer"], row["sae"], row["latent"]): row["explanation"] for row in rows.iter_rows(named=True)}
    for key, text in said.items():
        found[key] = LatentNote(explanation=text)
    if features is not None:
        for row in features.join(keys, on=["layer", "sae", "latent"], how="semi").iter_rows(named=True):
            key = row["layer"], row["sae"], row["latent"]
            words = tuple(row["words_up"] or ())
            found[key] = LatentNote(said.get(key), row["best_attribute"], row["best_value"], row["f1"], words)
    return found


def fired(reading: Reading) -> set[tuple[int, str, int]]:
    """All latents that a reading names, by layer, SAE and latent."""
    return {
        (fires.layer, fires.sae, latent)
        for fires in reading.fires
        for latent in fires.strongest.latents.flatten().tolist()
        if latent != NONE
    }
