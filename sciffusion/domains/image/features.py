"""Features of images, by extractors that have a name.

A Frechet distance says nothing without the network behind it. `classifier` is trained here on
the real training images and their labels, so it sees what matters in that data and needs no
download; `rotation` learns from unlabelled images by telling quarter turns apart (Gidaris et al.
2018, arXiv:1803.07728); `inception` is the InceptionV3 of the published FID. Figures of different
extractors, or of one trained on different data, must not be compared.
"""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from sciffusion.atomic import atomic_path
from sciffusion.domains.image.feature_net import check_images, to_tensor, trained_net
from sciffusion.errors import InputError
from sciffusion.resources import cache_dir

EXTRACT_BATCH = 256
INCEPTION_WEIGHTS = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)


class ImageSet(Protocol):
    """Images with labels, as a data set of this domain gives them."""

    x: UInt8[np.ndarray, "n h w c"]
    label: Int[np.ndarray, " n"] | None
    classes: object


@dataclass(frozen=True)
class Features:
    """What an extractor says of N images.

    Args:
        values: (N, D) features.
        probs: (N, K) class probabilities; None from an extractor that knows no classes.
    """

    values: Float[np.ndarray, "n d"]
    probs: Float[np.ndarray, "n k"] | None


@dataclass(frozen=True)
class Extractor:
    """A named map from uint8 images to features.

    Args:
        name: shown beside every figure.
        network: (B, C, H, W) uint8 tensor -> features (B, D), logits (B, K) or None.
    """

    name: str
    network: Callable[[Tensor], tuple[Tensor, Tensor | None]]

    @torch.inference_mode()
    def __call__(self, x: UInt8[np.ndarray, "n h w c"]) -> Features:
        """Features of images, in batches on the CPU.

        Raises:
            InputError: not uint8 (N, H, W, C), or there are none.
        """
        check_images(x)
        values, probs = [], []
        for start in range(0, len(x), EXTRACT_BATCH):
            feature, logits = self.network(to_tensor(x[start : start + EXTRACT_BATCH]))
            values.append(feature.double().numpy())
            if logits is not None:
                probs.append(logits.double().softmax(1).numpy())
        return Features(np.concatenate(values), np.concatenate(probs) if probs else None)


def load_extractor(name: str, train: ImageSet) -> Extractor:
    """The extractor of that name, trained on `train` where it is to be trained.

    Weights are kept under `cache_dir()/features/`, by a hash of the data and the recipe. Training
    is seeded by the recipe, not by the caller: every run on one data set shares one ruler.

    Args:
        name: `classifier`, `rotation` or `inception`.
        train: the real training images.

    Raises:
        InputError: the name is unknown, labels are missing for `classifier`, or the package of
            `inception` is.
    """
    if name == "inception":
        return _inception()
    if name == "rotation":
        return Extractor(name, trained_net(name, train.x, label=None))
    if name != "classifier":
        raise InputError(
            f"feature extractor {name!r} is unknown; choose classifier, rotation or inception"
        )
    if train.label is None:
        raise InputError(
            "feature extractor 'classifier' needs labels and this data set has none; "
            "choose rotation or inception"
        )
    return Extractor(name, trained_net(name, train.x, np.asarray(train.label, dtype=np.int64)))


def _inception() -> Extractor:
    """torch-fidelity's InceptionV3, 2048 features, as published FIDs use it."""
    if importlib.util.find_spec("torch_fidelity") is None:
        raise InputError(
            "feature extractor 'inception' needs torch-fidelity, which is not installed; run: "
            'pip install "sciffusion[inception]"'
        )
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = cache_dir() / "features" / INCEPTION_WEIGHTS.rsplit("/", 1)[-1]
    if not path.exists():
        try:
            with atomic_path(path) as temporary:
                torch.hub.download_url_to_file(
                    INCEPTION_WEIGHTS, str(temporary), hash_prefix="6726825d"
                )
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"cannot download {INCEPTION_WEIGHTS}: {error}; put the file at {path} by hand"
            ) from error
    # torch-fidelity unpickles the file freely: prove first that it holds tensors only.
    try:
        torch.load(path, weights_only=True)
        net = FeatureExtractorInceptionV3("inception", ["2048"], str(path))
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise InputError(
            f"{path} does not hold the InceptionV3 weights; remove it to download them again"
        ) from error

    def network(x: Tensor) -> tuple[Tensor, None]:
        return net(_to_rgb(x))[0], None

    return Extractor("inception", network)


def _to_rgb(x: UInt8[Tensor, "b c h w"]) -> UInt8[Tensor, "b 3 h w"]:
    """Grey repeated; transparency laid over white."""
    if x.shape[1] == 1:
        return x.expand(-1, 3, -1, -1)
    if x.shape[1] == 3:
        return x
    alpha = x[:, 3:].float() / 255
    return (x[:, :3] * alpha + 255 * (1 - alpha)).round().to(torch.uint8)
