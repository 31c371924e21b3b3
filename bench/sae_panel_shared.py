"""Shared latents taken away, and latents of one modality alone: what answers about images and about texts lose by it.

Images and described scenes are asked the recipe's questions. Latents are taken away at image tokens of the first and at text
tokens of the second.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from matplotlib.figure import Figure
from torch import Tensor

from bench.sae_panel_rows import token_rows
from linrep.cluster.inputs import HarvestInput, attributes
from linrep.contents.sources import located
from linrep.corpora.narrow import narrow
from linrep.corpora.read import read
from linrep.errors import RecipeError
from linrep.explorer.figures import Curve, Panel, panels
from linrep.places import Place
from linrep.recipe import Recipe
from linrep.sae.panel.intervals import Resampled
from linrep.sae.panel.judge import PanelRow, rows_of
from linrep.sae.panel.shared import OWN, RANDOM, SHARED, SHARES, Asked, LatentSet, ModalityCodes, damage, draw_sets, whole_sets
from linrep.sae.sae import Sae
from linrep.sample import Sample, Split, unit_hash
from linrep.stats.interval import Interval, in_brackets
from linrep.steer.prompts import answer_ids
from linrep.store.layout import MODALITIES, Modality
from linrep.store.read import Store
from linrep.store.samples import CLASS, class_values, read_samples
from linrep.vlm.batch import pack
from linrep.vlm.config import IMAGE
from linrep.vlm.decode import Context, Edited, Stream, at_last, embed, logits, run, run_from, stack
from linrep.vlm.hooks import record
from linrep.vlm.load import VLM, load
from linrep.vlm.precision import number_format
from linrep.vlm.prepare import Preparer
from linrep.vlm.prepared import Prepared, Role
from linrep.vlm.prompts import follow

TOKENS = 32768
"""Training tokens of each modality on which sets are drawn, at most."""
HEAD = "| taken away | latents | share of the energy | KL, nats | same answer | still right | KL: shared minus this |"


@dataclass(frozen=True)
class AskedSample:
    """A sample under a question.

    Attributes:
        prepared: The sequence.
        right: First token of the right answer; -1 where it is not known.
    """

    prepared: Prepared
    right: int


@dataclass(frozen=True)
class Unedited:
    """A micro-batch, run as it is.

    Attributes:
        stream: Layer 0.
        real: Which positions are real.
        there: Positions where latents are taken away.
        h: The stream at the layer where they are.
        seen: What the model has seen.
        hidden: The final norm's output.
    """

    stream: Stream
    real: Bool[Tensor, "b t"]
    there: Bool[Tensor, "b t"]
    h: Float[Tensor, "b t d"]
    seen: Context
    hidden: Float[Tensor, "b t d"]


@dataclass(frozen=True)
class Questions:
    """Test samples under the questions of a recipe, and the model that answers them.

    Attributes:
        vlm: The whole model.
        samples: By modality.
        layer: Layer k at which latents are taken away.
        limits: Norms above which positions are left as they are, by modality.
        tokens_per_batch: Positions of a micro-batch.
    """

    vlm: VLM
    samples: Mapping[Modality, tuple[AskedSample, ...]]
    layer: int
    limits: Mapping[Modality, float]
    tokens_per_batch: int

    @torch.inference_mode()
    def asked(self, modality: Modality) -> Iterator[Asked]:
        """The samples of a modality, a micro-batch at a time."""
        own = self.samples[modality]
        for indices in pack([len(one.prepared) for one in own], self.tokens_per_batch):
            some = [own[i] for i in indices]
            stream, real = stack(embed(self.vlm, [one.prepared for one in some]))
            there = torch.zeros_like(real)
            for row, one in enumerate(some):
                of = one.prepared.role
                there[row, : len(of)] = torch.from_numpy(of >= Role.IMAGE if modality == "image" else of == Role.TEXT)
            with record(self.vlm, (self.layer,)) as streams:
                seen, hidden = run(self.vlm, stream, real)
            h = streams[self.layer].to(self.vlm.device)
            there &= h.float().norm(dim=-1) <= self.limits[modality]

            right = torch.tensor([one.right for one in some])
            names = tuple(one.prepared.sample.id for one in some)
            plain = Unedited(stream, real, there, h, seen, hidden)
            yield Asked(h[there].float(), there.nonzero()[:, 0], names, right, partial(self._answer, plain))

    def _answer(self, plain: Unedited, taken: Float[Tensor, "n d"] | None) -> Float[Tensor, "b v"]:
        """Log-probabilities of the answer's first token, with something subtracted at some positions."""
        hidden = plain.hidden
        if taken is not None:
            edited = Edited({self.layer: lambda x, _: x - taken.to(x)}, plain.there)
            _, hidden = run_from(self.vlm, self.layer, plain.h, plain.stream, plain.real, plain.seen, edited)
        return logits(self.vlm, at_last(hidden, plain.real)).log_softmax(-1)


