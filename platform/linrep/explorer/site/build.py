"""Make the site of a workspace: every page's shards, the pictures, the scripts, and `index.html` last."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import xxhash

from linrep.config import digest
from linrep.contents.stored import Contents
from linrep.explorer.site.classes import write_classes
from linrep.explorer.site.compare import write_compare
from linrep.explorer.site.images import write_images
from linrep.explorer.site.latents import studied, write_latents
from linrep.explorer.site.overview import artefact_rows, claim_rows
from linrep.explorer.site.pictures import Pictures
from linrep.explorer.site.probes import write_probes
from linrep.explorer.site.results import Results
from linrep.explorer.site.saes import write_saes
from linrep.explorer.site.search import write_search
from linrep.explorer.site.shards import Site
from linrep.explorer.site.sharing import write_sharing
from linrep.explorer.site.steering import write_steering
from linrep.places import Place, remove_folder

FOLDER = "explorer"
INDEX = "index.html"
MADE = "made.json"
"""What the site was made from; written last."""
STYLES = ("core.css", "evidence.css", "picture.css", "curves.css")
SCRIPTS = (
    "core.js", "grid.js", "chart.js", "parts.js", "overview.js", "latents.js", "latent.js", "picture.js", "image.js",
    "search.js", "provenance.js",
    "steering-figures.js", "steering.js", "saes.js", "compare-saes.js", "compare.js",
    "choices.js", "probes.js", "confusions.js", "sharing.js", "classes.js",
    "start.js",
)  # fmt: skip
"""In the order in which a page loads them."""
NAV = (
    ("overview", "Overview"), ("probes", "Probes"), ("steering", "Steering"), ("latents", "Latents"), ("image", "Images"),
    ("saes", "SAEs"), ("sharing", "Sharing"), ("classes", "Classes"), ("compare", "Compare"), ("search", "Search"),
    ("provenance", "Provenance"),
)  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """How much of a large result has pages of its own; tables have all of it.

    Attributes:
        latents: Latents of each SAE.
        images: Images of each harvest.
    """

    latents: int = 4096
    images: int = 512


@dataclass(frozen=True)
class Built:
    """A site that was made, or was there.

    Attributes:
        index: Its first page.
        new: Whether it was made now.
        files: How many files it has.
        size: How many bytes.
    """

    index: Place
    new: bool
    files: int
    size: int

    @property
    def n_new(self) -> int:
        """As of the units of other stages."""
        return int(self.new)


def build_site(
    results: Results,
    contents: Callable[[], Mapping[str, Contents]],
    command: Callable[[str], str],
    title: str,
    limits: Limits = Limits(),
    say: Callable[[str], None] = lambda line: None,
) -> Built:
    """Make the site of a workspace, unless it is there already and of the same results.

    Args:
        results: The workspace's results.
        contents: Gives images and texts by digest of the harvest; a harvest whose corpora are gone is left out.
        command: The shell command of a job, by the name of its script.
        title: What the pages are called.
        limits: How much has pages of its own.
        say: Gets a line on how far it is.
    """
    here = results.workspace / FOLDER
    made_of = _made_of(results, title, limits)
    if (here / MADE).is_file() and (here / INDEX).is_file():
        there = json.loads((here / MADE).read_bytes())
        if there.get("of") == made_of:
            return Built(here / INDEX, False, there["files"], there["size"])
    remove_folder(here)  # what another program or other results have left is no part of it
    site, known = Site(here), contents()
    _write(site, results, known, command, title, limits, say)
    for name in (*STYLES, *SCRIPTS):
        site.file(f"assets/{name}", asset(name))
    site.file(INDEX, index())
    files, size = len(site.written), sum(site.written.values())
    site.file(MADE, json.dumps({"of": made_of, "files": files, "size": size}).encode())
    return Built(here / INDEX, True, files, size)


def _write(
    site: Site,
    results: Results,
    known: Mapping[str, Contents],
    command: Callable[[str], str],
    title: str,
    limits: Limits,
    say: Callable[[str], None],
) -> None:
    pictures = {key: Pictures(site, store, known.get(key)) for key, store in results.harvests.items()}
    rows, saes, looked = artefact_rows(site, results, command), [], studied(results)
    for one in looked:
        harvest = one.features.parents["harvest"]
        if harvest not in pictures:
            continue  # its store is gone: no page of it could be followed
        say(f"latents of {one.sae.name}, layer {one.sae.layer}")
        n_pages = write_latents(site, one, pictures[harvest], known.get(harvest), limits.latents)
        saes.append({**one.row, "pages": n_pages})
    images, paged = [], {}
    for key, store in results.harvests.items():
        say(f"images of {store.place.name}")
        own = [one for one in looked if one.features.parents["harvest"] == key]
        images.append(write_images(site, results, store, pictures[key], own, limits.images))
        if images[-1] is not None:
            paged[key] = frozenset(pictures[key].most_shown(limits.images))
    say("search, steering, SAEs, probes, sharing, classes")
    write_search(site, results, pictures)
    write_steering(site, results, pictures)
    write_saes(site, results)
    write_compare(site, results)
    write_probes(site, results)
    write_sharing(site, results)
    write_classes(site, results, pictures, paged)
    site.shard(
        "site",
        {
            "title": title,
            "nav": [{"page": page, "label": label} for page, label in NAV],
            "artefacts": rows,
            "claims": claim_rows(),
            "saes": saes,
            "images": [one for one in images if one is not None],
            "damaged": results.damaged,
            "without": [store.place.name for key, store in results.harvests.items() if key not in known],
        },
    )


def asset(name: str) -> bytes:
    """A file of the package's assets."""
    return (resources.files("linrep.explorer") / "assets" / name).read_bytes()


def index() -> bytes:
    """The page that loads everything: no script and no style stands in it."""
    styles = "\n".join(f'<link rel="stylesheet" href="assets/{name}">' for name in STYLES)
    scripts = "\n".join(f'<script src="assets/{name}"></script>' for name in SCRIPTS)
    return asset(INDEX).replace(b"<!--styles-->", styles.encode()).replace(b"<!--scripts-->", scripts.encode())


def _made_of(results: Results, title: str, limits: Limits) -> str:
    """Names everything that decides what the site shows: the results, and the program that shows them."""
    heads: list[Any] = [[one.place.name, one.manifest.finished] for one in results.harvests.values()]
    heads += [[stage, one.name, one.manifest.finished] for stage, own in results.artefacts.items() for one in own]
    program = [xxhash.xxh3_64_hexdigest(asset(name)) for name in (*STYLES, *SCRIPTS, INDEX)]
    sources = sorted(str(f.name) for f in resources.files("linrep.explorer.site").iterdir() if f.name.endswith(".py"))
    program += [xxhash.xxh3_64_hexdigest((resources.files("linrep.explorer.site") / name).read_bytes()) for name in sources]
    return digest(heads, program, title, [limits.latents, limits.images])
