"""Where a model's files lie, and the digest that separates two models without reading all of their weights."""

import hashlib
import json
import re
from pathlib import Path

from linrep.errors import ModelError
from linrep.vlm.config import ModelConfig
from linrep.vlm.fetched import fetch, is_address

CONFIG_FILES = (
    "config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "chat_template.json",
    "chat_template.jinja",
)
"""What decides token ids, tiles and architecture. Not `generation_config.json`, which changes no activation."""

N_SAMPLES = 64
SAMPLE_BYTES = 64 * 1024
TENSOR_BYTES = 4 * 1024

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def locate(config: ModelConfig, weights: bool = False) -> tuple[Path, str | None]:
    """The folder with the model's files, and the hub commit they belong to (None for a folder of one's own).

    Args:
        config: A folder that exists is taken as such, and one in a bucket is brought here; anything else must look like a hub
            name, `owner/name`.
        weights: Also fetch the safetensors files of a hub model, not only its small files.

    Raises:
        ModelError: No such folder and no hub name, or the hub (or its cache, when offline) does not have it.
    """
    folder = Path(config.path).expanduser()
    if folder.is_dir():
        return folder, None
    if is_address(config.path):
        return fetch(config.path), None
    if folder.exists():
        raise ModelError(f"model {config.path!r} is a file; name the folder that holds config.json")
    if not _HUB_NAME.fullmatch(config.path):
        raise ModelError(f"model folder {config.path!r} does not exist (and it is no hub name, which reads owner/name)")
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = [*CONFIG_FILES, "generation_config.json", "*.safetensors.index.json", *(["*.safetensors"] if weights else [])]
    try:
        found = huggingface_hub.snapshot_download(config.path, revision=config.revision, allow_patterns=wanted)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        where = f" at revision {config.revision!r}" if config.revision else ""
        raise ModelError(
            f"model {config.path!r}{where} is neither an existing folder nor to be had from the hub or its local cache "
            f"({type(error).__name__}); copy it to this machine and name the folder, or connect"
        ) from error
    return Path(found), Path(found).name


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model: those that the index names, else the single file, else none."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(read_json(index).get("weight_map", {}).values()))
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise ModelError(
                f"model folder {str(folder)!r} lacks {missing[0]!r}, which its index names ({len(missing)} files missing)"
            )
        return [folder / name for name in names]
    return [path for path in [folder / "model.safetensors"] if path.is_file()]


def read_json(path: Path) -> dict:
    """A JSON object from a file.

    Raises:
        ModelError: The file is missing, unreadable, or holds something else.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ModelError(f"no {path.name} in model folder {str(path.parent)!r}") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {str(path)!r}: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{str(path)!r} holds a JSON {type(value).__name__}, not an object")
    return value


def digest_files(folder: Path, commit: str | None = None, rounded: str | None = None) -> str:
    """Sixteen hexadecimal characters that name a model: its configuration, tokenizer, processor and weights.

    The same on every machine and for every copy of the files. The small files count with their name and all their bytes.
    A weight file counts without its name, by its size, its header, 64 KiB at 64 evenly spaced offsets and 4 KiB from the
    middle of each tensor: milliseconds for a small model, some seconds for 15 GB, and a fine-tuned copy differs wherever a
    sampled tensor does. What it cannot see is a change of a few rows of a matrix between the samples. For a model from the
    hub its commit stands for the weights, which need not be downloaded to be named.

    Args:
        folder: The model's folder.
        commit: The hub commit, if there is one.
        rounded: How the weights are rounded while loading, if they are.
    """
    total = hashlib.sha256()
    for name in CONFIG_FILES:
        if (folder / name).is_file():
            total.update(f"{name}\0{hashlib.sha256((folder / name).read_bytes()).hexdigest()}\n".encode())
    identities = [f"commit {commit}"] if commit else sorted(_identity(path) for path in weight_files(folder))
    for identity in (*identities, *([f"rounded to {rounded}"] if rounded else [])):
        total.update(f"{identity}\n".encode())
    return total.hexdigest()[:16]


def _identity(path: Path) -> str:
    """A hash of a safetensors file's size, header and samples; the file's name plays no part."""
    size = path.stat().st_size
    seen = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        n_header = int.from_bytes(file.read(8), "little")
        if n_header > size - 8:
            raise ModelError(f"{str(path)!r} is not a safetensors file, or is cut short")
        raw = file.read(n_header)
        seen.update(raw)
        try:
            spans = [entry["data_offsets"] for key, entry in sorted(json.loads(raw).items()) if key != "__metadata__"]
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{str(path)!r} has a damaged safetensors header") from error
        data = 8 + n_header
        for i in range(N_SAMPLES):
            file.seek(i * max(size - SAMPLE_BYTES, 0) // (N_SAMPLES - 1))
            seen.update(file.read(SAMPLE_BYTES))
        for start, end in spans:
            file.seek(data + max(start, (start + end - TENSOR_BYTES) // 2))
            seen.update(file.read(min(TENSOR_BYTES, end - start)))
    return seen.hexdigest()
