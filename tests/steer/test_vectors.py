"""Directions and controls: one norm for all, controls where they should be, and clear words where there is no direction."""

from dataclasses import replace
from typing import TypeVar

import pytest
import torch

from linrep.directions import Directions, DirectionSet
from linrep.errors import StoreError
from linrep.steer.config import Dose, SteerConfig
from linrep.steer.edits import Ablate, Add, Clamp, Replace, Swap
from linrep.steer.token_latents import TokenLatents
from linrep.steer.vectors import NoDirection, Vectors, check_directions
from linrep.vlm.prompts import one_prompt
from tests.steer.test_edits import PlainSae

NAMES = ("boat", "tree", "house")
E = TypeVar("E", Ablate, Swap, Clamp)


def entry(kind, view="pooled", layer=1, seed=0, width=4, scale=1.0):
    draw = torch.Generator().manual_seed(seed)
    return Directions(kind, layer, view, "image", "class", NAMES, scale * torch.randn(3, width, generator=draw), 5.0)


SET = DirectionSet(
    (entry("class_mean"), entry("ridge", seed=1, scale=0.01), entry("shuffled_mean", seed=2), entry("class_mean", layer=2))
)


LATENTS = TokenLatents(NAMES, torch.tensor([[0.1, 0.2, 0.0], [0.3, 1.0, 0.0], [0.0, 0.1, 0.5]]), torch.tensor([0.2, 0.4, 0.1]))


@pytest.fixture
def vectors():
    return Vectors(
        SET,
        Dose(relative=False),
        saes={1: PlainSae()},
        latents={(1, "tokens"): LATENTS},
        unembedding=lambda name: 7 * torch.eye(4)[NAMES.index(name)],
    )


KINDS = ("class_mean", "ridge", "shuffled_mean", "random", "orthogonal", "unembedding", "sae_latent", "sae_sparse")


@pytest.mark.parametrize("kind", KINDS)
def test_every_direction_has_the_norm_of_the_mean_difference(vectors, kind):
    means = SET.entries[0]
    wanted = (means.vectors[1] - means.vectors[0]).norm()
    v = vectors.direction(kind, "image", 1, "boat", "tree")
    torch.testing.assert_close(v.norm(), wanted)
    if kind in ("class_mean", "ridge", "shuffled_mean", "unembedding"):
        torch.testing.assert_close(vectors.direction(kind, "image", 1, "tree", "boat"), -v)


def test_controls_point_elsewhere(vectors):
    v, ridge = (vectors.direction(kind, "image", 1, "boat", "tree") for kind in ("class_mean", "ridge"))
    assert abs(vectors.direction("orthogonal", "image", 1, "boat", "tree") @ v) < 1e-4 * (v @ v)
    randoms = [vectors.direction("random", "image", 1, a, b) for a in NAMES for b in NAMES if a != b]
    assert all((x - y).norm() > 0.1 for i, x in enumerate(randoms) for y in randoms[:i])
    assert torch.equal(
        vectors.direction("random", "image", 1, "boat", "tree"), vectors.direction("random", "image", 1, "boat", "tree")
    )
    assert not torch.allclose(ridge, v)


def from_text(kind, names=NAMES, seed=7, scale=3.0):
    vectors = scale * torch.randn(len(names), 4, generator=torch.Generator().manual_seed(seed))
    return Directions(kind, 1, "pooled", "text", "class", names, vectors, 5.0)


@pytest.mark.parametrize("kind", ["class_mean", "ridge"])
def test_a_direction_from_texts_points_as_the_texts_do_and_is_as_long_as_the_images_mean_difference(kind):
    """By hand: the text's difference divided by its norm, times the norm of the images' mean difference."""
    text = from_text(kind)
    vectors = Vectors(DirectionSet((*SET.entries, text)), Dose())
    (source, target, _), images = text.vectors, SET.entries[0].vectors
    wanted = (target - source) / (target - source).norm() * (images[1] - images[0]).norm()
    torch.testing.assert_close(vectors.direction(f"text_{kind}", "image", 1, "boat", "tree"), wanted)
    assert check_directions(vectors.directions, [f"text_{kind}"], ["image"], [1], 4) == NAMES
    with pytest.raises(StoreError, match="modality 'text'"):
        check_directions(SET, [f"text_{kind}"], ["image"], [1], 4)


