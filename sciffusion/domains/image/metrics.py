"""How good generated images are: distance, fidelity, variety, labels, and copying.

Every figure stands beside what real training images score against the test images at the same n,
and carries a 95% bootstrap interval over the samples at hand (the test set stays as it is, for
figure and floor alike). A trained extractor knows its training images a little too well, so a
figure may lie slightly on the good side of its floor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8

from sciffusion.domains.image.features import ImageSet, check_images, load_extractor
from sciffusion.errors import InputError
from sciffusion.metrics.bootstrap import (
    Interval,
    bootstrap_interval,
    centred_interval,
    mean_interval,
    resample_indices,
)
from sciffusion.metrics.distances import nearest
from sciffusion.metrics.floors import real_floor
from sciffusion.metrics.frechet import frechet_of_moments, moments
from sciffusion.metrics.kid import kid, kid_of_resamples
from sciffusion.metrics.prdc import PRDC, prdc
from sciffusion.metrics.table import Row, Table

NEIGHBOURS = 5
AT_LEAST = NEIGHBOURS + 1


def evaluate_images(
    samples_x: UInt8[np.ndarray, "n h w c"],
    samples_label: Int[np.ndarray, " n"] | None,
    train: ImageSet,
    test: ImageSet,
    extractor: str = "classifier",
    seed: int = 0,
    resamples: int = 200,
) -> Table:
    """Measure samples against held-out images.

    More samples than training images are cut to as many, so that each figure and its floor share
    n. Where `train` has no labels, `classifier` gives way to `rotation`; the title says which
    extractor measured.

    Args:
        samples_x: generated images.
        samples_label: the class each was asked for; None if none was.
        train: real images the generator learned from, with `.x` and `.label`.
        test: real images it did not see.
        extractor: `classifier`, `rotation` or `inception`.
        seed: of the bootstrap and of the floors' subsets.
        resamples: bootstrap replicates.

    Raises:
        InputError: images that are not uint8 (N, H, W, C) of one size, too few of them, labels
            that do not match, or an extractor that cannot be had.
    """
    _check(samples_x, samples_label, train, test)
    if extractor == "classifier" and train.label is None:
        extractor = "rotation"
    extract = load_extractor(extractor, train)
    n = min(len(samples_x), len(train.x))
    fake, real = extract(samples_x[:n]), extract(test.x)
    rows = [
        *_set_rows(fake.values, extract(train.x).values, real.values, seed, resamples),
        _memorisation_row(samples_x[:n], train.x, test.x, seed, resamples),
    ]
    if samples_label is not None and fake.probs is not None and real.probs is not None:
        hit = fake.probs.argmax(1) == np.asarray(samples_label)[:n]
        accuracy = (
            None if test.label is None else float((real.probs.argmax(1) == test.label).mean())
        )
        rows.append(
            _row(
                "label agreement",
                mean_interval(hit.astype(float), resamples, seed=seed),
                n,
                accuracy,
                better="higher",
                note="share classified as asked; floor: the classifier's accuracy on test images",
            )
        )
    return Table(f"Images by the {extractor} extractor, against {len(test.x)} test images", rows)


def _set_rows(
    fake: Float[np.ndarray, "n d"],
    train: Float[np.ndarray, "k d"],
    test: Float[np.ndarray, "m d"],
    seed: int,
    resamples: int,
) -> list[Row]:
    """Rows that compare two sets of features."""
    n, reference = len(fake), moments(test)

    def frechet(features: Shaped[np.ndarray, "n d"], _: object = None) -> float:
        return frechet_of_moments(moments(features), reference)

    def floor(metric: Callable[..., float]) -> float:
        return real_floor(metric, train, test, n, seed=seed)

    picks = resample_indices(n, resamples, seed)
    counts = np.stack([np.bincount(pick, minlength=n) for pick in picks])
    figures = kid_of_resamples(fake, test, np.concatenate([np.ones((1, n)), counts]))
    points = prdc(test, fake, NEIGHBOURS)
    over = partial(mean_interval, resamples=resamples, seed=seed)
    distance = bootstrap_interval(lambda i: frechet(fake[i]), n, resamples, seed=seed)
    few = "" if n > fake.shape[1] else f"n is below the {fake.shape[1]} features: read as a rank"
    return [
        _row(
            "Frechet distance",
            replace(distance, low=max(distance.low, 0.0)),  # no distance is negative
            n,
            floor(frechet),
            note=few,
        ),
        _row(
            "kernel distance (KID)",
            centred_interval(float(figures[0]), figures[1:]),
            n,
            floor(kid),
            note="unbiased; may be negative",
        ),
        *(
            _row(
                name,
                over(getattr(points, field).astype(float)),
                n,
                floor(partial(_prdc_figure, name)),
                better="higher",
                note=note,
            )
            for name, field, note in (
                ("precision", "in_real", "share of samples among real images"),
                ("recall", "in_fake", "share of real images among samples; interval over them"),
                ("density", "per_sample", "real neighbourhoods about a sample; about 1 is real"),
                ("coverage", "covered", "share of real images with a sample near; as recall"),
            )
        ),
    ]


def _prdc_figure(
    name: str, features: Shaped[np.ndarray, "n d"], test: Shaped[np.ndarray, "m d"]
) -> float:
    points: PRDC = prdc(test, features, NEIGHBOURS)
    return getattr(points, name)


def _memorisation_row(
    samples: UInt8[np.ndarray, "n h w c"],
    train: UInt8[np.ndarray, "k h w c"],
    test: UInt8[np.ndarray, "m h w c"],
    seed: int,
    resamples: int,
) -> Row:
    """How near samples lie to a training image, in pixels, beside how near test images do."""
    flat_train = _flat(train)
    own, usual = nearest(_flat(samples), flat_train)[0], nearest(_flat(test), flat_train)[0]
    scale = float(np.median(usual))
    if scale == 0:
        raise InputError(
            "memorisation: most test images are copies of training images; split the data anew"
        )
    return _row(
        "distance to training data",
        bootstrap_interval(
            lambda i: float(np.median(own[i])) / scale, len(own), resamples, seed=seed
        ),
        len(own),
        1.0,
        better="higher",
        note="median to the nearest, over that of test images; below 0.8 suggests copying",
    )


def _flat(x: UInt8[np.ndarray, "n h w c"]) -> Float[np.ndarray, "n d"]:
    return x.reshape(len(x), -1) / 255.0


def _row(name: str, interval: Interval, n: int, floor: float | None, **rest: str) -> Row:
    return Row(name, interval.value, interval.low, interval.high, n, floor, **rest)


def _check(
    samples_x: np.ndarray, samples_label: np.ndarray | None, train: ImageSet, test: ImageSet
) -> None:
    for name, x in (("samples", samples_x), ("training", train.x), ("test", test.x)):
        try:
            check_images(x)
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
        if len(x) < AT_LEAST:
            raise InputError(
                f"{name}: {len(x)} images, the measures need {AT_LEAST} or more (hundreds to mean "
                "anything); give more"
            )
        if x.shape[1:] != samples_x.shape[1:]:
            raise InputError(
                f"{name} images are {x.shape[1:]} and samples {samples_x.shape[1:]}; "
                "bring both to one size"
            )
    if samples_label is not None and len(samples_label) != len(samples_x):
        raise InputError(
            f"{len(samples_x)} samples with {len(samples_label)} labels; give one label a sample"
        )
