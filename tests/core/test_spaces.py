"""Spaces: noise, projection, density and score of one Gaussian on the true degrees of freedom."""

import pytest
import torch

from sciffusion.core.analytic import GaussianMixture
from sciffusion.core.cond import Cond
from sciffusion.core.rng import Rng
from sciffusion.core.schedules import VP
from sciffusion.core.spaces import Euclidean, Harmonic, ZeroCoM
from sciffusion.testing import check_space_conformance

MASK = torch.tensor([[True, True, False, True, False]])


def laplacian(bonds, n):
    lap = torch.zeros(1, n, n)
    for i, j in bonds:
        lap[0, i, j] = lap[0, j, i] = -1
    return lap - torch.diag_embed(lap.sum(-1))


CHAIN = Cond({"laplacian": laplacian([(0, 1), (1, 2), (2, 3)], 4)})
FRAGMENTS = Cond(
    {
        "laplacian": laplacian([(0, 1), (1, 3), (4, 5)], 7),
        "mask": torch.tensor([[True, True, False, True, True, True, False]]),
    }
)


@pytest.mark.parametrize(
    ("space", "shape", "cond"),
    [
        (Euclidean(), (2, 3), None),
        (Euclidean(), (5, 2), Cond({"mask": MASK})),
        (ZeroCoM(), (4, 3), None),
        (ZeroCoM(), (5, 3), Cond({"mask": MASK})),
        (ZeroCoM(), (3, 2, 3), None),
        (ZeroCoM(), (5, 2, 3), Cond({"mask": MASK})),
        (Harmonic(), (4, 3), CHAIN),
        (Harmonic(), (7, 3), FRAGMENTS),
    ],
)
def test_conformance(space, shape, cond):
    check_space_conformance(space, shape, cond)
    if isinstance(space, Harmonic):
        check_space_conformance(space, shape, space.prepare(cond))


def test_euclidean_density_is_torchs():
    z = torch.randn(6, 3, 4, dtype=torch.float64)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(z).flatten(1).sum(1)
    assert torch.allclose(Euclidean().log_prob(z), expected)


@pytest.mark.parametrize(("space", "cond", "n"), [(ZeroCoM(), Cond(), 4), (Harmonic(), CHAIN, 4)])
def test_density_on_an_orthonormal_basis_of_the_space(space, cond, n):
    """In coordinates of the space itself it is an ordinary multivariate normal."""
    flat = torch.eye(n, dtype=torch.float64)[..., None]
    many = cond.map(lambda v: v.expand(n, *v.shape[1:]))
    value, vector = torch.linalg.eigh(space.covariance(flat, many)[..., 0])
    basis, cov = vector[:, 1:], torch.diag(value[1:])
    normal = torch.distributions.MultivariateNormal(torch.zeros(n - 1, dtype=torch.float64), cov)
    u = torch.randn(5, n - 1, 3, dtype=torch.float64)
    batch = cond.map(lambda v: v.expand(5, *v.shape[1:]))
    expected = normal.log_prob(u.mT).sum(1)
    assert torch.allclose(space.log_prob(basis @ u, batch), expected)


def test_harmonic_follows_the_springs():
    """Distances of bonded points all vary alike; the variance of a chain grows with its length."""
    z = Harmonic().noise(Rng(0, torch.arange(20_000)), "z", (6, 3), chain(6, 20_000))
    bond = (z[:, 1:] - z[:, :-1]).var(0).mean(1)
    assert torch.allclose(bond, bond.mean().expand(5), rtol=0.05)
    # <(x_i - x_j)^2> = |i - j| bond^2: independent springs.
    ends = (z[:, 5] - z[:, 0]).var(0).mean()
    assert float(ends / bond.mean()) == pytest.approx(5, rel=0.05)
    raw = [float(torch.linalg.pinv(laplacian(path(n), n)[0].double()).trace()) for n in (10, 100)]
    assert raw[0] / 10 == pytest.approx(1.65, abs=0.01)
    assert raw[1] / 100 == pytest.approx(16.7, abs=0.05)


