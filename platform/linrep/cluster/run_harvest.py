"""The harvest stage: what it reads, what it computes and what it shows. `linrep.cluster.stage` runs it."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from linrep import tracking
from linrep.cluster.commands import literal, python
from linrep.cluster.ready import check_services
from linrep.cluster.stage import Counts, Outcome, Records, Shown, Step, run_stage
from linrep.contents.sources import located
from linrep.errors import RecipeError, TooManySkipped
from linrep.harvest.account import account
from linrep.harvest.artefact import Harvest, plan_artefact
from linrep.harvest.config import Pool
from linrep.harvest.finish import complete_manifest
from linrep.harvest.plan import plan_harvest
from linrep.kind import UnitCommit
from linrep.places import Place
from linrep.recipe import Recipe
from linrep.store.layout import MANIFEST, MODALITIES
from linrep.store.limits import as_records, from_records
from linrep.store.manifest import Manifest, write_manifest
from linrep.store.read import Store
from linrep.store.summary import size
from linrep.vlm.card import read_config
from linrep.vlm.config import IMAGE
from linrep.vlm.families import family_of
from linrep.vlm.files import locate as locate_model
from linrep.vlm.processor import load_processor
from linrep.vlm.prompts import bare_starts, doubled_start, prompts_differ


@dataclass(frozen=True)
class HarvestStage:
    """Activations of a model over some corpora.

    Attributes:
        artefact: The store.
        pool: Actors, GPUs and batch size.
    """

    artefact: Harvest
    pool: Pool
    on_ray = True

    @property
    def counts(self) -> Counts:
        """Progress in samples, read or skipped."""
        done = sum(commit.n_samples + len(commit.skipped) for commit in self.artefact.commits.values())
        return Counts("samples", "tokens", self.artefact.plan.index.n_samples, done)

    def of(self, artefact: Harvest) -> "HarvestStage":
        """The same stage of the store as it lies on disk."""
        return replace(self, artefact=artefact)

    def compute(self, todo: Sequence[str], run: tracking.Run) -> Iterator[UnitCommit | Step]:
        """Harvest some chunks; as soon as more is skipped than the recipe allows, that is an error.

        Raises:
            TooManySkipped: More is skipped.
        """
        from linrep.cluster.harvest import harvest_chunks, usual_norms

        plan, commits, running = self.artefact.plan, self.artefact.commits, self.artefact.manifest
        self._refuse()
        begun_in = next((commit.precision for commit in commits.values()), None)
        if not running.limits and plan.job.config.high_norm is not None:
            # Before the first row: all chunks, on whatever machine and after whatever stop, use the same limits.
            running = replace(running, limits=as_records(usual_norms(plan.job, plan.chunks, self.pool, begun_in)))
            write_manifest(plan.place, running)
        job = replace(plan.job, limits=from_records(running.limits))
        chunks = [chunk for chunk in plan.chunks if str(chunk.number) in set(todo)]
        for commit in harvest_chunks(job, chunks, self.pool, begun_in):
            commits[commit.chunk] = commit
            yield Step(commit.n_samples + len(commit.skipped), commit.n_tokens)
            self._refuse()

    def finish(self) -> dict[str, Any]:
        """Write the statistics of all chunks."""
        self._refuse()
        return {"manifest": complete_manifest(self.artefact.place, self.artefact.commits)}

    def show(self) -> Shown:
        """What the store holds, and what became of all that lies in the corpora."""
        store = self.artefact.store
        where = literal(store.place)
        look = "import linrep.store as s; print(s.open({}))"
        corpora = ["Corpora:", *(f"  {line}" for line in account(store.manifest.corpora, store.commits))]
        index = f"The corpora are as corpora/{self.artefact.plan.index_place.name} lists them; renew, if they changed."
        return Shown(
            headline=headline(store.manifest),
            lines=[*corpora, index, "", *str(store).splitlines()[2:]],
            next=[
                ("look", python(look.format(where))),
                ("read", python(f"import linrep.store as s; print(s.open({where}).{reading(store)})")),
            ],
        )

    def records(self) -> Records:
        """Counts, and statistics as curves over layers; the store is an input of its own run, and found with its readers."""
        return Records(metrics(self.artefact.manifest), harvests=[self.artefact.digest])

    def _refuse(self) -> None:
        plan, commits = self.artefact.plan, self.artefact.commits
        skipped = [pair for commit in commits.values() for pair in commit.skipped]
        n_allowed = int(self.pool.max_skipped * plan.index.n_samples)
        if len(skipped) > n_allowed:
            name, reason = skipped[-1]
            raise TooManySkipped(
                f"{len(skipped):,} samples were skipped, and pool.max_skipped allows {n_allowed:,} of "
                f"{plan.index.n_samples:,}; the latest is {name}: {reason}. All are named in {plan.place / 'commits'}. "
                f"Raise pool.max_skipped to go on; or mend the corpus and add --reindex, which makes another store"
            )


def plan_harvest_stage(recipe: Recipe, workspace: Place, reindex: bool = False) -> HarvestStage:
    """Work out a harvest; starts no cluster.

    Args:
        recipe: The experiment.
        workspace: Where everything lies.
        reindex: Look at the corpora again, though their index is there.

    Raises:
        LinrepError: Something that the user can mend; the message says what.
    """
    notes: list[str] = []

    def ready(store: Place) -> None:
        if not (store / MANIFEST).is_file():
            notes.extend(prompt_notes(recipe))  # refuses before anything is made
        check_services(workspace, store)

    plan = plan_harvest(recipe.name, recipe.corpora, recipe.model, recipe.harvest, workspace, recipe.demo, reindex, ready=ready)
    for note in notes:
        print(f"harvest: {note}", file=sys.stderr, flush=True)
    return HarvestStage(plan_artefact(plan, recipe.model_dump(mode="json"), notes), recipe.pool)


def run_harvest(recipe: Recipe, workspace: Place, reindex: bool = False) -> Outcome[Harvest]:
    """Do what is missing of a harvest; nothing, if it is complete.

    Args:
        recipe: The experiment.
        workspace: Where everything lies.
        reindex: Look at the corpora again, though their index is there.

    Raises:
        LinrepError: Something that the user can mend; the message says what.
    """
    return run_stage(plan_harvest_stage(recipe, workspace, reindex), workspace)


def prompt_notes(recipe: Recipe) -> list[str]:
    """What is to be said of the harvest's prompts: where they differ, and which do not begin with a start token.

    Raises:
        RecipeError: A prompt begins with two start tokens.
    """
    folder, _ = locate_model(located(recipe.model))
    config, tokenizer = read_config(folder), load_processor(folder).tokenizer
    family = family_of(config.model_type)
    image = family.spelling(None, str(tokenizer.convert_ids_to_tokens(family.image_token_id(config))), tokenizer)
    prompts = {name: family.dress(prompt, IMAGE, tokenizer) for name, prompt in recipe.harvest.prompts.items()}
    for name, prompt in prompts.items():
        why = doubled_start(tokenizer, prompt.replace(IMAGE, image))
        if why is not None:
            raise RecipeError(f"harvest.{name} {why}")
    differ = [f"prompts differ: {one}" for one in prompts_differ(recipe.harvest.model_dump())]
    return [*differ, *(f"harvest.{one}" for one in bare_starts(tokenizer, prompts, image))]


def headline(manifest: Manifest) -> list[str]:
    """What was harvested, and what stands apart, in sentences."""
    counts, layers = manifest.counts, manifest.layers
    n, n_skipped, n_bytes = counts["n_samples"], counts["n_skipped"], size(counts["n_bytes"])
    high = max((s["n_high_norm"] for s in manifest.statistics), default=0)
    apart = f" Up to {high:,} tokens a layer are of high norm and kept apart." if high else ""
    return [
        f"{n:,} samples give {counts['n_tokens']:,} tokens at {len(layers)} layers, {n_bytes} of activations; "
        f"{n_skipped:,} samples were skipped.{apart}"
    ]


def reading(store: Store) -> str:
    """Python that reads some rows of a store, to be called on it."""
    view, layer = store.manifest.views[0], store.manifest.layers[-1]
    modality = next((m for m in MODALITIES if len(store.select(view, layer, m))), MODALITIES[0])
    return f'select("{view}", layer={layer}, modality="{modality}").torch()'


def metrics(manifest: Manifest) -> dict[str, float | dict[int, float]]:
    """The manifest's numbers as MLflow metrics: counts, and statistics as curves over layers."""
    curves: dict[str, dict[int, float]] = {}
    for field in ("norm_p50", "norm_p99", "total_variance", "n_high_norm", "n_nonfinite"):
        for s in manifest.statistics:
            if s[field] is not None:
                curves.setdefault(f"{field}_{s['group']}", {})[s["layer"]] = float(s[field])
    return {name: float(value) for name, value in manifest.counts.items()} | curves
