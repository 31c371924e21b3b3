"""The direction of a pair of classes at a layer, in every way there is, and the controls beside it. All have one norm: that of
the mean difference, so that what is compared is where they point. Those at matched dose are the exception, see `MATCHED`.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from linrep.directions import Directions, DirectionSet
from linrep.errors import StoreError
from linrep.steer.config import MATCHED, SAME_CLASS, Dose
from linrep.steer.donors import Donors
from linrep.steer.edits import Ablate, Add, Clamp, Edit, Erase, Replace, Shuffle, Swap
from linrep.steer.erasers import centre_of, eraser_of
from linrep.steer.latents import SaeLike, best_latent, decoder_row, decoder_rows, sparse_reconstruction
from linrep.steer.token_latents import VIEW_OF_SITE as LATENTS_OF_SITE
from linrep.steer.token_latents import TokenLatents

T = TypeVar("T")

COINCIDE = 1e-5
"""Two class means closer than this share of the tokens' norm are one: the last prompt token at layer 0 is the same token
in every image, and the difference of its means is rounding."""

FROM_TEXT = "text_"
"""Begins the kinds that the probes found in texts: text_class_mean is the texts' class_mean, added to images like any other."""

VIEW_OF_SITE = {"image": "pooled", "patches": "pooled", "everywhere": "pooled", "last": "last"}
"""Which rows of the store a site's directions come from."""


SHARED = 0.1
"""Least cosine of two directions that can be brought to one dose: at a tenth of it, ten times the norm."""
LIKE = 16
"""Latents of the most similar firing rate that a control is drawn from."""
KEPT = 4096
"""Directions kept at once; those of a pair at all its layers are far fewer."""


OTHER_PROMPT = (
    "texts were read under another prompt than images, so that their last token stands elsewhere; set harvest.text_prompt to "
    "harvest.image_prompt with {text} for <image>"
)


class NoDirection(ValueError):
    """Why a cell has no direction to go in; it is left out, with this reason."""


