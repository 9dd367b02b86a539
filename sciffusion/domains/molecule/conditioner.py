"""What a network knows of a molecule before it sees a coordinate: atoms, bonds, shortest paths.

Atoms are embedded by their categories and mixed along bonds; pairs of atoms get an embedding of
bond, path length and the side of a double bond on which they must lie.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from sciffusion.core.cond import Cond
from sciffusion.domains.molecule.data import BOND_CODES, MOST_HOPS
from sciffusion.domains.molecule.graph import ATOM_FEATURES

MOST_BONDS = 8
"""Neighbours that an atom is told of: more than any drug-like atom has."""


def neighbours_along_bonds(cond: Cond) -> tuple[Int[Tensor, "b n k"], Int[Tensor, "b n k"]]:
    """(bond codes, neighbours): places without a bond have code 0."""
    bond = cond.structure["bond"]
    code, j = bond.topk(min(MOST_BONDS, bond.shape[1]), -1)
    # Places without a bond name the atom itself: gradients of all would queue up at one atom
    return code, torch.where(code > 0, j, torch.arange(j.shape[1], device=j.device)[:, None])


def pair_codes(
    cond: Cond, bond: Float[Tensor, "k d"], hops: Float[Tensor, "l d"], side: Float[Tensor, "m d"]
) -> tuple[Int[Tensor, "b n n"], Float[Tensor, "klm d"]]:
    """(codes, table) of all combinations: a pair is then looked up once."""
    s = cond.structure
    table = (bond[:, None, None] + hops[:, None] + side).flatten(0, 2)
    return (s["bond"] * len(hops) + s["hops"]) * len(side) + s["side"], table


class BondGraph(nn.Module):
    """h_i <- h_i + W sum_j silu(A h_i + B h_j + e_ij) over bonded j, some times.

    Args:
        dim: width of an atom.
        layers: rounds of messages.
    """

    def __init__(self, dim: int, layers: int = 3) -> None:
        super().__init__()
        self.atoms = nn.ModuleList(nn.Embedding(n, dim) for n in ATOM_FEATURES.values())
        self.bond = nn.Embedding(BOND_CODES, dim)
        self.rounds = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm": nn.LayerNorm(dim),
                    "ends": nn.Linear(dim, 2 * dim),
                    "out": nn.Linear(dim, dim),
                    "mlp": nn.Sequential(
                        nn.LayerNorm(dim),
                        nn.Linear(dim, 2 * dim),
                        nn.SiLU(),
                        nn.Linear(2 * dim, dim),
                    ),
                }
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, cond: Cond) -> Float[Tensor, "b n dim"]:
        """Atoms that know their neighbourhood."""
        s = cond.structure
        h = torch.stack([e(s["atoms"][..., k]) for k, e in enumerate(self.atoms)]).sum(0)
        code, j = neighbours_along_bonds(cond)
        bonded = (code > 0)[..., None].to(h.dtype)
        edge: Tensor | None = None
        rows = torch.arange(len(h), device=h.device)[:, None, None]
        for part in self.rounds:
            own, other = part["ends"](part["norm"](h)).chunk(2, -1)
            # One type for all: sums of mixed ones are many times slower
            edge = self.bond(code).to(own.dtype) if edge is None else edge
            message = F.silu(own[:, :, None] + other[rows, j] + edge) * bonded.to(own.dtype)
            h = h + part["out"](message.sum(2))
            h = h + part["mlp"](h)
        return self.norm(h)


class PairEmbedding(nn.Module):
    """(B, dim, N, N) bond, path length, side, and what the two atoms are."""

    def __init__(self, atom_dim: int, dim: int) -> None:
        super().__init__()
        self.bond = nn.Embedding(BOND_CODES, dim)
        self.hops = nn.Embedding(MOST_HOPS + 2, dim)
        self.side = nn.Embedding(3, dim)
        self.ends = nn.Linear(atom_dim, 2 * dim)

    def forward(self, h: Float[Tensor, "b n d"], cond: Cond) -> Float[Tensor, "b dim n n"]:
        own, other = self.ends(h).mT.chunk(2, 1)
        code, table = pair_codes(cond, self.bond.weight, self.hops.weight, self.side.weight)
        known = F.embedding(code, table.to(own.dtype)).permute(0, 3, 1, 2).contiguous()
        return known + own[..., None] + other[:, :, None]


def each(linear: nn.Linear, pair: Float[Tensor, "b p n n"]) -> Float[Tensor, "b q n n"]:
    """A linear layer of every pair. Pairs come last in memory: the fast axes are then long ones."""
    made = mapped(linear.weight, pair)
    return made + linear.bias.to(made.dtype)[:, None, None]


def mapped(weight: Float[Tensor, "q p"], pair: Float[Tensor, "b p n n"]) -> Tensor:
    """The same for a bare matrix."""
    flat = pair.flatten(2)
    return torch.bmm(weight.expand(len(flat), -1, -1), flat).unflatten(2, pair.shape[2:])


class Conditioner(nn.Module):
    """Atoms and pairs together, worked out once where the same molecule is seen many times."""

    def __init__(self, dim: int, pair_dim: int, layers: int) -> None:
        super().__init__()
        self.graph, self.pairs = BondGraph(dim, layers), PairEmbedding(dim, pair_dim)

    def forward(self, cond: Cond) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b p n n"]]:
        """(atoms, pairs), from `prepare` where it was called."""
        if "known_atoms" in cond.structure:
            return cond.structure["known_atoms"], cond.structure["known_pairs"]
        h = self.graph(cond)
        return h, self.pairs(h, cond)

    def prepare(self, cond: Cond) -> Cond:
        """`cond` with the answer in it."""
        atoms, pairs = self(cond)
        return cond.with_structure(known_atoms=atoms, known_pairs=pairs)
