"""A store in a few lines of text."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from linrep.store.commit import Commit, WrittenFile
from linrep.store.layout import GROUPS, HIGH_NORM, MODALITIES, NO_LAYER, TOWER, StoredSite, files_under, folder_of, site_group
from linrep.store.manifest import Manifest


def size(n_bytes: int | float) -> str:
    """A number of bytes for people, in decimal units.

    >>> size(999), size(12_345), size(6_789_000_000)
    ('999 B', '12.3 kB', '6.8 GB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def statistics_lines(manifest: Manifest) -> list[str]:
    """The statistics as aligned columns, a line per layer and group."""
    if not manifest.statistics:
        return []
    lines = [
        "",
        f"  {'layer':>5}  {'group':8} {'tokens':>11} {'norm p50':>9} {'p99':>9} {'max std':>9} "
        f"{'high-norm':>10} {'not finite':>11}",
    ]
    for s in manifest.statistics:
        if s["n"] and s["group"] in GROUPS:
            numbers = " ".join("-".rjust(9) if s[x] is None else f"{s[x]:>9.3g}" for x in ("norm_p50", "norm_p99", "max_std"))
            lines.append(
                f"  {s['layer']:>5}  {s['group']:8} {s['n']:>11,} {numbers} {s['n_high_norm']:>10,} {s['n_nonfinite']:>11,}"
            )
    return lines


WORDS = {
    "image": "image tokens",
    "text": "text tokens",
    "special": "special tokens",
    "last_image": "last positions after an image",
    "last_text": "last positions of texts",
    "tower_image": "patches of the vision tower",
}


def apart_lines(manifest: Manifest, layers: Sequence[int] | None = None, site: StoredSite = "residual") -> list[str]:
    """What of a harvest is in no number: tokens of high norm and where they stand, tokens that are not finite, skipped samples.

    There is no line for what does not occur.

    Args:
        manifest: Of a complete store.
        layers: Layers that are meant; None for all, and the vision tower.
        site: Of what there.
    """
    lines, statistics = [], [s for s in manifest.statistics if layers is None or s["layer"] in layers]
    named = {site_group(group, site): name for group, name in WORDS.items()}
    words = {group: WORDS.get(group, name) for group, name in named.items()}
    high, broken = (_most(statistics, words, what) for what in ("n_high_norm", "n_nonfinite"))
    if high:
        factor = manifest.harvest.get("high_norm", HIGH_NORM)
        lines += [f"  tokens of high norm, above {factor:g} x the median, are kept apart from all numbers; at most:", *high]
    if broken:
        lines += ["  tokens that are not finite are left out of all numbers; at most:", *broken]
    n_skipped = manifest.counts.get("n_skipped", 0)
    if n_skipped:
        n = manifest.counts["n_samples"] + n_skipped
        lines.append(f"  skipped by the harvest, and in no number: {n_skipped:,} of {n:,} samples")
    return lines


def _most(statistics: Sequence[Mapping[str, Any]], words: Mapping[str, str], what: str) -> list[str]:
    """For each group with tokens of a kind, how many there are at the layer that has the most."""
    lines = []
    for group, name in words.items():
        own = [s for s in statistics if s["group"] == group]
        some = sorted(s["layer"] for s in own if s[what])
        if some:
            most = max(own, key=lambda s: s[what])
            of = most["n_high_norm"] + most["n"]
            places = most["high_norm_positions"][:3] if what == "n_high_norm" else ()
            at = [f"at positions {', '.join(f'{i} ({count:,})' for i, count in places)}"] if places else []
            if most["layer"] != NO_LAYER:
                at = [f"at layer {most['layer']}", *at, f"there are some at layers {runs_of(some)}"]
            lines.append(f"    {name:30} {most[what]:,} of {of:,} {'; '.join(at)}".rstrip())
    return lines


def runs_of(layers: Sequence[int]) -> str:
    """Layers in words: 3, 12-28."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def _rows(files: Sequence[WrittenFile], under: str) -> int:
    return sum(file.rows for file in files if file.path.startswith(under))


def summary(where: str, manifest: Manifest, commits: dict[int, Commit], strangers: Sequence[str] = ()) -> str:
    """What the store holds, for reading, and which files in it are not its own."""
    files = [file for commit in commits.values() for file in commit.files]
    n_skipped = sum(len(commit.skipped) for commit in commits.values())
    state = "complete" if manifest.status == "complete" else f"{len(commits)} of {manifest.n_chunks} chunks, not complete"
    model = manifest.model
    lines = [
        f"Activation store {manifest.name}-{manifest.digest} ({state})",
        f"  {where}",
        f"  model    {model['path']}: {model['n_layers']} blocks, d = {manifest.width}, digest {model['digest']}",
        f"  layers   {', '.join(map(str, manifest.layers))} (k = the residual stream entering block k)",
        f"  samples  {sum(c.n_samples for c in commits.values()):,} harvested, {n_skipped:,} skipped; "
        f"{sum(c.n_tokens for c in commits.values()):,} tokens",
        f"  size     {size(sum(file.bytes for file in files))} in {len(files):,} files, vectors in {manifest.dtype}",
    ]
    for view in manifest.views:
        rows = {m: _rows(files, files_under(view, manifest.layers[0], m)) for m in MODALITIES}
        lines.append(f"  {view:8} {rows['image']:,} image rows, {rows['text']:,} text rows a layer")
    streams = [site for site in manifest.sites if site != TOWER]
    if len(streams) > 1:
        lines.append(f"  sites    {', '.join(streams)}: each has these rows, at layers where a block begins")
    if TOWER in manifest.sites:
        counts = {view: _rows(files, files_under(folder_of(view, TOWER), NO_LAYER, "image")) for view in manifest.views_of(TOWER)}
        rows = ", ".join(f"{n:,} rows of {view}" for view, n in counts.items())
        lines.append(f"  tower    the vision tower's patches, d = {manifest.width_of(TOWER)}: {rows}")
    taken: Counter[str] = Counter()
    for part in (part for commit in commits.values() for part in commit.taken):
        taken[part.harvest] += part.bytes
    lines += [
        f"  taken    {size(n_bytes)} of it from {harvest}, not computed again" for harvest, n_bytes in sorted(taken.items())
    ]
    if strangers:
        shown = ", ".join(strangers[:10]) + (", ..." if len(strangers) > 10 else "")
        lines.append(f"  ignored  {len(strangers):,} files that are not the store's: {shown}")
    lines += [f"  note     {note}" for note in manifest.notes]
    return "\n".join([*lines, *apart_lines(manifest), *statistics_lines(manifest)])
