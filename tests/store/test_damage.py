"""Whatever happens to one file of a store, each reader gives the same rows as before or one StoreError that names the file."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import linrep.store
from linrep.errors import StoreError
from linrep.harvest.finish import record
from linrep.places import place
from linrep.store.blocks import blocks, files_of
from linrep.store.groups import Keep, count_rows, read_group, row_groups, rows_of_samples
from linrep.store.layout import commit_file
from linrep.store.manifest import Manifest, write_manifest
from linrep.store.mixture import find_sources, held_out
from linrep.store.read import Store
from linrep.store.statistics import merge
from linrep.store.stream import Stream
from linrep.store.write import samples_table, vector_column, write_statistics, writing_chunk
from schemas import vectors
from tests.store.planted_store import sums_of
from tests.stores import files_in

D, N = 6, 12


def sample(chunk: int, i: int) -> dict[str, object]:
    own = {"sample_id": f"images/{chunk}-{i}", "corpus": "images", "modality": "image", "uri": f"{i}.jpg", "split": "train"}
    return {**own, "n_image_tokens": 3, "n_text_tokens": 0}


def write(folder: Path, d: int = D, dtype: str = "float16", seed: int = 0, vary: int = 0) -> None:
    """A complete store: two chunks, two layers, two modalities, two views; three rows a sample."""
    here, parts = place(folder), []
    for chunk in (0, 1):
        sums, n = {}, N + vary
        with writing_chunk(here, chunk, vectors(d, dtype)) as writer:
            for layer in (3, 4):
                for modality in ("image", "text"):
                    x = np.random.default_rng([seed, chunk, layer, modality == "text"]).standard_normal((n, d)).astype(dtype)
                    columns = {
                        "sample_id": pa.array([f"images/{chunk}-{i // 3}" for i in range(n)]),
                        "position": pa.array(np.arange(n, dtype=np.int32)),
                        "is_special": pa.array([False] * n),
                        "norm": pa.array(np.linalg.norm(x.astype(np.float32), axis=1)),
                        "split": pa.array(["train"] * n),
                        "vector": vector_column(x),
                    }
                    arrays = [columns.get(f.name, pa.nulls(n, f.type)) for f in vectors(d, dtype)]
                    table = pa.Table.from_arrays(arrays, schema=vectors(d, dtype))
                    writer.vectors("tokens", layer, modality, table)
                    writer.vectors("last", layer, modality, table.take(list(reversed(range(n)))))
                    sums[layer, modality] = sums_of(x)
            samples = samples_table([sample(chunk, i) for i in range(n // 3)])
            writer.commit(samples, sums, n // 3, n, (("images/x", "no image"),), 0.5, "float32")
        parts.append(sums)
    seal = write_statistics(here, merge(parts))
    listed = [record(k, m, s) for (k, m), s in sorted(merge(parts).items())]
    manifest = Manifest(
        name="t", digest="0" * 10, model={"path": "m", "n_layers": 4, "digest": "x"}, layers=(3, 4), views=("tokens", "last"),
        dtype=dtype, width=d, corpora={}, harvest={}, n_chunks=2, chunk_size=4, status="complete", statistics=listed,
        statistics_seal=seal, created="a",
    )  # fmt: skip
    write_manifest(here, manifest)


def streamed(store: Store) -> np.ndarray:
    selection = store.select("tokens", 3, "text")
    stream = Stream(selection, row_groups(selection), Keep("train"), seed=1)
    try:
        return stream.take(2 * N).vectors
    finally:
        stream.close()


def in_blocks(store: Store) -> list:
    wanted = np.ones(8, bool)
    parts = files_of(store, "tokens", 4, "image", 2)
    found = [b for files in parts for b in blocks(store, files, "tokens", wanted, ("position",))]
    return [(b.x.tolist(), b.sample.tolist(), b.columns["position"].tolist()) for b in found]


def by_group(store: Store) -> list:
    selection = store.select("last", 4, "image")
    rows = [read_group(selection, group, Keep()) for group in row_groups(selection)]
    vectors, owners = rows_of_samples(selection, {"images/0-1": 0, "images/1-2": 1})
    return [[r.vectors.tolist() for r in rows], vectors.tolist(), owners.tolist(), count_rows(selection, Keep("train"))]


def mixed(store: Store) -> list:
    sources = find_sources(store, 3, "train")
    return [(m, s.rows, s.mean_norm, held_out({m: s}, 5)[m].tolist()) for m, s in sources.items()]


READERS: dict[str, Callable[[Store], object]] = {
    "numpy": lambda s: s.select("tokens", 3).numpy().tolist(),
    "torch": lambda s: s.select("tokens", 4, "text").torch().tolist(),
    "table": lambda s: s.select("last", 3, "image").table().to_pylist(),
    "split": lambda s: s.select("last", 3, "text", split="train", special=False).table(["norm"]).to_pylist(),
    "batches": lambda s: [b.to_pylist() for b in s.select("last", 3, "text").batches(batch_size=5)],
    "length": lambda s: len(s.select("last", 4, split="train")),
    "scan": lambda s: s.select("tokens", 4, "image").scan().select("vector", "norm").collect().to_dicts(),
    "polars": lambda s: s.select("last", 4, "text", "train").polars().to_dicts(),
    "samples": lambda s: s.samples().to_pylist(),
    "statistics": lambda s: [(k, v.n, v.total.tolist(), v.norm_counts.tolist()) for k, v in s.statistics().items()],
    "stream": lambda s: streamed(s).tolist(),
    "groups": by_group,
    "blocks": in_blocks,
    "mixture": mixed,
    "manifest": lambda s: (s.manifest.name, s.manifest.layers, s.manifest.width, s.manifest.counts, s.manifest.statistics),
    "commits": lambda s: [(n, c.n_samples, c.n_tokens, c.skipped, c.seconds) for n, c in s.commits.items()],
}
KINDS = {
    "vectors": "tokens/layer=3/modality=text/part-000001.parquet",
    "samples": "samples/part-000000.parquet",
    "sums": "statistics/part-000001.parquet",
    "statistics": "statistics.parquet",
    "manifest": "manifest.json",
    "commit": "commits/000001.json",
}


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("damage") / "store"
    write(folder)
    return folder


@pytest.fixture(scope="module")
def expected(original) -> dict[str, object]:
    store = linrep.store.open(str(original))
    return {name: read(store) for name, read in READERS.items()}


@pytest.fixture
def copy(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "store"))


def refusal(call: Callable[[], object], name: str) -> str | None:
    """The one line of the error of ours that a call raises, which names the file and what to do; None where it raises none."""
    try:
        call()
    except StoreError as error:
        said = str(error)
    else:
        return None
    assert name in said, said
    assert "\n" not in said
    assert any(word in said for word in ("delete", "run ", "no activation store")), said
    return said


def outcomes(folder: Path, expected: dict[str, object], name: str, names: tuple[str, ...] = tuple(READERS)) -> int:
    """How many readers refuse; the others give what was written, and no error is a foreign one or lacks the file's name."""
    if refusal(lambda: linrep.store.open(str(folder)), name):
        return len(names)
    store, found = linrep.store.open(str(folder)), {}
    refused = [refusal(lambda reader=reader: found.update({reader: READERS[reader](store)}), name) for reader in names]
    for reader, value in found.items():
        assert value == expected[reader], reader
    return sum(said is not None for said in refused)


