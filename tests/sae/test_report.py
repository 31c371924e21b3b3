"""Tables of results: each number beside its control and its spread, and the same wherever the tensors are."""

from dataclasses import replace

import pytest
import torch

from linrep.explorer.sae_figures import figures
from linrep.explorer.saes import card_lines, sae_headline, summary_lines
from linrep.sae.activity import Activity, highest
from linrep.sae.config import SaeDesign, TopK
from linrep.sae.report import LayerSae, Report
from linrep.sae.sae import Sae
from linrep.sae.splice import Losses, Spliced
from linrep.sae.stability import living, match
from linrep.sae.start import unit_rows
from linrep.store.tables import table_of
from schemas import saes as tables
from tests.pretended_gpu import GPU, pretended_gpu
from tests.sae.saes import KINDS, D, F, inputs, make_sae

SCHEMAS = {"quality": tables.QUALITY, "firing": tables.FIRING, "truth": tables.TRUTH, "rebuilt": tables.REBUILT}


def examined(sae: Sae, device: torch.device | str) -> Report:
    """Everything that is reported of an SAE and needs no model, on a device."""
    report, one = Report(), LayerSae.of(2, "tested", {"": sae.to(device)})
    rows = {"image": inputs(60).to(device), "text": (inputs(40) + 1).to(device)}
    found = one.evaluate(rows)
    control = one.random(rows, found)
    report.add_quality(one, found, control.evaluate(rows))
    report.add_rebuilt(one, control, unit_rows(6, D, 7).to(device), 9)
    owner, labels = torch.arange(60) % 30, torch.arange(15) % 3
    pair = highest([one.image, control.image], [(rows["image"], owner)], 30)
    halves = {
        name: (z.only(torch.arange(15)), z.only(torch.arange(15, 30))) for name, z in zip(("own", "control"), pair, strict=True)
    }
    report.add_truth(one, halves, "class", ("a", "b", "c"), labels, labels)
    fewer = living(one.image.decoder.cpu(), found.rates["both"].cpu())
    report.add_stability(one, one, match(fewer, fewer)[0], 0.5)
    for replacing in one.replacing().values():
        assert replacing(rows["text"]).device == rows["text"].device
    return report


@pytest.mark.parametrize("kind", KINDS)
def test_results_on_a_gpu_are_those_of_the_cpu(kind: str) -> None:
    expected = examined(make_sae(kind), "cpu")
    with pretended_gpu():
        found = examined(make_sae(kind), GPU)
    for name in SCHEMAS:
        mine, theirs = getattr(found, name), getattr(expected, name)
        assert len(mine) == len(theirs) > 0
        for one, other in zip(mine, theirs, strict=True):
            words = {name: value for name, value in other.items() if value is None or isinstance(value, str)}
            numbers = {name: pytest.approx(other[name], rel=1e-4, abs=1e-6) for name in other.keys() - words.keys()}
            assert one == {**words, **numbers}


def test_class_vectors_need_few_latents_where_they_are_made_of_few() -> None:
    """Vectors of two decoder rows at right angles and of equal size: one reaches .71, so that both cosines need two."""
    rows = torch.eye(D)
    sae = replace(make_sae("topk"), encoder=rows, b_enc=torch.zeros(D), decoder=rows, b_dec=torch.zeros(D))
    one, report = LayerSae.of(2, "tested", {"": sae}), Report()
    control = one.random({"image": inputs()}, one.evaluate({"image": inputs()}))
    report.add_rebuilt(one, control, rows[:4] + rows[4:8], 3)
    measured = {row["measure"]: row for row in report.quality}
    for cosine in (0.8, 0.9):
        row = measured[f"latents_needed_{cosine}/class"]
        assert (row["modality"], row["value"], row["low"], row["high"]) == ("image", 2, 2, 2)
        assert row["control"] > 2
    assert measured["latents_needed_0.9/random"]["value"] == 4  # not reached with three: one more than were tried
    said = summary_lines({**tables_of(report), "quality": quality_of(one, report, control)}, {})
    (line,) = [line for line in said if "class vectors" in line]
    assert "cosine 0.9 from 2 [2, 2] (more than 3) latents, random vectors more than 3" in line


