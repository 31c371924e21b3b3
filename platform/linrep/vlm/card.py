"""What a model is, read from its configuration files; no weights are loaded."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from linrep.errors import ModelError
from linrep.vlm.config import ModelConfig
from linrep.vlm.files import digest_files, locate, read_json, weight_files


@dataclass(frozen=True, slots=True)
class ModelCard:
    """The facts about a model that manifests record and that workers need before any weight is read.

    Attributes:
        path: Folder or hub name as the recipe gave it.
        revision: Hub commit where it is known, else the revision of the recipe (None for folders).
        class_name: The architecture named in config.json.
        n_layers: Number of blocks n of the language model; layers go from 0 to n, see `linrep.vlm.sites`.
        width: Width d of the residual stream.
        vocab_size: Rows of the embedding matrix.
        image_token_id: The placeholder that marks image positions in token ids.
        max_positions: Longest sequence that the language model was made for.
        tile_size: Side of a square tile in pixels.
        patch_size: Side of a square patch in pixels.
        grid_pinpoints: Height and width in pixels of the canvases among which the processor picks one per image.
        feature_strategy: "default" drops the vision tower's class token, "full" keeps all of its tokens.
        feature_layer: The vision tower's layer whose output is projected.
        processor_class: The processor named in the files.
        digest: Names configuration, tokenizer, processor and weights, see `linrep.vlm.files.digest_files`.
    """

    path: str
    revision: str | None
    class_name: str
    n_layers: int
    width: int
    vocab_size: int
    image_token_id: int
    max_positions: int
    tile_size: int
    patch_size: int
    grid_pinpoints: tuple[tuple[int, int], ...]
    feature_strategy: str
    feature_layer: int | tuple[int, ...]
    processor_class: str
    digest: str


def describe(config: ModelConfig) -> ModelCard:
    """The card of a model, from its configuration files alone.

    Raises:
        ModelError: The folder or hub name leads nowhere, it is not a LLaVA-NeXT, its configuration cannot be
            read, or a folder has no safetensors weights.
    """
    folder, commit = locate(config)
    full = read_config(folder)
    if commit is None and not weight_files(folder):
        raise ModelError(
            f"model folder {str(folder)!r} has no weights: expected model.safetensors or model.safetensors.index.json"
        )
    text, vision = full.text_config, full.vision_config
    layer = full.vision_feature_layer
    try:
        return ModelCard(
            path=config.path,
            revision=commit or config.revision,
            class_name=(full.architectures or ["LlavaNextForConditionalGeneration"])[0],
            n_layers=text.num_hidden_layers,
            width=text.hidden_size,
            vocab_size=text.vocab_size,
            image_token_id=full.image_token_index,
            max_positions=text.max_position_embeddings,
            tile_size=vision.image_size,
            patch_size=vision.patch_size,
            grid_pinpoints=tuple((int(h), int(w)) for h, w in full.image_grid_pinpoints),
            feature_strategy=full.vision_feature_select_strategy,
            feature_layer=layer if isinstance(layer, int) else tuple(layer),
            processor_class=_processor_class(folder),
            digest=digest_files(folder, commit),
        )
    except (AttributeError, TypeError, ValueError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"cannot use config.json of model {config.path!r}: {error}") from error


def check_layers(card: ModelCard, layers: Iterable[int]) -> None:
    """Refuse layers that the model does not have.

    Raises:
        ModelError: Names the first bad layer and the range 0..n.
    """
    for layer in layers:
        if isinstance(layer, bool) or not isinstance(layer, int) or not 0 <= layer <= card.n_layers:
            raise ModelError(f"layer {layer!r} does not exist: {card.path!r} has layers 0..{card.n_layers}")


def read_config(folder: Path) -> Any:
    """The `LlavaNextConfig` in a folder, with the defaults that its file leaves out.

    Raises:
        ModelError: It is missing, unreadable, or of another kind of model.
    """
    raw = read_json(folder / "config.json")
    if raw.get("model_type") != "llava_next":
        raise ModelError(
            f"model {str(folder)!r} is of type {raw.get('model_type')!r}; only LLaVA-NeXT ('llava_next') is supported"
        )
    from transformers import LlavaNextConfig

    try:
        return LlavaNextConfig.from_dict(raw)
    except Exception as error:  # transformers' validators raise several unrelated kinds
        reason = " ".join(str(error).split())
        raise ModelError(f"cannot use config.json of model {str(folder)!r}: {reason}") from error


def _processor_class(folder: Path) -> str:
    for name in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            named = read_json(folder / name).get("processor_class")
            if named:
                return str(named)
    raise ModelError(
        f"model folder {str(folder)!r} names no processor: expected processor_config.json or preprocessor_config.json"
    )
