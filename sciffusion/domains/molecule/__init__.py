"""Molecules: `Conformers.from_pretrained().sample("CC(=O)Nc1ccc(O)cc1", n=20)`."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from sciffusion.domains.pretrained import Pretrained

if TYPE_CHECKING:
    import ase
    from rdkit import Chem

    from sciffusion.core.samplers import Sampler

__all__ = ["Conformers"]


class Conformers(Pretrained):
    """The molecule domain's face in Python; begin with `from_pretrained`."""

    kind = "molecule"

    def sample(
        self,
        mols: str | Chem.Mol | Iterable[str | Chem.Mol],
        n: int = 10,
        seed: int = 0,
        stereo: Literal["draw", "enumerate", "as_given"] = "draw",
        relax: Literal["none", "mmff", "xtb"] = "none",
        keep: Literal["all", "diverse"] = "all",
        rmsd: float = 0.5,
        window: float | None = None,
        tries: int = 20,
        sampler: Sampler | None = None,
        most_atoms: int | None = None,
        errors: Literal["raise", "skip"] = "raise",
    ) -> list[Chem.Mol | None]:
        """RDKit molecules with n conformers each (Angstrom), in the order asked for.

        A molecule's own conformers are not used. Its atom order is kept, hydrogens that were
        implicit follow its atoms. Every conformer has the properties `conformer`, `SMILES` and,
        where there are energies, `energy_kcal_per_mol` and `energy_method`.

        Args:
            mols: SMILES, RDKit molecules, or a list of both.
            seed: conformer k of a molecule and a seed is always the same.
            stereo: of open centres: draw an isomer for every conformer; enumerate, n conformers of
                every isomer, each a molecule of its own; or leave them open to the network.
            relax: mmff (MMFF94s) or xtb (GFN2-xTB, needs tblite).
            keep: diverse leaves out those within `rmsd` (Angstrom, heavy atoms) of another.
            window: leave out those more than this many kcal/mol above the lowest.
            tries: draws of a conformer, at most, until its bonds and stereo are right.
            sampler: any of `sciffusion.core.samplers`; by default the one the run names.
            most_atoms: of one batch; by default what suits the device.
            errors: skip puts None, with a warning, for a molecule that cannot be served.

        Raises:
            InputError: a wrong setting, or a molecule that cannot be served.
        """
        from sciffusion.domains.molecule.face import answered
        from sciffusion.domains.molecule.generate import TOGETHER, Generator
        from sciffusion.domains.molecule.requests import Limits, Settings
        from sciffusion.domains.molecule.serve import drawing
        from sciffusion.domains.sampling import check
        from sciffusion.errors import InputError
        from sciffusion.io.build import build

        settings = Settings(n, stereo, relax, keep, rmsd, window, tries, seed)
        sampler = sampler or build(self.config["sampler"])
        check(sampler, self.denoiser)
        draw = drawing(self.denoiser, sampler, seed, self.device, most_atoms)
        if errors not in ("raise", "skip"):
            raise InputError(f"errors={errors} is not known: raise or skip")
        generator, limits = Generator(draw, settings, _warn), Limits(self.domain.facts(), _warn)
        together = TOGETHER.get(self.device.type, TOGETHER["cpu"])
        return answered(generator, _several(mols), limits, together, errors == "skip")

    @staticmethod
    def ase(mol: Chem.Mol) -> list[ase.Atoms]:
        """A molecule's conformers as ASE atoms; properties in `info`.

        Raises:
            InputError: ASE is not installed.
        """
        from sciffusion.errors import InputError

        try:
            from ase import Atoms
        except ImportError:
            raise InputError("ASE is not installed: pip install ase") from None
        numbers = [atom.GetAtomicNum() for atom in mol.GetAtoms()]
        return [
            Atoms(numbers, c.GetPositions(), info=c.GetPropsAsDict()) for c in mol.GetConformers()
        ]


def _several(mols: str | Chem.Mol | Iterable[str | Chem.Mol]) -> list[str | Chem.Mol]:
    return list(mols) if isinstance(mols, Iterable) and not isinstance(mols, str) else [mols]


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=2)
