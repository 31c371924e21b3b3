"""The candidates of a search on disk: those that are done, and those that wait at a rung.

tunes/<name>-<digest>/
  saes/<candidate>/           SAEs of candidates that were trained to their end, in SAELens' format
  trials/<candidate>.json       written last: the candidate is finished, stopped, or failed and why
  waiting/<candidate>.pt, .json while it waits at a rung: its state, and then its record so far
"""

from dataclasses import replace

import torch

from linrep.errors import StoreError
from linrep.places import Place
from linrep.records import read_record, write_record
from linrep.sae.formats import saelens
from linrep.sae.pack import CandidateEnd, Trial, Waits
from linrep.sae.search import Candidate


def read_trials(place: Place) -> dict[str, Trial]:
    """Candidates that are done, by name."""
    return _records(place / "trials")


def read_waiting(place: Place) -> dict[str, Trial]:
    """Candidates that wait at a rung, by name; those that are done wait no more."""
    return {
        name: trial for name, trial in _records(place / "waiting").items() if not (place / "trials" / f"{name}.json").is_file()
    }


def _records(folder: Place) -> dict[str, Trial]:
    if not folder.is_folder():
        return {}
    found = {}
    for path, _ in folder.walk():
        if path.endswith(".json"):
            trial = read_trial(folder / path)
            if trial.name == path.removesuffix(".json"):  # another tool's copy, "x (1).json", is no candidate
                found[trial.name] = trial
    return dict(sorted(found.items()))


def read_trial(file: Place) -> Trial:
    """The record that a commit holds.

    Raises:
        StoreError: It is damaged.
    """
    return read_record(
        file, Trial, "delete it and run jobs/tune_sae.py with the same recipe again: it trains this candidate anew"
    )


def commit_trial(place: Place, ended: CandidateEnd) -> None:
    """Write a candidate's SAE, then its record."""
    name = ended.trial.name
    for modality, sae in ended.saes.items():
        saelens.write(place / "saes" / (f"{name}-{modality}" if modality else name), sae)
    write_record(place / "trials" / f"{name}.json", ended.trial)


def keep_waiting(place: Place, waits: Waits) -> None:
    """Write the state of a candidate that waits under a name of its own, then its record, which decides the state that counts."""
    record = place / "waiting" / f"{waits.trial.name}.json"
    before = _state(place, read_trial(record)) if record.is_file() else None
    with _state(place, waits.trial).writing() as stream:
        torch.save(waits.state, stream)
    write_record(record, waits.trial)
    if before is not None and before != _state(place, waits.trial) and before.is_file():
        before.files.delete_file(before.path)


def _state(place: Place, trial: Trial) -> Place:
    return place / "waiting" / f"{trial.name}-{trial.rows:012d}.pt"


def read_waits(place: Place, name: str) -> Waits:
    """A candidate that waits, to go on with.

    Raises:
        StoreError: Its record or its state cannot be read.
    """
    trial = read_trial(place / "waiting" / f"{name}.json")
    file = _state(place, trial)
    try:
        with file.open() as stream:
            state = torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:  # an unpickler raises anything for bytes that are none of its own
        if file.may_pass(error):
            raise
        said = " ".join(str(error).split())[:200]
        raise StoreError(f"{file} is damaged ({said}): delete {place / 'waiting'} to train these candidates again") from None
    return Waits(trial, state)


def remove_waiting(place: Place) -> None:
    """Delete what candidates had to save while they waited."""
    folder = place / "waiting"
    if folder.is_folder():
        folder.files.delete_dir(folder.path)


def failed_trial(one: Candidate, why: str, width: int, within: str, waited: Trial | None = None) -> Trial:
    """The record of a candidate whose worker is gone; one that has waited keeps what it had reached."""
    if waited is not None:
        return replace(waited, status="failed", reason=why)
    return Trial(one.name, "failed", why, 0, {**one.values(), "width": one.design.n_latents(width)}, one.bracket(within))
