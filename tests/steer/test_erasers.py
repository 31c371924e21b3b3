"""Erasures of a plan: the subspaces of single tokens that the probes found, random ones beside them, clear words without them."""

import numpy as np
import polars as pl
import pytest
import torch

from linrep.directions import Directions, DirectionSet
from linrep.erasure import leace, principal_axes
from linrep.errors import RecipeError
from linrep.steer.cells import Cell, cells
from linrep.steer.config import Dose, Erase, ImageTokens, SteerConfig
from linrep.steer.edits import Erase as EraseEdit
from linrep.steer.edits import check_width
from linrep.steer.effects import effects
from linrep.steer.erasers import check_erasers
from linrep.steer.vectors import NoDirection, Vectors
from linrep.store.tables import table_of
from schemas.steering import CELLS, DAMAGE, VERDICTS

NAMES, D = ("boat", "tree", "house"), 6
DRAW = torch.Generator().manual_seed(2)
Y = torch.arange(300) % 3
MIXING = torch.randn(D, D, generator=DRAW, dtype=torch.float64)
X = {
    name: torch.randn(300, D, generator=DRAW, dtype=torch.float64) @ MIXING
    + 3 * torch.randn(3, D, generator=DRAW, dtype=torch.float64)[Y] + 9
    for name in ("image", "text")
}  # fmt: skip


