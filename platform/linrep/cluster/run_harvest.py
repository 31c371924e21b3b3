"""The harvest from recipe to complete store: planned, locked, resumed, watched, finished and tracked."""

import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

from linrep import tracking
from linrep.cluster.lock import sole_driver
from linrep.cluster.progress import Progress
from linrep.cluster.ready import check_services
from linrep.cluster.session import cluster
from linrep.errors import RecipeError, TooManySkipped
from linrep.harvest.account import account
from linrep.harvest.finish import complete_manifest
from linrep.harvest.plan import Plan, located, plan_harvest
from linrep.places import Place, remove_unfinished
from linrep.recipe import Recipe
from linrep.store.commit import Commit, read_commits
from linrep.store.layout import MANIFEST, MODALITIES, STATISTICS
from linrep.store.limits import as_records, from_records
from linrep.store.manifest import Manifest, read_manifest, write_manifest
from linrep.store.read import Store, read_store
from linrep.vlm.files import locate as locate_model
from linrep.vlm.processor import load_processor
from linrep.vlm.prompts import bare_starts, doubled_start, prompts_differ


@dataclass(frozen=True)
class Outcome:
    """What a harvest job did.

    Attributes:
        store: The store, complete.
        n_new: Chunks that this run harvested.
        tracking_uri: Where its MLflow run is.
        index: Where the index of its corpora is kept.
    """

    store: Store
    n_new: int
    tracking_uri: str
    index: Place

    @property
    def account(self) -> list[str]:
        """What became of all that lies in the corpora."""
        return account(self.store.manifest.corpora, self.store.commits)

    @property
    def reading(self) -> str:
        """Python that reads some of its rows, to be called on the open store."""
        view, layer = self.store.manifest.views[0], self.store.manifest.layers[-1]
        modality = next((m for m in MODALITIES if len(self.store.select(view, layer, m))), MODALITIES[0])
        return f'select("{view}", layer={layer}, modality="{modality}").torch()'


def run_harvest(recipe: Recipe, workspace: Place, reindex: bool = False) -> Outcome:
    """Do what is missing of a harvest; nothing, if it is complete.

    Args:
        recipe: The experiment.
        workspace: Where everything lies.
        reindex: Look at the corpora again, though their index is there.

    Raises:
        LinrepError: Something that the user can mend; the message says what.
    """

    def ready(store: Place) -> None:
        if not (store / MANIFEST).is_file():
            prompt_notes(recipe)  # refuses before anything is made
        check_services(workspace, store)

    plan = plan_harvest(recipe.name, recipe.corpora, recipe.model, recipe.harvest, workspace, recipe.demo, reindex, ready=ready)
    with sole_driver(plan.place):
        commits = read_commits(plan.place, plan.manifest.n_chunks)
        if (plan.place / MANIFEST).is_file():
            store = read_store(plan.place, to_mend=True)
            # A complete one whose damaged commit or statistics were deleted is completed again.
            if store.manifest.status == "complete" and store.complete and (plan.place / STATISTICS).is_file():
                return Outcome(store, 0, tracking.uri_of(workspace, plan.place), plan.index_place)
        else:
            notes = prompt_notes(recipe)
            write_manifest(plan.place, replace(plan.manifest, notes=notes))
            for note in notes:
                print(f"harvest: {note}", file=sys.stderr, flush=True)
        return _harvest(recipe, workspace, plan, commits)


def prompt_notes(recipe: Recipe) -> list[str]:
    """What is to be said of the harvest's prompts: where they differ, and which do not begin with a start token.

    Raises:
        RecipeError: A prompt begins with two start tokens.
    """
    processor, prompts = load_processor(locate_model(located(recipe.model))[0]), recipe.harvest.prompts
    for name, prompt in prompts.items():
        why = doubled_start(processor.tokenizer, prompt)
        if why is not None:
            raise RecipeError(f"harvest.{name} {why}")
    differ = [f"prompts differ: {one}" for one in prompts_differ(recipe.harvest.model_dump())]
    return [*differ, *(f"harvest.{one}" for one in bare_starts(processor.tokenizer, prompts, processor.image_token))]


