"""The model's own tokenizer and image processor: loaded in silence and without weights, and refused where they do not fit.

The image processor is the one that works with Pillow, whether or not torchvision is installed: the same pixels everywhere.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from linrep.errors import ModelError
from linrep.vlm.card import ModelCard
from linrep.vlm.config import IMAGE, Turn
from linrep.vlm.families import family_of, layout
from linrep.vlm.files import read_json
from linrep.vlm.turns import Scripts, write_script


@dataclass(frozen=True, eq=False)
class Processor:
    """What makes tokens and pixels for a model.

    Attributes:
        tokenizer: A fast tokenizer.
        image_processor: The model's, on Pillow.
        settings: What processor_config.json says beside.
        template: The chat template; None where the model has none.
    """

    tokenizer: Any
    image_processor: Any
    settings: Mapping[str, Any]
    template: str | None = None

    @cached_property
    def image_token_id(self) -> int | None:
        """The placeholder of an image, as the tokenizer's files name it."""
        token = getattr(self.tokenizer, "image_token", None) or self.settings.get("image_token", "<image>")
        found = self.tokenizer.convert_tokens_to_ids(token)
        return None if found is None or found == self.tokenizer.unk_token_id else int(found)

    def scripts(self, chat: Sequence[Turn], card: ModelCard) -> Scripts:
        """The prompts that a chat makes.

        Raises:
            ModelError: The model has no template for it.
        """
        family, token = family_of(card.family), str(self.tokenizer.convert_ids_to_tokens(card.image_token_id))
        try:
            script = write_script(chat, self.tokenizer, self.template, family.in_template(token, self.tokenizer))
        except ModelError as reason:
            raise ModelError(f"{card.path!r}: {reason}") from None
        if family.dress(script.prompt, IMAGE, self.tokenizer) != script.prompt:
            what = f"{family.title} puts more around a prompt than a chat says"
            raise ModelError(f"{card.path!r}: {what}: give image_prompt instead of chat")
        return Scripts.of(script)


def load_processor(folder: Path) -> Processor:
    """Tokenizer and image processor in a folder.

    Raises:
        ModelError: Their files are missing or damaged.
    """
    from transformers import AutoTokenizer

    with _loading(folder):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    images = _image_processor(folder)
    family_of(str(read_json(folder / "config.json").get("model_type"))).settle(tokenizer)
    settings = _settings(folder / "processor_config.json")
    return Processor(tokenizer, images, settings, _template(folder, settings, tokenizer))


def _template(folder: Path, settings: Mapping[str, Any], tokenizer: Any) -> str | None:
    """The processor's chat template, which writes images, before the tokenizer's, which may not."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    own = _settings(folder / "chat_template.json").get("chat_template") or settings.get("chat_template")
    found = own or tokenizer.chat_template
    return found.get("default") if isinstance(found, dict) else found


def image_settings(folder: Path) -> dict[str, Any]:
    """The settings of the image processor in a folder, its class' defaults included.

    Raises:
        ModelError: Its files are missing or damaged.
    """
    return _image_processor(folder).to_dict()


def _image_processor(folder: Path) -> Any:
    from transformers import AutoImageProcessor

    with _loading(folder):
        return AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True, trust_remote_code=False)


@contextmanager
def _loading(folder: Path) -> Iterator[None]:
    """Quietly; what goes wrong inside is one line that names the folder."""
    try:
        with quiet():
            yield
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"cannot load the processor in {str(folder)!r}: {reason}") from error


@lru_cache(maxsize=16)
def check_processor(processor: Processor, card: ModelCard) -> None:
    """Refuse a processor that does not cut images the way the family says, or that disagrees with the model.

    Raises:
        ModelError: Says in what.
    """
    if not getattr(processor.tokenizer, "is_fast", False):
        raise ModelError(f"{card.path!r}: needs a fast tokenizer (tokenizer.json), which says where in the text a token lies")
    family = family_of(card.family)
    try:
        family.check(processor, card.vision, card.image_token_id)
    except ModelError as reason:
        raise ModelError(f"{card.path!r}: {reason}") from None
    size = card.tile_size + 1, 3 * card.tile_size
    plan = layout(size, card)
    image = Image.fromarray(np.zeros((*size, 3), np.uint8))
    tiles = len(family.cut(image, plan, processor.image_processor))
    if tiles != plan.tiles:
        raise ModelError(f"{card.path!r}: an image of {size} is cut into {tiles} tiles, the family's layout has {plan.tiles}")


def _settings(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}


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
