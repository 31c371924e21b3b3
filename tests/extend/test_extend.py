"""A harvest that extends another takes what is there and ends in the bytes of one that was made at once."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

import linrep.store
from linrep.corpora import Corpora, ImageFolder, Images, Text, TextFiles
from linrep.errors import RecipeError
from linrep.places import remove_folder
from linrep.store.layout import NO_LAYER
from linrep.vlm.config import ModelConfig
from tests.conftest import encoded_image, write_corpora
from tests.extend.harvests import CONFIG, IMAGES, PAIRS, POOL, TEXTS, Work, changed, contents, run, state, without

CASES = {
    "a deeper layer": ({}, {"layers": (0, 2, 3)}, ()),
    "a shallower layer": ({"layers": (0, 3)}, {"layers": (0, 1, 3)}, ()),
    "a view": ({"views": ("pooled", "last")}, {}, ()),
    "the view of last positions": ({"views": ("pooled", "tokens")}, {}, ()),
    "a corpus that comes last": ({}, {}, ("pairs",)),
    "a corpus that comes between": ({}, {}, ("text",)),
    "a layer, a view and a corpus": ({"views": ("tokens",)}, {"layers": (0, 1, 2)}, ("text",)),
    "a layer in a store without limits": ({"high_norm": None}, {"high_norm": None, "layers": (0, 1, 2)}, ()),
    "a site": ({}, {"sites": ("mlp",)}, ()),
    "a site, a layer and a corpus": ({"sites": ("mlp",)}, {"sites": ("attention", "mlp"), "layers": (0, 2, 4)}, ("text",)),
    "the tower": ({}, {"sites": ("tower",)}, ()),
    "the tower, a site, a layer and a corpus": (
        {"sites": ("tower",), "views": ("tokens", "last")},
        {"sites": ("mlp", "tower"), "layers": (0, 2, 4)},
        ("text",),
    ),
    "layers beside the tower": ({"sites": ("tower",), "layers": (4,)}, {"sites": ("tower",)}, ()),
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


def test_by_a_site_nothing_else_is_computed(corpora, random_vlm, tmp_path, work):
    first = run(tmp_path, corpora, random_vlm, CONFIG)
    work.forget()
    second = run(tmp_path, corpora, random_vlm, changed(sites=("mlp",)))
    assert {view for _, view in work.rows} == {"pooled/site=mlp", "tokens/site=mlp", "last/site=mlp"}
    there, here = Path(first.place.path), Path(second.place.path)
    files = [file.path for commit in first.commits.values() for file in commit.files if "layer=" in file.path]
    assert files
    assert all((there / path).samefile(here / path) for path in files)


def test_by_the_tower_no_block_runs_and_no_text(corpora, random_vlm, tmp_path, work):
    first = run(tmp_path, corpora, random_vlm, changed(sites=("mlp",)))
    old = state(first)
    work.forget()
    second = run(tmp_path, corpora, random_vlm, changed(sites=("mlp", "tower")))
    assert work.samples == {0: IMAGES + PAIRS}
    assert {view for _, view in work.rows} == {"pooled/site=tower", "tokens/site=tower"}
    assert work.measured == {("images", NO_LAYER), ("pairs", NO_LAYER)}
    assert state(first) == old
    assert {name for name in contents(second) if "site=tower" in name}
    there, here = Path(first.place.path), Path(second.place.path)
    files = [file.path for commit in first.commits.values() for file in commit.files if "layer=" in file.path]
    assert all((there / path).samefile(here / path) for path in files)


def test_a_harvest_of_the_tower_that_lost_a_chunk_is_resumed_to_the_same_bytes(corpora, random_vlm, tmp_path, work, at_once):
    config = changed(sites=("tower",))
    whole = at_once(config)
    store = run(tmp_path, corpora, random_vlm, config)
    (Path(store.place.path) / "commits" / "000001.json").unlink()
    work.forget()
    again = run(tmp_path, corpora, random_vlm, config)
    assert sum(work.samples.values()) == 4
    assert not work.measured
    assert contents(again) == contents(whole)


def test_by_a_corpus_no_old_sample_runs_and_the_new_ones_have_all_layers(corpora, random_vlm, tmp_path, work):
    first = run(tmp_path, without(corpora, "text"), random_vlm, CONFIG)
    work.forget()
    second = run(tmp_path, corpora, random_vlm, CONFIG)
    assert work.samples == {2: TEXTS}
    assert work.measured == {("text", layer) for layer in (0, 2)}
    # The new corpus stands between the old ones: chunks have other numbers, samples have the same names.
    ids = [[row["sample_id"] for row in s.samples().to_pylist() if row["corpus"] != "text"] for s in (first, second)]
    assert ids[0] == ids[1]
    assert [second.manifest.source_of(chunk) for chunk in range(6)] == ["images"] * 3 + ["text"] * 2 + ["pairs"]


def test_a_second_source_of_a_corpus_costs_its_own_samples(corpora, random_vlm, tmp_path, work, at_once):
    more = "\n".join(f"a red house number {i}" for i in range(3))
    (tmp_path / "more.txt").write_text(more + "\n")
    several = Text(sources={"text": corpora.text, "more": TextFiles(path=str(tmp_path / "more.txt"))})
    both = corpora.model_copy(update={"text": several})
    whole = at_once(CONFIG, both)
    run(tmp_path / "ws", corpora, random_vlm, CONFIG)
    work.forget()
    store = run(tmp_path / "ws", both, random_vlm, CONFIG)
    assert work.samples == {2: 3}
    assert work.measured == {("text.more", 0), ("text.more", 2)}
    assert contents(store) == contents(whole)


@pytest.mark.parametrize(("name", "n"), [("next", 4), ("before", 4 + IMAGES)])
def test_images_with_classes_of_their_own_leave_those_alone_whose_names_come_before(
    corpora, random_vlm, tmp_path, work, at_once, name, n
):
    """Class numbers are counted on from source to source: where those of a source change, so do its rows."""
    for i in range(4):
        path = tmp_path / "more" / "n03" / f"q{i}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded_image(20 + i))
    (tmp_path / "more" / "classes.json").write_text('{"n03": "goldfish"}')
    old, new = corpora.images, ImageFolder(path=str(tmp_path / "more"))
    one, both = (Corpora(images=Images(sources=sources)) for sources in ({"middle": old}, {"middle": old, name: new}))
    whole = at_once(CONFIG, both)
    run(tmp_path / "ws", one, random_vlm, CONFIG)
    work.forget()
    store = run(tmp_path / "ws", both, random_vlm, CONFIG)
    assert work.samples == {2: n}
    assert contents(store) == contents(whole)


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
    assert f"{first.place.name}: images has other records, labels or splits" in capsys.readouterr().err
    run(tmp_path / "ws", without(more, "images", "pairs"), random_vlm, CONFIG)
    assert f"{first.place.name}: no source in common" in capsys.readouterr().err
    work.forget()
    other = ModelConfig(path=str(write_random_vlm(tmp_path / "model", width=32, n_layers=4, seed=1)))
    run(tmp_path / "ws", images, other, CONFIG)
    assert work.samples == {2: IMAGES}
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
