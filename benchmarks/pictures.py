"""The README's pictures of molecules and proteins: python benchmarks/pictures.py

Conformers drawn by the weights in the package, as they come from the sampler, laid over each other;
how good they are by network calls, from results/conformers_by_calls.json; and the first backbones
of a seed.
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from sciffusion import Backbones, Conformers
from sciffusion.domains.molecule.chem import from_mol
from sciffusion.domains.molecule.peers import PEERS
from sciffusion.domains.protein.backbone import CA
from sciffusion.domains.protein.secondary import psea
from sciffusion.io.command import command
from sciffusion.viz.grid import picture_grid
from sciffusion.viz.molecules import ensemble_picture
from sciffusion.viz.proteins import backbone_picture

mpl.use("Agg")

DOCS = Path(__file__).parents[1] / "docs"
RESULT = Path(__file__).parent / "results" / "conformers_by_calls.json"
MOLECULES = {
    "paracetamol": "CC(=O)Nc1ccc(O)cc1",
    "ibuprofen": "CC(C)Cc1ccc(cc1)[C@H](C)C(=O)O",
    "penicillin G": "CC1(C)S[C@@H]2[C@H](NC(=O)Cc3ccccc3)C(=O)N2[C@H]1C(=O)O",
    "imatinib": "Cc1ccc(NC(=O)c2ccc(CN3CCN(C)CC3)cc2)cc1Nc1nccc(n1)-c1cccnc1",
}


def ensembles() -> Path:
    """Conformers of some drugs."""
    drawn = Conformers.from_pretrained().sample(list(MOLECULES.values()), n=8)
    pictures = []
    for mol in drawn:
        graph = from_mol(mol)
        coords = np.stack([c.GetPositions() for c in mol.GetConformers()])
        pictures.append(ensemble_picture(coords, graph.z, graph.bonds))
    path = DOCS / "conformers.png"
    picture_grid(pictures, len(pictures), list(MOLECULES)).convert("RGB").save(path, optimize=True)
    return path


def by_calls() -> Path:
    """AMR of samples and of references against network calls, a line a sampler."""
    rows = json.loads(RESULT.read_text())["rows"]
    peers = {PEERS[name].label for name in PEERS}
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for axis, column, title in zip(
        axes, ("AMR-R", "AMR-P"), ("of references (recall)", "of samples (precision)"), strict=True
    ):
        for name in dict.fromkeys(row["name"] for row in rows if "draw" not in row["name"]):
            points = [(r["calls"], r["mean"][0][column]) for r in rows if r["name"] == name]
            if name in peers:
                axis.axhline(points[0][1], color="0.5", ls="--", label=name)
            elif len(points) > 1:
                axis.plot(*zip(*points, strict=True), marker=".", label=name)
        axis.set(xscale="log", xlim=(4.5, 110), ylim=(0.5, 1.3), xlabel="network calls",
                 title=f"AMR {title}, A")  # fmt: skip
        axis.set_xticks([5, 10, 20, 50, 100], [5, 10, 20, 50, 100])
        axis.grid(alpha=0.3)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8)
    path = DOCS / "conformers_by_calls.png"
    figure.savefig(path, dpi=130)
    return path


def backbones(n: int = 8) -> Path:
    """Samples 0 to n - 1 of seed 0, none left out."""
    drawn = Backbones.from_pretrained().sample(length="64-128", n=n)
    traces = [b.coords[:, CA] for b in drawn]
    pictures = [backbone_picture(ca, psea(ca), size=(300, 270)) for ca in traces]
    path = DOCS / "backbones.png"
    names = [f"{len(b)} residues" for b in drawn]
    picture_grid(pictures, n // 2, names).convert("RGB").save(path, optimize=True)
    return path


def main(_: object) -> None:
    for make in (ensembles, by_calls, backbones):
        print(f"wrote {make()}")


if __name__ == "__main__":
    command(main, __doc__ or "")
