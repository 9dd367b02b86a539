"""MMFF94 as a potential: energies and gradients by RDKit on the CPU, differentiable for torch.

Energies are of the molecule in vacuum, divided by kT, so that strength 1 leads towards
p(x) exp(-E / kT) at that temperature.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from rdkit import Chem, rdBase
from rdkit.Chem import rdForceFieldHelpers
from torch import Tensor

from sciffusion.core.cond import Cond
from sciffusion.core.potentials import Potential
from sciffusion.domains.molecule.chem import add_conformers, to_mol
from sciffusion.domains.molecule.graph import MolGraph
from sciffusion.errors import InputError

BOLTZMANN = 1.987204e-3  # kcal/mol/K
TEMPERATURE = 300.0


class _Energies(torch.autograd.Function):
    """(B,) kcal/mol of padded samples (B, N, 3), each with its own force field."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, fields: Sequence[Any], sizes: Sequence[int]) -> Tensor:
        places = x.detach().double().cpu().numpy()
        energy, slope = np.zeros(len(x)), np.zeros(places.shape)
        for k, (field, n) in enumerate(zip(fields, sizes, strict=True)):
            flat = places[k, :n].ravel().tolist()
            energy[k] = field.CalcEnergy(flat)
            slope[k, :n] = np.array(field.CalcGrad(flat)).reshape(n, 3)
        ctx.save_for_backward(torch.from_numpy(slope).to(x))
        return torch.from_numpy(energy).to(x)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return grad[0][:, None, None] * slope, None, None


class MMFF94(Potential):
    """MMFF94 energy over kT of molecules (B, N, 3) in Angstrom.

    Args:
        graphs: of the B samples, or of one molecule that all samples are of.
        temperature: in Kelvin.

    Raises:
        InputError: a molecule that MMFF94 has no parameters for.
    """

    def __init__(
        self,
        graphs: Sequence[MolGraph],
        temperature: float = TEMPERATURE,
        strength: float = 1.0,
    ) -> None:
        super().__init__(strength)
        self.kt = BOLTZMANN * temperature
        known = {id(g): _field(g) for g in graphs}
        self.fields = [known[id(g)] for g in graphs]
        self.sizes = [len(g) for g in graphs]

    def energy(self, x0: Float[Tensor, "b n 3"], cond: Cond) -> Float[Tensor, " b"]:
        fields, sizes = self.fields, self.sizes
        if len(fields) == 1:
            fields, sizes = fields * len(x0), sizes * len(x0)
        found: Tensor = _Energies.apply(x0, fields, sizes)
        return found / self.kt


def _field(graph: MolGraph) -> Any:
    mol: Chem.Mol = to_mol(graph)
    with rdBase.BlockLogs():
        known = rdForceFieldHelpers.MMFFGetMoleculeProperties(mol, "MMFF94")
    if known is None:
        raise InputError(f"guide.mmff: MMFF94 does not know {graph.smiles}: leave it out")
    # Any places do: energies are asked for at places of their own.
    mol = add_conformers(mol, np.arange(3.0 * len(graph)).reshape(-1, 3))
    field = rdForceFieldHelpers.MMFFGetMoleculeForceField(mol, known)
    field.Initialize()
    field.molecule = mol  # RDKit's field does not keep what it is of
    return field
