"""Langevin chains have the Boltzmann law at any step; turns keep a molecule whole."""

import numpy as np
import pytest

from sciffusion.domains.molecule.chem import from_smiles
from sciffusion.domains.molecule.energy import MMFF94
from sciffusion.domains.molecule.langevin import (
    BOLTZMANN,
    Frames,
    langevin,
    rotatable,
    sampled,
    torsion_angle,
    turned,
)
from sciffusion.domains.molecule.peers import etkdg
from sciffusion.errors import InputError


class Springs:
    """A spring between every two atoms."""

    def gradient(self, x):
        middle = x - x.mean(0)
        return 0.5 * 50 * len(x) * (middle**2).sum(), 50 * len(x) * middle


@pytest.mark.parametrize("dt", [1.0, 6.0])
def test_harmonic_energy_is_exact_at_any_step(dt):
    """BAOAB: half a kT for each of 6 degrees of freedom, also where a period is ten steps."""
    start = np.zeros((200, 3, 3))
    graph = from_smiles("O")
    chains = langevin(Springs(), graph, start, 800, 400.0, 20, dt, 0.02, turn_every=0)
    energy = chains.energy[10:].mean(0) / (BOLTZMANN * 400)
    assert abs(energy.mean() - 3) < 4 * energy.std() / len(energy) ** 0.5


def test_bonds_turn_and_lengths_stay():
    graph = from_smiles("CCCC")
    bonds = rotatable(graph)
    assert len(bonds) == 3
    x = etkdg(graph, 1)[0].astype(float)
    heavy = np.flatnonzero(graph.heavy)
    middle = next(b for b in bonds if int(b[2][graph.heavy].sum()) == 2)
    before = torsion_angle(x, heavy)
    y = turned(x, middle, np.radians(50))
    change = (torsion_angle(y, heavy) - before) % 360
    assert min(change, 360 - change) == pytest.approx(50, abs=1e-6)
    for i, j in graph.bonds:
        length = np.linalg.norm(x[i] - x[j])
        assert np.linalg.norm(y[i] - y[j]) == pytest.approx(length, abs=1e-9)


def test_equipartition_of_a_real_molecule():
    """Half a kT for each of 3 N - 6 vibrations, nearly harmonic in water at 300 K."""
    graph = from_smiles("O")
    found = sampled(graph, 32, 60, 300.0, every=20)
    lowest = MMFF94(graph).relax(found.coords[0, 0])[1]
    mean = (found.energy - lowest).mean() / (BOLTZMANN * 300)
    assert mean == pytest.approx(1.5, rel=0.1)
    assert np.abs(found.coords.mean(2)).max() < 1e-5


def test_frames_hold_out_whole_chains(tmp_path, monkeypatch):
    monkeypatch.setenv("SCIFFUSION_CACHE", str(tmp_path))
    source = Frames("CO", chains=4, frames=3)
    splits = source.load()
    assert (len(splits.train[0].coords), len(splits.val[0].coords)) == (9, 3)
    again = Frames("OC", chains=4, frames=3).load()  # another spelling, the same cache
    np.testing.assert_array_equal(splits.val[0].coords, again.val[0].coords)
    energy = [MMFF94(splits.val[0].graph).gradient(x)[0] for x in splits.val[0].coords]
    np.testing.assert_allclose(energy, splits.val[0].energy, atol=1e-3)
    with pytest.raises(InputError, match="chains"):
        Frames("CO", chains=1)


def test_what_mmff_does_not_know():
    with pytest.raises(InputError, match="no energy"):
        sampled(from_smiles("C[Se]C"), 2, 2, 300.0)
