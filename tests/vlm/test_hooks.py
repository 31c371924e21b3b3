"""Recording against transformers' own hidden states, editing against a slow reference without hooks of ours."""

import io

import pytest
import torch
from jaxtyping import TypeCheckError
from PIL import Image

from linrep.vlm.batch import collate
from linrep.vlm.config import ModelConfig
from linrep.vlm.hooks import edit, edit_rows, forward, record
from linrep.vlm.load import load
from linrep.vlm.prepare import Preparer


def close(a, b):
    assert a.shape == b.shape
    assert (a - b).norm() <= 1e-5 * b.norm(), ((a - b).norm() / b.norm()).item()


@torch.no_grad()
def reference_streams(model, processor, sample):
    """Layers 0..n of one sample alone, by the official processor and `output_hidden_states`, layer n from the last block."""
    image = Image.open(io.BytesIO(sample.image)) if sample.image else None
    text = {"image": "<image>", "pair": f"<image>\n{sample.text}", "text": sample.text}[sample.modality]
    inputs = processor(images=image, text=text, return_tensors="pt")
    last = []
    handle = model.model.language_model.layers[-1].register_forward_hook(lambda module, args, out: last.append(out))
    states = model(**inputs, output_hidden_states=True).hidden_states
    handle.remove()
    close(model.model.language_model.norm(last[0]), states[-1])  # transformers' last entry has the norm applied: not layer n
    return [state[0] for state in (*states[:-1], last[0])]


@pytest.mark.parametrize("name", ["mistral", "llama"])
@pytest.mark.parametrize("padding", ["right", "left"])
def test_record_equals_output_hidden_states_at_every_layer_and_depth(folders, official, mixed, name, padding):
    """A padded batch of images, pairs and texts against each sample alone."""
    config = ModelConfig(path=str(folders[name]))
    prepared = [Preparer.from_path(config)(sample) for sample in mixed]
    expected = [reference_streams(*official[name], sample) for sample in mixed]
    n = len(expected[0]) - 1
    for depth in (*range(n + 1), None):
        vlm = load(config, depth)
        batch = collate(prepared, vlm, padding)
        reach = n if depth is None else depth
        with record(vlm, range(reach + 1)) as found:
            forward(vlm, batch)
        assert sorted(found) == list(range(reach + 1))
        for layer, stream in found.items():
            for i in range(len(mixed)):
                close(stream[i][batch.attention_mask[i]], expected[i][layer])


def test_layers_differ(vlm, preparer, mixed):
    """So that the test above cannot pass by confusing neighbours."""
    with record(vlm, range(4)) as found:
        forward(vlm, collate([preparer(mixed[0])], vlm))
    for k in range(3):
        assert (found[k] - found[k + 1]).norm() > 0.05 * found[k].norm()


def test_take_keeps_only_what_it_returns(vlm, preparer, mixed):
    batch = collate([preparer(sample) for sample in mixed], vlm)
    with record(vlm, [1, 3]) as streams:
        forward(vlm, batch)
    with record(vlm, [1, 3], take=lambda layer, h: (layer, h[batch.image_mask].mean(0))) as taken:
        forward(vlm, batch)
    for layer in (1, 3):
        assert taken[layer][0] == layer
        assert torch.equal(taken[layer][1], streams[layer][batch.image_mask].mean(0))


def test_no_logits_and_no_cache(config, vlm, preparer, make, monkeypatch):
    monkeypatch.setattr(vlm.model.lm_head, "forward", lambda *args: pytest.fail("the head ran"))
    assert forward(vlm, collate([preparer(make(text="a tree"))], vlm)) is None


@pytest.mark.parametrize("depth", [1, 3])
def test_layers_beyond_the_loaded_depth_are_refused(config, depth):
    vlm = load(config, depth)
    for context in (record(vlm, [depth + 1]), edit(vlm, {depth + 1: lambda h: h}, torch.zeros(1, 1, dtype=torch.bool))):
        with pytest.raises(ValueError, match=rf"layer {depth + 1} is not among 0\.\.{depth}"), context:
            pass
    assert hooks_of(vlm) == 0


def hooks_of(vlm):
    return sum(
        len(m._forward_pre_hooks) + len(m._forward_hooks) for m in vlm.text.modules() if m is not vlm.text.rotary_emb
    ) - HOOKS.get(id(vlm.model), 0)


HOOKS: dict[int, int] = {}
"""Hooks of transformers' own capturing, which it installs once and keeps."""


@pytest.fixture
def batch(vlm, preparer, mixed):
    batch = collate([preparer(sample) for sample in mixed], vlm)
    HOOKS[id(vlm.model)] = 0
    HOOKS[id(vlm.model)] = hooks_of(vlm)
    return batch


def all_streams(vlm, batch, edits=None, mask=None, rows=False):
    with record(vlm, range(vlm.reach + 1)) as found:
        if edits is None:
            forward(vlm, batch)
        else:
            with (edit_rows if rows else edit)(vlm, edits, mask), record(vlm, range(vlm.reach + 1)) as found:
                forward(vlm, batch)
    return found


