"""One view and layer from rows to results: gather moments, fit, choose on validation rows, score on test rows."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from linrep.encoder import Encoder
from linrep.errors import StoreError
from linrep.probe.encoded import probe_latents
from linrep.probe.moments import Gatherer, Moments, merge
from linrep.probe.report import Result, report
from linrep.probe.rows import StreamRows
from linrep.probe.study import Study, Unit
from linrep.probe.work import Clusters, Work
from linrep.store.blocks import blocks, files_of
from linrep.store.commit import WrittenFile
from linrep.store.layout import MODALITIES, Modality

PARTS = 8
"""Most parts that a layer's files are gathered in, whatever the cluster: sums in one order, and few of them."""
ROWS_PER_PART = 2**15
"""Fewer rows are not worth another worker."""


class Part(NamedTuple):
    """Some files of one modality: what one worker gathers."""

    modality: Modality
    files: tuple[WrittenFile, ...]


def parts_of(study: Study, unit: Unit) -> list[Part]:
    """The parts that a unit's moments are gathered in."""
    parts = []
    for modality in MODALITIES:
        if study.families(modality):
            rows = sum(file.rows for file in study.store.select(unit.view, unit.layer, modality).files)
            n = min(PARTS, max(1, rows // ROWS_PER_PART))
            parts += [Part(modality, files) for files in files_of(study.store, unit.view, unit.layer, modality, n)]
    return parts


def bytes_of(study: Study) -> int:
    """Bytes of all moments of a unit before they are merged, whatever its rows: what the largest unit can take."""
    d = study.store.manifest.width
    numbers = [d * d + sum(f.n_classes.values()) * (d + 1) for m in MODALITIES for f in study.families(m)]
    return 8 * PARTS * sum(numbers)


def gather_part(study: Study, unit: Unit, part: Part, device: torch.device | None = None) -> list[Moments]:
    """The moments of a part's training rows, one for each family of its modality."""
    families = study.families(part.modality)
    gatherers = [Gatherer(family.n_classes, study.store.manifest.width, device) for family in families]
    anyone = np.any([family.members for family in families], axis=0)
    for block in blocks(study.store, part.files, unit.view, anyone):
        for family, gatherer in zip(families, gatherers, strict=True):
            own = block.of(family.members[block.sample])
            if len(own.sample):
                gatherer.add(own.x, {name: codes[own.sample] for name, codes in family.columns.items()})
    return [gatherer.moments for gatherer in gatherers]


def probe_unit(
    study: Study,
    unit: Unit,
    gathered: Sequence[list[Moments]],
    device: torch.device | None = None,
    encoder: Encoder | None = None,
) -> Result:
    """All results of a unit.

    Args:
        study: What to do.
        unit: View and layer.
        gathered: What `gather_part` gave for each of `parts_of`, in their order.
        device: Where softmax regression and scoring run.
        encoder: An autoencoder of this layer, whose latents are probed, too; None for none.
    """
    device, clusters = device or torch.device("cpu"), Clusters(study)
    parts = parts_of(study, unit)
    files: dict[Modality, list[WrittenFile]] = {
        m: [file for part in parts if part.modality == m for file in part.files] for m in MODALITIES
    }
    moments: dict[tuple[Modality, str], Moments] = {}
    for m in MODALITIES:
        own = [found for part, found in zip(parts, gathered, strict=True) if part.modality == m]
        for i, family in enumerate(study.families(m) if own else ()):
            whole = merge(found[i] for found in own)
            moments |= {(m, column): whole for column in family.columns if whole.n}
    rows = StreamRows(study.store, unit.view, files)
    scored = Work(study, unit, study.tasks, rows, moments, device, clusters).scored()
    if encoder is not None:
        scored += probe_latents(study, unit, rows, encoder, device, clusters)
    found = report(study, unit, scored)
    if not len(found.probes):
        raise StoreError(
            f"{unit.view} rows of layer {unit.layer} of {study.store.place}: no probe could be fitted and tested, since no "
            "rows of finite numbers are left of the training or the test samples"
        )
    return found
