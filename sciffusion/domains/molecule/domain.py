"""The molecule domain: conformers (B, N, 3) in Angstrom, conditioned on their molecular graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

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
from sciffusion.core.spaces import Harmonic, ZeroCoM
from sciffusion.core.steering import NotFiniteError
from sciffusion.domains.base import Batch, Domain, Evaluation, free_memory, out_of_memory
from sciffusion.domains.molecule.data import (
    Conformers,
    Graphs,
    MoleculeSource,
    coordinate_std,
    structure,
)
from sciffusion.domains.molecule.graph import MolGraph
from sciffusion.errors import InputError
from sciffusion.io.build import build
from sciffusion.viz.grid import picture_grid
from sciffusion.viz.molecules import molecule_picture

if TYPE_CHECKING:
    from sciffusion.domains.molecule.edit import MoleculeEdit

MOST_ATOMS = {"cpu": 1000, "cuda": 20000}
"""Atoms of a batch that sampling is quickest with, by kind of device."""
EXAMPLES = 16
"""Held-out molecules whose graphs travel with the weights, for pictures."""


@dataclass(frozen=True)
class MoleculeSamples:
    """Conformers.

    Attributes:
        z: (N_i,) atomic numbers of each sample.
        bonds: (E_i, 2) each.
        coords: (N_i, 3) each, in Angstrom.
    """

    z: list[Int[np.ndarray, " n"]]
    bonds: list[Int[np.ndarray, "e 2"]]
    coords: list[Float[np.ndarray, "n 3"]]

    def __len__(self) -> int:
        return len(self.coords)

    def __getitem__(self, index: Any) -> MoleculeSamples:
        rows = np.arange(len(self))[index]
        return MoleculeSamples(*([part[i] for i in rows] for part in vars(self).values()))


class MoleculeDomain(Domain):
    """Molecules.

    Args:
        data: config of a source in `domains.molecule.data`; None to sample only.
        facts: what `facts()` said when the run was trained; None to read it off the data.
    """

    name = "molecule"
    space = ZeroCoM()
    spaces = (ZeroCoM, Harmonic)
    shown = EXAMPLES
    headline = "AMR-R mean"
    quick: ClassVar[Mapping[str, Any]] = {"peers": [], "geometry": False, "energy": 0}

    def __init__(
        self, data: Mapping[str, Any] | None = None, facts: Mapping[str, Any] | None = None
    ) -> None:
        if data is not None:
            source: MoleculeSource = build(dict(data))
            self.splits = source.load()
        self._facts = dict(facts) if facts is not None else self._measure()
        self.examples = [MolGraph.from_plain(g) for g in self._facts["examples"]]

    def _measure(self) -> dict[str, Any]:
        train, val = self.data.train, self.data.val
        return {
            "sigma_data": coordinate_std(train),
            "elements": sorted({int(z) for r in train for z in r.graph.z}),
            "largest": max(len(r.graph) for r in train),
            "examples": [r.graph.to_plain() for r in (val or train)[:EXAMPLES]],
        }

    def network(self, model: Mapping[str, Any], learned_variance: bool) -> nn.Module:
        if learned_variance:
            raise InputError("learned_variance=true: the molecule networks give no variance")
        return build(model)

    def train_set(self) -> Conformers:
        return Conformers(self.data.train)

    def held_out(self) -> Conformers:
        return Conformers(self.data.val)

    def encode(self, batch: Batch, rng: Rng | None) -> tuple[Float[Tensor, "b n 3"], Cond]:
        x = centre(batch["x"], batch["mask"])
        if rng is not None:
            x = x @ random_rotations(rng, "augment", x.dtype).mT
        return x, structure(batch)

    def prior_cond(
        self, index: Int[Tensor, " n"], request: Mapping[str, Any]
    ) -> tuple[tuple[int, ...], Cond]:
        """Sample i is one of `request["graphs"][i]`; by default the examples in turn."""
        graphs: Sequence[MolGraph] = request.get("graphs") or self.examples
        asked = Graphs([graphs[i % len(graphs)] for i in index.tolist()])
        cond = structure(asked.gather(torch.arange(len(index))))
        return (cond.structure["mask"].shape[1], 3), cond

    def decode(self, x0: Float[Tensor, "n m 3"], cond: Cond) -> MoleculeSamples:
        s = cond.map(lambda v: v.cpu()).structure
        size = s["mask"].sum(1).tolist()
        return MoleculeSamples(
            [a[:n, 0].numpy() for a, n in zip(s["atoms"], size, strict=True)],
            [b.triu().nonzero().numpy() for b in s["bond"]],
            [x[:n].numpy() for x, n in zip(x0.float().cpu(), size, strict=True)],
        )

    def join(self, parts: Sequence[MoleculeSamples]) -> MoleculeSamples:
        joined: list[list[Any]] = [[], [], []]
        for part in parts:
            for whole, piece in zip(joined, vars(part).values(), strict=True):
                whole.extend(piece)
        return MoleculeSamples(*joined)

    def preview(self, samples: MoleculeSamples, most: int = 16) -> Image.Image:
        """A grid of ball-and-stick pictures."""
        shown = samples[:most]
        parts = zip(shown.coords, shown.z, shown.bonds, strict=True)
        pictures = [molecule_picture(*part) for part in parts]
        return picture_grid(pictures, columns=max(1, round(len(pictures) ** 0.5)))

    def serve(
        self,
        denoiser: Denoiser,
        sampler: Sampler,
        settings: Mapping[str, Any],
        device: torch.device,
    ) -> None:
        from sciffusion.domains.molecule.serve import serve

        serve(self, denoiser, sampler, settings, device)

    def evaluate(
        self,
        denoiser: Denoiser,
        sampler: Sampler,
        settings: Mapping[str, Any],
        device: torch.device,
    ) -> Evaluation | None:
        from sciffusion.domains.molecule.evaluation import evaluate

        return evaluate(self, denoiser, sampler, settings, device)


def batches(sizes: Sequence[int], most_atoms: int) -> list[list[int]]:
    """Positions grouped by like size, so that a padded batch holds at most `most_atoms` atoms.

    Pairs are what memory goes to: molecules beyond 64 atoms count more than their atoms.
    """
    found: list[list[int]] = []
    for k in sorted(range(len(sizes)), key=lambda k: (sizes[k], k)):
        cost = sizes[k] * max(1.0, sizes[k] / 64)
        if not found or (len(found[-1]) + 1) * cost > most_atoms:
            found.append([])
        found[-1].append(k)
    return found


def atoms_together(most_atoms: int | None, device: torch.device | str) -> int:
    """Atoms of a batch: those asked for, or what suits the device.

    Raises:
        InputError: no whole number, or under 1.
    """
    if most_atoms is None:
        return MOST_ATOMS.get(torch.device(device).type, MOST_ATOMS["cpu"])
    if not isinstance(most_atoms, int) or most_atoms < 1:
        raise InputError(f"most_atoms={most_atoms} must be a whole number of at least 1")
    return most_atoms


def draw_coordinates(
    denoiser: Denoiser,
    sampler: Sampler,
    graphs: Sequence[MolGraph],
    numbers: Sequence[int],
    seed: int = 0,
    device: torch.device | str = "cpu",
    most_atoms: int | None = None,
    edit: MoleculeEdit | None = None,
) -> list[Float[np.ndarray, "n 3"]]:
    """One conformer (N_i, 3) in Angstrom of each graph; graphs may repeat.

    Args:
        numbers: name the random numbers of each draw: a graph's draw of a seed and a number is the
            same whatever it is drawn beside.
        most_atoms: of one batch, padding included; by default what suits the device. A batch that
            does not fit into memory is halved.
        edit: what the conformers are led by.

    Raises:
        InputError: `most_atoms` under 1, or one molecule alone does not fit into memory.
    """
    most = atoms_together(most_atoms, device)
    found: list[np.ndarray] = [np.zeros((0, 3), np.float32)] * len(graphs)
    number = torch.tensor([n & 0xFFFFFFFF for n in numbers], dtype=torch.int64)
    unique = {id(g): g for g in graphs}
    known = Graphs(list(unique.values()))
    place = {key: k for k, key in enumerate(unique)}
    which = torch.tensor([place[id(g)] for g in graphs], dtype=torch.int64)
    waiting = batches([len(g) for g in graphs], most)[::-1]
    while waiting:
        rows = waiting.pop()
        try:
            cond = structure({k: v.to(device) for k, v in known.gather(which[rows]).items()})
            shape = (cond.structure["mask"].shape[1], 3)
            led, begun, index = denoiser, {}, number[rows].to(device)
            if edit is not None:
                led = edit.lead(denoiser, [graphs[k] for k in rows], shape)
                begun = edit.begin(led, sampler, shape, cond, seed, index)
            out = sampler(led, shape, cond, seed, index=index, device=device, **begun)
        except NotFiniteError as error:
            raise InputError(str(error)) from error
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if len(rows) == 1:
                size = len(graphs[rows[0]])
                raise InputError(f"a molecule of {size} atoms does not fit into memory") from error
            waiting += [rows[len(rows) // 2 :], rows[: len(rows) // 2]]
            free_memory()
            continue
        for k, x in zip(rows, out.x.float().cpu().numpy(), strict=True):
            x = x[: len(graphs[k])]
            found[k] = x if edit is None else edit.placed(x)
    return found
