"""How well the place of a patch alone tells what it shows: the baseline of probes of patches.

Objects stand in the middle of images that people take. A probe that reads nothing but where a patch lies does as well as this
baseline, which sees the base view or the crops, and the row and column, in a grid over the image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped

from linrep.contents.stored import places_in
from linrep.probe.fit import Trial
from linrep.probe.groups import IMAGE, PLACE
from linrep.probe.linear import Linear
from linrep.probe.patches import REGION, GroupRows
from linrep.probe.report import Scored
from linrep.probe.score import Tally
from linrep.probe.study import SHUFFLED, PatchStudy
from linrep.probe.work import Clusters
from linrep.regions.covers import PatchMap
from linrep.store.blocks import Block
from linrep.store.samples import SPLITS

KIND = "position"
SIDE = 24
"""Rows and columns of the grid, of the base view as of the crops: a base view of 24 x 24 patches is told patch by patch."""
WEIGHTS = (1.0, 10.0, 100.0, 1000.0)
"""Rows that the overall shares of the labels weigh beside those of a cell; one is chosen on validation rows."""


class Cells:
    """The cell of the grid that each patch lies in.

    Args:
        patches: The study of patches.
    """

    n = 2 * SIDE * SIDE

    def __init__(self, patches: PatchStudy) -> None:
        store = patches.study.store
        table = store.samples()
        self._map, self._ids = PatchMap(places_in(table, store.manifest.model)), table["sample_id"].to_pylist()
        height, width = (np.nan_to_num(table[name].to_numpy().astype(float)) for name in ("height", "width"))
        self._size = np.unique(np.stack([height, width]), axis=1, return_inverse=True)[1].reshape(-1)
        self._known: dict[int, Int64[np.ndarray, "two rows cols"]] = {}

    def of(self, block: Block) -> Int64[np.ndarray, " n"]:
        """The cell of each row of a block of patches."""
        image = block.columns[IMAGE]
        tile, row, col = (block.columns[name] for name in PLACE)
        sizes, found = self._size[image], np.zeros(len(image), np.int64)
        for size in np.unique(sizes).tolist():
            own = sizes == size
            if size not in self._known:
                self._known[size] = self._table(self._ids[image[own][0]])
            found[own] = self._known[size][(tile[own] > 0).astype(int), row[own], col[own]]
        return found

    def _table(self, name: str) -> Int64[np.ndarray, "two rows cols"]:
        patches = self._map.of(name)
        middle = (patches.boxes[:, [1, 0]] + patches.boxes[:, [3, 2]]) / 2
        cell = (middle * SIDE).astype(np.int64).clip(0, SIDE - 1)
        crop = (patches.tile > 0).astype(int)
        table = np.zeros((2, patches.row.max() + 1, patches.col.max() + 1), np.int64)
        table[crop, patches.row, patches.col] = (crop * SIDE + cell[:, 0]) * SIDE + cell[:, 1]
        return table


@dataclass(frozen=True)
class Placed:
    """Rows of a split: how many there are of each cell and label, for labels and control alike."""

    cell: Int64[np.ndarray, " n"]
    group: Int64[np.ndarray, " n"]


def probe_positions(patches: PatchStudy, rows: GroupRows, clusters: Clusters) -> list[Scored]:
    """What places alone say, scored as a probe is: on the same test rows, and beside the same control.

    Args:
        patches: What is learned.
        rows: The unit's rows.
        clusters: What the bootstrap draws.
    """
    study, cells = patches.study, Cells(patches)
    (task,) = study.tasks
    own, dealt = (study.codes["image"][name] for name in (REGION, f"{REGION}{SHUFFLED}"))
    placed = {split: _placed(rows, cells, (own >= 0) & (study.samples.split == i)) for i, split in enumerate(SPLITS)}
    if not all(len(some.cell) for some in placed.values()):
        return []
    trials = [_trial(codes, len(task.names), placed, clusters) for codes in (own, dealt)]
    return [Scored(task, task.source, task.names, trials[0], len(placed["train"].cell), trials[1], each=True)]


def _placed(rows: GroupRows, cells: Cells, wanted: Shaped[np.ndarray, " g"]) -> Placed:
    found = [(cells.of(block), block.sample) for block in rows.blocks("image", wanted)]
    nothing = np.zeros(0, np.int64)
    return Placed(*(np.concatenate([nothing, *(part[i] for part in found)]) for i in range(2)))


def _trial(codes: Int64[np.ndarray, " g"], n_classes: int, placed: dict[str, Placed], clusters: Clusters) -> Trial:
    train, val, test = (placed[split] for split in SPLITS)
    counts = np.zeros((Cells.n, n_classes))
    np.add.at(counts, (train.cell, codes[train.group]), 1)
    scores = _chosen([_scores(counts, weight) for weight in WEIGHTS], val.cell, codes[val.group])
    table = torch.from_numpy(scores[1])
    probe = Linear(KIND, torch.zeros(len(table), dtype=table.dtype), table, torch.zeros(n_classes, dtype=table.dtype), scores[0])
    # Scores are few: a bin for each of them, but for those that are nearly equal.
    ends = torch.stack([table.amin(0) - 1e-6, table.amax(0) + 1e-6]).float()
    tally = Tally(n_classes, clusters.n("test"), ends, clusters.mixed)
    tally.add(table[torch.from_numpy(test.cell)].float(), codes[test.group], clusters.of("test")[test.group])
    return Trial(probe, {"image": codes}, tally)


def _scores(counts: Float[np.ndarray, "cells c"], weight: float) -> tuple[float, Float[np.ndarray, "cells c"]]:
    """Logarithms of the shares of the labels in each cell, drawn towards the overall shares."""
    overall = (counts.sum(0) + 1) / (counts.sum() + counts.shape[1])
    return weight, np.log((counts + weight * overall) / (counts.sum(1, keepdims=True) + weight))


def _chosen(
    tables: Sequence[tuple[float, Float[np.ndarray, "cells c"]]], cell: Int64[np.ndarray, " n"], y: Int64[np.ndarray, " n"]
) -> tuple[float, Float[np.ndarray, "cells c"]]:
    """The scores that give validation labels the highest likelihood."""
    return max(tables, key=lambda one: float(one[1][cell, y].sum()))
