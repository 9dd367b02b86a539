import numpy as np
import pytest

from sciffusion.domains.molecule.busters import checks, passed, pose_checks
from sciffusion.domains.molecule.chem import from_smiles
from sciffusion.domains.molecule.graph import Record
from sciffusion.domains.molecule.peers import etkdg_mmff

pytest.importorskip("posebusters")


@pytest.fixture(scope="module")
def cresol():
    graph = from_smiles("Cc1ccccc1O")
    return Record(graph, etkdg_mmff(graph, 2, 1))


def bent(record, atom, way):
    coords = record.coords.copy()
    coords[:, atom] += way
    return Record(record.graph, coords)


def test_a_relaxed_molecule_passes_and_each_check_sees_its_own_fault(cresol):
    squeezed = Record(cresol.graph, cresol.coords * np.float32(0.6))
    x = cresol.coords[0]
    ring = x[1:7] - x[1:7].mean(0)
    normal = np.linalg.svd(ring)[2][2].astype(np.float32)
    puckered = bent(cresol, 3, normal)
    pairs = [(cresol, Record(cresol.graph, cresol.coords[:1])), (squeezed, cresol)]
    found, real = pose_checks(pairs)
    assert passed(found).tolist() == [True, True, False, False]
    assert passed(real).all()
    assert len(passed(real)) == 3
    assert not found["bond lengths"][2:].any()
    assert found["sanitization"].all()
    flat = checks(puckered.graph, puckered.coords[:1])
    assert not flat["aromatic ring flatness"].any()
    assert flat["inchi convertible"].all()


def test_no_conformers_are_no_checks(cresol):
    none = Record(cresol.graph, cresol.coords[:0])
    found, real = pose_checks([(none, cresol)])
    assert found == {}
    assert len(passed(found)) == 0
    assert passed(real).all()
