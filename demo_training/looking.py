"""Asking the model about scenes: inputs by the stock processor, answers by the stock `generate`."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from transformers import BatchFeature, LlavaNextForConditionalGeneration, LlavaNextProcessor

from demo_training.views import stored_image
from linrep.demo.language import IMAGE_TOKEN
from linrep.demo.scene import Scene


@dataclass(frozen=True)
class Group:
    """Scenes of one size, or prompts without an image, all of one length: nothing is padded. `rows` are their places in the list
    asked.
    """

    rows: list[int]
    inputs: BatchFeature


def group(processor: LlavaNextProcessor, scenes: list[Scene], prompts: list[str], batch_size: int = 64) -> Iterator[Group]:
    """Inputs of all scenes in as few batches as their sizes and their prompts' lengths allow.

    Args:
        processor: The model's.
        scenes: Whose image is shown where the prompt holds one.
        prompts: One for each scene.
        batch_size: Scenes in a batch, at most.
    """
    n_tokens = {prompt: len(processor.tokenizer(prompt).input_ids) for prompt in set(prompts)}
    alike: dict[tuple[int, int, int], list[int]] = {}
    for i, (scene, prompt) in enumerate(zip(scenes, prompts, strict=True)):
        width, height = (scene.width, scene.height) if IMAGE_TOKEN in prompt else (0, 0)
        alike.setdefault((width, height, n_tokens[prompt]), []).append(i)
    for (width, _, _), rows in alike.items():
        for start in range(0, len(rows), batch_size):
            some = rows[start : start + batch_size]
            inputs = processor(
                images=[stored_image(scenes[i]) for i in some] if width else None,
                text=[prompts[i] for i in some],
                return_tensors="pt",  # pyright: ignore[reportCallIssue]
            )
            yield Group(some, inputs)


@torch.no_grad()
def answers(
    model: LlavaNextForConditionalGeneration, processor: LlavaNextProcessor, groups: list[Group], max_new_tokens: int
) -> list[str]:
    """Greedy answers, in the order of the scenes that the groups were made from."""
    said: dict[int, str] = {}
    for some in groups:
        out = model.generate(**some.inputs, max_new_tokens=max_new_tokens, do_sample=False)  # pyright: ignore[reportAttributeAccessIssue]
        texts = processor.batch_decode(out[:, some.inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        said.update(zip(some.rows, texts, strict=True))
    return [said[i] for i in range(len(said))]
