"""Asking the model about scenes: inputs by the stock processor, answers by the stock `generate`, states and edits by hooks.

Layer k is the residual stream entering block k; the last one comes after the last block, before the final norm.
"""

# transformers leaves these types open.
# pyright: reportCallIssue=false, reportAttributeAccessIssue=false

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import BatchFeature, LlavaNextForConditionalGeneration, LlavaNextProcessor

from linrep.demo.language import prompt
from linrep.demo.scene import Scene
from linrep.demo.views import stored_picture


@dataclass(frozen=True)
class Group:
    """Scenes of one size with one question each of equal length, so that nothing is padded. `rows` are their places in the list asked."""

    rows: list[int]
    inputs: BatchFeature

    def image_tokens(self, image_token_id: int) -> Bool[Tensor, "b t"]:
        return self.inputs["input_ids"] == image_token_id


def group(processor: LlavaNextProcessor, scenes: list[Scene], questions: list[str], batch_size: int = 64) -> Iterator[Group]:
    """Inputs of all scenes in as few batches as their sizes and their questions' lengths allow."""
    alike: dict[tuple[int, int, int], list[int]] = {}
    for i, (scene, question) in enumerate(zip(scenes, questions, strict=True)):
        alike.setdefault((scene.width, scene.height, len(question.split())), []).append(i)
    for rows in alike.values():
        for start in range(0, len(rows), batch_size):
            some = rows[start : start + batch_size]
            inputs = processor(
                images=[stored_picture(scenes[i]) for i in some],
                text=[prompt(questions[i]) for i in some],
                return_tensors="pt",
            )
            yield Group(some, inputs)


@torch.no_grad()
def answers(
    model: LlavaNextForConditionalGeneration, processor: LlavaNextProcessor, groups: list[Group], max_new_tokens: int
) -> list[str]:
    """Greedy answers, in the order of the scenes that the groups were made from."""
    said: dict[int, str] = {}
    for some in groups:
        out = model.generate(**some.inputs, max_new_tokens=max_new_tokens, do_sample=False)
        texts = processor.batch_decode(out[:, some.inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        said.update(zip(some.rows, texts, strict=True))
    return [said[i] for i in range(len(said))]


def _sites(model: LlavaNextForConditionalGeneration) -> list[nn.Module]:
    """The modules whose inputs are layers 0 .. n."""
    decoder = model.model.language_model
    return [*decoder.layers, decoder.norm]


@contextmanager
def recorded(model: LlavaNextForConditionalGeneration) -> Iterator[list[Float[Tensor, "b t d"]]]:
    """Within, each forward pass leaves the states of all layers in the yielded list, replacing those before."""
    states: list[Tensor] = [torch.empty(0)] * len(_sites(model))

    def keep(layer: int):
        def hook(_: nn.Module, args: tuple) -> None:
            states[layer] = args[0].detach()

        return hook

    hooks = [site.register_forward_pre_hook(keep(layer)) for layer, site in enumerate(_sites(model))]
    try:
        yield states
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def added(
    model: LlavaNextForConditionalGeneration, layer: int, where: Bool[Tensor, "b t"], vectors: Float[Tensor, "b d"]
) -> Iterator[None]:
    """Within, each row's vector is added at its marked positions of one layer, in the pass over the prompt only."""

    def hook(_: nn.Module, args: tuple) -> tuple | None:
        if args[0].shape[1] != where.shape[1]:  # generated tokens come one by one, and read the edited prompt from the cache
            return None
        return (args[0] + where[..., None] * vectors[:, None], *args[1:])

    handle = _sites(model)[layer].register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()
