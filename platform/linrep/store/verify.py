"""A store read whole: every file against the sums that were taken when it was written."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from linrep.errors import StoreError
from linrep.store.commit import repair
from linrep.store.layout import NO_LAYER, STATISTICS, commit_file, pack_file, view_and_site
from linrep.store.packs import CHUNKS, REPAIR, packed_commits, packs_in
from linrep.store.sealed import verify
from linrep.store.summary import size

if TYPE_CHECKING:
    from linrep.store.read import Store


@dataclass(frozen=True)
class Verified:
    """What a whole reading of a store found.

    Attributes:
        files: Files that are as they were written.
        bytes: Their bytes.
        damaged: What is wrong, a line for each file that is not.
        missing: Chunks that are not committed.
        strangers: Files that are not the store's; no reader reads them.
    """

    files: int
    bytes: int
    damaged: tuple[str, ...]
    missing: tuple[int, ...]
    strangers: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether everything that is committed can be trusted."""
        return not self.damaged

    def __str__(self) -> str:
        lines = [f"{self.files:,} files, {size(self.bytes)}, are as they were written"]
        lines += [f"damaged: {line}" for line in self.damaged]
        lines += [f"not committed yet: {len(self.missing):,} chunks"] if self.missing else []
        return "\n".join([*lines, *(f"ignored, not the store's: {path}" for path in self.strangers)])


def verify_store(store: "Store") -> Verified:
    """Read every file of a store whole, one at a time."""
    files, n_bytes, damaged = 0, 0, []
    wanted = [(file.path, file) for _, commit in sorted(store.commits.items()) for file in commit.files]
    for path, file in [*wanted, *([(STATISTICS, None)] if store.manifest.status == "complete" else [])]:
        try:
            if file is None:
                store.statistics()
                n_bytes += verify(store.place / path, "delete it and run jobs/harvest.py with the same recipe again")
            else:
                n_bytes += verify(store.place / path, repair(store.place, file), file.seal, file.bytes)
            files += 1
        except StoreError as error:
            damaged.append(str(error))
    for number in packs_in(store.place):
        try:
            n_bytes += verify(store.place / pack_file(number), REPAIR)
            files += 1
        except StoreError as error:
            damaged.append(str(error))
    for chunk, (_, text) in packed_commits(store.place).items():
        file, other = store.place / commit_file(chunk), store.place / pack_file(chunk // CHUNKS)
        if chunk in store.commits and file.read_bytes() != text.encode():
            damaged.append(f"{file} does not say what {other} says: delete both, and run the same job again")
    for layer, folder in sorted(store.manifest.parts):
        view, site = view_and_site(folder)
        selection = store.select(view, None if layer == NO_LAYER else layer, high_norm=None, site=site)
        for file in selection.files:
            try:
                with selection.open_file(file):
                    pass
            except StoreError as error:
                damaged += [] if str(error) in damaged else [str(error)]
    missing = tuple(chunk for chunk in range(store.manifest.n_chunks) if chunk not in store.commits)
    return Verified(files, n_bytes, tuple(damaged), missing, tuple(store.strangers()))
