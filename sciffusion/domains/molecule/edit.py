"""Conformers led by what is given: a part's coordinates, distances, torsions, a force field.

A part is kept up to how the whole molecule lies (`core.editing.Replacement`); the answer is laid on
it. Distances, torsions and MMFF94 are potentials (`core.potentials`), all at once. Atoms count from
1, in the order of the file or of the SMILES, hydrogens that it does not write after all others.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from rdkit import Chem, rdBase
from torch import Tensor

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import Denoiser
from sciffusion.core.editing import Replacement, noised, resampled, rest_of_way, time_of_level
from sciffusion.core.geometry import superposition
from sciffusion.core.potentials import Distances, Led, Potential, Proximal, Torsions
from sciffusion.core.samplers import Sampler
from sciffusion.domains.molecule.chem import parse_smiles
from sciffusion.domains.molecule.graph import MolGraph
from sciffusion.domains.molecule.potentials import MMFF94
from sciffusion.domains.molecule.readers import read_molecules
from sciffusion.errors import InputError

NUMBERS = re.compile(r"\s*\d+\s*(-\s*\d+\s*)?(,\s*\d+\s*(-\s*\d+\s*)?)*")
ASKED = ("from", "fix", "noise", "distances", "torsions")
STIFF_BELOW = 1.0
"""Angstrom of noise under which a force field says anything about what is thought."""
SPREAD = 2.4
"""Angstrom, standard deviation of drug-like molecules' coordinates."""
JUMP = 10
"""Steps that are walked `resample` times."""


