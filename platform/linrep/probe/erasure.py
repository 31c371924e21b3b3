"""What refitted probes read after the classes were erased, beside random subspaces of the same rank.

Erasers are fitted on training rows. They are linear, so the moments of the erased rows follow from those of the rows, and no row
is written anew: ridge probes are refitted from moments, their penalty is chosen on validation rows, and test rows score them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from linrep.directions import Directions
from linrep.erasure import Eraser, inlp, isotropic, leace, like_data, of_means, principal_axes, ranks_up_to
from linrep.probe.closed import ridge
from linrep.probe.config import Erasure
from linrep.probe.linear import Linear, stack
from linrep.probe.report import Chosen, Scored
from linrep.probe.rows import Rows
from linrep.probe.study import Study, Unit
from linrep.probe.work import SCORE_BYTES, Clusters
from linrep.sample import unit_hash
from linrep.stats import clusters as of_clusters
from linrep.stats.interval import Interval
from linrep.store.layout import MODALITIES, Modality
from linrep.store.samples import CLASS, SPLITS
from linrep.store.tables import table_of
from schemas.probes import PROBE_ERASURE

NONE, RANDOM, COVARIANCE = "none", "random", "covariance"
CONTROLS = (RANDOM, COVARIANCE)
AXES = 512
"""Principal axes that random subspaces with the rows' covariance are drawn from, at most: in a wide stream nearly all of it."""


@dataclass(frozen=True)
class Method:
    """A way to erase.

    Attributes:
        name: none, class_mean, leace, inlp, random or covariance.
        fitted_on: Modality of the rows that say what is erased; None where none do.
        erasers: Of the highest rank; several of what is drawn.
    """

    name: str
    fitted_on: Modality | None
    erasers: tuple[Eraser, ...]

    @property
    def rank(self) -> int:
        """The highest rank that it has."""
        return self.erasers[0].rank


@dataclass(frozen=True)
class _Hits:
    """Right answers on test rows.

    Attributes:
        by_cluster: Of each cluster, mean over the draws.
        settings: The penalty chosen for each draw.
    """

    by_cluster: Float[np.ndarray, " n"]
    settings: tuple[float, ...]


def probe_erasure(
    study: Study, unit: Unit, rows: Rows, scored: Sequence[Scored], clusters: Clusters, device: torch.device
) -> tuple[pa.Table, list[Directions]]:
    """Accuracies after erasures, of schema `PROBE_ERASURE`, and what steering needs to erase the same.

    Args:
        study: What is done.
        unit: View and layer.
        rows: The unit's rows.
        scored: Its probes, which know the moments of their training rows.
        clusters: What intervals are over.
        device: Where rows are scored.
    """
    config = study.config.erasure
    if config is None:
        return PROBE_ERASURE.empty_table(), []
    chosen = {(s.task.attribute, s.task.source): s.chosen for s in scored if s.main and not s.input and s.chosen is not None}
    table: list[dict[str, object]] = []
    directions: list[Directions] = []
    for m in MODALITIES:
        if (CLASS, m) not in chosen:
            continue
        methods = _methods(config, unit, chosen, m, study.config.seed)
        directions += _directions(unit, chosen[CLASS, m], methods, m)
        for (attribute, source), own in chosen.items():
            if source == m:
                table += _Reading(study, unit, rows, clusters, device, attribute, m, own, chosen[CLASS, m]).rows(methods)
    return table_of(table, PROBE_ERASURE), directions


def _methods(config: Erasure, unit: Unit, chosen: Mapping[tuple[str, str], Chosen], m: Modality, seed: int) -> tuple[Method, ...]:
    """All ways to erase the classes of a modality's rows, each at its highest rank."""
    own = chosen[CLASS, m]
    means, covariance = _means(own), own.moments.scatter / max(own.moments.n, 1)
    most = max(_ranks(config, len(means), own.moments.width), default=0)
    axes = principal_axes(covariance, AXES)
    damping = (own.real["ridge"].setting or 0.0) * own.moments.scale

    def draw(name: str, i: int) -> torch.Generator:
        key = f"{seed}/{unit.name}/{m}/{name}/{i}"
        return torch.Generator().manual_seed(int(unit_hash(key, "erasure") * 2**53))

    found = [
        Method("class_mean", m, (of_means(means),)),
        Method("leace", m, (leace(covariance, means),)),
        Method("inlp", m, (inlp(covariance, means, damping, most),)),
    ]
    for other in MODALITIES:
        if other != m and (CLASS, other) in chosen:
            found.append(Method("class_mean", other, (of_means(_means(chosen[CLASS, other])),)))
    drawn = range(config.draws)
    found.append(Method(RANDOM, None, tuple(isotropic(most, own.moments.width, draw(RANDOM, i)) for i in drawn)))
    found.append(Method(COVARIANCE, m, tuple(like_data(axes, most, draw(COVARIANCE, i)) for i in drawn)))
    return tuple(found)


