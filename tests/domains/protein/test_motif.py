"""Motif scaffolding: from a contig and a file to designs that hold the motif, and their table."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from Bio.PDB import MMCIFParser
from support.backbones import made, read
from support.protein_run import make_run

from sciffusion import Backbones, sample
from sciffusion.core.cond import Cond
from sciffusion.core.geometry import random_rotations
from sciffusion.core.projection import RigidGroups, with_known
from sciffusion.core.rng import Rng
from sciffusion.core.samplers import DPMSolverPP
from sciffusion.domains.protein.backbone import CA, Backbone, C, N
from sciffusion.domains.protein.domain import layout
from sciffusion.domains.protein.graft import SEAM, Closed, Graft, frames, nearest
from sciffusion.domains.protein.motif import Motif
from sciffusion.domains.protein.motif_measures import grafting, laid_on_motif
from sciffusion.domains.protein.validity import (
    BONDS,
    TRANS,
    bond_lengths,
    ca_distances,
    clash_pairs,
    clashing,
)
from sciffusion.domains.protein.writers import write_backbone
from sciffusion.errors import InputError


@pytest.fixture
def native():
    """Two chains; A has a gap after 20 and an insertion code, B a helix."""
    one, two = made(30, seed=3), made(20, "helix", seed=4)
    return replace(
        one,
        coords=np.concatenate([one.coords + 50, two.coords + 65]),
        sequence="ACDEFGHIKLMNPQRSTVWYACDEFGHIKL" + "MNPQRSTVWYACDEFGHIKL",
        chain=np.array(["A"] * 30 + ["B"] * 20),
        number=np.array([*range(1, 21), *range(31, 40), 39, *range(101, 121)]),
        insertion=np.array([""] * 29 + ["X"] + [""] * 20),
        name="native",
    )


@pytest.fixture
def file(native, tmp_path):
    return write_backbone(tmp_path / "native.pdb", native)


@pytest.fixture
def problem(native, tmp_path):
    """As the standard problems are: the motif only, its contig in REMARK 999."""
    rows = np.isin(np.arange(50), [*range(4, 10), *range(32, 44)])
    path = write_backbone(tmp_path / "problem.pdb", native[rows])
    remarks = [
        "NAME   NATIVE", "PDB    NATIVE", "INPUT      3   8", "INPUT  A   5  10 A",
        "INPUT     10  14", "INPUT  B 103 114 B", "INPUT      0   5",
        "MINIMUM TOTAL LENGTH      35", "MAXIMUM TOTAL LENGTH      40",
    ]  # fmt: skip
    path.write_text("".join(f"REMARK 999 {r}\n" for r in remarks) + path.read_text())
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "protein")


def test_a_standard_problem(problem):
    motif = Motif.of(problem)
    assert str(motif.contig) == "3-8/A5-10@A/10-14/B103-114@B/0-5"
    assert motif.total == (35, 40)
    for p in motif.placements(0, range(50)):
        assert 35 <= sum(p.chains) <= 40
        assert "".join(motif.blank(p).sequence).replace("X", "") == "FGHIKL" + "PQRSTVWYACDE"
        assert np.bincount(p.group).tolist() == [sum(p.chains) - 18, 6, 12]
    assert Motif.of(problem, total="38").total == (38, 38)
    assert Motif.of(problem, "A5-10/3").total == (9, 9)  # what is typed comes first


def test_a_placement_follows_from_seed_and_number(file):
    motif = Motif.of(file, "10-40/A3-9/10-40")
    few, many = motif.placements(3, range(3)), motif.placements(3, range(9))
    assert [p.chains for p in few] == [p.chains for p in many[:3]]
    assert [str(p.contig) for p in motif.placements(3, [7])] == [str(many[7].contig)]
    assert len({p.chains for p in many}) > 3


def test_residues_come_from_where_the_contig_says(file, native):
    motif = Motif.of(file, "2/B105-107/0 4/A19-20/A31-32")
    (p,) = motif.placements(0, [0])
    assert p.chains == (5, 8)
    told = [motif.where(k) for k in p.rows[p.rows >= 0]]
    assert [(w["chain"], w["number"]) for w in told] == [
        ("B", 105), ("B", 106), ("B", 107), ("A", 19), ("A", 20), ("A", 31), ("A", 32)
    ]  # fmt: skip
    np.testing.assert_allclose(motif.points(p)[2:5], native.coords[34:37], atol=1e-3)
    assert motif.blank(p).chains == ["A", "B"]


def test_the_fold_is_told_where_it_can_be_known(file):
    """Helix inside a helix, nothing of loops that may be cut helices, nothing of new residues."""
    motif = Motif.of(file, "3/B103-114/3/B118-119")
    codes = motif.told(motif.placements(0, [0])[0]).tolist()
    assert codes[:3] == codes[15:18] == [3, 3, 3]
    assert codes[18:] == [3, 3]
    assert set(codes[3:15]) <= {1, 3}
    assert codes[3:15].count(1) >= 8


@pytest.mark.parametrize(
    ("contigs", "total", "says"),
    [
        ("5/Q1-4/5", None, "at character 3 (Q1-4): native.pdb has no chain Q"),
        ("5/Q1-4/5", None, "its chains are A, B"),
        ("5/A18-33", None, "no residue 21, 22, 23, 24, 25, ... (10 in all)"),
        ("5/A18-33", None, "it has 1-20, 31-39"),
        ("A1-3/B99-102", None, "at character 6 (B99-102)"),
        ("2/A36-39", None, "insertion codes there (39X)"),
        (
            "10/A1-9/10",
            "99",
            "total=99 does not fit contigs=10/A1-9/10: its parts make 29 residues",
        ),
        ("10/A1-9/10", "x", "total=x must be"),
        ("A9-1", None, "write A1-9"),
        (None, None, "no contig in REMARK 999"),
    ],
)
def test_what_does_not_fit_the_file(contigs, total, says, file):
    with pytest.raises(InputError) as refused:
        Motif.of(file, contigs, total)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def grafted(x0, known, group, chains=None):
    """A batch of one for projections."""
    length = x0.shape[1]
    cond = Cond({k: v[None] for k, v in layout(chains or [length], length).items()})
    return with_known(cond, known, group)


@pytest.fixture
def case():
    """A helix that thinks it is elsewhere than its motif, residues 10 to 19."""
    x0 = torch.from_numpy(made(30, "helix").coords).double()[None]
    turn = random_rotations(Rng(5, torch.arange(1)), dtype=torch.float64)[0]
    known = torch.from_numpy(made(30, "strand").coords).double()[None] @ turn + 20.0
    group = torch.zeros(1, 30, dtype=torch.int64)
    group[0, 10:20] = 1
    return x0, grafted(x0, known, group)


def test_what_follows_the_motif_keeps_its_bond(case):
    """The thought's own C-N at both ends, though the motif was moved by Angstroms."""
    x0, cond = case
    found, plain = Graft()(x0, cond), RigidGroups()(x0, cond)

    def bond(x, k):
        return float((x[0, k + 1, N] - x[0, k, C]).norm())

    for k in (9, 19):
        assert abs(bond(plain, k) - bond(x0, k)) > 0.5
        assert bond(found, k) == pytest.approx(bond(x0, k), abs=0.05)
    torch.testing.assert_close(found[:, 10:20], plain[:, 10:20])
    assert float((found - x0)[:, :2].abs().max()) < 0.01  # far along the chain nothing moves


