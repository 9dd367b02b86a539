"""The work of a preparation: pieces in chunks, each chunk turned into one shard by one process.

Where a chunk ends depends on the input alone, so the store does not depend on the number of
processes, nor on how often it was stopped: a chunk whose notes are there is done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from rdkit import Chem, rdBase

from sciffusion.data import preparation
from sciffusion.data.preparation import Job
from sciffusion.domains.molecule.chem import ENERGY, MOST_CHARGE, energy_of, from_mol
from sciffusion.domains.molecule.embed import conformers_of
from sciffusion.domains.molecule.gather import Conformer, gather
from sciffusion.domains.molecule.graph import ATOM_FEATURES, Record
from sciffusion.domains.molecule.records import Piece, parse
from sciffusion.domains.molecule.store import write_shard
from sciffusion.errors import InputError

RECORDS = 2000
"""Records of a chunk, at least; its last molecule is never cut."""
SMILES = 32
"""The same where conformers are made."""
MOST_CONFORMERS = 5000
"""Conformers of one molecule; further ones are another record."""
MOST_ATOMS = (1 << 15) - 1
"""What the store's indices can count."""

_CHARGE = list(ATOM_FEATURES).index("charge")


@dataclass(frozen=True)
class Recipe:
    """How records become molecules; configs/prepare/molecule.yaml says what each means."""

    conformers: int = 10
    seed: int = 0
    charge: int = 0
    group: str = "name"
    isomers: str = "apart"
    max_heavy: int | None = None
    elements: tuple[str, ...] | None = None
    energy: str = "energy_kcal_per_mol"

    def __post_init__(self) -> None:
        for name, known in (("group", ("name", "smiles")), ("isomers", ("apart", "together"))):
            if getattr(self, name) not in known:
                raise InputError(f"{name}={getattr(self, name)} is not known: {' or '.join(known)}")
        if not 0 <= self.conformers <= MOST_CONFORMERS:
            raise InputError(f"conformers={self.conformers} must lie in 0 .. {MOST_CONFORMERS}")
        most = self.max_heavy
        if most is not None and not (isinstance(most, int) and most >= 1):
            raise InputError(f"max_heavy={most} must be a whole number of at least 1")
        for symbol in self.elements or ():
            try:
                with rdBase.BlockLogs():
                    Chem.GetPeriodicTable().GetAtomicNumber(symbol)
            except RuntimeError as error:
                raise InputError(f"elements: {symbol!r} is no element") from error


@dataclass
class Notes(preparation.Notes):
    """What is known of a chunk, or of a store.

    Attributes:
        read: records read.
        molecules, conformers: that came in.
        left_out: a line each.
        elements: molecules with them.
        heavy: molecules of so many heavy atoms.
        charge: molecules of this charge.
        atoms: of the largest molecule.
    """

    read: int = 0
    molecules: int = 0
    conformers: int = 0
    atoms: int = 0
    left_out: list[str] = field(default_factory=list)
    elements: Counter[str] = field(default_factory=Counter)
    heavy: Counter[str] = field(default_factory=Counter)
    charge: Counter[str] = field(default_factory=Counter)

    @property
    def used(self) -> int:
        """Molecules that came in."""
        return self.molecules

    def count(self, record: Record) -> None:
        """Note a record that comes in."""
        z, table = record.graph.z, Chem.GetPeriodicTable()
        charge = int(record.graph.atoms[:, _CHARGE].astype(int).sum() - MOST_CHARGE * len(z))
        self.molecules += 1
        self.conformers += len(record.coords)
        self.atoms = max(self.atoms, len(z))
        self.elements.update(table.GetElementSymbol(int(k)) for k in np.unique(z))
        self.heavy[str(int(record.graph.heavy.sum()))] += 1
        self.charge[str(charge)] += 1

    def add(self, other: Notes) -> None:
        """Note what another chunk has."""
        atoms = max(self.atoms, other.atoms)
        super().add(other)
        self.atoms = atoms


