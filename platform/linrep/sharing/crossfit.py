"""Class directions of both modalities compared without the pairs' own likeness: each product is of disjoint sets of pairs.

An image and its caption share more than their class: colour, ground, light. A mean over the pairs of a class keeps some of it,
in both modalities at once, so that cosines of such means are high where classes mean nothing. Here no image meets its own
caption: products are summed over all ordered pairs of different groups, which is what an average over splits comes to.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from linrep.sharing.intervals import Measure, without_classes, without_groups
from linrep.sharing.study import Pairs
from linrep.sharing.sums import PassSums
from linrep.stats import nulls
from linrep.stats.interval import student
from linrep.stats.jackknife import error, jackknife
from linrep.store.samples import CLASS

FEWEST = 6
"""Classes, or other values, from which on intervals are over them; of fewer, over groups of pairs."""
PERMUTATIONS = 1000


@dataclass(frozen=True)
class Products:
    """Inner products of class means of disjoint pairs, about the mean of the classes in each modality.

    Attributes:
        xy: Of images (rows) with texts (columns).
        xx: Of images with images.
        yy: Of texts with texts.
    """

    xy: Float[np.ndarray, "c c"]
    xx: Float[np.ndarray, "c c"]
    yy: Float[np.ndarray, "c c"]

    @property
    def sizes(self) -> Float[np.ndarray, " 3"]:
        """Mean product of a class's two directions, and mean squared length in images and in texts: per degree of freedom."""
        return np.array([np.trace(own) for own in (self.xy, self.xx, self.yy)]) / (len(self.xy) - 1)

    def without_each_class(self) -> Float[np.ndarray, "c 3"]:
        """`sizes` without each class, the others about their own mean: rows and columns sum to 0, so the diagonal says it."""
        c = len(self.xy)
        each = np.stack([own.diagonal() for own in (self.xy, self.xx, self.yy)], axis=1)
        return (each.sum(0) - each * c / (c - 1)) / (c - 2)


def cosine(sizes: Float[np.ndarray, " 3"]) -> float:
    """Mean product over the root of the mean squared lengths; NaN where a modality has none."""
    return float(sizes[0]) / math.sqrt(sizes[1] * sizes[2]) if min(sizes[1:]) > 0 else math.nan


@dataclass(frozen=True)
class ValueSums:
    """Sums of rows by value of an attribute, and by group of pairs.

    Attributes:
        attribute: Its name; class is one.
        values: Its c values in words.
        n: Pairs.
        x: Sums of the images' rows, about any reference.
        y: Of the texts' rows.
    """

    attribute: str
    values: tuple[str, ...]
    n: Float[Tensor, "g c"]
    x: Float[Tensor, "g c d"]
    y: Float[Tensor, "g c d"]

    @property
    def groups(self) -> range:
        """Numbers of the groups."""
        return range(len(self.n))

    @property
    def pairs(self) -> int:
        """Labelled pairs of which both rows count."""
        return round(float(self.n.sum()))


def value_sums(found: PassSums, pairs: Pairs) -> Iterator[ValueSums]:
    """The sums by class, then those by value of each attribute."""
    if pairs.classes:
        n, x, y = (torch.stack(own) for own in zip(*((s.counts, s.cx[0], s.cy[0]) for s in found.sums), strict=True))
        yield ValueSums(CLASS, pairs.classes, n, x, y)
    start = 0
    for one in pairs.attributes:
        own = slice(start, start + len(one.values))
        n, x, y = (torch.stack([getattr(s, name)[own] for s in found.sums]) for name in ("valued", "vx", "vy"))
        yield ValueSums(one.name, one.values, n, x, y)
        start = own.stop


def products(sums: ValueSums, groups: Sequence[int]) -> Products:
    """The products from some groups of pairs, at least two."""
    x, y, n = (own[list(groups)] for own in (sums.x, sums.y, sums.n))
    return Products(*(apart(one, other[None], n)[0] for one, other in ((x, y), (x, x), (y, y))))


def apart(one: Float[Tensor, "g c d"], others: Float[Tensor, "l g c d"], n: Float[Tensor, "g c"]) -> Float[np.ndarray, "l c c"]:
    """Mean product over all rows of one group with all rows of another, by values, about the mean of the values.

    Args:
        one: Sums of rows by group and value.
        others: Sums of l other kinds of rows of the same pairs.
        n: Pairs.
    """
    total = one.sum(0) @ others.sum(1).transpose(1, 2)
    # One matrix product for the pairs within all groups of all kinds.
    within = one.transpose(0, 1).flatten(1) @ others.transpose(1, 2).flatten(2).transpose(1, 2)
    return _means(total - within, torch.outer(n.sum(0), n.sum(0)) - n.T @ n)


def sizes_without_groups(sums: ValueSums) -> Float[np.ndarray, "g 3"]:
    """`Products.sizes` without each group of pairs."""
    kinds = ((sums.x, sums.y), (sums.x, sums.x), (sums.y, sums.y))
    return np.stack([size_without_groups(one, other, sums.n) for one, other in kinds], axis=1)


