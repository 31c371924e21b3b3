"""The cards of a repository of SAEs: of the whole, with a row an SAE, and of each folder, with all that was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from linrep.explorer.escaped import in_markdown
from linrep.harvest.account import account
from linrep.hub.bundle import RECIPE, Wishes, without_paths
from linrep.hub.cards import block, front_matter, made_with, table
from linrep.sae.artefact import Saes
from linrep.sae.sae import Sae
from linrep.store.manifest import LAYER_CONVENTION, Manifest
from linrep.vlm.sites import transformer_lens_name

TAGS = ["saelens", "sparse-autoencoder", "sae", "interpretability", "mechanistic-interpretability", "vision-language"]
COLUMNS = {
    "fvu, image": "FVU, image", "fvu, text": "FVU, text", "l0, image": "L0, image", "l0, text": "L0, text",
    "kl_spliced, both": "KL, nats",
}  # fmt: skip
"""What the row of an SAE shows, by the name of the measure."""
MEANING = (
    "FVU is the share of variance that is not explained; L0 is how many latents are active on a token; KL is how far "
    "predictions move, in nats a token, with the SAE in the place of the stream. Square brackets are 95% "
    "intervals, round ones are as many random directions, which look interpretable, too: read every number beside them."
)
LIMITS = (
    "A latent's meaning is not shown by its score. What an SAE does not reconstruct, it cannot explain. The numbers are of "
    "held-out rows of the same corpora, and say nothing of others."
)


@dataclass(frozen=True)
class SharedSae:
    """An SAE that is sent.

    Attributes:
        folder: Where it lies in the repository.
        layer: Its layer.
        sae: The SAE.
        measured: What its evaluation found, by measure; each with interval and control.
    """

    folder: str
    layer: int
    sae: Sae = field(repr=False)
    measured: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class SharedSaes:
    """All that the card of the repository says.

    Attributes:
        repository: OWNER/NAME.
        sent: The SAEs.
        others: Folders of SAEs that are there already.
        saes: The artefact that the sent ones are of.
        harvest: What they were trained on; None where the workspace does not hold it any more.
        model: What the model is called.
        base_model: Its name on the hub, None where it has none.
        wishes: What the person says.
        evaluation: Section of the recipe, None where they are not evaluated.
    """

    repository: str
    sent: Sequence[SharedSae]
    others: Sequence[str]
    saes: Saes
    harvest: Manifest | None
    model: str
    base_model: str | None
    wishes: Wishes
    evaluation: Mapping[str, Any] | None


def repository_card(about: SharedSaes) -> str:
    """The card of the repository, with the metadata that the hub reads in front."""
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        library_name="saelens",
        tags=TAGS,
        license=about.wishes.license or None,
        base_model=about.base_model,
        datasets=list(about.wishes.datasets) or None,
    )
    first = about.sent[0]
    return "\n".join([
        *front_matter(data),
        f"# Sparse autoencoders of the residual stream of {in_markdown(about.model)}", "",
        f"SAEs in SAELens' layout, a folder each. They take raw activations of width {first.sae.d_model}: the scale of training "
        f"is folded in. {LAYER_CONVENTION[0].upper()}{LAYER_CONVENTION[1:]}. SAELens counts blocks, so layer {first.layer} is "
        f"`{transformer_lens_name(first.layer)}` there.", "",
        *_rows(about),
        *([MEANING, ""] if about.evaluation is not None else ["They were not evaluated.", ""]),
        "## Load", "", *load_lines(about.repository, first.folder),
        "## Trained on", "", *_trained(about),
        *_evaluated(about),
        "## Limits", "", LIMITS, "",
        "## Recipe", "", "How they were trained:", "",
        *block("yaml", yaml.safe_dump(without_paths(about.saes.manifest.config), sort_keys=False, allow_unicode=True)),
        f"The whole recipe, as far as it was kept, is `{RECIPE}`; digest of the SAEs `{about.saes.digest}`.", "",
        *made_with(),
    ])  # fmt: skip


def folder_card(own: SharedSae, repository: str, model: str) -> str:
    """The card of one SAE."""
    about = {**own.sae.about, "model_name": model}
    return "\n".join([
        f"# {in_markdown(own.folder)}", "",
        f"{own.sae.n_latents:,} latents over layer {own.layer} of {in_markdown(model)}, width {own.sae.d_model}; rule: "
        f"{in_markdown(own.sae.rule.kind)}. Hook: `{transformer_lens_name(own.layer)}`. Digest of what it computes: "
        f"`{own.sae.digest}`.", "",
        *load_lines(repository, own.folder),
        "## Measured", "",
        *(table(["measure", "value"], own.measured.items()) if own.measured else ["Not evaluated."]), "",
        "## Made by", "",
        *block("yaml", yaml.safe_dump(without_paths(about), sort_keys=False, allow_unicode=True)),
    ])  # fmt: skip


def load_lines(repository: str, folder: str) -> list[str]:
    """How an SAE of the repository is loaded."""
    code = (
        "import sae_lens\n\n"
        f'sae = sae_lens.SAE.from_pretrained("{repository}", "{folder}")\n\n'
        "import linrep.sae.formats  # the same latents\n\n"
        f'sae = linrep.sae.formats.read("hf://{repository}/{folder}")\n'
        "z = sae.encode(x)  # [n, latents]\n"
        "x_again = sae.decode(z)"
    )
    return block("python", code)


def _rows(about: SharedSaes) -> list[str]:
    head = ["folder", "layer", "hook", "latents", "rule", *COLUMNS.values(), "digest"]
    rows = []
    for own in about.sent:
        numbers = [str(own.measured.get(name, "-")).replace("random directions: ", "") for name in COLUMNS]
        hook, sae = transformer_lens_name(own.layer), own.sae
        rows.append([own.folder, own.layer, hook, f"{sae.n_latents:,}", sae.rule.kind, *numbers, sae.digest])
    also = ", ".join(f"`{folder}`" for folder in about.others)
    return [*table(head, rows), "", *([f"Also here: {also}, each with its own card.", ""] if also else [])]


def _trained(about: SharedSaes) -> list[str]:
    own = about.saes.about
    lines = [f"- {in_markdown(line)}" for line in ([] if about.harvest is None else account(about.harvest.corpora, {}))]
    lines += [f"- in training, {in_markdown(line)}" for said in list(own.reads.values())[:1] for line in said]
    lines.append(f"- {own.steps:,} steps, each layer; digest of the harvest `{about.saes.parents['harvest']}`")
    if about.harvest is not None:
        prompts = {name: about.harvest.harvest.get(name) for name in ("image_prompt", "pair_prompt", "text_prompt")}
        lines += [f"- {name.replace('_', ' ')}: {in_markdown(repr(value))}" for name, value in prompts.items() if value]
    return [*lines, ""]


def _evaluated(about: SharedSaes) -> list[str]:
    if about.evaluation is None:
        return []
    held = about.evaluation
    return [
        "## Evaluated", "",
        f"On {held['rows']:,} held-out rows of each modality, and {held['texts']:,} held-out captions for the loss. Each "
        "folder's card has every number with its interval and its control: as many random directions, as many active.", "",
    ]  # fmt: skip