def path(n):
    return [(i, i + 1) for i in range(n - 1)]


def chain(n, batch=1):
    return Cond({"laplacian": laplacian(path(n), n).expand(batch, n, n)})


def test_long_chains_keep_every_mode():
    """The softest mode of a long chain is 1e-6 of the stiffest: not a fragment of its own."""
    space, cond = Harmonic(), chain(2000)
    assert int(space.prepare(cond).structure["harmonic_rank"]) == 1999


def test_fragments_keep_their_own_centres():
    space = Harmonic()
    z = space.noise(Rng(0, torch.arange(1)), "z", (7, 3), FRAGMENTS, torch.float64)
    assert z[0, [0, 1, 3]].sum(0).abs().max() < 1e-12
    assert z[0, [4, 5]].sum(0).abs().max() < 1e-12
    assert z[0, [2, 6]].abs().max() < 1e-12
    assert float(space.dim(z, FRAGMENTS)) == 3 * (5 - 2)


def test_bad_laplacians_are_refused():
    with pytest.raises(KeyError, match="laplacian"):
        Harmonic().prepare(Cond())
    with pytest.raises(ValueError, match="rows that sum to zero"):
        Harmonic().prepare(Cond({"laplacian": torch.eye(3)[None]}))


@pytest.mark.parametrize(("space", "cond"), [(ZeroCoM(), Cond()), (Harmonic(), CHAIN)])
def test_score_is_the_gradient_of_the_log_density(space, cond):
    """x_t of one Gaussian in the space: -Sigma^-1 eps / sigma against autograd."""
    n, dim = 4, 2
    many = cond.map(lambda v: v.expand(n * dim, *v.shape[1:]))
    eye = torch.eye(n * dim, dtype=torch.float64).view(-1, n, dim)
    sigma_noise = space.covariance(eye, many).reshape(n * dim, n * dim)
    projector = space.project(eye, many).reshape(n * dim, n * dim)
    root = projector @ torch.randn(n * dim, n * dim, dtype=torch.float64)
    mean = projector @ torch.randn(n * dim, dtype=torch.float64)
    oracle = GaussianMixture(
        mean[None], (root @ root.T)[None], VP(), noise_cov=sigma_noise, space=space
    )
    batch = cond.map(lambda v: v.expand(3, *v.shape[1:]))
    x = space.project(torch.randn(3, n, dim, dtype=torch.float64), batch).requires_grad_()
    t = torch.tensor(0.4, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(oracle.log_prob(x, t).sum(), x)
    score = oracle(x.detach(), t, batch).score
    assert torch.allclose(score, space.project(gradient, batch), rtol=1e-8, atol=1e-8)
    assert oracle.log_prob(x, t).isfinite().all()


def test_unit_noise_has_unit_mean_square_over_its_freedoms():
    for space, shape, cond in (
        (ZeroCoM(), (5, 3), Cond({"mask": MASK})),
        (ZeroCoM(), (3, 2, 3), None),
        (ZeroCoM(), (5, 2, 3), Cond({"mask": MASK})),
        (Harmonic(), (7, 3), FRAGMENTS),
    ):
        batch = (cond or Cond()).map(lambda v: v.expand(4000, *v.shape[1:]))
        z = space.noise(Rng(0, torch.arange(4000)), "z", shape, batch)
        mean = float(space.mean(z**2, batch).mean())
        assert abs(mean - 1) < 5 * (2 / 4000) ** 0.5  # of one freedom; more freedoms vary less


def test_autocast_does_not_round_noise():
    lap = torch.tensor([[1.0, -1, 0], [-1, 2, -1], [0, -1, 1]])[None]
    space = Harmonic()
    cond = space.prepare(Cond({"laplacian": lap}))
    z = torch.randn(1, 3, 3, generator=torch.Generator().manual_seed(0))
    for change in (space.colour, space.precision, space.project):
        plain = change(z, cond)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(change(z, cond), plain)
