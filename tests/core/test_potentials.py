"""Potentials: known geometry, exact where they must be, composed, and told when they are broken."""

import math

import pytest
import torch

from sciffusion.core.analytic import gaussian
from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import FunctionDenoiser
from sciffusion.core.guidance import ClassifierFree
from sciffusion.core.inverse import PiGDM
from sciffusion.core.operators import Mask, Matrix
from sciffusion.core.potentials import (
    Distances,
    Energy,
    Led,
    Measurement,
    RadiusOfGyration,
    Torsions,
    radius_of_gyration,
    torsion,
)
from sciffusion.core.samplers import DDIM, Churn, Twisted
from sciffusion.core.schedules import EDM, VP
from sciffusion.core.spaces import ZeroCoM
from sciffusion.core.steering import Isotropic, NotFiniteError

T = torch.tensor(0.4, dtype=torch.float64)


def cloud(n=6, sigma=20.0):
    """White data on clouds without a centre of mass."""
    space, schedule = ZeroCoM(), EDM(sigma)

    def thought(x, t, cond):
        noise = schedule.sigma(t).to(x).view(-1, *[1] * (x.ndim - 1)) ** 2
        return space.project(x / (1 + noise), cond)

    return FunctionDenoiser(thought, schedule, space)


def test_energies_by_hand():
    x = torch.tensor([[[0.0, 0, 0], [3.0, 0, 0], [3.0, 4.0, 0]]], dtype=torch.float64)
    pairs = torch.tensor([[0, 1], [0, 2]])
    far = Distances(pairs, torch.tensor([2.0, 5.0]), width=0.5)
    assert far.energy(x, Cond()).item() == pytest.approx(0.5 * 4)
    loose = Distances(pairs, torch.tensor([2.0, 5.0]), width=0.5, slack=1.0)
    assert loose.energy(x, Cond()).item() == pytest.approx(0, abs=1e-9)
    assert radius_of_gyration(x, Cond()).item() == pytest.approx(math.sqrt(50 / 9), rel=1e-6)
    mask = torch.tensor([[True, True, False]])
    assert radius_of_gyration(x, Cond({"mask": mask})).item() == pytest.approx(1.5, rel=1e-6)
    assert RadiusOfGyration(9.0, above=True).energy(x, Cond()).item() == 0


@pytest.mark.parametrize("degrees", [-170.0, -60.0, 0.0, 75.0, 180.0])
def test_torsion_has_the_sign_of_the_convention(degrees):
    """Looking along i-j, a turns clockwise onto b by the torsion."""
    phi = math.radians(degrees)
    x = torch.tensor(
        [[[1.0, 0, 0], [0, 0, 0], [0, 0, 1.0], [math.cos(phi), math.sin(phi), 1.0]]]
    ).double()
    atoms = torch.tensor([[0, 1, 2, 3]])
    found = torsion(x, atoms)
    assert math.cos(float(found) - phi) == pytest.approx(1)
    assert Torsions(atoms, torch.tensor([degrees])).energy(x, Cond()).item() == pytest.approx(
        0, abs=1e-9
    )
    off = Torsions(atoms, torch.tensor([degrees + 5.0]), width=10.0)
    assert off.energy(x, Cond()).item() == pytest.approx(0.125, rel=1e-2)


def test_a_linear_energy_moves_a_gaussian_exactly():
    """exp(-b.x) N(m, C) = N(m - C b, C), at every noise level: E averages to itself there."""
    mean, cov = torch.tensor([0.5, -1.0]), torch.tensor([[1.0, 0.3], [0.3, 0.5]])
    b = torch.tensor([0.7, -0.2], dtype=torch.float64)
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    led = Led(gaussian(mean, cov, VP()), [Energy(lambda x, c: x @ b, strength=2.0)])
    exact = gaussian(mean.double() - 2 * cov.double() @ b, cov, VP())
    assert torch.allclose(led(x, T).x0, exact(x, T).x0)
    assert torch.allclose(led(x, T).score, exact(x, T).score)


def test_potentials_add_up():
    prior = gaussian(torch.zeros(2), torch.eye(2), VP())
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one = Energy(lambda x, c: x[:, 0] ** 2)
    two = Energy(lambda x, c: x[:, 1].cos(), strength=3.0)
    free = prior(x, T).x0
    apart = [Led(prior, [p])(x, T).x0 - free for p in (one, two)]
    both = Led(prior, [one, two])(x, T).x0 - free
    assert torch.allclose(both, apart[0] + apart[1])
    nested = Led(Led(prior, [one]), [two])(x, T).x0 - free
    assert torch.allclose(nested, both)  # of a Gaussian, whose Jacobian is the same everywhere
    assert torch.equal(Led(prior, [])(x, T).x0, free)


