"""Rigid geometry: Kabsch finds the motion and never mirrors; rotations are uniform."""

import pytest
import torch

from sciffusion.core.geometry import centre, kabsch, random_rotations
from sciffusion.core.rng import Rng

N = 4000


def cloud(b=20, n=6, seed=0, dtype=torch.float64):
    return torch.randn(b, n, 3, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_rotations_are_proper():
    r = random_rotations(Rng(0, torch.arange(N)), dtype=torch.float64)
    assert torch.allclose(r @ r.mT, torch.eye(3).double().expand(N, 3, 3), atol=1e-12)
    assert torch.allclose(torch.linalg.det(r), torch.ones(N).double())


def test_rotations_are_uniform():
    """Haar: entries have mean 0 and variance 1/3, trace 1 + 2 cos a with density (1 - cos a)."""
    r = random_rotations(Rng(1, torch.arange(N)), dtype=torch.float64)
    assert (r.mean(0).abs() < 5 * (1 / 3 / N) ** 0.5).all()
    assert ((r**2).mean(0) - 1 / 3).abs().max() < 5 * (0.09 / N) ** 0.5
    angle = ((r.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1).acos().sort().values
    cdf = (angle - angle.sin()) / torch.pi
    gap = (cdf - (torch.arange(N) + 0.5) / N).abs().max()
    assert float(gap) < 2 / N**0.5
    # The same law turned by a fixed rotation: <tr(R0 R)> stays 0.
    assert abs(float((r[0] @ r).diagonal(dim1=1, dim2=2).sum(1).mean())) < 5 / N**0.5


@pytest.mark.parametrize("masked", [False, True])
def test_kabsch_recovers_a_rigid_motion(masked):
    x = cloud()
    mask = None
    if masked:
        mask = torch.arange(6)[None] < torch.randint(3, 7, (20, 1))
        x = torch.where(mask[..., None], x, torch.full_like(x, 99.0))  # rubbish in the padding
    r = random_rotations(Rng(2, torch.arange(20)), dtype=torch.float64)
    y = x @ r + 3.0
    moved = kabsch(x, y, mask)
    if mask is None:
        assert torch.allclose(moved, y, atol=1e-9)
    else:
        assert torch.allclose(moved[mask], y[mask], atol=1e-9)
        assert (moved[~mask] == 0).all()


def test_kabsch_is_the_best_rotation_and_keeps_handedness():
    x, y = cloud(seed=1), cloud(seed=2)
    best = ((kabsch(x, y) - y) ** 2).sum((1, 2))
    for seed in range(40):
        r = random_rotations(Rng(seed, torch.arange(20)), dtype=torch.float64)
        other = centre(x) @ r + y.mean(1, keepdim=True)
        assert (((other - y) ** 2).sum((1, 2)) >= best - 1e-9).all()
    mirror = x * torch.tensor([1.0, 1.0, -1.0])
    moved = kabsch(x, mirror)

    def volume(v):
        return torch.linalg.det(v[:, 1:4] - v[:, :1]).sign()

    assert torch.equal(volume(moved), volume(x))
    assert ((moved - mirror) ** 2).sum((1, 2)).min() > 1e-3


def test_kabsch_of_flat_and_short_clouds():
    """Planar, collinear and two-point clouds have many best rotations: any proper one will do."""
    for x in (cloud() * torch.tensor([1.0, 1.0, 0.0]), cloud()[:, :2], cloud()[:, :1]):
        r = random_rotations(Rng(3, torch.arange(20)), dtype=torch.float64)
        assert torch.allclose(kabsch(x, x @ r - 1), x @ r - 1, atol=1e-9)


def test_kabsch_stays_in_float32_under_autocast():
    x = cloud(dtype=torch.float32)
    r = random_rotations(Rng(4, torch.arange(20)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        moved = kabsch(x, torch.einsum("bij,bjk->bik", x, r).float())
        half = kabsch(x.bfloat16(), x.bfloat16())
    plain = kabsch(x, x)
    assert moved.dtype == torch.float32
    assert half.dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(kabsch(x, x), plain)


def test_no_gradient_through_the_rotation():
    """As a target, the aligned truth is a constant: x gets the gradient of a fixed motion."""
    x, y = cloud(b=2), cloud(b=2, seed=5).requires_grad_()
    moved = kabsch(x, y.detach())
    loss = ((y - moved) ** 2).sum()
    loss.backward()
    assert torch.allclose(y.grad, 2 * (y.detach() - moved))


def test_centre():
    x = cloud()
    mask = torch.arange(6)[None].expand(20, 6) < 4
    middle = centre(x, mask)
    assert torch.allclose(middle[:, :4].mean(1), torch.zeros(20, 3).double(), atol=1e-12)
    assert (middle[:, 4:] == 0).all()


def test_points_in_groups_are_the_same_points():
    """(B, N, A, 3) with a mask of groups is the cloud of its N A points."""
    x, y = cloud(n=12).view(20, 6, 2, 3), cloud(n=12, seed=7).view(20, 6, 2, 3)
    mask = torch.arange(6)[None].expand(20, 6) < 5
    flat = mask.repeat_interleave(2, 1)
    assert torch.allclose(centre(x, mask).flatten(1, 2), centre(x.flatten(1, 2), flat))
    moved = kabsch(x.flatten(1, 2), y.flatten(1, 2), flat)
    assert torch.allclose(kabsch(x, y, mask).flatten(1, 2), moved)
