"""A harvest as an artefact: its store has a format of its own, and the life of all others. See `linrep.cluster.stage`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from linrep.harvest.plan import Plan
from linrep.kind import Kind
from linrep.places import Place
from linrep.store.commit import Commit, read_commits
from linrep.store.layout import MANIFEST, STATISTICS
from linrep.store.manifest import Manifest, write_manifest
from linrep.store.packing import drop_stale
from linrep.store.read import Store, read_store
from schemas.activations import VERSION


@dataclass(frozen=True)
class HarvestAbout:
    """A store's manifest says all of it."""


HARVESTS = Kind("harvest", "harvests", "harvest", VERSION, HarvestAbout, {}, single=True)


@dataclass(frozen=True)
class Harvest:
    """A store that is planned, begun or complete.

    Attributes:
        plan: What is harvested.
        params: The recipe.
        manifest: Its head.
        commits: What is there, by chunk; workers write, and whoever drives them adds what they wrote.
    """

    plan: Plan
    params: Mapping[str, Any]
    manifest: Manifest
    commits: dict[int, Commit] = field(repr=False)
    kind = HARVESTS

    @property
    def place(self) -> Place:
        """Where it lies."""
        return self.plan.place

    @property
    def name(self) -> str:
        """Name of the recipe and digest: the name of its folder."""
        return self.place.name

    @property
    def digest(self) -> str:
        """Names everything that decides a number."""
        return self.manifest.digest

    @property
    def parents(self) -> dict[str, str]:
        """Digests of what it is made from."""
        return {"model": self.plan.job.model_digest, "corpora": self.plan.index.digest}

    @property
    def units(self) -> Sequence[str]:
        """Its chunks."""
        return [str(chunk.number) for chunk in self.plan.chunks]

    @property
    def store(self) -> Store:
        """What it holds."""
        return Store(self.place, self.manifest, self.commits)

    def there(self) -> "Harvest | None":
        """The one on disk, begun or complete.

        Raises:
            StoreError: It is damaged.
        """
        if not (self.place / MANIFEST).is_file():
            return None
        store = read_store(self.place, to_mend=True)
        return replace(self, manifest=store.manifest, commits=store.commits)

    def covers(self, planned: object, /) -> bool:
        """Whether it is complete. One whose damaged commit or statistics were deleted is not: it is completed again."""
        return self.manifest.status == "complete" and self.store.complete and (self.place / STATISTICS).is_file()

    def begun(self) -> "Harvest":
        """Write the head, or take over the one on disk. From here on chunks without a commit may get one."""
        drop_stale(self.place)
        there = self.there()
        if there is not None:
            return there
        write_manifest(self.place, self.manifest)
        return replace(self, commits=read_commits(self.place, self.manifest.n_chunks))

    def todo(self) -> list[str]:
        """Chunks that are not committed."""
        return [unit for unit in self.units if int(unit) not in self.commits]

    def closing(self, **about: Any) -> "Harvest":
        """The harvest as it will be once it is complete; nothing is written.

        Args:
            about: `manifest`, the complete store's.
        """
        return replace(self, manifest=about["manifest"])

    def close(self) -> None:
        """Write that it is complete: the very last write."""
        write_manifest(self.place, self.manifest)


def plan_artefact(plan: Plan, params: Mapping[str, Any], notes: Sequence[str] = ()) -> Harvest:
    """The artefact of a plan; nothing is written.

    Args:
        plan: What is harvested.
        params: The recipe.
        notes: What a reader must know of the rows.
    """
    return Harvest(plan, params, replace(plan.manifest, notes=list(notes)), {})
