"""What a model says of images in its own words: the likeliest token after the likeliest token, in the place of their captions."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from linrep.vlm.batch import pack
from linrep.vlm.decode import at_last, decode, embed, greedy, logits, run, stack
from linrep.vlm.load import VLM
from linrep.vlm.prepared import Prepared, Role


@torch.inference_mode()
def in_own_words(vlm: VLM, captions: Sequence[Prepared], max_new_tokens: int, tokens_per_batch: int) -> list[Prepared]:
    """The same images under the same prompt, with what the model says where their caption begins.

    A model says one thing in the wording that it has learnt. The loss on another wording is that of the wording, whatever
    happens to the image.

    Args:
        vlm: The whole model, with its head.
        captions: Images with a text after them. What stands behind the text is left out.
        max_new_tokens: Tokens to say, at most; no end token is among them.
        tokens_per_batch: Positions of a micro-batch.

    Returns:
        In their order, without those of which the model says nothing.

    Raises:
        ValueError: A sample has no image, or a text before it.
    """
    prompts = [_before_text(one) for one in captions]
    said: dict[int, Prepared] = {}
    for indices in pack([len(one) + max_new_tokens for one in prompts], tokens_per_batch):
        stream, real = stack(embed(vlm, [prompts[i] for i in indices]))
        context, hidden = run(vlm, stream, real)
        tokens = greedy(vlm, context, logits(vlm, at_last(hidden, real)), max_new_tokens)
        for i, own, words in zip(indices, tokens, decode(vlm, tokens), strict=True):
            if own:
                said[i] = _followed(prompts[i], own, words)
    return [said[i] for i in sorted(said)]


def _before_text(one: Prepared) -> Prepared:
    of_text = np.flatnonzero(one.role == Role.TEXT)
    of_image = np.flatnonzero(one.role >= Role.IMAGE)
    if not len(of_image) or not len(of_text) or of_text[0] < of_image[-1]:
        raise ValueError(f"{one.sample.id}: a model describes an image that its text follows, and this is none")
    end = of_text[0]
    cut = {name: getattr(one, name)[:end] for name in ("input_ids", "role", "tile", "row", "col", "image")}
    return replace(one, **cut, marks=None)


def _followed(prompt: Prepared, tokens: Sequence[int], words: str) -> Prepared:
    n = len(tokens)
    nowhere = {
        name: np.concatenate([getattr(prompt, name), np.full(n, -1, np.int16)]) for name in ("tile", "row", "col", "image")
    }
    return replace(
        prompt,
        sample=replace(prompt.sample, text=words),
        input_ids=np.concatenate([prompt.input_ids, np.asarray(tokens, np.int32)]),
        role=np.concatenate([prompt.role, np.full(n, Role.TEXT, np.uint8)]),
        **nowhere,
    )
