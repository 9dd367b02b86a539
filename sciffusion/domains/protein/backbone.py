"""A protein backbone: N, CA, C and O of each residue, in Angstrom, with what names the residues.

A backbone may hold several chains, one after the other. Residue numbers and insertion codes are
those of the file that it came from; they jump where residues are missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from sciffusion.errors import InputError

ATOMS = ("N", "CA", "C", "O")
"""The second axis of the coordinates."""
N, CA, C, O = range(4)  # noqa: E741
ONE_LETTER = {
    "ALA": "A", "ARG": "R", "ASN": "N", "ASP": "D", "CYS": "C", "GLN": "Q", "GLU": "E", "GLY": "G",
    "HIS": "H", "ILE": "I", "LEU": "L", "LYS": "K", "MET": "M", "PHE": "F", "PRO": "P", "SER": "S",
    "THR": "T", "TRP": "W", "TYR": "Y", "VAL": "V",
}  # fmt: skip
THREE_LETTER = {one: three for three, one in ONE_LETTER.items()}
UNKNOWN = "X"
"""A residue whose kind is not known; files call it UNK, designs GLY."""
BREAK = 2.0
"""Residues that follow each other in a chain are joined where C-N is shorter, in Angstrom; a
peptide bond is 1.33."""


@dataclass(frozen=True)
class Backbone:
    """One structure.

    Attributes:
        coords: (L, 4, 3) of N, CA, C, O in Angstrom.
        sequence: one letter a residue, X where it is not known.
        chain: (L,) the name of each residue's chain; those of a chain stand together.
        number: (L,) residue numbers.
        insertion: (L,) insertion codes, "" where there is none.
        name: of the structure.
        cluster: which other structures it is akin to; -1 is not known.
        source: where it came from, for messages.
    """

    coords: Float[np.ndarray, "l 4 3"]
    sequence: str
    chain: np.ndarray
    number: Int[np.ndarray, " l"]
    insertion: np.ndarray
    name: str = ""
    cluster: int = -1
    source: str = ""

    def __post_init__(self) -> None:
        length = len(self.sequence)
        if self.coords.shape != (length, len(ATOMS), 3):
            raise InputError(
                f"{self.name or 'a backbone'}: {length} residues with coordinates of shape "
                f"{self.coords.shape}, not ({length}, 4, 3)"
            )
        for what in ("chain", "number", "insertion"):
            if len(getattr(self, what)) != length:
                raise InputError(f"{self.name or 'a backbone'}: {length} residues, another {what}")

    def __len__(self) -> int:
        return len(self.sequence)

    def __getitem__(self, rows: slice | np.ndarray) -> Backbone:
        """Some of its residues."""
        kept = np.arange(len(self))[rows]
        return replace(
            self,
            coords=self.coords[kept],
            sequence="".join(self.sequence[i] for i in kept),
            chain=self.chain[kept],
            number=self.number[kept],
            insertion=self.insertion[kept],
        )

    @property
    def chains(self) -> list[str]:
        """Names of the chains, in order."""
        return list(dict.fromkeys(self.chain.tolist()))

    @property
    def joined(self) -> Bool[np.ndarray, " l_less_1"]:
        """Whether a peptide bond joins each residue to the next; read off C-N."""
        apart = np.linalg.norm(self.coords[1:, N] - self.coords[:-1, C], axis=-1)
        return (apart < BREAK) & (self.chain[1:] == self.chain[:-1])

    @staticmethod
    def of(
        coords: Float[np.ndarray, "l 4 3"],
        sequence: str | None = None,
        lengths: Sequence[int] | None = None,
        name: str = "",
    ) -> Backbone:
        """A new structure whose chains are A, B, ... and whose residues are numbered from 1.

        Args:
            lengths: residues of each chain; one chain by default.
        """
        lengths = [len(coords)] if lengths is None else lengths
        if len(lengths) > len(CHAIN_NAMES):
            raise InputError(f"{len(lengths)} chains; at most {len(CHAIN_NAMES)} can be named")
        return Backbone(
            np.asarray(coords),
            UNKNOWN * len(coords) if sequence is None else sequence,
            np.repeat(np.array(list(CHAIN_NAMES[: len(lengths)])), lengths),
            np.concatenate([np.arange(1, k + 1) for k in lengths]),
            np.full(len(coords), "", dtype="<U1"),
            name,
        )


CHAIN_NAMES = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
