"""Layers that keep magnitudes: inputs of unit mean square give outputs of unit mean square.

The network of EDM2 (Karras et al. 2024, "Analyzing and improving the training dynamics of diffusion
models", sec. 2 and app. B) is made of them. Activations, weights and updates then stay of one size
through depth and through training: no group norm, no biases; a constant 1 beside the network's
input stands in for them. Weights are normalised in every forward pass, so their gradients are
orthogonal to them, and a training's forward passes also put the stored ones back to unit size
("forced weight normalisation"): an optimizer's step is then an angle, whatever the step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from sciffusion.core.fourier import Fourier
from sciffusion.nn.attention import attend

EPS = 1e-4
SILU = 0.596
"""Root mean square of silu(z), z ~ N(0, 1)."""
MOST = 256.0
"""Activations beyond this are clipped in half precision."""


def normalize(x: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """x / (1e-4 + root mean square of x), the mean over `dim`, by default all but the first axis.

    Over channels it is the pixel norm of images, or the norm of a token. Norms are summed in
    float32 or finer.
    """
    dims = list(range(1, x.ndim)) if dim is None else [dim] if isinstance(dim, int) else list(dim)
    finer = torch.promote_types(x.dtype, torch.float32)
    size = math.prod([x.shape[d] for d in dims])
    norm = torch.linalg.vector_norm(x, dim=dims, keepdim=True, dtype=finer)
    return x / torch.add(EPS, norm, alpha=size**-0.5).to(x.dtype)


def clipped(x: Tensor) -> Tensor:
    """x held in +-256 where it is of half precision; as it is otherwise."""
    return x.clamp(-MOST, MOST) if x.dtype.itemsize < 4 else x


def shares(t: float = 0.3) -> tuple[float, float]:
    """What `mp_sum` multiplies a and b by."""
    size = math.hypot(1 - t, t)
    return (1 - t) / size, t / size


def mp_silu(x: Tensor) -> Tensor:
    """silu(x) / 0.596 (eq. 81): of unit magnitude where x is standard normal."""
    return F.silu(x) / SILU


def mp_sum(a: Tensor, b: Tensor, t: float = 0.3) -> Tensor:
    """((1 - t) a + t b) / sqrt((1 - t)^2 + t^2) (eq. 88): of unit magnitude where a and b are."""
    of_a, of_b = shares(t)
    return torch.add(a * of_a, b, alpha=of_b)


def mp_mean(*parts: Tensor) -> Tensor:
    """The sum of n parts over sqrt(n): `mp_sum` of equals."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total * len(parts) ** -0.5


def mp_cat(a: Tensor, b: Tensor, dim: int = 1, t: float = 0.5) -> Tensor:
    """a and b side by side, contributing (1 - t) : t to what comes next (eq. 103)."""
    n, m = a.shape[dim], b.shape[dim]
    size = math.sqrt((n + m) / ((1 - t) ** 2 + t**2))
    return torch.cat([a * (size * (1 - t) / math.sqrt(n)), b * (size * t / math.sqrt(m))], dim)


def with_one(x: Tensor, dim: int = 1) -> Tensor:
    """x with a channel of ones: what takes the place of biases."""
    return torch.cat([x, torch.ones_like(x.narrow(dim, 0, 1))], dim)


def known_size(x: Tensor, dim: int = -1) -> Tensor:
    """Inputs of any size brought to unit magnitude, with a one that tells what size they were."""
    return normalize(with_one(x, dim), dim)


def cosine_attend(
    qkv: Float[Tensor, "b n three_dim"], heads: int, bias: Tensor | None = None
) -> Float[Tensor, "b n dim"]:
    """Attention on queries, keys and values of unit magnitude each: logits cannot run away.

    Args:
        qkv, heads, bias: as in `nn.attention.attend`.
    """
    bias = None if bias is None else bias.to(qkv.dtype)
    return attend(normalize(qkv.unflatten(2, (3, heads, -1)), -1).flatten(2), heads, bias)


