"""Every interval of the project holds the truth as often as it says, on planted data of the kind that it meets.

One law: of many worlds, 95% of the intervals hold the truth, within three points and what the number of worlds leaves open. Where
values come in steps, as shares of few answers do, an interval may hold it more often: `Law.most` says so.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from linrep.interpret.score import mean_overlap, score_answers
from linrep.probe.score import Tally, bootstrap
from linrep.sae.controls import random_sae
from linrep.sae.pack import score
from linrep.sharing.intervals import of_classes, of_groups, of_hits, of_rows
from linrep.sharing.reliability import correlation
from linrep.stats import clusters
from linrep.stats.bootstrap import of_sums
from linrep.stats.interval import of_mean
from linrep.stats.jackknife import corrected
from linrep.stats.wilson import wilson
from linrep.steer.intervals import at_matched_damage, estimate

pytestmark = pytest.mark.slow

WORLDS = 400
LEAST, MOST = 0.92, 0.98
OPEN = 2 * (0.95 * 0.05 / WORLDS) ** 0.5
"""Two standard errors of a share of that number of worlds."""
Rng = np.random.Generator
Ends = tuple[float, float]


@dataclass(frozen=True)
class Law:
    """An interval: of what it is, a world that gives one, the truth there, and how often it may hold it at most."""

    name: str
    world: Callable[[Rng], Ends]
    truth: float
    most: float = MOST


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def ring(n_classes: int, n_pairs: int) -> np.ndarray:
    """Ordered pairs as a plan deals them: all with the next class, then all with the one after that."""
    i = np.arange(n_pairs)
    return np.stack([i % n_classes, (i % n_classes + 1 + i // n_classes) % n_classes])


def steered(rng: Rng, n_classes: int, n_pairs: int, n_images: int, mean: float, of_class: float) -> tuple[np.ndarray, ...]:
    """Answers whose logit is a source's, a target's, a pair's and an image's effect; an image serves all pairs of its source."""
    source, target = np.repeat(ring(n_classes, n_pairs), n_images, axis=1)
    image = source * n_images + np.tile(np.arange(n_images), n_pairs)
    leaves, comes = rng.normal(0, of_class, (2, n_classes))
    own = np.repeat(rng.normal(0, 0.7, n_pairs), n_images)
    return source, target, image, mean + leaves[source] + comes[target] + own + rng.normal(0, 0.5, n_classes * n_images)[image]


def mean_of(mean: float, of_class: float) -> float:
    x = np.random.default_rng(1).standard_normal(200_000)
    return float(sigmoid(mean + x * (2 * of_class**2 + 0.7**2 + 0.5**2) ** 0.5).mean())


def of_steering() -> Iterator[Law]:
    for n_classes, n_pairs, n_images in ((16, 8, 4), (16, 200, 4), (100, 50, 4), (10, 90, 4), (16, 24, 8)):
        for mean, of_class in ((-1.5, 0.0), (0.0, 0.7), (-1.5, 1.0), (-3.0, 1.0), (3.0, 1.0)):
            where = f"{n_pairs} pairs of {n_classes} classes, mean {mean}, class effects {of_class}"

            def share(rng: Rng, a=(n_classes, n_pairs, n_images, mean, of_class)) -> Ends:
                *who, logit = steered(rng, *a)
                found = estimate(*who, (rng.random(len(logit)) < sigmoid(logit)).astype(float), "share")
                return found.low, found.high

            def probability(rng: Rng, a=(n_classes, n_pairs, n_images, mean, of_class)) -> Ends:
                *who, logit = steered(rng, *a)
                found = estimate(*who, sigmoid(logit), "bounded")
                return found.low, found.high

            def damage(rng: Rng, a=(n_classes, n_pairs, n_images, mean, of_class)) -> Ends:
                *who, logit = steered(rng, *a)
                found = estimate(*who, logit, "any")
                return found.low, found.high

            yield Law(f"steering, share, {where}", share, mean_of(mean, of_class), 1.0 if n_pairs == 8 else 0.99)
            yield Law(f"steering, probability, {where}", probability, mean_of(mean, of_class))
            yield Law(f"steering, damage, {where}", damage, mean)

    def difference(rng: Rng) -> Ends:
        """A direction turns what the random one turns, .2, and another .1."""
        source, target = np.repeat(ring(16, 24), 8, axis=1)
        u = rng.random(len(source))
        found = estimate(
            source, target, source * 8 + np.tile(np.arange(8), 24), (u < 0.1).astype(float) - (u > 0.95), "difference"
        )
        return found.low, found.high

    yield Law("steering, difference of shares", difference, 0.05, 0.99)

    def matched(rng: Rng) -> Ends:
        """Efficacy rises with strength by .3 on average over sources and targets; damage by .2: at .1 half of it."""
        source, target = ring(16, 24)
        leaves, comes = rng.normal(0.15, 0.05, (2, 16))
        good, bad = {}, {}
        for s, t in zip(source.tolist(), target.tolist(), strict=True):
            pair = (f"c{s}", f"c{t}")
            good[pair] = {f"{s}-{i}": [0.0, leaves[s] + comes[t] + rng.normal(0, 0.1)] for i in range(4)}
            bad[pair] = {f"{s}-{t}-{i}": [0.0, 0.2 + rng.normal(0, 0.03)] for i in range(3)}
        found = at_matched_damage(np.array([0.0, 1.0]), good, bad, 0.1)
        return found.low, found.high

    yield Law("steering, efficacy at equal damage", matched, 0.15)

    def judges(rng: Rng) -> Ends:
        index = np.arange(60)
        found = estimate(np.zeros_like(index), np.zeros_like(index), index, (rng.random(60) < 0.85).astype(float), "share")
        return found.low, found.high

    yield Law("agreement of two judges", judges, 0.85, 0.99)


def tallied(rng: Rng, n: int, right: float) -> Tally:
    """One row a sample, four classes of unequal size, of which a probe names the right one or the next."""
    y = rng.choice(4, n, p=[0.4, 0.3, 0.2, 0.1])
    said = np.where(rng.random(n) < right, y, (y + 1) % 4)
    scores = torch.from_numpy((said[:, None] == np.arange(4)) + 0.01 * rng.standard_normal((n, 4))).float()
    tally = Tally(4, n, torch.stack([torch.full((4,), -1.0), torch.full((4,), 2.0)]))
    tally.add(scores, y, np.arange(n))
    return tally


def of_probes() -> Iterator[Law]:
    for n, right in ((200, 0.8), (200, 0.98), (1000, 0.5)):

        def balanced(rng: Rng, n=n, right=right) -> Ends:
            found = tallied(rng, n, right).balanced()
            return found.low, found.high

        yield Law(f"probes, balanced accuracy {right} of {n}", balanced, right, 0.99)

    def top1(rng: Rng) -> Ends:
        """Tokens of 80 images that are right or wrong together more or less; images have between 5 and 40."""
        rows = rng.integers(5, 41, 80).astype(float)
        hits = rng.binomial(rows.astype(int), rng.beta(3, 1, 80)).astype(float)
        (found,) = bootstrap(rows, [hits], 1, 0)
        return found.low, found.high

    yield Law("probes, top-1 over tokens of images", top1, 0.75)
    for n, right in ((15, 0.9), (60, 0.97)):

        def of_few(rng: Rng, n=n, right=right) -> Ends:
            found = clusters.share(np.ones(n), (rng.random(n) < right).astype(float))
            return found.low, found.high

        yield Law(f"probes, top-1 {right} of {n} samples", of_few, right, 0.995)

    def selectivity(rng: Rng) -> Ends:
        one, other = (rng.random(100) < p for p in (0.8, 0.3))
        (found,) = bootstrap(np.ones(100), [one.astype(float) - other], 400, int(rng.integers(2**31)), [-1.0])
        return found.low, found.high

    yield Law("probes, selectivity", selectivity, 0.5)

    def auroc(rng: Rng) -> Ends:
        """Two normal classes one and a half deviations apart: the area is that of 1.5 over the root of 2."""
        y = np.arange(300) % 2
        own = rng.standard_normal(300) + 1.5 * y
        tally = Tally(2, 300, torch.tensor([[-8.0, -8.0], [8.0, 8.0]]))
        tally.add(torch.from_numpy(np.stack([-own, own], axis=1)).float(), y, np.arange(300))
        found = tally.auroc()[0]
        return found.low, found.high

    yield Law("probes, AUROC", auroc, 0.5 * (1 + math.erf(1.5 / 2)))


def of_saes() -> Iterator[Law]:
    generator = torch.Generator().manual_seed(0)
    sae = random_sae(torch.randn(400, 8, generator=generator), 16, 3, 0)

    def rows(n: int, rng: Rng) -> torch.Tensor:
        """Sixteen neighbouring rows are of one sample and share half of their variance."""
        of_sample = np.repeat(rng.standard_normal((n // 16, 8)), 16, axis=0)
        return torch.from_numpy((of_sample + rng.standard_normal((n, 8))) / 2**0.5).float()

    truth = score({"": sae}, {"image": rows(160_000, np.random.default_rng(5))})["fvu_image"]

    def fvu(rng: Rng) -> Ends:
        found = score({"": sae}, {"image": rows(2048, rng)})
        return found["fvu_image_low"], found["fvu_image_high"]

    yield Law("SAEs, FVU of eight folds", fvu, truth)

    def recovered(rng: Rng) -> Ends:
        """A share of a loss over 100 texts of unequal length and heavy-tailed losses, of which .9 is undone on average."""
        tokens, harm = rng.integers(4, 30, 100), rng.lognormal(0, 0.7, 100)
        undone = harm * (0.9 + 0.1 * rng.standard_normal(100))
        sums = np.stack([tokens * undone, tokens * harm], axis=1)
        return of_sums(sums, lambda s: s[:, 0] / s[:, 1], int(rng.integers(2**31)))

    yield Law("SAEs, share of a loss recovered", recovered, 0.9)

    def above(rng: Rng) -> Ends:
        found = of_mean(rng.normal(0.07, 0.1, 16))
        return found.low, found.high

    yield Law("SAEs, F1 above random directions'", above, 0.07)


def of_explanations() -> Iterator[Law]:
    for n, found, refused in ((20, 0.9, 0.6), (6, 0.8, 0.8), (40, 0.99, 0.95)):

        def accuracy(rng: Rng, n=n, found=found, refused=refused) -> Ends:
            said = np.r_[rng.random(n) < found, rng.random(n) > refused]
            one = score_answers([True] * n + [False] * n, said.tolist(), [False] * 2 * n)
            assert one.low is not None
            assert one.high is not None
            return one.low, one.high

        yield Law(f"explanations, {n} of each, {found} and {refused}", accuracy, (found + refused) / 2, 0.995)

    def iou(rng: Rng) -> Ends:
        found = mean_overlap(rng.beta(1, 3, 20).tolist())
        assert found.low is not None
        assert found.high is not None
        return found.low, found.high

    yield Law("explanations, overlap with objects", iou, 0.25)
    yield Law("the demo's shares", lambda rng: wilson(rng.binomial(200, 0.93) / 200, 200), 0.93)


def of_sharing() -> Iterator[Law]:
    def hits(rng: Rng) -> Ends:
        """Pairs of a class stand or fall together: 16 classes, each with a share of its own."""
        classes = np.arange(400) % 16
        found = of_hits("x", (rng.random(400) < rng.beta(3, 2, 16)[classes]).astype(float), 0.1, None, classes)
        return found.low, found.high

    yield Law("sharing, transfer over classes", hits, 0.6)

    def rows(rng: Rng) -> Ends:
        found = of_rows("x", rng.exponential(0.3, 200), 0.0, None)
        return found.low, found.high

    yield Law("sharing, mean over pairs", rows, 0.3)

    def classes(rng: Rng) -> Ends:
        names = [f"class {i}" for i in range(24)]
        found = of_classes("x", lambda _: np.asarray(rng.random(24) < 0.7), 10, 0.1, 100, names, "class")
        return found.low, found.high

    yield Law("sharing, share of classes", classes, 0.7)

    def ratio(rng: Rng) -> Ends:
        """A function of sums of heavy-tailed rows, twenty groups of forty."""
        x = rng.standard_t(4, (20, 40)) + 2
        y = rng.standard_t(4, (20, 40)) + 4
        return ends_of(of_groups("x", 20, lambda groups: float(x[list(groups)].sum() / y[list(groups)].sum()), None, 800))

    yield Law("sharing, jackknife of a ratio of heavy tails", ratio, 0.5)

    def length(rng: Rng) -> Ends:
        """The root of a squared length, which noise makes larger: corrected, or with the reason why not."""
        x = rng.standard_normal((20, 40, 30)) + 0.1
        return ends_of(of_groups("x", 20, lambda g: float(1 / (1 + (x[list(g)].mean((0, 1)) ** 2).sum())), None, 800, (0.0, 1.0)))

    yield Law("sharing, a corrected share", length, 1 / 1.3)

    def plain(rng: Rng) -> Ends:
        """Where the truth is an end of the range, the correction leaves it: the plain value, in a wider interval."""
        x = rng.standard_normal((20, 40))
        cosine = [float(np.exp(-abs(np.delete(x, g, axis=0).mean()))) for g in range(20)]
        found, why = corrected(float(np.exp(-abs(x.mean()))), cosine, 0.0, 1.0)
        assert why is None or not found.value - (found.high - found.low) >= 0 or found.low < found.value < found.high
        return found.low, found.high

    yield Law("sharing, a value whose truth is the end of its range", plain, 1.0, 1.0)

    def agree(rng: Rng) -> Ends:
        common = rng.standard_t(5, 300)
        one, other = common + rng.standard_t(5, (2, 300)) * 1.0
        return correlation(one, other)[1:]

    yield Law("sharing, correlation of halves", agree, 0.5)


def ends_of(found) -> Ends:
    return found.low, found.high


LAWS = [*of_steering(), *of_probes(), *of_saes(), *of_explanations(), *of_sharing()]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_an_interval_holds_the_truth_as_often_as_it_says(law: Law) -> None:
    ends = [law.world(np.random.default_rng([world, 7])) for world in range(WORLDS)]
    held = float(np.mean([low <= law.truth <= high for low, high in ends]))
    assert LEAST - OPEN <= held <= min(law.most + OPEN, 1.0), f"{law.name}: {held:.3f}"
