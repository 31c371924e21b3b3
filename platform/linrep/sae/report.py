"""What a finished SAE does, as rows of result tables; each number beside the same number of random directions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from linrep.sae.activity import ROWS_AT_ONCE, Activity
from linrep.sae.controls import isotropic
from linrep.sae.evaluate import ENERGIES, LOWEST_DECADE, Evaluation, evaluate_each
from linrep.sae.moved import moved
from linrep.sae.pursuit import latents_needed, pursue, random_vectors
from linrep.sae.sae import Sae
from linrep.sae.splice import LEAST_HARM, MEAN, RESAMPLE, SPLICED, Replace, Spliced
from linrep.sae.train import Rows
from linrep.sae.truth import best_latents, sparse_probe
from linrep.stats.interval import Interval
from linrep.store.layout import MODALITIES, Modality

KS = (1, 2, 5)
"""Latents of a sparse probe."""
COSINES = (0.8, 0.9)
"""How well vectors must be rebuilt for the number of latents needed."""
QUARTERS = (0.25, 0.5, 0.75)

Row = dict[str, Any]


@dataclass(frozen=True)
class LayerSae:
    """An SAE of a layer, and its control.

    Attributes:
        layer: Layer k.
        name: Its name.
        image: As it takes raw image rows.
        text: As it takes raw text rows: the same, unless the modalities were scaled apart.
    """

    layer: int
    name: str
    image: Sae
    text: Sae

    @classmethod
    def of(cls, layer: int, name: str, saes: Mapping[str, Sae]) -> "LayerSae":
        """From `linrep.sae.artefact.open_saes`."""
        both = saes.get("")
        return cls(layer, name, saes["image"] if both is None else both, saes["text"] if both is None else both)

    @property
    def which(self) -> Row:
        """The columns that name it."""
        return {"layer": self.layer, "sae": self.name}

    def evaluate(self, rows: Mapping[Modality, Float[Tensor, "n d"]]) -> Evaluation:
        """Quality on held-out rows of each modality, and of both together."""
        return evaluate_each(self.by_modality, [b for m, x in rows.items() for b in _batches(x, m)])

    @property
    def by_modality(self) -> dict[Modality, Sae]:
        """By modality what takes its raw rows."""
        return {"image": self.image, "text": self.text}

    def active(self, found: Evaluation) -> dict[Modality, int]:
        """Active latents of a row of each modality, as found on held-out rows: as many as a control has."""
        known: dict[Modality, float] = {
            m: found.quality[m].l0 for m in MODALITIES if m in found.quality and math.isfinite(found.quality[m].l0)
        }
        return {m: max(1, min(round(l0), self.image.n_latents)) for m, l0 in known.items()}

    def random(self, rows: Mapping[Modality, Float[Tensor, "n d"]], found: Evaluation) -> "LayerSae":
        """The control: random directions about the mean of each modality, as many latents, as many of them active."""
        active, there = self.active(found), dict[Modality, Tensor]()
        for modality, x in rows.items():
            sample = x[:ROWS_AT_ONCE].to(self.image.b_dec)
            if modality in active:  # a row of finite numbers is among all rows, if not among these
                finite = sample[sample.isfinite().all(1)]
                there[modality] = finite if len(finite) else sample.new_zeros(1, self.image.d_model)
        if not there:  # nothing is known of such rows, and nothing is compared
            there["image"], active["image"] = self.image.b_dec.new_zeros(1, self.image.d_model), 1
        return self.beside("random", isotropic(there, self.image.n_latents, active, 0))

    def beside(self, name: str, saes: Mapping[Modality, Sae]) -> "LayerSae":
        """A control of the layer; a modality without rows is given the other's."""
        either = next(iter(saes.values()))
        return LayerSae(self.layer, name, saes.get("image", either), saes.get("text", either))

    def replacing(self) -> dict[str, Replace]:
        """What puts reconstructions in the place of raw activations, by modality; sparse, so that many latents fit."""
        return {
            "image": lambda x: self.image.rebuild(x.to(self.image.b_dec)),
            "text": lambda x: self.text.rebuild(x.to(self.text.b_dec)),
        }


