"""What every edit does to a vector, by hand and by its laws; and that a batch of different edits is each of them alone."""

import dataclasses

import numpy as np
import pytest
import torch

from linrep.steer.edits import Ablate, Add, Clamp, Intervention, Replace, Swap, row_edits
from linrep.steer.latents import SaeLike, best_latent, decoder_row, sparse_reconstruction
from linrep.steer.sites import Everywhere, ImageTokens, LastToken, Patches, positions
from linrep.vlm.prepared import Role

E = torch.eye(4)


@dataclasses.dataclass
class PlainSae:
    """Latents are the positive parts of three coordinates; the decoder has an offset, and explains nothing of the fourth."""

    d_model: int = 4
    n_latents: int = 3
    decoder: torch.Tensor = dataclasses.field(default_factory=lambda: torch.eye(3, 4))

    def encode(self, x):
        return x[:, :3].relu()

    def decode(self, z):
        return torch.cat([z, torch.zeros(len(z), 1)], dim=1) + torch.tensor([0.0, 0.0, 0.0, 5.0])


def random(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_add_by_hand():
    h = torch.tensor([[3.0, 4.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    v = torch.tensor([0.0, 0.0, 0.0, 10.0])
    assert Add(v, 0.5)(h).tolist() == [[3, 4, 0, 2.5], [0, 0, 1, 0.5]]  # half of the norms 5 and 1, whatever |v| is
    assert Add(v, 0.5, relative=False)(h).tolist() == [[3, 4, 0, 5], [0, 0, 1, 5]]


def test_ablate_leaves_the_mean_along_the_direction_and_all_else():
    h, v, centre = random(0, 5, 4), random(1, 4), random(2, 4)
    out = Ablate(v, centre)(h)
    torch.testing.assert_close(out @ v, (centre @ v).expand(5), atol=1e-5, rtol=1e-5)
    across = torch.eye(4) - torch.outer(v, v) / (v @ v)
    torch.testing.assert_close(out @ across, h @ across)
    torch.testing.assert_close(Ablate(v, centre)(centre[None])[0], centre)  # what is like the mean is not touched
    by_hand = Ablate(2 * E[0], torch.tensor([10.0, 1.0, 1.0, 1.0]))(torch.tensor([[12.0, 5.0, 6.0, 7.0]]))
    assert by_hand.tolist() == [[10, 5, 6, 7]]


def test_swap_by_hand_where_the_classes_are_orthogonal():
    swap = Swap(source=2 * E[0] + 1, target=3 * E[1] + 1, centre=torch.ones(4))
    h = torch.tensor([[5.0, 2.0, 7.0, 8.0]])
    assert swap(h).tolist() == [[2, 5, 7, 8]]


@pytest.mark.parametrize("seed", range(0, 100, 5))
def test_swapping_twice_changes_nothing_and_once_exchanges_the_coordinates(seed):
    source, target, centre, h = random(seed, 4), random(seed + 1, 4), random(seed + 2, 4), random(seed + 3, 6, 4)
    plane = np.stack([(x - centre).numpy().astype(np.float64) for x in (source, target)])
    assert np.linalg.cond(plane) < 50  # of nearly the same direction the coordinates would mean nothing
    swap = Swap(source, target, centre)
    torch.testing.assert_close(swap(swap(h)), h, atol=1e-3, rtol=1e-3)
    units = plane / np.linalg.norm(plane, axis=1, keepdims=True)
    before, *_ = np.linalg.lstsq(units.T, (h - centre).numpy().T.astype(np.float64), rcond=None)
    after, *_ = np.linalg.lstsq(units.T, (swap(h) - centre).numpy().T.astype(np.float64), rcond=None)
    np.testing.assert_allclose(after, before[::-1], atol=1e-2)


def test_clamp_changes_the_latent_and_keeps_what_the_sae_does_not_explain():
    h = torch.tensor([[1.0, 2.0, -3.0, 9.0]])
    out = Clamp(PlainSae(), latent=1, value=7.0)(h)
    assert out.tolist() == [[1, 7, -3, 9]]  # -3 and 9 are the error term
    assert Clamp(PlainSae(), latent=1, value=2.0)(h).tolist() == h.tolist()
    with pytest.raises(ValueError, match=r"no latent 3: the SAE has 0\.\.2"):
        Clamp(PlainSae(), latent=3, value=1.0)(h)


def test_replace_knocks_out():
    assert Replace(E[2])(random(0, 3, 4)).tolist() == [[0, 0, 1, 0]] * 3


EDITS = [
    Add(random(0, 4), 0.7),
    Add(random(1, 4), 3.0, relative=False),
    Ablate(random(2, 4), random(8, 4)),
    Swap(random(3, 4), random(4, 4), random(5, 4)),
    Clamp(PlainSae(), 0, 2.0),
    Replace(random(6, 4)),
    Add(random(7, 4), -1.0),
]


def test_each_row_of_a_mixed_batch_is_that_edit_alone():
    rows = [None, *(Intervention(edit, (2,), "image") for edit in EDITS), Intervention(EDITS[0], (3,), "image")]
    row = torch.arange(len(rows)).repeat_interleave(5)
    h = random(9, len(row), 4)
    out = row_edits(rows, 4)[2](h, row)
    for i, one in enumerate(rows):
        mine = h[row == i]
        wanted = mine if one is None or 2 not in one.layers else one.edit(mine)
        if one is None or 2 not in one.layers:
            assert torch.equal(out[row == i], mine), "a row without an edit at this layer moved"
        else:
            torch.testing.assert_close(out[row == i], wanted)
            assert not torch.equal(wanted, mine)


@pytest.mark.parametrize("edit", [Add(random(0, 4), 0.0), Add(random(0, 4), 0.0, relative=False), Add(torch.zeros(4), 3.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_zero_edit_changes_nothing_bit_for_bit(edit, dtype):
    h = random(0, 6, 4).to(dtype)
    out = row_edits([Intervention(edit, (0,), "image")], 4)[0](h, torch.zeros(6, dtype=torch.long))
    assert torch.equal(out, h)
    assert out.dtype == dtype


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: type(edit).__name__)
def test_a_direction_of_another_width_is_refused(edit):
    with pytest.raises(ValueError, match=r"the direction has width 4, the model's stream 8"):
        row_edits([Intervention(edit, (0,), "image")], 8)


def test_the_decoder_row_leaves_the_offset_out():
    sae = PlainSae()
    assert isinstance(sae, SaeLike)
    assert decoder_row(sae, 2).tolist() == [0, 0, 1, 0]
    with pytest.raises(ValueError, match="no latent 3"):
        decoder_row(sae, 3)


def test_the_best_latent_is_the_one_that_tells_the_classes_apart():
    sae = PlainSae()
    sae.decoder = torch.diag(torch.tensor([1.0, 3.0, 1.0, 1.0]))[:3]
    target, other = torch.tensor([1.0, 0.5, 0.2]), torch.tensor([0.0, 0.1, 0.3])
    assert best_latent(sae, target, other) == 1  # gaps of 1 and 0.4, in norms of 1 and 3
    with pytest.raises(ValueError, match="does not separate them"):
        best_latent(sae, torch.zeros(3), torch.ones(3))


def test_a_sparse_vector_is_rebuilt_exactly_and_a_dense_one_is_not():
    built, latents = sparse_reconstruction(PlainSae(), torch.tensor([0.0, 3.0, -2.0, 0.0]), 2)
    torch.testing.assert_close(built, torch.tensor([0.0, 3.0, -2.0, 0.0]))
    assert latents.tolist() == [1, 2]
    built, latents = sparse_reconstruction(PlainSae(), torch.ones(4), 2)
    assert torch.nn.functional.cosine_similarity(built, torch.ones(4), dim=0) < 0.75  # 2 of 4 equal coordinates: sqrt(1/2)
    assert len(latents) == 2


def test_sites_name_their_positions(steer_prepared, steer_vlm):
    image, pair, text = steer_prepared
    card = steer_vlm.card
    assert (positions(ImageTokens(), image, card) == (image.role >= Role.IMAGE)).all()
    assert positions(LastToken(), image, card).nonzero()[0].tolist() == [len(image) - 1]
    first_word = np.flatnonzero(pair.role == Role.TEXT)[0]
    assert positions(LastToken(), pair, card).nonzero()[0].tolist() == [first_word - 1]
    assert positions(Everywhere(), text, card).all()
    with pytest.raises(ValueError, match="site 'image' names no position"):
        positions(ImageTokens(), text, card)


def test_patches_of_a_box_lie_in_it_and_boxes_that_tile_the_image_share_out_its_patches(steer_prepared, steer_vlm):
    image, card = steer_prepared[0], steer_vlm.card
    left = positions(Patches(box=(0, 0, 0.5, 1)), image, card)
    right = positions(Patches(box=(0.5, 0, 1, 1)), image, card)
    assert not (left & right).any()
    assert ((left | right) == (image.role == Role.IMAGE)).all()
    base = image.tile == 0
    side = card.tile_size // card.patch_size
    assert (image.col[left & base] < side / 2).all()
    with pytest.raises(ValueError, match="left < right"):
        Patches(box=(0.5, 0, 0.5, 1))