def _harvest(recipe: Recipe, workspace: Place, plan: Plan, commits: dict[int, Commit]) -> Outcome:
    remove_unfinished(plan.place)
    todo = [chunk for chunk in plan.chunks if chunk.number not in commits]
    n_allowed = int(recipe.pool.max_skipped * plan.index.n_samples)
    name = f"harvest {recipe.name}-{plan.manifest.digest}"
    parents = {"model": plan.job.model_digest, "corpora": plan.index.digest}
    with tracking.run(
        workspace, "harvest", name, tracking.key_of(workspace, plan.place), recipe.model_dump(mode="json"), parents
    ) as run:
        run.tags({"linrep.store": tracking.inside(workspace, plan.place), "linrep.digest": plan.manifest.digest})
        run.reads(workspace, "harvest", [plan.manifest.digest])
        _refuse(commits, n_allowed, plan)
        if todo:
            with cluster():
                # Ray, and what it needs, is imported only where there is work: a finished harvest says so at once.
                from linrep.cluster.harvest import harvest_chunks, usual_norms

                begun_in = next((commit.precision for commit in commits.values()), None)
                running = read_manifest(plan.place)
                if not running.limits and recipe.harvest.high_norm is not None:
                    # Before the first row: all chunks, on whatever machine and after whatever stop, use the same limits.
                    found = usual_norms(plan.job, plan.chunks, recipe.pool, begun_in)
                    running = replace(running, limits=as_records(found))
                    write_manifest(plan.place, running)
                job = replace(plan.job, limits=from_records(running.limits))
                _watch(harvest_chunks(job, todo, recipe.pool, begun_in), commits, n_allowed, plan)
        manifest = complete_manifest(plan.place, commits)
        run.measures(metrics(manifest))
        run.json(asdict(manifest), MANIFEST)
    # Last, after the run is closed: a driver killed before this line does the tracking again when it resumes.
    write_manifest(plan.place, manifest)
    return Outcome(Store(plan.place, manifest, commits), len(todo), run.uri, plan.index_place)


def _watch(new: Iterable[Commit], commits: dict[int, Commit], n_allowed: int, plan: Plan) -> None:
    """Take in commits as they come; stop as soon as more is skipped than the recipe allows."""
    done = sum(c.n_samples + len(c.skipped) for c in commits.values())
    with Progress("harvest", plan.index.n_samples, done) as progress:
        for commit in new:
            commits[commit.chunk] = commit
            progress.add(commit.n_samples + len(commit.skipped), commit.n_tokens)
            _refuse(commits, n_allowed, plan)


def _refuse(commits: dict[int, Commit], n_allowed: int, plan: Plan) -> None:
    skipped = [pair for commit in commits.values() for pair in commit.skipped]
    if len(skipped) > n_allowed:
        name, reason = skipped[-1]
        raise TooManySkipped(
            f"{len(skipped):,} samples were skipped, and pool.max_skipped allows {n_allowed:,} of {plan.index.n_samples:,}; "
            f"the latest is {name}: {reason}. All are named in {plan.place / 'commits'}. "
            f"Raise pool.max_skipped to go on; or mend the corpus and add --reindex, which makes another store"
        )


def metrics(manifest: Manifest) -> dict[str, float | dict[int, float]]:
    """The manifest's numbers as MLflow metrics: counts, and statistics as curves over layers."""
    curves: dict[str, dict[int, float]] = {}
    for field in ("norm_p50", "norm_p99", "total_variance", "n_high_norm", "n_nonfinite"):
        for s in manifest.statistics:
            if s[field] is not None:
                curves.setdefault(f"{field}_{s['group']}", {})[s["layer"]] = float(s[field])
    return {name: float(value) for name, value in manifest.counts.items()} | curves
