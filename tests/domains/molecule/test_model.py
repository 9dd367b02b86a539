"""What the networks may and may not see: rotations, mirrors, order, padding, stereo."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from rdkit import Chem

from sciffusion.core.geometry import random_rotations
from sciffusion.core.rng import Rng
from sciffusion.domains.molecule.chem import from_mol, from_smiles, parse_smiles
from sciffusion.domains.molecule.data import Graphs, structure
from sciffusion.domains.molecule.edm2 import MPConformerTransformer
from sciffusion.domains.molecule.model import PointTransformer
from sciffusion.domains.molecule.transformer import ConformerTransformer, stereo_ranks
from sciffusion.nn.magnitude import weight_error

ALANINE = "C[C@H](N)C(=O)O"
BUTENE = "C/C=C/C"
TOLUENE = "Cc1ccccc1"
SIZES = {"dim": 32, "pair_dim": 16, "layers": 2, "heads": 4, "bond_layers": 2}


def awake(network):
    """The same network with every layer saying something."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator) if p.ndim else 1.0)  # gains
    return network.eval()


@pytest.fixture(
    scope="module", params=[PointTransformer, ConformerTransformer, MPConformerTransformer]
)
def network(request):
    torch.manual_seed(0)
    return awake(request.param(**SIZES))


@pytest.fixture(scope="module")
def points():
    torch.manual_seed(0)
    return awake(PointTransformer(**SIZES))


def cond_of(*graphs):
    return structure(Graphs(graphs).gather(torch.arange(len(graphs))))


def places(cond, seed=0):
    mask = cond.structure["mask"]
    x = torch.randn(*mask.shape, 3, generator=torch.Generator().manual_seed(seed))
    x = x * mask[..., None]
    return (x - x.sum(1, keepdim=True) / mask.sum(1)[:, None, None]) * mask[..., None]


def answer(network, x, cond, log_snr=0.7):
    with torch.no_grad():
        return network(x, torch.full((len(x),), log_snr), cond)


def renumbered(graph, order):
    """The same molecule with its atoms in another order; `order[new] = old`."""
    new = np.argsort(order)
    bonds = np.sort(new[graph.bonds], 1)
    return replace(
        graph, atoms=graph.atoms[order], bonds=bonds, tetra=new[graph.tetra], ez=new[graph.ez]
    )


def reordered(x, order):
    """Places of those atoms; padding stays where it is."""
    y = torch.zeros_like(x)
    y[:, : len(order)] = x[:, order]
    return y


def test_turned_input_turned_output(points):
    cond = cond_of(from_smiles(ALANINE), from_smiles(TOLUENE))
    x = places(cond)
    turn = random_rotations(Rng(0, torch.arange(2)))
    plain, turned = answer(points, x, cond), answer(points, x @ turn.mT, cond)
    assert plain.abs().mean() > 0.05
    torch.testing.assert_close(turned, plain @ turn.mT, atol=2e-5, rtol=1e-4)


def test_handedness_is_seen_where_there_is_a_stereo_centre(points):
    mirror = torch.tensor([1.0, 1.0, -1.0])
    right, left = from_smiles(ALANINE), from_smiles(ALANINE.replace("@", "@@"))
    cond, other = cond_of(right), cond_of(left)
    x = places(cond)
    seen = answer(points, x, cond)
    # The mirrored molecule in the mirrored place is the mirror image of the answer ...
    torch.testing.assert_close(answer(points, x * mirror, other), seen * mirror)
    # ... and the same molecule there is another problem.
    assert (answer(points, x * mirror, cond) - seen * mirror).abs().max() > 1e-3
    flat = cond_of(from_smiles(TOLUENE))
    x = places(flat)
    torch.testing.assert_close(answer(points, x * mirror, flat), answer(points, x, flat) * mirror)


@pytest.mark.parametrize(
    ("one", "other"),
    [(ALANINE, "C[C@@H](N)C(=O)O"), (BUTENE, "C/C=C\\C"), (ALANINE, "CC(N)C(=O)O")],
)
def test_stereo_is_an_input(network, one, other):
    a, b = cond_of(from_smiles(one)), cond_of(from_smiles(other))
    x = places(a)
    assert (answer(network, x, a) - answer(network, x, b)).abs().max() > 1e-3


def test_the_order_of_atoms_is_nobodys_business(network):
    graph = from_smiles("C[C@H](N)C/C=C/C")
    order = np.random.default_rng(0).permutation(len(graph))
    cond, mixed = cond_of(graph), cond_of(renumbered(graph, order))
    x = places(cond)
    seen, again = answer(network, x, cond), answer(network, reordered(x, order), mixed)
    torch.testing.assert_close(again, reordered(seen, order), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "smiles",
    ["C[C@H](N)/C=C/[C@@H](F)Cl", "CC/C(F)=C(C)/Cl", "C[S@](=O)CC", "C1C[C@@H](O)[C@@H]1F"],
)
def test_neither_is_the_order_in_which_chemistry_reads_them(points, smiles):
    """Rows of centres and double bonds are made anew from the renumbered molecule."""
    mol = parse_smiles(smiles)
    order = np.random.default_rng(1).permutation(mol.GetNumAtoms())
    cond = cond_of(from_mol(mol))
    mixed = cond_of(from_mol(Chem.RenumberAtoms(mol, order.tolist())))
    x = places(cond)
    y = reordered(x, order)
    seen, again = answer(points, x, cond), answer(points, y, mixed)
    torch.testing.assert_close(again, reordered(seen, order), atol=2e-5, rtol=1e-4)


