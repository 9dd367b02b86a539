import numpy as np
import pytest

from sciffusion.domains.molecule.chem import from_smiles
from sciffusion.domains.molecule.graph import Record
from sciffusion.domains.molecule.peers import PEERS, etkdg, etkdg_cluster, etkdg_mmff, peer_records
from sciffusion.domains.molecule.rmsd import rmsd_matrix
from sciffusion.domains.molecule.stereo import bonds_kept, obeys
from sciffusion.errors import InputError


@pytest.fixture(scope="module")
def chain():
    return from_smiles("C[C@H](O)C/C=C/CNC(C)=O")


@pytest.mark.parametrize("seed", [0, 1])
def test_conformers_differ_and_are_those_of_their_seed(chain, seed):
    one = etkdg(chain, 6, seed)
    np.testing.assert_array_equal(one, etkdg(chain, 6, seed))
    record = Record(chain, one)
    between = rmsd_matrix(record, record) + 9 * np.eye(6)
    assert between.min() > 1e-3  # RDKit's own seed 0 would give six times the same
    other = Record(chain, etkdg(chain, 6, seed + 1))
    assert rmsd_matrix(record, other).min() > 1e-3  # nor do neighbouring seeds share any


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_gives_the_molecule_that_was_asked_for(chain, name):
    x = PEERS[name].draw(chain, 4, 3)
    assert x.shape == (4, len(chain), 3)
    assert obeys(x, chain).all()
    assert bonds_kept(x, chain).all()


def test_clustering_spreads(chain):
    def nearest(x):
        heavy = Record(chain, x)
        return (rmsd_matrix(heavy, heavy) + 9 * np.eye(len(x))).min(1).mean()

    assert nearest(etkdg_cluster(chain, 8, 0)) > nearest(etkdg_mmff(chain, 8, 0))


def test_records_are_the_same_on_any_number_of_processes(chain):
    graphs = [chain, from_smiles("CCO"), from_smiles("[Na+]")]
    alone, seconds = peer_records("etkdg", graphs, [3, 2, 1], seed=5)
    shared, _ = peer_records("etkdg", graphs, [3, 2, 1], seed=5, workers=2)
    assert [len(r.coords) for r in alone] == [3, 2, 1]
    assert seconds > 0
    for one, other in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(one.coords, other.coords)


def test_an_impossible_molecule_has_no_conformers():
    # two bridgeheads of a cage with their hands against one another
    graph = from_smiles("C1C[C@@H]2CC[C@@]1(C)C2")
    flipped = graph.with_stereo(graph.tetra_sign * np.array([1, -1]), graph.ez_sign)
    found = sorted(len(etkdg(g, 1)) for g in (graph, flipped))
    assert found == [0, 1]


def test_unknown_peers_are_named(chain):
    with pytest.raises(InputError, match="choose etkdg, mmff, cluster"):
        peer_records("omega", [chain], [1])
