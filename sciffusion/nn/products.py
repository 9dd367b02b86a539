"""What products of near residues are computed by: our own layer, e3nn, or cuequivariance.

All three are one function of the same weights, so a trained network runs on any. The other two
couple every edge before they sum: more work on a CPU, and what NVIDIA's kernels are made for on a
GPU.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from e3nn import o3
from jaxtyping import Float
from torch import Tensor, nn

from sciffusion.errors import InputError
from sciffusion.nn.equivariant import Blocks, NeighbourProduct, blocks_of, flat

BACKENDS = ("own", "e3nn", "cuequivariance")


def neighbour_product(width: list[int], lmax: int, backend: str = "own") -> NeighbourProduct:
    """The product of `NeighbourProduct`, computed by `backend`.

    Raises:
        InputError: another backend, or one that is not installed.
    """
    made = {"own": NeighbourProduct, "e3nn": E3nnProduct, "cuequivariance": CueProduct}
    if backend not in made:
        raise InputError(f"model.backend={backend} is not known: {', '.join(BACKENDS)}")
    return made[backend](width, lmax)


class Foreign(NeighbourProduct, ABC):
    """A product of another library, built where it is first needed.

    It has tables and no weights, so it is kept out of the module's state: a checkpoint is the same
    whatever computed it.
    """

    def __init__(self, width: list[int], lmax: int) -> None:
        super().__init__(width, lmax)
        self._made: dict[Any, nn.Module] = {}

    @abstractmethod
    def build(self) -> nn.Module:
        """The library's own module."""

    def product(self, like: Tensor) -> nn.Module:
        """It, on the device and in the type of `like`."""
        key = like.device, like.dtype
        if key not in self._made:
            self._made[key] = self.build().to(*key)
        return self._made[key]


class E3nnProduct(Foreign):
    """e3nn's weighted "uvu" product of every edge (Geiger & Smidt 2022), then the sum."""

    def build(self) -> nn.Module:
        """One path for each coupling."""
        paths = self.couple.paths
        into = o3.Irreps([(c, (degree, 1)) for degree, c in enumerate(self.width)])
        found: nn.Module = o3.TensorProduct(
            into,
            o3.Irreps.spherical_harmonics(self.lmax, p=1),
            o3.Irreps([(self.width[a], (c, 1)) for a, _, c in paths]),
            [(a, b, k, "uvu", True) for k, (a, b, _) in enumerate(paths)],
            irrep_normalization="component",
            path_normalization="none",
            shared_weights=False,
            internal_weights=False,
        )
        return found

    def forward(
        self, x: Blocks, sh: Float[Tensor, "*n k s"], weight: Float[Tensor, "*n k w"]
    ) -> Blocks:
        """As `NeighbourProduct`."""
        parts = weight.split(self.width, -1)
        each = torch.cat([parts[a] for a, _, _ in self.couple.paths], -1)
        return blocks_of(self.product(each)(flat(x), sh, each).sum(-2), self.width_out)


class CueProduct(Foreign):
    """The same as a segmented polynomial of cuequivariance, with its kernels on a GPU."""

    def __init__(self, width: list[int], lmax: int) -> None:
        super().__init__(width, lmax)
        _cuequivariance()  # at once, not in the middle of a run

    def build(self) -> nn.Module:
        """One path for each coupling; those of one channel share its weight."""
        cue, cuet = _cuequivariance()
        descriptor = cue.SegmentedTensorProduct.from_subscripts("u,iu,j,ku+ijk")
        for degree, c in enumerate(self.width):
            descriptor.add_segment(0, (c,))
            descriptor.add_segment(1, (2 * degree + 1, c))
        for degree in range(self.lmax + 1):
            descriptor.add_segment(2, (2 * degree + 1,))
        for place, (a, b, c) in enumerate(self.couple.paths):
            descriptor.add_segment(3, (2 * c + 1, self.width[a]))
            table = (2 * c + 1) ** 0.5 * o3.wigner_3j(a, b, c, dtype=torch.float64)
            descriptor.add_path(a, a, b, place, c=table.numpy())
        # Its kernel wants one multiplicity throughout
        kernel = torch.cuda.is_available() and len(set(self.width)) == 1
        found: nn.Module = cuet.SegmentedPolynomial(
            cue.SegmentedPolynomial.eval_last_operand(descriptor),
            method="uniform_1d" if kernel else "naive",
        )
        return found

    def forward(
        self, x: Blocks, sh: Float[Tensor, "*n k s"], weight: Float[Tensor, "*n k w"]
    ) -> Blocks:
        """As `NeighbourProduct`."""
        rows = torch.cat([v.flatten(-2) for v in x], -1)
        (made,) = self.product(weight)([v.flatten(0, -2) for v in (weight, rows, sh)])
        summed = made.unflatten(0, sh.shape[:-1]).sum(-2)
        found: list[list[Tensor]] = [[] for _ in self.width_out]
        sizes = [(2 * c + 1, self.width[a]) for a, _, c in self.couple.paths]
        parts = summed.split([i * u for i, u in sizes], -1)
        for (_, _, c), part, size in zip(self.couple.paths, parts, sizes, strict=True):
            found[c].append(part.unflatten(-1, size))
        return [torch.cat(blocks, -1) for blocks in found]


def _cuequivariance() -> tuple[Any, Any]:
    try:
        import cuequivariance
        import cuequivariance_torch
    except ImportError as error:
        raise InputError(
            "model.backend=cuequivariance: pip install 'sciffusion[cuequivariance]' first"
        ) from error
    return cuequivariance, cuequivariance_torch