def _batches(x: Float[Tensor, "n d"], modality: str) -> list[Rows]:
    return [Rows(piece, torch.full((len(piece),), modality == "text")) for piece in x.split(ROWS_AT_ONCE)]


@dataclass
class Report:
    """Rows of the tables of `schemas.saes`."""

    quality: list[Row] = field(default_factory=list)
    firing: list[Row] = field(default_factory=list)
    truth: list[Row] = field(default_factory=list)
    rebuilt: list[Row] = field(default_factory=list)

    def add_quality(self, one: LayerSae, found: Evaluation, control: Evaluation) -> None:
        """Take in how well rows are rebuilt."""
        for modality, quality in found.quality.items():
            beside = asdict(control.quality[modality]) if modality in control.quality else {}
            for measure, value in asdict(quality).items():
                if measure == "firing":
                    for i, latents in enumerate(value):
                        low, other = None if i == 0 else LOWEST_DECADE + (i - 1) / 4, beside[measure][i] if beside else None
                        row = {**one.which, "modality": modality, "low": low}
                        self.firing.append({**row, "latents": latents, "control": other})
                elif measure == "latents_of_energy":
                    for share, latents, other in zip(ENERGIES, value, beside.get(measure, (None,) * len(value)), strict=True):
                        self._put(one, modality, f"{measure}_{share}", latents, other)
                else:
                    self._put(one, modality, measure, value, beside.get(measure))

    def add_spliced(self, one: LayerSae, found: Spliced, control: Spliced) -> None:
        """Take in what the model loses when the SAE is spliced in, and what ablations of the same positions cost it.

        Args:
            one: The SAE.
            found: Its losses.
            control: Those of the random SAE on the same texts; ablations are the same with any SAE.
        """
        for measure, value in vars(found).items():
            if measure == "where":
                continue
            beside = getattr(control, measure)
            if not isinstance(value, Interval):
                self._put(one, found.where, measure, value, beside)
                continue
            of_sae = measure.endswith((SPLICED, "recovered"))
            note = _why_no_share(measure, found) if measure.endswith("recovered") else _why_nothing(measure, value)
            spread = (value.low, value.high)
            self._put(one, found.where, measure, value.value, beside.value if of_sae else None, spread, note)

    def add_stability(self, one: LayerSae, other: LayerSae, cosine: float, control: float) -> None:
        """Take in how much of an SAE one of another seed has too."""
        self._put(one, "both", f"stability/{other.name}", cosine, control)

    def add_moved(self, one: LayerSae, rates: Float[Tensor, " f"]) -> None:
        """Take in how near decoder rows still are to where they began; nothing where that is not known.

        Args:
            one: The SAE, whose `about` holds the config that it was trained by.
            rates: Firing rates of its latents: those that never fire are left out.
        """
        found = moved(one.image, rates)
        if found is not None:
            self._put(one, "both", "moved", found.mean, found.other, (found.low, found.high))

    def _put(
        self, one: LayerSae, modality: str, measure: str, value: float, control: float | None,
        spread: tuple[float, float] | None = None, note: str | None = None,
    ) -> None:  # fmt: skip
        row = {**one.which, "modality": modality, "measure": measure, "value": _finite(value)}
        low, high = (None, None) if spread is None else map(_finite, spread)
        beside = None if control is None else _finite(control)
        self.quality.append({**row, "low": low, "high": high, "control": beside, "note": note})

    def add_rebuilt(self, one: LayerSae, control: LayerSae, directions: Float[Tensor, "v d"], most: int) -> None:
        """Take in how few latents rebuild class directions, and random ones of the same norms.

        Classes whose means coincide, as those of constant rows, have no direction and are left out.
        """
        norms = directions.double().norm(dim=1)
        directions = directions[norms.isfinite() & (norms > 0)]
        if not len(directions):
            return
        most = min(most, *one.image.decoder.shape)
        for kind, vectors in (("class", directions), ("random", random_vectors(directions, 0))):
            cosines, beside = (
                pursue(sae.image.decoder, vectors.to(sae.image.decoder), most)[0].double().cpu() for sae in (one, control)
            )
            low, _, high = _quartiles(cosines)
            for k in range(most):
                values = (cosines[:, k].mean(), low[k], high[k], beside[:, k].mean())
                shown = dict(zip(("cosine", "low", "high", "control"), map(float, values), strict=True))
                self.rebuilt.append({**one.which, "vectors": kind, "n_latents": k + 1, **shown})
            for cosine in COSINES:
                low, median, high = map(float, _quartiles(latents_needed(cosines, cosine).double()))
                other = float(_quartiles(latents_needed(beside, cosine).double())[1])
                self._put(one, "image", f"latents_needed_{cosine}/{kind}", median, other, (low, high))

    def add_truth(
        self,
        one: LayerSae,
        z: Mapping[str, tuple[Activity, Activity]],
        attribute: str,
        names: Sequence[str],
        y: Int[Tensor, " n"],
        y_test: Int[Tensor, " m"],
    ) -> None:
        """Take in which latents separate the values of an attribute.

        Args:
            one: The SAE.
            z: Activations of samples to choose on and to score on, under `own` and `control`.
            attribute: Its name.
            names: Its values in words.
            y: Value of each sample to choose on, -1 where it has none.
            y_test: Likewise, to score on.
        """
        here, there = (y >= 0).nonzero()[:, 0], (y_test >= 0).nonzero()[:, 0]
        (own, own_test), (other, other_test) = ((z[k][0].only(here), z[k][1].only(there)) for k in ("own", "control"))
        y, y_test = y[here], y_test[there]
        beside = {best.value: best for best in best_latents(other, y, other_test, y_test)}
        for best in best_latents(own, y, own_test, y_test):
            yes, yes_test = y == best.value, y_test == best.value
            if not yes_test.any() or yes_test.all() or yes.all():
                continue
            control = beside[best.value]
            row = {**one.which, "attribute": attribute, "class_name": names[best.value], "latent": best.latent}
            row |= {"threshold": best.threshold, "f1": best.f1, "control": control.f1}
            row |= {"auroc": best.auroc, "auroc_control": control.auroc, "n_test": int(yes_test.sum())}
            for k in KS:
                row[f"probe_{k}"] = sparse_probe(own, yes, own_test, yes_test, k)
                row[f"probe_{k}_control"] = sparse_probe(other, yes, other_test, yes_test, k)
            self.truth.append(row)


