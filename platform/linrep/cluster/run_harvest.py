"""The harvest stage: what it reads, what it computes and what it shows. `linrep.cluster.stage` runs it."""

import dataclasses
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from linrep import tracking
from linrep.cluster.commands import literal, python
from linrep.cluster.meter import count
from linrep.cluster.ready import check_services
from linrep.cluster.run_plan import check_room
from linrep.cluster.session import cluster
from linrep.cluster.stage import Counts, Outcome, Records, Shown, Step, run_stage
from linrep.contents.sources import located
from linrep.errors import RecipeError, TooManySkipped
from linrep.harvest.account import account
from linrep.harvest.artefact import Harvest, plan_artefact
from linrep.harvest.clock import Clock, shares, time_line
from linrep.harvest.config import Pool
from linrep.harvest.extend import Extension, find_earlier, unmeasured
from linrep.harvest.extension_line import extension_line
from linrep.harvest.finish import complete_manifest
from linrep.harvest.plan import Job, Plan, plan_harvest
from linrep.harvest.take import ChunkWork
from linrep.kind import UnitCommit
from linrep.places import Place
from linrep.recipe import Recipe
from linrep.store.commit import Commit
from linrep.store.layout import MANIFEST, MODALITIES, NO_LAYER
from linrep.store.limits import Limits, as_records
from linrep.store.manifest import Manifest, read_manifest, write_manifest
from linrep.store.packing import EVERY, FEWEST, pack
from linrep.store.read import Store
from linrep.store.summary import size
from linrep.vlm.card import read_config
from linrep.vlm.config import IMAGE
from linrep.vlm.families import family_of
from linrep.vlm.files import locate as locate_model
from linrep.vlm.processor import load_processor
from linrep.vlm.prompts import bare_starts, doubled_start, prompts_differ

if TYPE_CHECKING:
    from linrep.cluster.harvest import LostChunk