def means(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([x[c == Y].mean(0) for c in range(3)])


def entry(kind: str, vectors: torch.Tensor, modality: str = "image", layer: int = 1, view: str = "tokens") -> Directions:
    names = NAMES if kind == "class_mean" else tuple(str(i) for i in range(len(vectors)))
    return Directions(kind, layer, view, modality, "class", names, vectors.float(), 20.0)


def found(view: str = "tokens") -> list[Directions]:
    entries = []
    for modality, x in X.items():
        covariance = torch.cov(x.T, correction=0)
        best = leace(covariance, means(x))
        entries += [
            entry(kind, vectors, modality, view=view)
            for kind, vectors in (
                ("class_mean", means(x)), ("leace", best.read), ("leace_pattern", best.write),
                ("inlp", torch.eye(D)[:4].double()), ("covariance", principal_axes(covariance, D)),
            )
        ]  # fmt: skip
    return entries


SET = DirectionSet((*found(), entry("class_mean", X["image"].mean(0).expand(3, D), layer=0)))
VECTORS = Vectors(SET, Dose())


def edited(
    kind: str, rank: float | None = None, source: str = "boat", target: str = "tree", vectors: Vectors = VECTORS
) -> EraseEdit:
    edit = vectors.edit("erase", kind, rank, "image", 1, source, target)
    assert isinstance(edit, EraseEdit)
    return edit


def apart(x: torch.Tensor) -> float:
    """How far the classes' means are from their own mean, over what the rows vary."""
    own = means(x)
    return float((own - own.mean(0)).norm() / x.std(0).norm())


@pytest.mark.parametrize("kind", ["class_mean", "leace"])
def test_an_erasure_makes_the_classes_of_single_tokens_coincide_and_leaves_their_mean(kind):
    x = X["image"].float()
    after = edited(kind)(x)
    assert apart(X["image"]) > 0.5
    assert apart(after) < 1e-5
    torch.testing.assert_close(after.mean(0), x.mean(0), rtol=1e-4, atol=1e-4)
    assert apart(edited(kind, 1.0)(x)) > 0.1  # a rank below what classes span leaves some of them


def test_subspaces_of_texts_and_random_ones_leave_the_classes_of_images():
    x = X["image"].float()
    for kind in ("text_class_mean", "text_leace", "random", "covariance"):
        assert apart(edited(kind)(x)) > 0.1
    text = means(X["text"])
    assert float(((text - text.mean(0)).float() @ edited("text_class_mean").eraser.read.T).norm()) == pytest.approx(
        float((text - text.mean(0)).norm()), rel=1e-5
    )
    assert torch.allclose(edited("inlp", 3.0).eraser.read, torch.eye(D)[:3])


def test_a_random_subspace_is_another_one_for_each_pair_and_the_same_for_the_same():
    for kind in ("random", "covariance"):
        one, same, other = edited(kind), edited(kind, vectors=Vectors(SET, Dose())), edited(kind, source="house")
        assert torch.equal(one.eraser.read, same.eraser.read)
        assert not torch.allclose(one.eraser.read, other.eraser.read, atol=1e-2)
        assert one.eraser.rank == 2
        assert torch.allclose(edited(kind, 1.0).eraser.read.abs(), one.eraser.read[:1].abs(), atol=1e-5) or kind == "random"


def test_what_cannot_be_erased_says_so():
    with pytest.raises(NoDirection, match="the class means coincide at layer 0 of image"):
        VECTORS.edit("erase", "class_mean", None, "image", 0, "boat", "tree")
    with pytest.raises(NoDirection, match="leace has 2 dimensions at layer 1 of image, fewer than 3"):
        edited("leace", 3.0)
    last = Vectors(DirectionSet(tuple(found("last"))), Dose(), one_prompt=False)
    with pytest.raises(NoDirection, match="the subspace text_class_mean at the last token: texts were read under another prompt"):
        last.edit("erase", "text_class_mean", None, "last", 1, "boat", "tree")
    assert last.edit("erase", "class_mean", None, "last", 1, "boat", "tree")
    with pytest.raises(ValueError, match="erase: the direction has width 6, the model's stream 7"):
        check_width(edited("leace"), 7)


def test_a_plan_whose_subspaces_were_not_probed_is_refused_before_it_runs():
    config = SteerConfig(sites=(ImageTokens(),), edits=("erase",))
    check_erasers(config, SET, [1])
    plain = DirectionSet(tuple(entry for entry in SET.entries if entry.kind == "class_mean"))
    with pytest.raises(RecipeError, match=r"steer.erase: no directions of kind 'leace'.*with probe.erasure set"):
        check_erasers(config, plain, [1])
    check_erasers(config.model_copy(update={"edits": ()}), plain, [1])
    check_erasers(config.model_copy(update={"erase": Erase(subspaces=("class_mean", "random"))}), plain, [1])
    with pytest.raises(ValueError, match="must name some of class_mean, leace, inlp, text_class_mean"):
        Erase(subspaces=("ridge",))


def test_every_subspace_and_rank_is_a_cell():
    config = SteerConfig(
        sites=(ImageTokens(),), directions=(), edits=("erase",), erase=Erase(subspaces=("leace", "random"), ranks=(1, 2))
    )
    wanted = [Cell(0, "image", 3, "erase", kind, rank) for kind in ("leace", "random") for rank in (1, 2)]
    assert cells(config, [3])[1:] == wanted
    whole = config.model_copy(update={"erase": Erase(subspaces=("leace",))})
    assert cells(whole, [3])[1:] == [Cell(0, "image", 3, "erase", "leace", None)]


def test_what_an_erasure_takes_beyond_the_loudness_of_the_data_is_paired():
    """Of four images LEACE makes three leave their name and the control one of these, and one other: 3/4 - 2/4."""
    left = {"leace": (1, 1, 1, 0), "covariance": (1, 0, 0, 1), "none": (0, 0, 0, 0)}
    rows = [
        {
            "source": f"s{i % 2}", "target": "t", "sample_id": f"i{i}", "site": None if kind == "none" else "image",
            "layer": None if kind == "none" else 1, "edit": "none" if kind == "none" else "erase",
            "direction": None if kind == "none" else kind, "strength": None, "question": 0, "about": "class", "text": "x",
            "plain": "x", "score": 0.0 if gone else -1.0, "coherence": 1.0, "kept": None, "error": None,
        }
        for kind, of in left.items()
        for i, gone in enumerate(of)
    ]  # fmt: skip
    verdicts = table_of(rows, VERDICTS)
    frame = pl.DataFrame(pl.from_arrow(effects(CELLS.empty_table(), verdicts, DAMAGE.empty_table(), SteerConfig())))

    def value(measure: str, kind: str) -> tuple[float, bool]:
        return frame.filter(measure=measure, direction=kind).select("value", "control").row(0)

    assert value("left", "leace") == (0.75, False)
    assert value("left", "covariance") == (0.5, True)
    assert value("left_over_covariance", "leace") == (0.25, False)
    assert frame.filter(measure="left_over_covariance", direction="covariance").is_empty()
    assert np.isfinite(frame.filter(measure="left", direction="leace")["low"].to_numpy()).all()