Group = list[Piece]


def chunks(pieces: Iterable[Piece], recipe: Recipe) -> Iterator[list[Group]]:
    """Pieces of one molecule together, and such groups in chunks."""
    chunk: list[Group] = []
    size, last = 0, None
    for number, piece in enumerate(pieces):
        key = _key(piece, number, recipe.group)
        if chunk and key == last and len(chunk[-1]) < MOST_CONFORMERS:
            chunk[-1].append(piece)
        else:
            made = piece.kind == "smiles" and recipe.conformers
            if size >= (SMILES if made else RECORDS):
                yield chunk
                chunk, size = [], 0
            chunk.append([piece])
        size, last = size + 1, key
    if chunk:
        yield chunk


def _key(piece: Piece, number: int, group: str) -> str | int:
    """Equal for pieces of one molecule that follow each other."""
    if piece.kind == "smiles":
        return number
    if group == "name":
        return piece.name or number
    return _bonds_text(piece.text) if piece.kind == "sdf" else piece.kind + piece.name


def _bonds_text(text: str) -> str:
    """What conformers of one molecule have in common in a MOL block: elements and bonds."""
    lines = text.partition("M  END")[0].split("\n")[4:]
    return "\n".join(line[31:34] if len(line) > 30 else line[:9] for line in lines)


def work(job: Job) -> int:
    """Write the shard of a chunk, then its notes; returns how far the input was read."""
    notes, records = Notes(), []
    for group in job.chunk:
        notes.read += len(group)
        records += list(_records(group, job.recipe, notes))
    for record in records:
        notes.count(record)
    if records:
        write_shard(job.shard, records)
    return job.done(notes, job.chunk[-1][-1].position)


def _records(group: Group, recipe: Recipe, notes: Notes) -> Iterator[Record]:
    """The records of pieces that belong together."""
    conformers: list[Conformer] = []
    for piece in group:
        entry = parse(piece, need_3d=piece.kind != "smiles", charge=recipe.charge)
        try:
            if entry.mol is None:
                raise InputError(entry.error)
            _check(entry.mol, recipe)
            if piece.kind != "smiles":
                key = recipe.energy if piece.energy is None else ENERGY
                conformers.append(Conformer(entry.where, entry.mol, energy_of(entry.mol, key)))
            elif recipe.conformers:
                made = conformers_of(entry.mol, recipe.conformers, recipe.seed)
                conformers += [Conformer(entry.where, mol, energy) for mol, energy in made]
            else:
                graph = from_mol(entry.mol, entry.name)
                yield Record(graph, np.zeros((0, len(graph), 3)), source=entry.where)
        except InputError as error:
            notes.leave(entry.where, entry.name, str(error))
    records, left_out = gather(conformers, group[0].name, recipe.isomers == "apart")
    if group[0].kind == "smiles":  # what was made here and failed is no record of the file
        left_out = [] if records else left_out[:1]
    for where, reason in left_out:
        notes.leave(where, group[0].name, reason)
    yield from records


def _check(mol: Chem.Mol, recipe: Recipe) -> None:
    """Refuse molecules that the recipe does not want or a store cannot hold."""
    if mol.GetNumAtoms() > MOST_ATOMS:
        raise InputError(f"it has {mol.GetNumAtoms()} atoms; a store holds at most {MOST_ATOMS}")
    heavy = mol.GetNumHeavyAtoms()
    if recipe.max_heavy is not None and heavy > recipe.max_heavy:
        raise InputError(f"it has {heavy} heavy atoms, more than max_heavy={recipe.max_heavy}")
    if recipe.elements is not None:
        found = {atom.GetSymbol() for atom in mol.GetAtoms()}
        if other := sorted(found - set(recipe.elements)):
            raise InputError(f"it holds {', '.join(other)}, not among elements=")