class Weight(nn.Module):
    """Weights whose rows (first axis) are of unit mean square.

    Args:
        shape: of the stored weight.
        gain: start of a learned factor; None for none.
    """

    gain: nn.Parameter | None

    def __init__(self, shape: Sequence[int], gain: float | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(*shape))
        self.gain = None if gain is None else nn.Parameter(torch.tensor(float(gain)))

    def unit(self) -> Tensor:
        """The weight with unit rows, in float32 or finer; in training the stored one is put so too.

        Passes without gradients, as consistency models and self-conditioning have beside the one
        that is learned from, leave it as it is.
        """
        finer = torch.promote_types(self.weight.dtype, torch.float32)
        if self.training and torch.is_grad_enabled():
            with torch.no_grad():
                self.weight.detach().copy_(normalize(self.weight.to(finer)))
        # Autograd keeps a copy: a second forward pass may come before the backward one
        return normalize(self.weight.to(finer, copy=True))

    def effective(self) -> Tensor:
        """What inputs are multiplied by: rows of norm `gain`, or 1."""
        size = math.sqrt(self.weight[0].numel())
        return self.unit() * ((1.0 if self.gain is None else self.gain) / size)

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}, gain={self.gain is not None}"


class MPLinear(Weight):
    """W x, rows of W of norm `gain` (eq. 47, alg. 1): no bias.

    Args:
        features_in, features_out: widths.
        gain: start of a learned factor; None for none.
    """

    def __init__(self, features_in: int, features_out: int, gain: float | None = None) -> None:
        super().__init__((features_out, features_in), gain)

    def forward(self, x: Float[Tensor, "*b features_in"]) -> Float[Tensor, "*b features_out"]:
        """Multiply."""
        return F.linear(x, self.effective().to(x.dtype))


class MPConv2d(Weight):
    """A convolution of odd size, padded with zeros, each filter of norm `gain`: no bias.

    Args:
        channels_in, channels_out: widths.
        kernel: pixels of a side.
        gain: start of a learned factor; None for none.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, gain: float | None = None
    ) -> None:
        super().__init__((channels_out, channels_in, kernel, kernel), gain)

    def forward(
        self, x: Float[Tensor, "b c_in h w"], scale: float = 1.0
    ) -> Float[Tensor, "b c_out h w"]:
        """Convolve, and multiply by a number, which costs nothing as it goes into the weights."""
        weight = (self.effective() * scale).to(x.dtype)
        return F.conv2d(x, weight, padding=self.weight.shape[-1] // 2)


class MPEmbedding(Weight):
    """A learned vector of unit magnitude for each code.

    Args:
        codes: 0 .. codes - 1.
        dim: of a vector.
    """

    def __init__(self, codes: int, dim: int) -> None:
        super().__init__((codes, dim))

    def forward(self, code: Int[Tensor, "*b"]) -> Float[Tensor, "*b dim"]:
        """Look up."""
        return F.embedding(code, self.unit())


class MPFourier(Fourier):
    """Fourier features of a number, (B,) -> (B, channels): unit magnitude."""

    def forward(self, x: Float[Tensor, " b"]) -> Float[Tensor, "b channels"]:
        """Of each number."""
        return self.features(x)


def weights(module: nn.Module) -> Iterator[tuple[str, Weight]]:
    """Every magnitude-preserving layer of a network, by name."""
    return ((k, m) for k, m in module.named_modules() if isinstance(m, Weight))


@torch.no_grad()
def weight_error(module: nn.Module) -> float:
    """How far, at most, stored weights are from unit mean square, and used ones from their gain.

    Row by row, relative to the gain where there is one. Under 1e-3 after a training forward.
    """
    worst = 0.0
    for _, layer in weights(module):
        stored = layer.weight.double().flatten(1).square().mean(1).sqrt()
        worst = max(worst, float((stored - 1).abs().max()))
        gain = 1.0 if layer.gain is None else abs(float(layer.gain))
        if gain > 0:
            used = _used(layer).double().flatten(1).norm(dim=1)
            worst = max(worst, float((used / gain - 1).abs().max()))
    return worst


def _used(layer: Weight) -> Tensor:
    if isinstance(layer, MPEmbedding):
        return layer.unit() / math.sqrt(layer.weight.shape[1])
    return layer.effective()
