"""Runs cells through the model: forced choices, free answers, damage, the logit lens. A run that fails costs its cell alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from linrep.errors import LinrepError
from linrep.sample import Sample, Skipped, unit_hash
from linrep.steer.attempt import attempt
from linrep.steer.cells import NO_DIRECTION, Cell, cells
from linrep.steer.config import INTERCHANGE, SteerConfig
from linrep.steer.edits import EditMaker, Intervention, check_width
from linrep.steer.passes import CellRun, Row, ask, read
from linrep.steer.prompts import (
    Prompts,
    PromptSet,
    SitePositions,
    answer_ids,
    bare_prompt,
    choice_prompt,
    lay_out,
    lay_out_texts,
)
from linrep.steer.sinks import NormLimits, sinks
from linrep.steer.sites import areas
from linrep.steer.vectors import NoDirection
from linrep.vlm.batch import pack
from linrep.vlm.decode import embed, lens
from linrep.vlm.likelihood import nats_per_token
from linrep.vlm.load import VLM
from linrep.vlm.prepared import Prepared, Role


@dataclass
class Produced:
    """Rows for the tables, by table; failures as (sample and cell, reason); and how much the model did."""

    tables: dict[str, list[Row]] = field(default_factory=dict)
    failed: list[tuple[str, str]] = field(default_factory=list)
    n_done: int = 0
    n_tokens: int = 0

    def add(self, table: str, row: Row) -> None:
        """Take in a row."""
        self.tables.setdefault(table, []).append(row)


Lost = Callable[[Produced, CellRun, str, str, str], None]
"""Puts down a cell without a result: where, which, why, source and target."""


class Steerer:
    """Holds the model and runs cells.

    Args:
        vlm: The whole model, with its head.
        config: The plan.
        layers: Layers at which edits act.
        vectors: Makes edits from directions.
        tokens_per_batch: Most positions in a micro-batch, padding included.
        image_size: Squash images to this height and width first.
        max_text_tokens: Longer texts are cut.
        limits: Norms above which a position is neither edited nor read by the lens, by layer.
    """

    def __init__(
        self,
        vlm: VLM,
        config: SteerConfig,
        layers: Sequence[int],
        vectors: EditMaker,
        tokens_per_batch: int = 8192,
        image_size: tuple[int, int] | None = None,
        max_text_tokens: int = 512,
        limits: Mapping[int, NormLimits] | None = None,
    ) -> None:
        self.vlm, self.config, self.layers, self.vectors = vlm, config, tuple(layers), vectors
        self.tokens_per_batch = tokens_per_batch
        self.limits: Mapping[int, NormLimits] = limits or {}
        self.prompts = Prompts(vlm, image_size, max_text_tokens)
        self.areas = areas(config.sites)

    @property
    def precision(self) -> str:
        """Number format that the model runs in."""
        return str(self.vlm.dtype).removeprefix("torch.")

    def answers(self, samples: Sequence[Sample | Skipped], source: str, target: str) -> Produced:
        """Forced choice and free answers of some images of the source class under every cell."""
        asking, produced = self.config.ask, Produced()
        asked_for = list(dict.fromkeys([choice_prompt(asking, source, target, False), *(q.prompt for q in asking.questions)]))
        names_of: list[str] = []
        sequences: list[list[Prepared]] = []
        plan = cells(self.config, self.layers)
        for sample in samples:
            flipped = not isinstance(sample, Skipped) and unit_hash(f"{source}\0{target}\0{sample.id}", "order") < 0.5
            mine = [choice_prompt(asking, source, target, flipped), *asked_for[1:]]
            found = [sample] if isinstance(sample, Skipped) else [self.prompts.prepare(sample, prompt) for prompt in mine]
            bad = next((one for one in found if isinstance(one, Skipped)), None)
            if bad is not None:
                self._all_lost(produced, plan, bad.sample.id, bad.reason, self._lost, source, target)
                continue
            names_of.append(found[0].sample.id)
            sequences.append(found)  # pyright: ignore[reportArgumentType]
        laid_out: dict[int, PromptSet] = {}

        def arrange(some: Sequence[int]) -> None:
            laid_out.update(zip(some, lay_out(self.vlm, [sequences[i] for i in some], self.areas, self.limits), strict=True))

        for indices in pack([len(one[0]) for one in sequences], self.tokens_per_batch):
            attempt(indices, arrange, lambda i, why: self._all_lost(produced, plan, names_of[i], why, self._lost, source, target))
        items = {i: (names_of[i], laid_out[i].sites) for i in sorted(laid_out)}
        runs = self._ready(items, plan, source, target, produced, self._lost)
        names = [answer_ids(self.vlm.processor.tokenizer, asked_for[0], asking.answer, name) for name in (source, target)]
        questions = {i: asked_for.index(q.prompt) for i, q in enumerate(asking.questions)}

        def ask_batch(batch: Sequence[CellRun]) -> None:
            for one, (choice, texts) in zip(
                batch, ask(self.vlm, batch, laid_out, names, questions, asking.max_new_tokens, self.limits), strict=True
            ):
                who = {"source": source, "target": target, "sample_id": one.name, **one.cell.columns()}
                produced.add("cells", {**who, **choice})
                for i, text in texts.items():
                    about = asking.questions[i].about
                    produced.add("answers", {**who, "question": i, "about": about, "text": text})
                produced.n_done += 1

        lengths = [len(laid_out[one.item]) + asking.max_new_tokens for one in runs]
        for indices in pack(lengths, self.tokens_per_batch):
            produced.n_tokens += sum(lengths[i] for i in indices)
            attempt([runs[i] for i in indices], ask_batch, lambda one, why: self._lost(produced, one, why, source, target))
        return produced

    def damage(self, samples: Sequence[Sample | Skipped], source: str, target: str) -> Produced:
        """Likelihood of held-out texts, each after an image, under every cell."""
        produced, plan = Produced(), cells(self.config, self.layers)

        def lost(produced: Produced, one: CellRun, why: str, source: str, target: str) -> None:
            who = {"source": source, "target": target, "sample_id": one.name, **one.cell.columns()}
            produced.add("damage", {**who, "n_tokens": 0, "n_high_norm": None, "error": why})
            self._note(produced, one, why)

        def all_lost(name: str, why: str) -> None:
            self._all_lost(produced, plan, name, why, lost, source, target)

        found = [s if isinstance(s, Skipped) else self.prompts.prepare(s, self.config.damage.prompt, True) for s in samples]
        for one in found:
            if isinstance(one, Skipped):
                all_lost(one.sample.id, one.reason)
        some = [one for one in found if isinstance(one, Prepared)]
        ready = self._likeliest(some, max(1, len(samples) // self.config.damage.candidates), all_lost)
        laid_out: dict[int, PromptSet] = {}

        def arrange(some: Sequence[int]) -> None:
            laid_out.update(zip(some, lay_out_texts(self.vlm, [ready[i] for i in some], self.areas, self.limits), strict=True))

        for indices in pack([len(one) for one in ready], self.tokens_per_batch):
            attempt(indices, arrange, lambda i, why: all_lost(ready[i].sample.id, why))
        items = {i: (ready[i].sample.id, laid_out[i].sites) for i in sorted(laid_out)}
        runs = self._ready(items, plan, source, target, produced, lost)

        def read_batch(batch: Sequence[CellRun]) -> None:
            for one, (nll, n) in zip(batch, read(self.vlm, batch, ready, laid_out), strict=True):
                who = {"source": source, "target": target, "sample_id": one.name, **one.cell.columns()}
                high = laid_out[one.item].sites[0].n_high_norm(one.cell)
                produced.add("damage", {**who, "nll": nll, "n_tokens": n, "n_high_norm": high})
                produced.n_done += 1

        lengths = [len(ready[one.item]) for one in runs]
        for indices in pack(lengths, self.tokens_per_batch):
            produced.n_tokens += sum(lengths[i] for i in indices)
            attempt([runs[i] for i in indices], read_batch, lambda one, why: lost(produced, one, why, source, target))
        return produced

    def _likeliest(self, texts: Sequence[Prepared], n: int, lost: Callable[[str, str], None]) -> list[Prepared]:
        """As `likeliest`, but a text that fails costs itself alone."""
        if len(texts) <= n:
            return list(texts)
        nats: dict[int, float] = {}

        def weigh(some: Sequence[int]) -> None:
            found = nats_per_token(self.vlm, [texts[i] for i in some], self.tokens_per_batch)
            nats.update(zip(some, found.tolist(), strict=True))

        attempt(range(len(texts)), weigh, lambda i, why: lost(texts[i].sample.id, why))
        return [texts[i] for i in sorted(sorted(nats, key=lambda i: nats[i])[:n])]

    def lens(self, samples: Sequence[Sample | Skipped], names: Sequence[str]) -> Produced:
        """What the stream at image tokens would say at every layer: the probability of the right name against the others'.

        Args:
            samples: Images with a class.
            names: Classes to compare.
        """
        produced, asking = Produced(), self.config.ask
        # The name as it would begin an answer; where two names begin alike, the lens cannot separate them.
        first = {n: answer_ids(self.vlm.processor.tokenizer, bare_prompt(asking), asking.answer, n)[0] for n in names}
        index = torch.tensor([first[n] for n in names], device=self.vlm.device)

        def lost(sample: Sample, why: str) -> None:
            row = {"sample_id": sample.id, "class_name": sample.class_name or "", "n_classes": len(names)}
            produced.add("lens", {**row, "layer": -1, "n_tokens": 0, "n_high_norm": 0, "error": why})
            produced.failed.append((sample.id, why))

        def look(some: Sequence[Prepared]) -> None:
            rows = [row for one in some for row in self._seen(one, names, index)]
            for row in rows:
                produced.add("lens", row)
            produced.n_done += len(some)
            produced.n_tokens += sum(map(len, some))

        for sample in samples:
            one = sample if isinstance(sample, Skipped) else self.prompts.prepare(sample, asking.questions[0].prompt)
            if isinstance(one, Skipped):
                lost(one.sample, one.reason)
            else:
                attempt([one], look, lambda one, why: lost(one.sample, why))
        return produced

    def _seen(self, one: Prepared, names: Sequence[str], index: torch.Tensor) -> list[Row]:
        """What the stream at one image's image tokens would say, layer by layer; `index` holds the names' tokens."""
        image = torch.from_numpy(one.role >= Role.IMAGE)
        own = list(names).index(one.sample.class_name or "")
        stream = embed(self.vlm, [one])[0]
        (high,) = sinks(self.vlm, stream[:0], [stream], [one], self.limits)
        masks = {layer: image & ~high.get(layer, torch.zeros_like(image)) for layer in self.layers}
        sums = {layer: [0.0] * 3 for layer in self.layers}
        for layer, piece in lens(self.vlm, stream, masks):
            p = piece.softmax(-1)[:, index]
            if not bool(p.isfinite().all()):
                raise FloatingPointError("the model's output is not finite")
            right = p[:, own].sum().item()
            rest = (p.sum(1) - p[:, own]).sum().item() / max(1, len(names) - 1)
            top = (p.argmax(1) == own).sum().item()
            sums[layer] = [a + b for a, b in zip(sums[layer], (right, rest, top), strict=True)]
        rows = []
        for layer, found in sorted(sums.items()):
            n = int(masks[layer].sum())
            shares = [total / n if n else None for total in found]
            row = {"sample_id": one.sample.id, "class_name": names[own], "n_classes": len(names), "layer": layer}
            row |= dict(zip(("p_class", "p_others", "top_class"), shares, strict=True))
            rows.append(row | {"n_tokens": n, "n_high_norm": int(image.sum()) - n})
        return rows

    def _ready(
        self,
        items: Mapping[int, tuple[str, Sequence[SitePositions]]],
        plan: Sequence[Cell],
        source: str,
        target: str,
        produced: Produced,
        lost: Lost,
    ) -> list[CellRun]:
        """Every cell of every item with its edit; cells without a direction or a place to act are put down with the reason.

        Args:
            items: Names of the samples by number, and where edits act in each of their prompts.
            plan: The cells.
            source: Class to leave.
            target: Class to reach.
            produced: Takes the cells that are lost.
            lost: Puts one down.
        """
        runs = []
        for cell in plan:
            # An interchange is another edit for each sample, any other one the same for all.
            alike = None if cell.edit == INTERCHANGE else self._change(cell, source, target, "")
            for i, (name, prompts) in items.items():
                change, why = alike or self._change(cell, source, target, name)
                one = CellRun(i, cell, change, name)
                reason = why or next(filter(None, (prompt.reason(cell) for prompt in prompts)), None)
                if reason is None:
                    runs.append(one)
                else:
                    lost(produced, one, reason, source, target)
        return sorted(runs, key=lambda one: one.item)  # stable: the cells of an item stay in their order

    def _change(self, cell: Cell, source: str, target: str, sample: str) -> tuple[Intervention | None, str | None]:
        """The edit of a cell in the run of a sample, or why there is none."""
        if cell.site is None or cell.layer is None or cell.site_kind is None:
            return None, None
        try:
            if cell.edit == INTERCHANGE:
                edit = self.vectors.given(str(cell.direction), cell.layer, source, target, sample)
            else:
                edit = self.vectors.edit(cell.edit, cell.direction, cell.strength, cell.site_kind, cell.layer, source, target)
            check_width(edit, self.vlm.card.width)
            return Intervention(edit, (cell.layer,), cell.site_kind), None  # pyright: ignore[reportArgumentType]
        except NoDirection as reason:
            return None, f"{NO_DIRECTION}{reason}"
        except LinrepError:
            raise
        except Exception as error:  # whatever an SAE raises, or the search for a direction in it
            return None, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"

    def _all_lost(
        self, produced: Produced, plan: Sequence[Cell], name: str, why: str, lost: Lost, source: str, target: str
    ) -> None:
        for cell in plan:
            lost(produced, CellRun(0, cell, None, name), why, source, target)

    def _lost(self, produced: Produced, one: CellRun, why: str, source: str, target: str) -> None:
        who = {"source": source, "target": target, "sample_id": one.name, **one.cell.columns()}
        produced.add("cells", {**who, "error": why})
        for i, question in enumerate(self.config.ask.questions):
            produced.add("answers", {**who, "question": i, "about": question.about, "error": why})
        self._note(produced, one, why)

    def _note(self, produced: Produced, one: CellRun, why: str) -> None:
        if not why.startswith(NO_DIRECTION):
            cell = "/".join(str(value) for value in one.cell.columns().values() if value is not None)
            produced.failed.append((f"{one.name} {cell}", why))
