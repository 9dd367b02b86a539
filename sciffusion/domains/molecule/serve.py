"""`python -m sciffusion.sample domain=molecule`: conformers of one SMILES or of a file of any size.

Under torchrun every process takes its share of the work; the result is the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from sciffusion.core.denoiser import Denoiser
from sciffusion.core.samplers import Sampler
from sciffusion.domains.jobs import digest, team, terminated
from sciffusion.domains.molecule.board import Board
from sciffusion.domains.molecule.domain import MoleculeDomain, atoms_together, draw_coordinates
from sciffusion.domains.molecule.edit import MoleculeEdit
from sciffusion.domains.molecule.generate import TOGETHER, Draw
from sciffusion.domains.molecule.job import Job
from sciffusion.domains.sampling import check, world_size


def drawing(
    denoiser: Denoiser,
    sampler: Sampler,
    seed: int = 0,
    device: torch.device | str = "cpu",
    most_atoms: int | None = None,
    edit: MoleculeEdit | None = None,
) -> Draw:
    """The network as what a `Generator` draws with."""

    def draw(graphs: Sequence[Any], numbers: Sequence[int]) -> Sequence[Any]:
        return draw_coordinates(denoiser, sampler, graphs, numbers, seed, device, most_atoms, edit)

    return draw


def serve(
    domain: MoleculeDomain,
    denoiser: Denoiser,
    sampler: Sampler,
    config: Mapping[str, Any],
    device: torch.device,
) -> None:
    """Serve the request of a configuration; see configs/request/molecule.yaml.

    Raises:
        InputError: settings or input that cannot be used, or, once all others are served, records
            that could not be.
    """
    check(sampler, denoiser)
    most_atoms = atoms_together(config["most_atoms"], device)
    edit = MoleculeEdit.of(config)
    if edit is not None:
        check(sampler, edit.lead(denoiser, [], (1 << 10, 3)))
        config = edit.request()
    draw = drawing(denoiser, sampler, config["seed"], device, most_atoms, edit)
    together = TOGETHER.get(device.type, TOGETHER["cpu"])
    identity = {
        "weights": digest(denoiser),
        "sampler": config["sampler"],
        "device": device.type,
        "precision": config["precision"],
        "most_atoms": most_atoms,
        "guidance": config["guidance"] if config["guidance"]["by"] is not None else None,
        "edit": None if edit is None else edit.identity,
    }
    serve_with(draw, domain.facts(), config, identity, together)


def serve_with(
    draw: Draw,
    facts: Mapping[str, Any],
    config: Mapping[str, Any],
    identity: Mapping[str, Any] | None = None,
    together: int = TOGETHER["cpu"],
) -> None:
    """`serve` with any way to draw.

    Args:
        facts: what it was trained on, see `requests.Limits`.
        identity: what its result depends on.
        together: conformers drawn together.
    """
    rank, world = world_size()
    with Board(silent=rank > 0) as board, terminated(), team(world) as barrier:
        job = Job(draw, facts, config, identity or {}, together, board)
        if rank == 0:
            job.begin()
        barrier()
        try:
            count = job.work(rank, world)
        except Exception:
            job.abandon()
            raise
        except (KeyboardInterrupt, SystemExit):
            board.say(f"the same command goes on from {job.journal.folder}")
            raise
        barrier()
        if rank == 0:
            job.finish(count)