def test_grafting_turns_with_the_thought(case):
    x0, cond = case
    turn = random_rotations(Rng(2, torch.arange(1)), dtype=torch.float64)[0]
    torch.testing.assert_close(Graft()(x0 @ turn + 3.0, cond), Graft()(x0, cond) @ turn + 3.0)


def test_a_thought_that_holds_its_motif_is_left_alone(case):
    x0, cond = case
    own = with_known(
        cond,
        x0 @ random_rotations(Rng(1, torch.arange(1))).double()[0],
        cond.structure["known_group"],
    )
    torch.testing.assert_close(Graft()(x0, own), x0)


def test_another_chain_does_not_come_along(case):
    x0, cond = case
    parts = layout([20, 10], 30)["chain"][None]
    found = Graft()(x0, cond.with_structure(chain=parts))
    torch.testing.assert_close(found[:, 20:], x0[:, 20:])


@pytest.mark.parametrize("fold", ["helix", "strand", "wander"])
def test_bonds_at_the_ends_of_a_motif_are_closed(fold):
    """Torn by half an Angstrom: every bond is whole again, by the nearest new residues alone."""
    whole = torch.from_numpy(made(30, fold).coords).double()[None]
    group = torch.zeros(1, 30, dtype=torch.int64)
    group[0, 10:20] = 1
    torn = whole + 0.5 * torch.tensor([0.6, 0.0, 0.8]) * (group > 0)[..., None, None]
    cond = grafted(torn, torn, group)
    found = Closed()(torn, cond)
    ends = [9, 19]
    assert np.abs(ca_distances(read(torn[0], [30]))[ends] - TRANS).max() > 0.15
    b = read(found[0], [30])
    assert np.abs(ca_distances(b) - TRANS).max() < 0.03
    assert np.abs(bond_lengths(b)["C-N"] - BONDS["C-N"]).max() < 0.03
    near = range(10 - SEAM, 20 + SEAM)
    still = [k for k in range(30) if k not in near or 10 <= k < 20]
    torch.testing.assert_close(found[:, still], torn[:, still])
    turn = random_rotations(Rng(2, torch.arange(1)), dtype=torch.float64)[0]
    torch.testing.assert_close(Closed()(torn @ turn + 3.0, cond), found @ turn + 3.0)
    parts = cond.with_structure(chain=layout([10, 20], 30)["chain"][None])  # no bond at 9
    torch.testing.assert_close(Closed()(torn, parts)[:, :10], torn[:, :10])


