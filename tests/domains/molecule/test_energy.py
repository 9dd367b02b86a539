import numpy as np
import pytest
from rdkit.Chem import rdForceFieldHelpers
from scipy.spatial.transform import Rotation

from sciffusion.domains.molecule import energy
from sciffusion.domains.molecule.chem import from_smiles, to_mol
from sciffusion.domains.molecule.energy import field, relaxed, strains
from sciffusion.domains.molecule.graph import Record
from sciffusion.domains.molecule.peers import etkdg
from sciffusion.errors import InputError

NO_XTB = energy.importlib.util.find_spec("tblite") is None
XTB = pytest.param("xtb", marks=pytest.mark.skipif(NO_XTB, reason="tblite is not installed"))
FIELDS = ["mmff", XTB]


@pytest.fixture(scope="module")
def alcohol():
    graph = from_smiles("CC(O)CN")
    return Record(graph, etkdg(graph, 4, 1))


@pytest.mark.parametrize("name", FIELDS)
def test_relaxing_goes_down_to_where_it_stays(alcohol, name):
    before, after, x = relaxed(alcohol.graph, alcohol.coords, name)
    assert (after < before).all()
    again = relaxed(alcohol.graph, x, name)
    np.testing.assert_allclose(again[0], after, atol=0.02)
    np.testing.assert_allclose(again[1], after, atol=0.1)
    turned = Rotation.from_euler("xyz", (1, 2, 3)).apply(x[0].astype(float)) + 4
    np.testing.assert_allclose(relaxed(alcohol.graph, turned[None], name)[0], after[0], atol=0.05)


@pytest.mark.parametrize("name", FIELDS)
def test_the_gradient_is_that_of_the_energy(alcohol, name):
    force, x = field(name)(alcohol.graph), alcohol.coords[0].astype(float)
    energy, gradient = force.gradient(x)
    assert energy == pytest.approx(relaxed(alcohol.graph, x[None], name)[0][0], abs=1e-4)
    step = np.zeros_like(x)
    step[2, 1] = 1e-3
    change = (force.gradient(x + step)[0] - force.gradient(x - step)[0]) / 2e-3
    assert change == pytest.approx(gradient[2, 1], rel=1e-2, abs=0.05)


@pytest.mark.parametrize("name", FIELDS)
def test_a_worse_conformer_has_more_strain(alcohol, name):
    stretched = Record(alcohol.graph, alcohol.coords * np.float32(1.05))
    samples, real = strains([(stretched, alcohol)], name)
    assert np.median(samples.before) > np.median(real.before) + 5
    lowest = min(samples.after.min(), real.after.min())
    assert lowest == pytest.approx(0, abs=1e-6)
    assert (samples.moved > 0).all()


def test_the_energy_is_mmff94(alcohol):
    mol = to_mol(alcohol.graph, alcohol.coords)
    done = rdForceFieldHelpers.MMFFOptimizeMoleculeConfs(mol, maxIters=2000, mmffVariant="MMFF94")
    ours = relaxed(alcohol.graph, alcohol.coords)[1]
    np.testing.assert_allclose(ours, [e for _, e in done], atol=1e-3)


def test_what_has_no_energy_is_left_out(alcohol):
    strange = from_smiles("C[Se]C")  # MMFF94 has no selenium
    record = Record(strange, etkdg(strange, 2))
    before, after, x = relaxed(strange, record.coords)
    assert np.isnan([before, after]).all()
    np.testing.assert_array_equal(x, record.coords)
    none = Record(alcohol.graph, alcohol.coords[:0])
    samples, real = strains([(record, record), (none, alcohol)])
    assert len(samples.before) == 0
    assert len(real.before) == 4


def test_says_what_to_choose_and_what_to_install(monkeypatch):
    with pytest.raises(InputError, match="choose mmff or xtb"):
        field("amber")
    monkeypatch.setattr(energy.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install "sciffusion\[xtb\]"'):
        field("xtb")