def test_both_neighbours_of_a_double_bond_know_their_sides():
    """Every substituent of C(F)(C)=C(Cl)C, cis and trans to two of the other end's."""
    graph = from_smiles("C/C(F)=C(C)/Cl")
    side = cond_of(graph).structure["side"][0]
    z = graph.z.tolist()
    fluorine, chlorine, (first, second) = z.index(9), z.index(17), (0, 4)
    assert side[first, second] == side[fluorine, chlorine] != 0
    assert side[first, chlorine] == side[fluorine, second] == 3 - side[first, second]
    assert torch.equal(side, side.T)


def test_neighbours_in_the_batch_change_nothing(network):
    small, large = from_smiles(ALANINE), from_smiles("CC(C)(C)c1ccc(CCCCCCC(=O)O)cc1")
    alone, both = cond_of(small), cond_of(small, large)
    x = places(alone)
    wide = places(both)
    wide[0] = 0
    wide[0, : x.shape[1]] = x[0]
    seen = answer(network, x, alone)[0]
    beside = answer(network, wide, both)[0]
    torch.testing.assert_close(beside[: len(seen)], seen, atol=2e-5, rtol=1e-4)
    assert beside[len(small) :].abs().max() == 0


def test_what_is_worked_out_beforehand_changes_nothing(network):
    cond = cond_of(from_smiles(ALANINE), from_smiles(TOLUENE))
    x = places(cond)
    with torch.no_grad():
        prepared = network.prepare(cond)
    assert torch.equal(answer(network, x, prepared), answer(network, x, cond))


def test_the_answer_has_no_drift(network):
    cond = cond_of(from_smiles(ALANINE), from_smiles(TOLUENE))
    assert answer(network, places(cond), cond).sum(1).abs().max() < 1e-5


def test_half_precision_keeps_the_geometry(points):
    """Far from the origin of its points, a bfloat16 distance would be wrong by 0.05."""
    cond = cond_of(from_smiles(TOLUENE))
    x = places(cond)
    turn = random_rotations(Rng(0, torch.arange(1)))
    with torch.autocast("cpu", torch.bfloat16):
        plain, turned = answer(points, x, cond), answer(points, x @ turn.float().mT, cond)
    exact = answer(points, x, cond)
    assert (plain - exact).norm() < 0.05 * exact.norm()
    with torch.autocast("cpu", torch.bfloat16, enabled=False):
        back = plain @ turn.mT
    assert (turned - back).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize("make", [PointTransformer, ConformerTransformer])
def test_it_begins_at_zero_and_every_weight_learns(make):
    torch.manual_seed(0)
    network = make(**SIZES)
    cond = cond_of(from_smiles("C[C@H](N)C/C=C/C"))
    x = places(cond)
    assert answer(network, x, cond).abs().max() == 0
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    target = places(cond, 1)
    for _ in range(4):  # layers behind zeros wait for those before them
        optimizer.zero_grad()
        (network(x, torch.zeros(1), cond) - target).square().sum().backward()
        optimizer.step()
    waiting = [
        name for name, p in network.named_parameters()
        if p.grad is None or not p.grad.abs().max() > 0
    ]  # fmt: skip
    assert not waiting


def test_a_place_around_a_centre_spans_the_asked_for_volume():
    """Whatever the sign says, points in the order of their places turn the same way."""
    for smiles in (ALANINE, ALANINE.replace("@", "@@")):
        graph = from_smiles(smiles)
        ranks = stereo_ranks(cond_of(graph))[0]
        (centre,) = graph.tetra[:, 0]
        by_place = ranks[centre].argsort()[-4:].tolist()
        listed = graph.tetra[0, 1:].tolist()
        swaps = sum(
            listed.index(by_place[i]) > listed.index(by_place[j])
            for i in range(4) for j in range(i + 1, 4)
        )  # fmt: skip
        assert (-1) ** swaps == graph.tetra_sign[0]


def test_magnitude_preserving_layers_alone_and_in_half_precision():
    """No biases, no norms with weights; after a training forward all weights are of unit size."""
    torch.manual_seed(0)
    net = MPConformerTransformer(**SIZES).train()
    assert {k.rpartition(".")[2] for k, _ in net.named_parameters()} == {"weight", "gain"}
    net.out.gain.data.fill_(1.0)
    cond = cond_of(from_smiles(ALANINE), from_smiles(TOLUENE))
    x, level = places(cond), torch.tensor([0.5, 3.0])
    optimizer = torch.optim.Adam(net.parameters(), 0.1)
    net(x, level, cond).square().mean().backward()
    optimizer.step()
    assert weight_error(net) > 1e-3
    plain = net(x, level, cond).detach()
    assert weight_error(net) < 1e-3
    with torch.autocast("cpu", torch.bfloat16):
        half = net(x, level, cond)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, plain, atol=0.1 * float(plain.abs().max()), rtol=0)
    assert weight_error(net) < 1e-3
