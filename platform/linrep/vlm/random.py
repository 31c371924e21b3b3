"""A LLaVA-NeXT of random weights and any size, for benchmarks and tests: all of it real but what it knows."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    MistralConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from linrep.vlm.processor import quiet

SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", "<image>")

_CORPUS = """A red boat lies in the harbour. The old tree stands near the house on the hill. What is shown in this picture?
There is a small key on the table. Two dogs run over the green field. The cat sleeps under a blue chair. USER: ASSISTANT:
A church with a tall tower, a garbage truck, a French horn, a parachute in the sky, a golf ball, a gas pump, a chain saw.
The colour of the background is white. It is a photograph of a fish. Describe the image in one word. yes no."""


def write_random_vlm(
    folder: str | Path,
    *,
    width: int = 32,
    n_layers: int = 3,
    n_heads: int = 4,
    mlp: int | None = None,
    vocab: int = 512,
    image_size: int = 28,
    patch_size: int = 7,
    vision_width: int = 16,
    vision_layers: int = 3,
    vision_heads: int = 2,
    grid_pinpoints: Sequence[Sequence[int]] | None = None,
    text: Literal["mistral", "llama"] = "mistral",
    max_positions: int = 4096,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Path:
    """Write a LLaVA-NeXT of random weights, with its processor, as `save_pretrained` would.

    Args:
        folder: Made if it is not there.
        width: Of the residual stream; a multiple of twice `n_heads`.
        n_layers: Blocks of the language model.
        n_heads: Attention heads of the language model, with half as many for keys and values where that divides.
        mlp: Inner width of the language model's blocks; four times the width if None.
        vocab: Rows of the embedding matrix; the tokenizer learns as many tokens from a few sentences as there are, at most this.
        image_size: Side of a tile in pixels.
        patch_size: Side of a patch in pixels; divides `image_size`.
        vision_width: Width of the vision tower.
        vision_layers: Its blocks; the output of the one before the last is projected, as in LLaVA.
        vision_heads: Its attention heads.
        grid_pinpoints: Canvases of the any-resolution tiling; LLaVA-NeXT's own five shapes in units of a tile if None.
        text: Family of the language model.
        max_positions: Longest sequence.
        dtype: Of the stored weights.
        seed: Of the weights.

    Returns:
        The folder.
    """
    folder = Path(folder)
    s = image_size
    pinpoints = [list(p) for p in grid_pinpoints or [(s, 2 * s), (2 * s, s), (2 * s, 2 * s), (3 * s, s), (s, 3 * s)]]
    tokenizer = make_tokenizer(vocab)
    text_class = {"mistral": MistralConfig, "llama": LlamaConfig}[text]
    config = LlavaNextConfig(
        text_config=text_class(
            hidden_size=width,
            intermediate_size=mlp or 4 * width,
            num_hidden_layers=n_layers,
            num_attention_heads=n_heads,
            num_key_value_heads=n_heads // 2 if n_heads % 2 == 0 else n_heads,
            vocab_size=vocab,
            max_position_embeddings=max_positions,
            initializer_range=width**-0.5,  # large enough that each block moves the stream visibly
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=3,
        ),
        vision_config=CLIPVisionConfig(
            hidden_size=vision_width,
            intermediate_size=4 * vision_width,
            num_hidden_layers=vision_layers,
            num_attention_heads=vision_heads,
            image_size=image_size,
            patch_size=patch_size,
        ),
        image_token_index=SPECIAL.index("<image>"),
        image_grid_pinpoints=pinpoints,
        image_seq_length=(image_size // patch_size) ** 2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = LlavaNextForConditionalGeneration(config)
    processor = LlavaNextProcessor(
        image_processor=LlavaNextImageProcessorPil(
            size={"shortest_edge": image_size},
            crop_size={"height": image_size, "width": image_size},
            image_grid_pinpoints=pinpoints,
        ),
        tokenizer=tokenizer,
        patch_size=patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    folder.mkdir(parents=True, exist_ok=True)
    with quiet():
        model.to(dtype).save_pretrained(folder)
        processor.save_pretrained(folder)
    return folder


def make_tokenizer(vocab: int) -> PreTrainedTokenizerFast:
    """A tokenizer of Llama's kind: byte pairs within words marked by a low line, unknown characters as bytes, BOS in front."""
    n_bytes = 256
    if vocab < len(SPECIAL) + n_bytes + 64:
        raise ValueError(f"vocab must be at least {len(SPECIAL) + n_bytes + 64} (specials, bytes and letters), got {vocab}")
    learner = Tokenizer(models.BPE(unk_token="<unk>"))
    learner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])  # pyright: ignore
    trainer = trainers.BpeTrainer(vocab_size=vocab - len(SPECIAL) - n_bytes, special_tokens=[], show_progress=False)  # pyright: ignore
    learner.pre_tokenizer = pre_tokenizers.Split(Regex("▁[^▁]*"), "isolated")  # pyright: ignore
    learner.train_from_iterator(io.StringIO(_CORPUS), trainer)

    learned = json.loads(learner.to_str())["model"]
    names = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(n_bytes)), *sorted(learned["vocab"], key=learned["vocab"].get)]
    merges = [tuple(pair) for pair in learned["merges"]]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={name: i for i, name in enumerate(names)}, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True
        )
    )
    tokenizer.normalizer = learner.normalizer
    tokenizer.decoder = decoders.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    tokenizer.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
        padding_side="left",
    )
