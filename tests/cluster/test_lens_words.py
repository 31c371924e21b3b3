"""What the lenses need of a model is found where the harvest says that the model lies, and what is missing is said."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from linrep.cluster.lens_words import lens_words
from linrep.sharing.config import SharingConfig
from linrep.sharing.study import Study, plan_study
from tests.sharing.planted import write_pairs


def study_of(folder: Path, model: Path, labels: np.ndarray | None, views: tuple[str, ...] = ("pooled", "tokens")) -> Study:
    store = write_pairs(folder, *np.ones((2, 60, 3, 8)), labels, tokens=3, views=views)
    store = replace(store, manifest=replace(store.manifest, model={"path": str(model), "revision": None}))
    return plan_study(store, SharingConfig(groups=4, reservoir=32))


def test_a_lens_is_left_out_for_what_it_lacks_and_the_note_says_which(random_vlm, tmp_path):
    labels = np.arange(60) % 2
    found, notes = lens_words(study_of(tmp_path / "a", Path(random_vlm.path), labels), {})
    assert notes == ()
    assert found["trained"].model is not None
    boat, tree = found["trained"].words["class"]
    assert boat
    assert tree
    assert not {*boat} & {*tree}
    # Without weights the other lens is left.
    bare = shutil.copytree(random_vlm.path, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    found, (note,) = lens_words(study_of(tmp_path / "b", Path(bare), labels), {})
    assert note.startswith("trained model: the logit lens is left out: ")
    assert found["trained"].model is None
    assert found["trained"].words["class"] == (boat, tree)
    # Without the model, without names and without tokens there is none.
    for which, model, own, views, why in (
        ("c", tmp_path / "gone", labels, ("pooled", "tokens"), "does not exist"),
        ("d", Path(random_vlm.path), None, ("pooled", "tokens"), "pairs have no classes and no attributes"),
        ("e", Path(random_vlm.path), labels, ("pooled",), "has no view tokens"),
    ):
        found, (note,) = lens_words(study_of(tmp_path / which, model, own, views), {})
        assert found == {}
        assert note.startswith("trained model: LatentLens is left out: ")
        assert why in note
