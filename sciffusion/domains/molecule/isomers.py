"""Which stereoisomers a molecule with open centres may be.

RDKit lists the assignments of centres and double bonds that were left open (or are racemic by their
stereo groups); those that no geometry can have, such as a bridgehead turned inside out, are found
by trying to embed them. That is only tried where an open centre is shared by rings or an open
double bond lies in one: elsewhere any assignment is possible.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from random import Random

from rdkit import Chem, rdBase
from rdkit.Chem import rdDistGeom
from rdkit.Chem.EnumerateStereoisomers import (
    EnumerateStereoisomers,
    GetStereoisomerCount,
    StereoEnumerationOptions,
)

MOST_ISOMERS = 64
"""No more of a molecule's stereoisomers than this are considered; beyond, a random choice."""
_TRIES = (20, 200)
"""Embeddings tried of an isomer; the second number where no isomer passed the first."""


class Isomers:
    """The stereoisomers that an RDKit molecule with hydrogens as atoms may be.

    Args:
        mol: what its stereo marks say stays as it is.
        seed: decides which isomers are considered where there are more than `MOST_ISOMERS`.

    Attributes:
        mol: as given.
        mols: distinct isomers, atoms in the same order; `[mol]` where nothing is open.
        cut: whether there are more than were considered.
    """

    def __init__(self, mol: Chem.Mol, seed: int = 0) -> None:
        self.mol, self.mols, self.cut = mol, [mol], False
        settings = StereoEnumerationOptions(
            onlyUnassigned=True, unique=True, maxIsomers=MOST_ISOMERS, rand=Random(seed)
        )
        count = GetStereoisomerCount(Chem.Mol(mol), settings)
        if count > 1:
            self.mols = list(EnumerateStereoisomers(mol, options=settings))
            self.cut = count > MOST_ISOMERS

    def __len__(self) -> int:
        return len(self.mols)

    def pick(self, name: str) -> Chem.Mol:
        """One of the possible isomers, each with the same chance; the same for the same name.

        Where none is found to be possible, the molecule as it is, with its centres open.
        """
        order = Random(name).sample(self.mols, len(self))
        return next((m for most in _TRIES for m in order if self._possible(m, most)), self.mol)

    def possible(self) -> list[Chem.Mol]:
        """All possible isomers; the molecule as it is where none is found to be."""
        for most in _TRIES:
            if found := [m for m in self.mols if self._possible(m, most)]:
                return found
        return [self.mol]

    def _possible(self, isomer: Chem.Mol, most: int) -> bool:
        return not self._confined or _embeds(isomer, tuple(self._confined), most)

    @cached_property
    def _confined(self) -> set[int]:
        """Atoms of the ring systems that may forbid an isomer, and of what is bound to them."""
        rings = self.mol.GetRingInfo()
        absolute = Chem.StereoGroupType.STEREO_ABSOLUTE
        groups = [g for g in self.mol.GetStereoGroups() if g.GetGroupType() != absolute]
        centres = {atom.GetIdx() for group in groups for atom in group.GetAtoms()}
        systems: set[int] = set()
        for place in Chem.FindPotentialStereo(Chem.Mol(self.mol)):
            if place.specified == Chem.StereoSpecified.Specified:
                continue
            if place.type != Chem.StereoType.Bond_Double:
                centres.add(place.centeredOn)
            elif rings.NumBondRings(place.centeredOn):
                systems.add(self.mol.GetBondWithIdx(place.centeredOn).GetBeginAtomIdx())
        systems |= {atom for atom in centres if rings.NumAtomRings(atom) > 1}
        count = -1
        while len(systems) > count:  # rings that share an atom with one that is in
            count = len(systems)
            systems |= {i for ring in rings.AtomRings() if systems & set(ring) for i in ring}
        return systems


@lru_cache(maxsize=4096)
def _embeds(isomer: Chem.Mol, systems: tuple[int, ...], most: int) -> bool:
    """Whether its ring systems can be laid out in space, what is bound to them cut short."""
    core = Chem.RWMol(isomer)
    core.RemoveAllConformers()
    near = {n.GetIdx() for i in systems for n in core.GetAtomWithIdx(i).GetNeighbors()}
    for i in near - set(systems):
        atom = core.GetAtomWithIdx(i)
        single = all(b.GetBondType() == Chem.BondType.SINGLE for b in _inward(atom, systems))
        atom.SetChiralTag(Chem.ChiralType.CHI_UNSPECIFIED)
        if atom.GetAtomicNum() > 1:
            atom.SetAtomicNum(9 if single else 8)
            atom.SetFormalCharge(0)
            atom.SetIsAromatic(False)
            atom.SetNumRadicalElectrons(0)
    for bond in core.GetBonds():  # a side that is cut off must not be looked up: RDKit would crash
        if not {bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()} <= set(systems):
            bond.SetStereo(Chem.BondStereo.STEREONONE)
    for i in reversed(range(core.GetNumAtoms())):
        if i not in near and i not in systems:
            core.RemoveAtom(i)
    settings = rdDistGeom.ETKDGv3()
    settings.randomSeed, settings.maxIterations = 0, most
    with rdBase.BlockLogs():
        Chem.SanitizeMol(core)
        return rdDistGeom.EmbedMolecule(core, settings) >= 0


def _inward(atom: Chem.Atom, systems: tuple[int, ...]) -> list[Chem.Bond]:
    return [b for b in atom.GetBonds() if b.GetOtherAtomIdx(atom.GetIdx()) in systems]