def test_a_measurement_among_potentials_is_a_measurement():
    prior = gaussian(torch.zeros(2), torch.eye(2), VP())
    operator, y = Matrix(torch.tensor([[1.0, 0.0]])), torch.tensor([[2.0]])
    led = Led(prior, [Measurement(operator, y, 0.4)])
    x = torch.zeros(3, 2, dtype=torch.float64)
    pigdm = PiGDM(prior, operator, y, 0.4)
    # S_t is std^2 alone: a stronger pull than with the spread of x0 in it.
    assert (led(x, T).x0[:, 0] > pigdm(x, T).x0[:, 0]).all()


@pytest.mark.parametrize("shape", [(6, 3), (6, 4, 3)])
@pytest.mark.parametrize("covariance", [None, Isotropic(1.0)])
def test_clouds_are_led_with_masks_and_a_fixed_centre(shape, covariance):
    mask = torch.ones(5, 6, dtype=torch.bool)
    mask[3:, 5:] = False
    prior, cond = cloud(), Cond({"mask": mask})
    pairs, target = torch.tensor([[0, 3], [1, 4]]), torch.tensor([5.0, 1.0])
    wanted = [Distances(pairs, target, width=0.2), RadiusOfGyration(2.2, 0.1)]
    led = Led(prior, wanted, covariance=covariance, limit=2.0)
    x = Churn(60, gamma=0.3, noise_scale=1.0)(led, shape, cond, n=5).x
    flat = x.flatten(1, -2)
    found = (flat[:, pairs[:, 0]] - flat[:, pairs[:, 1]]).norm(dim=-1)
    assert (found - target).abs().max() < 0.7
    assert (radius_of_gyration(x, cond) - 2.2).abs().max() < 0.4
    assert torch.allclose(ZeroCoM().project(x, cond), x, atol=1e-5)


def test_a_torsion_is_led():
    atoms = torch.tensor([[0, 1, 2, 3]])
    led = Led(cloud(4), [Torsions(atoms, torch.tensor([60.0]))], limit=2.0)
    x = Churn(60, gamma=0.3, noise_scale=1.0)(led, (4, 3), n=16).x
    off = torsion(x, atoms)[:, 0] - math.radians(60)
    assert (off.cos() > math.cos(math.radians(30))).float().mean() > 0.8


def test_particles_make_a_potential_exact():
    """exp(-E) p of a bounded E without slope at the modes: only weights can get this right."""
    prior = gaussian(torch.zeros(1), torch.eye(1), VP())
    side = Energy(lambda x, c: 1.5 * torch.tanh(4 * x[:, 0]))
    x = Twisted(60, particles=1024)(Led(prior, [side]), (1,), n=4096).x[:, 0].double()
    place = torch.linspace(-8, 8, 20001, dtype=torch.float64)
    density = (-0.5 * place**2 - 1.5 * torch.tanh(4 * place)).exp()
    density = density / density.sum()
    want = float((density * place).sum())
    assert abs(float(x.mean()) - want) < 0.05
    assert abs(float((x > 0).double().mean()) - float(density[place > 0].sum())) < 0.02


def test_a_broken_potential_is_named():
    prior = gaussian(torch.zeros(2), torch.eye(2), VP())
    for fn in (lambda x, c: x[:, 0] / 0 * 0, lambda x, c: (x[:, 0] * 0).sqrt()):
        led = Led(prior, [Energy(lambda x, c: x[:, 1]), Energy(fn, name="my energy")])
        with pytest.raises(NotFiniteError, match="my energy"):
            DDIM(5)(led, (2,), n=3)
    late = Led(prior, [Energy(lambda x, c: x[:, 0] / 0)], interval=(0.0, 1e-9))
    assert DDIM(5)(late, (2,), n=3).x.isfinite().all()


def test_what_is_led_can_be_guided_too():
    prior = gaussian(torch.zeros(2), torch.eye(2), VP())
    led = Led(ClassifierFree(prior, 2.0), [Energy(lambda x, c: x[:, 0])])
    assert DDIM(5)(led, (2,), n=3).nfe == 5
    assert isinstance(Mask(torch.ones(2) > 0), Mask)
