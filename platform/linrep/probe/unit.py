"""One view and layer from rows to results: gather moments, fit, choose on validation rows, score on test rows."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from linrep.directions import DirectionSet
from linrep.encoder import Encoder
from linrep.errors import StoreError
from linrep.probe.control_task import TOKEN, ControlTasks
from linrep.probe.encoded import probe_latents
from linrep.probe.erasure import probe_erasure
from linrep.probe.groups import PLACE
from linrep.probe.moments import Gatherer, Moments, merge
from linrep.probe.patches import GroupRows
from linrep.probe.positions import probe_positions
from linrep.probe.report import Result, Scored, report
from linrep.probe.rows import StreamRows
from linrep.probe.study import Family, PatchStudy, Study, Unit
from linrep.probe.work import Clusters, Work
from linrep.store.blocks import Block, blocks, files_of
from linrep.store.commit import WrittenFile
from linrep.store.layout import MODALITIES, Modality, View

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
        if study.families(modality) or _patches(study, unit, modality) is not None:
            rows = sum(file.rows for file in study.store.select(unit.view, unit.layer, modality).files)
            n = min(PARTS, max(1, rows // ROWS_PER_PART))
            parts += [Part(modality, files) for files in files_of(study.store, unit.view, unit.layer, modality, n)]
    return parts


def bytes_of(study: Study) -> int:
    """Bytes of all moments of a unit before they are merged, whatever its rows: what the largest unit can take."""
    d = study.store.manifest.width
    studies = [study, *([study.patches.study] if study.patches is not None else [])]
    numbers = [d * d + sum(f.n_classes.values()) * (d + 1) for own in studies for m in MODALITIES for f in own.families(m)]
    return 8 * PARTS * sum(numbers)


def gather_part(study: Study, unit: Unit, part: Part, device: torch.device | None = None) -> list[Moments]:
    """The moments of a part's training rows, one for each family of its modality; those of single patches last."""
    families, patches = study.families(part.modality), _patches(study, unit, part.modality)
    grouped = () if patches is None else patches.study.families(part.modality)
    gatherers = [Gatherer(family.n_classes, study.store.manifest.width, device) for family in (*families, *grouped)]
    anyone = [family.members for family in families]
    anyone += [] if patches is None else [patches.images(family.members) for family in grouped]
    for block in blocks(study.store, part.files, unit.view, np.any(anyone, axis=0), columns_of(unit)):
        _add(families, gatherers[: len(families)], block, study.control_tasks, unit.view, part.modality)
        if patches is not None:
            of_groups = patches.groups.of(block)
            _add(grouped, gatherers[len(families) :], of_groups, patches.study.control_tasks, unit.view, part.modality)
    return [gatherer.moments for gatherer in gatherers]


def _add(
    families: Sequence[Family], gatherers: Sequence[Gatherer], block: Block, tasks: ControlTasks, view: View, modality: Modality
) -> None:
    for family, gatherer in zip(families, gatherers, strict=True):
        own = block.of(family.members[block.sample])
        if len(own.sample):
            gatherer.add(own.x, {name: tasks.codes(view, modality, name, c, own) for name, c in family.columns.items()})


def columns_of(unit: Unit) -> tuple[str, ...]:
    """Columns of the store that name single tokens: their word, or where in the image they lie."""
    return (*TOKEN, *PLACE) if unit.view == "tokens" else ()


def _patches(study: Study, unit: Unit, modality: Modality) -> PatchStudy | None:
    """What a unit learns of single patches: nothing of means, of last tokens, and of texts."""
    return study.patches if unit.view == "tokens" and modality == "image" else None


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
        moments |= _merged(study.families(m), own, 0, m)
    patches = _patches(study, unit, "image")
    rows = StreamRows(study.store, unit.view, files, columns=columns_of(unit))
    scored = Work(study, unit, study.tasks, rows, moments, device, clusters).scored()
    erased, subspaces = probe_erasure(study, unit, rows, scored, clusters, device)
    if encoder is not None:
        scored += probe_latents(study, unit, rows, encoder, device, clusters)
    if patches is not None:
        own = [found for part, found in zip(parts, gathered, strict=True) if part.modality == "image"]
        of_groups = _merged(patches.study.families("image"), own, len(study.families("image")), "image")
        scored += probe_patches(patches, unit, rows, of_groups, device, encoder)
    found = report(study, unit, scored)
    if not len(found.probes):
        raise StoreError(
            f"{unit.view} rows of layer {unit.layer} of {study.store.place}: no probe could be fitted and tested, since no "
            "rows of finite numbers are left of the training or the test samples"
        )
    return replace(found, erasure=erased, directions=DirectionSet((*found.directions.entries, *subspaces)))


def _merged(
    families: Sequence[Family], parts: Sequence[list[Moments]], first: int, modality: Modality
) -> dict[tuple[Modality, str], Moments]:
    """The moments of some families from all parts, by label column; theirs stand in each part from a place on."""
    found: dict[tuple[Modality, str], Moments] = {}
    for i, family in enumerate(families if parts else (), first):
        whole = merge(part[i] for part in parts)
        found |= {(modality, column): whole for column in family.columns if whole.n}
    return found


def probe_patches(
    patches: PatchStudy,
    unit: Unit,
    stream: StreamRows,
    moments: Mapping[tuple[Modality, str], Moments],
    device: torch.device,
    encoder: Encoder | None,
) -> list[Scored]:
    """Every probe of single patches with what it scored, and what their places alone say."""
    study, rows, clusters = patches.study, GroupRows(stream, patches), Clusters(patches.study, mixed=True)
    scored = Work(study, unit, study.tasks, rows, moments, device, clusters).scored()
    scored += probe_positions(patches, rows, clusters)
    if encoder is not None:
        scored += probe_latents(study, unit, rows, encoder, device, clusters)
    return scored
