"""What every space must do: its noise, projection, precision and density belong together."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sciffusion.core.cond import Cond
from sciffusion.core.rng import Rng
from sciffusion.core.spaces import Space


def _assert_close(a: Tensor, b: Tensor, what: str, tolerance: float) -> None:
    error = float((a - b).abs().max())
    assert error < tolerance * (1 + float(b.abs().max())), f"{what}: off by {error:.3g}"


def check_space_conformance(
    space: Space, shape: tuple[int, ...], cond: Cond | None = None, draws: int = 20_000
) -> None:
    """Hold a space to its contract, on the first sample of `cond`.

    Projection is an orthogonal projector on as many dimensions as `dim` says; Sigma is symmetric,
    lives on them, has `precision` for its inverse, `log_det` for its determinant and mean variance
    1; the noise has covariance Sigma; `log_prob` is its Gaussian's; `mean` divides by `dim`.

    Args:
        space: any space.
        shape: of one sample; small, since Sigma is written out as a matrix.
        cond: conditioning whose tensors have a leading batch axis, e.g. a mask.
        draws: samples for the covariance, held to 6 standard errors.

    Raises:
        AssertionError: with the property that fails.
    """
    name, d = type(space).__name__, math.prod(shape)
    one = (cond or Cond())[slice(0, 1)]
    basis = torch.eye(d, dtype=torch.float64).view(d, *shape)
    many = one.map(lambda v: v.expand(d, *v.shape[1:]))
    project, colour, covariance, precision = (
        f(basis, many).reshape(d, d)
        for f in (space.project, space.colour, space.covariance, space.precision)
    )
    dim = float(space.dim(basis[:1], one))
    _assert_close(project, project.mT, f"{name}.project is not orthogonal", 1e-9)
    _assert_close(project @ project, project, f"{name}.project is not idempotent", 1e-9)
    assert abs(float(project.trace()) - dim) < 1e-6, f"{name}.dim is not the rank of project"
    _assert_close(colour, colour.mT, f"{name}.colour is not the symmetric root", 1e-9)
    _assert_close(colour @ colour, covariance, f"{name}.covariance is not colour twice", 1e-9)
    _assert_close(project @ colour, colour, f"{name}.colour leaves the space", 1e-9)
    _assert_close(covariance @ precision, project, f"{name}.precision is no inverse", 1e-7)
    variance = float(covariance.trace()) / dim
    assert abs(variance - 1) < 1e-6, f"{name}: mean variance of unit noise is {variance:.6g}, not 1"
    eigenvalues = torch.linalg.eigvalsh(covariance)[d - round(dim) :]
    log_det = space.log_det(basis[:1], one)[0]
    _assert_close(eigenvalues.log().sum(), log_det.double(), f"{name}.log_det is wrong", 1e-6)

    index = torch.arange(draws)
    batch = one.map(lambda v: v.expand(draws, *v.shape[1:]))
    z = space.noise(Rng(1, index), "check", shape, batch, torch.float64)
    flat = z.flatten(1)
    product = flat[:, :, None] * flat[:, None]
    error = (product.mean(0) - covariance).abs() / (product.std(0) / draws**0.5 + 1e-9)
    assert error.max() < 6, f"{name}.noise is {error.max():.1f} standard errors off its covariance"
    _assert_close(space.project(z, batch), z, f"{name}.noise leaves the space", 1e-9)

    square = (flat @ precision * flat).sum(1)
    expected = -0.5 * (square + dim * math.log(2 * math.pi) + log_det)
    _assert_close(
        space.log_prob(z, batch), expected, f"{name}.log_prob is not its Gaussian's", 1e-8
    )
    whitened = space.mean(z * space.precision(z, batch), batch)
    _assert_close(whitened, square / dim, f"{name}.mean does not divide by dim", 1e-8)
    assert abs(float(whitened.mean()) - 1) < 6 * (2 / (dim * draws)) ** 0.5, f"{name}: chi-square"