def test_firing_and_probes_have_controls() -> None:
    report = examined(make_sae("topk"), "cpu")
    for modality in ("image", "text", "both"):
        bins = [row for row in report.firing if row["modality"] == modality]
        assert sum(row["latents"] for row in bins) == sum(row["control"] for row in bins) == make_sae("topk").n_latents
    for row in report.truth:
        for k in (1, 2, 5):
            assert 0 <= row[f"probe_{k}_control"] <= 1
        assert 0 <= row["auroc_control"] <= 1


def losses(*rows: tuple[float, ...]) -> Spliced:
    """Tokens, replaced, CE, then CE and KL of each: spliced, resample, mean, zero."""
    return Losses("image", torch.tensor(rows, dtype=torch.float64)).spliced()


ONE = (4, 9, 4.0, 6.0, 1.0, 12.0, 4.0, 5.0, 2.0, 8.0, 3.0)
OTHER = (4, 9, 40.0, 46.0, 3.0, 48.0, 4.0, 45.0, 2.0, 44.0, 1.0)
RANDOM = tuple((*row[:3], row[5], row[6], *row[5:]) for row in (OTHER, ONE))


def test_losses_are_in_nats_with_intervals_beside_ablations_and_control() -> None:
    """Of one caption 3/4 of what resampling costs are recovered, of the other 1/4, of both 1/2."""
    report, one = Report(), LayerSae.of(2, "tested", {"": make_sae("topk")})
    report.add_spliced(one, losses(OTHER, ONE), losses(*RANDOM))
    measured = {row["measure"]: row for row in report.quality}
    assert (measured["n_texts"]["value"], measured["n_tokens"]["value"]) == (2, 8)
    # Resamples of two captions are the one twice, the other twice, or both.
    assert [measured["kl_spliced"][name] for name in ("value", "low", "high", "control")] == [0.5, 0.25, 0.75, 1.0]
    assert [measured["kl_zero"][name] for name in ("value", "low", "high", "control")] == [0.5, 0.25, 0.75, None]
    assert [measured["ce"][name] for name in ("value", "low", "high")] == [5.5, 1.0, 10.0]
    assert (measured["ce_resample"]["value"], measured["ce_mean"]["value"]) == (7.5, 6.25)
    for loss in ("ce", "kl"):
        share = measured[f"{loss}_recovered"]
        assert [share[name] for name in ("value", "low", "high", "control", "note")] == [0.5, 0.25, 0.75, 0, None]


def test_a_share_that_is_none_says_why() -> None:
    """Nothing to recover in all, or in some draws; one caption; no other sample; no mean."""
    report, one = Report(), LayerSae.of(2, "tested", {"": make_sae("topk")})
    free = (4, 9, 4.0, 4.0, 0.004, 4.0, 0.02, 4.0, 0.0, 4.0, 0.0)
    nan = float("nan")

    def told(*rows: tuple[float, ...]) -> dict[str, dict]:
        report.quality.clear()
        report.add_spliced(one, losses(*rows), losses(*rows))
        return {row["measure"]: row for row in report.quality}

    found = told(free, free)["kl_recovered"]
    assert (found["value"], found["low"]) == (None, None)
    assert found["note"] == "another sample's tokens here cost 0.005 nats a token, less than 0.01: there is nothing to recover"
    assert told(free, free)["ce_recovered"]["note"].startswith("another sample's tokens here cost 0 nats a token, less than")
    some = told(free, ONE)["kl_recovered"]
    assert (some["value"], some["low"]) == (pytest.approx(1 - 1.004 / 4.02), None)
    assert "no interval, as they cost less than 0.01 in some draws" in some["note"]
    assert told(ONE)["kl_spliced"]["low"] is None
    lacking = told((*ONE[:5], nan, nan, nan, nan, *ONE[9:]))
    assert lacking["kl_resample"]["note"] == lacking["kl_recovered"]["note"]
    assert lacking["kl_resample"]["note"].startswith("a caption has no other sample")
    assert lacking["kl_mean"]["note"].startswith("no training rows")
    assert lacking["kl_spliced"]["note"] is None


