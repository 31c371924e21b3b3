"""Mistakes name what brought them: the option as it was typed, or the file and the field; and what was probably meant."""

import random
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from linrep.errors import RecipeError
from linrep.fields import settings
from linrep.recipe import Recipe, _command_line, load_yaml, parse, validate

ROOT = Path(__file__).parents[1]

MINIMAL = {"name": "t", "corpora": {"images": {"kind": "folder", "path": "x"}}, "model": {"path": "m"}}


def refusal(folder: Path, change: dict, line: str = "") -> list[str]:
    config = folder / "r.yaml"
    config.write_text(yaml.safe_dump({**MINIMAL, **change}))
    with pytest.raises(RecipeError) as caught:
        parse("", ["--config", str(config), *shlex.split(line)])
    return str(caught.value).replace(f"{folder}/", "").splitlines()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--probe.min_per_clas 7", "--probe.min_per_clas: there is no such option; did you mean --probe.min_per_class 7?"),
        ("--probe.min_per_clas=x", "--probe.min_per_clas: there is no such option; did you mean --probe.min_per_class 5?"),
        ("--prob.layers 3,4", "--prob.layers: there is no such option; did you mean --probe.layers 3,4?"),
        ("--min_per_clas 4", "--min_per_clas: there is no such option; `--help` lists them"),
        (
            "--min_per_class 4",
            "--min_per_class: there is no such option; did you mean --probe.min_per_class 4 or --sharing.min_per_class 4?",
        ),
        ("--probe.zzz 3", "--probe.zzz: there is no such option; `--help probe` lists those of this section"),
        ("--workspce runs", "--workspce: there is no such option; did you mean --workspace runs?"),
        ("--no-steer.insis", "--no-steer.insis: there is no such option; did you mean --no-steer.insist?"),
        ("recipes/x.yaml", "recipes/x.yaml: a value without an option; did you mean --config recipes/x.yaml?"),
        ("--harvest.layers 1 5 9", "5: a value without an option; did you mean --harvest.layers 1,5,9?"),
        (
            "--harvest.layers 5 --probe.layers 3 5",
            "5: a value without an option; did you mean --probe.layers 3,5?",
        ),
        (
            "--steer.insist true",
            "true: a value without an option; --steer.insist takes none, --no-steer.insist switches it off",
        ),
        ("--probe.seed", "--probe.seed: needs a value; for example --probe.seed 0"),
        (
            "--probe.views poled",
            "--probe.views: must be a list of pooled|tokens|last or all, got 'poled'; did you mean --probe.views pooled?",
        ),
        (
            "--harvest.views poled",
            "--harvest.views: must be pooled, tokens or last, got 'poled'; did you mean --harvest.views pooled?",
        ),
        (
            "--interpret.backend.kind chatt",
            "--interpret.backend.kind: must be truth, chat or local, got 'chatt'; did you mean --interpret.backend.kind chat?",
        ),
        (
            "--sae.design.activation.k 16",
            "--sae.design.activation.k: sae.design.activation.kind: missing: relu, topk, batch_topk, matryoshka, jumprelu, "
            "gated, matching_pursuit or archetypal"
            "; for example --sae.design.activation.kind topk",
        ),
        ("--pool.gpus x", "--pool.gpus: must be a number or null, got 'x'; for example --pool.gpus 0.5"),
        (
            "--harvest.image_size 3",
            "--harvest.image_size: must be 2 integers or null, got [3]; for example --harvest.image_size 8,8",
        ),
        (
            "--corpora.images.kind parquet",
            "--corpora.images.kind: corpora.images.path: missing; for example --corpora.images.path PATH",
        ),
        (
            "--sae.design.activation.kind matching_pursuit --sae.workers 2",
            "--sae.design.activation.kind, --sae.workers: workers is 2, but the latents of matching_pursuit cannot lie on "
            "several: set workers to 1",
        ),
        (
            """--features.saes '[{"laye": 3, "sae": "x"}]'""",
            "--features.saes: 0.laye: there is no such field; did you mean 0.layer?; "
            """for example --features.saes '[{"layer": 4, "sae": "topk-16-x8"}]'""",
        ),
        ("""--probe '{"min_per_clas": 3}'""", "--probe: min_per_clas: there is no such field; did you mean min_per_class?"),
        ("--corpora=1,2", "--corpora: 1,2 is no JSON; `--help corpora` shows the fields"),
        ("--probe null", "--probe: must hold fields, `--help probe` shows them"),
    ],
)
def test_a_mistake_of_the_command_line_names_the_option_as_it_was_typed(tmp_path, line, said):
    (shown,) = refusal(tmp_path, {}, line)
    assert shown == said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prob": {}}, "prob: there is no such section; did you mean probe?"),
        ({"wholly": {}}, "wholly: there is no such section"),
        ({"probe": {"min_per_clas": 3}}, "probe.min_per_clas: there is no such field; did you mean probe.min_per_class?"),
        ({"probe": {"image_prompt": "x"}}, "probe.image_prompt: there is no such field; did you mean harvest.image_prompt?"),
        ({"model": {"pth": "m"}}, "model.pth: there is no such field; did you mean model.path?"),
        (
            {"features": {"saes": [{"laye": 3, "sae": "x"}]}},
            "features.saes.0.laye: there is no such field; did you mean features.saes.0.layer?",
        ),
        (
            {"interpret": {"backend": {"kind": "truth", "url": "x"}}},
            "interpret.backend.url: only kind chat has this field, and the kind is truth",
        ),
        (
            {"steer": {"sites": [{"kind": "lst"}]}},
            "steer.sites.0.kind: must be image, patches, last or everywhere, got 'lst'; did you mean last?",
        ),
        (
            {"steer": {"judge": {"kind": "exat"}}},
            "steer.judge.kind: must be words, exact, forced, chat or human, got 'exat'; did you mean exact?",
        ),
        ({"interpret": {"latents": "al"}}, "interpret.latents: must be an integer or all, got 'al'; did you mean all?"),
        (
            {"sae": {"workers": 2, "design": {"activation": {"kind": "matching_pursuit"}}}},
            "sae: workers is 2, but the latents of matching_pursuit cannot lie on several: set workers to 1",
        ),
        ({"probe": None}, "probe: must hold fields, `--help probe` shows them"),
        ({"model": {"path": "m", 1: 2}}, "model: keys should be strings, got 1"),
        ({1: 2}, "keys should be strings, got 1"),
    ],
)
def test_a_mistake_of_a_file_names_the_file_and_the_field(tmp_path, change, said):
    assert refusal(tmp_path, change) == [f"r.yaml: {said}"]
    # An option beside it, right and of the same section where there is one, is not blamed.
    assert refusal(
        tmp_path, change, "--probe.seed 3 --sae.seed 3 --steer.seed 1" if "probe" not in change else "--sae.seed 3"
    ) == [f"r.yaml: {said}"]


