"""Linear measurements y = A x0, each with its adjoint, and conjugate gradients to solve with them.

Operators act on the axes after the batch's. `<A x, y> = <x, A^T y>` is what tests hold them to;
nothing else is asked of a new one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class Operator(ABC):
    """A linear map of samples (B, ...)."""

    @abstractmethod
    def __call__(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """A x."""

    @abstractmethod
    def adjoint(self, y: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """A^T y."""


class Mask(Operator):
    """What is known of a sample; what is not is zero.

    Args:
        known: True where a number is measured; broadcasts against samples (B, ...).
    """

    def __init__(self, known: Bool[Tensor, "*b"]) -> None:
        self.known = known

    def __call__(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        return x * self.known.to(x)

    def adjoint(self, y: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        return self(y)


class Matrix(Operator):
    """A (M, D) on flattened samples of a shape."""

    def __init__(self, a: Float[Tensor, "m d"], shape: Sequence[int] | None = None) -> None:
        self.a, self.shape = a, tuple(shape or a.shape[1:])

    def __call__(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b m"]:
        return x.flatten(1) @ self.a.to(x).T

    def adjoint(self, y: Float[Tensor, "b m"]) -> Float[Tensor, "b ..."]:
        return (y @ self.a.to(y)).view(len(y), *self.shape)


class Separable(Operator):
    """Y = R X C^T on the last two axes: blurring and shrinking are of this kind.

    Args:
        rows: R (H', H).
        columns: C (W', W); by default R.
    """

    def __init__(
        self, rows: Float[Tensor, "h1 h"], columns: Float[Tensor, "w1 w"] | None = None
    ) -> None:
        self.rows, self.columns = rows, rows if columns is None else columns

    def __call__(self, x: Float[Tensor, "b *c h w"]) -> Float[Tensor, "b *c h1 w1"]:
        return self.rows.to(x) @ x @ self.columns.to(x).T

    def adjoint(self, y: Float[Tensor, "b *c h1 w1"]) -> Float[Tensor, "b *c h w"]:
        return self.rows.to(y).T @ y @ self.columns.to(y)


def shrink(size: int, factor: int) -> Separable:
    """Means of blocks of factor x factor pixels: what superresolution undoes.

    Raises:
        ValueError: the factor does not divide the size.
    """
    if factor < 1 or size % factor:
        raise ValueError(f"a factor of {factor} does not divide {size} pixels")
    mean = torch.eye(size // factor).repeat_interleave(factor, 1) / factor
    return Separable(mean)


def blur(size: int, std: float) -> Separable:
    """A Gaussian of `std` pixels; at the edge its weights are scaled to sum to 1.

    Raises:
        ValueError: `std` is not positive.
    """
    if not (std > 0 and math.isfinite(std)):
        raise ValueError(f"a blur has a positive width in pixels, not {std}")
    place = torch.arange(size, dtype=torch.float64)
    weight = (-0.5 * ((place[:, None] - place) / std) ** 2).exp()
    return Separable((weight / weight.sum(1, keepdim=True)).float())


class Channels(Operator):
    """Mixtures of the first axis after the batch's, such as the grey of a picture in colour.

    Args:
        weights: (M, C).
    """

    def __init__(self, weights: Float[Tensor, "m c"]) -> None:
        self.weights = weights

    def __call__(self, x: Float[Tensor, "b c ..."]) -> Float[Tensor, "b m ..."]:
        return torch.einsum("mc,bc...->bm...", self.weights.to(x), x)

    def adjoint(self, y: Float[Tensor, "b m ..."]) -> Float[Tensor, "b c ..."]:
        return torch.einsum("mc,bm...->bc...", self.weights.to(y), y)


class FourierMask(Operator):
    """Known entries of the orthonormal 2-D Fourier transform (as of an MRI scan), as real pairs.

    Args:
        known: (H, W), True where an entry is measured.
    """

    def __init__(self, known: Bool[Tensor, "h w"]) -> None:
        self.known = known

    def __call__(self, x: Float[Tensor, "b *c h w"]) -> Float[Tensor, "b *c h w 2"]:
        return torch.view_as_real(torch.fft.fft2(x, norm="ortho")) * self.known[..., None].to(x)

    def adjoint(self, y: Float[Tensor, "b *c h w 2"]) -> Float[Tensor, "b *c h w"]:
        z = torch.view_as_complex((y * self.known[..., None].to(y)).contiguous())
        x: Tensor = torch.fft.ifft2(z, norm="ortho").real
        return x


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor],
    b: Float[Tensor, "b ..."],
    most: int = 50,
    tolerance: float = 1e-5,
) -> Float[Tensor, "b ..."]:
    """x with S x = b, S symmetric and positive semidefinite, each sample for itself.

    Args:
        apply: v -> S v.
        most: products with S, at most; fewer also regularise.
        tolerance: of the residual's norm, relative to that of b.
    """

    def dot(u: Tensor, v: Tensor) -> Tensor:
        return (u * v).flatten(1).sum(1).view(-1, *[1] * (b.ndim - 1))

    x, r = torch.zeros_like(b), b.clone()
    p, square = r, dot(r, r)
    enough = tolerance**2 * square
    for _ in range(most):
        if bool((square <= enough).all()):
            break
        ahead = apply(p)
        curvature = dot(p, ahead)
        # Rounding may leave a direction without curvature: the sample is solved as far as it goes.
        alive = (square > enough) & (curvature > 0)
        step = torch.where(alive, square / curvature.clamp_min(1e-300), 0.0)
        x, r = x + step * p, r - step * ahead
        after = dot(r, r)
        p = r + torch.where(alive, after / square.clamp_min(1e-300), 0.0) * p
        square = torch.where(alive, after, 0.0)
    return x