@pytest.mark.parametrize("fold", ["helix", "strand", "wander"])
def test_all_bonds_of_a_backbone_are_closed(fold):
    """Blurred by a third of an Angstrom; one that seemed cis is trans where it is told to be."""
    whole = torch.from_numpy(made(30, fold).coords).double()[None]
    cond = Cond({k: v[None] for k, v in layout([30], 30).items()})
    blurred = whole + 0.3 * torch.randn(whole.shape, generator=torch.Generator().manual_seed(0))
    found = Closed(None, cis=False)(blurred, cond)
    b = read(found[0], [30])
    assert np.abs(ca_distances(read(blurred[0], [30])) - TRANS).max() > 0.5
    assert np.abs(ca_distances(b) - TRANS).max() < 0.05
    for name, length in BONDS.items():
        assert np.abs(bond_lengths(b)[name] - length).max() < 0.05
    assert float((found - whole).square().sum(-1).mean().sqrt()) < 0.6  # that of the blur is 0.52


def test_frames_and_neighbours():
    x = torch.from_numpy(made(6, "helix").coords).double()[None]
    r = frames(x)
    torch.testing.assert_close(r.mT @ r, torch.eye(3).double().expand_as(r))
    assert torch.linalg.det(r).allclose(torch.ones(1, 6).double())
    known = torch.tensor([[False, True, False, False, True, False]])
    last, following = nearest(known)
    assert last.tolist() == [[-1, 1, 1, 1, 4, 4]]
    assert following.tolist() == [[1, 1, 4, 4, 4, 6]]


