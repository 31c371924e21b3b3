"""The fields of a recipe as the command line names them: complete, with examples that hold, and found from a mistaken name."""

import random
import subprocess

import pytest

from linrep.errors import RecipeError
from linrep.fields import Setting, choices, nearest, settings, type_words, typed
from linrep.recipe import Recipe, _command_line, _Parser, _reader, merge, own_options, validate

EVERY = {one.path: one for one in settings(Recipe)}
KINDS = {
    "corpora": {
        "images": {"kind": "folder", "path": "x"},
        "text": {"kind": "files", "path": "x.jsonl"},
        "pairs": {"kind": "files", "path": "x.jsonl"},
    },
    "probe": {"attributes": {"path": "x.jsonl", "columns": ["colour"]}, "sae": {"sae": "topk-16-x8", "layer": 4}},
    "steer": {"sae": {"sae": "topk-16-x8", "layer": 4}},
    "regions": {"source": {"kind": "coco", "path": "x.json"}},
    "tune": {"space": {"text_share": [0.5]}},
    "demo": {},
}
WHOLE = {"name": "t", "model": {"path": "m"}, **KINDS}
REQUIRED = {
    "url": "http://localhost:8000/v1",
    "model": "m",
    "path": "p",
    "sheet": "s.csv",
    "values": [1.0],
    "low": 0.1,
    "high": 2.0,
}


def options(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """What the parser knows."""
    seen: list[set[str]] = []

    class Spy(_Parser):
        def parse_known_args(self, args=None, namespace=None):
            seen.append(set(self._option_string_actions))
            return super().parse_known_args(args, namespace)

    monkeypatch.setattr("linrep.recipe._Parser", Spy)
    _reader.cache_clear()
    _command_line([])
    _reader.cache_clear()
    return seen[0]


def test_the_help_knows_the_options_that_the_parser_knows(monkeypatch):
    named = {f"--{one}" for one in [*EVERY, *own_options()]}
    named |= {f"--no-{one.path}" for one in EVERY.values() if one.annotation is bool}
    named |= {f"--no-{one}" for one in ("reindex", "dry-run", "print-config", "serve")}
    assert named == options(monkeypatch)


def test_every_field_says_what_it_means():
    assert [one.path for one in settings(Recipe) if not one.field.description] == []


def as_bash_reads(line: str) -> list[str]:
    shown = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True, timeout=30, check=True)
    return shown.stdout.split("\0")[:-1]


def value_at(value: object, path: str) -> object:
    for name in path.split("."):
        value = getattr(value, name)
    return value


def with_kind(one: Setting) -> dict:
    """A whole recipe in which the section of a field is of the kind that has the field."""
    if not one.kind:
        return WHOLE
    parent = one.path.split(".")[:-1]
    kind = one.kind.split(", ")[0]
    (section,) = [one for one in EVERY[".".join(parent)].sections if kind in choices(one.model_fields["kind"].annotation)]
    values: dict = {"kind": kind}
    for name, field in section.model_fields.items():
        if field.is_required() and name != "kind":
            values[name] = REQUIRED.get(name, [8.0])
    for name in reversed(parent):
        values = {name: values}
    return merge(WHOLE, values)


@pytest.mark.parametrize("one", [one for one in settings(Recipe) if not one.sections], ids=lambda one: f"{one.path}:{one.kind}")
def test_the_example_of_a_field_is_a_right_one(one):
    """It is what a mistaken command line is answered with: it must work as pasted."""
    if one.path.endswith(".kind"):  # another kind needs other fields
        assert one.required or one.example == typed(one.default)
        return
    whole = with_kind(one)
    if one.path in ("probe.sae.path", "steer.sae.path"):  # instead of the name
        whole = merge(whole, {one.path.split(".")[0]: {"sae": {"sae": ""}}})
    words = as_bash_reads(one.usage)
    recipe = validate(whole, "r.yaml", _command_line(words), words)
    if isinstance(one.default, str) and not one.kind and "path" not in one.path and one.default:
        assert value_at(recipe, one.path) == one.default


def slips(name: str) -> set[str]:
    """The name with one letter left out, or two neighbours changed about."""
    left_out = {name[:i] + name[i + 1 :] for i in range(len(name))}
    return left_out | {name[:i] + name[i : i + 2][::-1] + name[i + 2 :] for i in range(len(name) - 1)}


@pytest.mark.parametrize("seed", range(4))
def test_one_slip_in_the_name_of_any_field_suggests_that_field(seed):
    """Alone, but where the slip may have been one in another field's name just as well."""
    draw = random.Random(seed)
    for name in EVERY:
        slip = draw.choice(sorted(slips(name) - EVERY.keys()))
        found = nearest(slip, EVERY)
        assert name in found, (slip, name, found)
        assert all(slip in slips(one) for one in found), (slip, name, found)


@pytest.mark.parametrize("name", ["probe.min_per_class", "tune.space.expansion.log"])
def test_a_slip_on_a_command_line_is_answered_with_the_option(name):
    slip = f"--{name[:-1]}"
    with pytest.raises(RecipeError) as caught:
        _command_line([slip, "3"])
    assert str(caught.value).startswith(f"{slip}: there is no such option; did you mean ")
    assert EVERY[name].usage.split()[0] in str(caught.value)


def test_a_name_that_is_like_none_suggests_none():
    assert nearest("probe.zzz", EVERY) == []
    assert nearest("completely.different", EVERY) == []


def test_types_are_in_words():
    words = {name: type_words(EVERY[name].annotation) for name in ("probe.views", "harvest.dtype", "pool.actors", "steer.insist")}
    assert words == {
        "probe.views": "list of pooled|tokens|last or all",
        "harvest.dtype": "auto, float16, bfloat16 or float32",
        "pool.actors": "2 integers or null",
        "steer.insist": "true or false",
    }