def test_a_direction_of_texts_that_end_elsewhere_than_the_question_is_refused_at_the_last_token():
    at_last = [Directions("class_mean", 1, "last", m, "class", NAMES, torch.randn(3, 4), 5.0) for m in ("image", "text")]
    directions = DirectionSet((*SET.entries, from_text("class_mean"), *at_last))
    apart = Vectors(directions, Dose(), one_prompt=False)
    with pytest.raises(NoDirection, match=r"another prompt than images.*set harvest.text_prompt"):
        apart.direction("text_class_mean", "last", 1, "boat", "tree")
    assert apart.direction("text_class_mean", "image", 1, "boat", "tree").norm() > 0  # a mean over all tokens
    assert apart.direction("class_mean", "last", 1, "boat", "tree").norm() > 0
    assert Vectors(directions, Dose()).direction("text_class_mean", "last", 1, "boat", "tree").norm() > 0


def test_texts_are_read_as_images_are_where_the_text_stands_for_the_image():
    asked = {"image_prompt": "<image> what is it ?"}
    assert one_prompt(asked | {"text_prompt": "{text} what is it ?"})
    assert not one_prompt(asked | {"text_prompt": "{text}"})
    assert not one_prompt(asked)
    assert one_prompt({"image_prompt": "<image>"})


def dosed(image, text, relative=False):
    """Vectors whose mean differences from boat to tree are two given ones."""
    zero = [0.0] * 4
    entries = [
        Directions("class_mean", 1, "pooled", modality, "class", NAMES, torch.tensor([zero, v, zero]), 5.0)
        for modality, v in (("image", image), ("text", text))
    ]
    return Vectors(DirectionSet(tuple(entries)), Dose(relative=relative))


def test_at_matched_dose_the_texts_direction_has_as_much_of_the_images_as_that_one_itself():
    """By hand: along (2, 0, 0, 0) the text's (3, 4, 0, 0) has a cosine of .6, and times 2/3 it is (2, 8/3, 0, 0)."""
    vectors = dosed([2.0, 0, 0, 0], [3.0, 4.0, 0, 0])
    found = {kind: vectors.direction(kind, "image", 1, "boat", "tree") for kind in ("class_mean", "text_matched", "text_rest")}
    torch.testing.assert_close(found["text_matched"], torch.tensor([2.0, 8 / 3, 0, 0]))
    torch.testing.assert_close(found["text_rest"], torch.tensor([0.0, 8 / 3, 0, 0]))
    torch.testing.assert_close(found["class_mean"] + found["text_rest"], found["text_matched"])


def test_relative_strengths_keep_the_matched_dose():
    """A token of norm 10 gets half its norm along the images' direction, whatever else it gets."""
    vectors, h = dosed([2.0, 0, 0, 0], [3.0, 4.0, 0, 0], relative=True), torch.tensor([[0.0, 0, 10.0, 0]])
    for kind, rest in (("class_mean", 0.0), ("text_matched", 5 * 4 / 3)):
        moved = vectors.edit("add", kind, 0.5, "image", 1, "boat", "tree")(h) - h
        torch.testing.assert_close(moved, torch.tensor([[5.0, rest, 0, 0]]))


@pytest.mark.parametrize("text", [[0.0, 1, 0, 0], [-2.0, 0, 0, 0], [0.05, 1, 0, 0], [0.0] * 4])
def test_directions_that_share_nothing_have_no_matched_dose(text):
    with pytest.raises(NoDirection, match=r"a cosine of -?\d\.\d\d at layer 1 of image: below 0.1 no dose"):
        dosed([2.0, 0, 0, 0], text).direction("text_matched", "image", 1, "boat", "tree")


def test_a_class_that_no_text_is_of_has_no_direction_from_texts():
    vectors = Vectors(DirectionSet((*SET.entries, from_text("class_mean", NAMES[:2]))), Dose())
    assert vectors.direction("text_class_mean", "image", 1, "boat", "tree").norm() > 0
    with pytest.raises(NoDirection, match="no class 'house' among the directions class/pooled/text/class_mean/layer=1"):
        vectors.direction("text_class_mean", "image", 1, "boat", "house")


def test_the_unembedding_points_from_row_to_row(vectors):
    v = vectors.direction("unembedding", "image", 1, "boat", "tree")
    torch.testing.assert_close(v / v.norm(), torch.tensor([-1.0, 1, 0, 0]) / 2**0.5)


def test_means_that_coincide_are_no_direction():
    same = Directions("class_mean", 0, "last", "image", "class", NAMES, torch.ones(3, 4) + 1e-7, 2.0)
    vectors = Vectors(DirectionSet((same,)), Dose())
    for kind in ("class_mean", "random"):
        with pytest.raises(NoDirection, match="the class means of boat and tree coincide at layer 0 of last"):
            vectors.direction(kind, "last", 0, "boat", "tree")
    assert isinstance(vectors.edit("zero", None, None, "last", 0, "boat", "tree"), Replace)


