"""Molecules as flat tensors: dense batches of any records without a loop over them.

Everything ragged (atoms, bonds, stereo, conformers) lies end to end with its offsets, so a batch is
a few gathers on any device. Graphs come from an Arrow store; RDKit is not needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sciffusion.core.cond import Cond
from sciffusion.data.splits import Splits, hashed, split_by
from sciffusion.domains.molecule.graph import BOND_FEATURES, MolGraph, Record
from sciffusion.domains.molecule.store import read_store
from sciffusion.errors import InputError

if TYPE_CHECKING:
    from torch_geometric.data import Data

MULTIPLE = 8
"""Batches are padded to a multiple of this many atoms: few shapes for the compiler."""
BOND_CODES = int(np.prod(list(BOND_FEATURES.values())))


def bond_codes(features: np.ndarray) -> np.ndarray:
    """(E,) one number for a bond's features; 0 stays "no bond"."""
    _, conjugated, ring = BOND_FEATURES.values()
    kind, conj, size = features.astype(np.int64).T
    return (kind * conjugated + conj) * ring + size


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths, end to end.

    Attributes:
        values: (total, ...).
        start: (rows + 1,) where each row begins.
    """

    values: Tensor
    start: Int[Tensor, " rows_and_one"]

    @staticmethod
    def of(rows: Sequence[np.ndarray], dtype: torch.dtype) -> Ragged:
        """Rows put end to end."""
        start = np.concatenate([[0], np.cumsum([len(r) for r in rows])])
        values = np.concatenate(rows) if rows else np.zeros(0)
        return Ragged(torch.from_numpy(values).to(dtype), torch.from_numpy(start))

    def size(self, rows: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
        """How long these rows are."""
        return self.start[rows + 1] - self.start[rows]

    def dense(self, rows: Int[Tensor, " b"], length: int | None = None) -> tuple[Tensor, Tensor]:
        """((b, length, ...) values with zeros as padding, (b, length) what is real)."""
        size = self.size(rows)
        length = int(size.max()) if length is None else length
        place = torch.arange(length, device=rows.device)
        mask = place < size[:, None]
        index = torch.where(mask, self.start[rows][:, None] + place, 0)
        if not len(self.values):
            return self.values.new_zeros(*mask.shape, *self.values.shape[1:]), mask
        values = self.values[index]
        return values * mask.view(*mask.shape, *[1] * (values.ndim - 2)).to(values.dtype), mask


class Graphs:
    """Many molecules' graphs; `gather` gives the tensors that the network is conditioned on."""

    def __init__(self, graphs: Sequence[MolGraph]) -> None:
        flat = Ragged.of
        self.atoms = flat([g.atoms for g in graphs], torch.uint8)
        self.bonds = flat([g.bonds for g in graphs], torch.int16)
        self.codes = flat([bond_codes(g.bond_features) for g in graphs], torch.uint8)
        self.tetra = flat([g.tetra for g in graphs], torch.int16)
        self.tetra_sign = flat([g.tetra_sign for g in graphs], torch.int8)
        self.ez = flat([g.ez for g in graphs], torch.int16)
        self.ez_sign = flat([g.ez_sign for g in graphs], torch.int8)
        # Of one size, they need no padding
        self.multiple = 1 if len({len(g) for g in graphs}) == 1 else MULTIPLE

    def __len__(self) -> int:
        return len(self.atoms.start) - 1

    def gather(self, rows: Int[Tensor, " b"]) -> dict[str, Tensor]:
        """Padded tensors of these molecules, a leading axis of len(rows); see `structure`."""
        n = -(-int(self.atoms.size(rows).max()) // self.multiple) * self.multiple
        atoms, mask = self.atoms.dense(rows, n)
        (ends, _), (codes, _) = self.bonds.dense(rows), self.codes.dense(rows)
        bond = torch.zeros(len(rows), n, n, dtype=torch.uint8, device=rows.device)
        i, j = ends.long().unbind(-1)
        batch = torch.arange(len(rows), device=rows.device)[:, None]
        # Padded bonds read 0-0 with code 0; no bond joins an atom to itself, so they harm nothing.
        bond[batch, i, j] = codes
        bond[batch, j, i] = codes
        found = {"atoms": atoms, "mask": mask, "bond": bond}
        for name in ("tetra", "tetra_sign", "ez", "ez_sign"):
            found[name] = getattr(self, name).dense(rows)[0]
        return found


def shortest_paths(adjacent: Bool[Tensor, "b n n"], most: int) -> Int[Tensor, "b n n"]:
    """Bonds between two atoms, at most `most`; 0 on the diagonal, `most` + 1 where farther."""
    reach = torch.eye(adjacent.shape[1], dtype=torch.bool, device=adjacent.device)
    reach = reach.expand_as(adjacent)
    step = (adjacent | reach).float()
    distance = torch.where(reach, 0, most + 1)
    for hops in range(1, most + 1):
        reach, before = (reach.float() @ step) > 0, reach
        distance = torch.where(reach & ~before, hops, distance)
    return distance


def _sides(
    adjacent: Bool[Tensor, "b n n"], ez: Int[Tensor, "b e 4"], sign: Int[Tensor, "b e"]
) -> Int[Tensor, "b n n"]:
    """1 where two atoms must lie on one side of a double bond, 2 across, for all its neighbours."""
    n = adjacent.shape[1]
    told, begin, end, partner = F.one_hot(ez, n).float().unbind(2)

    def beside(atom: Tensor, other: Tensor, first: Tensor) -> Tensor:
        """+1 for the neighbour that the row names, -1 for the other one."""
        return 2 * first - (atom @ adjacent.float() - other)

    one, two = beside(begin, end, told), beside(end, begin, partner)
    signed = (one * sign[..., None]).mT @ two  # padding has sign 0
    signed = signed + signed.mT
    return (signed > 0).long() + 2 * (signed < 0).long()


MOST_HOPS = 7
"""Shortest paths are told up to this many bonds."""


def structure(batch: Mapping[str, Tensor]) -> Cond:
    """The conditioning of gathered graphs.

    `mask` (B, N), `atoms` (B, N, F), `bond` (B, N, N) codes, `hops` (B, N, N) shortest paths,
    `side` (B, N, N) 1 where two atoms must lie on one side of a double bond, 2 across, `tetra`
    (B, C, 5) and `tetra_sign` (B, C), `laplacian` (B, N, N) for harmonic noise.
    """
    bond = batch["bond"]
    adjacent = bond > 0
    degree = adjacent.sum(-1).float()
    return Cond(
        {
            "mask": batch["mask"],
            "atoms": batch["atoms"].long(),
            "bond": bond.long(),
            "hops": shortest_paths(adjacent, MOST_HOPS),
            "side": _sides(adjacent, batch["ez"].long(), batch["ez_sign"]),
            "tetra": batch["tetra"].long(),
            "tetra_sign": batch["tetra_sign"].long(),
            "laplacian": torch.diag_embed(degree) - adjacent.float(),
        }
    )


class Conformers:
    """Training data: every conformer is a record.

    Args:
        records: molecules with their conformers.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self.graphs = Graphs([r.graph for r in records])
        kept = [(m, x) for m, r in enumerate(records) for x in r.coords]
        self.molecule = torch.tensor([m for m, _ in kept], dtype=torch.int64)
        self.coords = Ragged.of([x for _, x in kept], torch.float32)

    def __len__(self) -> int:
        return len(self.molecule)

    def gather(self, indices: Int[Tensor, " b"]) -> dict[str, Tensor]:
        """Graphs and coordinates "x" (b, N, 3) of these conformers, in Angstrom."""
        batch = self.graphs.gather(self.molecule[indices])
        return batch | {"x": self.coords.dense(indices, batch["mask"].shape[1])[0]}

    def arrange(self, order: Int[Tensor, " n"], batch_size: int) -> Int[Tensor, " m"]:
        """A random order with molecules of like size in one batch, batches in random order.

        Sizes are sorted within pools of some batches; what does not fill a batch is left out of
        this pass.
        """
        order = order[: len(order) // batch_size * batch_size]
        parts = []
        for pool in order.split(POOL * batch_size):
            size = self.coords.size(pool)
            ranked = size.argsort(stable=True).view(-1, batch_size)
            parts.append(pool[ranked[ranked[:, 0].argsort()]].flatten())
        return torch.cat(parts)


POOL = 32


def coordinate_std(records: Iterable[Record]) -> float:
    """Root mean square of centred coordinates over their degrees of freedom, in Angstrom."""
    total, count = 0.0, 0
    for record in records:
        x = record.coords.astype(np.float64)
        total += float(((x - x.mean(1, keepdims=True)) ** 2).sum())
        count += 3 * (x.shape[1] - 1) * len(x)
    if not count:
        raise InputError("there is no molecule of two atoms or more to train on")
    return (total / count) ** 0.5


class MoleculeSource(Protocol):
    """Where molecules come from."""

    def load(self) -> Splits[Record]:
        """Read them."""
        ...


def by_scaffold(records: Sequence[Record], share: float) -> Splits[Record]:
    """Split off a share of the scaffolds; molecules without rings count by their own SMILES.

    Which side a scaffold falls on depends on the scaffold alone.
    """
    return split_by(lambda r: r.graph.scaffold or r.graph.smiles, records, share)


class Store:
    """A prepared store, or several; `val` holds other ones to measure against.

    Args:
        root: directory of `prepare`, or several with commas between.
        val: the same for validation; by default a share of the scaffolds of `root`.
        val_share: that share.
        largest: leave out molecules of more atoms than this.
        share: of the molecules of each root to train on, e.g. [1, 0.2]; by default all. Which
            they are depends on the molecule alone.
        name: of the run.
    """

    def __init__(
        self,
        root: str,
        val: str | None = None,
        val_share: float = 0.03,
        largest: int | None = None,
        share: Sequence[float] | None = None,
        name: str | None = None,
    ) -> None:
        if not 0 < val_share < 1:
            raise InputError(f"data.val_share={val_share} must lie between 0 and 1")
        roots = root.count(",") + 1
        if share is not None and (len(share) != roots or not all(0 < s <= 1 for s in share)):
            raise InputError(f"data.share={share} must hold {roots} numbers in (0, 1], one a root")
        self.root, self.val, self.val_share, self.largest = root, val, val_share, largest
        self.share = share

    def _read(self, roots: str, share: Sequence[float] | None) -> list[Record]:
        found, names = [], roots.split(",")
        for root, part in zip(names, share or [1.0] * len(names), strict=True):
            for record in read_store(root.strip()):
                small = 1 < len(record.graph) <= (self.largest or len(record.graph))
                if small and hashed(f"share {record.graph.smiles}") < part:
                    found.append(record)
        return found

    def load(self) -> Splits[Record]:
        """Read them.

        Raises:
            InputError: no store, or one that cannot be read.
        """
        records = self._read(self.root, self.share)
        if self.val:
            return Splits(records, self._read(self.val, None))
        return by_scaffold(records, self.val_share)


class Embedded(Store):
    """The molecules of datasets/molecules, with conformers made on first use; needs RDKit.

    Args:
        val_share: share of the scaffolds that is held out.
        name: of the run.
    """

    def __init__(self, val_share: float = 0.1, name: str | None = None) -> None:
        super().__init__("", None, val_share, name=name)

    def load(self) -> Splits[Record]:
        from sciffusion.domains.molecule.prepare import embedded_store

        self.root = str(embedded_store())
        return super().load()


def to_data(graph: MolGraph, coords: Float[np.ndarray, "n 3"] | None = None) -> Data:
    """A PyTorch Geometric graph: `x` categories, `edge_index`, `edge_attr`, `pos`, stereo tables.

    Indices in the tables count the graph's own atoms; bonds stand in both directions.
    """
    from torch_geometric.data import Data

    tensor = torch.from_numpy
    ends = tensor(graph.bonds.astype(np.int64)).T
    features = tensor(np.ascontiguousarray(graph.bond_features))
    parts: dict[str, Any] = {
        "x": tensor(np.ascontiguousarray(graph.atoms)),
        "edge_index": torch.cat([ends, ends.flip(0)], 1),
        "edge_attr": torch.cat([features, features]),
        "tetra": tensor(graph.tetra.astype(np.int64)),
        "tetra_sign": tensor(graph.tetra_sign.astype(np.int8)),
        "ez": tensor(graph.ez.astype(np.int64)),
        "ez_sign": tensor(graph.ez_sign.astype(np.int8)),
        "name": graph.name,
        "smiles": graph.smiles,
    }
    if coords is not None:
        parts["pos"] = tensor(np.asarray(coords, np.float32))
    return Data(**parts)
