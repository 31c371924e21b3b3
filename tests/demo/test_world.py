"""The embedded world: the same bytes every time, nothing unseen in training, a model that names what it sees."""

import json

import pytest

from demo_training.evaluate import Share
from linrep.demo.config import DemoWorld
from linrep.demo.language import caption, draw_text, parse_answer, vocabulary
from linrep.demo.scene import draw_scene, is_unseen
from linrep.demo.world import write_world
from tests.stores import files_in


def test_a_world_has_the_same_bytes_every_time_and_is_left_alone_once_there(tmp_path):
    config = DemoWorld(n_images=12, n_texts=5, seed=3, split="heldout")
    one, two = write_world(tmp_path / "a", config), write_world(tmp_path / "b", config)
    assert files_in(one) == files_in(two)
    for name in files_in(one):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    times = {name: (one / name).stat().st_mtime_ns for name in files_in(one)}
    assert write_world(tmp_path / "a", config) == one
    assert {name: (one / name).stat().st_mtime_ns for name in times} == times
    with pytest.raises(FileExistsError, match="another config"):
        write_world(tmp_path / "a", DemoWorld(n_images=13, n_texts=5, seed=3, split="heldout"))


def test_every_image_has_its_caption_and_its_truth(tmp_path):
    folder = write_world(tmp_path / "w", DemoWorld(n_images=9, n_texts=2))
    captions = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
    truths = [json.loads(line) for line in (folder / "scenes.jsonl").read_text().splitlines()]
    assert len(captions) == len(truths) == 9
    for row, truth in zip(captions, truths, strict=True):
        assert (folder / row["image"]).is_file()
        assert truth["image"] == row["image"]
        assert truth["object"] in row["text"].split()
        left, top, right, bottom = truth["box"]
        assert 0 <= left < right <= truth["width"]
        assert 0 <= top < bottom <= truth["height"]


def test_training_scenes_never_show_an_unseen_combination_and_held_out_ones_do():
    def unseen(split: str) -> list[bool]:
        things = [draw_scene(0, split, i).main for i in range(400)]
        return [is_unseen(t.object, t.colour, t.ground) for t in things]

    assert not any(unseen("train"))
    assert sum(unseen("heldout")) == 100


def test_every_word_of_every_text_is_one_known_token():
    words = set(vocabulary())
    for i in range(300):
        assert set(draw_text(0, "train", i)[1].split()) <= words
        assert set(caption(draw_scene(0, "heldout", i, 0.5), i).split()) <= words


def test_a_caption_is_read_back_as_what_it_says():
    for i in range(100):
        scene = draw_scene(0, "heldout", i)
        reading = parse_answer(caption(scene))
        assert reading.well_formed
        assert (reading.objects, reading.colours, reading.grounds) == (
            (scene.main.object,),
            (scene.main.colour,),
            (scene.main.ground,),
        )


def test_the_wilson_interval_is_the_published_one():
    low, high = Share(90, 100).interval
    assert (round(low, 3), round(high, 3)) == (0.826, 0.945)
