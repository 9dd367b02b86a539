"""Layers on SO(3) irreps: linear, norm, gates and tensor products, with e3nn's coupling.

Features are a list with one tensor a degree l, (..., 2l + 1, channels): what a matrix product and a
CPU's caches like, where e3nn's flat layout interleaves. Components and Clebsch-Gordan coefficients
are e3nn's (Geiger & Smidt 2022), and tests hold every layer to its counterpart there. Parity is not
tracked: all irreps are even and spherical harmonics have p = 1, so a network of these layers knows
left from right (it is SO(3)-equivariant, not O(3)).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from e3nn import o3
from jaxtyping import Float
from torch import Tensor, nn

from sciffusion.core.geometry import full_precision

Blocks = list[Tensor]
"""(..., 2l + 1, channels) for l = 0, 1, ..."""


def widths(irreps: str | o3.Irreps) -> list[int]:
    """Channels of each degree of "64x0e + 16x1e + ...".

    Raises:
        ValueError: an odd irrep, a degree left out or named twice, or none that is a scalar.
    """
    found = o3.Irreps(irreps)
    if any(ir.p != 1 for _, ir in found):
        raise ValueError(f"irreps={found}: parity is not tracked here, so all must be even (e)")
    if [ir.l for _, ir in found] != list(range(len(found))) or not len(found):
        raise ValueError(f"irreps={found} must name each degree once, in order, beginning with 0e")
    return [mul for mul, _ in found]


def flat(blocks: Blocks) -> Float[Tensor, "*b d"]:
    """In e3nn's layout, channel after channel."""
    return torch.cat([b.mT.flatten(-2) for b in blocks], -1)


def blocks_of(x: Float[Tensor, "*b d"], width: list[int]) -> Blocks:
    """The reverse of `flat`."""
    parts = x.split([(2 * degree + 1) * c for degree, c in enumerate(width)], -1)
    return [p.unflatten(-1, (width[k], 2 * k + 1)).mT for k, p in enumerate(parts)]


@full_precision
def spherical_harmonics(
    lmax: int, vectors: Float[Tensor, "*b 3"], spread: float = 1e-3
) -> Float[Tensor, "*b s"]:
    """Of directions, 1 + 3 + ... numbers, component-normalised.

    Args:
        spread: at lengths below this those of l > 0 fade out, so that nothing jumps where two
            points meet.
    """
    length = (vectors.square().sum(-1, keepdim=True) + spread**2).sqrt()
    irreps = o3.Irreps([(1, (degree, 1)) for degree in range(lmax + 1)])
    found: Tensor = o3.spherical_harmonics(irreps, vectors / length, False, "component")
    return found


def invariants(x: Blocks) -> Float[Tensor, "*b c"]:
    """Scalars as they are, log(1 + |v|^2) of every other channel."""
    return torch.cat([x[0].squeeze(-2), *(torch.log1p(v.square().sum(-2)) for v in x[1:])], -1)


def scaled(x: Blocks, factors: Float[Tensor, "*b c"]) -> Blocks:
    """Every channel times its own factor."""
    parts = factors.split([v.shape[-1] for v in x], -1)
    return [v * f[..., None, :] for v, f in zip(x, parts, strict=True)]


def added(x: Blocks, y: Blocks) -> Blocks:
    """Sum."""
    return [a + b for a, b in zip(x, y, strict=True)]


class IrrepsLinear(nn.Module):
    """Channels of each degree mixed among themselves; a bias on scalars.

    Args:
        into: channels of each degree.
        out: channels of each degree of the answer.
    """

    def __init__(self, into: list[int], out: list[int], bias: bool = True) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Linear(a, b, bias=bias and degree == 0)
            for degree, (a, b) in enumerate(zip(into, out, strict=False))
        )

    def forward(self, x: Blocks) -> Blocks:
        """Mix."""
        return [layer(v) for layer, v in zip(self.layers, x, strict=False)]


class IrrepsNorm(nn.Module):
    """Layer norm of the scalars; of each other degree, division by its root mean square."""

    def forward(self, x: Blocks) -> Blocks:
        """Normalise."""
        others = [F.rms_norm(v, v.shape[-2:], eps=1e-5) for v in x[1:]]
        return [F.layer_norm(x[0], x[0].shape[-1:]), *others]


def couplings(one: int, two: int, lmax: int) -> list[tuple[int, int, int]]:
    """All (l1, l2, l3) with l1 <= one, l2 <= two, l3 <= lmax, ordered by l3."""
    found = [
        (a, b, c)
        for a in range(one + 1)
        for b in range(two + 1)
        for c in range(abs(a - b), min(a + b, lmax) + 1)
    ]
    return sorted(found, key=lambda path: path[2])


