"""Spaces: what noise is. Everything a sampler or a loss must know about coordinates.

A space owns the covariance Sigma of its unit noise, the true degrees of freedom, the mean over them
and the log-density. Zero centre of mass and harmonic noise are spaces, so no sampler knows about
molecules.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from sciffusion.core.cond import Cond
from sciffusion.core.geometry import full_precision
from sciffusion.core.rng import Rng

_NOTHING = Cond()


def _count(shape: torch.Size, cond: Cond, device: torch.device) -> Float[Tensor, " b"]:
    """Numbers a sample truly has: all of them, or those of its real points."""
    if cond.mask is None:
        return torch.full((shape[0],), float(math.prod(shape[1:])), device=device)
    return cond.mask.sum(1).to(torch.get_default_dtype()) * math.prod(shape[2:])


def _masked(x: Tensor, cond: Cond) -> Tensor:
    if cond.mask is None:
        return x
    return x * cond.mask.view(*cond.mask.shape, *[1] * (x.ndim - 2)).to(x.dtype)


class Euclidean:
    """Plain Gaussian noise on every number of every real point; Sigma = 1."""

    def noise(
        self,
        rng: Rng,
        purpose: str,
        shape: tuple[int, ...],
        cond: Cond | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Float[Tensor, "b ..."]:
        """Unit noise of covariance Sigma; `shape` is one sample's, without the batch axis."""
        cond = cond or _NOTHING
        return self.colour(rng.normal(purpose, shape, cond.mask, dtype), cond)

    def prepare(self, cond: Cond) -> Cond:
        """`cond` with what the space would otherwise work out at every call."""
        return cond

    def colour(self, z: Float[Tensor, "b ..."], cond: Cond) -> Float[Tensor, "b ..."]:
        """White noise to the space's noise, by the symmetric root of Sigma."""
        return self.project(z, cond)

    def project(self, x: Float[Tensor, "b ..."], cond: Cond) -> Float[Tensor, "b ..."]:
        """The nearest point of the space: padding to zero, centre of mass to the origin."""
        return _masked(x, cond)

    def precision(self, e: Float[Tensor, "b ..."], cond: Cond) -> Float[Tensor, "b ..."]:
        """Sigma^-1 e on the space, zero off it."""
        return self.project(e, cond)

    def covariance(self, e: Float[Tensor, "b ..."], cond: Cond) -> Float[Tensor, "b ..."]:
        """Sigma e."""
        return self.colour(self.colour(e, cond), cond)

    def log_det(self, x: Float[Tensor, "b ..."], cond: Cond) -> Float[Tensor, " b"]:
        """log det Sigma over the degrees of freedom."""
        return torch.zeros(len(x), dtype=x.dtype, device=x.device)

    def dim(self, x: Float[Tensor, "b ..."], cond: Cond) -> Float[Tensor, " b"]:
        """True degrees of freedom of each sample."""
        return _count(x.shape, cond, x.device)

    def log_prob(self, z: Float[Tensor, "b ..."], cond: Cond | None = None) -> Float[Tensor, " b"]:
        """log-density of unit noise, with respect to Lebesgue measure on the space, in nats."""
        cond = cond or _NOTHING
        square = (z * self.precision(z, cond)).flatten(1).sum(1)
        constant = self.dim(z, cond).to(z.dtype) * math.log(2 * math.pi)
        return -0.5 * (square + constant + self.log_det(z, cond))

    def mean(self, e: Float[Tensor, "b ..."], cond: Cond | None = None) -> Float[Tensor, " b"]:
        """Sum over a sample's numbers divided by its true degrees of freedom."""
        cond = cond or _NOTHING
        return _masked(e, cond).flatten(1).sum(1) / self.dim(e, cond).to(e.dtype).clamp_min(1)


