"""Proteins: `Backbones.from_pretrained().sample(length=100, n=4)`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sciffusion.domains.pretrained import Pretrained

if TYPE_CHECKING:
    from pathlib import Path

    from Bio.PDB.Structure import Structure

    from sciffusion.core.samplers import Sampler
    from sciffusion.domains.protein.backbone import Backbone

__all__ = ["Backbones"]


class Backbones(Pretrained):
    """The protein domain's face in Python; begin with `from_pretrained`."""

    kind = "protein"

    def sample(
        self,
        length: int | str | Sequence[int] | None = None,
        n: int = 4,
        seed: int = 0,
        ss: str | None = None,
        helix: float | None = None,
        strand: float | None = None,
        symmetry: str | None = None,
        origin: str | Path | Backbone | None = None,
        noise: float | None = None,
        motif: str | Path | Backbone | None = None,
        contigs: str | None = None,
        total: int | str | None = None,
        sampler: Sampler | None = None,
        temperature: float | None = None,
        label: int | None = None,
        guidance: float = 1.0,
        rotate: bool = False,
        batch: int | None = None,
    ) -> list[Backbone]:
        """Backbones of N, CA, C and O in Angstrom; sample i of a seed is always the same.

        Args:
            length: residues: 100, "60-128" (drawn for each sample), [60, 80] (in turn, n of each),
                "40+40" (chains); of one subunit where there is a symmetry. By default 100, or what
                `ss` says.
            n: samples.
            ss: fold of every residue: H helix, E strand, L or C loop, X or - not said.
            helix, strand: or only shares of the residues, 0 to 1.
            symmetry: a point group: C2 to C12, D2 to D6, T, O or I.
            origin: a structure to vary, or its file; chain names, numbers and sequence are kept,
                and samples lie on it.
            noise: Angstrom that it is varied from; 5 by default.
            motif: a structure of which residues are kept, or its file; see docs/motifs.md.
            contigs: which, and how many new ones between: "10-40/A163-181/10-40". By default what
                the file's REMARK 999 says.
            total: residues in all, 116 or "50-75".
            sampler: any of `sciffusion.core.samplers`; by default the one the run names.
            temperature: multiplies the `noise_scale` of samplers that stir in noise.
            label: of a class, where the network was trained with classes.
            guidance: classifier-free, towards ss, helix, strand and label; 1 is none.
            rotate: turn samples at random after every step, for networks without equivariance.
            batch: residues drawn together; by default what suits the device.

        Raises:
            InputError: settings that cannot be used.
        """
        from sciffusion.domains.protein.generate import Generator
        from sciffusion.domains.protein.requests import Settings
        from sciffusion.io.build import build

        if all(v is None for v in (length, ss, origin, motif)):
            length = 100
        settings = Settings(
            n=n, seed=seed, length=length, ss=ss, helix=helix, strand=strand, symmetry=symmetry,
            origin=origin, noise=noise, temperature=temperature, label=label, guidance=guidance,
            rotate=rotate, motif=motif, contigs=contigs, total=total,
        )  # fmt: skip
        sampler = sampler or build(self.config["sampler"])
        generator = Generator(self.domain, self.denoiser, sampler, settings, self.device, batch)
        for line in (*generator.request.refused, generator.request.beyond):
            if line:
                warnings.warn(line, stacklevel=2)
        found = sorted(generator(range(generator.request.total)), key=lambda d: d.number)
        return [design.backbone for design in found]

    @staticmethod
    def structures(backbones: Sequence[Backbone]) -> list[Structure]:
        """Biopython structures of one model each."""
        from sciffusion.domains.protein.structure import to_structure

        return [to_structure(backbone) for backbone in backbones]
