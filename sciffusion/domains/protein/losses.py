"""The loss of backbones: the truth turned onto the prediction, smooth lDDT, covalent geometry.

AlphaFold 3's diffusion loss (Abramson et al. 2024, sec. 3.7.1) on backbones. The weight of the
squared error is EDM's (s^2 + sd^2) / (s sd)^2, the form of the open implementations (the paper's
eq. 6 prints (s + sd)^2 below). Turning the truth onto the prediction takes the error of orientation
out, so what is learned is not quite the posterior mean: for samplers that take -eps / sigma for the
score it is a heuristic, as AlphaFold 3's own is.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import Denoiser, Prediction
from sciffusion.core.geometry import kabsch
from sciffusion.core.losses import DenoisingLoss
from sciffusion.core.parameterization import times
from sciffusion.domains.protein.features import CA, RIGID, distances, joined_before

RADIUS = 15.0
"""Pairs of CA nearer than this in the truth count in lDDT, Angstrom."""
STEPS = (0.5, 1.0, 2.0, 4.0)
"""Its tolerances."""
WITHIN = 0.1
"""Deviation of a covalent distance that counts 1, Angstrom."""


class BackboneLoss(DenoisingLoss):
    """`DenoisingLoss` for backbones (B, L, 4, 3).

    Args:
        align: turn the truth onto the prediction (Kabsch, no gradient) before they are compared.
        lddt: weight of 1 - smooth lDDT of CA.
        bonds: weight of covalent distances and angles, where the noise is under about `bond_noise`.
        bond_noise: Angstrom.
        more: arguments of `DenoisingLoss`.
    """

    def __init__(
        self,
        *args: object,
        align: bool = True,
        lddt: float = 1.0,
        bonds: float = 0.1,
        bond_noise: float = 1.0,
        **more: object,
    ) -> None:
        super().__init__(*args, **more)  # type: ignore[arg-type]
        self.align, self.lddt, self.bonds, self.bond_noise = align, lddt, bonds, bond_noise

    def weigh(
        self,
        denoiser: Denoiser,
        pred: Prediction,
        x0: Float[Tensor, "b l 4 3"],
        eps: Float[Tensor, "b l 4 3"],
        cond: Cond,
    ) -> Float[Tensor, " b"]:
        """The weighted sum of the three parts."""
        found = pred.x0.to(torch.promote_types(pred.x0.dtype, torch.float32))
        truth = x0.to(found.dtype)
        if self.align:
            truth = kabsch(truth, found.detach(), cond.mask)
            # times the data's own weight: at low noise this is the error of eps
            weight = self.weighting(pred.c, torch.ones_like(pred.c.alpha))
            loss = denoiser.space.mean(times(weight, (found - truth) ** 2), cond)
        else:
            loss = super().weigh(denoiser, pred, x0, eps, cond)
        mask = cond.structure["mask"]
        if self.lddt > 0:
            loss = loss + self.lddt * (1 - smooth_lddt(found[:, :, CA], truth[:, :, CA], mask))
        if self.bonds > 0:
            level = (pred.c.sigma / pred.c.alpha).flatten().to(found.dtype)
            low = 1 / (1 + (level / self.bond_noise) ** 2)
            loss = loss + self.bonds * low * covalent_error(found, truth, cond)
        return loss


def smooth_lddt(
    x: Float[Tensor, "b l 3"], truth: Float[Tensor, "b l 3"], mask: Bool[Tensor, "b l"]
) -> Float[Tensor, " b"]:
    """Share of near distances that are kept, sigmoids for steps (AlphaFold 3, alg. 27), in 0..1."""
    asked, found = distances(truth), distances(x)
    off_diagonal = ~torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
    near = (asked < RADIUS) & mask[:, None] & mask[:, :, None] & off_diagonal
    error = (asked - found).abs()
    score = torch.stack([torch.sigmoid(step - error) for step in STEPS]).mean(0)
    return (score * near).sum((1, 2)) / near.sum((1, 2)).clamp_min(1)


_INTRA = [(i, j) for i, j in RIGID if j < 4]
_NEXT = [(i, j) for i, j in RIGID if i < 4 <= j]


def covalent_error(
    x: Float[Tensor, "b l 4 3"], truth: Float[Tensor, "b l 4 3"], cond: Cond
) -> Float[Tensor, " b"]:
    """Mean squared deviation of bonds, angles (1-3 distances) and omega from the truth's own.

    In units of `WITHIN`, held at 100 a distance.
    """
    mask, before = cond.structure["mask"], joined_before(cond)
    after = torch.cat([before[:, 1:], torch.zeros_like(before[:, :1])], 1)

    def lengths(x: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.cat([x, x.roll(-1, 1)], 2)

        def of(pairs: list[tuple[int, int]]) -> Tensor:
            i, j = torch.tensor(pairs, device=x.device).T
            return ((both[:, :, i] - both[:, :, j]).square().sum(-1) + 1e-6).sqrt()

        return of(_INTRA), of(_NEXT)

    total, count = x.new_zeros(len(x)), x.new_zeros(len(x))
    for found, asked, real in zip(lengths(x), lengths(truth), (mask, after), strict=True):
        error = (((found - asked) / WITHIN) ** 2).clamp_max(100.0) * real[..., None]
        total = total + error.sum((1, 2))
        count = count + real.sum(1) * found.shape[-1]
    return total / count.clamp_min(1)