def _means(own: Chosen) -> Float[Tensor, "c d"]:
    return own.moments.mean + own.moments.between(own.task.column)


def _ranks(config: Erasure, n_classes: int, width: int) -> list[int]:
    """Ranks of the curve: up to what classes can span, and beyond, for what does not erase them at once."""
    whole = n_classes - 1
    return [r for r in config.ranks or (*ranks_up_to(whole), 2 * whole, 4 * whole) if r < width]


def _directions(unit: Unit, own: Chosen, methods: Sequence[Method], m: Modality) -> Iterator[Directions]:
    """The subspaces as rows, the first dimension first; class means are among the directions anyway."""
    norm = own.moments.norm / max(own.moments.n, 1)

    def made(kind: str, vectors: Float[Tensor, "r d"]) -> Directions:
        names = tuple(str(i + 1) for i in range(len(vectors)))
        return Directions(kind, unit.layer, unit.view, m, CLASS, names, vectors.float(), norm)

    erasers = {method.name: method.erasers[0] for method in methods if method.fitted_on == m}
    yield made("leace", erasers["leace"].read)
    yield made("leace_pattern", erasers["leace"].write)
    yield made("inlp", erasers["inlp"].read)
    yield made(COVARIANCE, principal_axes(own.moments.scatter / max(own.moments.n, 1), AXES))


