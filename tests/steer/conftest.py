"""A tiny model of random weights with its head, and an image, an image with words, and words."""

import pytest
import torch

from linrep.sample import Sample
from linrep.vlm.config import ModelConfig
from linrep.vlm.load import VLM, load
from linrep.vlm.prepare import Preparer
from linrep.vlm.prepared import Prepared
from tests.conftest import encoded_image


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


@pytest.fixture(scope="session")
def steer_vlm(random_vlm: ModelConfig) -> VLM:
    return load(random_vlm, None)


@pytest.fixture(scope="session")
def steer_preparer(random_vlm: ModelConfig) -> Preparer:
    return Preparer.from_path(random_vlm, image_prompt="<image> what is it ?")


def sample(number: int, text: str | None = None, with_image: bool = True) -> Sample:
    modality = "text" if not with_image else "pair" if text else "image"
    image = encoded_image(number) if with_image else None
    return Sample(id=f"s{number}", corpus="c", modality=modality, uri="u", split="test", text=text, image=image)


def prepared(preparer: Preparer, one: Sample) -> Prepared:
    """What the preparer makes of a sample that it does not skip."""
    found = preparer(one)
    assert isinstance(found, Prepared), found
    return found


@pytest.fixture(scope="session")
def steer_prepared(steer_preparer: Preparer) -> list[Prepared]:
    samples = (sample(0), sample(1, "a red boat"), sample(2, "a tree", with_image=False))
    return [prepared(steer_preparer, one) for one in samples]
