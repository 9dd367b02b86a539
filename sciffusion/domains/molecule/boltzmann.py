"""A trained network as a Boltzmann generator: its samples reweighted to a force field's ensemble.

The network draws x with its log-density (`core.likelihood`), and log w = -U(x) / kT - log q(x)
(Noe et al. 2019, eq. 8). Both densities are with respect to Lebesgue measure on centred clouds, up
to constants that averages do not feel. The network must cover what the force field visits: one
trained on minima does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from sciffusion.core.likelihood import ProbabilityFlow
from sciffusion.domains.molecule.data import Graphs, structure
from sciffusion.domains.molecule.domain import atoms_together
from sciffusion.domains.molecule.graph import MolGraph
from sciffusion.domains.molecule.langevin import BOLTZMANN
from sciffusion.errors import InputError


@dataclass(frozen=True)
class Proposals:
    """What a network drew of one molecule.

    Attributes:
        coords: (K, N, 3) in Angstrom, centred.
        log_q: (K,) nats.
        error: (K,) standard error of `log_q`, 0 where exact.
        nfe: network calls a sample, at most.
    """

    coords: Float[np.ndarray, "k n 3"]
    log_q: Float[np.ndarray, " k"]
    error: Float[np.ndarray, " k"]
    nfe: int


def propose(
    flow: ProbabilityFlow,
    graph: MolGraph,
    n: int,
    seed: int = 0,
    device: torch.device | str = "cpu",
    most_atoms: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Proposals:
    """n conformers with their log-density; sample i of a seed is the same in any batch.

    Args:
        flow: of a molecule denoiser.
        most_atoms: of one batch; by default what suits the device.
        progress: told how many are done.

    Raises:
        InputError: `most_atoms` under 1.
    """
    known, parts = Graphs([graph]), []
    batch = max(1, atoms_together(most_atoms, device) // len(graph))
    for index in torch.arange(n).split(batch):
        cond = structure(known.gather(torch.zeros_like(index))).to(device)
        x, told = flow.draw((len(graph), 3), cond, seed, index=index, device=device)
        parts.append(
            (x.cpu().numpy(), told.value.cpu().numpy(), told.error.cpu().numpy(), told.nfe)
        )
        if progress is not None:
            progress(len(index))
    x, log_q, error, nfe = zip(*parts, strict=True)
    return Proposals(*(np.concatenate(v) for v in (x, log_q, error)), max(nfe))


def reweighted(
    drawn: Proposals, energy: Float[np.ndarray, " k"], temperature: float
) -> Float[np.ndarray, " k"]:
    """(K,) log-weights of exp(-U / kT), for `metrics.importance`; NaN where there is no energy.

    Args:
        energy: of the proposals in kcal/mol, e.g. `energies(field("mmff")(graph), drawn.coords)`.
        temperature: kelvin.

    Raises:
        InputError: the temperature is not above zero.
    """
    if not temperature > 0:
        raise InputError(f"temperature={temperature} must be above zero")
    return -energy / (BOLTZMANN * temperature) - drawn.log_q
