"""Cells run together against each run alone by transformers itself, with a hook of this file's own."""

import dataclasses

import numpy as np
import pytest
import torch

from linrep.directions import Directions, DirectionSet
from linrep.sample import Skipped
from linrep.steer.cells import UNEDITED, cells
from linrep.steer.config import Asking, Damage, Dose, Question, SteerConfig
from linrep.steer.edits import Add
from linrep.steer.sites import Elsewhere, Everywhere, ImageTokens, LastToken, Patches, positions
from linrep.steer.steerer import Steerer
from linrep.steer.vectors import NoDirection, Vectors
from linrep.vlm.batch import collate
from linrep.vlm.prepare import Preparer
from linrep.vlm.prepared import Role
from tests.steer.conftest import prepared, sample

NAMES = ("boat", "tall tree", "house")
LAYERS = (0, 2, 4)
CONFIG = SteerConfig(
    sites=(ImageTokens(), LastToken(), Everywhere()),
    directions=("class_mean", "random"),
    edits=("ablate", "swap", "zero"),
    dose=Dose(strengths=(0.5, 3.0)),
    ask=Asking(
        questions=(
            Question(prompt="<image> what is shown ?"),
            Question(prompt="<image> the colour is", about="colour"),
        ),
        choice="<image> is it a {first} or a {second} ?",
        answer=" {name}",
        max_new_tokens=3,
    ),
    damage=Damage(prompt="<image> see :"),
)