def test_edits_are_made_as_the_cell_says(vectors):
    add = vectors.edit("add", "class_mean", 2.0, "image", 1, "boat", "tree")
    assert isinstance(add, Add)
    assert (add.strength, add.relative) == (2.0, False)
    torch.testing.assert_close(add.direction, SET.entries[0].between("boat", "tree"))
    swap = vectors.edit("swap", None, None, "image", 1, "boat", "tree")
    assert isinstance(swap, Swap)
    means = SET.entries[0].vectors
    torch.testing.assert_close(swap(means[0][None])[0] - swap.centre, _swapped(means), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(vectors.edit("mean", None, None, "image", 1, "boat", "tree")(torch.ones(2, 4))[0], means.mean(0))


def _swapped(means):
    """The source's own mean, mirrored: what lay along the source lies along the target."""
    centre = means.mean(0)
    u, w = (x - centre for x in means[:2])
    return u.norm() * w / w.norm()


def test_a_latent_is_chosen_and_clamped_by_what_it_does_on_tokens_of_the_class(vectors):
    """Not by what it would do at the class mean, which no token has: of these random means latent 1 would be another one."""
    clamp = vectors.edit("clamp", None, None, "image", 1, "boat", "tree")
    assert isinstance(clamp, Clamp)
    assert (clamp.latent, clamp.value) == (1, 2.0)  # gaps .2, .8 and 0; twice the mean over the tree's tokens
    torch.testing.assert_close(
        vectors.direction("sae_latent", "image", 1, "boat", "tree") / SET.entries[0].between("boat", "tree").norm(),
        torch.eye(4)[1],
    )
    with pytest.raises(NoDirection, match="no tokens of layer 1 were encoded in the view last"):
        vectors.latent("last", 1, "boat", "tree")
    few = replace(vectors, latents={(1, "tokens"): TokenLatents(NAMES[:2], LATENTS.means[:2], LATENTS.rates)})
    with pytest.raises(NoDirection, match="no training image of 'house' was encoded: there are boat, tree"):
        few.latent("image", 1, "boat", "house")


class Many:
    """An SAE of 400 latents of one norm."""

    d_model, n_latents = 4, 400
    decoder = torch.nn.functional.normalize(torch.randn(400, 4, generator=torch.Generator().manual_seed(2)), dim=1)

    def encode(self, x):
        return (x @ self.decoder.T).relu()

    def decode(self, z):
        return z @ self.decoder


def test_a_clamps_control_fires_about_as_often():
    """Rates from one in ten thousand to one, some never: the control's is next to the clamped one's, and never zero."""
    rates = torch.logspace(-4, 0, 400)
    rates[::10] = 0
    sae, known = Many(), TokenLatents(NAMES, torch.zeros(3, 400), rates)
    vectors = Vectors(SET, Dose(), saes={1: sae}, latents={(1, "tokens"): known})
    apart, drawn = [], set()
    for latent in range(5, 400, 7):
        if rates[latent] > 0:
            control = vectors.another_latent(Clamp(sae, latent, 1.0), "image", 1, str(latent))
            assert control.latent != latent
            assert rates[control.latent] > 0
            apart.append(abs(float((rates[control.latent] / rates[latent]).log())))
            drawn.add(control.latent - latent)
    step = float((rates[2] / rates[1]).log())
    assert max(apart) < 20 * step  # at an end of the rates the nearest sixteen all lie on one side
    assert len(drawn) > 8  # drawn, not the nearest one
    without = replace(vectors, latents={})
    assert max(abs(without.another_latent(Clamp(sae, i, 1.0), "image", 1, str(i)).latent - i) for i in range(0, 400, 40)) > 40


def test_what_is_not_among_the_directions_is_one_clear_line(vectors):
    with pytest.raises(StoreError, match=r"no directions of layer 3"):
        vectors.direction("class_mean", "image", 3, "boat", "tree")
    with pytest.raises(ValueError, match=r"no class 'car' among the directions: there are boat, tree, house"):
        vectors.direction("class_mean", "image", 1, "boat", "car")
    with pytest.raises(NoDirection, match="no SAE of layer 2"):
        vectors.direction("sae_latent", "image", 2, "boat", "tree")
    with pytest.raises(StoreError, match="kind 'lda'"):
        check_directions(SET, ["lda"], ["image"], [1], 4)
    with pytest.raises(ValueError, match=r"width 4, the model's stream 8: they were made from another model"):
        check_directions(SET, [], ["image"], [1], 8)
    assert check_directions(SET, ["ridge"], ["image"], [1], 4) == NAMES


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"directions": ("class_mean", "class_mean")}, "stands twice"),
        ({"pairs": (("a", "a"),)}, "needs two classes, got 'a' twice"),
        ({"dose": {"strengths": (2.0, 1.0)}}, "must rise"),
        ({"layers": (3, 1)}, "must rise"),
        ({"sites": ()}, "must name sites"),
        ({"directions": ("sae_latent",)}, "needs an SAE: set steer.sae.sae"),
        ({"ask": {"choice": "what is it ?"}}, "<image> once"),
        ({"ask": {"choice": "<image> {first}?"}}, "both {first} and {second}"),
        ({"ask": {"questions": [{"prompt": "<image>", "about": "colour"}]}}, "no question is about the class"),
    ],
)
def test_a_wrong_recipe_names_what_is_wrong(values, message):
    with pytest.raises(ValueError, match=message.replace("{", r"\{")):
        SteerConfig.model_validate(values)


