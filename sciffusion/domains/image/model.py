"""The U-Net of ADM: residual blocks modulated by noise level and class, attention where coarse.

Each block is `x + conv(silu(norm(conv(silu(norm(x)))) (1 + s) + b))` with scale s and shift b a
linear function of the embedding; blocks on the way up also see the features of the way down.
Dhariwal & Nichol 2021, "Diffusion Models Beat GANs on Image Synthesis", appendix A.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sciffusion.core.cond import Cond
from sciffusion.nn.attention import attend
from sciffusion.nn.blocks import AdaptiveGroupNorm, GroupNorm, zero_init
from sciffusion.nn.embeddings import LabelEmbedding, LogSNREmbedding


def half(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h/2 w/2"]:
    """Half the resolution, by means of 2 x 2 pixels."""
    return F.avg_pool2d(x, 2)


def double(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 2*h 2*w"]:
    """Twice the resolution, by repeating pixels."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class ResBlock(nn.Module):
    """Two convolutions around a modulated norm; starts as (a projection of) the identity."""

    def __init__(
        self,
        channels_in: int,
        channels: int,
        dropout: float = 0.0,
        resample: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.resample = resample
        self.norm1 = GroupNorm(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.norm2 = AdaptiveGroupNorm(channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zero_init(nn.Conv2d(channels, channels, 3, padding=1))
        same = channels_in == channels
        self.skip = nn.Identity() if same else nn.Conv2d(channels_in, channels, 1)

    def forward(
        self, x: Float[Tensor, "b c_in h w"], film: Float[Tensor, "b two_c 1 1"]
    ) -> Float[Tensor, "b c h2 w2"]:
        """One block; `film` is its scale and shift."""
        h = F.silu(self.norm1(x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = F.silu(self.norm2(self.conv1(h), film))
        return self.skip(x) + self.conv2(self.dropout(h))


class PixelAttention(nn.Module):
    """Self-attention between all pixels, as a residual branch."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = GroupNorm(channels)
        # 1 x 1 convolutions: the same sum as a linear layer, and twice as fast on many CPUs.
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero_init(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Attend; both reshapes are free in the channels-last layout."""
        qkv = self.qkv(self.norm(x)).flatten(2).transpose(1, 2)
        h = attend(qkv, self.heads).transpose(1, 2).unflatten(2, x.shape[2:])
        return x + self.out(h)


class Stage(nn.Module):
    """A residual block, and attention after it where wanted.

    Args:
        channels_in: of the features handed on from the stage before.
        channels: of the answer.
        skip: channels of the features it takes from the way down, 0 for none.
        head_channels: width of an attention head, None for no attention.
        dropout: probability that a feature is dropped while training.
        resample: `half`, `double` or None.
    """

    def __init__(
        self,
        channels_in: int,
        channels: int,
        skip: int = 0,
        head_channels: int | None = None,
        dropout: float = 0.0,
        resample: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.takes_skip = skip > 0
        self.film_size = 2 * channels
        self.block = ResBlock(channels_in + skip, channels, dropout, resample)
        self.attention: nn.Module = nn.Identity()
        if head_channels is not None:
            self.attention = PixelAttention(channels, max(1, channels // head_channels))

    def forward(
        self, x: Float[Tensor, "b c_in h w"], film: Float[Tensor, "b two_c 1 1"]
    ) -> Float[Tensor, "b c h2 w2"]:
        """The stage's answer; skip features are already joined to `x`."""
        return self.attention(self.block(x, film))


def check_size(height: int, width: int, divisor: int) -> None:
    """Refuse images that a U-Net cannot halve down to its last level.

    Raises:
        ValueError: with the size and the divisor.
    """
    if height % divisor or width % divisor:
        raise ValueError(
            f"image size {height} x {width} must be a multiple of {divisor} for a U-Net "
            f"of {divisor.bit_length()} levels: resize the images or take fewer levels"
        )


def check_levels(attention_levels: Sequence[int], channel_mult: Sequence[int]) -> None:
    """Refuse attention at levels that do not exist.

    Raises:
        ValueError: naming them.
    """
    if bad := [i for i in attention_levels if not 0 <= i < len(channel_mult)]:
        raise ValueError(
            f"attention_levels {bad} do not exist: levels are 0 to {len(channel_mult) - 1}"
        )


class UNet(nn.Module):
    """ADM's U-Net for images of one size or any other its downsampling divides.

    Args:
        in_channels: of the noisy image.
        image_size: pixels of a side; must be a multiple of 2^(levels - 1).
        out_channels: of the answer; None for as many as the input, twice it for a learned
            variance.
        channels: at full resolution; a multiple of 4.
        channel_mult: channels of each level, as multiples of `channels`; each level halves the
            resolution.
        blocks: residual blocks a level.
        attention_levels: which levels attend (0 is full resolution); the middle always does.
        head_channels: width of an attention head.
        num_classes: labels run from 0 to num_classes - 1; None for a network without labels.
        dropout: probability that a feature is dropped while training.

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
    ) -> None:
        super().__init__()
        self.divisor = 2 ** (len(channel_mult) - 1)
        self.image_size = image_size
        check_size(image_size, image_size, self.divisor)
        check_levels(attention_levels, channel_mult)

        width = 4 * channels
        self.noise_embedding = LogSNREmbedding(width, channels)
        self.label_embedding = None if num_classes is None else LabelEmbedding(num_classes, width)
        self.stem = nn.Conv2d(in_channels, channels, 3, padding=1)

        def heads(level: int) -> int | None:
            return head_channels if level in attention_levels else None

        levels = list(enumerate(channel_mult))
        c, skips = channels, [channels]
        self.down = nn.ModuleList()
        for i, mult in levels:
            for _ in range(blocks):
                self.down.append(Stage(c, mult * channels, 0, heads(i), dropout))
                c = mult * channels
                skips.append(c)
            if i < len(levels) - 1:
                self.down.append(Stage(c, c, dropout=dropout, resample=half))
                skips.append(c)
        self.mid = nn.ModuleList(
            [Stage(c, c, 0, head_channels, dropout), Stage(c, c, dropout=dropout)]
        )
        self.up = nn.ModuleList()
        for i, mult in reversed(levels):
            for _ in range(blocks + 1):
                self.up.append(Stage(c, mult * channels, skips.pop(), heads(i), dropout))
                c = mult * channels
            if i > 0:
                self.up.append(Stage(c, c, dropout=dropout, resample=double))

        # One layer for the scale and shift of all blocks: many small products become one.
        self.film_sizes = [stage.film_size for stage in (*self.down, *self.mid, *self.up)]
        self.film = nn.Linear(width, sum(self.film_sizes))
        self.norm_out = GroupNorm(c)
        self.conv_out = zero_init(nn.Conv2d(c, out_channels or in_channels, 3, padding=1))

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
        emb = self.noise_embedding(log_snr)
        if self.label_embedding is not None:
            emb = emb + self.label_embedding(cond, len(x))
        films = list(self.film(F.silu(emb))[..., None, None].split(self.film_sizes, dim=1))[::-1]

        # Channels-last is the faster layout for convolutions here and makes attention copy-free.
        h = self.stem(x).contiguous(memory_format=torch.channels_last)
        skips = [h]
        for stage in self.down:
            h = stage(h, films.pop())
            skips.append(h)
        for stage in self.mid:
            h = stage(h, films.pop())
        for stage in self.up:
            if stage.takes_skip:
                h = torch.cat([h, skips.pop()], dim=1)
            h = stage(h, films.pop())
        return self.conv_out(F.silu(self.norm_out(h))).contiguous()


def shape_for_size(image_size: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """A U-Net's sizes for images: small for 8 to 16 pixels, deeper and wider above.

    Args:
        image_size: pixels of a side.
        given: what is not None wins over the choice made here.
    """
    given = {k: v for k, v in given.items() if v is not None}
    if image_size <= 16:
        chosen: dict[str, Any] = {"channels": 24, "channel_mult": (1, 2), "blocks": 1}
    elif image_size < 64:
        chosen = {"channels": 64, "channel_mult": (1, 2, 2), "blocks": 2}
    else:
        chosen = {"channels": 64, "channel_mult": (1, 2, 3, 4), "blocks": 2}
    chosen |= given
    chosen.setdefault("attention_levels", (len(chosen["channel_mult"]) - 1,))
    chosen.setdefault("head_channels", min(64, chosen["channels"]))
    return chosen


def unet_for_size(in_channels: int, image_size: int, **given: Any) -> UNet:
    """A U-Net that suits the images.

    Args:
        in_channels, image_size: of the images.
        given: any other argument of `UNet`; what is not None wins over `shape_for_size`.

    Raises:
        ValueError: a size that does not halve as often as it must.
    """
    return UNet(in_channels, image_size, **shape_for_size(image_size, given))
