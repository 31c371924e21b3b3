"""What differs between families of models: one class a family, in one file of `linrep.vlm.families`.

Everything else in `linrep.vlm` asks this interface. A family says which models it is, how an image becomes positions, pixels and
tokens, what its forward pass takes beside token ids, how it attends within an image, how it is cut, and how it speaks. What most
families share stands here; a file overrides what is its own. Imports neither torch nor transformers, for those who only draw.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Int, Int16, UInt8
from PIL import Image

from linrep.errors import ModelError
from linrep.vlm.tokens import Grid, Layout, Size, places_of_patches, token_of_patches, whole_view

Attention = Literal["causal", "image", "prefix"]
"""Who sees whom: causal as in text; the patches of an image see each other; the image and the prompt see each other."""

_PARTS = frozenset(("self_attn", "mlp", "input_layernorm", "post_attention_layernorm"))
_NORMS_BEHIND = frozenset(("pre_feedforward_layernorm", "post_feedforward_layernorm"))
"""Beside them, of a block in which `post_attention_layernorm` is behind the attention and not in front of the MLP."""

Tiles = UInt8[np.ndarray, "tiles 3 h w"]
Settings = Callable[[], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Vision:
    """What decides how an image is laid out; a family adds what is its own. Hashable, and plain values in a manifest.

    Attributes:
        tile_size: Side of a tile that the vision tower gets, in pixels.
        patch_size: Side of one of its patches in pixels.
    """

    tile_size: int
    patch_size: int


class Family:
    """A family of models. Its instances hold nothing."""

    model_types: ClassVar[tuple[str, ...]]
    """Values of `model_type` in config.json."""
    title: ClassVar[str]
    """What people call it."""
    checkpoints: ClassVar[tuple[str, ...]]
    """Hub names that people use."""
    tokens: ClassVar[str]
    """Image tokens an image, in words."""
    attention: ClassVar[Attention] = "causal"
    """Attention within the image."""
    storage: ClassVar[Literal["float16", "bfloat16"]] = "float16"
    """Number format of a store that holds its activations."""
    limits: ClassVar[tuple[str, ...]] = ()
    """What is known not to work, or to surprise, a sentence each."""
    facts: ClassVar[type[Vision]] = Vision
    """The class of what `vision` gives."""
    unit_offset: ClassVar[bool] = False
    """The final norm multiplies by one plus its weight."""
    first_position: ClassVar[int] = 0
    """Position of a sequence's first token."""
    processor_options: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """What the model's processor passes to its image processor beside its settings."""
    base_first: ClassVar[bool] = True
    """Among an image's tiles that of the whole image comes before the crops, not after them."""
    interleaved: ClassVar[bool] = True
    """Images can stand anywhere in a text, and several of them."""
    rope_axes: ClassVar[int] = 1
    """Axes of a position: 3 where an image's tokens have a place in time, height and width."""

    # Configuration.

    def vision(self, config: Any, images: Settings) -> Vision:
        """What decides how an image is laid out.

        Args:
            config: The model's configuration.
            images: Gives the image processor's settings, its class' defaults included; loading it takes most of a second.
        """
        side = config.vision_config.image_size
        return Vision(int(side if isinstance(side, int) else side[0]), _side(config.vision_config.patch_size))

    def image_token_id(self, config: Any) -> int:
        """The placeholder that the model fills with the image."""
        found = getattr(config, "image_token_id", None)
        return int(config.image_token_index if found is None else found)

    def check(self, processor: Any, vision: Any, image_token_id: int) -> None:
        """Refuse a processor that disagrees with the model.

        Raises:
            ModelError: Says in what; without the model's name.
        """

    def truncate(self, config: Any, depth: int) -> Any:
        """A copy of a configuration with as many blocks of the language model, so that no others are made or read."""
        cut = copy.deepcopy(config)
        shorten(cut.get_text_config(), depth)
        return cut

    # From an image to positions and pixels.

    def layout(self, size: Size, vision: Any) -> Layout:
        """How an image of some height and width is laid out.

        Args:
            size: Height and width.
            vision: What `vision` gave.
        """
        raise NotImplementedError

    def layout_among(self, size: Size, vision: Any) -> Layout:
        """How an image is laid out in a sample that shows several; in most families as if it were alone.

        Args:
            size: Height and width.
            vision: What `vision` gave.
        """
        return self.layout(size, vision)

    def most_tiles(self, vision: Any, size: Size | None) -> int:
        """Most tiles of an image: of one of a height and width, or of any.

        Args:
            vision: What `vision` gave.
            size: Height and width; None for any.
        """
        return 1 if size is None else self.layout(size, vision).tiles

    def most_bytes(self, vision: Any, size: Size | None) -> int:
        """Most bytes of the pixels of an image: of one of a height and width, or of any."""
        return self.most_tiles(vision, size) * 3 * vision.tile_size**2

    def cut(self, image: Image.Image, plan: Layout, images: Any) -> Tiles:
        """An image as its own processor cuts it, before rescaling and normalisation.

        Args:
            image: RGB, of the layout's size.
            plan: Its layout.
            images: The model's image processor.
        """
        found = images(image, do_rescale=False, do_normalize=False, return_tensors="np", **self.processor_options)
        tiles = np.asarray(found["pixel_values"])
        return np.ascontiguousarray(tiles.reshape(-1, *tiles.shape[-3:])).astype(np.uint8)

    def sizes(self, plan: Layout) -> dict[str, list[int]]:
        """What the model must know of an image beside its pixels: arguments of its forward pass, a row for each image."""
        return {}

    # From a prompt to tokens.

    def settle(self, tokenizer: Any) -> None:
        """Set a tokenizer, fresh from its files, to what the model's processor would set it to."""

    def dress(self, prompt: str, image: str, tokenizer: Any) -> str:
        """A prompt with what the model's processor would add to it.

        Args:
            prompt: As the recipe has it.
            image: How it writes the place of the image.
            tokenizer: Of the model.
        """
        return prompt

    def spelling(self, plan: Layout | None, token: str, tokenizer: Any) -> str:
        """What stands in a prompt in place of an image: a placeholder for each run of its positions.

        Args:
            plan: Its layout; None for an example of any size.
            token: The placeholder.
            tokenizer: Of the model.
        """
        return token

    def in_template(self, token: str, tokenizer: Any) -> str:
        """How the model's chat template writes an image.

        Args:
            token: The placeholder.
            tokenizer: Of the model.
        """
        return token

    # The forward pass.

    def adds_later(self, vision: Any) -> int:
        """Blocks after which features of the image are added to the stream."""
        return 0

    def pixel_inputs(self, pixels: Any, sizes: Mapping[str, Any], counts: Sequence[int], vision: Any) -> dict[str, Any]:
        """The images of a batch as arguments of the forward pass.

        Args:
            pixels: Normalised tiles of all images on the model's device, float[tiles, 3, h, w].
            sizes: What `sizes` gave, as int64 tensors on the host, a row for each image.
            counts: Images of each sample that shows any, in the order of the batch.
            vision: What `vision` gave.
        """
        return {"pixel_values": pixels, **sizes}

    def marks(self, of_image: Any, of_text: Any) -> dict[str, Any]:
        """Arguments of the forward pass that say what each position is.

        Args:
            of_image: Patches and newlines, bool[b, t].
            of_text: The samples' own text likewise.
        """
        return {}

    # Sites beside the residual stream, see `linrep.vlm.sites`.

    def adding(self, block: Any) -> tuple[Any, Any]:
        """The modules of a block whose outputs are what its attention and its MLP add to the stream.

        Where a block has norms behind them (Gemma 2 and 3), those; of the same name as a norm in front of the MLP in others.

        Raises:
            ModelError: The block is built in another way.
        """
        parts = {name for name, _ in block.named_children()}
        if not hasattr(block, "residual_multiplier"):
            if parts == _PARTS:
                return block.self_attn, block.mlp
            if parts == _PARTS | _NORMS_BEHIND:
                return block.post_attention_layernorm, block.post_feedforward_layernorm
        raise ModelError(
            f"what a {type(block).__name__} of {', '.join(sorted(parts))} adds to the stream is not known: "
            f"say it in {type(self).__name__}.adding"
        )

    def tower(self, model: Any) -> Any:
        """The module that is given the vision tower's patches, or that gives them.

        Args:
            model: Without its head.

        Raises:
            ModelError: The model is built in another way.
        """
        found = getattr(model, "multi_modal_projector", None)
        if found is None:
            raise ModelError(
                f"where a {type(model).__name__} has its tower's patches is not known: say it in {type(self).__name__}.tower"
            )
        return found

    def tower_patches(self, model: Any, args: tuple, kwargs: Mapping[str, Any], output: Any) -> Any:
        """The vision tower's patches as the projector takes them, as `tower_tokens` orders them: float[tiles, n, w].

        Args:
            model: Without its head.
            args: What the module that `tower` names was called with.
            kwargs: Likewise, by name.
            output: What it gave.
        """
        return args[0]

    def tower_width(self, config: Any) -> int:
        """Width of the vision tower's patches as the projector takes them.

        Args:
            config: The model's configuration.
        """
        chosen = getattr(config, "vision_feature_layer", None)
        return config.vision_config.hidden_size * (len(chosen) if isinstance(chosen, list | tuple) else 1)

    def tower_tokens(self, plan: Layout, vision: Any) -> Int[np.ndarray, "tiles n"]:
        """The image token that each of the vision tower's patches is a part of, counted from the first token of its image.

        It is -1 where there is no such token: for patches of padding, and where tokens are resampled.

        Args:
            plan: The image's layout.
            vision: What `vision` gave.
        """
        return token_of_patches(plan, vision.tile_size // vision.patch_size, self.base_first)

    def tower_places(self, plan: Layout, vision: Any) -> Int16[np.ndarray, "3 tiles n"]:
        """Tile, row and column of each of the vision tower's patches, likewise.

        Tiles are numbered as those of tokens are. Rows and columns are the tower's own: of the base view, or of the grid of all
        crops with its padding.

        Args:
            plan: The image's layout.
            vision: What `vision` gave.
        """
        return places_of_patches(plan, vision.tile_size // vision.patch_size, self.base_first)

    def tower_padding(self, plan: Layout, vision: Any) -> Bool[np.ndarray, "tiles n"]:
        """Which of the vision tower's patches show padding alone, so that the model drops them, likewise.

        Args:
            plan: The image's layout.
            vision: What `vision` gave.
        """
        return self.tower_tokens(plan, vision) < 0

    # What it says.

    def logits(self, model: Any, hidden: Any) -> Any:
        """Next-token logits from what the final norm gives, as the whole model forms them."""
        found = model.get_output_embeddings()(hidden)
        cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
        return found if cap is None else (found / cap).tanh() * cap


def shorten(section: Any, n: int) -> None:
    """Leave a stack n blocks."""
    for name in ("layer_types", "mlp_layer_types"):  # kept as long as the model is deep, else validation refuses
        kinds = getattr(section, name, None)
        if kinds is not None:
            setattr(section, name, list(kinds)[:n])
    section.num_hidden_layers = n


def disagree(facts: Mapping[str, tuple[Any, Any]]) -> None:
    """Refuse a processor of which a fact is not the model's.

    Args:
        facts: By name: the processor's and the model's.

    Raises:
        ModelError: Names the first.
    """
    for name, (theirs, ours) in facts.items():
        if theirs != ours:
            raise ModelError(f"the processor's {name} is {theirs}, the model's is {ours}; mend one of the config files")


def sides(size: Any) -> set[int]:
    """The sides that a processor's size names, whether it is a mapping or an object of transformers."""
    named = (dict(size).get(key) for key in ("height", "width", "shortest_edge", "longest_edge"))
    return {int(side) for side in named if side}


def block_ids(attention: Attention, of_image: Any, of_text: Any) -> Any:
    """Which positions see each other in both directions: the same number from 0, -1 where attention is causal; int64[b, t].

    Args:
        attention: Of the family.
        of_image: Patches and newlines, bool[b, t].
        of_text: The samples' own text likewise.
    """
    if attention == "prefix":
        return -of_text.long()
    begins = of_image.clone()
    begins[:, 1:] &= ~of_image[:, :-1]
    numbers = begins.long().cumsum(1) - 1
    return numbers.masked_fill(~of_image, -1)


def _side(size: Any) -> int:
    return int(size if isinstance(size, int) else size[0])


def square_view(size: Size, side: int) -> Layout:
    """An image that is squashed into one square and seen as that alone.

    Args:
        size: Height and width of the image.
        side: Rows and columns of positions.
    """
    found = whole_view(side, side)
    return Layout(size, Grid.even(side, side, size), None, found, (len(found.role),))


def special(tokenizer: Any, name: str, usual: str) -> str:
    """A special token of a tokenizer, as its files name it, or as the family's checkpoints call it."""
    return str(getattr(tokenizer, name, None) or usual)
