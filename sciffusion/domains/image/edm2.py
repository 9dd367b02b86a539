"""EDM2's U-Net: ADM's shape, made of layers that keep magnitudes.

On the way down a block normalises each pixel, on the way up it does not; noise level and class come
in as a factor 1 + gain W e on the features between two convolutions; residual and skip connections
are weighted sums and concatenations that keep unit size. No norm over groups, no biases.
Karras et al. 2024, "Analyzing and improving the training dynamics of diffusion models", config G.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sciffusion.core.cond import Cond
from sciffusion.domains.image.model import check_levels, check_size, double, half, shape_for_size
from sciffusion.nn.magnitude import (
    SILU,
    MPConv2d,
    MPLinear,
    clipped,
    cosine_attend,
    mp_cat,
    mp_silu,
    mp_sum,
    normalize,
    shares,
    with_one,
)
from sciffusion.nn.magnitude_blocks import MPLabel, MPLevel


class MPPixelAttention(nn.Module):
    """Cosine attention between all pixels, as a residual branch."""

    def __init__(self, channels: int, head_channels: int, balance: float) -> None:
        super().__init__()
        self.heads, self.balance = max(1, channels // head_channels), balance
        if channels % self.heads:
            raise ValueError(f"head_channels={head_channels} must divide {channels} channels")
        self.qkv = MPConv2d(channels, 3 * channels, 1)
        self.out = MPConv2d(channels, channels, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Attend; both reshapes are free in the channels-last layout."""
        qkv = self.qkv(x).flatten(2).transpose(1, 2)
        h = cosine_attend(qkv, self.heads).transpose(1, 2).unflatten(2, x.shape[2:])
        return mp_sum(x, self.out(h), self.balance)


class Block(nn.Module):
    """A residual block, and attention after it where wanted.

    Args:
        channels_in, channels: of what comes and what goes; skip features are counted in.
        width: of the embedding.
        down: whether it stands on the way down, where pixels are normalised.
        head_channels: width of an attention head, None for no attention.
        dropout: probability that a feature is dropped while training.
        resample: `half`, `double` or None.
        balance, attention_balance: shares of the branches in their sums.
    """

    def __init__(
        self,
        channels_in: int,
        channels: int,
        width: int,
        down: bool,
        head_channels: int | None = None,
        dropout: float = 0.0,
        resample: Callable[[Tensor], Tensor] | None = None,
        balance: float = 0.3,
        attention_balance: float = 0.3,
    ) -> None:
        super().__init__()
        self.down, self.resample, self.balance, self.dropout = down, resample, balance, dropout
        same = channels_in == channels
        self.skip: nn.Module = nn.Identity() if same else MPConv2d(channels_in, channels, 1)
        self.conv1 = MPConv2d(channels if down else channels_in, channels, 3)
        self.told = MPLinear(width, channels, gain=0.0)
        self.conv2 = MPConv2d(channels, channels, 3)
        self.attention: nn.Module = nn.Identity()
        if head_channels is not None:
            self.attention = MPPixelAttention(channels, head_channels, attention_balance)

    def forward(
        self, x: Float[Tensor, "b c_in h w"], told: Float[Tensor, "b width"]
    ) -> Float[Tensor, "b c h2 w2"]:
        """One block."""
        if self.resample is not None:
            x = self.resample(x)
        if self.down:
            x = normalize(self.skip(x), 1)
        # mp_silu and mp_sum, their factors in the weights of convolutions, where they cost nothing
        of_x, of_y = shares(self.balance)
        y = self.conv1(F.silu(x), 1 / SILU) * (1 + self.told(told))[..., None, None]
        y = self.conv2(F.dropout(F.silu(y), self.dropout, self.training), of_y / SILU)
        x = torch.add(y, x if self.down else self.skip(x), alpha=of_x)
        return clipped(self.attention(x))