def prepare_questions(
    recipe: Recipe, workspace: Place, harvest: HarvestInput, layer: int, most: int, say: Callable[[str], None]
) -> Questions:
    """Test images, and test texts whose class is known (described scenes), under each question of the recipe.

    Args:
        recipe: The experiment.
        workspace: Where everything lies.
        harvest: The activations.
        layer: Layer k.
        most: Samples of each modality.
        say: Takes a line of what is found.

    Raises:
        RecipeError: There is no test image, or no test text.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    vlm = load(located(recipe.model), None, device, number_format(recipe.pool.precision, device))
    known = attributes(recipe, workspace)
    values = {} if known is None else known.values(harvest.store)
    found: dict[Modality, tuple[AskedSample, ...]] = {}
    for modality in MODALITIES:
        samples = _test_samples(harvest, modality, most)
        if not samples:
            raise RecipeError(
                f"{harvest.store.place} has no test {modality} to ask about: latents are taken away where one is read"
            )
        asked = []
        for question in recipe.steer.ask.questions:
            options = {**harvest.plan.job.config.preparation, "image_prompt": question.prompt, "chat": None}
            options |= {"text_prompt": follow(question.prompt).text}
            prepare = Preparer(vlm.processor, vlm.card, **options)
            for i, sample, name in samples:
                value = name if question.about == CLASS else values.get(question.about, {i: None})[i]
                prepared = prepare(sample)
                if isinstance(prepared, Prepared):
                    asked.append(AskedSample(prepared, _first_token(vlm, recipe, question.prompt, value)))
        found[modality] = tuple(asked)
        n_known = sum(one.right >= 0 for one in asked)
        say(f"{len(samples)} test {modality}s under {len(recipe.steer.ask.questions)} questions, {n_known} answers known")
    limits: dict[Modality, float] = {m: harvest.store.limit("tokens", layer, m) for m in MODALITIES}
    return Questions(vlm, found, layer, limits, recipe.pool.tokens_per_batch)


def _first_token(vlm: VLM, recipe: Recipe, prompt: str, value: str | None) -> int:
    """First token of a value as an answer; -1 of none."""
    if value is None:
        return -1
    return answer_ids(vlm.processor.tokenizer, prompt.replace(IMAGE, ""), recipe.steer.ask.answer, value)[0]


def _test_samples(harvest: HarvestInput, modality: Modality, most: int) -> list[tuple[int, Sample, str | None]]:
    """Test samples of a modality, with their number in the store and their class."""
    store, plan = harvest.store, harvest.plan
    table = store.samples()
    ids, classes, where = table["sample_id"].to_pylist(), class_values(table, read_samples(table)), _places(store)
    found = []
    for i in drawn_samples(store, modality, "test", most).tolist():
        chunk, record = where[ids[i]]
        held = read(narrow(plan.chunks[chunk], [record]), plan.job.corpora)
        found += [(i, one, classes[i]) for one in held if isinstance(one, Sample) and one.id == ids[i]]
    return found


def drawn_samples(store: Store, modality: Modality, split: Split, most: int) -> Int64[np.ndarray, " m"]:
    """Some samples of a split, drawn by a hash: those whose class is known, if it is of any; texts are then described scenes."""
    table = store.samples()
    samples = read_samples(table)
    classes = class_values(table, samples)
    own = np.flatnonzero(samples.of(modality, split)).tolist()
    own = [i for i in own if classes[i] is not None] or own
    return np.array(sorted(sorted(own, key=lambda i: unit_hash(samples.ids[i], "shared"))[:most]), np.int64)


def read_tokens(store: Store, layer: int, most: int) -> dict[Modality, Float[Tensor, "n d"]]:
    """Training tokens of images and of described scenes, on which sets are drawn: of samples like those that are asked about.

    Raises:
        RecipeError: There are none of a modality.
    """
    found: dict[Modality, Float[Tensor, "n d"]] = {}
    for modality in MODALITIES:
        x = token_rows(store, layer, modality, drawn_samples(store, modality, "train", most)).x
        if not len(x):
            raise RecipeError(
                f"{store.place} has no training tokens of {modality}s at layer {layer}: no latent is known to be shared"
            )
        found[modality] = x[:: -(-len(x) // TOKENS)]
    return found


def _places(store: Store) -> dict[str, tuple[int, int]]:
    """Chunk and record of each sample; a pair whose caption is also given alone is two samples of one record."""
    found = {}
    for number in sorted(store.commits):
        record = -1
        for name in store.samples_of(number, ["sample_id"])["sample_id"].to_pylist():
            record += not name.endswith("#caption")
            found[name] = number, record
    return found


def ablate(
    saes: Mapping[str, Sae],
    tokens: Mapping[Modality, Float[Tensor, "_ d"]],
    questions: Questions,
    n_draws: int,
    resamples: int,
    say: Callable[[str], None],
) -> list[PanelRow]:
    """What answers lose without shared latents, without those of one modality, and without random ones that write as much.

    Measures are called by the tokens, what is measured and the share of the energy: `image_kl_0.5`.

    Args:
        saes: By modality what takes its raw rows, "" for both.
        tokens: Training tokens, see `read_tokens`.
        questions: What is asked.
        n_draws: Draws of each set.
        resamples: Draws of samples.
        say: Takes a line of what is done.

    Raises:
        RecipeError: There is nothing to compare.
    """
    by = {m: saes[m] if m in saes else saes[""] for m in MODALITIES}
    codes: dict[Modality, ModalityCodes] = {m: ModalityCodes.of(by[m], by[m].decoder, tokens[m]) for m in MODALITIES}
    measures: dict[str, dict[str, Resampled]] = {}
    for site in MODALITIES:
        sets: dict[tuple[str, float], tuple[LatentSet, ...]] = {}
        for share in SHARES:
            try:
                sets |= {(name, share): own for name, own in draw_sets(codes, site, share, n_draws).items()}
            except ValueError as error:
                raise RecipeError(f"layer {questions.layer}, {site} tokens: {error}") from None
        sets |= {(name, SHARES[-1]): own for name, own in whole_sets(codes, site).items()}
        say(f"{site} tokens: {sum(map(len, sets.values()))} sets to take away")
        found = damage(questions.asked(site), by[site].to(questions.vlm.device), by[site].decoder, sets, resamples)
        for measure, values in found.items():
            for (name, share), own in values.items():
                measures.setdefault(f"{site}_{measure}_{share:g}", {})[name] = own
        for (name, share), own in sets.items():
            sizes = np.array([one.size for one in own], float)
            unresampled = np.repeat(sizes[:, None], resamples, axis=1)
            measures.setdefault(f"{site}_latents_{share:g}", {})[name] = Resampled(sizes, unresampled)
    return rows_of(measures, SHARED)


def ablation_tables(rows: Sequence[PanelRow]) -> str:
    """A Markdown table for the tokens of each modality: a row for each set and energy."""
    by = {(row.measure, row.sae): row for row in rows}
    parts = []
    for site in MODALITIES:
        asked = "images" if site == "image" else "described scenes"
        lines = [f"Answers about {asked}, latents taken away at {site} tokens", "", HEAD, "|---" * HEAD.count(" | ") + "|---|"]
        for share in SHARES:
            for name in (row.sae for row in rows if row.measure == f"{site}_kl_{share:g}"):
                own = {m: by[f"{site}_{m}_{share:g}", name] for m in ("latents", "energy", "kl", "same", "right")}
                cells = [name, f"{own['latents'].found.value:.0f}", *(interval_cell(own[m].found) for m in list(own)[1:])]
                apart = own["kl"].apart
                cells.append("" if apart is None else interval_cell(apart, "+"))
                lines.append(f"| {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def interval_cell(found: Interval, sign: str = "") -> str:
    """A number and both ends, as few digits as say it."""
    if not math.isfinite(found.value):
        return "-"
    digits = 2 if abs(found.value) >= 0.1 else 3 if abs(found.value) >= 0.01 else 4
    return f"{found.value:{sign}.{digits}f}{in_brackets(found.low, found.high, f'{{:{sign}.{digits}f}}'.format, otherwise='')}"


def ablation_figure(title: str, rows: Sequence[PanelRow]) -> Figure:
    """KL over the energy that is taken away, a curve a set, a panel a modality.

    Args:
        title: What stands above.
        rows: Every row.
    """
    by = {(row.measure, row.sae): row.found for row in rows}
    parts = []
    for site in MODALITIES:
        curves = []
        for name in (SHARED, OWN[site], RANDOM):
            x = tuple(by[f"{site}_energy_{share:g}", name].value for share in SHARES)
            y = [by[f"{site}_kl_{share:g}", name] for share in SHARES]
            y, low, high = (tuple(getattr(one, end) for one in y) for end in ("value", "low", "high"))
            label = "of this modality alone" if name == OWN[site] else name
            curves.append(Curve(label, x, y, low, high, colour=len(curves) if name != RANDOM else -1))
        asked = "images" if site == "image" else "described scenes"
        axes = ("energy taken away, share of what the SAE writes", "KL of the answer, nats")
        parts.append(Panel(f"Questions about {asked}, {site} tokens", *axes, tuple(curves)))
    return panels(f"{title}: answers without shared latents (95% intervals over samples and draws)", parts, n_columns=2)
