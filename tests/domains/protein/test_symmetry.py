"""Oligomers: groups are groups, the noise is one subunit's, and samples are exactly symmetric."""

import math

import pytest
import torch

from sciffusion.core.analytic import GaussianMixture
from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import FunctionDenoiser
from sciffusion.core.rng import Rng
from sciffusion.core.samplers.ancestral import DDIM, DDPM
from sciffusion.core.samplers.multistep import DPMSolverPP
from sciffusion.core.samplers.ode import DormandPrince, Heun
from sciffusion.core.samplers.sde import Churn, PredictorCorrector
from sciffusion.core.schedules import EDM, VP
from sciffusion.core.spaces import Euclidean, ZeroCoM
from sciffusion.domains.protein.symmetry import Symmetric, Symmetrised, point_group
from sciffusion.errors import InputError
from sciffusion.testing import check_space_conformance

ORDERS = {f"C{n}": n for n in range(1, 13)} | {f"D{n}": 2 * n for n in range(2, 7)}
ORDERS |= {"T": 12, "O": 24, "I": 60}


@pytest.mark.parametrize("name", ORDERS)
def test_a_group_is_closed_and_proper(name):
    group = point_group(name)
    assert len(group) == ORDERS[name]
    assert torch.equal(group[0], torch.eye(3, dtype=torch.float64))
    assert torch.allclose(torch.linalg.det(group), torch.ones(len(group), dtype=torch.float64))
    products = torch.einsum("gij,hjk->ghik", group, group)
    nearest = (products[:, :, None] - group).abs().amax((-1, -2))
    assert float(nearest.min(2).values.max()) < 1e-9
    # Each row of the table of a group names every element once.
    assert (nearest.argmin(2).sort(1).values == torch.arange(len(group))).all()


@pytest.mark.parametrize("name", ["C0", "C13", "D1", "D7", "S4", "", "C", "c3x"])
def test_other_names_are_refused(name):
    with pytest.raises(InputError, match="C1 to C12, D2 to D6"):
        point_group(name)


class Whole(Symmetric):
    """Noise whose variance on the complex as a whole is 1, as the public checks ask for."""

    def colour(self, z, cond):
        return self.project(z, cond)

    def precision(self, e, cond):
        return self.project(e, cond)

    def log_det(self, x, cond):
        return torch.zeros(len(x), dtype=x.dtype)

    def mean(self, e, cond=None):
        return ZeroCoM.mean(self, e, cond)


PADDED = torch.tensor([[True, False] * 3])


@pytest.mark.parametrize(
    ("name", "shape", "cond", "dim"),
    [
        ("C1", (2, 3), None, 3),
        ("C2", (4, 3), None, 5),
        ("C3", (3, 2, 3), None, 5),
        ("C3", (6, 2, 3), Cond({"mask": PADDED}), 5),
        ("D2", (4, 3), None, 3),
        ("D3", (6, 2, 3), None, 6),
    ],
)
def test_conformance(name, shape, cond, dim):
    space = Whole(point_group(name))
    check_space_conformance(space, shape, cond, draws=10_000)
    x = torch.zeros(1, *shape, dtype=torch.float64)
    assert float(space.dim(x, cond or Cond())) == dim


@pytest.mark.parametrize("name", ["C1", "C3", "D2", "T"])
def test_each_copy_has_the_noise_of_a_lone_chain(name):
    """Unit variance in every coordinate of every copy, but for the shift that the centre takes."""
    space, length, draws = Symmetric(point_group(name)), 3, 8000
    rng, shape = Rng(0, torch.arange(draws)), (space.order * length, 2, 3)
    z = space.noise(rng, "z", shape, dtype=torch.float64)
    first = z[:, :length].reshape(draws, -1, 3)
    axis = space.group.mean(0)
    for i in range(3):
        for j in range(3):
            # cov of points p, q: delta_pq - (shared shift) / points
            expected = torch.eye(6, dtype=torch.float64) * (i == j) - axis[i, j] / 6
            cov = first[:, :, i].T @ first[:, :, j] / draws
            assert float((cov - expected).abs().max()) < 6 * (2 / draws) ** 0.5
    assert torch.allclose(space.copies(z[:, :length]), z)
    assert float(z.mean((1, 2)).abs().max()) < 1e-12
    mean = space.mean(z**2)
    assert float(mean.mean()) == pytest.approx(1, abs=6 * (2 / draws) ** 0.5)


def test_density_is_that_of_the_subunit():
    """log_prob in coordinates of D2's subunit, which is free: g^(-1/2) a coordinate for the map."""
    space, m = Symmetric(point_group("D2")), 2
    subunit = torch.randn(5, m, 3, dtype=torch.float64)
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(subunit).flatten(1).sum(1)
    # s -> (R_1 s, ..., R_g s) stretches each of its 3 m directions by sqrt(g).
    expected = normal - 3 * m * 0.5 * math.log(space.order)
    assert torch.allclose(space.log_prob(space.copies(subunit)), expected)


