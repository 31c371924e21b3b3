"""A harvest that extends another takes what is there and ends in the bytes of one that was made at once."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

import linrep.store
from linrep.corpora import Corpora
from linrep.errors import RecipeError
from linrep.harvest.config import HarvestConfig
from linrep.places import PendingFile, Place, remove_folder
from linrep.store.manifest import write_manifest
from linrep.store.read import Store
from linrep.vlm.config import ModelConfig
from tests.cluster.extending import POOL, Work, contents, in_this_process, run, state
from tests.cluster.test_stage import Killed
from tests.conftest import write_corpora

CONFIG = HarvestConfig(layers=(0, 2), tokens_per_sample=7, chunk_size=4)
IMAGES, TEXTS, PAIRS = 10, 5, 6
"""Samples of each corpus; a pair is one with its image and one alone."""


def changed(**fields: object) -> HarvestConfig:
    return HarvestConfig.model_validate({**CONFIG.model_dump(), **fields})


def without(corpora: Corpora, *names: str) -> Corpora:
    return corpora.model_copy(update=dict.fromkeys(names))


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Corpora:
    """Three chunks of images, two of texts, one of pairs."""
    return write_corpora(tmp_path_factory.mktemp("corpora"), IMAGES, TEXTS, PAIRS // 2)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    return in_this_process(monkeypatch)


@pytest.fixture
def at_once(corpora, random_vlm, tmp_path, work):
    """The harvest of a recipe in a workspace of its own; what it costs is not counted."""

    def made(config: HarvestConfig, of: Corpora = corpora, model: ModelConfig = random_vlm) -> Store:
        store = run(tmp_path / "once", of, model, config)
        work.forget()
        return store

    return made


CASES = {
    "a deeper layer": ({}, {"layers": (0, 2, 3)}, ()),
    "a shallower layer": ({"layers": (0, 3)}, {"layers": (0, 1, 3)}, ()),
    "a view": ({"views": ("pooled", "last")}, {}, ()),
    "the view of last positions": ({"views": ("pooled", "tokens")}, {}, ()),
    "a corpus that comes last": ({}, {}, ("pairs",)),
    "a corpus that comes between": ({}, {}, ("text",)),
    "a layer, a view and a corpus": ({"views": ("tokens",)}, {"layers": (0, 1, 2)}, ("text",)),
    "a layer in a store without limits": ({"high_norm": None}, {"high_norm": None, "layers": (0, 1, 2)}, ()),
    "every token": ({"tokens_per_sample": None, "views": ("pooled",)}, {"tokens_per_sample": None}, ()),
}


@pytest.mark.parametrize(("before", "after", "lacking"), CASES.values(), ids=CASES)
def test_extended_it_has_the_bytes_of_one_made_at_once(corpora, random_vlm, tmp_path, work, at_once, before, after, lacking):
    whole = at_once(changed(**after))
    first = run(tmp_path / "ws", without(corpora, *lacking), random_vlm, changed(**before))
    old = state(first)
    second = run(tmp_path / "ws", corpora, random_vlm, changed(**after))
    assert contents(second) == contents(whole)
    assert second.manifest.digest == whole.manifest.digest
    for field in ("limits", "statistics", "counts", "corpora", "statistics_seal"):
        assert getattr(second.manifest, field) == getattr(whole.manifest, field)
    facts = [[replace(c, files=(), seconds=0.0, taken=()) for _, c in sorted(s.commits.items())] for s in (second, whole)]
    assert facts[0] == facts[1]
    assert state(first) == old
    for store in (first, second):
        assert linrep.store.open(str(store.place)).verify().whole
        assert not store.strangers()


def test_by_a_layer_nothing_else_is_computed(corpora, random_vlm, tmp_path, work):
    first = run(tmp_path, corpora, random_vlm, CONFIG)
    assert work.samples == {2: IMAGES + TEXTS + PAIRS}
    work.forget()
    second = run(tmp_path, corpora, random_vlm, changed(layers=(0, 1, 2)))
    # All samples run, and no deeper than the new layer.
    assert work.samples == {1: IMAGES + TEXTS + PAIRS}
    assert {layer for layer, _ in work.rows} == {1}
    assert work.measured == {(corpus, 1) for corpus in ("images", "text", "pairs")}
    there, here = Path(first.place.path), Path(second.place.path)
    for commit in first.commits.values():
        for file in commit.files:
            if not file.path.startswith(("samples", "statistics")):
                assert (there / file.path).samefile(here / file.path)  # no room is taken twice
    (taken,) = {part.harvest for commit in second.commits.values() for part in commit.taken}
    assert taken == first.place.name
    assert f"from {taken}, not computed again" in str(second)


def test_by_a_corpus_no_old_sample_runs_and_the_new_ones_have_all_layers(corpora, random_vlm, tmp_path, work):
    first = run(tmp_path, without(corpora, "text"), random_vlm, CONFIG)
    work.forget()
    second = run(tmp_path, corpora, random_vlm, CONFIG)
    assert work.samples == {2: TEXTS}
    assert work.measured == {("text", layer) for layer in (0, 2)}
    # The new corpus stands between the old ones: chunks have other numbers, samples have the same names.
    ids = [[row["sample_id"] for row in s.samples().to_pylist() if row["corpus"] != "text"] for s in (first, second)]
    assert ids[0] == ids[1]
    assert [second.manifest.corpus_of(chunk) for chunk in range(6)] == ["images"] * 3 + ["text"] * 2 + ["pairs"]


def test_each_chunk_is_computed_as_deep_as_it_needs(corpora, random_vlm, tmp_path, work):
    run(tmp_path, without(corpora, "text"), random_vlm, changed(layers=(0, 3)))
    work.forget()
    run(tmp_path, corpora, random_vlm, changed(layers=(0, 1, 3)))
    assert work.samples == {1: IMAGES + PAIRS, 3: TEXTS}


def test_what_two_harvests_hold_together_needs_no_model_and_no_cluster(corpora, random_vlm, tmp_path, work, at_once, capsys):
    whole = at_once(changed(layers=(0, 1, 2)))
    run(tmp_path / "ws", corpora, random_vlm, changed(layers=(0, 1)))
    run(tmp_path / "ws", without(corpora, "pairs"), random_vlm, changed(layers=(2,)))
    run(tmp_path / "ws", without(corpora, "images", "text"), random_vlm, changed(layers=(1, 2)))
    work.forget()
    capsys.readouterr()
    store = run(tmp_path / "ws", corpora, random_vlm, changed(layers=(0, 1, 2)))
    assert work == Work()
    assert contents(store) == contents(whole)
    assert len({part.harvest for commit in store.commits.values() for part in commit.taken}) == 3
    line = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("harvest: taken: "))
    assert line.endswith("; computed: nothing")


def test_a_harvest_of_less_is_taken_whole_and_outlives_the_one_it_came_from(corpora, random_vlm, tmp_path, work, at_once):
    less = changed(layers=(2,), views=("pooled",))
    whole = at_once(less, without(corpora, "text"))
    first = run(tmp_path / "ws", corpora, random_vlm, CONFIG)
    work.forget()
    store = run(tmp_path / "ws", without(corpora, "text"), random_vlm, less)
    assert work == Work()
    assert contents(store) == contents(whole)
    remove_folder(first.place)
    assert linrep.store.open(str(tmp_path / "ws")).verify().whole


def test_the_line_says_what_comes_from_where_with_sizes(corpora, random_vlm, tmp_path, work, capsys):
    first = run(tmp_path, without(corpora, "text"), random_vlm, changed(views=("pooled", "tokens")), "old")
    assert "taken" not in capsys.readouterr().err  # there is nothing to take from
    run(tmp_path, corpora, random_vlm, changed(layers=(0, 1, 2)), "new")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("harvest: taken")]
    assert re.fullmatch(
        rf"harvest: taken: [\d.]+ kB from {first.place.name} \(pooled, tokens at layers 0, 2 of 4 chunks\); "
        r"computed: last at layers 0, 2 and layer 1 of 4 chunks \(16 samples\), layers 0-2 of 2 chunks \(5 samples\)",
        line,
    )
    run(tmp_path, corpora, random_vlm, changed(layers=(0, 1, 2, 3)), "newer")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("harvest: taken")]
    sizes = re.search(
        r"taken: ([\d.]+) kB from new-\w+ \(layers 0-2 of 6 chunks\); computed: layer 3 of 6 chunks .* about ([\d.]+) kB", line
    )
    assert sizes is not None
    assert float(sizes[2]) == pytest.approx(float(sizes[1]) / 3, rel=0.01)


OTHERS = {
    "dtype": ({"dtype": "float32"}, "harvest.dtype is 'float16' there and 'float32' here"),
    "seed": ({"seed": 1}, "harvest.seed is 0 there and 1 here"),
    "image_prompt": ({"image_prompt": "a <image>"}, "harvest.image_prompt is '<image>' there"),
    "chunk_size": ({"chunk_size": 7}, "harvest.chunk_size is 4 there and 7 here"),
    "high_norm": ({"high_norm": 20.0}, "harvest.high_norm is 10.0 there and 20.0 here"),
    "layers": ({"layers": (1,)}, "no layer and view in common"),
}


@pytest.mark.parametrize(("fields", "why"), OTHERS.values(), ids=OTHERS)
def test_nothing_is_taken_where_anything_else_differs_and_the_line_says_what(
    corpora, random_vlm, tmp_path, work, capsys, fields, why
):
    images = without(corpora, "text", "pairs")
    run(tmp_path, images, random_vlm, CONFIG)
    work.forget()
    store = run(tmp_path, images, random_vlm, changed(**fields))
    assert work.samples.total() == IMAGES
    assert all(commit.taken == () for commit in store.commits.values())
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "nothing is taken" in line]
    assert why in line
    assert "computed: layer" in line


def test_another_model_and_another_corpus_give_nothing(corpora, random_vlm, tmp_path, work, capsys):
    from linrep.vlm.random import write_random_vlm

    images = without(corpora, "text", "pairs")
    first = run(tmp_path / "ws", images, random_vlm, CONFIG)
    work.forget()
    more = write_corpora(tmp_path / "corpora", IMAGES + 1, 1, 1)
    run(tmp_path / "ws", without(more, "text", "pairs"), random_vlm, CONFIG)
    assert work.samples == {2: IMAGES + 1}
    assert f"{first.place.name}: no corpus in common" in capsys.readouterr().err
    other = ModelConfig(path=str(write_random_vlm(tmp_path / "model", width=32, n_layers=4, seed=1)))
    run(tmp_path / "ws", images, other, CONFIG)
    assert work.samples == {2: 2 * IMAGES + 1}
    assert f"{first.place.name}: another model" in capsys.readouterr().err


def test_prompts_of_other_corpora_do_not_matter(corpora, random_vlm, tmp_path, work):
    run(tmp_path, without(corpora, "text", "pairs"), random_vlm, CONFIG)
    work.forget()
    run(tmp_path, without(corpora, "pairs"), random_vlm, changed(text_prompt="say {text}", max_text_tokens=5))
    assert work.samples == {2: TEXTS}


def test_what_ran_in_another_number_format_is_not_mixed_in(corpora, random_vlm, tmp_path, work, capsys):
    texts, more = without(corpora, "images", "pairs"), changed(layers=(0, 1, 2))
    half, full = (POOL.model_copy(update={"precision": precision}) for precision in ("bfloat16", "float32"))
    first = run(tmp_path, texts, random_vlm, CONFIG, pool=half)
    with pytest.raises(
        RecipeError, match=r"begun in bfloat16, this worker would run in float32: set pool\.precision to bfloat16"
    ):
        run(tmp_path, texts, random_vlm, more)  # where the pool says nothing, the machine decides
    work.forget()
    store = run(tmp_path, texts, random_vlm, more, pool=full)
    assert f"{first.place.name}: its model ran in bfloat16, not float32" in capsys.readouterr().err
    assert work.samples == {2: TEXTS}
    assert {commit.precision for commit in store.commits.values()} == {"float32"}


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