class _Reading:
    """Probes of one attribute on one modality's rows, refitted after every erasure."""

    def __init__(
        self,
        study: Study,
        unit: Unit,
        rows: Rows,
        clusters: Clusters,
        device: torch.device,
        attribute: str,
        modality: Modality,
        own: Chosen,
        erased: Chosen,
    ) -> None:
        assert study.config.erasure is not None
        self._study, self._unit, self._rows, self._clusters, self._device = study, unit, rows, clusters, device
        self._config, self._attribute, self._own, self._erased = study.config.erasure, attribute, own, erased
        self._m: Modality = modality
        self._codes = study.codes[modality][own.task.column]
        self._tested, self._of_value = np.zeros(clusters.n("test")), np.zeros(len(own.task.names))
        for _, y, cluster in self._blocks("test", 2**20):
            self._tested += np.bincount(cluster, minlength=len(self._tested))
            self._of_value += np.bincount(y, minlength=len(self._of_value))

    def rows(self, methods: Sequence[Method]) -> list[dict[str, object]]:
        """One row for each method and rank, the rows without an erasure first."""
        width, n_classes = self._own.moments.width, len(self._erased.task.names)
        nothing = Eraser(torch.zeros(0, width, dtype=torch.float64), torch.zeros(0, width, dtype=torch.float64))
        plan = [(Method(NONE, None, (nothing,)), 0)]
        ranks = _ranks(self._config, n_classes, width) if self._attribute == CLASS else [n_classes - 1]
        plan += [(method, rank) for method in methods for rank in ranks if rank <= method.rank]
        hits = self._hits([tuple(eraser.first(rank) for eraser in method.erasers) for method, rank in plan])
        beside = {rank: found for (method, rank), found in zip(plan, hits, strict=True) if method.name == COVARIANCE}
        compared = [i for i, (method, rank) in enumerate(plan) if method.name not in (NONE, COVARIANCE) and rank in beside]
        less = [hits[i].by_cluster - beside[plan[i][1]].by_cluster for i in compared]
        config = self._study.config
        apart = of_clusters.differences(self._tested, np.stack(less, axis=1), config.resamples, config.seed) if less else ()
        over = dict(zip(compared, apart, strict=True))
        return [self._row(*plan[i], hits[i], over.get(i)) for i in range(len(plan))]

    def _hits(self, plan: Sequence[tuple[Eraser, ...]]) -> list[_Hits]:
        """What the best probe of each eraser gets right on test rows, after its penalty was chosen on validation rows."""
        fitted = [[self._refitted(eraser) for eraser in erasers] for erasers in plan]
        tried = [probe for of in fitted for probes in of for probe in probes]
        scored = iter(self._right(tried, "val").sum(axis=1).tolist())
        best = [[_best(probes, [next(scored) for _ in probes]) for probes in of] for of in fitted]
        right = iter(self._right([probe for of in best for probe in of], "test"))
        return [_Hits(np.mean([next(right) for _ in of], axis=0), tuple(probe.setting or 0.0 for probe in of)) for of in best]

    def _refitted(self, eraser: Eraser) -> list[Linear]:
        """Ridge probes of the erased rows at every penalty, as probes of the rows as they are."""
        moments, column = self._own.moments.only([self._own.task.column]), self._own.task.column
        alphas = [a * moments.scale * max(moments.n, 1) for a in self._config.alphas]
        probes = ridge(moments.erased(eraser), [column], alphas)[column]
        return [
            replace(probe, weights=probe.weights - eraser.read.T @ (eraser.write @ probe.weights), setting=alpha)
            for probe, alpha in zip(probes, self._config.alphas, strict=True)
        ]

    def _right(self, probes: Sequence[Linear], split: str) -> Float[np.ndarray, "p n"]:
        """How many rows of each cluster each probe gets right."""
        centre = self._own.moments.mean.float()
        weights, bias = (part.to(self._device) for part in stack(list(probes), centre.double()))
        found = torch.zeros(len(probes), self._clusters.n(split), device=self._device)
        step = max(1, SCORE_BYTES // (4 * len(bias)))
        for x, y, cluster in self._blocks(split, step):
            scores = (x.to(self._device, torch.float32) - centre.to(self._device)) @ weights + bias
            right = scores.view(len(x), len(probes), -1).argmax(2) == torch.from_numpy(y).to(self._device)[:, None]
            found.index_add_(1, torch.from_numpy(cluster).to(self._device), right.float().T)
        return found.cpu().double().numpy()

    def _blocks(self, split: str, step: int) -> Iterator[tuple[Tensor, Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]]:
        inside, cluster = self._study.samples.split == SPLITS.index(split), self._clusters.of(split)
        for block in self._rows.blocks(self._m, inside & (self._codes >= 0)):
            for start in range(0, len(block.sample), step):
                sample = block.sample[start : start + step]
                yield block.x[start : start + step], self._codes[sample], cluster[sample]

    def _row(self, method: Method, rank: int, hits: _Hits, over: Interval | None) -> dict[str, object]:
        top1 = of_clusters.share(self._tested, hits.by_cluster)
        erased = self._erased.moments
        covariance = erased.scatter / max(erased.n, 1)
        row: dict[str, object] = {
            "attribute": self._attribute,
            "view": self._unit.view,
            "layer": self._unit.layer,
            "modality": self._m,
            "method": method.name,
            "fitted_on": method.fitted_on,
            "control": method.name in CONTROLS,
            "rank": rank,
            "draws": len(hits.settings),
            "setting": hits.settings[0] if len(hits.settings) == 1 else None,
            "removed": float(np.mean([eraser.first(rank).removed(covariance) for eraser in method.erasers])),
            "n_classes": len(self._own.task.names),
            "n_train": self._own.moments.n,
            "n_test": int(self._tested.sum()),
            "n_test_samples": int((self._tested > 0).sum()),
            "chance": float(self._of_value.max() / max(self._of_value.sum(), 1)),
        }
        for name, interval in (("top1", top1), ("over_covariance", over)):
            ends = (None, None, None) if interval is None else (interval.value, interval.low, interval.high)
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))
        return row


def _best(probes: Sequence[Linear], right: Sequence[float]) -> Linear:
    """The probe with the most right answers; of equals the one with the strongest penalty, as for all probes."""
    return max(zip(right, probes, strict=True), key=lambda one: (one[0], one[1].setting or 0.0))[1]