def test_measures_see_what_is_wrong(file, native):
    motif = Motif.of(file, "4/A5-14/6")
    (p,) = motif.placements(0, [0])
    whole = native[slice(0, 20)]  # residues 1 to 20: the native itself is a design
    good = grafting(whole, motif, p)
    assert good.rmsd["A"] == pytest.approx(0, abs=1e-3)
    assert [j.before for j in good.junctions] == [3, 13]
    assert good.holds
    assert all(j.valid for j in good.junctions)
    assert {tuple(v) for v in good.clashes} <= {tuple(v) for v in clash_pairs(whole)}
    torn = whole.coords.copy()
    torn[14:] += 2.0
    bad = grafting(replace(whole, coords=torn), motif, p)
    assert [j.valid for j in bad.junctions] == [True, False]
    assert not bad.joined
    apart = Backbone.of(motif.backbone.coords, lengths=[9, len(motif.backbone) - 9])
    broken = Motif.of(apart, "A5-9/B1-5")  # neighbours in the file, in two chains
    (q,) = broken.placements(0, [0])
    assert [j.before for j in grafting(whole[slice(4, 14)], broken, q).junctions] == [4]
    mirror = grafting(replace(whole, coords=whole.coords * [1, 1, -1]), motif, p)
    assert mirror.rmsd["A"] > 1
    assert not mirror.holds
    through = whole.coords.copy()
    through[0, CA] = through[9, CA] + 0.5
    assert [0, 9] in grafting(replace(whole, coords=through), motif, p).clashes.tolist()
    back = laid_on_motif(whole.coords[:, :, [1, 2, 0]] + 7.0, motif, p)
    np.testing.assert_allclose(back, whole.coords, atol=2e-3)


def test_clashing_residues_are_those_of_the_pairs():
    x = made(60, "wander", seed=8)
    near = replace(x, coords=x.coords * 0.8)
    rows = np.unique(clash_pairs(near))
    assert len(rows)
    np.testing.assert_array_equal(np.flatnonzero(clashing(near)), rows)


def test_from_the_command_line(run, problem, native, tmp_path, monkeypatch, capsys):
    """Designs lie on the motif, keep its kinds, mark it, and have a table and their origin."""
    monkeypatch.chdir(tmp_path)
    ask = [f"run={run}", "device=cpu", f"motif={problem.name}", "n=3"]
    sample.main([*ask, "out=d/"])
    assert "d/motif.csv" in capsys.readouterr().err
    rows = list(csv.DictReader((tmp_path / "d/motif.csv").open()))
    assert [r["design"] for r in rows] == [f"design_{k:05d}" for k in range(3)]
    motif = Motif.of(problem)
    for row in rows:
        path = tmp_path / f"d/{row['design']}.pdb"
        note = json.loads(path.with_suffix(".json").read_text())
        assert len(note["motif"]) == 18
        assert float(row["rmsd_A"]) < 1e-3
        assert float(row["rmsd_B"]) < 1e-3
        assert note["contig"] == row["contig"]
        text = path.read_text()
        assert f"placed {row['contig']}" in " ".join(text.split()).replace(" REMARK 6", "")
        atoms = {(int(x[22:26]), x[12:16].strip()): x for x in text.splitlines() if x[:4] == "ATOM"}
        marked = {k[0] for k, x in atoms.items() if float(x[60:66]) == 1.0}
        assert marked == {m["number"] for m in note["motif"]}
        for m in note["motif"]:
            (k,) = np.flatnonzero(
                (motif.backbone.chain == m["from"]["chain"])
                & (motif.backbone.number == m["from"]["number"])
            )
            assert motif.backbone.sequence[k] == m["from"]["kind"]
            x = atoms[m["number"], "CA"]
            if m["group"] == "A":  # the first group lies where the file has it
                found = [float(x[j : j + 8]) for j in (30, 38, 46)]
                np.testing.assert_allclose(found, motif.backbone.coords[k, CA], atol=3e-3)
    before = {p.name: p.read_bytes() for p in (tmp_path / "d").glob("design_*")}
    sample.main([*ask[:-1], "n=4", "out=d/"])  # goes on
    after = {p.name: p.read_bytes() for p in (tmp_path / "d").glob("design_*")}
    assert all(after[name] == data for name, data in before.items())
    assert len(list(csv.DictReader((tmp_path / "d/motif.csv").open()))) == 4
    with pytest.raises(InputError, match="other contigs"):
        sample.main([*ask, "contigs=5/A5-10/5", "out=d/"])


