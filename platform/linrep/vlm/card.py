"""What a model is, read from its configuration files; no weights are loaded."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from linrep.errors import ModelError
from linrep.vlm.config import ModelConfig
from linrep.vlm.family import Vision
from linrep.vlm.fetched import shown
from linrep.vlm.files import digest_files, locate, read_json, weight_files


@dataclass(frozen=True, slots=True)
class ModelCard:
    """The facts about a model that manifests record and that workers need before any weight is read.

    Attributes:
        path: Folder or hub name as the recipe gave it.
        revision: Hub commit where it is known, else the revision of the recipe (None for folders).
        class_name: The architecture named in config.json.
        family: The `model_type` of config.json, which names the family.
        n_layers: Number of blocks n of the language model; layers go from 0 to n, see `linrep.vlm.sites`.
        width: Width d of the residual stream.
        vocab_size: Rows of the embedding matrix.
        image_token_id: The placeholder that marks image positions in token ids.
        max_positions: Longest sequence that the language model was made for.
        vision: What decides how an image is laid out, as the family says it.
        processor_class: The processor named in the files.
        digest: Names configuration, tokenizer, processor, weights and their rounding, see `linrep.vlm.files.digest_files`.
        quantization: How the weights are rounded while loading: 8bit, 4bit; None where they are as stored.
    """

    path: str
    revision: str | None
    class_name: str
    family: str
    n_layers: int
    width: int
    vocab_size: int
    image_token_id: int
    max_positions: int
    vision: Vision
    processor_class: str
    digest: str
    quantization: str | None = None

    @property
    def tile_size(self) -> int:
        """Side of a tile that the vision tower gets, in pixels."""
        return self.vision.tile_size

    @property
    def patch_size(self) -> int:
        """Side of one of its patches in pixels."""
        return self.vision.patch_size


def describe(config: ModelConfig) -> ModelCard:
    """The card of a model, from its configuration files alone.

    Raises:
        ModelError: The folder or hub name leads nowhere, no family knows the model, its configuration cannot be
            read, or a folder has no safetensors weights.
    """
    from linrep.vlm.families import family_of
    from linrep.vlm.processor import image_settings

    folder, commit = locate(config)
    full = read_config(folder)
    if commit is None and not weight_files(folder):
        raise ModelError(
            f"model folder {str(folder)!r} has no weights: expected model.safetensors or model.safetensors.index.json"
        )
    text, family = full.get_text_config(), family_of(full.model_type)
    processor_class = _processor_class(folder)
    try:
        return ModelCard(
            path=shown(config.path),
            revision=commit or config.revision,
            class_name=(full.architectures or [type(full).__name__.removesuffix("Config") + "ForConditionalGeneration"])[0],
            family=full.model_type,
            n_layers=text.num_hidden_layers,
            width=text.hidden_size,
            vocab_size=text.vocab_size,
            image_token_id=family.image_token_id(full),
            max_positions=text.max_position_embeddings,
            vision=family.vision(full, partial(image_settings, folder)),
            processor_class=processor_class,
            digest=digest_files(folder, commit, config.quantization),
            quantization=config.quantization,
        )
    except (AttributeError, TypeError, ValueError, KeyError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"cannot use the configuration files of model {config.path!r}: {error}") from error


def card_of(values: Mapping[str, Any]) -> ModelCard:
    """The model's card from a manifest, where it stands as plain values.

    Manifests from before there were families have LLaVA-NeXT's facts among the others.
    """
    from linrep.vlm.families import family_of

    if "family" not in values:
        values = {**values, "family": "llava_next", "vision": values}
    kind = family_of(values["family"]).facts
    vision = kind(**{field.name: _frozen(values["vision"][field.name]) for field in fields(kind)})
    own = {field.name: values[field.name] for field in fields(ModelCard) if field.name != "vision" and field.name in values}
    return ModelCard(**own, vision=vision)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def check_layers(card: ModelCard, layers: Iterable[int]) -> None:
    """Refuse layers that the model does not have.

    Raises:
        ModelError: Names the first bad layer and the range 0..n.
    """
    for layer in layers:
        if isinstance(layer, bool) or not isinstance(layer, int) or not 0 <= layer <= card.n_layers:
            raise ModelError(f"layer {layer!r} does not exist: {card.path!r} has layers 0..{card.n_layers}")


def read_config(folder: Path) -> Any:
    """The configuration of a model in a folder, with the defaults that its file leaves out.

    Raises:
        ModelError: It is missing, unreadable, or of a kind of model that no family knows.
    """
    from linrep.vlm.families import family_of

    raw = read_json(folder / "config.json")
    try:
        family_of(str(raw.get("model_type")))
    except ModelError as reason:
        raise ModelError(f"model {str(folder)!r} {reason}") from None
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    try:
        return CONFIG_MAPPING[raw["model_type"]].from_dict(raw)
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
