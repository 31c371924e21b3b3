"""Rows of a pair by choice of tokens: patches of the object, its word in the caption, and last tokens of other chunks."""

import numpy as np
import pytest
import torch

from linrep.regions.artefact import Regions
from linrep.regions.patches import Covering, PatchLabels
from linrep.sharing import pooled
from linrep.sharing.pooled import PooledRows, word_ends
from linrep.sharing.study import ObjectTokens, Pairs, images_alone
from linrep.store.blocks import Block
from linrep.store.commit import WrittenFile
from tests.sharing.planted import write_pairs


def test_words_end_where_their_last_token_stands_and_only_those_of_the_own_class():
    pair, position = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2]), np.array([0, 1, 2, 3, 0, 1, 3, 0, 1])
    token = np.array([7, 8, 9, 8, 8, 5, 9, 8, 9])
    # Class 0 is "8 9" or "5", class 1 is "4". Pair 1 has 8 and 9, but not one after the other; pair 2 is of class 1.
    ends = word_ends(pair, position, token, np.array([0, 0, 1]), (((8, 9), (5,)), ((4,),)))
    assert ends.tolist() == [2, 5]
    assert word_ends(pair[:1], position[:1], token[:1], np.array([0]), (((8, 9),),)).tolist() == []


def test_a_pairs_image_alone_is_the_one_whose_path_ends_alike():
    paths = ("a/1.JPEG", "b/1.JPEG", "b/2.JPEG", "images/b/1.JPEG", "images/b/2.JPEG", "", "elsewhere/3.JPEG")
    kinds = ("image", "image", "image", "pair", "pair", "text", "pair")
    found = images_alone(paths, kinds, np.array([-1, -1, -1, 0, 1, -1, 2]))
    assert found.tolist() == [-1, 0, 1, -1, -1, -1, -1]


PAIRS = Pairs(
    {"image": np.array([0, -1, 1, -1, -1, -1]), "text": np.array([-1, 0, -1, 1, -1, -1])},
    ("p", "q"),
    np.array([0, 1]),
    np.ones(2, bool),
    ("boat", "key"),
    np.array([0, 1]),
    np.array([1, 0]),
    np.zeros(2, bool),
    alone=np.array([-1, -1, -1, -1, 1, 0]),
)


class Labels(PatchLabels):
    """Column 0 of every image shows a boat, column 1 a key; known of images that were harvested alone."""

    categories = ("key", "Boat")

    def __init__(self, regions, store) -> None:
        self.annotated = {False: np.array([False, False, False, False, True, True])}

    def several(self, places):
        assert set(places.sample) <= {4, 5}
        token = np.flatnonzero(places.col < 2)
        return Covering(token, 1 - places.col[token].astype(np.int64), np.ones(len(places.sample), bool))


def file(path: str) -> WrittenFile:
    return WrittenFile(path, 1, 1, "")


def rows_of(monkeypatch, tmp_path, pooling, by_modality) -> list:
    def read(store, files, view, wanted, columns=()):
        block = by_modality[files[0].path]
        keep = wanted[block.sample]
        return iter([block.of(keep)]) if keep.any() else iter([])

    monkeypatch.setattr(pooled, "blocks", read)
    monkeypatch.setattr(pooled, "PatchLabels", Labels)
    objects = ObjectTokens(object.__new__(Regions), (((8,),), ((9,),)))
    rows = PooledRows(write_pairs(tmp_path, np.ones((60, 2)), np.ones((60, 2))), 0, PAIRS, pooling, objects)
    part = {name: (file(name),) for name in ("image", "text")}
    if pooling == "object":  # both files are of one chunk
        part = {name: (file(f"{name}/part-0"),) for name in part}
        by_modality |= {f"{name}/part-0": by_modality[name] for name in ("image", "text")}
    return list(rows.matched(part))


def test_objects_are_the_mean_of_their_patches_beside_the_word_that_names_them(monkeypatch, tmp_path):
    x = torch.arange(16.0).reshape(8, 2)
    columns = {name: np.zeros(8, np.int64) for name in ("tile", "row")} | {"col": np.array([0, 0, 1, 2, 0, 1, 1, 2])}
    image = Block(x, np.array([0, 0, 0, 0, 2, 2, 2, 2]), columns)
    words = {"position": np.array([3, 2, 0, 1]), "token_id": np.array([8, 8, 9, 9])}
    text = Block(-x[:4], np.array([1, 1, 3, 3]), words)
    ((pair, images, texts),) = rows_of(monkeypatch, tmp_path, "object", {"image": image, "text": text})
    assert pair.tolist() == [0, 1]
    assert images.tolist() == [x[:2].mean(0).tolist(), x[5:7].mean(0).tolist()]
    assert texts.tolist() == [(-x[1]).tolist(), (-x[2]).tolist()]  # the first of two, by their places


def test_last_tokens_are_those_of_the_image_alone_and_of_the_caption(monkeypatch, tmp_path):
    image = Block(torch.tensor([[1.0, 1], [2, 2], [3, 3]]), np.array([0, 4, 5]))
    text = Block(torch.tensor([[10.0, 10], [20, 20]]), np.array([1, 3]))
    ((pair, images, texts),) = rows_of(monkeypatch, tmp_path, "last", {"image": image, "text": text})
    assert (pair.tolist(), images[:, 0].tolist(), texts[:, 0].tolist()) == ([0, 1], [3, 2], [10, 20])


@pytest.mark.parametrize("pooling", ["object", "last"])
def test_a_pair_without_one_of_its_rows_takes_no_part(monkeypatch, tmp_path, pooling):
    text = Block(torch.ones(1, 2), np.array([3]), {"position": np.zeros(1, np.int64), "token_id": np.array([9])})
    columns = {name: np.zeros(1, np.int64) for name in ("tile", "row", "col")}
    image = Block(torch.ones(1, 2), np.array([0 if pooling == "object" else 5]), columns)
    assert rows_of(monkeypatch, tmp_path, pooling, {"image": image, "text": text}) == []
