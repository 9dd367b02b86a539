"""Small folds built by the program: what trains and tests with nothing at hand. They are no data.

Helices, strands and loops are grown element by element. Each step draws many loops with the next
element from Ramachandran basins and keeps what packs best on the elements that stand or, after a
turn, what makes the hydrogen bonds of an antiparallel sheet, without a clash. Everything is built
from torsions, so bonds and angles are ideal, and every helix and every sheet twists the right way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int

from sciffusion.data.pool import Progress, shared_out
from sciffusion.domains.protein.backbone import CA, Backbone, C, N, O
from sciffusion.domains.protein.distributions import usual_radius
from sciffusion.domains.protein.geometry import build, unit
from sciffusion.errors import InputError

TOPOLOGIES = (
    "HH", "HHH", "HHHH", "EEEE", "EEEEE", "EEH", "HEE", "EEEH", "HEEE", "HEEH", "EEHH", "EEEHH",
    "HHEEE",
)  # fmt: skip
"""Elements in order, H a helix and E a strand, paired with a strand next to it; a fold's `cluster`
is its topology's place here."""
SHORTEST, LONGEST = 30, 100
SIZES = {"H": (8, 20), "E": (5, 9)}
"""Residues of an element, at least and at most."""
LOOP = (3, 6)

Basin = tuple[float, float, float]
"""phi, psi and their standard deviation, in degrees; draws end at two deviations."""
Choices = tuple[Basin, ...]

HELIX: Choices = ((-64, -40.5, 2.5),)
STRAND: Choices = ((-118, 132, 6),)
COIL: Choices = ((-65, -38, 9), (-110, 130, 14), (-68, 145, 9), (-90, -5, 9), (58, 40, 7))
"""Alpha, beta, polyproline, bridge and the left-handed basin of glycine (Lovell et al. 2003)."""
SHARE = (0.32, 0.28, 0.22, 0.12, 0.06)
"""How often coil takes each of them."""
TURNS: tuple[tuple[Basin, ...], ...] = (
    ((60, 49, 4), (67, 18, 4), (-107, 150, 4)),
    ((60, -131, 4), (-87, 8, 4), (-107, 138, 4)),
    ((-62, -16, 4), (-79, 3, 4), (86, 16, 4), (-118, 120, 4)),
    ((-74, -31, 4), (-66, -35, 4), (-100, -8, 4), (55, 24, 4), (-123, 138, 4)),
)
"""Hairpins' turns, types I', II', I with a G1 bulge and alpha (Sibanda et al. 1989), each with the
strand's first residue; fitted to the pairing of ideal strands."""
OMEGA = (179.0, 3.0)

TRIALS = 10
DRAWS, ROUNDS, KEPT = 384, 10, 16
"""Draws of a loop with its element; rounds and elite of the cross-entropy method for hairpins."""
APART, CA_APART = 2.5, 3.6
"""Heavy atoms and CA are at least this far apart, Angstrom; a clash is nearer than 2.4 and 3.0."""
PACKED, IN_CONTACT = 5.0, 9.5
"""Unpaired elements leave room for side chains between their CA, and want many pairs in contact."""
BOND, LOOSE = 2.95, 0.35
"""N to O of a hydrogen bond, and what the mean error of a hairpin's bonds is under, Angstrom."""
ENOUGH = -1.5
"""Energy of a hairpin that is not made better."""
SMALL = 40.0
"""Contacts that one usual radius of gyration less is worth."""
RECENT = 16
"""Residues before a loop all of whose atoms each draw is held against."""
COMPACT = 1.25
"""Largest radius of gyration, in units of `usual_radius`."""

Torsions = Float[np.ndarray, "*b l 2"]


