"""Potentials: energies of x0 that samples are led by, p(x0) exp(-sum_k strength_k E_k(x0)).

An energy is any differentiable function of finished samples, in units of kT. `Led` takes it at the
denoiser's thought x0hat instead of averaging exp(-E) over p(x0 | x_t): reconstruction guidance (Ho
et al. 2022, sec. 3.2; Chung et al. 2023). That is exact in the limit of low noise only;
`samplers.Twisted` makes it exact. Points are (B, N, 3) or in groups (B, N, A, 3); indices count the
points of a sample in a row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import Denoiser
from sciffusion.core.operators import Operator
from sciffusion.core.parameterization import Coefficients, times
from sciffusion.core.steering import (
    Isotropic,
    NotFiniteError,
    Product,
    Steered,
    posterior_variance,
)


class Potential(ABC):
    """An energy of samples; a subclass writes `energy`.

    Args:
        strength: what the energy is multiplied by.
    """

    def __init__(self, strength: float = 1.0) -> None:
        self.strength = float(strength)

    @property
    def name(self) -> str:
        """For messages."""
        return type(self).__name__

    @abstractmethod
    def energy(self, x0: Float[Tensor, "b ..."], cond: Cond) -> Float[Tensor, " b"]:
        """E in units of kT at strength 1, differentiable in x0."""


class Energy(Potential):
    """Any function `fn(x0, cond) -> (B,)`."""

    def __init__(
        self,
        fn: Callable[[Tensor, Cond], Tensor],
        strength: float = 1.0,
        name: str = "the given energy",
    ) -> None:
        super().__init__(strength)
        self.fn, self._name = fn, name

    @property
    def name(self) -> str:
        return self._name

    def energy(self, x0: Float[Tensor, "b ..."], cond: Cond) -> Float[Tensor, " b"]:
        return self.fn(x0, cond)


class Measurement(Potential):
    """|y - A x0|^2 / (2 std^2): a linear measurement among other potentials."""

    def __init__(
        self, operator: Operator, y: Float[Tensor, "b ..."], std: float, strength: float = 1.0
    ) -> None:
        super().__init__(strength)
        self.operator, self.y, self.std = operator, y, std

    def energy(self, x0: Float[Tensor, "b ..."], cond: Cond) -> Float[Tensor, " b"]:
        measured = self.operator(x0)
        return 0.5 * ((self.y.to(measured) - measured) / self.std).square().flatten(1).sum(1)


def points(x: Float[Tensor, "b *n 3"]) -> Float[Tensor, "b m 3"]:
    """Points of groups in a row."""
    return x.flatten(1, -2)


class Distances(Potential):
    """sum ((d_ij - target) / width)^2 / 2, zero within `slack` of the target.

    Args:
        pairs: (P, 2) points.
        target: (P,) distances, in units of the data.
        width: one, or (P,).
        slack: one, or (P,).
    """

    def __init__(
        self,
        pairs: Int[Tensor, "p 2"],
        target: Float[Tensor, " p"],
        width: float | Tensor = 0.1,
        slack: float | Tensor = 0.0,
        strength: float = 1.0,
    ) -> None:
        super().__init__(strength)
        self.pairs, self.target, self.width, self.slack = pairs, target, width, slack

    def energy(self, x0: Float[Tensor, "b *n 3"], cond: Cond) -> Float[Tensor, " b"]:
        x = points(x0)
        pairs, target = self.pairs.to(x.device), self.target.to(x)
        apart = x[:, pairs[:, 0]] - x[:, pairs[:, 1]]
        # Two points in one place have no direction to part in; the gradient there is zero.
        off = (apart.square().sum(-1) + 1e-12).sqrt() - target
        width, slack = (torch.as_tensor(v).to(x) for v in (self.width, self.slack))
        return 0.5 * ((off.abs() - slack).clamp_min(0) / width).square().sum(-1)


class Torsions(Potential):
    """sum (1 - cos(phi - target)) / width^2: harmonic near the target, periodic.

    Args:
        atoms: (P, 4) points a, i, j, b.
        target: (P,) degrees; 0 is cis, positive clockwise (IUPAC).
        width: degrees.
    """

    def __init__(
        self,
        atoms: Int[Tensor, "p 4"],
        target: Float[Tensor, " p"],
        width: float = 10.0,
        strength: float = 1.0,
    ) -> None:
        super().__init__(strength)
        self.atoms, self.target, self.width = atoms, target, width

    def energy(self, x0: Float[Tensor, "b *n 3"], cond: Cond) -> Float[Tensor, " b"]:
        phi = torsion(points(x0), self.atoms.to(x0.device))
        away = phi - torch.deg2rad(self.target.to(x0))
        width = torch.deg2rad(torch.tensor(self.width, dtype=x0.dtype))
        return ((1 - away.cos()) / width**2).sum(-1)


def torsion(x: Float[Tensor, "b n 3"], atoms: Int[Tensor, "p 4"]) -> Float[Tensor, "b p"]:
    """Torsions in radians, -pi to pi."""
    a, i, j, b = (x[:, k] for k in atoms.unbind(1))
    u, axis, v = i - a, j - i, b - j
    left, right = torch.linalg.cross(u, axis), torch.linalg.cross(axis, v)
    sine = (u * right).sum(-1) * axis.norm(dim=-1)
    return torch.atan2(sine, (left * right).sum(-1))


class RadiusOfGyration(Potential):
    """((Rg - target) / width)^2 / 2 of the real points.

    Args:
        target, width: in units of the data.
        atom: of each group, where points come in groups; None takes all.
        above: only a radius above the target costs.
    """

    def __init__(
        self,
        target: float,
        width: float = 0.5,
        atom: int | None = None,
        above: bool = False,
        strength: float = 1.0,
    ) -> None:
        super().__init__(strength)
        self.target, self.width, self.atom, self.above = target, width, atom, above

    def energy(self, x0: Float[Tensor, "b *n 3"], cond: Cond) -> Float[Tensor, " b"]:
        off = radius_of_gyration(x0, cond, self.atom) - self.target
        off = off.clamp_min(0) if self.above else off
        return 0.5 * (off / self.width) ** 2


def radius_of_gyration(
    x: Float[Tensor, "b *n 3"], cond: Cond, atom: int | None = None
) -> Float[Tensor, " b"]:
    """Root mean square distance of the real points from their centre."""
    x = x if atom is None else x[..., atom, :]
    real = torch.ones_like(x[..., :1])
    if cond.mask is not None:
        real = real * cond.mask.view(*cond.mask.shape, *[1] * (x.ndim - 2)).to(x)
    x, real = points(x), real.flatten(1, -2)
    count = real.sum(1, keepdim=True).clamp_min(1)
    away = (x - (x * real).sum(1, keepdim=True) / count) * real
    return (away.square().sum((1, 2)) / count[:, 0, 0] + 1e-12).sqrt()


def proximal(
    energy: Callable[[Tensor], Tensor],
    start: Float[Tensor, "b ..."],
    variance: Float[Tensor, "*b"],
    steps: int,
) -> Float[Tensor, "b ..."]:
    """argmin_z energy(z) + |z - start|^2 / (2 variance), each sample for itself.

    Gradient descent with the step sizes of Barzilai & Borwein 1988, halved where the sum would
    rise; stiff energies, such as a force field's, would throw a plain gradient step away.

    Args:
        energy: (B, ...) -> (B,).
        steps: evaluations of the energy.
    """

    def rows(v: Tensor) -> Tensor:
        return v.view(-1, *[1] * (start.ndim - 1))

    def look(z: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            away = (z - start).square() / (2 * variance.to(start))
            value = energy(z) + away.flatten(1).sum(1)
            (gradient,) = torch.autograd.grad(value.sum(), z)
        return value.detach(), gradient

    z, (value, slope) = start, look(start)
    most = variance.to(start).sqrt().expand(len(start), *[1] * (start.ndim - 1)).reshape(-1)
    size = most / slope.flatten(1).abs().amax(1).clamp_min(1e-12) * 0.1
    for _ in range(steps):
        ahead = z - rows(size) * slope
        after, turned = look(ahead)
        better = (after <= value) & turned.flatten(1).isfinite().all(1)
        move, change = (ahead - z).flatten(1), (turned - slope).flatten(1)
        curved = (move * change).sum(1)
        longer = torch.where(curved > 0, (move * move).sum(1) / curved.clamp_min(1e-30), 2 * size)
        z = torch.where(rows(better), ahead, z)
        value = torch.where(better, after, value)
        slope = torch.where(rows(better), turned, slope)
        size = torch.where(better, longer, 0.3 * size)
    return z


class Proximal(Steered):
    """A denoiser led by stiff potentials: x0 is moved to where they and its own spread agree.

    x0 = argmin_z sum_k strength_k E_k(z) + |z - x0hat|^2 / (2 r_t^2) (Zhu et al. 2023, "DiffPIR",
    eq. 13): the maximum of p(x0 | x_t) exp(-E) for a Gaussian p, where `Led` takes one step of its
    gradient. No backward pass through the network.

    Args:
        steps: evaluations of the energies at each call.
    """

    def __init__(
        self, inner: Denoiser, potentials: Sequence[Potential], steps: int = 20, **settings: Any
    ) -> None:
        super().__init__(inner, **settings)
        self.potentials, self.steps = list(potentials), steps
        self.covariance = Isotropic(self.sigma_data)

    def pull(
        self, x0: Float[Tensor, "b ..."], c: Coefficients, cond: Cond, product: Product
    ) -> tuple[Float[Tensor, "b ..."], Float[Tensor, " b"]]:
        def energy(z: Tensor) -> Tensor:
            return sum_of(self.potentials, self.space.project(z, cond), cond)

        r2 = posterior_variance(c, self.sigma_data)
        z = proximal(energy, x0, r2, self.steps)
        return times(1 / r2, z - x0), -energy(x0)

    def log_likelihood(self, x0: Float[Tensor, "b ..."], cond: Cond) -> Float[Tensor, " b"]:
        return -sum_of(self.potentials, x0, cond)


def sum_of(potentials: Sequence[Potential], x0: Tensor, cond: Cond) -> Float[Tensor, " b"]:
    """Their energies, each times its strength."""
    return torch.stack([p.strength * p.energy(x0, cond) for p in potentials]).sum(0)


class Led(Steered):
    """A denoiser led by potentials, all at once.

    Args:
        inner: gives posterior means.
        potentials: their energies are added, each times its strength.
        settings: see `steering.Steered`: interval, limit, covariance, sigma_data.

    Raises:
        NotFiniteError: when called, a potential whose energy or gradient is not a number.
    """

    def __init__(self, inner: Denoiser, potentials: Sequence[Potential], **settings: Any) -> None:
        super().__init__(inner, **settings)
        self.potentials = list(potentials)

    def pull(
        self, x0: Float[Tensor, "b ..."], c: Coefficients, cond: Cond, product: Product
    ) -> tuple[Float[Tensor, "b ..."], Float[Tensor, " b"]]:
        slope, log_twist = torch.zeros_like(x0), x0.new_zeros(len(x0))
        for potential in self.potentials:
            with torch.enable_grad():
                x = x0.detach().requires_grad_()
                energy = potential.strength * potential.energy(x, cond)
                (gradient,) = torch.autograd.grad(energy.sum(), x)
            wrong = ~(energy.isfinite() & gradient.flatten(1).isfinite().all(1))
            if bool(wrong.any()):
                level = float((c.sigma / c.alpha.clamp_min(1e-300)).max())
                raise NotFiniteError(
                    f"the potential {potential.name} is not a number at sigma/alpha {level:.3g}: "
                    "repair it, or use it at lower noise only"
                )
            slope, log_twist = slope - gradient, log_twist - energy.detach()
        return self.space.project(slope, cond), log_twist

    def log_likelihood(self, x0: Float[Tensor, "b ..."], cond: Cond) -> Float[Tensor, " b"]:
        return -sum_of(self.potentials, x0, cond)
