"""The untrained model: the architecture and the processor of another, weights drawn anew as its configuration says. A control.

python -m linrep.vlm.untrained platform/linrep/demo/weights runs/untrained-model
"""

import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from linrep.vlm.files import CONFIG_FILES
from linrep.vlm.processor import load_processor, quiet


def write_untrained(source: str | Path, folder: str | Path, seed: int = 0) -> Path:
    """Write a model with random weights and the same shape and processor as another; returns its folder.

    Args:
        source: Folder of the trained model.
        folder: Where to.
        seed: Of the weights.

    Raises:
        ModelError: The source has no processor.
    """
    source, folder = Path(source), Path(folder)
    load_processor(source)  # or one line says what it lacks
    with quiet():
        config: Any = AutoConfig.from_pretrained(source, local_files_only=True, trust_remote_code=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model: Any = AutoModelForImageTextToText.from_config(config)
        model.save_pretrained(folder)
    for name in CONFIG_FILES:
        if name != "config.json" and (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    return folder


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m linrep.vlm.untrained SOURCE FOLDER")
    print(write_untrained(sys.argv[1], sys.argv[2]))
