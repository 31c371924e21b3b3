"""Passes through a shared prefix against transformers' own `generate` and against one pass over everything."""

import pytest
import torch

from linrep.vlm.batch import collate
from linrep.vlm.decode import Edited, alone, at_last, decode, embed, embed_ids, greedy, lens, logits, pad, run, stack
from linrep.vlm.hooks import edit, forward, record
from linrep.vlm.prepared import Role


def close(a, b, atol=2e-4):
    torch.testing.assert_close(a, b, atol=atol, rtol=1e-4)


@pytest.fixture
def prepared(preparer, mixed):
    return [preparer(sample) for sample in mixed]


def split_at(streams, cuts, join=stack):
    first, rest = [s[:c] for s, c in zip(streams, cuts, strict=True)], [s[c:] for s, c in zip(streams, cuts, strict=True)]
    return join(first), join(rest)


def test_layer_0_without_running_a_block_is_layer_0(vlm, prepared):
    with record(vlm, [0]) as found:
        forward(vlm, collate(prepared, vlm))
    for i, stream in enumerate(embed(vlm, prepared)):
        assert torch.equal(stream.h, found[0][i, : len(prepared[i])])


def test_two_passes_through_the_cache_equal_one(vlm, prepared):
    streams = embed(vlm, prepared)
    (whole, real), cuts = stack(streams), [len(s) // 2 for s in streams]
    _, at_once = run(vlm, whole, real)
    (first, first_real), (rest, rest_real) = split_at(streams, cuts)
    context, _ = run(vlm, first, first_real)
    _, after = run(vlm, rest, rest_real, context)
    for i, cut in enumerate(cuts):
        close(after[i, : len(streams[i]) - cut], at_once[i, cut : len(streams[i])])


def test_a_context_is_not_changed_by_what_continues_it(vlm, prepared):
    streams = embed(vlm, prepared[:2])
    (first, first_real), (rest, rest_real) = split_at(streams, [9, 11])
    context, _ = run(vlm, first, first_real)
    before = [layer.keys.clone() for layer in context.cache.layers]
    one = run(vlm, rest, rest_real, context)[1]
    two = run(vlm, rest, rest_real, context)[1]
    assert torch.equal(one, two)
    assert all(torch.equal(a, b.keys) for a, b in zip(before, context.cache.layers, strict=True))


def test_greedy_answers_equal_generate_also_with_an_edit_in_prefix_and_answer(vlm, prepared):
    batch = collate(prepared, vlm, "left")
    shift = 2 * torch.randn(32, generator=torch.Generator().manual_seed(1))
    vlm.model.generation_config.eos_token_id = None
    with edit(vlm, {2: lambda h: h * 0.5 + shift}, batch.image_mask, generated=True):
        out = vlm.model.generate(**batch.prompt(), max_new_tokens=4, min_new_tokens=4, do_sample=False)
    wanted = out[:, batch.input_ids.shape[1] :].tolist()
    plain = vlm.model.generate(**batch.prompt(), max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert not torch.equal(plain, out)
    vlm.model.generation_config.eos_token_id = 2

    streams = embed(vlm, prepared)
    masks = [torch.from_numpy(p.role >= Role.IMAGE) for p in prepared]
    cuts = [len(s) - 2 for s in streams]
    (first, first_real), (rest, rest_real) = split_at(streams, cuts)
    (first_mask, _), (rest_mask, _) = split_at(masks, cuts, pad)
    edits = {2: lambda h, rows: h * 0.5 + shift}
    context, _ = run(vlm, first, first_real, None, Edited(edits, first_mask.bool()))
    context, hidden = run(vlm, rest, rest_real, context, Edited(edits, rest_mask.bool()))
    said = greedy(vlm, context, logits(vlm, at_last(hidden, rest_real)), 4, edits, torch.ones(len(prepared), dtype=torch.bool))
    for mine, theirs in zip(said, wanted, strict=True):
        end = theirs.index(2) if 2 in theirs else 4
        assert mine == theirs[:end]


def test_an_answer_ends_before_its_end_of_sequence(vlm, prepared):
    streams = embed(vlm, prepared[:3])
    context, hidden = run(vlm, *(both := stack(streams)))
    first = logits(vlm, at_last(hidden, both[1]))
    free = greedy(vlm, context, first, 4)
    assert all(len(row) == 4 for row in free)
    vlm.model.generation_config.eos_token_id = [free[1][2]]
    try:
        ended = greedy(vlm, context, first, 4)
    finally:
        vlm.model.generation_config.eos_token_id = 2
    assert ended[1] == free[1][: free[1].index(free[1][2])]
    assert len(decode(vlm, ended)) == 3


def test_rows_of_a_context_can_be_taken_more_than_once(vlm, prepared):
    streams = embed(vlm, prepared[:2])
    context, _ = run(vlm, *stack(streams))
    ids = torch.tensor([[5], [6], [7]])
    many = context.rows([1, 0, 1])
    _, together = run(vlm, embed_ids(vlm, ids), torch.ones(3, 1, dtype=torch.bool), many)
    for i, row in enumerate([1, 0, 1]):
        single, _ = run(vlm, *alone(streams[row]))
        _, hidden = run(vlm, embed_ids(vlm, ids[i : i + 1]), torch.ones(1, 1, dtype=torch.bool), single)
        close(together[i], hidden[0])


def test_the_lens_at_the_last_layer_is_the_models_own_prediction(vlm, prepared):
    (stream,) = embed(vlm, prepared[:1])
    mask = torch.zeros(len(stream), dtype=torch.bool)
    mask[[3, 20, len(stream) - 1]] = True
    read = {}
    for layer, piece in lens(vlm, stream, {0: mask, 3: mask}, piece=2):
        read[layer] = torch.cat([read[layer], piece]) if layer in read else piece
    _, hidden = run(vlm, *alone(stream))
    close(read[3], logits(vlm, hidden[0, mask]))
    close(read[0], vlm.model.lm_head(vlm.text.norm(stream.h[mask])))
    assert (read[0] - read[3]).abs().max() > 0.01
