"""What a network is told beside its input: the noise level and the class.

The noise level comes as log-SNR, so that a trained network can be sampled under any schedule. It
is clamped to a finite range (its ends are infinite on exact schedules), written as sines and
cosines of geometrically spaced frequencies (Vaswani et al. 2017) and passed through an MLP.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sciffusion.core.cond import Cond

LOG_SNR_LIMIT = 20.0
"""Beyond this |log-SNR| the smaller of signal and noise is under 5e-5 of the larger."""


class LogSNREmbedding(nn.Module):
    """The noise level as a vector: `MLP([cos(w l), sin(w l)])`, l the clamped log-SNR.

    Frequencies w run geometrically from 1/32 (under half a turn over the whole range) to 4 rad
    per unit of log-SNR.

    Args:
        dim: width of the answer.
        features: number of sines and cosines, even.
    """

    def __init__(self, dim: int, features: int = 64) -> None:
        super().__init__()
        if features % 2:
            raise ValueError(f"features must be even (a sine and a cosine each), got {features}")
        freqs = torch.logspace(-5, 2, features // 2, base=2.0)
        self.register_buffer("freqs", freqs, persistent=False)
        self.mlp = nn.Sequential(nn.Linear(features, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, log_snr: Float[Tensor, " b"]) -> Float[Tensor, "b dim"]:
        """Embed log-SNR (nats, may be infinite)."""
        level = log_snr.clamp(-LOG_SNR_LIMIT, LOG_SNR_LIMIT)
        angle = level[:, None] * self.freqs
        return self.mlp(torch.cat([angle.cos(), angle.sin()], 1).to(self.mlp[0].weight.dtype))


class LabelEmbedding(nn.Module):
    """A learned vector for each class, and one more for "no class is known".

    The last is the answer for samples whose condition is dropped (`cond.keep` False) and for a
    `cond` without a `label`.

    Args:
        num_classes: labels are 0 .. num_classes - 1.
        dim: width of the answer.
    """

    def __init__(self, num_classes: int, dim: int) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        self.null = num_classes
        self.table = nn.Embedding(num_classes + 1, dim)

    def forward(self, cond: Cond, batch: int) -> Float[Tensor, "b dim"]:
        """Embed `cond.condition["label"]` (int64 (B,)) of a batch of this size."""
        label = cond.condition.get("label")
        if label is None:
            label = torch.full((batch,), self.null, device=self.table.weight.device)
        elif cond.keep is not None:
            label = label.masked_fill(~cond.keep, self.null)
        return self.table(label)
