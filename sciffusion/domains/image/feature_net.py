"""The small network that measures images, trained in seconds on the real training data.

It tells classes apart, or, without labels, quarter turns (Gidaris et al. 2018, arXiv:1803.07728).
Its recipe is fixed and seeded and its weights are cached by a hash of data and recipe, so that
every figure on one data set is taken with one ruler.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from sciffusion.atomic import atomic_path
from sciffusion.errors import InputError
from sciffusion.resources import cache_dir

# No label smoothing and few steps: either one draws the features of training images together,
# and the recall that the floor promises falls below what fresh images reach.
RECIPE = {
    "version": 1,
    "width": 32,
    "features": 64,
    "steps": 300,
    "batch": 96,
    "lr": 4e-3,
    "shift": 0.125,
    "seed": 0,
}


def check_images(x: np.ndarray) -> None:
    """Refuse what is not a batch of 8-bit images.

    Raises:
        InputError: not uint8 (N, H, W, C) with 1, 3 or 4 channels, or there are none.
    """
    x = np.asarray(x)
    if x.dtype != np.uint8 or x.ndim != 4 or x.shape[-1] not in (1, 3, 4) or x.size == 0:
        raise InputError(
            f"images must be uint8 (N, H, W, C) with C 1, 3 or 4 and N > 0, got {x.dtype} "
            f"{x.shape}; convert them first"
        )


def to_tensor(x: UInt8[np.ndarray, "n h w c"]) -> UInt8[Tensor, "n c h w"]:
    """Channels first, as networks want them."""
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


class SmallConvNet(nn.Module):
    """A classifier of small images: five convolutions, standardised features, a linear map.

    Images are resized to 16 or 32 pixels a side, whichever is nearer above (32 at most).

    Args:
        channels: of the images.
        classes: K.
        pixels: longer side of the images.
    """

    def __init__(self, channels: int, classes: int, pixels: int) -> None:
        super().__init__()
        self.side = 16 if pixels <= 16 else 32
        w, d = RECIPE["width"], RECIPE["features"]
        self.body = nn.Sequential(
            *_conv(channels, w, stride=1 if self.side == 16 else 2),
            *_conv(w, w, stride=2),
            *_conv(w, d, stride=1),
            *_conv(d, d, stride=2),
            *_conv(d, d, stride=1),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(4 * d, d, bias=False),
            nn.BatchNorm1d(d, affine=False),  # unit variance: distances have a scale
        )
        self.head = nn.Linear(d, classes)

    def forward(
        self, x: UInt8[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b k"]]:
        """Penultimate features and logits."""
        size = (self.side, self.side)
        x = F.interpolate(x.float() / 127.5 - 1, size, mode="bilinear", antialias=True)
        features = self.body(x)
        return features, self.head(features.relu())


def _conv(inputs: int, outputs: int, stride: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def trained_net(
    name: str, x: UInt8[np.ndarray, "n h w c"], label: Int[np.ndarray, " n"] | None
) -> SmallConvNet:
    """The network of these images, from the cache or trained and put there.

    Args:
        name: begins the file's name.
        x: real training images.
        label: their classes; None to learn from quarter turns.

    Raises:
        InputError: not uint8 (N, H, W, C), a label is negative or missing, or the cache cannot be
            written.
    """
    check_images(x)
    if label is not None and (len(label) != len(x) or label.min() < 0):
        raise InputError(
            f"{len(x)} training images with {len(label)} labels from {label.min(initial=0)}; "
            "give each image a class number from 0"
        )
    classes = 4 if label is None else int(label.max()) + 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RECIPE["seed"])
        net = SmallConvNet(x.shape[-1], classes, max(x.shape[1:3]))
        path = cache_dir() / "features" / f"{name}-{_key(x, label)}.safetensors"
        if not _load(net, path):
            _fit(net, to_tensor(x), None if label is None else torch.from_numpy(label))
            with atomic_path(path) as temporary:
                temporary.write_bytes(save(net.state_dict()))
    return net.eval()


def _key(x: np.ndarray, label: np.ndarray | None) -> str:
    digest = hashlib.sha256(json.dumps([RECIPE, x.shape, label is None]).encode())
    digest.update(np.ascontiguousarray(x))
    if label is not None:
        digest.update(np.ascontiguousarray(label))
    return digest.hexdigest()[:16]


def _load(net: nn.Module, path: Path) -> bool:
    """Whether the cache held these weights; a broken file counts as none and is replaced."""
    try:
        weights: Mapping[str, Tensor] = load_file(path)
        net.load_state_dict(weights)
    except (OSError, SafetensorError, RuntimeError):
        return False
    return True


def _fit(net: SmallConvNet, x: Tensor, label: Tensor | None) -> None:
    """Train on shifted images; without labels, on quarter turns that are to be told."""
    net.train()
    steps = RECIPE["steps"]
    optimizer = torch.optim.AdamW(net.parameters(), lr=RECIPE["lr"], weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RECIPE["lr"], total_steps=steps)
    order = torch.cat([torch.randperm(len(x)) for _ in range(_epochs(len(x)))])
    for step in range(steps):
        rows = order[step * RECIPE["batch"] : (step + 1) * RECIPE["batch"]]
        images = _shifted(x[rows])
        if label is None:
            target = torch.randint(4, (len(rows),))
            images = _turned(images, target)
        else:
            target = label[rows]
        loss = F.cross_entropy(net(images)[1], target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def _epochs(n: int) -> int:
    return -(-RECIPE["steps"] * RECIPE["batch"] // n)


def _shifted(x: UInt8[Tensor, "b c h w"]) -> UInt8[Tensor, "b c h w"]:
    """Each image moved by up to an eighth of its size, its edge pixels drawn out.

    Without this the features of training images, which the network knows by heart, differ from
    those of test images, and the floor rises.
    """
    _, _, h, w = x.shape
    rows = torch.arange(h) + _offsets(len(x), h)
    columns = torch.arange(w) + _offsets(len(x), w)
    rows, columns = rows.clamp(0, h - 1), columns.clamp(0, w - 1)
    batch = torch.arange(len(x))[:, None, None]
    return x.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _offsets(n: int, pixels: int) -> Int[Tensor, "n 1"]:
    reach = round(RECIPE["shift"] * pixels)
    return torch.randint(-reach, reach + 1, (n, 1))


def _turned(x: UInt8[Tensor, "b c h w"], turns: Int[Tensor, " b"]) -> UInt8[Tensor, "b c s s"]:
    """Each image turned by so many quarter turns, after it was made square."""
    side = max(x.shape[2:])
    square = F.interpolate(x, (side, side), mode="nearest")
    out = square.clone()
    for quarter in range(1, 4):
        out[turns == quarter] = torch.rot90(square[turns == quarter], quarter, dims=(2, 3))
    return out
