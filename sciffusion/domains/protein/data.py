"""Backbones as flat tensors: dense batches, one chain of a cluster a pass, crops, and conditions.

Coordinates, secondary structure and numbering lie end to end with their offsets, so a batch is a
few gathers on any device. Backbones come from an Arrow store; Biopython is not needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from sciffusion import __version__, resources
from sciffusion.core.rng import Rng
from sciffusion.data.preparation import locked
from sciffusion.data.splits import Splits, split_by
from sciffusion.domains.protein.backbone import CA, Backbone
from sciffusion.domains.protein.secondary import psea
from sciffusion.domains.protein.store import read_store, write_shard
from sciffusion.errors import InputError

MULTIPLE = 16
"""Batches are padded to a multiple of this many residues: few shapes for the compiler."""
POOL = 16
"""Batches within which lengths are sorted."""
FEW = 1024
"""Records of a pass, at least: more than a batch."""
UNKNOWN_SS = 3
"""A residue whose secondary structure is not said; 0 is loop, 1 helix, 2 strand."""


def clusters_of(backbones: Sequence[Backbone]) -> list[str]:
    """A name for each one's cluster; who has none is one of its own."""
    return [str(b.cluster) if b.cluster >= 0 else f"alone {k}" for k, b in enumerate(backbones)]


