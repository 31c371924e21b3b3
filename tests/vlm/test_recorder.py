"""The recorder of sites: what it sees, when, and that nothing of it stays; what it sees is held by the families' laws."""

import pytest
import torch
from torch import nn

from linrep.errors import ModelError
from linrep.vlm.batch import collate
from linrep.vlm.hooks import edit, forward, record
from linrep.vlm.recorder import record_sites
from linrep.vlm.sites import Site

PROJECTOR, TOWER = Site("projector"), Site("tower")
ALL = [Site("residual", 1), Site("attention", 1), Site("mlp", 1), PROJECTOR, TOWER]


@pytest.fixture
def batch(vlm, preparer, mixed):
    return collate([preparer(sample) for sample in mixed], vlm)


def hooks(vlm):
    """Hooks of all modules, without those that transformers installs once and keeps, which a first pass has put there."""
    own = sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in vlm.model.modules())
    return own, "get_image_features" in vars(vlm.inner)


def test_the_residual_stream_is_that_of_the_plain_recorder(vlm, batch):
    with record(vlm, [0, 3]) as plain, record_sites(vlm, [Site("residual", 0), Site("residual", 3)]) as found:
        forward(vlm, batch)
    assert all(torch.equal(found[Site("residual", k)], plain[k]) for k in (0, 3))


def test_no_hook_stays_also_after_an_exception(vlm, batch):
    forward(vlm, batch)
    before = hooks(vlm)
    assert not before[1]
    with record_sites(vlm, ALL) as found:
        forward(vlm, batch)
        assert hooks(vlm) != before
    assert set(found) == set(ALL)
    assert hooks(vlm) == before
    for site in ALL:

        def fail(site, h):
            raise RuntimeError("on purpose")

        with pytest.raises(RuntimeError, match="on purpose"), record_sites(vlm, [site], fail):
            forward(vlm, batch)
        assert hooks(vlm) == before


def test_take_keeps_only_what_it_returns(vlm, batch):
    with record_sites(vlm, ALL) as whole, record_sites(vlm, ALL, lambda site, h: (str(site), h.sum())) as taken:
        forward(vlm, batch)
    assert [name for name, _ in taken.values()] == [str(site) for site in taken]
    assert all(torch.equal(taken[site][1], whole[site].sum()) for site in ALL)


def test_a_pass_without_an_image_has_no_projector_and_no_tower(vlm, batch, preparer, make):
    with record_sites(vlm, ALL) as found:
        forward(vlm, batch)
        assert {PROJECTOR, TOWER} < set(found)
        forward(vlm, collate([preparer(make(text="a tree"))], vlm))
        assert set(found) == set(ALL[:3])


def test_an_edit_of_a_layer_is_felt_by_what_its_block_adds_and_not_before(vlm, batch):
    sites = [Site(name, k) for k in range(3) for name in ("attention", "mlp")]
    with record_sites(vlm, sites) as plain:
        forward(vlm, batch)
    with edit(vlm, {1: lambda h: h * 0.5 + 1}, batch.image_mask), record_sites(vlm, sites) as edited:
        forward(vlm, batch)
    same = {site for site in sites if torch.equal(plain[site], edited[site])}
    assert same == {Site("attention", 0), Site("mlp", 0)}


def test_a_block_beyond_the_model_is_refused_and_nothing_stays(vlm, batch):
    forward(vlm, batch)
    before = hooks(vlm)
    with pytest.raises(ValueError, match="block 3 is not among the 3 blocks"), record_sites(vlm, [*ALL, Site("mlp", 3)]):
        pass
    assert hooks(vlm) == before


def test_a_block_of_another_build_is_refused(vlm):
    """Of one that has other norms, or that scales what it adds, the output of its modules is not what it adds."""
    names = ("self_attn", "mlp", "input_layernorm", "post_attention_layernorm")
    plain = nn.ModuleDict({name: nn.Identity() for name in names})
    assert vlm.family.adding(plain) == (plain["self_attn"], plain["mlp"])
    scaled = nn.ModuleDict({name: nn.Identity() for name in names})
    scaled.residual_multiplier = 0.2
    more = nn.ModuleDict({name: nn.Identity() for name in (*names, "post_feedforward_layernorm")})
    for block in (scaled, more):
        with pytest.raises(
            ModelError, match=r"what a ModuleDict of .* adds to the stream is not known: say it in LlavaNext\.adding"
        ):
            vlm.family.adding(block)
