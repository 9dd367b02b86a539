"""Multi-head self-attention over a set of tokens (Vaswani et al. 2017).

`softmax(q k^T / sqrt(d) + bias) v` by PyTorch's fused kernel; q, k and v come from one linear
layer, and the output projection starts at zero so that a residual branch starts as the identity.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sciffusion.nn.blocks import zero_init


def attend(
    qkv: Float[Tensor, "b n three_dim"],
    heads: int,
    mask: Bool[Tensor, "b _ _ n"] | Float[Tensor, "b _ _ n"] | None = None,
) -> Float[Tensor, "b n dim"]:
    """Multi-head attention on queries, keys and values that lie one after the other.

    Args:
        qkv: three times `dim` numbers a token.
        heads: must divide `dim`.
        mask: True where a key may be seen, or a float bias added to the logits.
    """
    q, k, v = qkv.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Tokens that look at each other.

    Args:
        dim: width of a token.
        heads: number of heads; must divide `dim`.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"heads={heads} must divide the width {dim}")
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = zero_init(nn.Linear(dim, dim))

    def forward(
        self,
        x: Float[Tensor, "b n dim"],
        mask: Bool[Tensor, "b _ _ n"] | Float[Tensor, "b _ _ n"] | None = None,
    ) -> Float[Tensor, "b n dim"]:
        """Attend; see `attend` for `mask`."""
        return self.out(attend(self.qkv(x), self.heads, mask))