@pytest.mark.parametrize("layer", range(4))
def test_zero_edit_changes_nothing_bitwise(vlm, batch, layer):
    plain = all_streams(vlm, batch)
    edited = all_streams(vlm, batch, {layer: lambda h: h + 0}, batch.attention_mask)
    assert all(torch.equal(plain[k], edited[k]) for k in range(4))


@pytest.mark.parametrize("layer", range(4))
def test_an_edit_moves_exactly_the_masked_positions_then_only_later_ones(vlm, batch, layer):
    mask = torch.zeros_like(batch.attention_mask)
    mask[0, 20], mask[0, 30], mask[1, 5], mask[2, 3] = True, True, True, True
    shift = torch.randn(32, generator=torch.Generator().manual_seed(0))
    plain = all_streams(vlm, batch)
    edited = all_streams(vlm, batch, {layer: lambda h: h + shift}, mask)
    for k in range(4):
        moved = (plain[k] != edited[k]).any(-1)
        if k < layer:
            assert not moved.any()
        elif k == layer:
            assert torch.equal(moved, mask)
            torch.testing.assert_close((edited[k] - plain[k])[mask], shift.expand(4, -1), atol=1e-5, rtol=0)
        else:
            after = mask.cumsum(1) > 0  # at or after the first masked position of the row
            assert not moved[~after].any()
            assert moved[mask].all()
            assert moved[after & batch.attention_mask].float().mean() > 0.9


def test_edit_sees_only_the_masked_vectors_in_their_order(vlm, batch):
    mask = batch.input_ids == vlm.card.image_token_id
    plain = all_streams(vlm, batch)
    seen = []
    all_streams(vlm, batch, {2: lambda h: seen.append(h.clone()) or h}, mask)
    assert torch.equal(seen[0], plain[2][mask])


def test_an_empty_mask_never_calls_the_edit(vlm, batch):
    mask = torch.zeros_like(batch.attention_mask)
    plain = all_streams(vlm, batch)
    edited = all_streams(vlm, batch, {1: lambda h: pytest.fail("called")}, mask)
    assert torch.equal(plain[3], edited[3])


def test_rows_can_have_their_own_edits(vlm, batch):
    """Each row scaled by its own number, against one batch a row."""
    scales = torch.tensor([0.0, 1.0, 2.0, -1.0, 3.0])
    together = all_streams(vlm, batch, {1: lambda h, rows: h * scales[rows, None]}, batch.attention_mask, rows=True)
    for i, scale in enumerate(scales):
        only = torch.zeros_like(batch.attention_mask)
        only[i] = batch.attention_mask[i]
        alone = all_streams(vlm, batch, {1: lambda h, scale=scale: h * scale}, only)
        assert torch.equal(together[3][i], alone[3][i])


def test_edits_at_two_layers_compose(vlm, batch):
    mask = batch.image_mask
    both = all_streams(vlm, batch, {0: lambda h: h * 2, 2: lambda h: h - 1}, mask)
    first = all_streams(vlm, batch, {0: lambda h: h * 2}, mask)
    assert torch.equal(both[1], first[1])
    assert torch.equal(both[2][mask], first[2][mask] - 1)
    assert torch.equal(both[2][~mask], first[2][~mask])


def test_order_of_record_and_edit(vlm, batch):
    change, mask = {1: lambda h: h * 0}, batch.attention_mask
    with record(vlm, [1]) as before, edit(vlm, change, mask), record(vlm, [1]) as after:
        forward(vlm, batch)
    assert (after[1][mask] == 0).all()
    assert (before[1][mask] != 0).any()


def test_hooks_are_gone_after_an_exception(vlm, batch):
    def fail(h):
        raise RuntimeError("on purpose")

    plain = all_streams(vlm, batch)
    for context in (edit(vlm, {1: fail}, batch.attention_mask), record(vlm, [1], take=lambda layer, h: fail(h))):
        with pytest.raises(RuntimeError, match="on purpose"), context:
            forward(vlm, batch)
        assert hooks_of(vlm) == 0
    assert torch.equal(all_streams(vlm, batch)[3], plain[3])


def test_edit_keeps_the_models_type(config, preparer, mixed):
    vlm = load(config, 2, dtype="bfloat16")
    batch = collate([preparer(mixed[0])], vlm)
    found = all_streams(vlm, batch, {1: lambda h: h.float() * 2}, batch.attention_mask)
    assert found[1].dtype == found[2].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (torch.ones(2, 4, dtype=torch.bool), "2 rows, the forward pass 5"),
        (torch.ones(5, 4000, dtype=torch.bool), "covers 4000 positions"),
        (torch.ones(5, 4), "boolean"),
        (torch.ones(5, dtype=torch.bool), "boolean"),
    ],
)
def test_masks_that_do_not_fit_are_refused(vlm, batch, mask, reason):
    with pytest.raises((ValueError, TypeCheckError), match=f"{reason}|Type-check"), edit(vlm, {1: lambda h: h}, mask):
        forward(vlm, batch)
    assert hooks_of(vlm) == 0


