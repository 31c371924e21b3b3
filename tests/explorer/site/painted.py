"""A small site of latents whose every number is known: a harvest of images that can be painted, features, explanations."""

import atexit
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from linrep import artefact
from linrep.contents.stored import Window
from linrep.explorer.site.build import Built, build_site
from linrep.explorer.site.results import open_results
from linrep.features.artefact import FEATURES_KIND, FeaturesAbout, Run, StudiedSae
from linrep.interpret.artefact import INTERPRETATIONS_KIND, InterpretAbout
from linrep.places import place
from linrep.store.manifest import Manifest, write_manifest
from linrep.store.statistics import Sums
from linrep.store.tables import table_of
from linrep.store.write import samples_table, writing_chunk
from schemas import vectors
from schemas.features import FEATURE_EXAMPLES, FEATURE_LABELS, FEATURE_OVERLAPS, FEATURES
from schemas.interpret import ANSWERS, EXPLANATIONS, SCORES
from tests.interpret.worlds import CARD
from tests.pages import CHROMIUM

HARVEST = "0123456789"
SIZES = {"square": (144, 144), "wide": (90, 160), "tall": (200, 80)}
"""Height and width of each image."""
BOX = (0.2, 0.3, 0.75, 0.85)
"""Where the object lies in every image: left, top, right, bottom, in shares."""
GROUND, OBJECT = (20, 200, 20), (255, 0, 255)
HOSTILE = (
    "</script><script>window.broken=1</script>",
    "\"><img src=x onerror='window.broken=1'>",
    "\u202eright to left\u2028and\u2029lines & <b>bold</b>",
    "'; window.broken=1; //\n\r\t\x00\\u003c",
    "boat " * 200_000,  # a megabyte
)


def image_of(kind: str) -> Image.Image:
    """A ground with an object in its box."""
    height, width = SIZES[kind]
    pixels = np.full((height, width, 3), GROUND, np.uint8)
    left, top, right, bottom = (round(share * side) for share, side in zip(BOX, (width, height) * 2, strict=True))
    pixels[top:bottom, left:right] = OBJECT
    return Image.fromarray(pixels)


def encoded(kind: str) -> bytes:
    out = io.BytesIO()
    image_of(kind).save(out, "PNG")
    return out.getvalue()


class Painted:
    """Stands in for the contents of the harvest."""

    def load(self, names: Sequence[str]) -> None:
        pass

    def image(self, name: str) -> Image.Image:
        return image_of(name.split("/")[1])

    def boxes(self, name: str, tokens: object, source: object = None) -> list[Any]:
        raise AssertionError("pages know where patches lie by their layout")

    def window(self, name: str, centre: int | None = None) -> Window:
        return Window(tuple(range(4)), ("a ", "yellow ", "boat ", HOSTILE[0]))


def write_harvest(workspace: Path) -> None:
    """A complete harvest of one image of each size, and a text."""
    folder = workspace / "harvests" / f"t-{HARVEST}"
    samples: list[dict[str, Any]] = [
        {"sample_id": f"images/{kind}", "corpus": "images", "modality": "image", "uri": f"{kind}.png", "split": "train",
         "class_name": f"boat {HOSTILE[1]}", "label": 0, "height": height, "width": width, "pair_id": None,
         "n_image_tokens": 1, "n_text_tokens": 0}
        for kind, (height, width) in SIZES.items()
    ]  # fmt: skip
    samples.append(
        {"sample_id": "text/0", "corpus": "text", "modality": "text", "uri": "t.jsonl", "split": "train", "pair_id": None,
         "text": HOSTILE[0], "n_image_tokens": 0, "n_text_tokens": 4}
    )  # fmt: skip
    with writing_chunk(place(folder), 0, vectors(8, "float32")) as writer:
        writer.commit(samples_table(samples), {(0, "image"): Sums.zero(8)}, len(samples), len(samples), (), 0.0, "float32")
    write_manifest(
        place(folder),
        Manifest("t", HARVEST, asdict(CARD), (0,), ("tokens",), "float32", 8, {"digest": "c"}, {}, 1, 16, "complete"),
    )


def example(latent: int, kind: str, patches: Sequence[tuple[int, int, int, float]]) -> dict[str, Any]:
    """An image example: (tile, row, column, activation) of each patch that fires."""
    tiles, rows, cols, values = zip(*patches, strict=True)
    return {
        "layer": 4, "sae": "topk", "latent": latent, "modality": "image", "kind": "top", "quantile": None,
        "rank": list(SIZES).index(kind), "sample_id": f"images/{kind}", "activation": max(values), "position": 1,
        "n_active": len(patches), "n_held": len(patches), "n_tokens": len(patches), "positions": list(range(len(patches))),
        "activations": list(values), "token_ids": [4] * len(patches), "tiles": list(tiles), "rows": list(rows),
        "cols": list(cols),
    }  # fmt: skip


def overlaps(n: int) -> list[dict[str, Any]]:
    """Regions that the first latents overlap: hostile ones."""
    return [
        {"layer": 4, "sae": "topk", "latent": i, "rank": 0, "category": text, "threshold": 0.5, "iou_chosen": 0.5, "iou": 0.4,
         "iou_low": 0.3, "iou_high": 0.5, "iou_dealt": 0.1, "average_precision": 0.6, "n": 9, "share": 0.1}
        for i, text in enumerate(HOSTILE[:n])
    ]  # fmt: skip