class EDM2UNet(nn.Module):
    """The network for images of one size or any other its downsampling divides.

    Args:
        in_channels: of the noisy image.
        image_size: pixels of a side; must be a multiple of 2^(levels - 1).
        out_channels: of the answer; None for as many as the input, twice it for a learned
            variance.
        channels: at full resolution; EDM2-XS has 128, S 192, M 256, L 320, XL 384.
        channel_mult: channels of each level, as multiples of `channels`.
        blocks: residual blocks a level.
        attention_levels: which levels attend (0 is full resolution); the middle always does.
        head_channels: width of an attention head.
        num_classes: labels run from 0 to num_classes - 1; None for a network without labels.
        dropout: probability that a feature is dropped while training.
        label_balance, concat_balance: shares of the class and of the skip features.
        balance, attention_balance: shares of the residual and the attention branches.
        embedding: width of what noise level and class become; None for that of the widest level.

    Raises:
        ValueError: a size that does not fit, with the size and the divisor.
    """

    def __init__(
        self,
        in_channels: int,
        image_size: int,
        out_channels: int | None = None,
        channels: int = 64,
        channel_mult: Sequence[int] = (1, 2),
        blocks: int = 2,
        attention_levels: Sequence[int] = (1,),
        head_channels: int = 64,
        num_classes: int | None = None,
        dropout: float = 0.0,
        label_balance: float = 0.5,
        concat_balance: float = 0.5,
        balance: float = 0.3,
        attention_balance: float = 0.3,
        embedding: int | None = None,
    ) -> None:
        super().__init__()
        self.divisor = 2 ** (len(channel_mult) - 1)
        self.image_size = image_size
        self.label_balance, self.concat_balance = label_balance, concat_balance
        check_size(image_size, image_size, self.divisor)
        check_levels(attention_levels, channel_mult)

        width = embedding or max(channel_mult) * channels
        self.noise_embedding = MPLevel(width, channel_mult[0] * channels)
        self.label_embedding = None if num_classes is None else MPLabel(num_classes, width)

        def block(
            c: int, out: int, down: bool, attends: bool = False, resample: Any = None
        ) -> Block:
            heads = head_channels if attends else None
            return Block(
                c, out, width, down, heads, dropout, resample, balance, attention_balance
            )  # fmt: skip

        levels = [
            (i, mult * channels, i in attention_levels) for i, mult in enumerate(channel_mult)
        ]
        c = levels[0][1]
        self.stem = MPConv2d(in_channels + 1, c, 3)
        self.down, skips = nn.ModuleList(), [c]
        for i, size, attends in levels:
            if i > 0:
                self.down.append(block(c, c, True, resample=half))
                skips.append(c)
            for _ in range(blocks):
                self.down.append(block(c, size, True, attends))
                c = size
                skips.append(c)
        self.mid = nn.ModuleList([block(c, c, False, True), block(c, c, False)])
        self.up, self.takes_skip = nn.ModuleList(), []
        for i, size, attends in reversed(levels):
            for _ in range(blocks + 1):
                self.up.append(block(c + skips.pop(), size, False, attends))
                c = size
            self.takes_skip += [True] * (blocks + 1)
            if i > 0:
                self.up.append(block(c, c, False, resample=double))
                self.takes_skip.append(False)
        self.conv_out = MPConv2d(c, out_channels or in_channels, 3, gain=0.0)

    def forward(
        self, x: Float[Tensor, "b c h w"], log_snr: Float[Tensor, " b"], cond: Cond
    ) -> Float[Tensor, "b c_out h w"]:
        """The network's raw answer to a noisy image; zero before training.

        Args:
            x: noisy images, scaled to about unit variance.
            log_snr: noise levels in nats, may be infinite.
            cond: `cond.condition["label"]` (B,) is read if the network knows classes.

        Raises:
            ValueError: height or width is not a multiple of 2^(levels - 1).
        """
        check_size(*x.shape[2:], self.divisor)
        told = self.noise_embedding(log_snr)
        if self.label_embedding is not None:
            told = mp_sum(told, self.label_embedding(cond, len(x)), self.label_balance)
        told = mp_silu(told)

        h = self.stem(with_one(x)).contiguous(memory_format=torch.channels_last)
        skips = [h]
        for block in self.down:
            h = block(h, told)
            skips.append(h)
        for block in self.mid:
            h = block(h, told)
        for block, takes_skip in zip(self.up, self.takes_skip, strict=True):
            if takes_skip:
                h = mp_cat(h, skips.pop(), t=self.concat_balance)
            h = block(h, told)
        return self.conv_out(h).contiguous()


def edm2_for_size(in_channels: int, image_size: int, **given: Any) -> EDM2UNet:
    """The network in the shape that `unet_for_size` chooses for the images.

    Args:
        in_channels, image_size: of the images.
        given: any other argument of `EDM2UNet`; what is not None wins over the choice made here.

    Raises:
        ValueError: a size that does not halve as often as it must.
    """
    return EDM2UNet(in_channels, image_size, **shape_for_size(image_size, given))
