"""The loss: no reward for orientation, none for a mirror, and each part measures what it says."""

import torch
from support.backbones import made

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import FunctionDenoiser
from sciffusion.core.geometry import random_rotations
from sciffusion.core.losses import DenoisingLoss, EDMWeight
from sciffusion.core.rng import Rng
from sciffusion.core.schedules import EDM
from sciffusion.core.spaces import ZeroCoM
from sciffusion.core.times import LogNormal
from sciffusion.domains.protein.domain import layout
from sciffusion.domains.protein.losses import BackboneLoss, covalent_error, smooth_lddt

B = 6
X = torch.from_numpy(made(40).coords).expand(B, -1, -1, -1)
COND = Cond({k: v.expand(B, *v.shape) for k, v in layout([40], 40).items()})
TURNS = random_rotations(Rng(1, torch.arange(B)))[:, None]
PARTS = (LogNormal(0.0, 1.0), EDMWeight(8.0))


def loss_of(answer, x0=X, **settings):
    denoiser = FunctionDenoiser(lambda x, t, cond: answer, EDM(160.0), ZeroCoM())
    return BackboneLoss(*PARTS, **settings)(denoiser, x0, COND, Rng(0, torch.arange(B)))


def test_a_turned_answer_is_as_good_and_a_mirrored_one_is_not():
    zero = loss_of(X, lddt=0)
    assert float(zero.abs().max()) < 1e-4
    assert float(loss_of(X @ TURNS.mT, lddt=0).abs().max()) < 1e-4
    assert float(loss_of(X @ TURNS.mT, lddt=0, align=False).min()) > 1
    mirror = X * torch.tensor([1.0, 1.0, -1.0])
    assert float(loss_of(mirror, lddt=0, bonds=0).min()) > 0.1


def test_without_alignment_it_is_the_denoising_loss():
    answer = X + 0.3 * torch.randn(X.shape, generator=torch.Generator().manual_seed(0))
    denoiser = FunctionDenoiser(lambda x, t, cond: answer, EDM(160.0), ZeroCoM())
    plain = DenoisingLoss(*PARTS)(denoiser, X, COND, Rng(0, torch.arange(B)))
    assert torch.allclose(loss_of(answer, align=False, lddt=0, bonds=0), plain, rtol=1e-5)


def test_smooth_lddt_is_the_mean_of_four_sigmoids_where_nothing_moved():
    mask = COND.structure["mask"]
    best = torch.sigmoid(torch.tensor([0.5, 1, 2, 4])).mean()
    assert torch.allclose(smooth_lddt(X[:, :, 1], X[:, :, 1], mask), best.expand(B), atol=1e-5)
    spread = smooth_lddt(3 * X[:, :, 1], X[:, :, 1], mask)
    assert (spread < best - 0.2).all()


def test_far_pairs_and_padding_do_not_count():
    mask = COND.structure["mask"].clone()
    mask[:, 30:] = False
    moved = X[:, :, 1].clone()
    moved[:, 30:] += 50
    best = torch.sigmoid(torch.tensor([0.5, 1, 2, 4])).mean()
    assert torch.allclose(smooth_lddt(moved, X[:, :, 1], mask), best.expand(B), atol=1e-5)


def test_covalent_error_is_squared_deviation_in_tenths_of_an_angstrom():
    """All lengths a tenth of an Angstrom longer count 1; a gap in the chain is no bond."""
    assert float(covalent_error(X, X, COND).max()) < 1e-6
    stretched = covalent_error(1.01 * X, X, COND)
    # bonds and 1-3 distances of 1.2 to 3.8 Angstrom, a hundredth longer
    assert (stretched > (0.12 / 10) ** 2).all()
    assert (stretched < (0.38 * 1.0) ** 2).all()
    apart = X.clone()
    apart[:, 20:] += 30.0
    cut = COND.with_structure(residue=COND.structure["residue"] + 5 * (torch.arange(40) >= 20))
    assert float(covalent_error(apart, X, cut).max()) < 1e-6
    assert float(covalent_error(apart, X, COND).min()) > 1


def test_geometry_counts_at_low_noise_alone():
    bent = X + 0.2 * torch.randn(X.shape, generator=torch.Generator().manual_seed(0))

    def extra(mean):
        parts = (LogNormal(mean, 0.01), EDMWeight(8.0))
        denoiser = FunctionDenoiser(lambda x, t, cond: bent, EDM(160.0), ZeroCoM())
        rng = Rng(0, torch.arange(B))
        one, none = (
            BackboneLoss(*parts, bonds=b)(denoiser, X, COND, rng).mean() for b in (1.0, 0.0)
        )
        return float(one - none)

    assert extra(4.0) < 0.01 * extra(-2.0)
