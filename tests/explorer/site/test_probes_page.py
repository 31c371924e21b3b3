"""The probes' page holds the tables' own numbers, and shows first what the headline speaks of."""

import polars as pl

from linrep.explorer.probes import probe_headline
from linrep.explorer.site.probes import MATRIX, PAIRS, confusions, first_choice, shard_of, write_probes
from linrep.explorer.site.shards import Site
from linrep.places import place
from tests.explorer.site.planted import CLASSES, column, planted_probes, results, same, shard


def test_every_row_and_column_of_the_table_reaches_the_page(tmp_path):
    one = planted_probes(tmp_path)
    write_probes(Site(place(tmp_path / "site")), results(tmp_path, probe=[one]))
    head = shard(tmp_path / "site", f"probes/{one.name}")
    rows = one.frame("probes")
    assert [(part["attribute"], part["view"], part["n"]) for part in head["parts"]] == [
        ("class", "pooled", 7),
        ("<b>ground</b>", "last", 1),
    ]
    for part in head["parts"]:
        own = rows.filter(pl.col("attribute") == part["attribute"], pl.col("view") == part["view"]).sort(
            "layer", maintain_order=True
        )
        raw = shard(tmp_path / "site", part["shard"])
        assert raw["columns"].keys() | {"attribute", "view"} == set(rows.columns)
        for name, value in raw["columns"].items():
            expected = own[name].to_list()
            if name == "high_norm_positions":
                expected = ["3, 5"] * len(own)
            elif name in ("centred", "converged"):
                expected = [None if v is None else "yes" if v else "no" for v in expected]
            assert same(column(value), expected), name
    assert head["left_out"] == {"place of image": ["top left"]}


def test_what_is_shown_first_is_what_the_headline_speaks_of(tmp_path):
    one = planted_probes(tmp_path)
    first = first_choice(one.frame("probes"))
    assert first == {"attribute": "class", "view": "pooled", "tested_on": "image", "kind": "ridge"}
    assert "pooled rows, ridge probes" in probe_headline(one.table("probes"))[0]


def test_of_texts_alone_or_of_no_probes_something_is_shown_or_nothing(tmp_path):
    rows = planted_probes(tmp_path).frame("probes").with_columns(tested_on=pl.lit("text"), fitted_on=pl.lit("text"))
    assert first_choice(rows)["tested_on"] == "text"
    assert first_choice(rows.clear()) == {}


def test_the_matrix_has_every_cell_of_the_table_and_the_rows_of_each_class(tmp_path):
    one = planted_probes(tmp_path)
    write_probes(Site(place(tmp_path / "site")), results(tmp_path, probe=[one]))
    (probe,) = shard(tmp_path / "site", f"{shard_of(one, 'class', 'pooled')}-2")
    assert (probe["kind"], probe["tested_on"], probe["classes"]) == ("ridge", "image", CLASSES)
    assert probe["cells"] == [[0, 0, 6], [0, 2, 2], [1, 1, 5], [1, 2, 1], [1, 0, 2], [2, 2, 4]]
    assert probe["rows"] == [8, 8, 4]


def test_of_very_many_classes_the_most_frequent_confusions_are_listed():
    names = [f"c{i}" for i in range(MATRIX + 1)]
    right = [{"class_name": name, "predicted": name, "n": 1000} for name in names]
    wrong = [
        {"class_name": a, "predicted": b, "n": i * 7 + j} for i, a in enumerate(names) for j, b in enumerate(names[:7]) if a != b
    ]
    found = confusions(pl.DataFrame(right + wrong), names)
    assert not found["whole"]
    counts = [n for _, _, n in found["cells"]]
    assert counts == sorted((row["n"] for row in wrong), reverse=True)[:PAIRS]
    assert all(a != b for a, b, _ in found["cells"])
    assert found["rows"][found["classes"].index("c40")] == 1000 + sum(row["n"] for row in wrong if row["class_name"] == "c40")
    assert set(found["classes"]) < set(names)  # a class that is in no confusion listed is left out
    assert found["n_classes"] == MATRIX + 1