class MoleculeEdit:
    """What is given; configs/request/molecule.yaml says what each setting means.

    Raises:
        InputError: settings or files that make no sense, alone or together.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.guide = config["guide"]
        origin, asked = config["from"], [k for k in ASKED[1:] if config[k] is not None]
        if config["input"] is not None:
            what = "from" if origin else asked[0] if asked else ""
            if what:
                raise InputError(f"{what}= is for one molecule: leave input= out")
        if origin is None and (two := [k for k in ("fix", "noise") if config[k] is not None]):
            raise InputError(f"{two[0]}= needs a structure: give from=FILE too")
        if origin is not None and not asked:
            raise InputError(
                f"from={origin}: say what to do with it: fix=ATOMS, noise=, distances= or torsions="
            )
        if config["resample"] < 1:
            raise InputError(f"resample={config['resample']} must be at least 1")
        if config["resample"] > 1 and config["fix"] is None:
            raise InputError(f"resample={config['resample']} goes with fix=: leave it out")
        self.origin = None if origin is None else _structure(origin)
        self.target: Chem.Mol | None = self.origin
        if config["smiles"] is not None:
            if config["noise"] is not None:
                raise InputError("noise= varies the molecule of from=: leave smiles= out")
            self.target = Chem.AddHs(parse_smiles(config["smiles"]))
        if asked and self.target is not None and len(Chem.GetMolFrags(self.target)) > 1:
            raise InputError(f"{asked[0]}= is for a molecule of one part, not of several")
        self.kept: tuple[np.ndarray, np.ndarray] | None = None
        if config["fix"] is not None:
            self.kept = self._kept(config["fix"])
        self.potentials = self._restraints()

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> MoleculeEdit | None:
        """That of a configuration; None where nothing is given."""
        given = any(config.get(name) is not None for name in ASKED)
        led = bool(config.get("guide")) and config["guide"]["mmff"] != 0
        return cls(config) if given or led else None

    def request(self) -> dict[str, Any]:
        """The configuration, with the molecule of from= as its input where no other is named."""
        if self.origin is None or self.config["smiles"] is not None:
            return dict(self.config)
        return {**self.config, "input": str(self.config["from"])}

    @property
    def identity(self) -> dict[str, Any]:
        """What a result depends on."""
        files = [self.config[k] for k in ("from", "distances") if self.config[k] is not None]
        data = b"".join(Path(f).read_bytes() for f in files)
        own = {k: self.config[k] for k in (*ASKED, "resample", "guide")}
        return {**own, "files": hashlib.sha256(data).hexdigest()[:12]}

    def _kept(self, fix: str) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, "k 3"]]:
        """(atoms of the target, their coordinates)."""
        assert self.origin is not None
        assert self.target is not None
        x = self.origin.GetConformer().GetPositions()
        if NUMBERS.fullmatch(fix):
            if self.target is not self.origin:
                raise InputError(
                    f"fix={fix}: numbers are those of from=; with smiles= give a SMARTS or scaffold"
                )
            atoms = _numbered(fix, self.origin.GetNumAtoms())
            return atoms, x[atoms]
        pattern = _pattern(fix, self.origin)
        found = self.origin.GetSubstructMatch(pattern, useChirality=False)
        where = self.target.GetSubstructMatch(pattern, useChirality=False)
        for match, what in ((found, f"from={self.config['from']}"), (where, "the SMILES")):
            if not match:
                raise InputError(f"fix={fix} is not in {what}: choose a part that it has")
        return np.array(where), x[list(found)]

    def _restraints(self) -> list[Potential]:
        found: list[Potential] = []
        count = None if self.target is None else self.target.GetNumAtoms()
        if (path := self.config["distances"]) is not None:
            pairs, target, slack = _distances(path, count)
            strength = _strength(self.guide, "distances_strength")
            found.append(Distances(pairs, target, 0.1, slack, strength))
        if (text := self.config["torsions"]) is not None:
            atoms, degrees = _torsions(text, count)
            strength = _strength(self.guide, "torsions_strength")
            found.append(Torsions(atoms, degrees, 10.0, strength))
        _strength(self.guide, "mmff")
        for name in ("below", "limit"):
            if not self.guide[name] > 0:
                raise InputError(f"guide.{name}={self.guide[name]} must be more than 0")
        return found

    def lead(
        self, denoiser: Denoiser, graphs: Sequence[MolGraph], shape: tuple[int, ...]
    ) -> Denoiser:
        """The denoiser for a batch of these molecules.

        Raises:
            InputError: it cannot be led, or MMFF94 does not know a molecule.
        """
        below, limit = self.guide["below"], self.guide["limit"]
        try:
            if self.potentials:
                denoiser = Led(denoiser, self.potentials, interval=(0.0, below), limit=limit)
            if self.guide["mmff"] != 0:  # too stiff for a plain step of the gradient
                field = MMFF94(graphs, strength=self.guide["mmff"])
                within = (0.0, min(below, STIFF_BELOW))
                denoiser = Proximal(denoiser, [field], interval=within, sigma_data=SPREAD)
            if self.kept is None:
                return denoiser
            atoms, x = self.kept
            known, where = torch.zeros(1, *shape), torch.zeros(1, shape[0], dtype=torch.bool)
            known[0, atoms], where[0, atoms] = torch.from_numpy(x).float(), True
            return Replacement(denoiser, known, where, rigid=True)
        except (TypeError, ValueError) as error:
            raise InputError(str(error)) from error

    def begin(
        self,
        denoiser: Denoiser,
        sampler: Sampler,
        shape: tuple[int, ...],
        cond: Cond,
        seed: int,
        index: Tensor,
    ) -> dict[str, Any]:
        """`x` and `times` for the sampler, where they are not its own."""
        found, schedule = {}, denoiser.schedule
        if (noise := self.config["noise"]) is not None:
            assert self.origin is not None
            try:
                t = time_of_level(noise, schedule)
            except ValueError as error:
                raise InputError(f"{error} Angstrom") from error
            x0 = torch.zeros(len(index), *shape, device=index.device)
            places = self.origin.GetConformer().GetPositions()
            x0[:, : len(places)] = torch.from_numpy(places - places.mean(0)).to(x0)
            found["x"] = noised(x0, t, denoiser, cond, seed, index)
            found["times"] = rest_of_way(t, sampler, schedule)
        if self.config["resample"] > 1:
            way = found.get("times", sampler.grid(sampler.steps, schedule))
            found["times"] = resampled(way, self.config["resample"], JUMP)
        return found

    def placed(self, x: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """A conformer laid on the part that is kept, whose coordinates it gets exactly."""
        if self.kept is None:
            return x
        atoms, known = self.kept
        whole = torch.from_numpy(x.astype(np.float64))[None]
        rotation, a, b = superposition(whole[:, atoms], torch.from_numpy(known)[None])
        found: np.ndarray = ((whole - a) @ rotation + b)[0].numpy()
        found[atoms] = known
        return found.astype(x.dtype)


def _structure(path: str) -> Chem.Mol:
    """The one molecule of a file, with coordinates of all atoms."""
    entries = list(read_molecules(path, need_3d=True))
    if len(entries) > 1:
        raise InputError(f"from={path} holds {len(entries)} molecules: give a file of one")
    if entries[0].mol is None:
        raise InputError(f"from={entries[0].where}: {entries[0].error}")
    return entries[0].mol


def _pattern(fix: str, mol: Chem.Mol) -> Chem.Mol:
    if fix == "scaffold":
        from rdkit.Chem.Scaffolds import MurckoScaffold

        found = MurckoScaffold.GetScaffoldForMol(Chem.RemoveHs(mol))
        if not found.GetNumAtoms():
            raise InputError("fix=scaffold: the molecule of from= has no ring; give atoms")
        return found
    with rdBase.BlockLogs():
        pattern = Chem.MolFromSmarts(fix)
    if pattern is None or not pattern.GetNumAtoms():
        raise InputError(f"fix={fix} is no list of atoms (1-6,9), no SMARTS and not scaffold")
    return pattern


def _numbered(text: str, count: int) -> Int[np.ndarray, " k"]:
    """Atoms 1-6,9 as indices."""
    found: list[int] = []
    for part in text.replace(" ", "").split(","):
        low, _, high = part.partition("-")
        if high and int(high) < int(low):
            raise InputError(f"fix={text}: {part} ends before it begins; write {high}-{low}")
        found += range(int(low), int(high or low) + 1)
    return _checked(found, count, f"fix={text}") if found else np.zeros(0, int)


def _checked(atoms: Sequence[int], count: int | None, where: str) -> Int[np.ndarray, " k"]:
    wrong = [a for a in atoms if a < 1 or (count is not None and a > count)]
    if wrong:
        raise InputError(f"{where}: there is no atom {wrong[0]}; they count from 1 to {count}")
    if len(set(atoms)) < len(atoms):
        raise InputError(f"{where}: an atom is named twice")
    return np.array(atoms) - 1


def _distances(path: str, count: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """(pairs, distances, slack) of a file of lines `atom atom distance [slack]`."""
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"distances={path} cannot be read: check the path") from error
    pairs, rows = [], []
    for number, line in enumerate(lines, 1):
        fields = line.partition("#")[0].replace(",", " ").split()
        if not fields:
            continue
        where = f"distances={path}, line {number}"
        try:
            atoms, values = [int(v) for v in fields[:2]], [float(v) for v in fields[2:]]
        except ValueError:
            raise InputError(f"{where}: {line.strip()[:40]!r} is no 'atom atom distance'") from None
        fine = len(values) in (1, 2) and np.isfinite(values).all() and min(values) >= 0
        if not fine or values[0] == 0:
            raise InputError(f"{where}: give two atoms, a distance in Angstrom and maybe a slack")
        pairs.append(_checked(atoms, count, where))
        rows.append((values[0], values[1] if len(values) > 1 else 0.0))
    if not pairs:
        raise InputError(f"distances={path} holds none: a line is 'atom atom distance [slack]'")
    table = torch.tensor(rows)
    return torch.from_numpy(np.stack(pairs)), table[:, 0], table[:, 1]


def _torsions(text: str, count: int | None) -> tuple[Tensor, Tensor]:
    """(atoms, degrees) of 1-2-3-4=60,5-6-7-8=180."""
    atoms, degrees = [], []
    for part in text.replace(" ", "").split(","):
        found = re.fullmatch(r"(\d+)-(\d+)-(\d+)-(\d+)=([+-]?\d+(?:\.\d*)?)", part)
        if not found:
            raise InputError(f"torsions: {part!r} is not of the form 1-2-3-4=60")
        numbers = [int(v) for v in found.groups()[:4]]
        atoms.append(_checked(numbers, count, f"torsions={part}"))
        degrees.append(float(found[5]))
    return torch.from_numpy(np.stack(atoms)), torch.tensor(degrees)


def _strength(guide: Mapping[str, Any], name: str) -> float:
    value = float(guide[name])
    if not (np.isfinite(value) and value >= 0):
        raise InputError(f"guide.{name}={value:g} must be a number of 0 or more")
    return value