class Coupled(nn.Module):
    """Clebsch-Gordan: x (2a + 1, 2b + 1) to all degrees c, each a block of channels."""

    def __init__(self, paths: list[tuple[int, int, int]]) -> None:
        super().__init__()
        self.paths = paths
        for a, b, c in paths:
            # e3nn's "component" normalisation: unit variance in, unit variance out
            table = (2 * c + 1) ** 0.5 * o3.wigner_3j(a, b, c)
            self.register_buffer(f"w{a}{b}{c}", table.reshape(-1, 2 * c + 1).T, persistent=False)

    def forward(self, products: dict[tuple[int, int], Float[Tensor, "*b ab c"]]) -> Blocks:
        """The coupled blocks, those of one degree end to end."""
        found: list[list[Tensor]] = []
        for a, b, c in self.paths:
            if len(found) <= c:
                found.append([])
            x = products[a, b]
            found[c].append(x if a * b == 0 else getattr(self, f"w{a}{b}{c}").to(x.dtype) @ x)
        return [torch.cat(parts, -1) for parts in found]

    def width(self, channels: dict[tuple[int, int], int]) -> list[int]:
        """Channels of each degree of the answer, from those of each product."""
        lmax = max(c for _, _, c in self.paths)
        return [
            sum(channels[a, b] for a, b, c in self.paths if c == degree)
            for degree in range(lmax + 1)
        ]


class NeighbourProduct(nn.Module):
    """sum_k w_k (x_k x Y_k): near residues' features times spherical harmonics, channel by channel.

    Products are summed over the neighbours first and coupled afterwards, once a node instead of
    once an edge: one small matrix product (harmonics x neighbours) (neighbours x channels) a node.
    It is e3nn's "uvu" tensor product whose paths share the weight of their channel; a linear layer
    afterwards mixes the paths.

    Args:
        width: channels of each degree of the features.
        lmax: of the harmonics and of the answer.

    Attributes:
        width_out: channels of each degree of the answer.
        weight_numel: weights that an edge needs, one a channel.
    """

    def __init__(self, width: list[int], lmax: int) -> None:
        super().__init__()
        self.width, self.lmax = width, lmax
        self.couple = Coupled(couplings(len(width) - 1, lmax, lmax))
        pairs = {(a, b): width[a] for a, b, _ in self.couple.paths}
        self.width_out = self.couple.width(pairs)
        self.weight_numel = sum(width)

    def forward(
        self, x: Blocks, sh: Float[Tensor, "*n k s"], weight: Float[Tensor, "*n k w"]
    ) -> Blocks:
        """x: (..., k, 2l + 1, channels) of the neighbours of each node."""
        rows = torch.cat([v.flatten(-2) for v in scaled(x, weight)], -1)
        sums = sh.mT @ rows
        parts = sums.split([v.shape[-1] * v.shape[-2] for v in x], -1)
        degrees = [2 * b + 1 for b in range(self.lmax + 1)]
        products = {}
        for a, (part, v) in enumerate(zip(parts, x, strict=True)):
            for b, block in enumerate(part.split(degrees, -2)):
                both = block.unflatten(-1, v.shape[-2:])  # (..., 2b + 1, 2a + 1, c)
                products[a, b] = both.transpose(-2, -3).flatten(-3, -2)
        return self.couple(products)


class SelfProduct(nn.Module):
    """Products of two sets of channels of one node, channel by channel, l1 and l2 > 0 alone.

    For vectors these are their scalar and their vector product.
    """

    def __init__(self, width: list[int], lmax: int) -> None:
        super().__init__()
        paths = [p for p in couplings(len(width) - 1, len(width) - 1, lmax) if 0 < p[0] <= p[1]]
        # Channels pair up one to one, so only degrees of equal width multiply
        paths = [p for p in paths if width[p[0]] == width[p[1]]]
        self.couple = Coupled(paths)
        self.width_out = self.couple.width({(a, b): width[a] for a, b, _ in paths})

    def forward(self, x: Blocks, y: Blocks) -> Blocks:
        """Multiply."""
        pairs = {(a, b) for a, b, _ in self.couple.paths}
        return self.couple(
            {(a, b): (x[a][..., :, None, :] * y[b][..., None, :, :]).flatten(-3, -2)
             for a, b in pairs}
        )  # fmt: skip