class ZeroCoM(Euclidean):
    """Point clouds (B, N, D) whose centre of mass is the origin; D (N - 1) degrees of freedom.

    Points may come in groups, such as a residue's atoms: (B, N, A, D) has N A points, and the mask
    (B, N) tells real groups.
    """

    def project(self, x: Float[Tensor, "b *n d"], cond: Cond) -> Float[Tensor, "b *n d"]:
        x, axes = _masked(x, cond), tuple(range(1, x.ndim - 1))
        points = _count(x.shape, cond, x.device).to(x.dtype) / x.shape[-1]
        middle = x.sum(axes, keepdim=True) / points.clamp_min(1).view(-1, *[1] * (x.ndim - 1))
        return _masked(x - middle, cond)

    def dim(self, x: Float[Tensor, "b *n d"], cond: Cond) -> Float[Tensor, " b"]:
        return _count(x.shape, cond, x.device) - x.shape[-1]


class Harmonic(Euclidean):
    """Noise of a bead-and-spring model of the bond graph: Sigma = scaled pseudo-inverse of L.

    `cond.structure["laplacian"]` (B, N, N) is the weighted graph Laplacian, zero on padding. Sigma
    is scaled to mean variance 1 over the degrees of freedom D (N - c), c fragments, each of which
    keeps its centre at the origin. `prepare` stores the factors, which cost an eigendecomposition.
    """

    tolerance = 1e-9

    def prepare(self, cond: Cond) -> Cond:
        """`cond` with the symmetric root, the precision, the rank and log det of Sigma stored.

        Raises:
            KeyError: there is no `laplacian`.
            ValueError: it is not symmetric or its rows do not sum to zero.
        """
        if "laplacian" not in cond.structure:
            raise KeyError('harmonic noise needs cond.structure["laplacian"] of shape (B, N, N)')
        lap = cond.structure["laplacian"].double()
        bad = ((lap - lap.mT).abs() + lap.sum(-1, keepdim=True).abs()).amax((1, 2)) > 1e-4
        if bad.any():
            raise ValueError(
                f"laplacian {int(bad.nonzero()[0])} is not symmetric with rows that sum to zero"
            )
        # Diagonals taken again in float64, so that zero modes are zero to its precision.
        lap = 0.5 * (lap + lap.mT)
        lap = lap - torch.diag_embed(lap.sum(-1))
        value, vector = torch.linalg.eigh(lap)
        real = value > self.tolerance * value.amax(1, keepdim=True).clamp_min(1e-12)
        rank = real.sum(1)
        inverse = torch.where(real, 1 / value.clamp_min(1e-30), 0.0)
        inverse = inverse * (rank / inverse.sum(1).clamp_min(1e-30))[:, None]

        def rebuild(v: Tensor) -> Tensor:
            product: Tensor = (vector * v[:, None, :]) @ vector.mT
            return product

        factors = {
            "harmonic_root": rebuild(inverse.sqrt()),
            "harmonic_precision": rebuild(torch.where(real, 1 / inverse.clamp_min(1e-30), 0.0)),
            "harmonic_projection": rebuild(real.double()),
            "harmonic_rank": rank,
            "harmonic_log_det": torch.where(real, inverse.clamp_min(1e-30).log(), 0.0).sum(1),
        }
        return cond.with_structure(**factors)

    def _factor(self, name: str, cond: Cond) -> Tensor:
        key = f"harmonic_{name}"
        if key not in cond.structure:
            cond = self.prepare(cond)
        factor: Tensor = cond.structure[key]
        return factor

    @full_precision
    def colour(self, z: Float[Tensor, "b n d"], cond: Cond) -> Float[Tensor, "b n d"]:
        return self._factor("root", cond).to(z.dtype) @ z

    @full_precision
    def project(self, x: Float[Tensor, "b n d"], cond: Cond) -> Float[Tensor, "b n d"]:
        return self._factor("projection", cond).to(x.dtype) @ x

    @full_precision
    def precision(self, e: Float[Tensor, "b n d"], cond: Cond) -> Float[Tensor, "b n d"]:
        return self._factor("precision", cond).to(e.dtype) @ e

    def log_det(self, x: Float[Tensor, "b n d"], cond: Cond) -> Float[Tensor, " b"]:
        return self._factor("log_det", cond).to(x.dtype) * x.shape[-1]

    def dim(self, x: Float[Tensor, "b n d"], cond: Cond) -> Float[Tensor, " b"]:
        return self._factor("rank", cond).to(x.dtype) * x.shape[-1]


Space = Euclidean
"""Every space is an Euclidean one with some of its answers changed."""
