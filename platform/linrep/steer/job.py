"""What a steering worker is given: samples to run, cut into chunks, and what holds for all of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from linrep.corpora import Corpora
from linrep.corpora.index import Chunk
from linrep.places import Place
from linrep.steer.artefact import Steering, unit_of
from linrep.steer.config import SteerConfig
from linrep.steer.sinks import NormLimits
from linrep.vlm.config import ModelConfig

Task = Literal["answers", "damage", "lens"]


@dataclass(frozen=True)
class Item:
    """A sample to run: the part of a corpus that holds it, its class, and perhaps a text of another corpus to go with it."""

    sample_id: str
    chunk: Chunk
    class_name: str | None = None
    text: "Item | None" = None


@dataclass(frozen=True)
class SteerChunk:
    """The unit of work, retry and commit.

    Attributes:
        number: Its place among all chunks.
        task: What is measured.
        source: Class to leave; empty for the lens.
        target: Class to reach; likewise.
        items: The samples.
        n_cells: Cells that it comes to.
    """

    number: int
    task: Task
    source: str
    target: str
    items: tuple[Item, ...]
    n_cells: int

    @property
    def unit(self) -> str:
        """Name of its unit of the artefact."""
        return unit_of(self.task, self.number)


@dataclass(frozen=True)
class SteerJob:
    """What a worker must know; small, and sent to each.

    Attributes:
        artefact: What it makes.
        corpora: Where the samples really lie.
        model: The model, with a path that can be opened.
        model_digest: A worker refuses to run another one.
        config: The plan.
        layers: Layers at which edits act.
        classes: All classes of the plan, for the lens.
        directions: The file of directions.
        image_size: As in the harvest.
        max_text_tokens: As in the harvest.
        sae_digest: Of the SAE's weights, if there is one; a worker refuses to run another one.
        one_prompt: Whether the harvest read texts under the prompt of the images.
        harvest: The store that the directions come from, for the latents of its tokens.
        limits: Norms above which a position is neither edited nor read by the lens, by layer.
    """

    artefact: Steering
    corpora: Corpora
    model: ModelConfig
    model_digest: str
    config: SteerConfig
    layers: tuple[int, ...]
    classes: tuple[str, ...]
    directions: Place
    image_size: tuple[int, int] | None
    max_text_tokens: int
    sae_digest: str | None
    harvest: Place
    one_prompt: bool = True
    limits: Mapping[int, NormLimits] = field(default_factory=dict)