def test_mistakes_of_both_are_told_apart(tmp_path):
    shown = refusal(tmp_path, {"harvest": {"dtype": "int8"}, "probe": {"seed": "x"}}, "--pool.max_skipped 7")
    assert [line.split(":")[0] for line in shown] == ["r.yaml", "r.yaml", "--pool.max_skipped"]


WRONG = [
    None,
    "x",
    "",
    -1,
    0.5,
    True,
    [],
    ["x"],
    [[1]],
    {},
    {"kind": "x"},
    {"kind": None},
    {"x": 1},
    [{}],
    [{"kind": "x"}],
]


def spoilt(value: Any, draw: random.Random) -> Any:
    """A recipe with one value, or one name, that is another."""
    if isinstance(value, dict | list) and value and draw.random() < 0.85:
        at = draw.choice(list(value) if isinstance(value, dict) else range(len(value)))
        copy = value.copy()
        if isinstance(at, str) and draw.random() < 0.2:
            copy[at[:-1]] = copy.pop(at)
        else:
            copy[at] = spoilt(value[at], draw)
        return copy
    return draw.choice(WRONG)


def said(attempt: Callable[[], object]) -> list[str]:
    """The lines of its refusal; none where it is not refused."""
    try:
        attempt()
    except RecipeError as error:
        return str(error).split("\n")
    return []


@pytest.mark.parametrize("name", ["demo", "line_of_sight", "imagenette"])
def test_whatever_is_wrong_with_a_recipe_is_said_in_lines_that_name_the_file(name):
    content = load_yaml(str(ROOT / "recipes" / f"{name}.yaml"))
    draw, n_wrong = random.Random(0), 0
    for _ in range(300):
        section = draw.choice(list(content))
        recipe = {**content, section: spoilt(content[section], draw)}
        for line in said(lambda recipe=recipe: validate(recipe, "r.yaml", {"pool": {"cpus": "3"}}, ["--pool.cpus", "3"])):
            n_wrong += 1
            assert line.startswith("r.yaml: "), (recipe, line)
    assert n_wrong > 100


def test_whatever_is_typed_is_answered_in_lines_that_name_the_option():
    content = load_yaml(str(ROOT / "recipes" / "demo.yaml"))
    every, draw, n_wrong = list(settings(Recipe)), random.Random(0), 0
    values = ["x", "", "null", "-1", "0.5", "true", "[]", "{}", '["x"]', '{"kind": "x"}', '{"x": 1}', "1,2", "[1,", "{x"]
    for _ in range(120):
        option = f"--{draw.choice(every).path}"
        words = draw.choice([[option, draw.choice(values)], [f"{option}={draw.choice(values)}"], [option]])
        for line in said(lambda words=words: validate(content, "r.yaml", _command_line(words), words)):
            n_wrong += 1
            assert line.startswith((f"{option}: ", f"{words[-1]}: a value without an option")), (words, line)
    assert n_wrong > 40


def test_an_option_mends_a_mistake_of_the_file(tmp_path):
    config = tmp_path / "r.yaml"
    config.write_text(yaml.safe_dump({**MINIMAL, "harvest": {"dtype": "int8"}}))
    assert parse("", ["--config", str(config), "--harvest.dtype", "float32"]).recipe.harvest.dtype == "float32"
