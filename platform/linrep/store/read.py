"""Open a store, and choose rows of it by view, layer, modality and split; see `linrep.store.selection` for the rows."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any, get_args

import pyarrow as pa

from linrep.ahead import in_order
from linrep.errors import StoreError
from linrep.places import Place, place
from linrep.records import SUMMARY, only_artefact
from linrep.sample import Split
from linrep.store.commit import AT_ONCE, PART, Commit, WrittenFile, read_commits, repair, strange_commits, sum_of
from linrep.store.layout import (
    HIGH_NORM,
    LOCK,
    MANIFEST,
    NO_LAYER,
    STATISTICS,
    TOWER,
    Folder,
    Modality,
    StoredSite,
    View,
    commit_file,
    files_under,
    folder_of,
    pack_file,
    parse_folder,
    samples_file,
    statistics_file,
    vectors_file,
    view_and_site,
)
from linrep.store.limits import from_records, group_of, limit_for, limit_of, norm_limits
from linrep.store.manifest import Manifest, read_manifest
from linrep.store.packs import CHUNKS, packed_samples, packs_in
from linrep.store.selection import Selection
from linrep.store.statistics import Sums, from_table, merge
from linrep.store.summary import summary
from linrep.store.tables import read_table
from linrep.store.verify import Verified, verify_store
from schemas import SAMPLES
from schemas import STATISTICS as STATISTICS_SCHEMA

CARRIED = 4096
"""Files up to which a pickled store carries its commits; those of a larger one are read again where it is unpickled."""


def open(path: str) -> "Store":
    """The activation store in a folder; a workspace that holds just one harvest will do.

    Args:
        path: Local path or URI.

    Raises:
        StoreError: There is no store, or there are several to choose from.
    """
    return read_store(only_artefact(place(path), "harvests", "harvests"))


def read_store(here: Place, to_mend: bool = False) -> "Store":
    """The store in just this folder.

    Args:
        here: The folder.
        to_mend: Whether a complete store that has lost a commit will do: for who harvests its chunk again.

    Raises:
        StoreError: There is none, or its manifest or a commit is damaged or lost.
    """
    manifest = read_manifest(here)
    store = Store(here, manifest, read_commits(here, manifest.n_chunks))
    store.check_files()
    if manifest.status == "complete" and not store.complete and not to_mend:
        lost = next(here / commit_file(chunk) for chunk in range(manifest.n_chunks) if chunk not in store.commits)
        raise StoreError(
            f"{lost} is missing, though {MANIFEST} says that the store of {manifest.n_chunks:,} chunks is complete: "
            "run jobs/harvest.py with the same recipe again"
        )
    return store


@dataclass(frozen=True)
class Store:
    """An activation store: what its commits name, and nothing else.

    Attributes:
        place: Where it lies.
        manifest: What it is.
        commits: What was written, by chunk.
        site: What is read where no site is named, see `at`.
    """

    place: Place
    manifest: Manifest
    commits: dict[int, Commit]
    site: StoredSite = "residual"

    def __getstate__(self) -> dict[str, Any]:
        """What travels to other processes: of a large store not its commits, but what they must be."""
        state = {name: value for name, value in vars(self).items() if name in {"_sum", *(f.name for f in fields(self))}}
        commits = state.get("commits", {})
        if sum(len(commit.files) for commit in commits.values()) > CARRIED:
            state |= {"_sum": sum_of(commits)}
            del state["commits"]
        return state

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """The commits of a store that came without them, when somebody first asks for them."""
            if name != "commits" or "_sum" not in vars(self):
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            commits = _commits(self.place.uri, self.manifest.n_chunks, self._sum)
            object.__setattr__(self, "commits", commits)
            return commits

    @property
    def complete(self) -> bool:
        """Whether every chunk is committed."""
        return all(chunk in self.commits for chunk in range(self.manifest.n_chunks))

    def at(self, site: StoredSite) -> "Store":
        """The store with a site in the place of the residual stream, for what reads one: probes, SAEs.

        Its layers, views and width are the site's. The vision tower, which has no layers, has one: `NO_LAYER`.

        Args:
            site: residual, attention, mlp or tower.

        Raises:
            StoreError: The harvest has no such site.
        """
        if site not in self.manifest.sites:
            raise self._no_site(site)
        return replace(self, manifest=self.manifest.at(site), site=site)

    def _no_site(self, site: str) -> StoreError:
        return StoreError(f"no site {site!r} in {self.place}: it has {', '.join(self.manifest.sites)}; see harvest.sites")

    def select(
        self,
        view: View,
        layer: int | None = None,
        modality: Modality | None = None,
        split: Split | None = None,
        special: bool | None = None,
        high_norm: bool | None = False,
        site: StoredSite | None = None,
    ) -> "Selection":
        """The rows of one view and layer; nothing is read yet.

        Args:
            view: pooled, tokens or last.
            layer: Layer k, the residual stream entering block k; None for the vision tower, which has no layers.
            modality: image or text; None for both, image first. What is no patch and no newline stands under text, so in the
                tokens view that holds also the start, prompt and template tokens of images.
            split: train, val or test; None for all.
            special: False leaves out start, prompt and template tokens, and the tower's patches of padding, True all others; None
                takes all. Means hold none.
            high_norm: False leaves out tokens above the store's limit (attention sinks), True all others; None takes all. Means
                hold none.
            site: Where the harvest has it: residual, meant by None; attention or mlp, what that of block k adds; or tower, the
                vision tower's patches, which stand under image and have a width of their own.

        Raises:
            StoreError: The store lacks this view, layer or site.
        """
        if view not in self.manifest.views:
            raise StoreError(f"no view {view!r} in {self.place}: it has {', '.join(self.manifest.views)}")
        site = site or self.site
        if site not in self.manifest.sites:
            raise self._no_site(site)
        if site == TOWER and layer not in (None, NO_LAYER):
            raise StoreError(f"the site tower has no layers, got layer {layer}: leave it out")
        if site != TOWER and layer not in self.manifest.layers:
            raise StoreError(f"no layer {layer} in {self.place}: it has {', '.join(map(str, self.manifest.layers))}")
        if view not in self.manifest.views_of(site):
            raise StoreError(f"no view {view!r} of the site {site}: it has {', '.join(self.manifest.views_of(site))}")
        folder, here = folder_of(view, site), NO_LAYER if layer is None else layer
        if folder not in self.manifest.folders(here):
            raise StoreError(f"no {site} at layer {layer} in {self.place}: no block begins there")
        if split not in (None, *get_args(Split)):
            raise StoreError(f"no split {split!r}: there are train, val and test")
        if modality not in (None, *get_args(Modality)):
            raise StoreError(f"no modality {modality!r}: there are image and text")
        modalities = get_args(Modality) if modality is None else (modality,)
        files = [file for m in modalities for file in self._files(files_under(folder, here, m))]
        return self.reading(files, split, special, high_norm, site)

    def reading(
        self,
        files: Sequence[WrittenFile],
        split: Split | None = None,
        special: bool | None = None,
        high_norm: bool | None = False,
        site: StoredSite | None = None,
    ) -> "Selection":
        """The rows of some files of vectors of one site, as `select` gives them."""
        manifest, site = self.manifest, site or self.site
        limits = {}
        for file in files if high_norm is not None else ():
            found = parse_folder(file.path)
            limit = float("inf") if found is None else self._limit(*found, manifest.source_of(file.chunk))
            if high_norm or limit < float("inf"):
                limits[file.path] = limit
        width, dtype = manifest.width_of(site), manifest.dtype
        return Selection(self.place, tuple(files), width, dtype, split, special, bool(high_norm), limits, site)

    def limit(self, folder: Folder, layer: int, modality: Modality, source: str | None = None) -> float:
        """The norm above which a row is kept apart; infinite where none is.

        The manifest says it. A store without limits there is measured by its statistics, or else by the norms of its rows.

        Args:
            folder: pooled, tokens or last; of another site as `linrep.store.layout.folder_of` writes it.
            layer: Layer k; `linrep.store.layout.NO_LAYER` for the vision tower.
            modality: image or text.
            source: Source that the row is of; None for a token of no source, which is high where it is so in every one.
        """
        view, site = view_and_site(folder)
        return self._limit(folder_of(view, self.site) if site == "residual" else folder, layer, modality, source)

    def _limit(self, folder: Folder, layer: int, modality: Modality, source: str | None = None) -> float:
        group, factor = group_of(folder, modality), self.manifest.harvest.get("high_norm", HIGH_NORM)
        if group is None or factor is None:
            return float("inf")
        if self.manifest.limits:
            return limit_for(self._limits, layer, group, source)
        measured, key = self._measured, (layer, group)
        if key not in measured:
            limit = limit_for({"": measured}, layer, group)
            measured[key] = limit if limit < float("inf") else self._limit_of_rows(folder, layer, modality, factor)
        return measured[key]

    def _limit_of_rows(self, folder: Folder, layer: int, modality: Modality, factor: float) -> float:
        files, site = self._files(files_under(folder, layer, modality)), view_and_site(folder)[1]
        whole = self.reading(files, high_norm=None, site=site)
        return limit_of(whole.table(["norm", "is_special"]), factor)

    @cached_property
    def _limits(self) -> dict[str, dict[tuple[int, str], float]]:
        return from_records(self.manifest.limits)

    @cached_property
    def _measured(self) -> dict[tuple[int, str], float]:
        """Limits of a store whose manifest has none, as far as its statistics know them."""
        if self.manifest.status == "complete" and not (self.place / STATISTICS).is_file():
            return {}
        return dict(norm_limits(self.statistics(), self.manifest.harvest.get("high_norm", HIGH_NORM)))

    def samples(self) -> pa.Table:
        """The samples of all committed chunks, skipped ones included (their `error` says why)."""
        return pa.concat_tables([SAMPLES.empty_table(), *(table for _, table in self.samples_by_chunk())])

    def samples_by_chunk(self, columns: Sequence[str] | None = None) -> Iterator[tuple[int, pa.Table]]:
        """The samples of each committed chunk, in order, with its number; those of 2,048 chunks, at most, are held at once.

        Args:
            columns: Columns to read, None for all.
        """
        packs, chunks = set(packs_in(self.place)), sorted(self.commits)
        runs = [(number, tuple(own)) for number, own in groupby(chunks, key=lambda chunk: chunk // CHUNKS)]

        def packed(run: tuple[int, tuple[int, ...]]) -> dict[int, pa.Table]:
            number, own = run
            seals = {chunk: self._file(chunk, samples_file(chunk)).seal for chunk in own}
            return packed_samples(self.place, number, seals, columns) if number in packs else {}

        for (_, own), found in zip(runs, in_order(packed, runs, 2), strict=True):
            rest = in_order(lambda chunk: self.samples_of(chunk, columns), [c for c in own if c not in found], AT_ONCE)
            for chunk in own:
                yield chunk, found.pop(chunk) if chunk in found else next(rest)

    @cached_property
    def first_sample(self) -> dict[int, int]:
        """Number of the first sample of each committed chunk."""
        first, n = {}, 0
        for chunk in sorted(self.commits):
            first[chunk] = n
            n += self._file(chunk, samples_file(chunk)).rows
        return first

    def samples_of(self, chunk: int, columns: Sequence[str] | None = None) -> pa.Table:
        """The samples of one committed chunk.

        Args:
            chunk: Its number.
            columns: Columns to read, None for all.
        """
        file = self._file(chunk, samples_file(chunk))
        names = None if columns is None else list(columns)
        return read_table(self.place, file.path, names, repair(self.place, file), file, SAMPLES)

    def statistics(self) -> dict[tuple[int, str], Sums]:
        """Sums by layer and group over all tokens, drawn for the tokens view or not; those of high norm are only counted."""
        if self.manifest.status == "complete":
            again = "delete it and run jobs/harvest.py with the same recipe again: it only adds up the chunks' own"
            sums = from_table(read_table(self.place, STATISTICS, None, again, self.manifest.statistics_seal, STATISTICS_SCHEMA))
            listed = {(s["layer"], s["group"]): s["n"] for s in self.manifest.statistics}
            if listed and listed != {key: own.n for key, own in sums.items()}:
                raise StoreError(f"{self.place / STATISTICS} is of another store than {self.place / MANIFEST}: {again}")
            return sums

        def of(file: WrittenFile) -> dict[tuple[int, str], Sums]:
            return from_table(read_table(self.place, file.path, None, repair(self.place, file), file, STATISTICS_SCHEMA))

        return merge(in_order(of, [self._file(chunk, statistics_file(chunk)) for chunk in sorted(self.commits)], AT_ONCE))

    def _files(self, prefix: str) -> list[WrittenFile]:
        return [file for _, commit in sorted(self.commits.items()) for file in commit.files if file.path.startswith(prefix)]

    def _file(self, chunk: int, path: str) -> WrittenFile:
        return next(file for file in reversed(self.commits[chunk].files) if file.path == path)

    def check_files(self) -> None:
        """Hold what the commits name against the layout: nothing is opened.

        Raises:
            StoreError: A commit lacks its samples or sums, or names a file that the manifest has no place for.
        """
        folders = {path.rpartition("/")[0] for path in self._layout(0)}
        for chunk, commit in self.commits.items():
            named = {file.path for file in commit.files}  # each ends in the chunk's own number: `read_commit` holds it to that
            own, known = {samples_file(chunk), statistics_file(chunk)}, named
            if not {path.rpartition("/")[0] for path in named} <= folders:
                known = self._layout(chunk)
            for paths, what in ((named - known, "names {}, which manifest.json has no place for"), (own - named, "lacks {}")):
                if paths:
                    again = "delete it and run the same job again: it makes the chunk anew"
                    raise StoreError(f"{self.place / commit_file(chunk)} {what.format(min(paths))}: {again}")

    def _layout(self, chunk: int) -> set[str]:
        """Every file that a chunk of this store may have."""
        known = {vectors_file(folder, layer, m, chunk) for layer, folder in self.manifest.parts for m in get_args(Modality)}
        return known | {samples_file(chunk), statistics_file(chunk)}

    def strangers(self) -> list[str]:
        """Files in the store that it does not know, which no reader reads: paths from its folder, sorted.

        Files of chunks that are not committed yet do not count.
        """
        known = {MANIFEST, STATISTICS, SUMMARY, LOCK, *(file.path for commit in self.commits.values() for file in commit.files)}
        known |= {commit_file(chunk) for chunk in self.commits}
        known |= {pack_file(number) for number in range(-(-self.manifest.n_chunks // CHUNKS))}
        return sorted(path for path, _ in self.place.walk() if path not in known and not self._pending(path))

    def _pending(self, path: str) -> bool:
        """Whether a path is that of a file of a chunk that is not committed yet."""
        found = PART.search(path)
        chunk = int(found.group(1)) if found else -1
        return 0 <= chunk < self.manifest.n_chunks and chunk not in self.commits and path in self._layout(chunk)

    def verify(self) -> "Verified":
        """Read every file whole and hold it against the sums that were taken when it was written."""
        return verify_store(self)

    def __repr__(self) -> str:
        strange = self.strangers() if self.place.local else strange_commits(self.place, self.manifest.n_chunks)
        return summary(str(self.place), self.manifest, self.commits, strange)

    __str__ = __repr__


@functools.lru_cache(maxsize=4)
def _commits(uri: str, n_chunks: int, named: str) -> dict[int, Commit]:
    """The commits of a store that was pickled without them: read once in each process."""
    commits = read_commits(place(uri), n_chunks)
    if sum_of(commits) != named:
        raise StoreError(f"{place(uri)} has changed since this job began: run the job again")
    return commits
