"""Symmetric oligomers: diffusion on configurations that a point group leaves as they are.

Of a complex x = (R_1 s, ..., R_g s) only the subunit s is free. The noise is one subunit's, copied
by the group, and the denoiser's thought is averaged over it: E[x0 | x_t] of a law that knows no
direction turns with x_t, so this average changes nothing but what the network lacks in exactness.
Copies stand one after the other along the residue axis (Ingraham et al. 2023, Chroma; Watson et al.
2023, RFdiffusion).
"""

from __future__ import annotations

import math
import re

import torch
from jaxtyping import Float
from torch import Tensor

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import Denoiser, Prediction, State, Wrapper
from sciffusion.core.schedules import Times
from sciffusion.core.spaces import ZeroCoM
from sciffusion.errors import InputError

CYCLIC, DIHEDRAL = range(1, 13), range(2, 7)
"""The orders of C_n and D_n that have a name here."""
SAME = 1e-6


def point_group(name: str) -> Float[Tensor, "g 3 3"]:
    """Rotations of a point group, the identity first; float64.

    The main axis of C_n and D_n is z, with a two-fold axis of D_n along x. T and O stand on the
    axes of a cube, I on two-folds along x, y and z.

    Args:
        name: C1 to C12, D2 to D6, T, O or I.

    Raises:
        InputError: any other name.
    """
    found = re.fullmatch(r"([CD])([1-9][0-9]?)|[TOI]", name.strip().upper())
    order = int(found[2]) if found and found[2] else 0
    kind = found[0][0] if found else ""
    if order and order not in {"C": CYCLIC, "D": DIHEDRAL}[kind]:
        kind, order = "", 0
    if order:
        turns = torch.stack([_turn((0, 0, 1), order, k) for k in range(order)])
        flip = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
        return turns if kind == "C" else torch.cat([turns, turns @ flip])
    golden = (1 + math.sqrt(5)) / 2
    generators = {
        "T": (_turn((0, 0, 1), 2), _turn((1, 1, 1), 3)),
        "O": (_turn((0, 0, 1), 4), _turn((1, 1, 1), 3)),
        "I": (_turn((0, 0, 1), 2), _turn((1, 1, 1), 3), _turn((0, 1, golden), 5)),
    }
    if kind not in generators:
        raise InputError(
            f"symmetry={name} is not known: C1 to C{CYCLIC[-1]}, D2 to D{DIHEDRAL[-1]}, T, O or I"
        )
    return _closed(generators[kind])


def _turn(axis: tuple[float, float, float], order: int, times: int = 1) -> Float[Tensor, "3 3"]:
    """`times` n-th parts of a whole turn about an axis (Rodrigues)."""
    x, y, z = torch.nn.functional.normalize(torch.tensor(axis, dtype=torch.float64), dim=0).tolist()
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    theta = 2 * math.pi * times / order
    eye = torch.eye(3, dtype=torch.float64)
    return eye + math.sin(theta) * cross + (1 - math.cos(theta)) * (cross @ cross)


def _closed(generators: tuple[Float[Tensor, "3 3"], ...]) -> Float[Tensor, "g 3 3"]:
    """Every product of generators, the identity first."""
    found = torch.eye(3, dtype=torch.float64)[None]
    fresh = found
    while len(fresh):
        fresh = torch.cat([fresh @ g for g in generators])
        new: list[Tensor] = []
        for r in fresh:
            known = torch.cat([found, torch.stack(new)]) if new else found
            if (known - r).abs().amax((1, 2)).min() > SAME:
                new.append(r)
        fresh = torch.stack(new) if new else fresh[:0]
        found = torch.cat([found, fresh])
    return found


