"""Tiny models of random weights, as `save_pretrained` writes them: all of a family but what it knows."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText

from linrep.vlm.batch import collate
from linrep.vlm.hooks import forward, record
from linrep.vlm.load import VLM
from linrep.vlm.prepared import Prepared
from linrep.vlm.processor import quiet
from linrep.vlm.random import make_tokenizer

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.2,
    "max_position_embeddings": 4096,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 3,
}
"""A text stack of three blocks, wide enough to move visibly."""
TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "initializer_range": 0.2}


def close(a: Tensor, b: Tensor, atol: float = 2e-4) -> None:
    """What two models of this size compute is the same."""
    torch.testing.assert_close(a, b, atol=atol, rtol=1e-3)


def each_is_as_alone(vlm: VLM, prepared: Sequence[Prepared]) -> None:
    """In a batch the stream of each sequence is what it is alone, at every layer."""
    with record(vlm, range(4)) as together:
        forward(vlm, collate(prepared, vlm))
    for i, one in enumerate(prepared):
        with record(vlm, range(4)) as alone:
            forward(vlm, collate([one], vlm))
        for k in range(4):
            close(together[k][i, : len(one)], alone[k][0])


def tokenizer_with(**special: str) -> Any:
    """The tokenizer of random models with special tokens of a family; each can be asked for by its name."""
    tokenizer = make_tokenizer(512)
    tokenizer.add_special_tokens({"additional_special_tokens": list(special.values())})
    tokenizer._set_model_specific_special_tokens(special_tokens=special)
    return tokenizer


def write(
    folder: Path, config: Any, images: Any, tokenizer: Any, processor: str, settings: Mapping[str, Any] | None = None
) -> Path:
    """Write a model of random weights with its processor.

    Args:
        folder: Where to.
        config: Its configuration.
        images: Its image processor.
        tokenizer: Its tokenizer.
        processor: Class of its processor.
        settings: Of the processor beside those two.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = AutoModelForImageTextToText.from_config(config)
    for name, parameter in model.named_parameters():  # some families begin at zero, where nothing would move
        if not parameter.detach().any():
            torch.nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(len(name)))
    folder.mkdir(parents=True, exist_ok=True)
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        images.save_pretrained(folder)
    file = folder / "processor_config.json"
    known = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({**known, "processor_class": processor, **(settings or {})}))
    return folder
