"""Turned codes are the same entries, latent by latent; a run of latents reads its own, so runs cost no passes over all codes."""

import io

import numpy as np
import pyarrow as pa
import pytest

from linrep.cluster.features import find_plainly
from linrep.errors import StoreError
from linrep.features import columns
from linrep.features.artefact import finish, plan_artefact
from linrep.features.codes import codes_file, read_codes
from linrep.features.columns import in_pieces, turn, turned
from linrep.features.labels import Histograms
from linrep.features.peaks import peaks
from linrep.features.study import TURNED, plan_study
from linrep.places import place
from tests.features.planted import CONFIG, draw, found_plainly, identity, write_store

F, N = 16, 40


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Images, texts, and the files of codes of all of them, in chunks of 7 samples."""
    folder = tmp_path_factory.mktemp("columns")
    images, texts = draw(N, F, 1), draw(N, F, 2)
    study = plan_study(write_store(folder / "s", images, texts, np.arange(N) % 4, chunk=7), CONFIG, latents=identity(F))
    planned = plan_artefact(place(folder / "w"), "t", study, {})
    unit, here = study.units[0], planned.place
    list(find_plainly(study, [unit.name], planned))
    files = [(m, here / codes_file(unit.folder, m, file)) for part in study.parts(unit) for m, file in part]
    assert len(files) == 12
    return images, texts, study.ids.to_pylist(), files


def entries_of(x: np.ndarray, run: tuple[int, int], first: int = 0) -> list[tuple[int, int, float]]:
    """Latent, position (of which the first is that) and activation of a sample's entries of a run of latents, one by one."""
    return [(j - run[0], t + first, float(x[t, j])) for j in range(*run) for t in range(len(x)) if x[t, j] > 0]


