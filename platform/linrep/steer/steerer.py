"""Runs cells through the model: forced choices, free answers, damage, the logit lens. A run that fails costs its cell alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from linrep.errors import LinrepError
from linrep.sample import Sample, Skipped, unit_hash
from linrep.steer.asked import Asked, Prompts, answer_ids, choice_prompt, lay_out
from linrep.steer.cells import Cell, cells, damage_cells
from linrep.steer.config import SteerConfig
from linrep.steer.edits import Intervention, check_width
from linrep.steer.passes import CellRun, Row, ask, read
from linrep.steer.sites import positions
from linrep.steer.vectors import NoDirection, Vectors
from linrep.vlm.batch import pack
from linrep.vlm.decode import embed, lens
from linrep.vlm.likelihood import likeliest
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


class Steerer:
    """Holds the model and runs cells.

    Args:
        vlm: The whole model, with its head.
        config: The plan.
        layers: Layers at which edits act.
        vectors: Makes edits from directions.
        tokens_per_batch: Most positions in a micro-batch, padding included.
        image_size: Squash photographs to this height and width first.
        max_text_tokens: Longer texts are cut.
    """

    def __init__(
        self,
        vlm: VLM,
        config: SteerConfig,
        layers: Sequence[int],
        vectors: Vectors,
        tokens_per_batch: int = 8192,
        image_size: tuple[int, int] | None = None,
        max_text_tokens: int = 512,
    ) -> None:
        self.vlm, self.config, self.layers, self.vectors = vlm, config, tuple(layers), vectors
        self.tokens_per_batch = tokens_per_batch
        self.prompts = Prompts(vlm, image_size, max_text_tokens)

    @property
    def precision(self) -> str:
        """Number format that the model runs in."""
        return str(self.vlm.dtype).removeprefix("torch.")

    def answers(self, samples: Sequence[Sample | Skipped], source: str, target: str) -> Produced:
        """Forced choice and free answers of some photographs of the source class under every cell."""
        asking, produced = self.config.ask, Produced()
        asked_for = list(dict.fromkeys([choice_prompt(asking, source, target, False), *(q.prompt for q in asking.questions)]))
        ready: list[Sample] = []
        sequences: list[list[Prepared]] = []
        plan = cells(self.config, self.layers)
        for sample in samples:
            flipped = not isinstance(sample, Skipped) and unit_hash(f"{source}\0{target}\0{sample.id}", "order") < 0.5
            mine = [choice_prompt(asking, source, target, flipped), *asked_for[1:]]
            found = [sample] if isinstance(sample, Skipped) else [self.prompts.prepare(sample, prompt) for prompt in mine]
            bad = next((one for one in found if isinstance(one, Skipped)), None)
            if bad is not None:
                for cell in plan:
                    self._lost(produced, CellRun(0, cell, None, bad.sample.id), bad.reason, source, target)
                continue
            ready.append(found[0].sample)
            sequences.append(found)  # pyright: ignore[reportArgumentType]
        if not ready:
            return produced
        laid_out = self._lay_out(sequences)
        runs = self._ready([one.id for one in ready], plan, source, target, produced, self._lost)
        names = [answer_ids(self.vlm.processor.tokenizer, asked_for[0], asking.answer, name) for name in (source, target)]
        questions = {i: asked_for.index(q.prompt) for i, q in enumerate(asking.questions)}

        def ask_batch(batch: list[CellRun]) -> None:
            for one, (choice, texts) in zip(
                batch, ask(self.vlm, batch, laid_out, names, questions, asking.max_new_tokens), strict=True
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
            self._attempt([runs[i] for i in indices], ask_batch, lambda one, why: self._lost(produced, one, why, source, target))
        return produced

    def damage(self, samples: Sequence[Sample | Skipped], source: str, target: str) -> Produced:
        """Likelihood of held-out texts, each after a photograph, under every addition."""
        produced, plan = Produced(), damage_cells(self.config, self.layers)
        found = [s if isinstance(s, Skipped) else self.prompts.prepare(s, self.config.damage.prompt, True) for s in samples]
        n_kept = max(1, len(samples) // self.config.damage.candidates)
        ready = likeliest(self.vlm, [one for one in found if isinstance(one, Prepared)], n_kept, self.tokens_per_batch)

        def lost(produced: Produced, one: CellRun, why: str, source: str, target: str) -> None:
            who = {"source": source, "target": target, "sample_id": one.name, **one.cell.columns()}
            produced.add("damage", {**who, "n_tokens": 0, "error": why})
            self._note(produced, one, why)

        for one in found:
            if isinstance(one, Skipped):
                for cell in plan:
                    lost(produced, CellRun(0, cell, None, one.sample.id), one.reason, source, target)
        if not ready:
            return produced
        streams = embed(self.vlm, ready)
        masks = [tuple(torch.from_numpy(positions(site, one, self.vlm.card)) for site in self.config.sites) for one in ready]
        runs = self._ready([one.sample.id for one in ready], plan, source, target, produced, lost)

        def read_batch(batch: list[CellRun]) -> None:
            for one, (nll, n) in zip(batch, read(self.vlm, batch, ready, streams, masks), strict=True):
                who = {"source": source, "target": target, "sample_id": one.name, **one.cell.columns()}
                produced.add("damage", {**who, "nll": nll, "n_tokens": n})
                produced.n_done += 1

        lengths = [len(ready[one.item]) for one in runs]
        for indices in pack(lengths, self.tokens_per_batch):
            produced.n_tokens += sum(lengths[i] for i in indices)
            self._attempt([runs[i] for i in indices], read_batch, lambda one, why: lost(produced, one, why, source, target))
        return produced

    def lens(self, samples: Sequence[Sample | Skipped], names: Sequence[str]) -> Produced:
        """What the stream at image tokens would say at every layer: the probability of the right name against the others'.

        Args:
            samples: Photographs with a class.
            names: Classes to compare.
        """
        produced, asking = Produced(), self.config.ask
        # The name as it would begin an answer; where two names begin alike, the lens cannot tell them apart.
        first = {n: answer_ids(self.vlm.processor.tokenizer, _plain(asking.choice), asking.answer, n)[0] for n in names}
        index = torch.tensor([first[n] for n in names], device=self.vlm.device)
        for sample in samples:
            one = sample if isinstance(sample, Skipped) else self.prompts.prepare(sample, asking.questions[0].prompt)
            name = one.sample.class_name or ""
            row = {"sample_id": one.sample.id, "class_name": name, "n_classes": len(names)}
            if isinstance(one, Skipped):
                produced.add("lens", {**row, "layer": -1, "n_tokens": 0, "error": one.reason})
                produced.failed.append((one.sample.id, one.reason))
                continue
            mask = torch.from_numpy(one.role >= Role.IMAGE).to(self.vlm.device)
            sums: dict[int, list[float]] = {}
            for layer, piece in lens(self.vlm, embed(self.vlm, [one])[0], self.layers, mask):
                p = piece.softmax(-1)[:, index]
                own = list(names).index(name)
                right = p[:, own].sum().item()
                rest = (p.sum(1) - p[:, own]).sum().item() / max(1, len(names) - 1)
                top = (p.argmax(1) == own).sum().item()
                sums[layer] = [a + b for a, b in zip(sums.get(layer, [0.0] * 3), (right, rest, top), strict=True)]
            n = int(mask.sum())
            for layer, (right, rest, top) in sorted(sums.items()):
                shares = {"p_class": right / n, "p_others": rest / n, "top_class": top / n}
                produced.add("lens", {**row, "layer": layer, "n_tokens": n, **shares})
            produced.n_done += 1
            produced.n_tokens += len(one)
        return produced

    def _lay_out(self, sequences: list[list[Prepared]]) -> list[Asked]:
        laid_out: dict[int, Asked] = {}
        for indices in pack([len(one[0]) for one in sequences], self.tokens_per_batch):
            found = lay_out(self.vlm, [sequences[i] for i in indices], self.config.sites)
            laid_out |= dict(zip(indices, found, strict=True))
        return [laid_out[i] for i in range(len(sequences))]

    def _ready(
        self,
        samples: Sequence[str],
        plan: Sequence[Cell],
        source: str,
        target: str,
        produced: Produced,
        lost: Callable[[Produced, CellRun, str, str, str], None],
    ) -> list[CellRun]:
        """Every cell of every sample with its edit; cells without a direction are put down with the reason."""
        runs = []
        for cell in plan:
            change: Intervention | None = None
            why = None
            if cell.site is not None and cell.layer is not None and cell.site_kind is not None:
                try:
                    edit = self.vectors.edit(cell.edit, cell.direction, cell.strength, cell.site_kind, cell.layer, source, target)
                    check_width(edit, self.vlm.card.width)
                    change = Intervention(edit, (cell.layer,), cell.site_kind)  # pyright: ignore[reportArgumentType]
                except NoDirection as reason:
                    why = f"no direction: {reason}"
            for i, name in enumerate(samples):
                one = CellRun(i, cell, change, name)
                if why is None:
                    runs.append(one)
                else:
                    lost(produced, one, why, source, target)
        return sorted(runs, key=lambda one: one.item)  # stable: the cells of an item stay in their order

    def _attempt(self, batch: list[CellRun], work: Callable[[list[CellRun]], None], lost: Callable[[CellRun, str], None]) -> None:
        """Run a batch; when it fails, run its halves, down to the cell that is at fault. `work` must put down all or nothing."""
        try:
            work(batch)
        except LinrepError:
            raise
        except Exception as error:  # whatever the model, a kernel or a dictionary raises: out of memory, not finite, ...
            if len(batch) == 1:
                lost(batch[0], f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
                return
            if self.vlm.device.type == "cuda":
                torch.cuda.empty_cache()
            half = len(batch) // 2
            self._attempt(batch[:half], work, lost)
            self._attempt(batch[half:], work, lost)

    def _lost(self, produced: Produced, one: CellRun, why: str, source: str, target: str) -> None:
        who = {"source": source, "target": target, "sample_id": one.name, **one.cell.columns()}
        produced.add("cells", {**who, "error": why})
        for i, question in enumerate(self.config.ask.questions):
            produced.add("answers", {**who, "question": i, "about": question.about, "error": why})
        self._note(produced, one, why)

    def _note(self, produced: Produced, one: CellRun, why: str) -> None:
        if not why.startswith("no direction: "):
            cell = "/".join(str(value) for value in one.cell.columns().values() if value is not None)
            produced.failed.append((f"{one.name} {cell}", why))


def _plain(prompt: str) -> str:
    return prompt.replace("{first}", "").replace("{second}", "")
