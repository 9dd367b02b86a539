"""Boltzmann ensembles of one molecule by Langevin dynamics: reference, and frames to train on.

BAOAB splitting (Leimkuhler & Matthews 2013), whose positions are exact for harmonic bonds at any
step size, and every so often a Metropolis turn about a bond, so that no barrier keeps a chain to
itself. The law of positions does not depend on masses: hydrogens are made heavy, which lets steps
be longer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from sciffusion import __version__, resources
from sciffusion.atomic import atomic_path
from sciffusion.data.preparation import locked
from sciffusion.data.splits import Splits
from sciffusion.domains.molecule.energy import Field, field
from sciffusion.domains.molecule.geometry_stats import torsion
from sciffusion.domains.molecule.graph import ATOM_FEATURES, BOND_FEATURES, MolGraph, Record
from sciffusion.errors import InputError

BOLTZMANN = 1.987204259e-3
"""kcal/mol/K."""
ACCELERATION = 4.184e-4
"""kcal/mol/A/u in A/fs^2."""
HYDROGEN = 6.0
"""Mass that hydrogens are given, u."""
HEAVY = 14.0


@dataclass(frozen=True)
class Chains:
    """What Langevin chains visited.

    Attributes:
        coords: (F, K, N, 3) centred frames of K chains, in Angstrom.
        energy: (F, K) in kcal/mol.
    """

    coords: Float[np.ndarray, "f k n 3"]
    energy: Float[np.ndarray, "f k"]


def rotatable(graph: MolGraph) -> list[tuple[int, int, Bool[np.ndarray, " n"]]]:
    """(i, j, atoms on j's side) of each single bond outside rings with more on either side."""
    found = []
    kind, ring = (list(BOND_FEATURES).index(name) for name in ("type", "ring"))
    degree = graph.atoms[:, list(ATOM_FEATURES).index("degree")]
    for (i, j), features in zip(graph.bonds.tolist(), graph.bond_features, strict=True):
        if features[kind] == 1 and features[ring] == 0 and min(degree[i], degree[j]) > 1:
            side = np.zeros(len(graph), bool)
            side[j] = True
            while True:
                ends = graph.bonds[side[graph.bonds].any(1)]
                grown = side.copy()
                grown[ends] = True
                grown[i] = False
                if (grown == side).all():
                    break
                side = grown
            found.append((i, j, side))
    return found


def turned(
    x: Float[np.ndarray, "n 3"], bond: tuple[int, int, Bool[np.ndarray, " n"]], angle: float
) -> Float[np.ndarray, "n 3"]:
    """x with one side of a bond turned about it, by radians (Rodrigues)."""
    i, j, side = bond
    axis = (x[j] - x[i]) / np.linalg.norm(x[j] - x[i])
    v = x[side] - x[j]
    along = (v @ axis)[:, None] * axis
    x = x.copy()
    x[side] = x[j] + along + np.cos(angle) * (v - along) + np.sin(angle) * np.cross(axis[None], v)
    return x


def torsion_angle(
    coords: Float[np.ndarray, "*k n 3"], atoms: Sequence[int]
) -> Float[np.ndarray, "*k"]:
    """Torsion of four atoms of conformers, -180 to 180 degrees."""
    return torsion(*(coords[..., i, :].astype(np.float64) for i in atoms))


def langevin(
    energy: Field,
    graph: MolGraph,
    start: Float[np.ndarray, "k n 3"],
    steps: int,
    temperature: float = 300.0,
    every: int = 50,
    dt: float = 2.0,
    friction: float = 0.01,
    turn_every: int = 25,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Chains:
    """Chains of frames of exp(-U / kT).

    Args:
        energy: of the molecule.
        graph: its bonds, about which to turn.
        start: where each of the K chains begins; drop the first frames where this is no Boltzmann
            ensemble.
        steps: of each chain.
        temperature: kelvin.
        every: steps from frame to frame.
        dt: fs.
        friction: 1/fs.
        turn_every: steps from one Metropolis turn to the next; 0 is none.
        progress: told each step's number of chains.

    Raises:
        InputError: the force field does not know the molecule, or a chain blew up.
    """
    if not temperature > 0 or steps < every:
        raise InputError(f"Langevin: temperature={temperature} and steps={steps} are too few")
    x = start.astype(np.float64)
    slopes = np.stack([energy.gradient(p)[1] for p in x])
    if np.isnan(slopes).any():
        raise InputError("Langevin: the force field has no energy for this molecule")
    rng = np.random.default_rng(seed)
    kt = BOLTZMANN * temperature
    mass = np.where(graph.heavy, HEAVY, HYDROGEN)[:, None]
    width = np.sqrt(kt * ACCELERATION / mass)
    v = width * rng.standard_normal(x.shape)
    keep = np.exp(-friction * dt)
    stir = np.sqrt(1 - keep**2) * width
    kick = 0.5 * dt * ACCELERATION / mass
    bonds = rotatable(graph)
    value = np.array([energy.gradient(p)[0] for p in x])
    coords = np.empty((steps // every, *x.shape), np.float32)
    values = np.empty((steps // every, len(x)))
    for step in range(1, steps + 1):
        v -= kick * slopes
        x += 0.5 * dt * v
        v = keep * v + stir * rng.standard_normal(x.shape)
        x += 0.5 * dt * v
        for k, p in enumerate(x):
            value[k], slopes[k] = energy.gradient(p)
        v -= kick * slopes
        if turn_every and bonds and step % turn_every == 0:
            _turn(energy, bonds, kt, rng, x, value, slopes)
        if step % every == 0:
            if not np.isfinite(value).all():
                raise InputError("Langevin: a chain blew up; take a smaller dt")
            f = step // every - 1
            coords[f], values[f] = x - x.mean(1, keepdims=True), value
            x -= x.mean(1, keepdims=True)
        if progress is not None:
            progress(len(x))
    return Chains(coords, values)


def _turn(
    energy: Field,
    bonds: list[tuple[int, int, Bool[np.ndarray, " n"]]],
    kt: float,
    rng: np.random.Generator,
    x: np.ndarray,
    value: np.ndarray,
    slopes: np.ndarray,
) -> None:
    """One Metropolis turn a chain, in place; turning keeps volumes, and angles are symmetric."""
    for k in range(len(x)):
        there = turned(x[k], bonds[rng.integers(len(bonds))], rng.uniform(-np.pi, np.pi))
        new, slope = energy.gradient(there)
        if np.log(rng.random()) < (value[k] - new) / kt:
            x[k], value[k], slopes[k] = there, new, slope


def sampled(
    graph: MolGraph,
    chains: int,
    frames: int,
    temperature: float,
    name: str = "mmff",
    seed: int = 0,
    every: int = 50,
    burn: int = 20,
    progress: Callable[[int], None] | None = None,
) -> Chains:
    """Langevin from ETKDG conformers, without the first `burn` frames of each chain.

    Args:
        chains, frames: how many, and of each chain.
        name: of the force field: mmff or xtb.

    Raises:
        InputError: no conformers to begin with, or see `langevin`.
    """
    from sciffusion.domains.molecule.peers import etkdg

    begin = etkdg(graph, chains, seed)
    if not len(begin):
        raise InputError(f"Langevin: {graph.smiles} has no conformer to begin with")
    begin = begin[np.arange(chains) % len(begin)]
    found = langevin(
        field(name)(graph), graph, begin, (frames + burn) * every, temperature, every,
        seed=seed, progress=progress,
    )  # fmt: skip
    return Chains(found.coords[burn:], found.energy[burn:])


class Frames:
    """Langevin frames of one molecule, made on first use and kept: a Boltzmann ensemble.

    An ensemble of minima is none: a network that is to be reweighted must learn the widths.

    Args:
        smiles: the molecule.
        temperature: kelvin.
        field: mmff or xtb.
        chains, frames: how many, and of each chain.
        val_share: of the chains, whose frames are held out.
        seed: of the chains.
        name: of the run.

    Raises:
        InputError: fewer than two chains, or a share that holds out none or all.
    """

    def __init__(
        self,
        smiles: str,
        temperature: float = 300.0,
        field: str = "mmff",
        chains: int = 32,
        frames: int = 400,
        val_share: float = 0.1,
        seed: int = 0,
        name: str | None = None,
    ) -> None:
        if chains < 2 or frames < 1:
            raise InputError(f"data.chains={chains} must be at least 2, data.frames={frames} 1")
        if not 0 < val_share < 1:
            raise InputError(f"data.val_share={val_share} must lie between 0 and 1")
        self.smiles, self.temperature, self.field, self.chains = smiles, temperature, field, chains
        self.frames, self.seed = frames, seed
        self.val = min(chains - 1, max(1, round(val_share * chains)))

    def load(self) -> Splits[Record]:
        """Read or make them; held out are whole chains, the last ones.

        Raises:
            InputError: what the force field or the SMILES is refused for.
        """
        import zlib

        from sciffusion.domains.molecule.chem import from_smiles

        graph = from_smiles(self.smiles)
        recipe = (self.temperature, self.field, self.chains, self.frames, self.seed)
        key = zlib.crc32(repr((__version__, graph.smiles, *recipe)).encode())
        folder = resources.cache_dir() / "molecules" / f"frames-{key:08x}"
        path = folder / "frames.npz"
        with locked(folder):
            if not path.exists():
                made = sampled(
                    graph, self.chains, self.frames, self.temperature, self.field, self.seed
                )
                with atomic_path(path) as temporary, temporary.open("wb") as file:
                    np.savez(file, coords=made.coords, energy=made.energy)
        with np.load(path, allow_pickle=False) as file:
            coords, energy = file["coords"], file["energy"]
        of_chain = np.arange(self.chains)

        def record(rows: Int[np.ndarray, " c"]) -> Record:
            x = coords[:, rows].swapaxes(0, 1).reshape(-1, *coords.shape[2:])
            return Record(graph, x, energy[:, rows].T.ravel(), str(path))

        return Splits([record(of_chain[: -self.val])], [record(of_chain[-self.val :])])
