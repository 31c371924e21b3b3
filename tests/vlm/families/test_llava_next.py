"""LLaVA-NeXT; what is its own is in `tests/vlm`, whose models are of this family."""

from pathlib import Path

from linrep.vlm.random import write_random_vlm
from tests.vlm.families.laws import Laws


class TestLlavaNext(Laws):
    processor = "LlavaNextProcessor"
    placeholder = "<image>"

    @staticmethod
    def write(folder: Path) -> Path:
        return write_random_vlm(folder)