def size_without_groups(
    one: Float[Tensor, "g c d"], other: Float[Tensor, "g c d"], n: Float[Tensor, "g c"]
) -> Float[np.ndarray, " g"]:
    """One of the sizes without each group: the products of a group with itself are worked out once, not for each."""
    own, own_n, total_n = torch.einsum("gcd,ged->ce", one, other), n.T @ n, n.sum(0)
    left = []
    for g in range(len(n)):
        total = (one.sum(0) - one[g]) @ (other.sum(0) - other[g]).T - own + one[g] @ other[g].T
        counted = torch.outer(total_n - n[g], total_n - n[g]) - own_n + torch.outer(n[g], n[g])
        left.append(float(np.trace(_means(total, counted))) / (n.shape[1] - 1))
    return np.array(left)


def _means(total: Float[Tensor, "*l c c"], counted: Float[Tensor, "c c"]) -> Float[np.ndarray, "*l c c"]:
    """Mean products about the mean of the values; NaN of values in one group alone."""
    return _centred(torch.where(counted > 0, total / counted.clamp(min=1), torch.nan).numpy())


def _centred(m: Float[np.ndarray, "*l c c"]) -> Float[np.ndarray, "*l c c"]:
    rows, columns = m.mean(-1, keepdims=True), m.mean(-2, keepdims=True)
    return m - rows - columns + rows.mean(-2, keepdims=True)


def direction_cosine(sums: ValueSums, seed: int) -> Measure:
    """The cosine of the directions of an attribute's values (classes, colours) in images and in texts.

    Its interval is over values: others of their kind would have others. The null deals the values anew in one modality: 0.
    There is no value where the pairs do not separate the values in a modality: its directions are noise, and so is a cosine.

    Args:
        sums: By value.
        seed: Of the null.
    """
    everyone = sums.groups
    whole, *halves = (products(sums, groups) for groups in (everyone, everyone[::2], everyone[1::2]))
    orders = nulls.permutations(len(sums.values), PERMUTATIONS, seed)
    found = cosine_of(whole, sizes_without_groups(sums), sums, orders)
    return found if math.isnan(found.value) else replace(found, halves=(cosine(halves[0].sizes), cosine(halves[1].sizes)))


def cosine_of(whole: Products, of_pairs: Float[np.ndarray, "g 3"], sums: ValueSums, orders: Int64[np.ndarray, "r c"]) -> Measure:
    """The cosine from products, without its halves.

    Args:
        whole: The products of all pairs.
        of_pairs: `Products.sizes` without each group of pairs.
        sums: Of which the products are.
        orders: The null deals the values of one modality anew in these.
    """
    name, c, sizes, null = "direction_cosine", len(whole.xy), whole.sizes, 0.0
    reach = student(len(of_pairs))
    noise = [where for where, i in (("images", 1), ("texts", 2)) if not sizes[i] > reach * error(of_pairs[:, i])]
    what = "classes" if sums.attribute == CLASS else f"values of {sums.attribute}"
    if noise:
        why = f"the pairs do not separate {what} in {' and '.join(noise)}: their directions are noise"
        return Measure(name, math.nan, math.nan, math.nan, null, sums.pairs, why=why, attribute=sums.attribute)
    dealt = whole.xy[np.arange(c), orders].sum(1) / (c - 1)
    drawn = nulls.of_draws(dealt / math.sqrt(sizes[1] * sizes[2]))
    left, why = without_groups([cosine(own) for own in of_pairs]), f"{c} {what}: the interval is over pairs alone"
    inside = list(left.values())
    if c >= FEWEST:
        of_values = without_classes([cosine(own) for own in whole.without_each_class()], sums.values)
        left, inside, why = left | of_values, list(of_values.values()), None
    low, high = jackknife(cosine(sizes), inside)
    return Measure(
        name,
        cosine(sizes),
        low,
        high,
        null,
        sums.pairs,
        None,
        drawn.low,
        drawn.high,
        why,
        attribute=sums.attribute,
        left_out=left,
    )


def finds_its_class(sums: ValueSums, groups: Sequence[int], axis: int) -> Bool[np.ndarray, " c"]:
    """For each value whether its direction is nearest to its own in the other modality: texts along axis 1, images along 0."""
    chosen = list(groups)
    x, y = (lengths(some[chosen], sums.n[chosen]) for some in (sums.x, sums.y))
    return nearest_is_own(products(sums, groups).xy, x, y, axis)


def lengths(some: Float[Tensor, "g c d"], n: Float[Tensor, "g c"]) -> Float[np.ndarray, " c"]:
    """Lengths of the values' plain means about their mean; they only rank candidates, and are positive whatever the noise."""
    means = some.sum(0) / n.sum(0).clamp(min=1)[:, None]
    return (means - means.mean(0)).norm(dim=1).numpy()


def nearest_is_own(
    xy: Float[np.ndarray, "c c"], x: Float[np.ndarray, " c"], y: Float[np.ndarray, " c"], axis: int
) -> Bool[np.ndarray, " c"]:
    """For each value whether its own product over both lengths is the largest along an axis; products may be NaN."""
    cosines = xy / np.maximum(np.outer(x, y), np.finfo(float).tiny)
    return np.nan_to_num(cosines, nan=-np.inf).argmax(axis) == np.arange(len(cosines))
