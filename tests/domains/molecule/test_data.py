"""Stores, dense batches and their order, against the plain loops they replace."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sciffusion.data.order import Ordered
from sciffusion.domains.molecule.chem import from_smiles
from sciffusion.domains.molecule.data import (
    MOST_HOPS,
    Conformers,
    Graphs,
    Store,
    bond_codes,
    by_scaffold,
    coordinate_std,
    structure,
    to_data,
)
from sciffusion.domains.molecule.graph import MolGraph, Record
from sciffusion.domains.molecule.store import read_store, write_shard
from sciffusion.errors import InputError

SMILES = ["C", "O", "CCO", "C[C@H](N)C(=O)O", "C/C=C/C", "c1ccccc1", "CCCCCCCCCCCC", "OC1CCC1.O"]


@pytest.fixture(scope="module")
def records():
    rng = np.random.default_rng(0)
    graphs = [from_smiles(s, name=s) for s in SMILES]
    return [
        Record(g, rng.normal(size=(k, len(g), 3)).astype(np.float32), rng.normal(size=k), f"f:{k}")
        for k, g in enumerate(graphs, 1)
    ]


def same(a: MolGraph, b: MolGraph) -> bool:
    return all(np.array_equal(getattr(a, k), getattr(b, k)) for k in MolGraph.__dataclass_fields__)


def test_a_store_gives_back_what_went_in(records, tmp_path):
    write_shard(tmp_path / "part-00000.arrow", records[:3])
    write_shard(tmp_path / "part-00001.arrow", records[3:])
    back = list(read_store(tmp_path))
    assert len(back) == len(records)
    for a, b in zip(records, back, strict=True):
        assert same(a.graph, b.graph)
        assert a.source == b.source
        np.testing.assert_array_equal(a.coords, b.coords)
        np.testing.assert_array_equal(a.energy, b.energy)


def test_a_broken_store_is_named(records, tmp_path):
    with pytest.raises(InputError, match="no store of molecules"):
        list(read_store(tmp_path))
    path = tmp_path / "part-00000.arrow"
    write_shard(path, records)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"part-00000\.arrow.*prepare it again"):
        list(read_store(tmp_path))


def test_plain_json_is_lossless(records):
    for record in records:
        assert same(record.graph, MolGraph.from_plain(record.graph.to_plain()))


def test_fragments_are_the_connected_parts(records):
    for record in records:
        parts = record.graph.smiles.count(".") + 1 if record.graph.smiles else None
        assert len(set(record.graph.fragment)) == (parts or record.graph.name.count(".") + 1)


def test_dense_batches_say_what_the_graphs_say(records):
    data = Conformers(records)
    rows = torch.tensor([0, 5, 20, 3, 35])
    batch = data.gather(rows)
    kept = [(r, x) for r in records for x in r.coords]
    assert batch["mask"].shape[1] % 8 == 0
    for k, row in enumerate(rows.tolist()):
        record, coords = kept[row]
        graph, n = record.graph, len(record.graph)
        assert batch["mask"][k].tolist() == [i < n for i in range(batch["mask"].shape[1])]
        np.testing.assert_array_equal(batch["x"][k, :n], coords)
        assert batch["x"][k, n:].abs().sum() == 0
        np.testing.assert_array_equal(batch["atoms"][k, :n], graph.atoms)
        expected = np.zeros_like(batch["bond"][k])
        for (i, j), code in zip(graph.bonds, bond_codes(graph.bond_features), strict=True):
            expected[i, j] = expected[j, i] = code
        np.testing.assert_array_equal(batch["bond"][k], expected)


def test_hops_are_shortest_paths(records):
    from scipy.sparse.csgraph import shortest_path

    graphs = [r.graph for r in records]
    cond = structure(Graphs(graphs).gather(torch.arange(len(graphs))))
    for k, graph in enumerate(graphs):
        n = len(graph)
        adjacent = cond.structure["bond"][k, :n, :n].numpy() > 0
        hops = np.minimum(shortest_path(adjacent, unweighted=True), MOST_HOPS + 1)
        np.testing.assert_array_equal(cond.structure["hops"][k, :n, :n], hops)


def test_batches_hold_like_sizes_and_every_pass_holds_everything(records):
    data = Conformers(records * 20)
    stream = Ordered(data, seed=3, batch_size=16)
    batches = len(data) // 16
    spread, seen = [], []
    for k in range(batches):
        batch = stream.__getitems__(list(range(16 * k, 16 * (k + 1))))
        size = batch["mask"].sum(1)
        spread.append(int(size.max() - size.min()))
        seen += [tuple(x[0].tolist()) for x in batch["x"]]
        assert batch["place"].tolist() == list(range(16))
    shuffled = [int(v) for v in data.coords.size(torch.randperm(len(data))[:16])]
    assert np.mean(spread) < 0.5 * (max(shuffled) - min(shuffled))
    assert len(seen) == batches * 16 > len(data) - 16
    order = Ordered(data, 3, 16)._draw(0)
    assert len(set(order.tolist())) == len(order)  # no record twice in a pass
    assert not torch.equal(order, Ordered(data, 3, 16)._draw(1))


def test_spread_of_coordinates_is_measured_over_degrees_of_freedom():
    """Gaussian clouds of two atoms: a mean taken out must not bias the figure."""
    graph = from_smiles("[H][H]")
    x = 1.7 * np.random.default_rng(0).normal(size=(20000, 2, 3))
    assert coordinate_std([Record(graph, x.astype(np.float32))]) == pytest.approx(1.7, rel=0.01)


def test_scaffolds_do_not_straddle_the_split(records):
    many = [
        Record(replace(r.graph, scaffold=f"s{k % 40}"), r.coords)
        for k, r in enumerate(records * 40)
    ]
    splits = by_scaffold(many, 0.2)
    train, val = ({r.graph.scaffold for r in part} for part in (splits.train, splits.val))
    assert train
    assert val
    assert not train & val
    again = by_scaffold(many[::-1], 0.2)
    assert {r.graph.scaffold for r in again.val} == val


def test_a_split_of_nothing_is_refused(tmp_path, records):
    write_shard(tmp_path / "part-00000.arrow", records[:2])
    with pytest.raises(InputError, match="val_share"):
        Store(str(tmp_path), val_share=1.5)
    assert len(Store(str(tmp_path)).load().val) >= 1


def test_a_share_of_a_store_is_the_same_molecules_every_time(tmp_path, records):
    many = [
        Record(replace(r.graph, smiles=f"{r.graph.smiles} {k}"), r.coords)
        for k, r in enumerate(records * 60)
    ]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_shard(tmp_path / name / "part-00000.arrow", many)
    root = f"{tmp_path / 'a'},{tmp_path / 'b'}"

    def names(share):
        splits = Store(root, share=share).load()
        return [r.graph.smiles for r in splits.train + splits.val]

    half = names([1, 0.5])
    assert half == names([1, 0.5])
    assert len(half) / len(many) == pytest.approx(1.5, abs=0.15)
    with pytest.raises(InputError, match="one a root"):
        Store(root, share=[0.5])


def test_geometric_graphs_go_through_the_dense_door(records):
    from torch_geometric.data import Batch
    from torch_geometric.utils import to_dense_adj, to_dense_batch

    chosen = records[2:5]
    batch = Batch.from_data_list([to_data(r.graph, r.coords[0]) for r in chosen])
    dense = Conformers([Record(r.graph, r.coords[:1]) for r in chosen]).gather(torch.arange(3))
    n = int(dense["mask"].sum(1).max())
    x, mask = to_dense_batch(batch.pos, batch.batch)
    torch.testing.assert_close(x, dense["x"][:, :n])
    assert torch.equal(mask, dense["mask"][:, :n])
    adjacent = to_dense_adj(batch.edge_index, batch.batch) > 0
    assert torch.equal(adjacent, dense["bond"][:, :n, :n] > 0)