class Chains:
    """Training data: a chain is a record, a pass takes one chain of each cluster.

    Args:
        backbones: chains, with their `cluster`; -1 is a cluster of its own.
        longest: the residues of a longer chain that count when lengths are sorted (see `crop`).
    """

    def __init__(self, backbones: Sequence[Backbone], longest: int | None = None) -> None:
        self.longest = longest
        size = torch.tensor([len(b) for b in backbones])
        self.start = torch.cat([size.new_zeros(1), size.cumsum(0)])
        flat = np.concatenate([b.coords for b in backbones]).astype(np.float32)
        self.coords = torch.from_numpy(flat)
        codes = np.concatenate([psea(b.coords[:, CA], b.joined) for b in backbones])
        self.secondary = torch.from_numpy(codes.astype(np.int64))
        self.residue = torch.from_numpy(np.concatenate([places(b) for b in backbones]))
        self.chain = torch.from_numpy(np.concatenate([_chain_index(b) for b in backbones]))
        kin = clusters_of(backbones)
        rank = {name: k for k, name in enumerate(dict.fromkeys(kin))}
        self.label = torch.tensor([rank[name] for name in kin])
        self.member, self.count = self.label.argsort(stable=True), self.label.bincount()
        self.first = self.count.cumsum(0) - self.count

    def __len__(self) -> int:
        """Records of a pass: every cluster once, or as often where there are few."""
        return len(self.count) * -(-FEW // len(self.count))

    def size(self, chains: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
        """Residues of these chains as they are gathered."""
        size = self.start[chains + 1] - self.start[chains]
        return size if self.longest is None else size.clamp_max(self.longest)

    def gather(self, chains: Int[Tensor, " b"]) -> dict[str, Tensor]:
        """Padded tensors of these chains.

        "x" (b, L, 4, 3) in Angstrom, "mask", "residue", "chain" and "secondary" (b, L), "label"
        (b,) the cluster.
        """
        whole = self.start[chains + 1] - self.start[chains]
        length = -(-int(whole.max()) // MULTIPLE) * MULTIPLE
        place = torch.arange(length, device=chains.device)
        mask = place < whole[:, None]
        index = torch.where(mask, self.start[chains][:, None] + place, 0)
        return {
            "x": self.coords[index] * mask[..., None, None],
            "mask": mask,
            "residue": self.residue[index] * mask,
            "chain": self.chain[index] * mask,
            "secondary": torch.where(mask, self.secondary[index], UNKNOWN_SS),
            "label": self.label[chains],
        }

    def arrange(self, order: Int[Tensor, " n"], batch_size: int) -> Int[Tensor, " m"]:
        """A random order of clusters as chains, like lengths in one batch, batches at random.

        Which chain of a cluster is taken follows from the cluster's place in the order.
        """
        order = order[: len(order) // batch_size * batch_size]
        cluster = order % len(self.count)
        turn = torch.arange(len(order)) % self.count[cluster]
        chains = self.member[self.first[cluster] + turn]
        parts = []
        for pool in chains.split(POOL * batch_size):
            ranked = self.size(pool).argsort(stable=True).view(-1, batch_size)
            parts.append(pool[ranked[ranked[:, 0].argsort()]].flatten())
        return torch.cat(parts)


def places(backbone: Backbone) -> Int[np.ndarray, " l"]:
    """(L,) the place of each residue in its chain, with a gap where residues are missing."""
    step = np.ones(len(backbone), np.int64)
    step[0] = 0
    jump = np.diff(backbone.number.astype(np.int64))
    same = backbone.chain[1:] == backbone.chain[:-1]
    # Where a bond is missing the numbers may not tell how much: at least one residue
    step[1:] = np.where(backbone.joined | ~same, 1, np.clip(jump, 2, 64))
    return np.cumsum(step)


def _chain_index(backbone: Backbone) -> Int[np.ndarray, " l"]:
    return np.concatenate([[0], (backbone.chain[1:] != backbone.chain[:-1]).cumsum()])


def crop(batch: dict[str, Tensor], longest: int, rng: Rng) -> dict[str, Tensor]:
    """Chains beyond `longest` residues cut to that many in a row, from a place drawn at random."""
    length = batch["mask"].sum(1)
    if int(length.max()) <= longest:
        return batch
    room = (length - longest).clamp_min(0)
    first = (rng.uniform("crop").to(length.device) * (room + 1)).long()
    index = first[:, None] + torch.arange(longest, device=length.device)
    real = index < length[:, None]
    index = index.clamp_max(batch["mask"].shape[1] - 1)
    rows = torch.arange(len(index), device=index.device)[:, None]
    cut = {k: v[rows, index] if v.ndim > 1 else v for k, v in batch.items()}
    real = real & cut["mask"]
    return cut | {"mask": real, "x": cut["x"] * real[..., None, None]}


def coordinate_std(backbones: Sequence[Backbone], longest: int | None = None) -> float:
    """Root mean square of centred coordinates over their degrees of freedom, in Angstrom.

    Chains beyond `longest` count by crops from their middle.
    """
    total, count = 0.0, 0
    for backbone in backbones:
        first = max(0, len(backbone) - (longest or len(backbone))) // 2
        x = backbone.coords[first : first + (longest or len(backbone))].reshape(-1, 3)
        x = x.astype(np.float64)
        total += float(((x - x.mean(0)) ** 2).sum())
        count += 3 * (len(x) - 1)
    return (total / count) ** 0.5


class ProteinSource(Protocol):
    """Where backbones come from."""

    longest: int | None

    def load(self) -> Splits[Backbone]:
        """Read them."""
        ...


def by_cluster(backbones: Sequence[Backbone], share: float) -> Splits[Backbone]:
    """Split off a share of the clusters; which side one falls on depends on its number alone."""
    return split_by(lambda b: str(b.cluster) if b.cluster >= 0 else b.name, backbones, share)


class Store:
    """A prepared store, or several with commas between.

    Args:
        root: directory of `prepare`.
        val: the same to measure against; by default a share of the clusters of `root`.
        val_share: that share.
        longest: longer chains are cropped to this many residues in training.
        most: leave out chains of more residues than this.
        name: of the run.
    """

    def __init__(
        self,
        root: str,
        val: str | None = None,
        val_share: float = 0.05,
        longest: int | None = 256,
        most: int | None = None,
        name: str | None = None,
    ) -> None:
        if not 0 < val_share < 1:
            raise InputError(f"data.val_share={val_share} must lie between 0 and 1")
        for what, value in (("longest", longest), ("most", most)):
            if value is not None and value < 4:
                raise InputError(f"data.{what}={value} must be at least 4 residues")
        self.root, self.val, self.val_share = root, val, val_share
        self.longest, self.most = longest, most

    def _read(self, roots: str) -> list[Backbone]:
        found = [b for root in roots.split(",") for b in read_store(root.strip())]
        return [b for b in found if len(b) <= (self.most or len(b))]

    def load(self) -> Splits[Backbone]:
        """Read them.

        Raises:
            InputError: no store, or one that cannot be read.
        """
        backbones = self._read(self.root)
        if self.val:
            return Splits(backbones, self._read(self.val))
        return by_cluster(backbones, self.val_share)


class Folds(Store):
    """Synthetic folds, built and cached on first use (see `synthetic`).

    Args:
        count: how many.
        seed: of them.
        val_share: share that is held out.
        name: of the run.
    """

    def __init__(
        self, count: int = 400, seed: int = 0, val_share: float = 0.1, name: str | None = None
    ) -> None:
        if count < 2:
            raise InputError(f"data.count={count} must be at least 2")
        super().__init__("", None, val_share, name=name)
        self.count, self.seed = count, seed

    def load(self) -> Splits[Backbone]:
        from rich.console import Console
        from rich.progress import Progress

        from sciffusion.domains.protein.synthetic import synthetic_folds

        root = resources.cache_dir() / "proteins" / f"folds-{__version__}-{self.count}-{self.seed}"
        console = Console(stderr=True)
        with locked(root):
            if not any(root.glob("part-*.arrow")):
                with Progress(console=console, disable=not console.is_terminal) as bar:
                    task = bar.add_task("building synthetic folds", total=self.count)
                    made = synthetic_folds(
                        self.count, self.seed, progress=lambda n: bar.advance(task, n)
                    )
                # Topologies are few; each fold counts by itself
                write_shard(root / "part-00000.arrow", [replace(b, cluster=-1) for b in made])
        self.root = str(root)
        return super().load()
