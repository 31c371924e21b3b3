"""Erased classes: planted ones are gone at the rank that they span, colours stay, and every accuracy is that of erased rows."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.linear_model import RidgeClassifier

from linrep.erasure import Eraser, of_means
from linrep.probe.config import Attributes, Erasure, ProbeConfig
from linrep.probe.labels import read_attributes
from linrep.probe.moments import gather
from linrep.probe.report import Result
from linrep.probe.study import Study, Unit, plan_study
from linrep.probe.unit import gather_part, parts_of, probe_unit
from linrep.store.blocks import blocks
from linrep.store.samples import SPLITS
from tests.probe.planted import D, write_colours, write_planted

UNIT = Unit("tokens", 2)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    store = write_planted(tmp_path_factory.mktemp("planted"))
    path = write_colours(tmp_path_factory.mktemp("attributes"))
    config = ProbeConfig(
        attributes=Attributes(path=path, columns=("colour",)), alphas=(1e-3, 1e-1), shrinkages=(0.1,), sparse=(1,), curve=(5,),
        resamples=200, softmax=None, erasure=Erasure(alphas=(1e-3, 1.0), draws=2),
    )  # fmt: skip
    table, _ = read_attributes(config.attributes, path)
    return plan_study(store, config, table)


def probed(study: Study) -> Result:
    return probe_unit(study, UNIT, [gather_part(study, UNIT, part) for part in parts_of(study, UNIT)])


@pytest.fixture(scope="module")
def result(study) -> Result:
    return probed(study)


@pytest.fixture(scope="module")
def frame(result) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(result.erasure))


def one(frame: pl.DataFrame, **where: object) -> dict:
    (row,) = frame.filter(**where).to_dicts()
    return row


@pytest.mark.parametrize("modality", ["image", "text"])
def test_planted_classes_are_erased_at_the_rank_that_they_span_and_random_subspaces_leave_them(frame, modality):
    own = frame.filter(modality=modality, attribute="class")
    plain = one(own, method="none")
    assert plain["top1"] > 0.9
    assert (plain["rank"], plain["removed"], plain["over_covariance"]) == (0, 0, None)
    for method in ("class_mean", "leace"):
        row = one(own, method=method, rank=2, fitted_on=modality)
        assert row["top1"] < row["chance"] + 0.1
        assert row["over_covariance_high"] < -0.2
        assert one(own, method=method, rank=1, fitted_on=modality)["top1"] > row["top1"] + 0.15
        assert own.filter(method=method, rank=8).is_empty()  # nothing is left to erase
    # One round of projections misses what the weights do not read; images' and texts' classes are the same directions here.
    assert one(own, method="inlp", rank=8)["top1"] < one(own, method="none")["top1"] - 0.3
    assert one(own, method="class_mean", rank=2, fitted_on="text" if modality == "image" else "image")["top1"] < 0.6
    random = one(own, method="random", rank=2)
    assert random["top1"] > 0.85
    assert (random["control"], random["draws"], random["fitted_on"], random["setting"]) == (True, 2, None, None)
    leace, means = (one(own, method=name, rank=2, fitted_on=modality) for name in ("leace", "class_mean"))
    assert 0 < leace["removed"] <= means["removed"] < 1


def test_what_is_no_class_is_still_read(frame):
    for modality in ("image", "text"):
        colours = frame.filter(modality=modality, attribute="colour")
        assert one(colours, method="leace")["top1"] > one(colours, method="none")["top1"] - 0.05 > 0.8
        assert set(colours["rank"]) == {0, 2}


def rows(study: Study, split: str) -> tuple[np.ndarray, np.ndarray]:
    codes = study.codes["image"]["class"]
    wanted = (study.samples.split == SPLITS.index(split)) & (codes >= 0)
    found = list(blocks(study.store, study.store.select("tokens", 2, "image").files, "tokens", wanted))
    return torch.cat([b.x for b in found]).double().numpy(), np.concatenate([codes[b.sample] for b in found])


def test_accuracies_are_those_of_a_probe_that_was_fitted_to_erased_rows(study, frame):
    (x, y), (val, of_val), (test, of_test) = (rows(study, split) for split in SPLITS)
    mean = x.mean(0)
    means = torch.from_numpy(np.stack([x[y == c].mean(0) for c in range(3)]))
    basis = of_means(means).first(1).read.numpy()
    keep = np.eye(D) - basis.T @ basis
    scale = ((x - mean) ** 2).mean()
    best = None
    for alpha in study.config.erasure.alphas:
        probe = RidgeClassifier(alpha=alpha * scale * len(x)).fit((x - mean) @ keep, y)
        right = (probe.predict((val - mean) @ keep) == of_val).sum()
        if best is None or right >= best[0]:
            best = right, alpha, (probe.predict((test - mean) @ keep) == of_test).mean()
    row = one(frame, modality="image", attribute="class", method="class_mean", rank=1, fitted_on="image")
    assert row["setting"] == best[1]
    assert row["top1"] == pytest.approx(best[2], abs=1e-12)
    variance = ((x - mean) ** 2).sum(1).mean()
    assert row["removed"] == pytest.approx((((x - mean) @ basis.T @ basis) ** 2).sum(1).mean() / variance)


def test_moments_of_erased_rows_equal_those_of_rows_that_were_erased_one_by_one():
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(50, 6, generator=draw, dtype=torch.float64) + 20, np.arange(50) % 3
    read = torch.randn(2, 6, generator=draw, dtype=torch.float64)
    eraser = Eraser(read, torch.linalg.pinv(read).T)
    slow = gather(eraser(x, x.mean(0)), {"class": y})
    fast = gather(x, {"class": y}).erased(eraser)
    assert torch.allclose(fast.scatter, slow.scatter)
    assert torch.allclose(fast.mean, slow.mean)
    assert torch.allclose(fast.between("class"), slow.between("class"))


def test_steering_finds_the_subspaces_that_were_scored(study, result):
    def vectors(kind: str, modality: str = "image") -> torch.Tensor:
        return result.directions.select(kind, 2, "tokens", modality, "class").vectors.double()

    read, write = vectors("leace"), vectors("leace_pattern")
    assert torch.allclose(read @ write.T, torch.eye(2, dtype=torch.float64), atol=1e-5)
    x, y = rows(study, "train")
    after = Eraser(read, write)(torch.from_numpy(x), torch.from_numpy(x.mean(0))).numpy()
    means = np.stack([after[y == c].mean(0) for c in range(3)])
    assert np.abs(means - means.mean(0)).max() < 1e-4 * np.linalg.norm(x[y == 0].mean(0) - x[y == 1].mean(0))
    axes = vectors("covariance")
    assert torch.allclose(axes.T @ axes, torch.from_numpy(np.cov(x.T, bias=True)), atol=1e-4)
    assert vectors("inlp").shape == (8, D)


def test_without_the_section_nothing_is_erased(study):
    plain = probed(replace(study, config=study.config.model_copy(update={"erasure": None})))
    assert plain.erasure.num_rows == 0
    assert not {"leace", "inlp", "covariance"} & {entry.kind for entry in plain.directions.entries}