def test_padding_changes_no_number():
    space, index = Symmetric(point_group("C3")), torch.arange(2)
    mask = torch.tensor([True, True, False, True, False]).repeat(3).expand(2, -1)
    bare = space.noise(Rng(4, index), "z", (9, 4, 3))
    padded = space.noise(Rng(4, index), "z", (15, 4, 3), Cond({"mask": mask}))
    assert torch.allclose(padded[mask], bare.flatten(0, 1), atol=1e-6)
    assert float(padded[~mask].abs().max()) == 0


def complex_of(name, length=3, away=12.0):
    """A subunit some way off the axes, copied; flattened by residue, atom and axis."""
    generator = torch.Generator().manual_seed(1)
    subunit = 3 * torch.randn(1, length, 4, 3, generator=generator, dtype=torch.float64)
    subunit = subunit + torch.tensor([away, 0.4 * away, 0.2 * away], dtype=torch.float64)
    space = Symmetric(point_group(name))
    return space, space.project(space.copies(subunit), Cond())


SAMPLERS = [
    DDPM(20), DDIM(20), DPMSolverPP(12), Heun(10), Churn(12), PredictorCorrector(15),
    DormandPrince(),
]  # fmt: skip


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("name", ["C3", "D2"])
def test_samples_are_symmetric_and_keep_apart(sampler, name):
    """Of a law around one complex, with errors of a network that knows nothing of symmetry."""
    space, native = complex_of(name)
    d = native.numel()
    oracle = GaussianMixture(native.view(1, -1), torch.eye(d)[None] * 0.25, VP(), space=ZeroCoM())
    wonky = 0.05 * torch.randn(native.shape, generator=torch.Generator().manual_seed(2))

    def x0(x, t, cond):
        return oracle(x, t, cond).x0 + wonky * (1 + x.norm(dim=-1, keepdim=True) / 20)

    denoiser = Symmetrised(FunctionDenoiser(x0, VP(), ZeroCoM()), name)
    x = sampler(denoiser, tuple(native.shape[1:]), seed=3, n=2).x
    assert float((space.symmetrised(x.double()) - x).abs().max()) < 1e-4
    assert float(x.mean((1, 2)).abs().max()) < 1e-4
    centres = x.unflatten(1, (space.order, -1)).mean((2, 3))
    truth = native.unflatten(1, (space.order, -1)).mean((2, 3)).float()
    apart = torch.cdist(centres, centres) - torch.cdist(truth, truth)
    assert float(apart.abs().max()) < 2.0


def test_law_of_samples_is_that_of_the_subunit():
    """Every copy of C2 varies as the data do: symmetric noise is not averaged noise."""
    space, native = complex_of("C2", length=2)
    d = native.numel()
    oracle = GaussianMixture(native.view(1, -1), torch.eye(d)[None] * 0.25, VP(), space=ZeroCoM())
    denoiser = Symmetrised(oracle, "C2")
    x = DPMSolverPP(30)(denoiser, tuple(native.shape[1:]), n=1500, dtype=torch.float64).x
    freedoms = space.project(x - native, Cond())
    variance = float(space.mean(freedoms**2).mean())
    assert variance == pytest.approx(0.25, rel=0.03)
    assert float((x.mean(0) - native[0]).abs().max()) < 6 * 0.5 / 1500**0.5


def test_at_the_high_noise_of_proteins():
    """EDM's levels, float32: exact to 1e-3 Angstrom."""
    _, native = complex_of("C5", away=20.0)
    oracle = FunctionDenoiser(lambda x, t, cond: native.to(x).expand_as(x), EDM(160.0), ZeroCoM())
    x = Churn(30)(Symmetrised(oracle, "C5"), tuple(native.shape[1:]), n=2).x
    assert float((x - native.float()).abs().max()) < 1e-3


def test_a_symmetric_thought_is_left_alone():
    _, native = complex_of("D3")
    inner = FunctionDenoiser(lambda x, t, cond: native, VP(), ZeroCoM())
    t = torch.tensor(0.5, dtype=torch.float64)
    denoiser = Symmetrised(inner, point_group("D3"))
    x = denoiser.space.noise(Rng(0, torch.arange(1)), "z", native.shape[1:], dtype=torch.float64)
    assert torch.allclose(denoiser(x, t).x0, native)
    assert torch.allclose(denoiser(x, t).eps, inner(x, t).eps)


def test_what_cannot_be_symmetric_is_refused():
    inner = FunctionDenoiser(lambda x, t, cond: x, VP(), Euclidean())
    with pytest.raises(TypeError, match="zero centre of mass"):
        Symmetrised(inner, "C2")
    with pytest.raises(ValueError, match="7 residues are not 3 copies"):
        Symmetric(point_group("C3")).symmetrised(torch.zeros(1, 7, 4, 3))
    mask = torch.tensor([[True, True, True, False]])
    with pytest.raises(ValueError, match="padded alike"):
        Symmetrised(FunctionDenoiser(lambda x, t, cond: x, VP(), ZeroCoM()), "C2").prepare(
            Cond({"mask": mask})
        )