def synthetic_folds(
    n: int,
    seed: int,
    lengths: tuple[int, int] = (40, 80),
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[Backbone]:
    """n compact folds without clashes; fold i of a seed is the same however many are built.

    Args:
        lengths: residues, at least and at most.
        workers: processes; 1 works here, None takes one a core.
        progress: called with 1 as each is finished.

    Returns:
        Backbones synthetic_00000, ... centred at the origin, of residues X; `cluster` is the place
        of their topology in `TOPOLOGIES`.

    Raises:
        InputError: lengths that no topology fills.
    """
    low, high = lengths
    if not SHORTEST <= low <= high <= LONGEST:
        raise InputError(
            f"synthetic folds of {low} to {high} residues cannot be built: give the least and the "
            f"most, within {SHORTEST} and {LONGEST}"
        )
    work = partial(fold, seed=seed, lengths=(low, high))
    return shared_out(work, range(n), workers, progress)


def fold(i: int, seed: int, lengths: tuple[int, int]) -> Backbone:
    """Fold i of a seed."""
    rng = np.random.default_rng([seed, i])
    length = int(rng.integers(lengths[0], lengths[1] + 1))
    # A topology is kept to for some trials: those that close easily shall not crowd out others.
    while True:
        topology = int(rng.integers(len(TOPOLOGIES)))
        for _ in range(TRIALS):
            parts = _plan(TOPOLOGIES[topology], length, rng)
            if parts is None:
                break
            coords = _grown(parts, rng)
            if coords is not None:
                made = Backbone.of(coords - coords.mean((0, 1)), name=f"synthetic_{i:05d}")
                return replace(made, cluster=topology, source="synthetic")


@dataclass(frozen=True)
class Part:
    """An element with the loop before it.

    Attributes:
        residues: the basins of each residue, loop first.
        loop: residues of the loop.
        pairs: residues that pair with those of the strand before; 0 where the loop is no turn.
        before: residues of the element before.
    """

    residues: tuple[Choices, ...]
    loop: int
    pairs: int = 0
    before: int = 0


def _plan(topology: str, length: int, rng: np.random.Generator) -> list[Part] | None:
    """Parts whose residues add up to `length`; None where it was not met in many trials."""
    turned = [a == b == "E" for a, b in pairwise(topology)]
    helix = np.array([kind == "H" for kind in topology])
    # Residues of a strand point to its two sides in turn: one between two others is of even length.
    inner = np.array([a and b for a, b in pairwise([False, *turned, False])])
    shares = helix if helix.any() else ~inner
    least, most = np.array([SIZES[kind] for kind in topology]).T
    for _ in range(50):
        strand = 2 * int(rng.integers((SIZES["E"][0] + 1) // 2, SIZES["E"][1] // 2 + 1))
        start, end = ((COIL,) * int(k) for k in rng.integers(0, 3, 2))
        turns = [TURNS[rng.integers(len(TURNS))] for _ in turned]
        sizes = [
            len(t) - 1 if is_turn else int(rng.integers(LOOP[0], LOOP[1] + 1))
            for t, is_turn in zip(turns, turned, strict=True)
        ]
        elements = np.where(helix, 0, strand)
        left = length - len(start) - len(end) - sum(sizes) - elements[~shares].sum()
        elements[shares] = (left + rng.permutation(shares.sum())) // shares.sum()
        even = helix.any() or (np.abs(elements - strand) <= 2).all()
        if even and (elements >= least).all() and (elements <= most).all():
            break
    else:
        return None
    bodies = [(HELIX if h else STRAND,) * int(k) for h, k in zip(helix, elements, strict=True)]
    bodies[-1] += end
    parts = [Part(start + bodies[0], len(start))]
    for i, is_turn in enumerate(turned):
        before, after = int(elements[i]), int(elements[i + 1])
        if is_turn:
            turn = tuple((basin,) for basin in turns[i])
            parts.append(Part(turn + bodies[i + 1][1:], sizes[i], min(before, after), before))
        else:
            parts.append(Part((COIL,) * sizes[i] + bodies[i + 1], sizes[i]))
    return parts


def _draw(residues: tuple[Choices, ...], n: int, rng: np.random.Generator) -> Torsions:
    """n draws of (phi, psi) of residues, in degrees."""
    out = np.empty((n, len(residues), 2))
    for i, choices in enumerate(residues):
        share = SHARE if choices is COIL else None
        basins = np.array(choices)[rng.choice(len(choices), n, p=share)]
        out[:, i] = basins[:, :2] + basins[:, 2:] * np.clip(rng.standard_normal((n, 2)), -2, 2)
    return out


def _grown(parts: list[Part], rng: np.random.Generator) -> Float[np.ndarray, "l 4 3"] | None:
    """Coordinates of a fold, or None where nothing fits."""
    length = sum(len(p.residues) for p in parts)
    omega = OMEGA[0] + OMEGA[1] * np.clip(rng.standard_normal(length), -2, 2)
    angles = _draw(parts[0].residues, 1, rng)[0]
    standing = _built(angles, omega[: len(angles)])
    for part in parts[1:]:
        # Drawn from the last residue that stands on: its psi and what follows are still free.
        turn = omega[len(angles) - 1 : len(angles) + len(part.residues)]
        last = angles[-1] + [0, 4] * rng.standard_normal((DRAWS, 1, 2))
        draws = np.concatenate([last, _draw(part.residues, DRAWS, rng)], 1)
        best = np.arange(KEPT)
        for again in range(ROUNDS if part.pairs else 1):
            if again:
                middle, spread = draws[best].mean(0), 0.8 * draws[best].std(0) + 0.4
                draws = middle + spread * rng.standard_normal((DRAWS // 3, *middle.shape))
                draws[:, 0, 0] = angles[-1, 0]
                # Between two basins of coil, at the end of the chain, there is nothing.
                coil = np.flatnonzero([len(choices) > 1 for choices in part.residues])
                draws[:, 1 + coil] = _draw(part.residues, len(draws), rng)[:, coil]
            placed = _placed(_built(draws, turn), standing[-1])
            energy = _energy(part, placed, standing)
            best = energy.argsort(kind="stable")[:KEPT]
            if part.pairs and energy[best[-1]] < ENOUGH:
                break
        for k in best:
            whole = np.concatenate([standing[:-1], placed[k]])
            if energy[k] < 0 and not _clashes(whole):
                angles, standing = np.concatenate([angles[:-1], draws[k]]), whole
                break
        else:
            return None
    return _built(angles, omega) if _spread(standing[:, CA]) < COMPACT else None


def _built(angles: Torsions, omega: Float[np.ndarray, " l"]) -> Float[np.ndarray, "*b l 4 3"]:
    phi, psi = np.radians(angles[..., 0]), np.radians(angles[..., 1])
    return build(phi, psi, np.broadcast_to(np.radians(omega), phi.shape))


def _placed(
    grown: Float[np.ndarray, "b l 4 3"], on: Float[np.ndarray, "4 3"]
) -> Float[np.ndarray, "b l 4 3"]:
    """What `build` made, moved so that its first residue lies on another."""
    n, ca, c = on[[N, CA, C]]
    x = unit(ca - n)
    z = unit(np.cross(x, c - ca))
    return np.asarray(grown @ np.stack([x, np.cross(z, x), z]) + n)


def _energy(
    part: Part, placed: Float[np.ndarray, "b l 4 3"], standing: Float[np.ndarray, "n 4 3"]
) -> Float[np.ndarray, " b"]:
    """Lower is better, and what is not negative is not taken.

    `placed` begins with the last residue of `standing`.
    """
    last, loop = len(standing) - 1, part.loop + 1
    apart = _squares(placed[:, 1:, CA], standing[:, CA])
    apart[:, np.arange(1, placed.shape[1])[:, None] + last - np.arange(last + 1) < 3] = np.inf
    wrong = 20.0 * ((apart < CA_APART**2).sum((1, 2)) + _crowded(placed, standing[:-1][-RECENT:]))
    element, others = apart[:, part.loop :], last + 1 - part.before
    wrong += 20.0 * (element[:, :, :others] < PACKED**2).sum((1, 2))
    if not part.pairs:
        stands = np.broadcast_to(standing[:, CA], (len(placed), last + 1, 3))
        spread = _spread(np.concatenate([stands, placed[:, 1:, CA]], 1))
        energy = wrong - (element < IN_CONTACT**2).sum((1, 2)) + SMALL * (spread - 1)
        return np.asarray(energy)
    # From the turn on, every second pair of residues is bonded both ways.
    k = np.arange(0, part.pairs, 2)
    a, b = standing[last - k], placed[:, loop + k]
    bonds = np.stack([np.linalg.norm(a[:, i] - b[:, :, j], axis=-1) for i, j in ((N, O), (O, N))])
    error = np.minimum(np.abs(bonds - BOND), 4.0).mean((0, 2))
    return np.asarray(wrong + 10 * (error - LOOSE))


def _spread(ca: Float[np.ndarray, "*b l 3"]) -> Float[np.ndarray, "*b"]:
    """Radius of gyration in units of that of real chains."""
    square = ((ca - ca.mean(-2, keepdims=True)) ** 2).sum(-1).mean(-1)
    spread: Float[np.ndarray, "*b"] = np.sqrt(square) / usual_radius(ca.shape[-2])
    return spread


def _squares(
    a: Float[np.ndarray, "b n 3"], b: Float[np.ndarray, "*b m 3"]
) -> Float[np.ndarray, "b n m"]:
    """Squared distances, in float32; roots of so many numbers would be most of the work."""
    a, b = a.astype(np.float32), b.astype(np.float32)
    crossed: Float[np.ndarray, "b n m"] = (-2 * a) @ np.swapaxes(b, -1, -2)
    crossed += (a**2).sum(-1)[..., None]
    crossed += (b**2).sum(-1)[..., None, :]
    return crossed


def _crowded(
    placed: Float[np.ndarray, "b l 4 3"], before: Float[np.ndarray, "n 4 3"]
) -> Int[np.ndarray, " b"]:
    """Heavy-atom pairs of residues |i - j| >= 2 that are too near: within what was placed, and
    between it and the residues right before it."""
    atoms = placed.reshape(len(placed), -1, 3)
    rows = np.repeat(np.arange(placed.shape[1]), 4)
    earlier = np.repeat(np.arange(-len(before), 0), 4)
    own = _squares(atoms, atoms)[:, rows[:, None] - rows >= 2]
    other = _squares(atoms, before.reshape(-1, 3))[:, rows[:, None] - earlier >= 2]
    near: Int[np.ndarray, " b"] = (own < APART**2).sum(1) + (other < APART**2).sum(1)
    return near


def _clashes(coords: Float[np.ndarray, "l 4 3"]) -> bool:
    i = np.arange(len(coords))
    ca = _squares(coords[None, :, CA], coords[:, CA])[0]
    near = (ca[i[:, None] - i >= 3] < CA_APART**2).any()
    return bool(near) or bool(_crowded(coords[None], coords[:0])[0])
