# ruff: noqa: F811  (fixtures of neighbours come in by their names)
"""Steering on harvests and directions that give it little or nothing to work on: a result, or one clear line."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from linrep.cluster.run_steer import run_steer
from linrep.directions import DirectionSet, write_directions
from linrep.errors import LinrepError
from linrep.places import place
from linrep.steer.config import Damage
from tests.cluster.test_steer import fresh, plainly, recipe_of, split_corpora, undrawn, workspace  # noqa: F401
from tests.steering import directions, half_held_out, write_workspace


def filled(value: float) -> DirectionSet:
    """Class means that are all one value: the classes coincide. What is not finite cannot be written as directions."""
    found = directions()
    return replace(found, entries=tuple(replace(e, vectors=torch.full_like(e.vectors, value)) for e in found.entries))


DIRECTIONS = {
    "plain": directions(),
    "constant": filled(1.0),
    "zero": filled(0.0),
    "one class": directions(names=("tench",)),
    "no class": DirectionSet(()),
}


def outcome(recipe, folder: Path) -> str:
    """What a reader sees: the summary, or the error's one line."""
    try:
        text = run_steer(recipe, place(folder)).text
    except LinrepError as error:
        text = str(error)
        assert "\n" not in text
        assert len(text) > 20
    assert not re.search(r"\b(nan|inf|None)\b", text), text
    return text


@pytest.mark.slow
@pytest.mark.usefixtures("plainly", "undrawn")
@pytest.mark.parametrize("world", DIRECTIONS)
def test_degenerate_directions_give_a_result_or_one_clear_line(world, split_corpora, random_vlm, fresh):
    write_directions(fresh / "directions.safetensors", DIRECTIONS[world], {})
    text = outcome(recipe_of(split_corpora, random_vlm, fresh), fresh)
    assert ("Steering t-" in text) or world != "plain"
    assert ("class means of each pair coincide" in text) == (world in ("constant", "zero"))


@pytest.mark.slow
@pytest.mark.usefixtures("plainly", "undrawn")
def test_one_image_of_one_pair_gives_values_without_intervals(split_corpora, random_vlm, fresh):
    few = {"pairs": (("tench", "church"),), "images": 1, "damage": Damage(texts=1, prompt="<image> see :")}
    text = outcome(recipe_of(split_corpora, random_vlm, fresh, **few), fresh)
    assert "Steering t-" in text


@pytest.mark.usefixtures("plainly", "undrawn")
def test_a_harvest_that_skipped_every_image_is_one_clear_line(split_corpora, random_vlm, tmp_path):
    folder = Path(shutil.copytree(Path(split_corpora.images.path).parent, tmp_path / "damaged"))
    corpora = half_held_out(folder)
    for file in folder.rglob("*.JPEG"):
        file.write_bytes(b"no image")
    damaged = write_workspace(tmp_path / "ws", "t", corpora, random_vlm)
    text = outcome(recipe_of(corpora, random_vlm, damaged), damaged)
    assert "no test image" in text
