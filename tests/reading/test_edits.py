"""Answers under named edits are those of the model's own generation under the same edit; controls have the same norm."""

import pytest
import torch

from linrep.errors import RecipeError
from linrep.reading.changes import NamedEdit, NamedLatent, addition_of, clamp_of
from linrep.reading.live import answers_under, read_live
from linrep.reading.read import Reader, ReadSae
from linrep.sae.controls import random_sae
from linrep.steer.config import Dose, Everywhere, ImageTokens, LastToken
from linrep.steer.edits import Add, Clamp
from linrep.steer.vectors import Vectors
from linrep.vlm.batch import collate
from linrep.vlm.config import ModelConfig
from linrep.vlm.decode import decode
from linrep.vlm.hooks import edit
from linrep.vlm.load import load
from linrep.vlm.prepare import Preparer
from tests.reading.workspace import SAMPLE
from tests.steering import directions


@pytest.fixture(scope="module")
def vlm(random_vlm: ModelConfig):
    return load(random_vlm, None)


@pytest.fixture(scope="module")
def prepared(random_vlm: ModelConfig):
    return Preparer.from_path(random_vlm, image_prompt="a <image> what is it ?")(SAMPLE)


SAE = ReadSae(2, "s", random_sae(torch.randn(64, 32, generator=torch.Generator().manual_seed(1)), 24, 4))
VECTORS = Vectors(directions(), Dose(relative=False), seed=3)
SITES = {"image": ImageTokens(), "last": LastToken(), "everywhere": Everywhere()}


def changes(site):
    edits = [addition_of(NamedEdit("tench", "church", layer, 4.0), VECTORS, (0, 2), 1.0, site) for layer in (0, 2)]
    return [*edits, clamp_of(NamedLatent(7, 25.0), [SAE], VECTORS, site)]


@pytest.mark.parametrize("site", SITES)
def test_answers_are_those_of_generation_under_the_edit(vlm, prepared, site):
    batch = collate([prepared], vlm, "left")
    mask = {"image": batch.image_mask, "everywhere": torch.ones_like(batch.attention_mask)}.get(site)
    if mask is None:
        mask = torch.zeros_like(batch.attention_mask)
        mask[0, -1] = True
    plain = read_live(vlm, prepared, Reader(), (0,), {}, 4)[1]
    found = answers_under(vlm, prepared, changes(SITES[site]), {}, 4)
    assert len({one.answer.first for one in found} | {plain.first}) == 4
    for one in found:
        assert one.n_positions == int(mask.sum())
        for change, answer in ((one.change.edit, one.answer), (one.change.control, one.control)):
            with edit(vlm, {one.change.layer: change}, mask, generated=site == "everywhere"):
                out = vlm.model.generate(**batch.prompt(), max_new_tokens=4, do_sample=False)
            (wanted,) = decode(vlm, out[:, batch.input_ids.shape[1] :].tolist())
            assert answer.text == wanted


def test_controls_write_as_much_in_another_direction(vlm, prepared):
    for change in changes(ImageTokens()):
        edit, control = change.edit, change.control
        if isinstance(edit, Add) and isinstance(control, Add):
            assert float(control.direction.norm()) == pytest.approx(float(edit.direction.norm()), rel=1e-5)
            assert abs(float(torch.cosine_similarity(edit.direction, control.direction, dim=0))) < 0.9
            assert (control.strength, control.relative) == (edit.strength, edit.relative)
        else:
            assert isinstance(edit, Clamp)
            assert isinstance(control, Clamp)
            assert control.latent != edit.latent
            norms = SAE.encoder.decoder.norm(dim=1)
            assert control.value * float(norms[control.latent]) == pytest.approx(edit.value * float(norms[edit.latent]), rel=1e-5)


def test_what_cannot_be_edited_is_refused_in_words(vlm, random_vlm):
    text = Preparer.from_path(random_vlm)(SAMPLE.__class__("t", "text", "text", "", "test", text="a boat"))
    with pytest.raises(RecipeError, match="--site last"):
        answers_under(vlm, text, changes(ImageTokens()), {}, 2)
    assert answers_under(vlm, text, changes(LastToken()), {}, 2)[0].n_positions == 1
    with pytest.raises(RecipeError, match="has latents 0 to 23"):
        clamp_of(NamedLatent(24, 1.0), [SAE], VECTORS, LastToken())
    with pytest.raises(RecipeError, match="no SAE of layer 3; there are SAEs of layers 2"):
        clamp_of(NamedLatent(4, 1.0, 3), [SAE], VECTORS, LastToken())
    with pytest.raises(RecipeError, match="no directions of layer 1: there are 0, 2"):
        addition_of(NamedEdit("tench", "church", 1), VECTORS, (0, 2), 1.0, LastToken())
