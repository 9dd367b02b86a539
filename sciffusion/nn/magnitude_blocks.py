"""What networks of magnitude-preserving layers share: noise level, class, a transformer's block.

The block is EDM2's residual block with tokens for pixels (Karras et al. 2024): the input is
normalised, branches are multiplied by 1 + what the token is told (nothing at first), and `mp_sum`
keeps the size of what comes out.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from sciffusion.core.fourier import c_noise
from sciffusion.nn.embeddings import LabelEmbedding
from sciffusion.nn.magnitude import (
    MPEmbedding,
    MPFourier,
    MPLinear,
    clipped,
    cosine_attend,
    mp_silu,
    mp_sum,
    normalize,
)


class MPLevel(nn.Module):
    """The noise level as a vector of unit magnitude: a linear layer on Fourier features.

    Args:
        dim: width of the answer.
        features: Fourier features of ln(sigma / alpha) / 4.
    """

    def __init__(self, dim: int, features: int) -> None:
        super().__init__()
        self.fourier, self.linear = MPFourier(features), MPLinear(features, dim)

    def forward(self, log_snr: Float[Tensor, " b"]) -> Float[Tensor, "b dim"]:
        """Embed log-SNR (nats, may be infinite)."""
        features = self.fourier(c_noise(log_snr))
        return self.linear(features.to(self.linear.weight.dtype))


class MPLabel(LabelEmbedding):
    """`LabelEmbedding` with vectors of unit magnitude, the one for "not known" included."""

    def __init__(self, num_classes: int, dim: int) -> None:
        super().__init__(num_classes, dim)
        self.table = MPEmbedding(num_classes + 1, dim)


class MPBlock(nn.Module):
    """Cosine attention between tokens, then an MLP of each, as residual branches.

    Args:
        dim: width of a token.
        heads: must divide `dim`.
        balance: share of a branch in the sum.
    """

    def __init__(self, dim: int, heads: int, balance: float = 0.3) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"heads={heads} must divide the width {dim}")
        self.heads, self.balance, self.parts = heads, balance, [dim, 4 * dim]
        self.told = MPLinear(dim, sum(self.parts), gain=0.0)
        self.qkv, self.out = MPLinear(dim, 3 * dim), MPLinear(dim, dim)
        self.wide, self.narrow = MPLinear(dim, 4 * dim), MPLinear(4 * dim, dim)

    def forward(
        self,
        s: Float[Tensor, "b n dim"],
        told: Float[Tensor, "b _ dim"],
        bias: Float[Tensor, "b h n n"] | None = None,
    ) -> Float[Tensor, "b n dim"]:
        """Tokens after this block.

        Args:
            s: tokens.
            told: what each token, or all of a sample, should know, of unit magnitude.
            bias: added to the logits, -inf where nothing may be seen.
        """
        s = normalize(s, -1)
        attention, mlp = (1 + self.told(told)).split(self.parts, -1)
        h = cosine_attend(self.qkv(s * attention), self.heads, bias)
        s = mp_sum(s, self.out(h), self.balance)
        h = self.narrow(mp_silu(self.wide(s) * mlp))
        return clipped(mp_sum(s, h, self.balance))
