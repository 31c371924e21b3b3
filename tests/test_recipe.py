"""Recipes: strict, mergeable, and clear about what is wrong."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from linrep.errors import RecipeError
from linrep.recipe import Recipe, merge, parse, remember

ROOT = Path(__file__).parents[1]
MINIMAL = {"name": "t", "corpora": {"text": {"path": "x.jsonl"}}, "model": {"path": "m"}}


def write(folder: Path, content: object) -> str:
    path = folder / "r.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(path)


def refusal(folder: Path, content: object, *words: str) -> str:
    with pytest.raises(RecipeError) as caught:
        parse("", ["--config", write(folder, content), *words])
    return str(caught.value)


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_in_the_house_is_valid(path):
    request = parse("", ["--config", str(path)])
    assert request.recipe.name == path.stem
    assert request.workspace == "runs"


def test_overrides_reach_any_depth_and_keep_the_rest(tmp_path):
    recipe = parse(
        "",
        ["--config", write(tmp_path, MINIMAL), "--harvest.layers", "1,5", "--corpora.text.max_samples", "9", "--workspace", "w"],
    )
    assert recipe.workspace == "w"
    assert recipe.recipe.harvest.layers == (1, 5)
    assert recipe.recipe.corpora.text.max_samples == 9
    assert recipe.recipe.corpora.text.path == "x.jsonl"


def test_looking_at_the_corpora_again_is_asked_for_and_no_part_of_the_recipe(tmp_path):
    config = write(tmp_path, MINIMAL)
    plain, again = parse("", ["--config", config]), parse("", ["--config", config, "--reindex"])
    assert (plain.reindex, again.reindex) == (False, True)
    assert plain.recipe == again.recipe


def test_a_word_that_stands_for_a_whole_list_is_typed_as_it_is(tmp_path):
    config = write(tmp_path, {**MINIMAL, "harvest": {"layers": [1]}, "probe": {"views": ["last"]}})
    recipe = parse(
        "", ["--config", config, "--harvest.layers", "all", "--probe.views=all", "--tune.space.expansion", "4,8"]
    ).recipe
    assert (recipe.harvest.layers, recipe.probe.views) == ("all", "all")
    assert recipe.tune.space.expansion.model_dump() == {"kind": "values", "values": (4, 8)}


def test_null_clears_a_field(tmp_path):
    content = {**MINIMAL, "harvest": {"image_size": [28, 28], "tokens_per_sample": 3}}
    request = parse(
        "", ["--config", write(tmp_path, content), "--harvest.image_size", "null", "--harvest.tokens_per_sample", "null"]
    )
    assert request.recipe.harvest.image_size is None
    assert request.recipe.harvest.tokens_per_sample is None


def test_a_new_kind_replaces_its_section(tmp_path):
    folder = {"kind": "folder", "path": "a", "per_class": 3}
    assert merge({"s": folder}, {"s": {"kind": "parquet", "path": "b"}}) == {"s": {"kind": "parquet", "path": "b"}}
    assert merge({"s": folder}, {"s": {"path": "b"}}) == {"s": {**folder, "path": "b"}}
    content = {**MINIMAL, "corpora": {"images": folder}}
    words = ["--corpora.images.kind", "parquet", "--corpora.images.path", "b.parquet"]
    assert parse("", ["--config", write(tmp_path, content), *words]).recipe.corpora.images.kind == "parquet"


@pytest.mark.parametrize(
    ("change", "words", "said"),
    [
        ({"harvst": {}}, (), "r.yaml: harvst: there is no such section; did you mean harvest?"),
        ({"harvest": {"layer": 3}}, (), "r.yaml: harvest.layer: there is no such field; did you mean harvest.layers?"),
        ({"harvest": {"dtype": "int8"}}, (), "r.yaml: harvest.dtype: must be auto, float16, bfloat16 or float32, got 'int8'"),
        ({"harvest": {"layers": [3, 3]}}, (), "must rise from 0 or more without repeats, got [3, 3]"),
        (
            {"harvest": {"image_prompt": "hello"}},
            (),
            "image_prompt: must hold <image> exactly once and no other placeholder",
        ),
        ({"harvest": {"image_prompt": "<image> {text}"}}, (), "no other placeholder, got '<image> {text}'"),
        (
            {"harvest": {"pair_prompt": "<image>{text}{text}"}},
            (),
            "pair_prompt: must hold <image> and {text} exactly once",
        ),
        (
            {},
            ("--harvest.layers", "[1,"),
            "--harvest.layers: [1, begins like JSON and is none; for example --harvest.layers all",
        ),
        ({}, ("--harvest", "{bad"), "--harvest: {bad begins like JSON and is none"),
        ({"model": {}}, (), "model.path: missing"),
        ({"pool": {"actors": [4, 2]}}, (), "pool.actors: the fewest (4) must not be more than the most (2)"),
        (
            {},
            ("--pool.max_skipped", "7"),
            "--pool.max_skipped: must be less than or equal to 1, got '7'; for example --pool.max_skipped 0.01",
        ),
        ({}, ("--pool.max_skiped", "0"), "--pool.max_skiped: there is no such option; did you mean --pool.max_skipped 0?"),
    ],
)
def test_a_mistake_is_named(tmp_path, change, words, said):
    message = refusal(tmp_path, {**MINIMAL, **change}, *words)
    assert said in message
    assert len(message.splitlines()) == 1


def test_files_that_are_no_recipes_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a workspace `runs` remembers its recipe
    assert "is not YAML" in refusal(tmp_path, "a: [1")
    assert "holds no sections" in refusal(tmp_path, "[1, 2]")
    (tmp_path / "latin.yaml").write_bytes("name: caf\xe9".encode("latin-1"))
    with pytest.raises(RecipeError, match=r"latin\.yaml is not UTF-8: .* at byte 9"):
        parse("", ["--config", str(tmp_path / "latin.yaml")])
    with pytest.raises(RecipeError, match="--config is missing"):
        parse("", [])
    with pytest.raises(RecipeError, match=r"cannot read the recipe nope\.yaml"):
        parse("", ["--config", "nope.yaml"])


def test_a_recipe_cannot_be_changed():
    recipe = Recipe.model_validate(MINIMAL)
    with pytest.raises(ValidationError, match="frozen"):
        recipe.harvest.seed = 3  # type: ignore[misc]


def test_a_workspace_remembers_its_recipe_overrides_included(tmp_path, capsys):
    config, workspace = write(tmp_path, MINIMAL), str(tmp_path / "w")
    with pytest.raises(RecipeError, match=r"--config is missing, and .*w remembers no recipe yet: name one"):
        parse("", ["--workspace", workspace])
    first = parse("", ["--config", config, "--workspace", workspace, "--harvest.layers", "1,5"]).recipe
    remember(first, workspace)
    assert parse("", ["--workspace", workspace]).recipe == first
    assert "as " + workspace + " remembers it" in capsys.readouterr().err
    probed = parse("", ["--workspace", workspace, "--probe.seed", "7"]).recipe
    assert (probed.harvest, probed.probe.seed) == (first.harvest, 7)
    remember(probed, workspace)  # of the same harvest: it takes the place of the one before
    assert parse("", ["--workspace", workspace]).recipe == probed
    remember(parse("", ["--config", config, "--workspace", workspace]).recipe, workspace)
    with pytest.raises(RecipeError, match=r"remembers 2 recipes: name one\n  --config .*t-\w+\.yaml\n  --config .*t-\w+\.yaml"):
        parse("", ["--workspace", workspace])


def test_a_recipe_with_a_key_in_an_address_is_not_kept(tmp_path):
    content = {**MINIMAL, "corpora": {"text": {"path": "s3://id:secret@bucket/x.jsonl"}}}
    remember(parse("", ["--config", write(tmp_path, content)]).recipe, str(tmp_path / "w"))
    assert not (tmp_path / "w").exists()