def both(vectors: Vectors, kind: type[E], where: tuple[str, int, str, str]) -> tuple[E, E]:
    """An edit of a kind and its control."""
    name = kind.__name__.lower()
    edit, control = vectors.edit(name, None, None, *where), vectors.edit(name, "random", None, *where)
    assert isinstance(edit, kind)
    assert isinstance(control, kind)
    return edit, control


def test_every_edit_has_a_control_that_is_as_large_and_points_elsewhere(vectors):
    where = ("image", 1, "boat", "tree")
    centre = SET.entries[0].vectors.mean(0)
    ablate, control = both(vectors, Ablate, where)
    torch.testing.assert_close(control.direction, vectors.direction("random", *where))
    torch.testing.assert_close(ablate.direction, vectors.direction("class_mean", *where))
    torch.testing.assert_close(ablate.centre, centre)
    swap, other = both(vectors, Swap, where)
    torch.testing.assert_close(other.centre, centre)
    for name in ("source", "target"):
        mine, theirs = (getattr(one, name) - centre for one in (swap, other))
        torch.testing.assert_close(mine.norm(), theirs.norm())
        assert abs(mine @ theirs) < 0.99 * mine.norm() ** 2
    angles = [torch.cosine_similarity(one.source - centre, one.target - centre, dim=0) for one in (swap, other)]
    torch.testing.assert_close(*angles)
    clamp, other = both(vectors, Clamp, where)
    assert other.latent != clamp.latent
    rows = clamp.sae.decoder
    torch.testing.assert_close(other.value * rows[other.latent].norm(), torch.tensor(clamp.value) * rows[clamp.latent].norm())
    h = torch.randn(5, 4, generator=torch.Generator().manual_seed(3))
    shuffled = vectors.edit("mean", "shuffled_tokens", None, *where)(h)
    assert not torch.equal(shuffled, h)
    assert sorted(map(tuple, shuffled.tolist())) == sorted(map(tuple, h.tolist()))
    assert isinstance(vectors.edit("mean", "other_tokens", None, *where), Replace)


class Large:
    """An SAE whose dense identity would take 40 GB; it counts how often all rows are searched."""

    def __init__(self):
        self.d_model, self.n_latents, self.searched = 4, 100_000, 0
        self._rows = torch.randn(self.n_latents, 4, generator=torch.Generator().manual_seed(5))

    @property
    def decoder(self):
        self.searched += 1
        return self._rows

    def encode(self, x):
        raise AssertionError("a vector was encoded")

    def decode(self, z):
        raise AssertionError("a unit of every latent was decoded")


def test_a_sparse_direction_of_a_large_sae_is_searched_once_for_all_strengths():
    sae = Large()
    vectors = Vectors(SET, Dose(), saes={1: sae}, k=2)
    first = vectors.edit("add", "sae_sparse", 0.5, "image", 1, "boat", "tree")
    assert isinstance(first, Add)
    n = sae.searched
    again = vectors.edit("add", "sae_sparse", 1.0, "image", 1, "boat", "tree")
    assert isinstance(again, Add)
    assert sae.searched == n > 0
    assert torch.equal(first.direction, again.direction)
    assert again.strength == 1.0
    assert not torch.equal(first.direction, vectors.direction("sae_sparse", "image", 1, "tree", "house"))
    assert torch.cosine_similarity(first.direction, SET.entries[0].between("boat", "tree"), dim=0) > 0.9