def generate(vlm, batch, n, cache=True):
    out = vlm.model.generate(
        **batch.prompt(),
        max_new_tokens=n,
        min_new_tokens=n,
        do_sample=False,
        use_cache=cache,
        return_dict_in_generate=True,
        output_logits=True,
    )
    return out.sequences[:, batch.input_ids.shape[1] :], torch.stack(out.logits, dim=1)


@torch.no_grad()
def generate_slowly(model, batch, n, layer, change, mask, generated):
    """Greedy continuation of each row alone, without padding or cache, recomputing everything each step and editing by hand.

    The edit is a forward hook on the *output* of the block before, not ours on the input of the next.
    """
    ids_all, logits_all = [], []
    tiles = 0
    for i in range(len(batch)):
        real = batch.attention_mask[i]
        ids, row_mask = batch.input_ids[i][real][None], mask[i][real]
        images = {}
        if (ids == model.config.image_token_id).any():
            j = int((batch.input_ids[:i] == model.config.image_token_id).any(1).sum())
            count = N_TILES[tuple(batch.beside["image_sizes"][j].tolist())]
            images = {
                "pixel_values": batch.beside["pixel_values"][tiles : tiles + count],
                "image_sizes": batch.beside["image_sizes"][j : j + 1],
            }
            tiles += count

        def hook(module, args, out, row_mask=row_mask):
            which = torch.full((out.shape[1],), generated)
            which[: len(row_mask)] = row_mask
            out = out.clone()
            out[0, which] = change(out[0, which])
            return out

        handle = model.model.language_model.layers[layer - 1].register_forward_hook(hook)
        steps = []
        for _ in range(n):
            steps.append(model(input_ids=ids, **images, use_cache=False).logits[0, -1])
            ids = torch.cat([ids, steps[-1].argmax()[None, None]], dim=1)
        handle.remove()
        ids_all.append(ids[0, -n:])
        logits_all.append(torch.stack(steps))
    return torch.stack(ids_all), torch.stack(logits_all)


N_TILES = {(50, 40): 5, (100, 30): 4, (20, 90): 4, (28, 28): 3}


@pytest.mark.parametrize("generated", [False, True])
@pytest.mark.parametrize("layer", [1, 3])
def test_edit_in_cached_generation_equals_recomputation(vlm, preparer, mixed, official, layer, generated):
    batch = collate([preparer(sample) for sample in mixed], vlm, "left")
    mask = batch.image_mask.clone()
    mask[:, -1] = True
    shift = 2 * torch.randn(32, generator=torch.Generator().manual_seed(1))

    def change(h):
        return h * 0.5 + shift

    vlm.model.generation_config.eos_token_id = None
    with edit(vlm, {layer: change}, mask, generated=generated):
        ids, logits = generate(vlm, batch, 3)
    slow_ids, slow_logits = generate_slowly(official["mistral"][0], batch, 3, layer, change, mask, generated)
    assert torch.equal(ids, slow_ids)
    torch.testing.assert_close(logits, slow_logits, atol=2e-4, rtol=1e-4)
    _, plain_logits = generate(vlm, batch, 3)
    assert (plain_logits - logits).abs().max() > 0.01
    with edit(vlm, {layer: change}, mask, generated=generated):
        _, uncached = generate(vlm, batch, 3, cache=False)
    torch.testing.assert_close(uncached, logits, atol=2e-4, rtol=1e-4)


def test_generated_positions_are_edited_only_if_asked(vlm, preparer, make):
    batch = collate([preparer(make(text="a tree")), preparer(make(text="the boat lies here"))], vlm, "left")
    for generated, expected in ((False, [4]), (True, [4, 2, 2])):
        calls = []
        mask = torch.zeros_like(batch.attention_mask)
        mask[:, -2:] = True
        with edit(vlm, {1: lambda h, calls=calls: calls.append(len(h)) or h}, mask, generated=generated):
            generate(vlm, batch, 3)
        assert calls == expected


def test_prompts_of_one_token(vlm, preparer):
    """A prefill as short as a decoding step is still recognised."""
    ids = torch.tensor([[1]])
    seen = []
    with edit(vlm, {1: lambda h: seen.append(len(h)) or h}, torch.tensor([[True]])):
        vlm.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, min_new_tokens=3, do_sample=False
        )
    assert seen == [1]


def test_beams_without_a_mask_for_each_are_refused(vlm, preparer, make):
    batch = collate([preparer(make(text="a tree"))], vlm, "left")
    with pytest.raises(ValueError, match="beams"), edit(vlm, {1: lambda h: h}, batch.attention_mask):
        vlm.model.generate(**batch.prompt(), max_new_tokens=2, num_beams=2, do_sample=False)
