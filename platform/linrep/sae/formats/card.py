"""The model card beside a saved SAE: what it is, how well it does and beside what, how to load it, what it cannot say."""

from collections.abc import Mapping
from typing import Any

from linrep.places import Place
from linrep.sae.evaluate import Evaluation, Quality
from linrep.sae.origin import layer_said
from linrep.sae.sae import Sae

FILE = "README.md"
ROWS = (
    ("rows", "n_rows", "{:,}"), ("FVU", "fvu", "{:.4f}"), ("cosine", "cosine", "{:.4f}"), ("L0", "l0", "{:.1f}"),
    ("alive", "alive", "{:.1%}"), ("dense (> 10% of rows)", "dense", "{:.2%}"), ("shrinkage", "shrinkage", "{:.3f}"),
)  # fmt: skip


def write_card(
    folder: Place, sae: Sae, evaluation: Evaluation | None = None, control: Evaluation | None = None, more: Mapping[str, Any] = {}
) -> None:
    """Write the card of a saved SAE.

    Args:
        folder: Where the SAE lies.
        sae: The SAE.
        evaluation: On held-out rows.
        control: The same of `random_sae`.
        more: Further results by name, plain values.
    """
    (folder / FILE).write_bytes(card(sae, evaluation, control, more).encode())


def card(sae: Sae, evaluation: Evaluation | None = None, control: Evaluation | None = None, more: Mapping[str, Any] = {}) -> str:
    """The card as Markdown, with the metadata that model hubs read in front."""
    about = sae.about
    layer = layer_said(about)
    where = "a residual stream" if layer is None else f"layer {layer} of {about.get('model_name') or 'the model'}"
    lines = [
        "---", "library_name: saelens", "tags: [sparse-autoencoder, interpretability, vision-language]", "---", "",
        f"# Sparse autoencoder of {where}", "",
        f"{sae.n_latents:,} latents over a residual stream of width {sae.d_model}; rule: {sae.rule.kind}"
        + (f", trained as {about['architecture']}" if "architecture" in about else "") + ".",
        "Layer k is the residual stream entering block k. Takes raw activations: the scale of training is folded in.", "",
    ]  # fmt: skip
    if evaluation is not None:
        lines += _table(evaluation, control)
    elif not more:
        lines += ["Not evaluated.", ""]
    if more:
        lines += ["| result | value |", "|---|---|", *(f"| {name} | {_shown(value)} |" for name, value in more.items()), ""]
    lines += [
        "## Load", "", "```python", "import linrep.sae.formats", 'sae = linrep.sae.formats.read("this/folder")',
        "z = sae.encode(x)  # [n, latents]", "x_again = sae.decode(z)", "",
        'import sae_lens; sae_lens.SAE.load_from_disk("this/folder")  # the same latents', "```", "",
        "## Made by", "", *(f"- {name}: {_shown(value)}" for name, value in about.items() if value is not None), "",
        "## Limits", "",
        "A latent's meaning is not shown by its score: random directions often look interpretable too, so read every number "
        "beside the random SAE's. What the SAE does not reconstruct, it cannot explain.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _table(evaluation: Evaluation, control: Evaluation | None) -> list[str]:
    columns: list[tuple[str, Quality]] = list(evaluation.quality.items())
    if control is not None:
        columns += [(f"{name}, random directions", quality) for name, quality in control.quality.items() if name != "both"]
    lines = ["## Held-out rows", "", f"| | {' | '.join(name for name, _ in columns)} |", "|---" * (len(columns) + 1) + "|"]
    for title, field, form in ROWS:
        lines.append(f"| {title} | {' | '.join(form.format(getattr(quality, field)) for _, quality in columns)} |")
    return [*lines, ""]


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).replace("|", "\\|").replace("\n", " ")
