"""The model's own processor: loading it in silence and without weights, and refusing one that does not match the model."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from linrep.errors import ModelError
from linrep.vlm.card import ModelCard
from linrep.vlm.tokens import layout


def load_processor(folder: Path) -> Any:
    """The processor in a folder, with the Pillow image processor, whether or not torchvision is installed.

    Raises:
        ModelError: Its files are missing or damaged.
    """
    from transformers import AutoProcessor

    try:
        with quiet():
            return AutoProcessor.from_pretrained(folder, backend="pil", local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"cannot load the processor in {str(folder)!r}: {reason}") from error


def check_processor(processor: Any, card: ModelCard) -> None:
    """Refuse a processor that does not cut tiles the way this module reproduces, or that disagrees with the model.

    Raises:
        ModelError: Says in what.
    """
    images = getattr(processor, "image_processor", None)
    tokenizer = getattr(processor, "tokenizer", None)
    if images is None or tokenizer is None or not hasattr(processor, "_get_num_multimodal_tokens"):
        raise ModelError(f"{card.path!r}: {type(processor).__name__} is not a LLaVA-NeXT processor")
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"{card.path!r}: needs a fast tokenizer (tokenizer.json), which says where in the text a token lies")
    facts = {
        "image token id": (processor.image_token_id, card.image_token_id),
        "patch size": (processor.patch_size, card.patch_size),
        "feature strategy": (processor.vision_feature_select_strategy, card.feature_strategy),
        "grid pinpoints": (tuple(tuple(p) for p in images.image_grid_pinpoints), card.grid_pinpoints),
        "tile size": (_sides(images.size), {card.tile_size}),
        "crop size": (_sides(images.crop_size) if images.do_center_crop else {card.tile_size}, {card.tile_size}),
        "resizing": (bool(images.do_resize), True),
    }
    for name, (theirs, ours) in facts.items():
        if theirs != ours:
            raise ModelError(
                f"{card.path!r}: the processor's {name} is {theirs}, the model's is {ours}; mend one of the config files"
            )
    probe = (card.tile_size + 1, 3 * card.tile_size)
    theirs = processor._get_num_multimodal_tokens([probe])["num_image_tokens"][0]
    ours = layout(probe, card).n_tokens
    if theirs != ours:
        raise ModelError(
            f"{card.path!r}: for an image of {probe} the processor counts {theirs} image tokens, the tiling gives {ours}; "
            "its num_additional_image_tokens or feature strategy is not LLaVA-NeXT's"
        )


def _sides(size: Any) -> set[int]:
    """The sides that a processor's size names, whether it is a mapping or a `SizeDict`."""
    named = (dict(size).get(key) for key in ("height", "width", "shortest_edge", "longest_edge"))
    return {int(side) for side in named if side}


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars and advice; errors still raise. Restored afterwards."""
    from transformers.utils import logging as transformers_logging

    bars, level = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
