"""No other position moves: what a block is given under an edit equals what it is given without, bit for bit, but at the site."""

import numpy as np
import pytest
import torch

from linrep.steer.edits import Add, Intervention, row_edits
from linrep.steer.prompts import lay_out, shared
from linrep.steer.sites import Everywhere, ImageTokens, LastToken, Patches, positions
from linrep.vlm.decode import Edited, pad, run, stack
from linrep.vlm.prepare import Preparer
from tests.steer.conftest import prepared, sample

SITES = (ImageTokens(), Patches(box=(0, 0, 0.5, 0.6)), LastToken(), Everywhere())
PROMPTS = ("<image> what is it ?", "<image> what colour is it ?")


@pytest.fixture(scope="module")
def sequences(random_vlm):
    made = [Preparer.from_path(random_vlm, image_prompt=prompt) for prompt in PROMPTS]
    return [[prepared(prepare, sample(i)) for prepare in made] for i in (0, 1, 2)]


def given(vlm, layer, call):
    """What block `layer` reads in each pass of a call, the edits done."""
    seen = []
    handle = vlm.text.layers[layer].input_layernorm.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    call()
    handle.remove()
    return seen


@pytest.mark.parametrize("number", range(len(SITES)), ids=lambda i: SITES[i].kind)
def test_an_edit_moves_its_site_and_nothing_else_through_prefix_and_question(steer_vlm, sequences, number):
    asked = lay_out(steer_vlm, sequences, SITES, {})
    shift = torch.randn(32, generator=torch.Generator().manual_seed(0))
    first, last = (Intervention(Add(shift, strength, relative=False), (2,), SITES[number].kind) for strength in (1.0, 3.0))
    rows = [first, None, last]  # a row without an edit among rows with one
    prefix, prefix_real = stack([a.prefix for a in asked])
    suffix, suffix_real = stack([a.suffixes[1] for a in asked])
    masks = [a.sites[1].masks[number] for a in asked]
    before, _ = pad([m[: len(a.prefix)] for a, m in zip(asked, masks, strict=True)])
    after, _ = pad([m[len(a.prefix) :] for a, m in zip(asked, masks, strict=True)])

    def passes(edits):
        context, _ = run(steer_vlm, prefix, prefix_real, None, Edited(edits, before.bool()))
        # The question continues the unedited prefix, so that what differs in it is its own edit.
        clean, _ = run(steer_vlm, prefix, prefix_real)
        run(steer_vlm, suffix, suffix_real, clean, Edited(edits, after.bool()))
        return context

    plain = given(steer_vlm, 2, lambda: passes({}))
    edited = given(steer_vlm, 2, lambda: passes(row_edits(rows, 32)))
    assert len(plain) == len(edited) == 3
    for one, other, mask in ((plain[0], edited[0], before), (plain[2], edited[2], after)):
        moved = (one != other).any(-1)
        wanted = mask.bool()
        wanted[1] = False
        assert torch.equal(moved, wanted)
    assert torch.equal(plain[1], edited[1])
    for i in (0, 2):
        whole = np.concatenate([masks[i][: len(asked[i].prefix)], masks[i][len(asked[i].prefix) :]])
        assert (whole == positions(SITES[number], sequences[i][1], steer_vlm.card)).all()


def test_what_prompts_share_is_as_long_as_it_can_be(sequences):
    for prompts in sequences:
        n = shared([one.input_ids for one in prompts])
        assert (prompts[0].input_ids[:n] == prompts[1].input_ids[:n]).all()
        assert prompts[0].input_ids[n] != prompts[1].input_ids[n]
        assert n > prompts[0].n_image_tokens
    assert shared([np.array([1, 2, 3]), np.array([1, 2, 3])]) == 2
    assert shared([np.array([1, 2]), np.array([3, 2])]) == 0


def test_prompts_that_differ_before_the_image_still_read_it(steer_vlm, random_vlm):
    """The shared part ends before the image, so the image is in what each prompt has for itself."""
    made = [Preparer.from_path(random_vlm, image_prompt=prompt) for prompt in ("see : <image> what ?", "look : <image> what ?")]
    prompts = [prepared(prepare, sample(1)) for prepare in made]
    (asked,) = lay_out(steer_vlm, [prompts], SITES[:1], {})
    for i, one in enumerate(prompts):
        embeds = torch.cat([asked.prefix.h, asked.suffixes[i].h])
        assert len(embeds) == len(one)
        (alone,) = lay_out(steer_vlm, [[one]], SITES[:1], {})
        torch.testing.assert_close(embeds, torch.cat([alone.prefix.h, alone.suffixes[0].h]))
