"""The protein domain: backbones (B, L, 4, 3) of N, CA, C, O in Angstrom, centred at the origin.

`cond.structure` holds `mask`, `residue` (place along the chain) and `chain`; `cond.condition` what
guidance may drop: `secondary` (B, L) codes, `content` (B, 2) shares of helix and strand (-1 where
not said) and `label` (B,).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import Denoiser
from sciffusion.core.geometry import centre, random_rotations
from sciffusion.core.rng import Rng
from sciffusion.core.samplers import Sampler
from sciffusion.core.spaces import ZeroCoM
from sciffusion.domains.base import Batch, Domain, Evaluation
from sciffusion.domains.protein.backbone import CA, Backbone
from sciffusion.domains.protein.data import (
    MULTIPLE,
    UNKNOWN_SS,
    Chains,
    ProteinSource,
    Splits,
    clusters_of,
    coordinate_std,
    crop,
)
from sciffusion.domains.protein.secondary import psea
from sciffusion.errors import InputError
from sciffusion.io.build import build

EXAMPLES = 8
"""Samples shown in reports and previews."""
SIZE = (200, 180)
"""Pixels of each."""
SAID, SHARED = 0.3, 0.6
"""Share of chains whose fold is told residue by residue in training, and of those that are told
shares of helix and strand, as samples are by default; the others are told nothing."""
KNOWN = 512
"""Chains whose length and shares are kept to draw from, at most."""


class ProteinDomain(Domain):
    """Backbones.

    Args:
        data: config of a source in `domains.protein.data`; None to sample only.
        facts: what `facts()` said when the run was trained; None to read it off the data.
    """

    name = "protein"
    space = ZeroCoM()
    spaces = (ZeroCoM,)
    shown = EXAMPLES
    headline = "JS, CA angle and dihedral"
    quick: ClassVar[Mapping[str, Any]] = {"pairs": 0, "novelty": 0}

    def __init__(
        self, data: Mapping[str, Any] | None = None, facts: Mapping[str, Any] | None = None
    ) -> None:
        self.longest: int | None = None
        self.tells = (SAID, SHARED)
        if data is not None:
            source: ProteinSource = build(dict(data))
            self.splits, self.longest = source.load(), source.longest
        self._facts = dict(facts) if facts is not None else self._measure()

    @classmethod
    def of(cls, train: Sequence[Backbone], val: Sequence[Backbone]) -> ProteinDomain:
        """The domain of chains that are at hand."""
        found = cls(facts={})
        found.splits = Splits(train, val)
        found._facts = found._measure()
        return found

    def _measure(self) -> dict[str, Any]:
        train = self.data.train
        sizes = sorted(min(len(b), self.longest or len(b)) for b in train)
        return {
            "sigma_data": coordinate_std(train, self.longest),
            "largest": sizes[-1],
            "lengths": [sizes[round(q * (len(sizes) - 1))] for q in np.linspace(0, 1, EXAMPLES)],
            "classes": len(set(clusters_of(train))),
            "folds": known_folds(train, self.longest),
        }

    def network(self, model: Mapping[str, Any], learned_variance: bool) -> nn.Module:
        if learned_variance:
            raise InputError("learned_variance=true: the protein networks give no variance")
        node = dict(model)
        if node.get("scale", 0) is None:
            node["scale"] = self.facts()["sigma_data"]
        if node.get("classes") == -1:
            node["classes"] = self.facts()["classes"]
        return build(node)

    def train_set(self) -> Chains:
        return Chains(self.data.train, self.longest)

    def held_out(self) -> Chains:
        return Chains(self.data.val, self.longest)

    def continuous(self, batch: Batch, rng: Rng) -> tuple[Float[Tensor, "b l 4 3"], Cond]:
        """Nothing is told: the fold that a condition names was read off the coordinates."""
        x, cond = self.encode(batch, None)
        return x, cond.with_keep(torch.zeros(len(x), dtype=torch.bool, device=x.device))

    def encode(self, batch: Batch, rng: Rng | None) -> tuple[Float[Tensor, "b l 4 3"], Cond]:
        if rng is not None and self.longest is not None:
            batch = crop(dict(batch), self.longest, rng)
        mask, codes = batch["mask"], batch["secondary"]
        x = centre(batch["x"], mask)
        content = contents(codes, mask)
        if rng is not None:
            x = x @ random_rotations(rng, "augment", x.dtype).mT[:, None]
            said = rng.uniform("say fold")
            fold, shares = self.tells
            codes = torch.where((said < fold)[:, None], codes, UNKNOWN_SS)
            told = (said >= fold) & (said < fold + shares)
            content = torch.where(told[:, None], content, -1.0)
        structure = {k: batch[k] for k in ("mask", "residue", "chain")}
        condition = {"secondary": codes, "content": content, "label": batch["label"]}
        return x, Cond(structure, condition)

    def prior_cond(
        self, index: Int[Tensor, " n"], request: Mapping[str, Any]
    ) -> tuple[tuple[int, ...], Cond]:
        """Sample i has the chains `request["lengths"][i]`, e.g. [60] or [40, 40].

        `request` may also say `secondary` (codes of all residues, a sample each), `content`
        (helix, strand: a sample each) and `label`. By default lengths are those of the training
        data.
        """
        known = [[n] for n in self.facts()["lengths"]]
        asked: Sequence[Sequence[int]] = request.get("lengths") or known
        sizes = [list(asked[i % len(asked)]) for i in index.tolist()]
        longest = -(-max(map(sum, sizes)) // MULTIPLE) * MULTIPLE
        rows = [layout(s, longest) for s in sizes]
        structure = {k: torch.stack([r[k] for r in rows]) for k in rows[0]}
        condition: dict[str, Tensor] = {}
        if (secondary := request.get("secondary")) is not None:
            codes = torch.full((len(sizes), longest), UNKNOWN_SS)
            for row, i in enumerate(index.tolist()):
                said = torch.as_tensor(secondary[i % len(secondary)])
                codes[row, : len(said)] = said
            condition["secondary"] = codes
        if (content := request.get("content")) is not None:
            told = [content[i % len(content)] for i in index.tolist()]
            condition["content"] = torch.tensor(told).float()
        if (label := request.get("label")) is not None:
            condition["label"] = torch.full((len(sizes),), int(label))
        return (longest, 4, 3), Cond(structure, condition)

    def decode(self, x0: Float[Tensor, "n l 4 3"], cond: Cond) -> list[Backbone]:
        s = cond.map(lambda v: v.cpu()).structure
        found = []
        for x, mask, chain in zip(x0.float().cpu(), s["mask"], s["chain"], strict=True):
            lengths = torch.bincount(chain[mask]).tolist()
            found.append(Backbone.of(x[mask].numpy(), lengths=lengths))
        return found

    def join(self, parts: Sequence[list[Backbone]]) -> Any:
        joined = np.empty(sum(map(len, parts)), dtype=object)
        joined[:] = [b for part in parts for b in part]
        return joined

    def preview(self, samples: Sequence[Backbone], most: int = EXAMPLES) -> Image.Image:
        """A grid of traces."""
        from sciffusion.viz.grid import picture_grid
        from sciffusion.viz.proteins import backbone_picture

        shown = list(samples)[:most]
        pictures = [backbone_picture(b.coords[:, CA], size=SIZE) for b in shown]
        return picture_grid(pictures)

    def serve(
        self,
        denoiser: Denoiser,
        sampler: Sampler,
        settings: Mapping[str, Any],
        device: torch.device,
    ) -> None:
        from sciffusion.domains.protein.serve import serve

        serve(self, denoiser, sampler, settings, device)

    def evaluate(
        self,
        denoiser: Denoiser,
        sampler: Sampler,
        settings: Mapping[str, Any],
        device: torch.device,
    ) -> Evaluation | None:
        from sciffusion.domains.protein.evaluation import evaluate

        return evaluate(self, denoiser, sampler, settings, device)


def known_folds(
    backbones: Sequence[Backbone], longest: int | None = None
) -> list[tuple[int, float, float]]:
    """(residues, helix, strand) of one chain a cluster, by length, every so many of them.

    Those that would be cropped are left out where others are not: a part of a fold is no fold.
    """
    whole = [b for b in backbones if len(b) <= (longest or len(b))] or list(backbones)
    first = dict(zip(clusters_of(whole), whole, strict=True))
    found = []
    for b in sorted(first.values(), key=lambda b: (len(b), b.name)):
        codes = psea(b.coords[:, CA], b.joined)
        found.append((len(b), *(round(float((codes == k).mean()), 3) for k in (1, 2))))
    return found[:: -(-len(found) // KNOWN)]


def contents(codes: Int[Tensor, "b l"], mask: Tensor) -> Float[Tensor, "b 2"]:
    """Shares of helix and of strand."""
    count = mask.sum(1).clamp_min(1)
    return torch.stack([((codes == k) & mask).sum(1) / count for k in (1, 2)], 1)


def layout(chains: Sequence[int], padded: int) -> dict[str, Tensor]:
    """`mask`, `residue` and `chain` of chains of these lengths, one after the other.

    Raises:
        InputError: no chain, or one without residues.
    """
    if not chains or min(chains) < 1:
        raise InputError(f"lengths {list(chains)}: give at least one chain of at least one residue")
    total = sum(chains)
    chain = torch.repeat_interleave(torch.arange(len(chains)), torch.tensor(chains))
    found = {"residue": torch.arange(total), "chain": chain, "mask": torch.ones(total).bool()}
    return {k: torch.nn.functional.pad(v, (0, padded - total)) for k, v in found.items()}
