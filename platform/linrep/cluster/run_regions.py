"""The regions stage: what it reads, what it labels and what it shows. `linrep.cluster.stage` runs it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from linrep import tracking
from linrep.artefact import Artefact
from linrep.cluster.commands import literal, python, read_parquet
from linrep.cluster.inputs import plan_regions_of
from linrep.cluster.regions import label_plainly, label_units
from linrep.cluster.stage import Counts, Outcome, Records, Shown, run_stage
from linrep.kind import UnitCommit
from linrep.places import Place
from linrep.recipe import Recipe
from linrep.regions.artefact import CATEGORIES, RegionsAbout, finish
from linrep.regions.report import regions_headline, regions_metrics, summary_lines
from linrep.regions.study import RegionsStudy

ALONE = 4096
"""Images that are labelled before a cluster would have started."""


@dataclass(frozen=True)
class RegionsStage:
    """Boxes or masks of a harvest's images, as labels of patches.

    Attributes:
        artefact: The regions.
        study: What is labelled, and with what.
    """

    artefact: Artefact[RegionsAbout]
    study: RegionsStudy
    counts = Counts("chunks", "images")

    @property
    def on_ray(self) -> bool:
        """Only where there are many images."""
        return self.study.n_images > ALONE

    def of(self, artefact: Artefact[RegionsAbout]) -> "RegionsStage":
        """The same stage of the artefact as it lies on disk."""
        return replace(self, artefact=artefact)

    def compute(self, todo: Sequence[str], run: tracking.Run) -> Iterator[UnitCommit]:
        """Label chunk after chunk."""
        label = label_units if self.on_ray else label_plainly
        return label(self.study, todo, self.artefact)

    def finish(self) -> dict[str, object]:
        """Put the tables together and count the categories."""
        return finish(self.artefact, self.study)

    def show(self) -> Shown:
        """How much has regions, and what has none."""
        images, categories, about = self.artefact.frame("images"), self.artefact.frame(CATEGORIES), self.artefact.about
        where = literal(self.artefact.place)
        patches = f"from linrep.regions.artefact import open_regions as o; print(o({where}).patches(range(8)))"
        return Shown(
            headline=regions_headline(images, categories, about.share),
            lines=summary_lines(images, categories, about),
            next=[("regions", read_parquet(self.artefact.place / "regions.parquet")), ("patches", python(patches))],
        )

    def records(self) -> Records:
        """Counts and tables."""
        tables = {name: self.artefact.table(name) for name in ("images", CATEGORIES)}
        return Records(regions_metrics(self.artefact.frame("images"), self.artefact.frame(CATEGORIES)), tables)


def plan_stage(recipe: Recipe, workspace: Place) -> RegionsStage:
    """Work out a regions job; starts no cluster, and reads no annotations.

    Raises:
        LinrepError: The recipe has no regions, its harvest is missing or not complete, or the annotations are not there.
    """
    return RegionsStage(*plan_regions_of(recipe, workspace))


def run_regions(recipe: Recipe, workspace: Place) -> Outcome:
    """Do what is missing of a recipe's regions; nothing, if they are complete.

    Raises:
        LinrepError: Something that the user can mend; the message says what.
    """
    return run_stage(plan_stage(recipe, workspace), workspace)
