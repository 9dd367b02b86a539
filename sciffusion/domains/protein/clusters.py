"""Clusters of chains by sequence identity, made as CD-HIT makes them (Li & Godzik 2006): greedily.

From the longest on, a chain joins a representative that it is like, or becomes one. Alike is
`identity` or more: identical residues of the best global alignment (BLOSUM62, gaps 11 + 1 each,
free at the ends) over the length of the shorter chain. Only pairs that share words of three
letters, and whose alignment scores well, are looked at. Unknown residues are like nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from scipy.sparse import csr_array

from sciffusion.domains.protein.backbone import ONE_LETTER
from sciffusion.errors import InputError

LETTERS = "".join(sorted(ONE_LETTER.values()))
WORD = 3
BLOCK = 512
"""Chains whose words are compared with those of all others at once."""
SCORE = 2.0
"""A pair is aligned where its score for each residue of the shorter chain is more than this times
the identity; pairs of deposited chains with 40% to 55% score 3.5 times and more."""


def cluster(sequences: Sequence[str], identity: float = 0.4) -> list[int]:
    """The cluster of each sequence, numbered as they first occur; its order does not matter else.

    Args:
        sequences: one letter a residue, X where it is not known.
        identity: within 0..1; under 0.3 unrelated chains fall together.

    Raises:
        InputError: an identity that is none.
    """
    if not 0 < identity <= 1:
        raise InputError(f"identity={identity} must lie within 0 .. 1; 0.4 is usual")
    unique = sorted(set(sequences), key=lambda s: (-len(s), s))
    found = dict(zip(unique, _greedy(unique, identity), strict=True))
    label: dict[int, int] = {}
    return [label.setdefault(found[s], len(label)) for s in sequences]


def identity_of(a: str, b: str) -> float:
    """Identical residues of the best global alignment, over the length of the shorter sequence."""
    return _identity(a, b, _aligner())


def _identity(a: str, b: str, aligner: Any) -> float:
    first, second = next(iter(aligner.align(a, b))).aligned
    same = sum(
        x == y != "X"
        for (i, j), (k, m) in zip(first, second, strict=True)
        for x, y in zip(a[i:j], b[k:m], strict=True)
    )
    return same / min(len(a), len(b))


def _aligner() -> Any:
    from Bio.Align import PairwiseAligner, substitution_matrices

    aligner: Any = PairwiseAligner  # Biopython has no types
    load: Any = substitution_matrices.load
    return aligner(
        mode="global",
        substitution_matrix=load("BLOSUM62"),
        open_gap_score=-11,
        extend_gap_score=-1,
        end_gap_score=0,
    )


def _greedy(sequences: list[str], identity: float) -> list[int]:
    """The representative of each of these, which come the longest first."""
    aligner = _aligner()
    representative: list[int] = []
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        for near in bar.track(
            _candidates(sequences, identity), total=len(sequences), description="clustering"
        ):
            i = len(representative)
            mine = sequences[i]
            representative.append(i)
            for j in (j for j in near if representative[j] == j):
                enough = SCORE * identity * len(mine)
                if (
                    aligner.score(sequences[j], mine) > enough
                    and _identity(sequences[j], mine, aligner) >= identity
                ):
                    representative[i] = j
                    break
    return representative


def _candidates(sequences: list[str], identity: float) -> Iterator[list[int]]:
    """For each sequence the earlier ones that may be like it, the likest first.

    These share at least so many words as would be left of a chain whose changes lie anywhere: a
    share identity^3. In families changes lie together, so that more are left.
    """
    words = _words(sequences)
    lengths = np.array([len(s) for s in sequences])
    for start in range(0, len(sequences), BLOCK):
        block = (words[start : start + BLOCK] @ words.T).tocsr()
        for row in range(block.shape[0]):
            part = slice(block.indptr[row], block.indptr[row + 1])
            earlier, shared = block.indices[part], block.data[part]
            i = start + row
            good = (earlier < i) & (shared >= max(identity**3 * lengths[i], 1))
            earlier, shared = earlier[good], shared[good]
            yield earlier[np.lexsort((earlier, -shared))].tolist()


def _words(sequences: list[str]) -> csr_array:
    """(n, 20^3), whether each word occurs in each sequence."""
    code = np.full(128, -1)
    code[[ord(k) for k in LETTERS]] = np.arange(len(LETTERS))
    base = len(LETTERS) ** np.arange(WORD)
    indices, starts = [], [0]
    for sequence in sequences:
        letters = code[np.frombuffer(sequence.encode("ascii", "replace"), np.uint8)]
        found = np.empty(0, int)
        if len(letters) >= WORD:
            windows = np.lib.stride_tricks.sliding_window_view(letters, WORD)
            found = np.unique((windows[(windows >= 0).all(1)] * base).sum(1))
        indices.append(found)
        starts.append(starts[-1] + len(found))
    ones = np.ones(starts[-1], np.int32)
    shape = (len(sequences), len(LETTERS) ** WORD)
    return csr_array((ones, np.concatenate([*indices, np.empty(0, int)]), starts), shape=shape)