@dataclass(frozen=True)
class HarvestStage:
    """Activations of a model over some corpora.

    Attributes:
        artefact: The store.
        pool: Actors, GPUs and batch size.
        extension: Earlier harvests that hold some of its rows.
        clock: Where the time of what this job computes goes.
    """

    artefact: Harvest
    pool: Pool
    extension: Extension
    clock: Clock = dataclasses.field(default_factory=Clock)

    @property
    def on_ray(self) -> bool:
        """Whether anything is to be computed: what is only taken from earlier harvests needs no model."""
        return any(work.views for work in self.works(self.artefact.todo()))

    @property
    def counts(self) -> Counts:
        """Progress in samples, read or skipped."""
        done = sum(commit.n_samples + len(commit.skipped) for commit in self.artefact.commits.values())
        return Counts("samples", "tokens", self.artefact.plan.index.n_samples, done)

    def of(self, artefact: Harvest) -> "HarvestStage":
        """The same stage of the store as it lies on disk."""
        return replace(self, artefact=artefact)

    def works(self, todo: Iterable[str], without: Iterable[str] = ()) -> list[ChunkWork]:
        """What is taken from earlier harvests, and what is computed, of some chunks.

        Args:
            todo: The chunks.
            without: Those of which nothing is taken.
        """
        manifest, wanted = self.artefact.manifest, set(todo)
        chunks = [chunk for chunk in self.artefact.plan.chunks if str(chunk.number) in wanted]
        return self.extension.works(manifest, chunks, self.extension.limits(manifest), set(map(int, without)))

    def compute(self, todo: Sequence[str], run: tracking.Run) -> Iterator[UnitCommit | Step]:
        """Harvest some chunks; as soon as more is skipped than the recipe allows, that is an error.

        Raises:
            TooManySkipped: More is skipped.
        """
        from linrep.cluster.harvest import take_chunks

        self._refuse(self._n_skipped)
        check_room(self.artefact.plan, todo, self.pool)
        works = self.works(todo)
        self._keep(self.extension.limits(self.artefact.manifest))
        yield from self._counted(take_chunks(self.artefact, [work for work in works if not work.views]))
        yield from self._computed([work for work in works if work.views])
        # What could not be taken as planned is computed whole.
        lost = [unit for unit in todo if int(unit) not in self.artefact.commits]
        yield from self._computed(self.works(lost, without=lost))

    def _counted(self, outcomes: "Iterable[Commit | LostChunk]") -> Iterator[Step]:
        commits, n_skipped, unpacked = self.artefact.commits, self._n_skipped, []
        for outcome in outcomes:
            if not isinstance(outcome, Commit):
                print(f"harvest: chunk {outcome.number} is computed whole: {outcome.why}", file=sys.stderr, flush=True)
                continue
            commits[outcome.chunk] = outcome
            count(self.artefact.kind.stage, "chunks", 1)
            count(self.artefact.kind.stage, "skipped samples", len(outcome.skipped))
            yield Step(outcome.n_samples + len(outcome.skipped), outcome.n_tokens)
            n_skipped += len(outcome.skipped)
            self._refuse(n_skipped)
            unpacked.append(outcome.chunk)
            if len(unpacked) == EVERY:
                self._pack(unpacked)
                unpacked = []

    def _computed(self, works: Sequence[ChunkWork]) -> Iterator[Step]:
        """Run some chunks through the model, those that need the fewest layers first: it runs no deeper than a chunk needs."""
        if not works:
            return
        from linrep.cluster.harvest import harvest_chunks

        known = (*self.artefact.commits.values(), *(origin.commit for work in works for origin in work.origins))
        begun_in = next((commit.precision for commit in known), None)
        with cluster():  # the job's own, where it has one
            limits = self._limits(works, begun_in)
            for depth in sorted({work.depth for work in works}):
                own = [work for work in works if work.depth == depth]
                layers = tuple(sorted({layer for work in own for layer in work.views}))
                job = replace(self.artefact.plan.job, layers=layers, limits=limits)
                yield from self._counted(harvest_chunks(job, own, self.pool, begun_in, self.clock))

    def _limits(self, works: Sequence[ChunkWork], begun_in: str | None) -> dict[str, Limits]:
        """The limits that some chunks need; those that nobody has measured yet are measured now, before the first row."""
        from linrep.cluster.harvest import usual_norms

        plan, there = self.artefact.plan, read_manifest(self.artefact.place)
        limits: dict[str, Limits] = {**self.extension.limits(there)}
        needed = {(work.chunk.source, layer) for work in works for layer in work.views}
        missing = [one for one in unmeasured(there, limits) if one in needed]
        if missing:
            sources, layers = {source for source, _ in missing}, tuple(sorted({layer for _, layer in missing}))
            chunks = [chunk for chunk in plan.chunks if chunk.source in sources]
            measured = usual_norms(replace(plan.job, layers=layers), chunks, self.pool, begun_in)
            limits |= {source: {**own, **limits.get(source, {})} for source, own in measured.items()}
            self._keep(limits)
        return limits

    def _keep(self, limits: Mapping[str, Limits]) -> None:
        """Write limits to the manifest: all chunks, on whatever machine and after whatever stop, use the same."""
        running = replace(self.artefact.manifest, limits=as_records(limits))
        if running != self.artefact.manifest:
            write_manifest(self.artefact.place, running)

    def finish(self) -> dict[str, Any]:
        """Write the statistics of all chunks, and their packs; say where the time went."""
        self._refuse(self._n_skipped)
        self._pack(self.artefact.commits)
        if shares(self.clock.seconds):
            print(f"harvest: {time_line(self.clock.seconds)}", file=sys.stderr, flush=True)
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
        """Counts, statistics as curves over layers, and where the time went; the store is an input of its own run, and found with
        its readers."""
        spent = {f"time_{work}": share for work, share in shares(self.clock.seconds).items()}
        return Records(metrics(self.artefact.manifest) | spent, harvests=[self.artefact.digest])

    def _pack(self, chunks: Iterable[int]) -> None:
        """Packs are not needed: what cannot be written now does not end a harvest."""
        if self.artefact.manifest.n_chunks < FEWEST:
            return
        try:
            pack(self.artefact.place, chunks)
        except OSError as error:
            print(f"harvest: commits were not packed, which makes the store slower to open: {error}", file=sys.stderr, flush=True)

    @property
    def _n_skipped(self) -> int:
        return sum(len(commit.skipped) for commit in self.artefact.commits.values())

    def _refuse(self, n_skipped: int) -> None:
        plan = self.artefact.plan
        n_allowed = int(self.pool.max_skipped * plan.index.n_samples)
        if n_skipped > n_allowed:
            name, reason = [pair for commit in self.artefact.commits.values() for pair in commit.skipped][-1]
            raise TooManySkipped(
                f"{n_skipped:,} samples were skipped, and pool.max_skipped allows {n_allowed:,} of "
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

    def ready(plan: Plan) -> None:
        if not (plan.place / MANIFEST).is_file():
            notes.extend(prompt_notes(plan.job))  # refuses before anything is made
        check_services(workspace, plan.place)

    plan = plan_harvest(recipe.name, recipe.corpora, recipe.model, recipe.harvest, workspace, recipe.demo, reindex, ready=ready)
    planned = plan_artefact(plan, recipe.model_dump(mode="json"), notes)
    there = planned.there()
    if there is not None and there.covers(planned):
        return HarvestStage(planned, recipe.pool, Extension())
    begun = there or planned
    asked = None if recipe.pool.precision == "auto" else recipe.pool.precision
    precision = next((commit.precision for commit in begun.commits.values()), asked)
    stage = HarvestStage(planned, recipe.pool, find_earlier(plan.place, plan.manifest, precision))
    line = extension_line(stage.extension, stage.of(begun).works(begun.todo()), plan.manifest)
    for note in (*notes, *filter(None, [line])):
        print(f"harvest: {note}", file=sys.stderr, flush=True)
    return stage


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


def prompt_notes(job: Job) -> list[str]:
    """What is to be said of a harvest's prompts: what a chat makes, where they differ, which do not begin with a start token.

    Raises:
        RecipeError: A prompt begins with two start tokens.
    """
    folder, _ = locate_model(located(job.model))
    config, tokenizer = read_config(folder), load_processor(folder).tokenizer
    family = family_of(config.model_type)
    image = family.spelling(None, str(tokenizer.convert_ids_to_tokens(family.image_token_id(config))), tokenizer)
    prompts = {name: family.dress(prompt, IMAGE, tokenizer) for name, prompt in job.config.prompts.items()}
    for name, prompt in prompts.items():
        why = doubled_start(tokenizer, prompt.replace(IMAGE, image))
        if why is not None:
            raise RecipeError(f"harvest.{name} {why}")
    made = [] if job.config.chat is None else [f"the model's chat template makes the prompt {job.config.image_prompt!r}"]
    differ = [f"prompts differ: {one}" for one in prompts_differ(job.config.prompts)]
    return [*made, *differ, *(f"harvest.{one}" for one in bare_starts(tokenizer, prompts, image))]


def headline(manifest: Manifest) -> list[str]:
    """What was harvested, and what stands apart, in sentences."""
    counts, layers = manifest.counts, manifest.layers
    n, n_skipped, n_bytes = counts["n_samples"], counts["n_skipped"], size(counts["n_bytes"])
    high = max((s["n_high_norm"] for s in manifest.statistics if s["layer"] != NO_LAYER), default=0)
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
    single: dict[str, float] = {}
    for field in ("norm_p50", "norm_p99", "total_variance", "n_high_norm", "n_nonfinite"):
        for s in manifest.statistics:
            if s[field] is None:
                continue
            if s["layer"] == NO_LAYER:
                single[f"{field}_{s['group']}"] = float(s[field])
            else:
                curves.setdefault(f"{field}_{s['group']}", {})[s["layer"]] = float(s[field])
    return {name: float(value) for name, value in manifest.counts.items()} | single | curves
