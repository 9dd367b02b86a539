"""From images on disk to batches: the sources, a data set that gathers, and augmentation.

Every source's `load()` gives a training and a test `ImageSet`. Pixels stay uint8 until they reach
the network's device, a quarter of the traffic of float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from sciffusion.domains.image.folder import ImageFolder
from sciffusion.domains.image.imageset import ImageSet, ImageSource, Splits
from sciffusion.domains.image.sources import Cifar10, Digits, Npz

__all__ = [
    "Cifar10",
    "Digits",
    "ImageDataset",
    "ImageFolder",
    "ImageSet",
    "ImageSource",
    "Npz",
    "Splits",
    "augment",
    "to_model",
    "to_uint8",
]


class ImageDataset(Dataset):
    """An `ImageSet` for PyTorch: single items, or a whole batch by one gather.

    Items are {"x": uint8 (C, H, W), "label": int64 ()}, without "label" where there is none.
    A DataLoader takes the fast path with `collate_fn=lambda batch: batch`.
    """

    def __init__(self, images: ImageSet) -> None:
        self.x = torch.from_numpy(images.x).permute(0, 3, 1, 2).contiguous()
        self.label = None if images.label is None else torch.from_numpy(images.label)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        item = {"x": self.x[index]}
        return item if self.label is None else item | {"label": self.label[index]}

    def gather(self, indices: Int[Tensor, " b"] | Sequence[int]) -> dict[str, Tensor]:
        """A batch: {"x": uint8 (b, C, H, W), "label": int64 (b,)}."""
        rows = torch.as_tensor(indices, dtype=torch.int64)
        batch = {"x": self.x.index_select(0, rows)}
        return batch if self.label is None else batch | {"label": self.label[rows]}

    __getitems__ = gather


def to_model(x: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Pixels 0..255 to float32 in [-1, 1]."""
    return x.float() / 127.5 - 1


def to_uint8(x: Float[Tensor, "b c h w"]) -> UInt8[Tensor, "b h w c"]:
    """[-1, 1] to pixels 0..255, rounded and clipped, channels last; undoes `to_model` exactly."""
    return ((x.float() + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous()


def augment(
    x: Shaped[Tensor, "b c h w"], u: Float[Tensor, "b 3"], hflip: bool = False, shift: int = 0
) -> Shaped[Tensor, "b c h w"]:
    """Images mirrored left-right with probability 1/2 and shifted by up to `shift` pixels.

    What a shift uncovers is filled by reflection. The answer depends on `u` alone, so that
    augmentation can be a function of (seed, step, place in the batch).

    Args:
        x: images of any type.
        u: uniform in [0, 1): of the flip, the vertical and the horizontal shift.
        hflip: mirror or not.
        shift: largest shift in pixels, either way.

    Raises:
        ValueError: the shift is negative or not smaller than the image.
    """
    height, width = x.shape[2:]
    if not 0 <= shift < min(height, width):
        raise ValueError(f"shift={shift} must be at least 0 and less than the image's side")
    if not hflip and shift == 0:
        return x
    by = (u[:, 1:3] * (2 * shift + 1)).long() - shift
    rows = _reflect(torch.arange(height, device=x.device) - by[:, :1], height)
    cols = _reflect(torch.arange(width, device=x.device) - by[:, 1:], width)
    if hflip:
        cols = torch.where(u[:, :1] < 0.5, width - 1 - cols, cols)
    b = torch.arange(len(x), device=x.device)[:, None, None]
    picked = x.permute(0, 2, 3, 1)[b, rows[:, :, None], cols[:, None, :]]
    return picked.permute(0, 3, 1, 2).contiguous()


def _reflect(index: Int[Tensor, "b n"], size: int) -> Int[Tensor, "b n"]:
    """Indices folded back at both ends, without repeating the edge."""
    return (size - 1) - ((size - 1) - index.abs()).abs()
