"""What a harvest will take, before it runs: samples, tokens, bytes, objects, GPU-hours, money, memory; and whether it fits."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from linrep.cluster.harvest import reserve
from linrep.contents.sources import located
from linrep.errors import RecipeError
from linrep.harvest.config import Pool
from linrep.harvest.cost import GPUS, Bill, bills, flops_of, read_gpus
from linrep.harvest.estimate import Estimate, estimate
from linrep.harvest.plan import Plan, plan_harvest
from linrep.places import Place
from linrep.recipe import Recipe
from linrep.store.layout import TOWER, view_and_site
from linrep.store.summary import size
from linrep.vlm.card import card_of
from linrep.vlm.prepare import Preparer
from linrep.vlm.size import ModelSize, size_of

USUAL_FILE = 2**16
"""Bytes of a file of vectors beside its rows, at most: a bound that needs no sample."""
USUAL_ROW = 256
"""Bytes of a row beside its vector, likewise."""


def plan_lines(recipe: Recipe, workspace: Place, gpus: str | None = None) -> list[str]:
    """What the harvest of a recipe comes to, in lines.

    Args:
        recipe: The experiment.
        workspace: Where its corpora's index is kept, and made if it is not there.
        gpus: A table of GPUs in YAML; None for the one that ships with the package.

    Raises:
        LinrepError: Something that the user can mend; the message says what.
    """
    table = read_gpus(Path(gpus) if gpus is not None else GPUS)
    plan = plan_harvest(recipe.name, recipe.corpora, recipe.model, recipe.harvest, workspace, recipe.demo)
    found, model = estimated(plan), size_of(located(plan.job.model), max(plan.job.layers))
    flops = flops_of(found, model)
    return [
        *_store_lines(plan, found),
        "",
        f"Model     {_short(model.blocks + model.vision + model.embeddings)} parameters down to layer {max(plan.job.layers)}, "
        f"{size(model.n_bytes())} in 16 bits",
        f"Forward   {flops:.2g} operations; hours = operations / (peak x {table.utilisation:g}, which is assumed)",
        *_bill_lines(bills(flops, model.n_bytes(), table)),
        "",
        *_memory_lines(plan, recipe.pool, model),
    ]


def estimated(plan: Plan) -> Estimate:
    """What a harvest comes to, by some of its samples."""
    preparer = Preparer.from_path(located(plan.job.model), **plan.job.config.preparation)
    return estimate(plan, card_of(plan.manifest.model), preparer)


def check_room(plan: Plan, todo: Sequence[str], pool: Pool) -> None:
    """Refuse a harvest that its disk cannot hold. An object store has no end that could be asked for.

    Args:
        plan: The harvest.
        todo: Chunks that are not there yet.
        pool: Says whether to look.

    Raises:
        RecipeError: It does not fit.
    """
    if not pool.check_room or plan.place.files.type_name != "local" or not todo:
        return
    free = shutil.disk_usage(_existing(Path(plan.place.path))).free
    share = len(todo) / len(plan.chunks)
    if share * _bound(plan) < free:
        return
    needed = share * estimated(plan).n_bytes
    if needed > free:
        raise RecipeError(
            f"the harvest needs about {size(int(needed))}, {plan.place} has {size(free)} left: take fewer layers, views or "
            "tokens, another workspace, or --pool.check_room false"
        )


def _existing(folder: Path) -> Path:
    return next(one for one in (folder, *folder.parents) if one.exists())


def _bound(plan: Plan) -> float:
    """Bytes that the store cannot exceed, whatever its samples are."""
    config, card = plan.job.config, card_of(plan.manifest.model)
    drawn = card.max_positions if config.tokens_per_sample is None else min(2 * config.tokens_per_sample, card.max_positions)
    rows = sum({"tokens": drawn, "pooled": 2, "last": 1}[view] for view in config.views)
    a_row = card.width * (4 if config.stored == "float32" else 2) + USUAL_ROW
    a_chunk = 2 * len(config.views) * USUAL_FILE + 16 * 8 * card.width
    beside = [site for site in config.sites if site != TOWER]
    layers = len(plan.job.layers) * (1 + len(beside))
    found = layers * (plan.index.n_samples * rows * a_row + len(plan.chunks) * a_chunk)
    if TOWER in config.sites:
        width, rows = plan.manifest.width_of(TOWER), plan.job.chunk_bytes / (3 * card.patch_size**2) + config.chunk_size
        found += len(plan.chunks) * (rows * (width * (4 if config.stored == "float32" else 2) + USUAL_ROW) + 2 * USUAL_FILE)
    return found


def _store_lines(plan: Plan, found: Estimate) -> list[str]:
    lines = []
    for part in found.parts:
        skipped = f", {part.n_skipped} of them cannot be used" if part.n_skipped else ""
        spread = f"{part.tokens.value:,.0f} tokens each [{part.tokens.low:,.0f}, {part.tokens.high:,.0f}]"
        lines.append(f"{part.source:<9} {part.n_samples:,} samples, {spread}, by {part.n_looked} of them{skipped}")
    tokens, job, n_bytes = found.n_tokens, plan.job, size(int(found.n_bytes))
    beside = [site for site in job.config.sites if site != TOWER]
    sites = f" and of {' and '.join(beside)}" if beside else ""
    of_tower = {view: size(int(sum(part.bytes_of(view) for part in found.parts))) for view in found.of_tower}
    patches = ", ".join(f"{view_and_site(view)[0]} {n}" for view, n in of_tower.items())
    by_view = {view: sum(part.bytes_of(view) for part in found.parts) for view in found.views}
    return [
        *lines,
        f"In all    {_short(tokens.value)} tokens [{_short(tokens.low)}, {_short(tokens.high)}]",
        "",
        f"Store     {job.config.stored}, width {plan.manifest.width}, {len(job.layers)} layers{sites}: about {n_bytes}",
        *(f"          {view:<7} {size(int(n)):>9} a layer, {size(int(n * found.n_stored)):>9}" for view, n in by_view.items()),
        *([f"          tower   {patches}, patches of width {plan.manifest.width_of(TOWER)}"] if patches else []),
        f"          {len(plan.chunks):,} chunks, {found.n_objects:,} objects",
    ]


def _bill_lines(found: Sequence[Bill]) -> list[str]:
    head = f"          {'GPU':<12} {'cards':>5} {'GPU-hours':>10} {'USD':>9}"
    return [head, *(f"          {one.name:<12} {one.cards:>5} {one.hours:>10,.2f} {one.usd:>9,.2f}" for one in found)]


def _memory_lines(plan: Plan, pool: Pool, model: ModelSize) -> list[str]:
    reserved = reserve(pool, 1, plan.job.record_bytes, plan.job.chunk_bytes, None)
    index = sum(table.nbytes for table in plan.index.runs.values())
    batch = 8 * pool.tokens_per_batch * model.width
    return [
        f"Memory    a reader {size(reserved.reader_bytes)}, an actor {size(reserved.actor_bytes)} beside the model and its rows "
        f"(samples on their way, at most); the driver {size(index)} for the index",
        f"          a card: weights {size(model.n_bytes())}, and about {size(batch)} a layer for a micro-batch of "
        f"{pool.tokens_per_batch:,} tokens in work",
    ]


def _short(n: float) -> str:
    """A large number as people say it.

    >>> _short(950), _short(1_234_567), _short(6.7e9)
    ('950', '1.23 M', '6.70 G')
    """
    for unit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if n >= unit:
            return f"{n / unit:.3g} {name}" if n >= 100 * unit else f"{n / unit:.2f} {name}"
    return f"{n:.0f}"