def write_features(workspace: Path, n: int, examples: Sequence[dict[str, Any]] = (), alive: bool = True) -> Any:
    """Complete features of one SAE with n latents: the numbers of latent i are shares of i, which all differ."""
    which = {
        "layer": pa.array([4] * n, pa.int32()),
        "sae": pa.array(["topk"] * n),
        "latent": pa.array(np.arange(n, dtype=np.int32)),
    }
    share = (np.arange(n) * 7919 % n) / n
    columns: dict[str, Any] = dict(which)
    for field in FEATURES:
        if field.name in columns:
            continue
        if pa.types.is_float64(field.type):
            columns[field.name] = pa.array(share if alive else np.zeros(n))
        elif pa.types.is_integer(field.type):
            columns[field.name] = pa.array(np.full(n, 5 if alive else 0), field.type)
        elif pa.types.is_string(field.type):
            columns[field.name] = pa.array(["class" if field.name == "best_attribute" else f"thing {i % 999}" for i in range(n)])
        else:
            value: list[Any] = ["boat", HOSTILE[1]] if field.type == pa.list_(pa.string()) else [1, 2]
            columns[field.name] = pa.array([value] * n, field.type)
    table = pa.table(columns, schema=FEATURES)
    text = {
        **example(0, "square", [(0, 0, 0, 2.0)]), "modality": "text", "sample_id": "text/0", "positions": [1, 2],
        "activations": [0.5, 2.0], "token_ids": [1, 2], "tiles": [], "rows": [], "cols": [], "rank": 0,
    }  # fmt: skip
    about = FeaturesAbout(
        "s", "m", [StudiedSae(4, "topk", "sae-00", n)], {}, {"sae-00-0": Run("sae-00", 4, "topk", 0, n)},
        {"sae-00": {"image": 0, "text": 0}}, None, {},
    )  # fmt: skip
    here = artefact.plan(
        FEATURES_KIND, place(workspace), "t", decisive=n, parents={"harvest": HARVEST}, config={}, units=["sae-00-0"], about=about
    ).begun()
    tables = {
        "features": table,
        "labels": table_of([], FEATURE_LABELS),
        "overlaps": table_of(overlaps(n), FEATURE_OVERLAPS),
        "examples": table_of([*examples, text] if alive else [], FEATURE_EXAMPLES),
    }
    here.write("sae-00-0", tables, 0.0, n)
    here.finish()
    here.closing().close()
    return here


def write_explanations(workspace: Path, features: Any) -> None:
    """An explanation for each of the first latents: hostile ones, then a plain one, with scores."""
    said = [*HOSTILE, "yellow boats on water"]
    which = [{"layer": 4, "sae": "topk", "latent": i} for i in range(len(said))]
    rows = [
        {**own, "explanation": text, "source": "human", "n_shown_image": 1, "n_shown_text": 1, "rate_image": 0.5,
         "rate_text": 0.5, "parents": features.digest}
        for own, text in zip(which, said, strict=True)
    ]  # fmt: skip
    scores = [
        {**own, "modality": "image", "task": "detection", "control": control, "source": "human", "value": value,
         "low": value - 0.1, "high": value + 0.1, "n_positive": 9, "n_negative": 9, "n_hard": 0, "n_unanswered": 0}
        for i, own in enumerate(which)
        for control, value in (("own", 0.6 + i / 20), ("shuffled", 0.5))
    ]  # fmt: skip
    about = InterpretAbout("f", {"4/topk": list(range(len(said)))}, {"4/topk": 9}, {"4/topk": 9})
    here = artefact.plan(
        INTERPRETATIONS_KIND, place(workspace), "t", decisive=1, parents={"features": features.digest, "harvest": HARVEST},
        config={}, units=["a", "b"], about=about,
    ).begun()  # fmt: skip
    here.write("a", {"explanations": table_of(rows, EXPLANATIONS)}, 0.0, 1)
    here.write("b", {"scores": table_of(scores, SCORES), "answers": table_of([], ANSWERS)}, 0.0, 1)
    here.finish({"explanations": ["a"], "scores": ["b"], "answers": ["b"]})
    here.closing().close()


def make(workspace: Path) -> Built:
    """The site of a planted workspace."""
    results = open_results(place(workspace))
    assert results.damaged == []
    contents: Any = {HARVEST: Painted()}
    return build_site(results, lambda: contents, lambda job: f"python jobs/{job}.py", f"planted {HOSTILE[0]}")


@cache
def chromium() -> Browser:
    """One browser for all tests: a process has one Playwright at a time."""
    play = sync_playwright().start()
    browser = play.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
    atexit.register(lambda: (browser.close(), play.stop()))
    return browser


@contextmanager
def opened(width: int = 1280, dark: bool = False) -> Iterator[tuple[Page, list[str]]]:
    """A page of a real browser, and what it complains of."""
    context = chromium().new_context(viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light")
    page, said = context.new_page(), []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(f"dialog: {dialog.message}"))
    yield page, said
    context.close()


def go(page: Page, site: Path, address: str) -> None:
    """Open an address of a site, and wait until it is shown."""
    page.goto("about:blank")
    page.goto((site / "index.html").as_uri() + address)
    page.wait_for_selector("main[aria-busy=false]", timeout=60_000)