@pytest.mark.parametrize("batch", [1, 50, 2**11])
@pytest.mark.parametrize("piece", [1, 100, 2**20])
def test_every_entry_of_a_run_is_there_once_by_latent_sample_and_position(made, tmp_path, monkeypatch, piece, batch):
    images, texts, ids, files = made
    monkeypatch.setattr(columns, "BATCH", batch)
    monkeypatch.setattr(columns, "PIECE", piece)
    turn(files, F, place(tmp_path / "t"))
    found = turned(place(tmp_path / "t"))
    # A sample a file, a few samples a file, all samples of a modality in one.
    assert len(found) == 2 if piece > 100 else len(found) == 2 * N if piece == 1 else 2 < len(found) < 2 * N
    for run in ((0, F), (0, 5), (5, 11), (11, F), (4, 4)):
        for modality, letter, first, samples in (("image", "i", 1, images), ("text", "t", 0, texts)):
            mine, seen = [], []
            for one in (one for one in found if one.shape.modality == modality):
                fired, held = one.fired(run), one.token_rows()
                entries = list(zip(fired.latent.tolist(), fired.sample.tolist(), fired.position.tolist(), strict=True))
                assert entries == sorted(entries)
                mine += [(ids[s], j, t, v) for (j, s, t), v in zip(entries, fired.value.tolist(), strict=True)]
                seen += [ids[s] for s in fired.samples]
                assert held.samples.tolist() == fired.samples.tolist()
                assert (one.shape.first, one.shape.last) == (held.samples[0], held.samples[-1])
                assert fired.tokens == len(held.position)
                for s, begin, end in zip(held.samples, held.ends[:-1], held.ends[1:], strict=True):
                    n = len(samples[int(ids[s][1:])])
                    assert held.position[begin:end].tolist() == list(range(first, first + n))
                    assert held.token_id[begin:end].tolist() == ([99] * n if letter == "i" else list(range(10, 10 + n)))
                    assert held.row[begin:end].tolist() == ([t // 4 for t in range(n)] if letter == "i" else [-1] * n)
            wanted = [(f"{letter}{i}", j, t + first, v) for i, x in enumerate(samples) for j, t, v in entries_of(x, run)]
            assert sorted(mine) == sorted(wanted)
            assert seen == [f"{letter}{i}" for i in range(N)]


def test_pieces_of_one_modality_hold_what_the_files_hold(made, tmp_path, monkeypatch):
    monkeypatch.setattr(columns, "PIECE", 60)
    turn(made[3], F, place(tmp_path / "t"))
    found = turned(place(tmp_path / "t"))
    for run in ((0, F), (2, 4)):
        pieces = list(in_pieces(found, run))
        assert all(len(fired.value) <= 60 or len(fired.samples) == 1 for _, fired in pieces)
        assert len(pieces) == len(found) if run == (0, F) else len(pieces) < len(found) / 2
        for modality in ("image", "text"):
            files = [one.fired(run) for one in found if one.shape.modality == modality]
            mine = [fired for m, fired in pieces if m == modality]
            for name in ("latent", "sample", "position", "value", "samples"):
                one, other = (np.concatenate([getattr(fired, name) for fired in some]) for some in (files, mine))
                np.testing.assert_array_equal(one, other)
            assert sum(fired.tokens for fired in mine) == sum(fired.tokens for fired in files)
    assert list(in_pieces([], (0, F))) == []


def test_a_peak_is_the_first_of_the_largest_on_each_sample(made, tmp_path):
    images, _, ids, files = made
    turn(files, F, place(tmp_path / "t"))
    own = peaks(turned(place(tmp_path / "t"))[0].fired((3, 9)))
    fires = [(j, i, images[i][:, j]) for j in range(3, 9) for i in range(N) if images[i][:, j].max() > 0]
    wanted = [(j - 3, i, z.max(), 1 + int(z.argmax())) for j, i, z in fires]
    numbers = [int(ids[s][1:]) for s in own.sample]
    assert list(zip(own.latent.tolist(), numbers, own.value.tolist(), own.position.tolist(), strict=True)) == wanted


def test_turned_codes_are_standard_arrow_files(made, tmp_path):
    """Any reader of Arrow IPC files understands them: a row a latent, a row a token, a row a sample."""
    turn(made[3], F, place(tmp_path / "t"))
    one = turned(place(tmp_path / "t"))[0]
    latents, tokens, samples = (
        pa.ipc.open_file(tmp_path / "t" / f"{one.shape.name}.{kind}.arrow").read_all()
        for kind in ("latents", "tokens", "samples")
    )
    assert (len(latents), len(tokens), len(samples)) == (F, one.shape.tokens, one.shape.samples)
    rows = [[(e["which"], e["position"], e["value"]) for e in row] for row in latents["entries"].to_pylist()]
    assert rows == [[(i, t, v) for i, x in enumerate(made[0]) for _, t, v in entries_of(x, (j, j + 1), 1)] for j in range(F)]
    assert samples["n_tokens"].to_pylist() == [len(x) for x in made[0]]


def test_turned_codes_are_made_once(made, tmp_path):
    here = place(tmp_path / "t")
    turn(made[3], F, here)
    turn([], F, here)  # nothing is read again
    assert len(turned(here)) == 2


@pytest.mark.parametrize("kind", ["latents", "tokens", "samples"])
def test_a_damaged_file_of_turned_codes_is_refused(made, tmp_path, kind):
    here = place(tmp_path / "t")
    turn(made[3], F, here)
    one = turned(here)[0]
    path = tmp_path / "t" / f"image-000000.{kind}.arrow"
    whole = path.read_bytes()

    def read() -> None:
        one.fired((0, F))
        one.token_rows()

    repair = r"delete .*/t and run the job again"
    for n in (0, 7, len(whole) // 3, len(whole) // 2):
        path.write_bytes(whole[:n])
        with pytest.raises(StoreError, match=rf"image-000000\.{kind}\.arrow is damaged .*: {repair}"):
            read()
    other = tmp_path / "t" / f"text-000000.{'tokens' if kind == 'samples' else 'samples'}.arrow"
    path.write_bytes(other.read_bytes())
    with pytest.raises(StoreError, match=rf"image-000000\.{kind}\.arrow is damaged .*: {repair}"):
        read()
    path.unlink()
    with pytest.raises(StoreError, match=rf"no turned codes at .*image-000000\.{kind}\.arrow: {repair}"):
        read()


def test_flipped_bytes_give_an_error_or_numbers_and_nothing_else(made, tmp_path):
    """Damage that a file's structure shows is an error that says what to do; values may change unseen, as nothing seals them."""
    here = place(tmp_path / "t")
    turn(made[3], F, here)
    one, draw = turned(here)[0], np.random.default_rng(0)
    refused = []
    for kind in ("latents", "tokens", "samples"):
        path = tmp_path / "t" / f"image-000000.{kind}.arrow"
        whole = path.read_bytes()
        for at in draw.integers(len(whole), size=150):
            flipped = bytearray(whole)
            flipped[at] ^= 1 << int(draw.integers(8))
            path.write_bytes(flipped)
            try:
                one.fired((0, F))
                one.token_rows()
            except StoreError as error:
                refused.append(str(error))
        path.write_bytes(whole)
    assert refused
    assert all(line.endswith("/t and run the job again") for line in refused)


def test_turned_codes_of_no_tokens_are_none(tmp_path):
    turn([], F, place(tmp_path / "t"))
    assert turned(place(tmp_path / "t")) == []


class Counting(io.FileIO):
    """What is read of files, in bytes."""

    n = 0

    def readinto(self, buffer) -> int:
        n = super().readinto(buffer) or 0
        Counting.n += n
        return n

    def readall(self) -> bytes:
        found = super().readall()
        Counting.n += len(found)
        return found


def test_many_runs_of_latents_read_little_more_than_one_run(tmp_path, monkeypatch):
    f, n = 256, 24
    monkeypatch.setattr(columns, "BATCH", 64)  # as small a share of a piece as it is of a whole one
    store = write_store(tmp_path / "s", draw(n, f, 1, 0.5), draw(n, f, 2, 0.5), np.arange(n) % 4)
    read, n_units = [], []
    for name, gb in (("one", 0.25), ("many", 5e-5)):
        study = plan_study(store, CONFIG.model_copy(update={"memory_gb": gb, "neighbours": 0}), latents=identity(f))
        plan = plan_artefact(place(tmp_path / name), "t", study, {})
        units = [unit.name for unit in study.units if not unit.control]
        Counting.n = 0
        with monkeypatch.context() as patch:
            patch.setattr("linrep.places.io.FileIO", Counting)
            list(find_plainly(study, units, plan))
        read.append(Counting.n)
        n_units.append(len(units))
    entries = sum(len(read_codes(place(path)).latents) for path in (tmp_path / "one").rglob("codes/*/*/*.parquet"))
    assert n_units[0] == 1
    assert n_units[1] > 10
    assert read[0] > 2 * 8 * entries
    # Runs used to read all codes twice each: as many times as much as there are runs.
    assert read[1] < 2.5 * read[0]


def test_an_attribute_is_scored_once_for_all_tables(tmp_path, monkeypatch):
    scored, scores = [], Histograms.scores
    monkeypatch.setattr(Histograms, "scores", lambda self, *args: scored.append(args[0]) or scores(self, *args))
    labels = np.arange(N) % 4
    study = plan_study(write_store(tmp_path / "s", draw(N, F, 1), draw(N, F, 2), labels), CONFIG, latents=identity(F))
    found_plainly(tmp_path / "w", study)
    assert scored == [0] * 2  # the class of images, once for the SAE and once for its control; texts have none


def test_a_complete_artefact_is_without_turned_codes(tmp_path):
    study = plan_study(write_store(tmp_path / "s", draw(N, F, 1), draw(N, F, 2)), CONFIG, latents=identity(F))
    plan = plan_artefact(place(tmp_path / "w"), "t", study, {})
    list(find_plainly(study, plan.todo(), plan))
    assert (plan.place / TURNED).names() == ["sae-00", "sae-00-random"]
    finish(plan)
    assert not (plan.place / TURNED).exists()
    assert (plan.place / "codes").names() == ["sae-00", "sae-00-random"]
    finish(plan)
