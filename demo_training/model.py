"""The tiny LLaVA-NeXT before training: tokenizer, processor and model, all from stock transformers classes."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPVisionConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    MistralConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from demo_training.design import Design
from linrep.demo.language import BOS_ID, EOS_ID, IMAGE_ID, IMAGE_TOKEN, PAD_ID, SPECIAL_TOKENS, vocabulary

TILE = 72
PATCH = 12
GRID = TILE // PATCH
"""A tile has GRID x GRID patches."""
PINPOINTS = [[TILE, TILE], [TILE, 2 * TILE], [2 * TILE, TILE]]
"""Height and width that an image may be cut into; the narrowest that an image fits is taken and its padding dropped again."""

WIDTH = 128
TOWER_WIDTH = 64


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word; `<s>` goes in front of every text."""
    words = vocabulary()
    ids = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", ids["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=[SPECIAL_TOKENS[-1]],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def build_processor() -> LlavaNextProcessor:
    """Images through Pillow, without torchvision; tokens counted as LLaVA-NeXT does, the tower's class token left out."""
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": TILE},
        crop_size={"height": TILE, "width": TILE},
        image_grid_pinpoints=PINPOINTS,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.25, 0.25, 0.25],
    )
    return LlavaNextProcessor(
        images,
        build_tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        image_token=IMAGE_TOKEN,
        num_additional_image_tokens=1,
    )


def build_config(design: Design) -> LlavaNextConfig:
    tower = CLIPVisionConfig(
        hidden_size=TOWER_WIDTH,
        intermediate_size=160,
        num_hidden_layers=6,
        num_attention_heads=4,
        image_size=TILE,
        patch_size=PATCH,
        projection_dim=64,
    )
    decoder = MistralConfig(
        vocab_size=len(vocabulary()),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=design.n_blocks,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        sliding_window=None,
        initializer_range=WIDTH**-0.5,  # the usual 0.02 is for wide models: here it would start with flat attention
        tie_word_embeddings=False,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        pad_token_id=PAD_ID,
    )
    return LlavaNextConfig(
        vision_config=tower,
        text_config=decoder,
        image_token_index=IMAGE_ID,
        vision_feature_layer=design.feature_layer,
        vision_feature_select_strategy="default",
        image_grid_pinpoints=PINPOINTS,
        image_seq_length=GRID * GRID,
        tie_word_embeddings=False,
    )


def build_model(seed: int, design: Design) -> LlavaNextForConditionalGeneration:
    """An untrained model whose weights follow from the seed and the design alone."""
    torch.manual_seed(seed)
    return LlavaNextForConditionalGeneration(build_config(design))


def drop_later_blocks(model: LlavaNextForConditionalGeneration, design: Design) -> None:
    """Drop the tower's blocks after the layer that the decoder gets, where that is counted from the front."""
    if design.feature_layer > 0:
        tower = model.model.vision_tower
        tower.encoder.layers = tower.encoder.layers[: design.feature_layer]
        tower.config.num_hidden_layers = design.feature_layer  # a part of the model's own config


def save_model(folder: Path, model: LlavaNextForConditionalGeneration) -> None:
    """Write model and processor as float16, half the bytes; the config says float32, so they load as float32."""
    folder.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(folder)
    model.float()
    build_processor().save_pretrained(folder)
    for file in folder.iterdir():
        if file.is_file():
            file.chmod(0o644)  # safetensors writes files that only their owner can read
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"dtype": "float16"', '"dtype": "float32"'))
