"""Linear inverse problems y = A x0 + std n, solved with any trained denoiser.

Three models of p(y | x_t), all N(A x0hat(x_t), S_t), from cheap to exact:
- `DPS`: S_t = std^2 + r_t^2, a number (Chung et al. 2023, whose step size, tuned for each data set
  and number of steps, this replaces);
- `PiGDM`: S_t = r_t^2 A Sigma A^T + std^2 (Song et al. 2023, "Pseudoinverse-guided diffusion");
- `MomentMatching`: S_t = A Cov[x0 | x_t] A^T + std^2 with the denoiser's own covariance (Boys et
  al. 2023; Rozet et al. 2024): exact where the data are Gaussian.
None is exact for other data. Any of them as the twist of `samplers.Twisted` is, as its particles
grow in number.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from jaxtyping import Float
from torch import Tensor

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import Denoiser
from sciffusion.core.operators import Operator, conjugate_gradients
from sciffusion.core.parameterization import Coefficients, times
from sciffusion.core.steering import Product, Steered, posterior_variance


class Measured(Steered):
    """A denoiser that knows a linear measurement of its samples.

    Args:
        inner: what is known beforehand.
        operator: A.
        y: what was measured; (1, ...) for all samples or one each (B, ...).
        std: standard deviation of the measurement's noise, in units of the data.
        settings: see `steering.Steered`.

    Raises:
        ValueError: y or std is not a number, or std is negative.
    """

    def __init__(
        self,
        inner: Denoiser,
        operator: Operator,
        y: Float[Tensor, "b ..."],
        std: float = 0.0,
        **settings: Any,
    ) -> None:
        super().__init__(inner, **settings)
        if not std >= 0 or not bool(y.isfinite().all()):
            raise ValueError("a measurement must be made of numbers, with noise of 0 or more")
        self.operator, self.y, self.std = operator, y, float(std)

    def residual(self, x0: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """y - A x0."""
        measured = self.operator(x0)
        return self.y.to(measured) - measured

    @abstractmethod
    def solve(
        self, residual: Float[Tensor, "b ..."], c: Coefficients, cond: Cond, product: Product
    ) -> Float[Tensor, "b ..."]:
        """S_t^-1 residual."""

    def pull(
        self, x0: Float[Tensor, "b ..."], c: Coefficients, cond: Cond, product: Product
    ) -> tuple[Float[Tensor, "b ..."], Float[Tensor, " b"]]:
        residual = self.residual(x0)
        weight = self.solve(residual, c, cond, product)
        return self.operator.adjoint(weight), -0.5 * (residual * weight).flatten(1).sum(1)

    def log_likelihood(self, x0: Float[Tensor, "b ..."], cond: Cond) -> Float[Tensor, " b"]:
        if self.std == 0:
            raise ValueError("an exact measurement has no likelihood to weigh by: give std > 0")
        return -0.5 * (self.residual(x0) / self.std).square().flatten(1).sum(1)


def _shaped(v: Tensor, like: Tensor) -> Tensor:
    """A coefficient of samples, one for all or one each, shaped to multiply measurements."""
    return v.view(-1, *[1] * (like.ndim - 1)) if v.ndim else v


class DPS(Measured):
    """S_t = (std^2 + r_t^2) / scale: no solve, the crudest.

    Args:
        measured, settings: of `Measured`.
        scale: larger leans more on the measurement; over 1 / |A|^2 it may overshoot.
    """

    def __init__(self, *measured: Any, scale: float = 1.0, **settings: Any) -> None:
        super().__init__(*measured, **settings)
        self.scale = scale

    def solve(
        self, residual: Float[Tensor, "b ..."], c: Coefficients, cond: Cond, product: Product
    ) -> Float[Tensor, "b ..."]:
        r2 = _shaped(posterior_variance(c, self.sigma_data), residual)
        return times(self.scale / (r2 + self.std**2), residual)


class PiGDM(Measured):
    """S_t = r_t^2 A Sigma A^T + std^2, by conjugate gradients (one step where A A^T = 1).

    `sigma_data` should be that of the data.
    """

    def solve(
        self, residual: Float[Tensor, "b ..."], c: Coefficients, cond: Cond, product: Product
    ) -> Float[Tensor, "b ..."]:
        r2 = _shaped(posterior_variance(c, self.sigma_data), residual)

        def apply(v: Tensor) -> Tensor:
            back = self.space.covariance(self.operator.adjoint(v), cond)
            return times(r2, self.operator(back)) + self.std**2 * v

        return conjugate_gradients(apply, residual)


class MomentMatching(Measured):
    """S_t = A Cov[x0 | x_t] A^T + std^2, by conjugate gradients: a backward pass for each product.

    Args:
        measured, settings: of `Measured`.
        products: with S_t, at most.
    """

    def __init__(self, *measured: Any, products: int = 8, **settings: Any) -> None:
        super().__init__(*measured, **settings)
        self.products = products

    def solve(
        self, residual: Float[Tensor, "b ..."], c: Coefficients, cond: Cond, product: Product
    ) -> Float[Tensor, "b ..."]:
        def apply(v: Tensor) -> Tensor:
            seen = self.operator(product(self.operator.adjoint(v)).detach())
            return seen + self.std**2 * v

        return conjugate_gradients(apply, residual, self.products)


SOLVERS: dict[str, type[Measured]] = {"dps": DPS, "pigdm": PiGDM, "moments": MomentMatching}


def zero_filled(operator: Operator, y: Float[Tensor, "b ..."], steps: int = 20) -> Tensor:
    """A^+ y, the least sample that fits (pseudo-inverse by conjugate gradients)."""
    weight = conjugate_gradients(lambda v: operator(operator.adjoint(v)), y, steps)
    found: Tensor = operator.adjoint(weight)
    return found
