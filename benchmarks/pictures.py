"""The README's picture of conformers: python benchmarks/pictures.py

Drawn by the weights in the package, as they come from the sampler, laid over each other.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sciffusion import Conformers
from sciffusion.domains.molecule.chem import from_mol
from sciffusion.io.command import command
from sciffusion.viz.molecules import ensemble_picture, molecule_grid

OUT = Path(__file__).parents[1] / "docs" / "conformers.png"
MOLECULES = {
    "paracetamol": "CC(=O)Nc1ccc(O)cc1",
    "ibuprofen": "CC(C)Cc1ccc(cc1)[C@H](C)C(=O)O",
    "penicillin G": "CC1(C)S[C@@H]2[C@H](NC(=O)Cc3ccccc3)C(=O)N2[C@H]1C(=O)O",
    "imatinib": "Cc1ccc(NC(=O)c2ccc(CN3CCN(C)CC3)cc2)cc1Nc1nccc(n1)-c1cccnc1",
}


def main(_: object) -> None:
    drawn = Conformers.from_pretrained().sample(list(MOLECULES.values()), n=8)
    pictures = []
    for mol in drawn:
        graph = from_mol(mol)
        coords = np.stack([c.GetPositions() for c in mol.GetConformers()])
        pictures.append(ensemble_picture(coords, graph.z, graph.bonds))
    OUT.parent.mkdir(exist_ok=True)
    molecule_grid(pictures, len(pictures), list(MOLECULES)).convert("RGB").save(OUT, optimize=True)
    print(f"wrote {OUT.name}: {', '.join(MOLECULES)}")


if __name__ == "__main__":
    command(main, __doc__ or "")