TOUCHING = {
    "vectors": ("numpy", "stream", "mixture"),
    "samples": ("samples", "blocks"),
    "sums": ("statistics", "manifest"),
    "statistics": ("statistics", "mixture"),
    "manifest": ("numpy", "statistics", "manifest"),
    "commit": ("numpy", "samples", "commits"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_byte_is_an_error_or_changes_nothing(copy, expected, kind):
    file = copy / KINDS[kind]
    whole, draw, refused = file.read_bytes(), np.random.default_rng(0), 0
    spots = np.unique(np.concatenate([draw.integers(0, len(whole), 24), np.arange(4), len(whole) - 1 - np.arange(12)]))
    for at in spots:
        changed = bytearray(whole)
        changed[at] ^= 1 << int(draw.integers(8))
        file.write_bytes(changed)
        refused += outcomes(copy, expected, file.name, TOUCHING[kind]) > 0
    assert refused > (0.9 * len(spots) if kind != "sums" else -1)
    file.write_bytes(whole)
    assert outcomes(copy, expected, file.name) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_short_or_grown_is_an_error(copy, expected, kind):
    file = copy / KINDS[kind]
    whole = file.read_bytes()
    lengths = {*range(0, len(whole), max(1, len(whole) // 12)), 1, 4, 12, *range(len(whole) - 12, len(whole) - 1, 3)}
    for n in sorted(lengths):
        file.write_bytes(whole[:n])
        assert outcomes(copy, expected, file.name, TOUCHING[kind]) or kind == "sums", n
    for more in (b"\0", b"x" * 100, whole):
        file.write_bytes(whole + more)
        assert outcomes(copy, expected, file.name, TOUCHING[kind]) or kind == "sums"
    file.unlink()
    assert outcomes(copy, expected, file.name) or kind == "sums"


def test_each_file_is_read_by_somebody_and_its_loss_is_named_by_all_who_read_it(copy, expected):
    for name in sorted(files_in(copy))[::2]:
        whole = (copy / name).read_bytes()
        (copy / name).write_bytes(whole[: len(whole) // 2])
        refused = outcomes(copy, expected, name.rsplit("/", 1)[-1])
        assert refused or name.startswith("statistics/"), name  # a complete store reads their sum
        (copy / name).write_bytes(whole)


def test_any_two_files_that_change_places_are_an_error(copy, expected):
    names = sorted(files_in(copy))
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    for i in np.random.default_rng(0).permutation(len(pairs))[:10]:
        a, b = (copy / name for name in pairs[i])
        one, other = a.read_bytes(), b.read_bytes()
        a.write_bytes(other)
        b.write_bytes(one)
        said = refusal(lambda: linrep.store.open(str(copy)), "") or str(linrep.store.open(str(copy)).verify())
        assert "damaged" in said or "missing" in said or "another" in said
        assert a.name in said or b.name in said
        outcomes(copy, expected, "", ("numpy", "table", "samples", "statistics"))
        a.write_bytes(one)
        b.write_bytes(other)


def test_a_file_of_another_store_in_its_place_is_an_error(original, copy, expected, tmp_path):
    others = {"seed": {"seed": 1}, "width": {"d": 7}, "format": {"dtype": "float32"}, "rows": {"vary": -3}}
    for what, how in others.items():
        write(tmp_path / what, **how)
        for kind in ("vectors", "samples", "statistics"):
            file = copy / KINDS[kind]
            shutil.copy(tmp_path / what / KINDS[kind], file)
            same = file.read_bytes() == (original / KINDS[kind]).read_bytes()  # samples do not depend on the width
            assert same or outcomes(copy, expected, file.name), (what, kind)
            shutil.copy(original / KINDS[kind], file)


def test_a_file_that_fits_its_commit_but_not_the_manifest_is_an_error(copy):
    """Another width, another number format of the same size, fewer rows: noticed though every sum is right."""
    manifest = json.loads((copy / "manifest.json").read_text())
    for change in ({"width": 7}, {"width": 3}, {"dtype": "bfloat16"}, {"dtype": "float32", "width": 3}, {"dtype": "float32"}):
        edited = {name: value for name, value in (manifest | change).items() if name != "check"}
        (copy / "manifest.json").write_text(json.dumps(edited))
        store = linrep.store.open(str(copy))
        for name in ("numpy", "torch", "table", "batches", "scan", "polars", "length", "stream", "groups", "blocks", "mixture"):
            with pytest.raises(StoreError, match=r"part-00000\d.parquet holds vectors"):
                READERS[name](store)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    commit = json.loads((copy / commit_file(0)).read_text())
    for n in (1, -1):
        files = [{**file, "rows": file["rows"] + n} for file in commit["files"]]
        (copy / commit_file(0)).write_text(json.dumps({**{k: v for k, v in commit.items() if k != "check"}, "files": files}))
        store = linrep.store.open(str(copy))
        for name in ("numpy", "table", "scan", "stream", "blocks"):
            with pytest.raises(StoreError, match=r"part-000000\.parquet"):
                READERS[name](store)


WRONG: tuple[object, ...] = (None, True, 3, -1, 0.5, "x", "../x", [], [1], ["x"], {}, {"x": 1}, 10**30, "")


def fields(value: object, path: tuple = ()) -> Iterator[tuple]:
    """Every place in a JSON value."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, inner in items:
        yield from fields(inner, (*path, key))


def at(value: object, path: tuple) -> object:
    for key in path:
        value = value[key]
    return value


def changed(value: object, path: tuple, new: object, remove: bool = False) -> object:
    value = json.loads(json.dumps(value))
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    if remove:
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    return value


@pytest.mark.parametrize("kind", ["manifest", "commit"])
@pytest.mark.parametrize("checked", [True, False])
def test_a_field_of_another_type_or_a_missing_one_is_an_error(copy, expected, kind, checked):
    """With the record's own check and without it: then the types alone decide, and what they let pass may be another value."""
    file = copy / KINDS[kind]
    value = json.loads(file.read_text())
    if not checked:
        del value["check"]
    for path in fields(value):
        if path[0] in ("check", "model", "corpora", "harvest"):
            continue
        for new in (new for new in WRONG[:: 1 if checked else 4] if new != at(value, path)):
            file.write_text(json.dumps(changed(value, path, new)))
            if checked:
                assert outcomes(copy, expected, file.name, ("commits", "manifest")) or path == ("status",), (path, new)
            else:
                refusal(lambda: linrep.store.open(str(copy)), file.name)
        file.write_text(json.dumps(changed(value, path, None, remove=True)))
        if checked:
            assert outcomes(copy, expected, file.name, ("commits", "manifest")), path
        else:
            refusal(lambda: linrep.store.open(str(copy)), file.name)
    file.write_text(json.dumps({**value, "another": 1}))
    with pytest.raises(StoreError, match=rf"{file.name}.*another"):
        linrep.store.open(str(copy))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"x"', "\0" * 30, "[" * 100_000, "\ufeff{}", "{}", '{"a": NaN}'])
@pytest.mark.parametrize("kind", ["manifest", "commit"])
def test_what_is_no_record_is_an_error(copy, kind, text):
    (copy / KINDS[kind]).write_text(text)
    with pytest.raises(StoreError, match=rf"{(copy / KINDS[kind]).name} is damaged .*: delete it"):
        linrep.store.open(str(copy))


@pytest.mark.parametrize("path", ["../{}", "/{}", "tokens/../../{}", "./{}", "tokens//{}", "C:/{}", "..\\{}", "s3://{}", "\0{}"])
def test_a_commit_names_no_file_outside_the_store(copy, tmp_path, path):
    """Not even one that has the right seal."""
    commit = json.loads((copy / commit_file(1)).read_text())
    own = next(file for file in commit["files"] if file["path"].startswith("tokens/"))
    outside = tmp_path / "tokens/layer=3/modality=image/part-000001.parquet"
    outside.parent.mkdir(parents=True)
    shutil.copy(copy / own["path"], outside)
    own["path"] = path.format(own["path"] if not path.startswith("/") else str(outside).lstrip("/"))
    (copy / commit_file(1)).write_text(json.dumps({name: value for name, value in commit.items() if name != "check"}))
    with pytest.raises(StoreError, match=r"000001\.json"):
        linrep.store.open(str(copy))


def test_strangers_are_ignored_and_named(copy, expected, caplog):
    strange = ["commits/000000 (1).json", "commits/000001.json.bak", "commits/000007.json", "commits/1.json", "notes.txt"]
    strange += ["commits/desktop.ini", "commits/٠٠٠٠٠١.json", "samples/Thumbs.db"]
    strange += ["tokens/layer=3/modality=text/part-000000 (1).parquet"]
    for name in strange:
        shutil.copy(copy / commit_file(0), copy / name)
    (copy / "driver.lock").write_text("process 1 on here")  # no stranger: every harvest leaves it
    with caplog.at_level("WARNING"):
        assert outcomes(copy, expected, "") == 0
        store = linrep.store.open(str(copy))
    assert len([r for r in caplog.records if "000000 (1).json" in r.getMessage()]) == 1
    assert store.strangers() == sorted(strange)
    assert all(name in str(store) for name in strange)
    assert store.verify().strangers == tuple(sorted(strange))
    assert store.verify().whole


def test_a_chunk_too_many_does_not_make_a_store_complete(copy):
    (copy / commit_file(1)).rename(copy / commit_file(2))
    with pytest.raises(StoreError, match=r"000001\.json is missing, though manifest.json says"):
        linrep.store.open(str(copy))
    manifest = copy / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"complete"', '"running"'))
    assert not linrep.store.open(str(copy)).complete
    shutil.copy(copy / commit_file(0), copy / commit_file(1))
    with pytest.raises(StoreError, match=r"000001\.json is damaged \(it is the commit of chunk 0\)"):
        linrep.store.open(str(copy))


def test_verify_reads_all_and_names_each_damaged_file(copy, capsys):
    from linrep.store.__main__ import main

    assert main(["verify", str(copy)]) == 0
    assert f"{2 * 10 + 1} files" in capsys.readouterr().out
    names = [
        KINDS["vectors"],
        "statistics/part-000000.parquet",
        "statistics.parquet",
        "last/layer=4/modality=image/part-000000.parquet",
    ]
    for name in names:
        whole = bytearray((copy / name).read_bytes())
        whole[len(whole) // 3] ^= 64
        (copy / name).write_bytes(whole)
    assert main(["verify", str(copy)]) == 1
    out = capsys.readouterr().out
    assert out.count("damaged: ") == len(names)
    assert all(name in out for name in names)
    (copy / "manifest.json").write_text("{")
    assert main(["verify", str(copy)]) == 1
    assert "manifest.json is damaged" in capsys.readouterr().err


def test_other_programs_read_the_files(original):
    import polars as pl
    import pyarrow.parquet as pq

    for file in original.rglob("*.parquet"):
        assert len(pq.ParquetFile(file).read()) == len(pl.read_parquet(file, hive_partitioning=False))
