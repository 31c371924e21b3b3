"""A model in a bucket: its files are brought once to each machine that opens it, and anew when they change there."""

import fcntl
import os
import re
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pyarrow import fs

from linrep.config import digest
from linrep.errors import ModelError
from linrep.places import URI, Place, place

CACHE = "LINREP_MODELS"
"""Environment variable that names the folder for models from buckets."""
_EMBEDDED = "demo://"
_WANTED = re.compile(r".+\.(json|jinja|txt|model|safetensors)")


def is_address(path: str) -> bool:
    """Whether a model's path is an address of a store: no folder, no hub name, and no model of the embedded world."""
    return URI.match(path) is not None and not path.startswith(_EMBEDDED)


def shown(path: str) -> str:
    """A model's path without a key, as manifests keep it."""
    return str(place(path)) if is_address(path) else path


def fetch(address: str) -> Path:
    """The folder on this machine with the files of a model in a bucket.

    It is named by the address, sizes and dates of the files there, so a model that is written anew is brought anew. Processes of
    one machine wait for the one that brings it.

    Args:
        address: Of the model's folder: s3://bucket/models/llava.

    Raises:
        ModelError: No model is there, or the store does not answer.
        PlaceError: The address is none.
    """
    there = place(address)
    try:
        found = there.files.get_file_info(fs.FileSelector(there.path, allow_not_found=True))
        files = {one.base_name: one for one in found if one.type == fs.FileType.File and _WANTED.fullmatch(one.base_name)}
        if "config.json" not in files:
            raise ModelError(f"no config.json in {there}: name the folder that save_pretrained wrote")
        cache = Path(os.environ.get(CACHE) or "~/.cache/linrep/models").expanduser()
        key = digest(str(there), sorted([name, one.size, one.mtime_ns] for name, one in files.items()))
        return _brought(there, sorted(files), cache / f"{there.name}-{key}")
    except OSError as error:
        raise ModelError(f"cannot bring the model of {there} to this machine: {' '.join(str(error).split())[:300]}") from error


def _brought(there: Place, names: list[str], folder: Path) -> Path:
    """The folder, which appears whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():
            return folder
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".growing-") as growing:

            def bring(name: str) -> None:
                with (there / name).open() as source, (Path(growing) / "model" / name).open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 24)

            (Path(growing) / "model").mkdir()
            with ThreadPoolExecutor(there.at_once) as pool:
                list(pool.map(bring, names))
            (Path(growing) / "model").rename(folder)
    return folder