@dataclass(frozen=True)
class Vectors:
    """Makes edits from the probes' directions.

    Attributes:
        directions: What the probes found.
        dose: The unit of strengths.
        seed: Of the random directions.
        unembedding: Row of the output matrix for the first token of a name.
        saes: SAEs by layer.
        k: Latents of a sparse reconstruction.
        one_prompt: Whether texts were read under the prompt of the images, with the text in place of the image.
        latents: What the latents of an SAE do on single training tokens, by layer and view of the store.
        donors: Streams of other runs, for interchanges.
    """

    directions: DirectionSet
    dose: Dose
    seed: int = 0
    unembedding: Callable[[str], Float[Tensor, " d"]] | None = None
    saes: Mapping[int, SaeLike] | None = None
    k: int = 20
    one_prompt: bool = True
    latents: Mapping[tuple[int, str], TokenLatents] = field(default_factory=dict)
    donors: Donors | None = None
    _made: dict[tuple[Any, ...], Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def means(self, site: str, layer: int) -> Directions:
        """Class means of the rows that stand for a site.

        Raises:
            StoreError: The probes have none there.
        """
        return probed(self.directions, "class_mean", layer, site)

    def direction(self, kind: str, site: str, layer: int, source: str, target: str) -> Float[Tensor, " d"]:
        """A direction from source to target, of the norm of their mean difference or at matched dose.

        Raises:
            NoDirection: The means coincide, or this kind gives nothing.
            StoreError: The probes have no such kind, layer or view.
            ValueError: A class is unknown.
        """
        which = (kind, site, layer, source, target)
        return self._once(("direction", *which), lambda: self._of_one_norm(*which))

    def _of_one_norm(self, kind: str, site: str, layer: int, source: str, target: str) -> Tensor:
        means = self.means(site, layer)
        difference = means.between(source, target)
        norm = difference.norm()
        if norm <= COINCIDE * means.token_norm:
            raise NoDirection(f"the class means of {source} and {target} coincide at layer {layer} of {site}")
        if kind in MATCHED:
            return self._at_matched_dose(kind, site, layer, source, target, difference)
        found = self._unscaled(kind, site, layer, source, target, difference)
        if found.norm() <= 1e-12:
            raise NoDirection(f"the direction {kind} is zero at layer {layer} of {site}")
        return found * (norm / found.norm())

    def _at_matched_dose(self, kind: str, site: str, layer: int, source: str, target: str, difference: Tensor) -> Tensor:
        """The texts' direction, as long as makes its part along the images' direction that direction; or the rest of it.

        So class_mean is the shared part alone, text_matched shared part and rest, text_rest the rest alone, at one strength.
        """
        text = self._unscaled("text_class_mean", site, layer, source, target, difference)
        cosine = torch.nn.functional.cosine_similarity(text, difference, dim=0)
        if not cosine >= SHARED:
            raise NoDirection(
                f"the directions of texts and of images have a cosine of {cosine:.2f} at layer {layer} of {site}: below "
                f"{SHARED:g} no dose of the one is a dose of the other"
            )
        whole = text * (difference.norm() / (text.norm() * cosine))
        return whole if kind == "text_matched" else whole - difference

    def _unscaled(self, kind: str, site: str, layer: int, source: str, target: str, difference: Tensor) -> Tensor:
        match kind:
            case "class_mean":
                return difference
            case "random":
                return self._random(kind, site, layer, source, target, len(difference))
            case "orthogonal":
                drawn = self._random(kind, site, layer, source, target, len(difference))
                return drawn - difference * (drawn @ difference) / (difference @ difference)
            case "unembedding":
                if self.unembedding is None:
                    raise NoDirection("no unembedding at hand")
                return (self.unembedding(target) - self.unembedding(source)).float()
            case "sae_latent":
                sae = self._sae(layer)
                return decoder_row(sae, self.latent(site, layer, source, target)).float()
            case "sae_sparse":
                return sparse_reconstruction(self._sae(layer), difference, self.k)[0]
        if site == "last" and kind.startswith(FROM_TEXT) and not self.one_prompt:
            raise NoDirection(f"{kind} at the last token: {OTHER_PROMPT}")
        found = probed(self.directions, kind, layer, site)
        missing = [name for name in (source, target) if name not in found.names]
        if missing:
            raise NoDirection(f"no class {missing[0]!r} among the directions {found.key}")
        return found.between(source, target)

    def latent(self, site: str, layer: int, source: str, target: str) -> int:
        """The latent that separates the target's tokens from the source's best.

        Raises:
            NoDirection: None does, or there is no SAE at this layer.
        """
        known, sae = self._latents(site, layer), self._sae(layer)
        try:
            return self._once(
                ("latent", site, layer, source, target),
                lambda: best_latent(sae, known.mean(target), known.mean(source)),
            )
        except ValueError as error:
            raise NoDirection(str(error)) from None

    def _once(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        """Strengths and chunks ask for the same again and again; the dearest directions search a whole SAE."""
        if key not in self._made:
            if len(self._made) >= KEPT:
                self._made.clear()
            self._made[key] = make()
        return self._made[key]

    def _sae(self, layer: int) -> SaeLike:
        if not self.saes or layer not in self.saes:
            raise NoDirection(f"no SAE of layer {layer}")
        return self.saes[layer]

    def _latents(self, site: str, layer: int) -> TokenLatents:
        self._sae(layer)
        if (layer, LATENTS_OF_SITE[site]) not in self.latents:
            raise NoDirection(f"no tokens of layer {layer} were encoded in the view {LATENTS_OF_SITE[site]}")
        return self.latents[layer, LATENTS_OF_SITE[site]]

    def _random(self, kind: str, site: str, layer: int, source: str, target: str, width: int) -> Tensor:
        return torch.randn(width, generator=self._draws(kind, site, layer, source, target))

    def _draws(self, *key: object) -> torch.Generator:
        return torch.Generator().manual_seed(self._number(*key))

    def _number(self, *key: object) -> int:
        text = "\0".join(map(str, (self.seed, *key))).encode()
        return int.from_bytes(hashlib.sha256(text).digest()[:7], "big")

    def _random_plane(self, swap: Swap, site: str, layer: int, source: str, target: str) -> Swap:
        """A swap of two random directions that are as long as the classes' and at the same angle."""
        u, w = swap.source - swap.centre, swap.target - swap.centre
        first, second = torch.randn(2, len(u), generator=self._draws("plane", site, layer, source, target))
        first = first / first.norm()
        second = second - (second @ first) * first
        second = second / second.norm()
        cosine = (u @ w) / (u.norm() * w.norm())
        other = cosine * first + (1 - cosine**2).clamp(min=0).sqrt() * second
        return Swap(swap.centre + u.norm() * first, swap.centre + w.norm() * other, swap.centre)

    def another_latent(self, clamp: Clamp, site: str, layer: int, *drawn_by: str) -> Clamp:
        """Another latent, set to what writes as much as the clamped one does: its control.

        It is drawn among the `LIKE` latents whose firing rates are nearest to the clamped one's; where no rates are known, among
        all.

        Args:
            clamp: The edit.
            site: Kind of its site.
            layer: Its layer.
            drawn_by: What else decides the draw.

        Raises:
            NoDirection: The SAE has no other latent that writes anything.
        """
        sae, known = clamp.sae, self.latents.get((layer, LATENTS_OF_SITE[site]))
        drawn = torch.randperm(sae.n_latents, generator=self._draws("latent", site, layer, *drawn_by))
        drawn = drawn[drawn != clamp.latent]
        if known is not None:
            drawn = drawn[known.rates[drawn] > 0]
            far = (known.rates[drawn].log() - known.rates[clamp.latent].log()).abs()
            near = torch.zeros(len(drawn), dtype=torch.bool)
            near[far.argsort(stable=True)[:LIKE]] = True
            drawn = drawn[near]
        drawn = drawn[:64]
        others = drawn[decoder_rows(sae, drawn).norm(dim=1) > 0]
        if not len(others):
            raise NoDirection(f"the SAE of layer {layer} has no other latent to clamp")
        latent = int(others[0])
        scale = decoder_row(sae, clamp.latent).norm() / decoder_row(sae, latent).norm()
        return Clamp(sae, latent, clamp.value * float(scale))

    def given(self, kind: str, layer: int, source: str, target: str, sample: str) -> Replace:
        """The stream of another run for the last token of a sample's run.

        Args:
            kind: Whose stream, of `DONORS`.
            layer: Layer k.
            source: Class of the sample.
            target: Class of the donor; that of the control is the source.
            sample: Name of the sample.

        Raises:
            NoDirection: There is no such donor, or no mean of its modality.
        """
        modality = "text" if kind.startswith("text") else "image"
        if modality == "text" and not self.one_prompt:
            raise NoDirection(f"the stream of texts at the last token: {OTHER_PROMPT}")
        if self.donors is None:
            raise NoDirection("no streams of other runs at hand")
        try:
            stream = self.donors.stream(modality, source if kind == SAME_CLASS else target, layer, sample, f"{source}\0{target}")
        except LookupError as missing:
            raise NoDirection(str(missing)) from None
        if kind == "text_centred":
            try:
                images, texts = (probed(self.directions, k, layer, "last") for k in ("class_mean", "text_class_mean"))
            except StoreError as missing:
                raise NoDirection(str(missing)) from None
            stream = stream - texts.vectors.mean(0) + images.vectors.mean(0)
        return Replace(stream)

    def _erase(self, kind: str, rank: int | None, site: str, layer: int, source: str, target: str) -> Erase:
        """The erasure of a subspace; a random one is drawn anew for each pair, so that intervals know what the draw does."""
        if site == "last" and kind.startswith(FROM_TEXT) and not self.one_prompt:
            raise NoDirection(f"the subspace {kind} at the last token: {OTHER_PROMPT}")
        of = (source, target) if kind in ("random", "covariance") else ()

        def make() -> Erase:
            draw = self._draws("erase", kind, site, layer, *of)
            return Erase(eraser_of(self.directions, kind, rank, site, layer, draw), centre_of(self.directions, site, layer))

        try:
            return self._once(("erase", kind, rank, site, layer, *of), make)
        except LookupError as missing:
            raise NoDirection(str(missing)) from None

    def edit(self, name: str, kind: str | None, strength: float | None, site: str, layer: int, source: str, target: str) -> Edit:
        """The edit of a cell; an interchange has another one for each sample, see `given`.

        Args:
            name: add, ablate, swap, clamp, erase, zero or mean.
            kind: Direction of an addition; of an erasure the subspace; of other edits the control, None for the edit itself.
            strength: Of an addition; of an erasure its rank, None for as many dimensions as classes span.
            site: Kind of the site.
            layer: Layer k.
            source: Class to leave.
            target: Class to reach.

        Raises:
            NoDirection: There is no direction to go in.
            StoreError: The probes have no such kind, layer or view.
            ValueError: A class is unknown.
        """
        match name:
            case "add":
                assert kind is not None
                assert strength is not None
                direction = self.direction(kind, site, layer, source, target)
                if self.dose.relative and kind in MATCHED:  # their norm counts, and the unit is the token's
                    strength *= float(direction.norm() / self.direction("class_mean", site, layer, source, target).norm())
                return Add(direction, strength, self.dose.relative)
            case "ablate":
                direction = self.direction(kind or "class_mean", site, layer, source, target)
                return Ablate(direction, self.means(site, layer).vectors.mean(0))
            case "swap":
                self.direction("class_mean", site, layer, source, target)  # refuses means that coincide
                means = self.means(site, layer)
                swap = Swap(means.vector(source), means.vector(target), means.vectors.mean(0))
                return swap if kind is None else self._random_plane(swap, site, layer, source, target)
            case "clamp":
                latent = self.latent(site, layer, source, target)
                clamp = Clamp(self._sae(layer), latent, 2 * float(self._latents(site, layer).mean(target)[latent]))
                return clamp if kind is None else self.another_latent(clamp, site, layer, source, target)
            case "erase":
                assert kind is not None
                return self._erase(kind, None if strength is None else round(strength), site, layer, source, target)
            case "zero" | "mean" if kind == "shuffled_tokens":
                return Shuffle(self._number("order", site, layer))
            case "zero":
                return Replace(torch.zeros_like(self.means(site, layer).vectors[0]))
            case "mean":
                return Replace(self.means(site, layer).vectors.mean(0))
        raise ValueError(f"no edit {name!r}")


def probed(directions: DirectionSet, kind: str, layer: int, site: str) -> Directions:
    """What the probes found of a kind for a site: in images, or in texts where the kind says so.

    Raises:
        StoreError: There is no such kind, layer or view.
    """
    modality = "text" if kind.startswith(FROM_TEXT) else "image"
    return directions.select(kind.removeprefix(FROM_TEXT), layer, VIEW_OF_SITE[site], modality, "class")


def check_directions(
    directions: DirectionSet, kinds: Sequence[str], sites: Sequence[str], layers: Sequence[int], width: int
) -> tuple[str, ...]:
    """Refuse a set of directions that does not fit the plan; gives the classes' names.

    Args:
        directions: The set.
        kinds: Those of the probes' kinds that are wanted.
        sites: Kinds of sites.
        layers: Layers.
        width: Of the model's stream.

    Raises:
        StoreError: A kind, layer or view is missing.
        ValueError: The directions are of another width than the model's stream.
    """
    names: tuple[str, ...] = ()
    for kind in ("class_mean", *kinds):
        for site in sites:
            for layer in layers:
                entry = probed(directions, kind, layer, site)
                if entry.vectors.shape[1] != width:
                    raise ValueError(
                        f"the directions {entry.key} have width {entry.vectors.shape[1]}, the model's stream {width}: "
                        f"they were made from another model"
                    )
                names = names or entry.names
    return names