class Symmetric(ZeroCoM):
    """Copies of one subunit by a group of rotations, their common centre of mass at the origin.

    The noise of each copy has unit variance, as the noise that networks are trained with; on the
    complex as a whole that is Sigma = g P with P the projector on symmetric configurations, and
    `mean` divides by the g copies too, so that unit noise has mean square 1. C_n leaves three
    degrees of freedom a point but for the shift along the axis, D_n and the polyhedral groups all
    of them: their copies have their centre at the origin by themselves.

    Args:
        group: (g, 3, 3) rotations, the identity first.
    """

    def __init__(self, group: Float[Tensor, "g 3 3"]) -> None:
        self.group = group.double()
        self.shifts = int(torch.linalg.matrix_rank(self.group.mean(0), atol=SAME))
        """Directions in which all copies may be shifted together: along the axis they share."""

    @property
    def order(self) -> int:
        """How many copies there are."""
        return len(self.group)

    def split(self, x: Float[Tensor, "b n *a 3"]) -> Float[Tensor, "b g m 3"]:
        """Each copy's points, turned back onto the first copy.

        Raises:
            ValueError: the points are no whole number of copies.
        """
        if x.shape[1] % self.order:
            raise ValueError(f"{x.shape[1]} residues are not {self.order} copies of a subunit")
        points = x.reshape(len(x), self.order, -1, 3)
        return self._rotated(points, self.group.mT)

    def copies(self, subunit: Float[Tensor, "b l *a 3"]) -> Float[Tensor, "b n *a 3"]:
        """A subunit sent out by the group, copy after copy."""
        b, residues, *rest = subunit.shape
        x = self._rotated(subunit.reshape(b, 1, -1, 3), self.group)
        return x.reshape(b, self.order * residues, *rest)

    def symmetrised(self, x: Float[Tensor, "b n *a 3"]) -> Float[Tensor, "b n *a 3"]:
        """The nearest symmetric configuration: the mean over the group."""
        mean = self.split(x).mean(1)
        b, residues, *rest = x.shape
        return self.copies(mean.reshape(b, residues // self.order, *rest))

    @staticmethod
    def _rotated(x: Float[Tensor, "b _ m 3"], by: Float[Tensor, "g 3 3"]) -> Tensor:
        # Sums rather than products of matrices, which GPUs may take in TF32: 0.03 A at 50 A.
        return (x[..., None, :] * by.to(x)[:, None]).sum(-1)

    def colour(self, z: Float[Tensor, "b n *a 3"], cond: Cond) -> Float[Tensor, "b n *a 3"]:
        return math.sqrt(self.order) * self.project(z, cond)

    def project(self, x: Float[Tensor, "b n *a 3"], cond: Cond) -> Float[Tensor, "b n *a 3"]:
        return self.symmetrised(super().project(x, cond))

    def precision(self, e: Float[Tensor, "b n *a 3"], cond: Cond) -> Float[Tensor, "b n *a 3"]:
        return self.project(e, cond) / self.order

    def log_det(self, x: Float[Tensor, "b n *a 3"], cond: Cond) -> Float[Tensor, " b"]:
        return self.dim(x, cond).to(x.dtype) * math.log(self.order)

    def dim(self, x: Float[Tensor, "b n *a 3"], cond: Cond) -> Float[Tensor, " b"]:
        points = super().dim(x, cond) + x.shape[-1]
        return points / self.order - self.shifts

    def mean(self, e: Float[Tensor, "b n *a 3"], cond: Cond | None = None) -> Float[Tensor, " b"]:
        return super().mean(e, cond) / self.order


class Symmetrised(Wrapper):
    """A denoiser of complexes whose noise and thoughts are symmetric.

    From a symmetric x_t, such as its own space's noise, every sampler gives symmetric samples. The
    batch holds whole complexes: x (B, g L, 4, 3), and in `cond` everything for g L residues, each
    copy padded alike.

    Args:
        inner: a denoiser in zero centre of mass.
        group: the name of a point group (see `point_group`), or its rotations.

    Raises:
        InputError: an unknown name.
        TypeError: the inner denoiser's noise is of another kind.
    """

    def __init__(self, inner: Denoiser, group: str | Float[Tensor, "g 3 3"]) -> None:
        super().__init__(inner)
        if type(inner.space) is not ZeroCoM:
            raise TypeError(
                f"symmetry is for noise in zero centre of mass, not {type(inner.space).__name__}"
            )
        self.space: Symmetric = Symmetric(point_group(group) if isinstance(group, str) else group)
        # A variance for each coordinate is no thing that turns.
        self.learned_variance = False

    def prepare(self, cond: Cond) -> Cond:
        """As the inner denoiser does.

        Raises:
            ValueError: copies that are padded differently.
        """
        mask = cond.mask
        if mask is not None:
            each = mask.view(len(mask), self.space.order, -1)
            if not bool((each == each[:, :1]).all()):
                raise ValueError("the copies of a subunit must be padded alike")
        return self.inner.prepare(cond)

    def predict(
        self, x_t: Float[Tensor, "b ..."], t: Times, cond: Cond, state: State | None
    ) -> Prediction:
        pred: Prediction = self.inner(x_t, t, cond, state)
        x0, eps = (self.space.project(v, cond) for v in (pred.x0, pred.eps))
        return Prediction(x_t, x0, eps, pred.c, self.space, cond)
