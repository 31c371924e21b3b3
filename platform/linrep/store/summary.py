"""A store in a few lines of text."""

from linrep.store.commit import Commit
from linrep.store.manifest import Manifest


def size(n_bytes: int | float) -> str:
    """A number of bytes for people, in decimal units: 1.5 GB."""
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
        if s["n"]:
            lines.append(
                f"  {s['layer']:>5}  {s['group']:8} {s['n']:>11,} {s['norm_p50']:>9.3g} {s['norm_p99']:>9.3g} "
                f"{s['max_std']:>9.3g} {s['n_high_norm']:>10,} {s['n_nonfinite']:>11,}"
            )
    return lines


def summary(where: str, manifest: Manifest, commits: dict[int, Commit]) -> str:
    """What the store holds, for reading."""
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
        first = f"{view}/layer={manifest.layers[0]}/modality="
        rows = {m: sum(f.rows for f in files if f.path.startswith(first + m)) for m in ("image", "text")}
        lines.append(f"  {view:8} {rows['image']:,} image rows, {rows['text']:,} text rows a layer")
    return "\n".join(lines + statistics_lines(manifest))
