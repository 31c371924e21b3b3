"""The laws of a family's sites, held against the model as transformers alone runs it; `Laws` inherits them."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from linrep.harvest.config import HarvestConfig
from linrep.harvest.harvester import Harvester
from linrep.store.layout import NO_LAYER
from linrep.vlm.batch import Batch, collate
from linrep.vlm.config import ModelConfig
from linrep.vlm.families import layout
from linrep.vlm.hooks import forward
from linrep.vlm.load import VLM, load
from linrep.vlm.patches import patches_of
from linrep.vlm.prepared import Prepared, Role
from linrep.vlm.recorder import record_sites
from linrep.vlm.sites import Site
from tests.vlm.families.silence import quiet_attention, silent
from tests.vlm.families.tiny import close

PROJECTOR, TOWER = Site("projector"), Site("tower")
ADDED = [Site(name, k) for k in range(3) for name in ("attention", "mlp")]
STREAM = [Site("residual", k) for k in range(4)]


def seen(vlm: VLM, batch: Batch, sites: Sequence[Site]) -> dict[Site, Tensor]:
    with record_sites(vlm, sites) as found:
        forward(vlm, batch)
    return found


def with_image(prepared: Sequence[Prepared]) -> list[Prepared]:
    return [one for one in prepared if one.pixels is not None]


class SiteLaws:
    """What holds of every family's sites."""

    def test_a_layer_and_what_its_block_adds_is_the_next_layer(self, vlm, official, prepared):
        batch = collate(prepared, vlm)
        found = seen(vlm, batch, [*ADDED, *STREAM])
        later = added_later(vlm, official, batch)
        for k in range(3):
            attention, mlp = found[Site("attention", k)], found[Site("mlp", k)]
            real = batch.attention_mask
            assert min(attention[real].norm(dim=-1).min(), mlp[real].norm(dim=-1).min()) > 1e-3
            whole = found[Site("residual", k)] + attention + mlp
            if k < len(later):
                whole[batch.image_mask] += later[k]
            close(found[Site("residual", k + 1)][real], whole[real])

    def test_what_a_block_adds_is_what_the_official_models_does(self, vlm, official, prepared):
        """The stream in the middle of a block is what enters the norm in front of its MLP."""
        for one in prepared:
            found = seen(vlm, collate([one], vlm), ADDED)
            with official_blocks(official) as blocks, torch.inference_mode():
                official(**collate([one], vlm).inputs(), use_cache=False)
            for k, (enters, middle, leaves) in enumerate(blocks):
                close(found[Site("attention", k)], middle - enters)
                close(found[Site("mlp", k)], leaves - middle)

    def test_what_the_projector_gives_is_layer_0_at_the_images(self, vlm, official, prepared):
        batch = collate(prepared, vlm)
        found = seen(vlm, batch, [PROJECTOR, STREAM[0]])
        assert found[PROJECTOR].shape == (sum(one.n_image_tokens for one in prepared), vlm.card.width)
        assert torch.equal(found[PROJECTOR], found[STREAM[0]][batch.image_mask])
        close(found[PROJECTOR], official_features(official, batch))
        newlines = batch.role[batch.image_mask] == int(Role.NEWLINE)
        if newlines.any():
            close(found[PROJECTOR][newlines], official.model.image_newline.expand(int(newlines.sum()), -1))

    def test_the_tower_has_as_many_patches_and_as_wide_as_the_family_says(self, vlm, prepared):
        images = with_image(prepared)
        tokens = [tower_tokens(vlm, one) for one in images]
        width = vlm.family.tower_width(vlm.inner.config)
        for one, own in zip(images, tokens, strict=True):
            assert len(own) == len(one.pixels)
            assert own.max() < one.n_image_tokens
        found = seen(vlm, collate(prepared, vlm), [TOWER])[TOWER]
        assert found.shape == (sum(map(len, tokens)), tokens[0].shape[1], width)

    def test_a_patch_of_the_tower_is_a_part_of_the_token_that_the_family_says(self, vlm, prepared, monkeypatch):
        """The pixels of one patch are changed in a tower without attention: it moves alone, and just its token does."""
        for module in quiet_attention(vlm):
            monkeypatch.setattr(module, "forward", silent(module))
        for one in with_image(prepared):
            batch, tokens = collate([one], vlm), tower_tokens(vlm, one)
            before = seen(vlm, batch, [TOWER, PROJECTOR])
            for tile, i in tried(tokens):
                after = seen(vlm, self.changed(batch, vlm, one, tile, i), [TOWER, PROJECTOR])
                assert moved(before[TOWER], after[TOWER]).tolist() == [[tile, i]]
                there = moved(before[PROJECTOR], after[PROJECTOR]).flatten().tolist()
                token = int(tokens[tile, i])
                if token >= 0:
                    assert there == [token]
                elif not self.resampled(one, tokens):
                    assert there == []

    def changed(self, batch: Batch, vlm: VLM, one: Prepared, tile: int, i: int) -> Batch:
        """The same with other pixels in one patch of one tile."""
        return changed(batch, vlm.card.patch_size, tile, i, tower_tokens(vlm, one).shape[1])

    def resampled(self, one: Prepared, tokens: np.ndarray) -> bool:
        """The tokens of the crops mix patches."""
        return False

    def test_all_image_tokens_but_newlines_have_patches_of_the_tower(self, vlm, prepared):
        for one in with_image(prepared):
            tokens = tower_tokens(vlm, one)
            roles = one.role[one.role >= Role.IMAGE]
            wanted = np.flatnonzero(roles == Role.IMAGE)
            if self.resampled(one, tokens):
                wanted = wanted[: tokens.shape[1]]
            assert sorted(set(tokens[tokens >= 0].tolist())) == wanted.tolist()

    def test_a_patch_lies_where_its_token_does(self, vlm, prepared):
        """On a grid of its own, on which the patches of a token are a square."""
        for one in with_image(prepared):
            own, tokens = patches_of(one, vlm.card), tower_tokens(vlm, one)
            whole = [tuple(place) for place in zip(own.tile > 0, own.row, own.col, strict=True)]
            assert len(set(whole)) == len(own) == tokens.size
            there = own.position >= 0
            at = own.position[there]
            assert (one.input_ids[at] == vlm.card.image_token_id).all()
            assert np.array_equal(own.tile[there], one.tile[at])
            assert np.array_equal(own.image[there], one.image[at])
            step = round((np.bincount(at).max()) ** 0.5)
            for crops in (False, True):
                some = (own.tile[there] > 0) == crops
                for mine, of_token in ((own.row, one.row), (own.col, one.col)):
                    left = np.unique(mine[there][some] // step - of_token[at][some])
                    assert len(left) <= 1  # the padding in front of the crops
                    assert crops or left.tolist() == [0]
            side = round(tokens.shape[1] ** 0.5)
            if side > 1:  # a tile has its patches row by row
                i = np.arange(tokens.size) % tokens.shape[1]
                assert np.array_equal((own.row % side, own.col % side), np.divmod(i, side))
            assert not own.padding[there].any()
            if not self.resampled(one, tokens):
                assert np.array_equal(own.padding, ~there)

    def test_a_harvest_keeps_the_patches_of_the_whole_model(self, config: ModelConfig, official, prepared):
        """Seen there by a plain hook, sample by sample; here the model is cut before its first block."""
        cut = load(config, 0)
        named = [replace(one, sample=replace(one.sample, id=str(i))) for i, one in enumerate(prepared)]
        together = tower_rows(cut, named)
        assert set(together) == {one.sample.id for one in with_image(named)}
        for one in with_image(named):
            wanted = hooked_patches(official, cut, one)
            patches, mean = together[one.sample.id]
            close(patches, wanted)
            close(mean, wanted[torch.from_numpy(~patches_of(one, cut.card).padding)].mean(0))
            close(tower_rows(cut, [one])[one.sample.id][0], patches)

    def test_sites_of_a_cut_model_are_the_whole_models(self, config: ModelConfig, vlm, prepared):
        cut, batch = load(config, 2), collate(prepared, vlm)
        sites = [*ADDED[:4], *STREAM[:3], PROJECTOR, TOWER]
        whole, mine = seen(vlm, batch, sites), seen(cut, collate(prepared, cut), sites)
        for site in sites:
            some = batch.attention_mask if site.layer is not None else ...
            close(mine[site][some], whole[site][some])

    def test_sites_of_a_batch_are_its_samples_alone(self, vlm, prepared):
        together = seen(vlm, collate(prepared, vlm), [*ADDED, PROJECTOR, TOWER])
        alone = [seen(vlm, collate([one], vlm), [*ADDED, PROJECTOR, TOWER]) for one in prepared]
        for i, one in enumerate(prepared):
            for site in ADDED:
                close(together[site][i, : len(one)], alone[i][site][0])
        for site in (PROJECTOR, TOWER):
            assert [site in own for own in alone] == [one.pixels is not None for one in prepared]
            close(together[site], torch.cat([own[site] for own in alone if site in own]))


def tower_rows(vlm: VLM, prepared: Sequence[Prepared]) -> dict[str, tuple[Tensor, Tensor]]:
    """What a harvest keeps of the tower: patches and mean of each sample that shows an image."""
    config = HarvestConfig(layers=(0,), views=("pooled", "tokens"), sites=("tower",), tokens_per_sample=None, dtype="float32")
    (rows,) = Harvester(vlm, config, (0,), 10**6)(prepared)
    found = []
    for view in ("tokens", "pooled"):
        table = rows.tables[f"{view}/site=tower", NO_LAYER, "image"]
        vectors = torch.frombuffer(bytearray(b"".join(table["vector"].to_pylist())), dtype=torch.float32).view(len(table), -1)
        ids = np.array(table["sample_id"].to_pylist())
        found.append({str(name): vectors[torch.from_numpy(ids == name)] for name in dict.fromkeys(ids)})
    return {name: (patches, found[1][name][0]) for name, patches in found[0].items()}


def hooked_patches(official: Any, vlm: VLM, one: Prepared) -> Tensor:
    """The patches of a sample in the official model, one after the other."""
    seen: list[Tensor] = []
    handle = vlm.family.tower(official.model).register_forward_hook(
        lambda _, args, kwargs, out: seen.append(vlm.family.tower_patches(official.model, args, kwargs, out).clone()),
        with_kwargs=True,
    )
    try:
        with torch.inference_mode():
            official(**collate([one], vlm).inputs(), use_cache=False)
    finally:
        handle.remove()
    (found,) = seen
    return found.flatten(0, 1)


def tower_tokens(vlm: VLM, one: Prepared) -> np.ndarray:
    return vlm.family.tower_tokens(layout(one.image_size, vlm.card), vlm.card.vision)


def tried(tokens: np.ndarray) -> list[tuple[int, int]]:
    """Some patches of each kind: with a token and without."""
    found: list[tuple[int, int]] = []
    for of in (tokens >= 0, tokens < 0):
        places = np.argwhere(of).tolist()
        found += [(tile, i) for tile, i in places[:: max(1, len(places) // 6)]]
    return found


def changed(batch: Batch, side: int, tile: int, i: int, n: int) -> Batch:
    """The same with other pixels in one patch of one tile."""
    pixels = batch.beside["pixel_values"].clone()
    tiles = pixels.view(-1, *pixels.shape[-3:]) if n > 1 else pixels
    row, col = divmod(i, int(n**0.5))
    at = (slice(None), slice(row * side, (row + 1) * side), slice(col * side, (col + 1) * side)) if n > 1 else ...
    tiles[tile][at] += 1
    return replace(batch, beside={**batch.beside, "pixel_values": pixels})


def moved(before: Tensor, after: Tensor) -> Tensor:
    """Where vectors differ."""
    return ((after - before).abs().amax(-1) > 1e-5).nonzero()


def official_features(official: Any, batch: Batch) -> Tensor:
    """What the official model makes of the images."""
    found = official_images(official, batch).pooler_output
    return found.flatten(0, -2) if isinstance(found, Tensor) else torch.cat([one.flatten(0, -2) for one in found])


def official_images(official: Any, batch: Batch) -> Any:
    named = ("pixel_values", "image_sizes", "image_grid_thw")
    with torch.inference_mode():
        return official.model.get_image_features(**{name: batch.beside[name] for name in named if name in batch.beside})


def added_later(vlm: VLM, official: Any, batch: Batch) -> list[Tensor]:
    """Features of the images that the official model adds after its first blocks."""
    if not vlm.family.adds_later(vlm.card.vision):
        return []
    return [torch.cat(one) for one in official_images(official, batch).deepstack_features]


@contextmanager
def official_blocks(official: Any) -> Iterator[list[list[Tensor]]]:
    """What enters each block, is in its middle, and leaves it, in three tensors for each."""
    blocks = official.get_decoder().layers
    found: list[list[Tensor]] = [[] for _ in blocks]
    with ExitStack() as hooks:
        for own, block in zip(found, blocks, strict=True):
            norm = getattr(block, "pre_feedforward_layernorm", block.post_attention_layernorm)
            for module in (block, norm):
                handle = module.register_forward_pre_hook(lambda _, args, own=own: own.append(args[0].clone()))
                hooks.callback(handle.remove)
            handle = block.register_forward_hook(lambda _, args, out, own=own: own.append(out.clone()))
            hooks.callback(handle.remove)
        yield found
