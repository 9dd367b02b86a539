"""In place of a network: RDKit's distance geometry, which draws a mirror image now and then.

Also a script, `python stand_in.py name=value ...`: what `sample` does with such a network.
"""

import sys
import time

import numpy as np
from rdkit import rdBase
from rdkit.Chem import rdDistGeom

from sciffusion.domains.molecule.chem import to_mol
from sciffusion.domains.molecule.serve import serve_with
from sciffusion.io.command import command

FACTS = {"elements": [1, 6, 7, 8, 9, 15, 16, 17, 35], "largest": 60}
CONFIG = {
    "smiles": None, "input": None, "out": None, "n": 3, "stereo": "draw", "relax": "none",
    "keep": "all", "rmsd": 0.5, "window": None, "tries": 20, "seed": 0, "most_atoms": 1000,
    "resume": True,
}  # fmt: skip


def embed(graph, number):
    mol = to_mol(graph)
    settings = rdDistGeom.ETKDGv3()
    settings.randomSeed, settings.useRandomCoords = number % 2**31, True
    with rdBase.BlockLogs():
        assert rdDistGeom.EmbedMolecule(mol, settings) == 0, graph.smiles
    return mol.GetConformer().GetPositions().astype(np.float32)


def draw(graphs, numbers):
    """Every third draw, by its number, is a mirror image."""
    mirror = np.array([-1, 1, 1], np.float32)
    pairs = zip(graphs, numbers, strict=True)
    return [embed(g, n) * (mirror if n % 3 == 0 else 1) for g, n in pairs]


def main(arguments):
    text = dict(argument.split("=", 1) for argument in arguments)
    pause = float(text.pop("pause", 0))

    def slowly(graphs, numbers):
        time.sleep(pause)
        return draw(graphs, numbers)

    config = CONFIG | {k: int(v) if k in ("n", "seed") else v for k, v in text.items()}
    serve_with(slowly, FACTS, config, together=6)


if __name__ == "__main__":
    command(main, "", sys.argv[1:])