def _why_no_share(measure: str, found: Spliced) -> str | None:
    """Why nothing is recovered of what another sample's tokens cost, or why the share has no interval; None where it has."""
    share: Interval = getattr(found, measure)
    if math.isfinite(share.low):
        return None
    cost = found.kl_resample.value if measure.startswith("kl") else found.ce_resample.value - found.ce.value
    if math.isnan(cost):
        return _why_nothing(RESAMPLE, found.kl_resample)
    costs = f"another sample's tokens here cost {cost:.2g} nats a token"
    if math.isnan(share.value):
        return f"{costs}, less than {LEAST_HARM:g}: there is nothing to recover"
    return f"{costs}: no interval, as they cost less than {LEAST_HARM:g} in some draws of captions, or there are too few captions"


def _why_nothing(measure: str, found: Interval) -> str | None:
    """Why a loss has no value."""
    if math.isfinite(found.value):
        return None
    if measure.endswith(RESAMPLE):
        return "a caption has no other sample whose tokens could take the place of its own"
    if measure.endswith(MEAN):
        return "no training rows of this modality to take the mean of"
    return "the model's predictions are not finite"


def _quartiles(values: Float[Tensor, "v ..."]) -> Float[Tensor, "3 ..."]:
    """Lower quartile, median and upper quartile over the first axis."""
    return torch.quantile(values, values.new_tensor(QUARTERS), dim=0)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