def directions(width=32, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return DirectionSet(
        tuple(
            Directions(kind, layer, view, "image", "class", NAMES, 3 * torch.randn(3, width, generator=draw), 5.0)
            for kind in ("class_mean", "ridge", "shuffled_mean")
            for layer in range(5)
            for view in ("pooled", "last")
        )
    )


@pytest.fixture(scope="module")
def vectors():
    return Vectors(directions(), CONFIG.dose)


@pytest.fixture(scope="module")
def steerer(steer_vlm, vectors):
    return Steerer(steer_vlm, CONFIG, LAYERS, vectors, tokens_per_batch=1500)


@pytest.fixture(scope="module")
def produced(steerer):
    # Of the last one's prompts the source's name stands first, of the others' the target's.
    return steerer.answers([sample(0), sample(1), sample(6)], "boat", "tall tree")


def key(row):
    return tuple(row.get(k) for k in ("sample_id", "site", "layer", "edit", "direction", "strength"))


def slowly(vlm, one, site, layer, edit, n_new=0, limits=None):
    """Generation and logits of one sequence alone, uncached, edited by hand: no hook, mask or cache of ours.

    Limits are norms for image tokens, other tokens and the prompt's last one; a position above its own is left alone.
    """
    model, batch = vlm.model, collate([one], vlm)
    prompt = torch.from_numpy(
        {
            "image": lambda: one.role >= Role.IMAGE,
            "last": lambda: np.arange(len(one)) == (np.append(np.flatnonzero(one.role == Role.TEXT), len(one))[0] - 1),
            "everywhere": lambda: np.ones(len(one), bool),
            "elsewhere": lambda: positions(Elsewhere(LastToken()), one, vlm.card),
            None: lambda: np.zeros(len(one), bool),
        }[site]()
    )
    ids, scores = batch.input_ids, torch.empty(0)
    block = None if layer is None else (vlm.text.layers[layer] if layer < 4 else vlm.text.norm)

    def hook(module, args):
        which = torch.full((args[0].shape[1],), site == "everywhere")
        which[: len(prompt)] = prompt
        h = args[0].clone()
        if limits is not None:
            most = torch.full((h.shape[1],), limits[1])
            most[: len(prompt)][torch.from_numpy(one.role >= Role.IMAGE)] = limits[0]
            most[np.append(np.flatnonzero(one.role == Role.TEXT), len(one))[0] - 1] = limits[2]
            which &= h[0].norm(dim=-1) <= most
        h[0, which] = edit(h[0, which])
        return (h, *args[1:])

    handle = None if block is None else block.register_forward_pre_hook(hook)
    images = {"pixel_values": batch.beside["pixel_values"], "image_sizes": batch.beside["image_sizes"]}
    try:
        with torch.no_grad():
            for step in range(n_new + 1):
                scores = model(input_ids=ids, **images, use_cache=False).logits[0]
                if step < n_new:
                    ids = torch.cat([ids, scores[-1].argmax()[None, None]], dim=1)
                    if ids[0, -1] == vlm.card.image_token_id:
                        return None, scores  # read again, it would ask for an image of its own
    finally:
        if handle is not None:
            handle.remove()
    return ids[0, len(one) :].tolist(), scores


def edit_of(vectors, row):
    if row["edit"] == "none":
        return lambda h: h
    return vectors.edit(row["edit"], row["direction"], row["strength"], row["site"], row["layer"], "boat", "tall tree")


def place_of(row):
    return "elsewhere" if row["direction"] == "other_tokens" else row["site"]


def some(rows, n, seed=0):
    return [rows[i] for i in np.random.default_rng(seed).choice(len(rows), n, replace=False)]


def test_every_cell_of_every_sample_has_one_row(produced):
    plan = cells(CONFIG, LAYERS)
    assert plan[0] == UNEDITED
    # At every site and layer two directions at two strengths, and three edits, each with its control: but nothing is left to
    # compare with where tokens everywhere are knocked out.
    assert len(plan) == 1 + 3 * (3 * (2 * 2 + 3 * 2) - 1)
    assert produced.failed == []
    assert len({key(row) for row in produced.tables["cells"]}) == len(produced.tables["cells"]) == 3 * len(plan)
    assert len(produced.tables["answers"]) == 2 * 3 * len(plan)
    assert produced.n_done == 3 * len(plan)


def test_free_answers_equal_uncached_generation_of_each_cell_alone(steer_vlm, random_vlm, vectors, produced):
    """Unequal lengths, other edits in other rows, a shared prefix, padding and the cache change nothing."""
    made = [Preparer.from_path(random_vlm, image_prompt=q.prompt) for q in CONFIG.ask.questions]
    tokenizer, ends = steer_vlm.processor.tokenizer, 2
    compared = 0
    for row in some(produced.tables["answers"], 60):
        if compared == 40:
            break
        one = made[row["question"]](sample(int(row["sample_id"][1:])))
        ids, _ = slowly(steer_vlm, one, place_of(row), row["layer"], edit_of(vectors, row), 3)
        if ids is None:
            continue
        compared += 1
        ids = ids[: ids.index(ends)] if ends in ids else ids
        assert row["text"] == tokenizer.decode(ids, skip_special_tokens=True).strip(), row
    assert compared == 40


def test_forced_choice_is_the_length_normalised_probability_of_the_two_names(steer_vlm, random_vlm, vectors, produced):
    tokenizer = steer_vlm.processor.tokenizer
    seen = set()
    for row in some(produced.tables["cells"], 16, seed=1):
        scores = []
        for name in ("boat", "tall tree"):
            # The names' order was drawn: whichever it was, this is one of the two prompts.
            options = []
            for first, second in (("boat", "tall tree"), ("tall tree", "boat")):
                prompt = f"<image> is it a {first} or a {second} ?"
                image = sample(int(row["sample_id"][1:]))
                bare = prepared(Preparer.from_path(random_vlm, image_prompt=prompt), image)
                full = prepared(Preparer.from_path(random_vlm, image_prompt=f"{prompt} {name}"), image)
                n = len(full) - len(bare)
                # Only the prompt is edited, the answer's tokens only where the site is everywhere.
                site = place_of(row)
                masked = dataclasses.replace(
                    full, role=np.where(np.arange(len(full)) < len(bare), full.role, Role.TEXT).astype(np.uint8)
                )
                _, logits = slowly(steer_vlm, masked if site == "last" else full, site, row["layer"], edit_of(vectors, row))
                logp = (
                    logits[len(bare) - 1 : -1].log_softmax(-1).gather(1, torch.tensor(full.input_ids[len(bare) :, None]).long())
                )
                assert len(tokenizer(name).input_ids) > 2 or n == 1
                options.append(logp.mean().item())
            scores.append(options)
        mine = (row["logp_source"], row["logp_target"])
        order = int(abs(scores[0][1] - mine[0]) < abs(scores[0][0] - mine[0]))
        seen.add(order)
        assert mine == pytest.approx((scores[0][order], scores[1][order]), abs=2e-3)
        assert row["p_target"] == pytest.approx(1 / (1 + np.exp(mine[0] - mine[1])), abs=1e-5)
    assert seen == {0, 1}


def test_edits_that_no_later_block_reads_change_nothing(produced):
    """After the last block image tokens are read by nobody."""
    plain = {row["sample_id"]: row for row in produced.tables["cells"] if row["edit"] == "none"}
    late = [row for row in produced.tables["cells"] if row["layer"] == 4 and row["site"] == "image"]
    early = [row for row in produced.tables["cells"] if row["layer"] == 0 and row["site"] == "image"]
    assert late
    assert all(abs(row["logp_target"] - plain[row["sample_id"]]["logp_target"]) < 1e-5 for row in late)
    assert np.mean([abs(row["logp_target"] - plain[row["sample_id"]]["logp_target"]) for row in early]) > 1e-3


def test_damage_is_the_mean_nll_of_the_text_alone_and_without_an_edit_the_models_own(steerer, steer_vlm, random_vlm, vectors):
    samples = [sample(3, "a red boat lies here"), sample(1, "the house")]
    rows = steerer.damage(samples, "boat", "tall tree").tables["damage"]
    prepare = Preparer.from_path(random_vlm, pair_prompt="<image> see :{text}")
    by_name = {one.id: prepared(prepare, one) for one in samples}
    for row in [*some(rows, 12), *(r for r in rows if r["edit"] == "none")]:
        one = by_name[row["sample_id"]]
        _, logits = slowly(steer_vlm, one, place_of(row), row["layer"], edit_of(vectors, row))
        (said,) = np.nonzero(one.role == Role.TEXT)
        logp = logits.log_softmax(-1)[said - 1, one.input_ids[said]]
        assert row["nll"] == pytest.approx(-logp.mean().item(), abs=2e-4)
        assert row["n_tokens"] == len(said)
    assert len(rows) == 2 * (1 + 3 * (3 * (2 * 2 + 3 * 2) - 1))  # every cell, controls too


def test_of_the_candidates_the_likeliest_texts_are_kept(steer_vlm, vectors):
    samples = [sample(i, text) for i, text in enumerate(("a red boat", "the house", "a tree", "key", "the old tree stands"))]
    every = Steerer(steer_vlm, CONFIG, LAYERS, vectors).damage(samples, "boat", "tall tree").tables["damage"]
    plain = {row["sample_id"]: row["nll"] for row in every if row["edit"] == "none"}
    config = CONFIG.model_copy(update={"damage": Damage(prompt="<image> see :", texts=2, candidates=2)})
    some = Steerer(steer_vlm, config, LAYERS, vectors).damage(samples, "boat", "tall tree").tables["damage"]
    assert {row["sample_id"] for row in some} == set(sorted(plain, key=lambda name: plain[name])[:2])
    assert len(plain) == 5


class Faulty(Vectors):
    """One cell is poisoned, one has an edit that fails, one has no direction."""

    def edit(self, name, kind, strength, site, layer, source, target):
        found = super().edit(name, kind, strength, site, layer, source, target)
        if (kind, strength, site, layer) == ("random", 3.0, "image", 2):
            return Add(torch.full((32,), float("nan")), 1.0, relative=False)
        if (name, kind, site, layer) == ("ablate", None, "last", 2):
            return Exploding()
        if (name, kind, site, layer) == ("swap", None, "last", 2):
            raise NoDirection("the class means coincide")
        return found


class Exploding(Add):
    def __init__(self):
        super().__init__(torch.ones(32), 0.0)

    def __call__(self, h):
        raise RuntimeError("out of memory")


def test_a_failed_run_costs_its_cell_and_is_put_down_with_its_reason(steer_vlm, produced, monkeypatch):
    from linrep.steer import edits

    # An addition is computed for the whole batch at once; this one is to be called by itself.
    plain_at = edits._at
    monkeypatch.setattr(
        edits, "_at", lambda layer, rows: explode if any(_fails(r, layer) for r in rows) else plain_at(layer, rows)
    )

    def explode(h, rows):
        raise RuntimeError("out of memory")

    steerer = Steerer(steer_vlm, CONFIG, LAYERS, Faulty(directions(), CONFIG.dose), tokens_per_batch=1500)
    bad = Skipped(dataclasses.replace(sample(9), image=None), "no image bytes")
    found = steerer.answers([sample(0), bad, sample(1)], "boat", "tall tree")
    reasons = {key(row): row.get("error") for row in found.tables["cells"] if row["sample_id"] != "s9"}
    wanted = {key(row): row for row in produced.tables["cells"]}
    for which, why in reasons.items():
        cell = which[1:]
        if cell == ("image", 2, "add", "random", 3.0):
            assert str(why).startswith("FloatingPointError: the model's output is not finite")
        elif cell == ("last", 2, "ablate", None, None):
            assert why == "RuntimeError: out of memory"
        elif cell == ("last", 2, "swap", None, None):
            assert why == "no direction: the class means coincide"
        else:
            assert why is None
    for row in found.tables["cells"]:
        if row.get("error") is None:
            assert row["p_target"] == pytest.approx(wanted[key(row)]["p_target"], abs=1e-5)
    n = len(cells(CONFIG, LAYERS))
    assert len(found.tables["cells"]) == 3 * n
    assert len(found.failed) == n + 2 * 2  # the bad image's, and two cells of two images; a missing direction is no failure
    assert found.n_done == 2 * n - 2 * 3


def _fails(one, layer):
    return one is not None and isinstance(one.edit, Exploding) and layer in one.layers


def test_the_lens_counts_the_right_name_against_the_others(steer_vlm, vectors, random_vlm):
    config = CONFIG.model_copy(update={"ask": CONFIG.ask.model_copy(update={"choice": "<image> it is a"})})
    steerer = Steerer(steer_vlm, config, LAYERS, vectors)
    image = dataclasses.replace(sample(0), class_name="house")
    rows = steerer.lens([image], ["boat", "house"]).tables["lens"]
    assert [row["layer"] for row in rows] == list(LAYERS)
    one = prepared(Preparer.from_path(random_vlm, image_prompt=CONFIG.ask.questions[0].prompt), image)
    _, logits = slowly(steer_vlm, one, None, None, None)
    image = one.role >= Role.IMAGE
    tokenizer = steer_vlm.processor.tokenizer
    boat, house = (
        tokenizer(f"<image> it is a {name}").input_ids[len(tokenizer("<image> it is a").input_ids)] for name in ("boat", "house")
    )
    p = logits[torch.from_numpy(image)].softmax(-1)
    assert rows[-1]["p_class"] == pytest.approx(p[:, house].mean().item(), rel=1e-3)
    assert rows[-1]["p_others"] == pytest.approx(p[:, boat].mean().item(), rel=1e-3)
    assert rows[-1]["top_class"] == pytest.approx((p[:, house] > p[:, boat]).float().mean().item(), abs=1e-6)
    assert rows[-1]["n_tokens"] == image.sum()


FEW = CONFIG.model_copy(
    update={"sites": (Patches(box=(0.9, 0.9, 1, 1)), ImageTokens(), LastToken()), "directions": ("random",), "edits": ("mean",)}
)
"""The box's corner holds a patch's centre in the larger images only."""


def test_a_site_that_one_image_lacks_costs_the_cells_of_that_image_there(steer_vlm, vectors, random_vlm):
    prepare = Preparer.from_path(random_vlm, image_prompt=CONFIG.ask.questions[0].prompt)
    images = [sample(i) for i in (0, 2)]
    with pytest.raises(ValueError, match="names no position") as refused:
        _ = [positions(FEW.sites[0], prepared(prepare, one), steer_vlm.card) for one in images]
    (lacking,) = [one.id for one in images if one.id in str(refused.value)]
    steerer = Steerer(steer_vlm, FEW, (2,), vectors, tokens_per_batch=1500)
    for rows in (
        steerer.answers(images, "boat", "tall tree").tables["cells"],
        steerer.damage([sample(i, "a red boat") for i in (0, 2)], "boat", "tall tree").tables["damage"],
    ):
        lost = [row for row in rows if row.get("error")]
        assert {(row["sample_id"], row["site"]) for row in lost} == {(lacking, "patches")}
        assert all("names no position of " + lacking in row["error"] for row in lost)
        assert len(lost) == 2 + 2  # two strengths, the mean and its control
        assert len(rows) == 2 * len(cells(FEW, (2,)))


class Breaking:
    """A function that fails whenever one sample is among what it is given."""

    def __init__(self, real, name):
        self.real, self.name = real, name

    def __call__(self, vlm, what, *more):
        if any((one[0] if isinstance(one, list) else one).sample.id == self.name for one in what):
            raise RuntimeError("out of memory")
        return self.real(vlm, what, *more)


@pytest.mark.parametrize("where", ["lay_out", "nats_per_token", "embed"])
def test_what_fails_before_any_cell_runs_costs_its_sample_and_no_other(steer_vlm, vectors, monkeypatch, where):
    from linrep.steer import steerer as module

    for name in (where, "lay_out_texts") if where == "embed" else (where,):
        monkeypatch.setattr(module, name, Breaking(getattr(module, name), "s1"))
    config = CONFIG.model_copy(update={"damage": Damage(prompt="<image> see :", texts=1, candidates=2), "edits": ()})
    steerer = Steerer(steer_vlm, config, (2,), vectors, tokens_per_batch=1500)
    n = len(cells(config, (2,)))
    if where == "lay_out":
        found = steerer.answers([sample(0), sample(1), sample(2)], "boat", "tall tree").tables["cells"]
        kept, lost = {"s0", "s2"}, "s1"
    elif where == "nats_per_token":
        found = steerer.damage([sample(i, "a red boat") for i in range(3)], "boat", "tall tree").tables["damage"]
        kept, lost = {row["sample_id"] for row in found} - {"s1"}, "s1"
        assert len(kept) == 1
    else:
        images = [dataclasses.replace(sample(i), class_name="house") for i in (0, 1)]
        rows = steerer.lens(images, ["boat", "house"]).tables["lens"]
        assert [(row["sample_id"], row["layer"], row.get("error")) for row in rows] == [
            ("s0", 2, None), ("s1", -1, "RuntimeError: out of memory"),
        ]  # fmt: skip
        kept, lost = {"s0"}, "s1"
        config = config.model_copy(update={"damage": Damage(prompt="<image> see :", texts=2)})
        steerer = Steerer(steer_vlm, config, (2,), vectors)
        found = steerer.damage([sample(0, "a red boat"), sample(1, "a tree")], "boat", "tall tree").tables["damage"]
    assert {row["sample_id"] for row in found if row.get("error") is None} == kept
    gone = [row for row in found if row["sample_id"] == lost]
    assert len(gone) == n
    assert {row["error"] for row in gone} == {"RuntimeError: out of memory"}


def test_as_many_other_patches_control_a_knock_out(steer_preparer, steer_vlm):
    one = steer_preparer(sample(2))
    box = Patches(box=(0, 0, 0.4, 0.4))
    inside, others = (positions(site, one, steer_vlm.card) for site in (box, Elsewhere(box)))
    assert inside.sum() == others.sum() > 0
    assert not (inside & others).any()
    assert (one.role[others] == Role.IMAGE).all()
    assert (positions(Elsewhere(box), one, steer_vlm.card) == others).all()
    assert positions(Elsewhere(LastToken()), one, steer_vlm.card).sum() == 1
    with pytest.raises(ValueError, match=r"the control needs \d+ other patches of s2, there are 0"):
        positions(Elsewhere(Patches(box=(0, 0, 1, 1))), one, steer_vlm.card)