def tables_of(report: Report) -> dict:
    return {name: table_of(getattr(report, name), schema) for name, schema in SCHEMAS.items()}


def quality_of(one: LayerSae, report: Report, control: LayerSae):
    rows = {"image": inputs()}
    report.add_quality(one, one.evaluate(rows), control.evaluate(rows))
    return tables_of(report)["quality"]


def test_summary_card_and_figure_say_nats_spread_and_control() -> None:
    report = examined(make_sae("topk"), "cpu")
    one = LayerSae.of(2, "tested", {"": make_sae("topk")})
    report.add_spliced(one, losses(OTHER, ONE), losses(*RANDOM))
    tables = tables_of(report)
    lines = summary_lines(tables, {})
    assert lines[1].startswith(
        "  KL from the untouched model's predictions with the SAE in the place of the stream, nats a token"
    )
    assert "over 2 held-out captions" in lines[1]
    assert any("KL 0.5 [0.25, 0.75] (1); another sample's 1; mean 0.5; zeros 0.5" in line for line in lines)
    (axes, *_) = figures(tables)["layers_kl_spliced"].axes
    assert axes.get_yscale() == "log"
    labels = [line.get_label() for line in axes.lines]
    assert {"tested", "random directions", "another sample's tokens", "mean token", "zeros"} <= set(labels)
    assert any("class: latents with F1 > 0.8 for" in line and "F1 above the random SAE's by" in line for line in lines)
    card = card_lines(tables_of(report), 2, "tested")
    assert card["kl_spliced, image"] == "0.5 [0.25, 0.75] (random directions: 1)"
    assert card["kl_resample, image"] == "1 [1, 1]"
    assert "latents_needed_0.8/class, image" in card
    assert "F1 above random directions', class" in card


def test_a_lazy_sae_is_said_to_be_one() -> None:
    """Of the same decoder, taken for one that began where it is and for one that began elsewhere."""
    config = SaeDesign(activation=TopK(k=5), expansion=F / D, seed=4)
    rows, about = {"image": inputs()}, {"config": config.model_dump(mode="json")}
    start = unit_rows(F, D, 4)
    for decoder, said in ((start, "the decoder is still much of its random start"), (start.roll(1, 0), "(1: never moved)")):
        one, report = LayerSae.of(2, "tested", {"": replace(make_sae("topk"), decoder=decoder, about=about)}), Report()
        found = one.evaluate(rows)
        report.add_quality(one, found, one.random(rows, found).evaluate(rows))
        report.add_moved(one, found.rates["image"])
        tables = tables_of(report)
        assert any(said in sentence for sentence in sae_headline(tables["quality"]))
        (line,) = [line for line in summary_lines(tables, {}) if "cosine with the random start" in line]
        assert "latents that write 50/90/99% of the image energy" in line
        assert {"moved", "energy"} <= set(figures(tables))
        measured = {row["measure"]: row for row in report.quality if row["modality"] in ("image", "both")}
        assert abs(measured["moved"]["control"]) < 0.2
        assert 1 <= measured["latents_of_energy_0.5"]["control"] <= measured["latents_of_energy_0.99"]["control"] <= F


def test_an_activity_without_entries_is_examined() -> None:
    silent = Activity.from_dense(torch.zeros(6, 4))
    report, one = Report(), LayerSae.of(2, "tested", {"": make_sae("topk")})
    y = torch.tensor([0, 1] * 3)
    report.add_truth(one, {"own": (silent, silent), "control": (silent, silent)}, "class", ("a", "b"), y, y)
    assert [(row["f1"], row["auroc"], row["probe_1"]) for row in report.truth] == [(0.0, 0.5, 0.5)] * 2
