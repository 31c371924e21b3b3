"""A harvest that extends another, whatever happens meanwhile: kills, damage, samples that change, limits that differ."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

import linrep.store
from linrep.places import PendingFile, Place
from linrep.store.manifest import write_manifest
from linrep.store.read import Store
from tests.cluster.test_stage import Killed
from tests.conftest import write_corpora
from tests.extend.harvests import CONFIG, IMAGES, changed, contents, run, state, without


@pytest.mark.slow
@pytest.mark.parametrize("layers", [(0,), (0, 1)], ids=["chunks that are taken whole", "chunks of which a layer is computed"])
def test_killed_before_any_write_it_ends_in_the_same_bytes_and_leaves_the_old_one_alone(
    random_vlm, tmp_path, work, monkeypatch, layers
):
    corpora = write_corpora(tmp_path / "corpora", n_images=4, n_texts=3, n_pairs=0).model_copy(update={"pairs": None})
    before, after = changed(layers=(0,), views=("last",)), changed(layers=layers, views=("last",))
    expected = contents(run(tmp_path / "whole", corpora, random_vlm, after))
    publish, copy_to, left, steps = PendingFile.publish, Place.copy_to, 10**6, 0

    def counted(step):
        def counting(*args):
            nonlocal left, steps
            left, steps = left - 1, steps + 1
            if left < 0:
                raise Killed
            return step(*args)

        return counting

    def extended(workspace: Path) -> Store:
        return run(workspace, corpora, random_vlm, after)

    def begun(workspace: Path) -> Store:
        return run(workspace, without(corpora, "text"), random_vlm, before)

    monkeypatch.setattr(PendingFile, "publish", counted(publish))
    monkeypatch.setattr(Place, "copy_to", counted(copy_to))
    begun(tmp_path / "counted")
    steps = 0
    extended(tmp_path / "counted")
    total = steps
    assert (
        total >= 2 * len(layers) + 2 * 3 + 5
    )  # vectors, samples, sums and commits of two chunks; three heads, whole sums, summary
    for at in range(total):
        workspace, left = tmp_path / f"w{at}", 10**6
        first = begun(workspace)
        old = state(first)
        work.forget()
        left = at
        with pytest.raises(Killed):
            extended(workspace)
        left = 10**6
        second = extended(workspace)
        assert contents(second) == expected
        assert state(first) == old
        assert not [name for name in state(second) if name.endswith(".part")]
        n_texts, n_images = 3, 4 if layers != (0,) else 0
        # No chunk that was committed is computed again; the one under way is.
        assert work.samples.total() in (n_texts + n_images, 2 * n_texts + n_images, n_texts + 2 * n_images)


def test_a_damaged_file_is_not_taken_and_its_chunk_is_computed(corpora, random_vlm, tmp_path, work, at_once, capsys):
    images = without(corpora, "text", "pairs")
    whole = at_once(changed(layers=(0, 1, 2)), images)
    first = run(tmp_path / "ws", images, random_vlm, CONFIG)
    file = Path(first.place.path) / "pooled/layer=2/modality=image/part-000001.parquet"
    file.write_bytes(file.read_bytes()[:-100] + b"\0" * 92 + file.read_bytes()[-8:])  # its footer
    work.forget()
    second = run(tmp_path / "ws", images, random_vlm, changed(layers=(0, 1, 2)))
    assert contents(second) == contents(whole)
    assert work.samples == {1: IMAGES - 4, 2: 4}
    assert re.search(r"chunk 1 is computed whole: .*layer=2.* damaged", capsys.readouterr().err)
    assert second.commits[1].taken == ()


def test_damage_that_was_taken_along_is_mended_as_any_other(corpora, random_vlm, tmp_path, work, at_once):
    """Reading finds it, deleting the commit that it names mends it, and the old harvest's damage is not taken a second time."""
    images = without(corpora, "text", "pairs")
    whole = at_once(changed(layers=(0, 1, 2)), images)
    first = run(tmp_path / "ws", images, random_vlm, changed(dtype="float16"))
    path = "tokens/layer=2/modality=image/part-000001.parquet"
    file = Path(first.place.path) / path
    content = bytearray(file.read_bytes())
    content[200] ^= 1
    file.write_bytes(bytes(content))
    second = run(tmp_path / "ws", images, random_vlm, changed(layers=(0, 1, 2)))
    (damage,) = linrep.store.open(str(second.place)).verify().damaged
    commit = re.search(r"delete its commit, (\S+\.json),", damage)
    assert commit is not None
    Path(commit[1]).unlink()
    work.forget()
    mended = run(tmp_path / "ws", images, random_vlm, changed(layers=(0, 1, 2)))
    assert work.samples == {2: 4}
    assert mended.verify().whole
    assert contents(mended) == contents(whole)
    assert not linrep.store.open(str(first.place)).verify().whole  # whose repair is its own


