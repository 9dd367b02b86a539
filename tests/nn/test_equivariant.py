"""Irreps layers: each is its counterpart in e3nn, and turns with what it is given."""

import pytest
import torch
from e3nn import o3

from sciffusion.errors import InputError
from sciffusion.nn.equivariant import (
    IrrepsLinear,
    IrrepsNorm,
    NeighbourProduct,
    SelfProduct,
    blocks_of,
    flat,
    invariants,
    scaled,
    spherical_harmonics,
    widths,
)
from sciffusion.nn.products import neighbour_product

WIDTH = [6, 4, 2]
IRREPS = o3.Irreps("6x0e + 4x1e + 2x2e")


def features(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, IRREPS.dim, generator=generator, dtype=torch.float64)
    return blocks_of(x, WIDTH), x


@pytest.fixture(autouse=True)
def double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_layout_is_e3nns_transposed():
    blocks, x = features(5)
    assert [tuple(b.shape) for b in blocks] == [(5, 1, 6), (5, 3, 4), (5, 5, 2)]
    assert torch.equal(flat(blocks), x)


def test_harmonics_are_e3nns_and_fade_where_there_is_no_direction():
    v = 10 * torch.randn(50, 3)
    expected = o3.spherical_harmonics([0, 1, 2], v, True, "component")
    assert torch.allclose(spherical_harmonics(2, v), expected, atol=1e-5)
    still = spherical_harmonics(2, torch.zeros(1, 3))
    assert float(still[0, 0]) == 1
    assert float(still[0, 1:].abs().max()) == 0


@pytest.mark.parametrize("backend", ["e3nn", "cuequivariance"])
def test_neighbour_product_is_that_of_other_libraries(backend):
    """e3nn's uvu product and NVIDIA's polynomial couple every edge, then sum; gradients too."""
    ours, theirs = NeighbourProduct(WIDTH, 2), neighbour_product(WIDTH, 2, backend)
    blocks, _ = features(7, 5)
    sh = spherical_harmonics(2, torch.randn(7, 5, 3))
    weight = torch.randn(7, 5, ours.weight_numel, requires_grad=True)
    found, expected = flat(ours(blocks, sh, weight)), flat(theirs(blocks, sh, weight))
    assert [f.shape[-1] for f in theirs(blocks, sh, weight)] == ours.width_out
    assert torch.allclose(found, expected, atol=1e-12)
    one, other = (torch.autograd.grad(v.square().sum(), weight)[0] for v in (found, expected))
    assert torch.allclose(one, other, atol=1e-12)
    assert not theirs.state_dict()  # weights run on any backend


def test_unknown_backend_is_refused():
    with pytest.raises(InputError, match="backend=cuda is not known: own, e3nn, cueq"):
        neighbour_product(WIDTH, 2, "cuda")


def test_self_product_of_vectors_is_dot_and_cross():
    layer = SelfProduct([3, 3], 1)
    a, b = torch.randn(8, 3, 3), torch.randn(8, 3, 3)
    scalar, vector = layer([torch.zeros(8, 1, 3), a], [torch.zeros(8, 1, 3), b])
    assert torch.allclose(scalar[:, 0] * 3**0.5, (a * b).sum(1))
    cross = torch.linalg.cross(a, b, dim=1)
    assert torch.allclose(vector * 2**0.5, cross, atol=1e-12)


def test_linear_is_e3nns():
    layer = IrrepsLinear(WIDTH, [5, 3, 2], bias=False)
    theirs = o3.Linear(IRREPS, "5x0e + 3x1e + 2x2e")
    blocks, x = features(9)
    weights = [m.weight.T * c**0.5 for m, c in zip(layer.layers, WIDTH, strict=True)]
    with torch.no_grad():
        theirs.weight.copy_(torch.cat([w.flatten() for w in weights]))
    assert torch.allclose(flat(layer(blocks)), theirs(x), atol=1e-12)


@pytest.mark.parametrize("mirrored", [False, True])
def test_layers_turn_with_what_they_are_given(mirrored):
    """Under rotations; a mirror is none, and the cross product shows it."""
    turn = o3.rand_matrix()
    if mirrored:
        turn = turn @ torch.diag(torch.tensor([1.0, 1.0, -1.0]))

    def turned(blocks):
        # Features as vectors alone: what a mirror does to them needs no convention
        return [blocks[0], torch.einsum("ij,...jc->...ic", turn, blocks[1])]

    a, b = torch.randn(2, 8, 3, 4)
    x, y = [torch.randn(8, 1, 4), a], [torch.randn(8, 1, 4), b]
    product, norm = SelfProduct([4, 4], 1), IrrepsNorm()
    same = [
        torch.allclose(p, q, atol=1e-10)
        for p, q in zip(product(turned(x), turned(y)), turned(product(x, y)), strict=True)
    ]
    assert same == ([True, False] if mirrored else [True, True])
    assert torch.allclose(norm(turned(x))[1], turned(norm(x))[1], atol=1e-10)
    assert torch.allclose(invariants(turned(x)), invariants(x), atol=1e-10)
    factors = torch.randn(8, 8)
    assert torch.allclose(scaled(turned(x), factors)[1], turned(scaled(x, factors))[1])


def test_irreps_are_checked():
    assert widths("8x0e + 4x1e") == [8, 4]
    for wrong in ("8x0e + 4x1o", "4x1e", "8x0e + 2x2e", "4x1e + 8x0e"):
        with pytest.raises(ValueError, match="irreps="):
            widths(wrong)