def test_contigs_are_typed_in_plain_quotes(run, file, tmp_path, monkeypatch):
    """No part of it is seen by Hydra's grammar: slashes, commas of lists, brackets, spaces."""
    monkeypatch.chdir(tmp_path)
    ask = [f"run={run}", "device=cpu", "motif=native.pdb", "n=2"]
    sample.main([*ask, "contigs=[4/B103-108/0 5]", "out=x.cif"])
    notes = json.loads((tmp_path / "x.motif.json").read_text())
    assert [n["contig"] for n in notes] == ["4/B103-108/0 5"] * 2
    assert (tmp_path / "x.motif.csv").exists()
    assert not list(tmp_path.glob("*.partial"))
    models = list(MMCIFParser(QUIET=True).get_structure("x", str(tmp_path / "x.cif")))
    assert [[len(list(c)) for c in m] for m in models] == [[10, 5]] * 2
    sample.main([*ask, "contigs=2-9/A3-8/2-9", "total=16", "out=e/"])
    for row in csv.DictReader((tmp_path / "e/motif.csv").open()):
        assert row["residues"] == "16"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["motif=native.pdb"], "no contig in REMARK 999"),
        (["motif=nowhere.pdb", "contigs=5/A1-4"], "motif=nowhere.pdb"),
        (["contigs=5/A1-4"], "give motif=FILE"),
        (["total=50", "length=9"], "give motif=FILE"),
        (["motif=native.pdb", "contigs=5/Q1-4"], "character 3 (Q1-4)"),
        (["motif=native.pdb", "contigs=5/A4-1"], "character 3 (A4-1)"),
        (["motif=native.pdb", "contigs="], "it is empty"),
        (["motif=native.pdb", "contigs=5/A1-4/5", "total=116"], "total=116 does not fit"),
        (["motif=native.pdb", "contigs=5/A1-4", "length=9"], "use total="),
        (["motif=native.pdb", "contigs=5/A1-4", "symmetry=C2"], "symmetry="),
        (["motif=native.pdb", "contigs=5/A1-4", "from=native.pdb"], "from="),
        (["motif=native.pdb", "contigs=5/A1-4", "ss=HHHHHHHHH"], "use helix="),
        (["motif=native.pdb", "contigs=5-9/A1-4", "out=x.pdb", "n=20"], "out=FOLDER/"),
        (["motif=native.pdb", "contigs=999999/A1-4"], "at most 65536"),
    ],
)
def test_refused_without_a_trace(settings, says, run, file, tmp_path, refused):
    before = sorted(tmp_path.iterdir())
    assert says in refused("sample", f"run={run}", "device=cpu", *settings)
    assert sorted(tmp_path.iterdir()) == before


def test_from_python(run, file, native):
    model = Backbones.from_pretrained(run, device="cpu")
    ask = {"motif": native, "contigs": "4-9/A5-10@1/3-6/B103-110@2/2", "seed": 2}
    found = model.sample(n=4, **ask)
    motif = Motif.of(native, ask["contigs"])
    for k, (design, p) in enumerate(zip(found, motif.placements(2, range(4)), strict=True)):
        graft = grafting(design, motif, p)
        assert max(graft.rmsd.values()) < 1e-3, k
        assert design.sequence == motif.blank(p).sequence
    guided = model.sample(n=1, guidance=2.0, rotate=True, helix=0.5, **ask)[0]
    assert np.isfinite(guided.coords).all()


def test_a_scaffold_is_the_same_in_any_batch(native):
    """With trained weights: an untrained network piles residues up, and what moves them apart makes
    much of rounding."""
    model = Backbones.from_pretrained(device="cpu")
    ask = {"motif": native, "contigs": "4-9/A5-10@1/3-6/B103-110@2/2", "sampler": DPMSolverPP(12)}
    together, alone = (model.sample(n=4, batch=batch, **ask) for batch in (None, 1))
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a.coords, b.coords, atol=5e-3)