def test_samples_that_have_changed_since_are_not_mixed_with_rows_of_before(random_vlm, tmp_path, work, capsys):
    corpora = without(write_corpora(tmp_path / "corpora", IMAGES, 1, 1), "text", "pairs")
    run(tmp_path / "ws", corpora, random_vlm, CONFIG)
    (gone,) = (tmp_path / "corpora/images").rglob("p003.JPEG")
    gone.unlink()
    store = run(tmp_path / "ws", corpora, random_vlm, changed(layers=(0, 1, 2)))
    (chunk,) = [number for number, commit in store.commits.items() if commit.skipped]
    assert f"chunk {chunk} is computed whole: its samples are not those that t-" in capsys.readouterr().err
    assert store.commits[chunk].taken == ()
    assert store.manifest.counts["n_skipped"] == 1
    rows = [store.select("pooled", layer).table(["sample_id"])["sample_id"].to_pylist() for layer in (0, 1, 2)]
    assert rows[0] == rows[1] == rows[2]
    assert len(rows[0]) == IMAGES - 1


def test_an_older_harvest_that_was_stopped_gives_what_it_has(corpora, random_vlm, tmp_path, work, at_once, monkeypatch):
    images = without(corpora, "text", "pairs")
    whole = at_once(changed(layers=(0, 1, 2)), images)
    publish, left = PendingFile.publish, 20

    def counted(self):
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        publish(self)

    with monkeypatch.context() as patch:
        patch.setattr(PendingFile, "publish", counted)
        with pytest.raises(Killed):
            run(tmp_path / "ws", images, random_vlm, CONFIG)
    n = work.samples.total()
    assert 0 < n < IMAGES
    work.forget()
    store = run(tmp_path / "ws", images, random_vlm, changed(layers=(0, 1, 2)))
    assert work.samples == {1: n, 2: IMAGES - n}
    assert contents(store) == contents(whole)


@pytest.mark.parametrize("times", [1.0, 2.0])
def test_of_harvests_with_other_limits_one_alone_gives_rows(corpora, random_vlm, tmp_path, work, times):
    images = without(corpora, "text", "pairs")
    run(tmp_path, images, random_vlm, changed(layers=(0, 1), views=("pooled",)))
    other = run(tmp_path, images, random_vlm, changed(layers=(0,), views=("tokens",)))
    limits = [{**one, "limit": times * one["limit"]} for one in other.manifest.limits]
    write_manifest(other.place, replace(other.manifest, limits=limits))
    work.forget()
    run(tmp_path, images, random_vlm, changed(layers=(0, 1), views=("pooled", "tokens")))
    assert work.rows.keys() == ({(1, "tokens")} if times == 1 else {(0, "tokens"), (1, "tokens")})


@pytest.mark.usefixtures("work")
def test_in_an_object_store_files_are_copied_and_the_old_ones_stay(bucket, corpora, random_vlm, tmp_path):
    images = without(corpora, "text", "pairs")
    less = changed(layers=(0, 2), views=("pooled",))
    first = run(bucket("extend"), images, random_vlm, less)
    files = {path: (first.place / path).read_bytes() for path, _ in first.place.walk()}
    second = run(bucket("extend"), images, random_vlm, changed(layers=(0, 1, 2), views=("pooled",)))
    whole = run(tmp_path, images, random_vlm, changed(layers=(0, 1, 2), views=("pooled",)))
    assert {path: (second.place / path).read_bytes() for path in contents(whole)} == contents(whole)
    assert {path: (first.place / path).read_bytes() for path, _ in first.place.walk()} == files
    assert all(commit.taken for commit in second.commits.values())
