"""Readers: they see what Biopython sees; what is bad has a line, and costs nothing else."""

import bz2
import gzip
import io
import lzma
import tarfile
import warnings

import numpy as np
import pytest

from sciffusion.domains.protein.readers import read_structure, read_structures
from sciffusion.domains.protein.records import Piece, parse
from sciffusion.errors import InputError


def read(text, name="1abc.pdb"):
    return parse(Piece(name, name, text if isinstance(text, bytes) else text.encode()))


@pytest.fixture
def awkward(pdb):
    """A file with everything in it, as text."""
    a, b = pdb.chain("A", 30), pdb.chain("B", 20, seed=1, far=60)
    x = pdb.coords(30)
    a[4] = [
        line
        for k, name in enumerate(("N", "CA", "C", "O"))
        for line in (
            pdb.line(name, "SER", "A", 5, x[4, k] + 0.1, "A", occupancy=0.3),
            pdb.line(name, "SER", "A", 5, x[4, k], "B", occupancy=0.7),
        )
    ]
    a[9] = pdb.residue(x[9], "MSE", "A", 10, het=True)
    a[10] = pdb.residue(x[10], "LYS", "A", 10, insertion="A")
    a[11] = pdb.residue(x[11], "LYS", "A", 10, insertion="B")
    a[20] = pdb.residue(x[20], "GLY", "A", 21, names=("N", "CA", "O"))
    water = [[pdb.line("O", "HOH", "A", 100 + k, x[k][0] + 40, het=True)] for k in range(5)]
    ligand = [pdb.residue(x[0] - 50, "GLY", "B", 200, het=True)]
    first = pdb.text(a, b, water, ligand).replace("END\n", "")
    second = pdb.text(pdb.chain("A", 30, seed=3)).replace("END\n", "")
    return f"MODEL        1\n{first}ENDMDL\nMODEL        2\n{second}ENDMDL\nEND\n"


def test_it_sees_what_biopython_sees(awkward, tmp_path):
    from Bio.PDB import PDBParser

    path = tmp_path / "x.pdb"
    path.write_text(awkward)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PDBParser(QUIET=True).get_structure("x", path)[0]
    known = {
        (chain.id, residue.id[1], residue.id[2].strip()): [
            residue[k].coord for k in ("N", "CA", "C", "O")
        ]
        for chain in model
        for residue in chain
        if {"N", "CA", "C"} <= {atom.id for atom in residue} and residue.id[1] < 200
    }
    whole = read_structure(path).backbone
    names = list(zip(whole.chain.tolist(), whole.number, whole.insertion.tolist(), strict=True))
    assert names == list(known)
    np.testing.assert_allclose(whole.coords, list(known.values()), atol=1e-3)


def test_mmcif_and_pdb_of_a_structure_are_one(awkward, tmp_path):
    from Bio.PDB import MMCIFIO, PDBParser

    (tmp_path / "x.pdb").write_text(awkward)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structure = PDBParser(QUIET=True).get_structure("x", tmp_path / "x.pdb")
    writer = MMCIFIO()
    writer.set_structure(structure)
    writer.save(str(tmp_path / "x.cif"))
    one, other = (read_structure(tmp_path / name) for name in ("x.pdb", "x.cif"))
    assert one.models == other.models == 2
    for what in ("coords", "chain", "number", "insertion"):
        np.testing.assert_array_equal(getattr(one.backbone, what), getattr(other.backbone, what))
    assert one.backbone.sequence == other.backbone.sequence
    assert one.left_out == other.left_out == []


def test_awkward_chains_are_whole(awkward, pdb):
    structure = read(awkward)
    a, b = structure.chains
    assert (a.name, b.name, len(b)) == ("1abc_A", "1abc_B", 20)
    assert a.number[8:13].tolist() == [9, 10, 10, 10, 13]
    assert a.insertion[8:13].tolist() == ["", "", "A", "B", ""]
    assert a.sequence[9] == "M"
    assert 21 not in a.number  # it has no C, and the chain is broken there
    assert np.flatnonzero(~a.joined).tolist() == [19]
    np.testing.assert_array_equal(a.coords[4], pdb.coords(30)[4])  # the fuller one of two


def test_a_residue_is_of_one_alternate_location(pdb):
    """Where occupancies of its atoms differ it is not mixed; where one lacks an atom the other."""
    x = pdb.coords(3)
    rows = pdb.chain("A", 3)

    def mixed(occupancies, names=("N", "CA", "C", "O")):
        rows[1] = [
            pdb.line(name, kind, "A", 2, x[1, k] + shift, label, occupancy=occupancies[label][k])
            for label, kind, shift in (("A", "SER", 0.0), ("B", "THR", 0.2))
            for k, name in enumerate(("N", "CA", "C", "O"))
            if label == "B" or name in names
        ]
        (chain,) = read(pdb.text(rows)).chains
        return chain.sequence[1], float(np.abs(chain.coords[1] - x[1]).max())

    low, high = [0.9, 0.4, 0.4, 0.4], [0.1, 0.6, 0.6, 0.6]
    assert mixed({"A": low, "B": high}) == ("S", pytest.approx(0.0))
    assert mixed({"A": high, "B": low}) == ("T", pytest.approx(0.2))
    assert mixed({"A": [0.5] * 4, "B": [0.5] * 4})[0] == "S"
    assert mixed({"A": [0.3] * 4, "B": [0.7] * 4})[0] == "T"
    assert mixed({"A": [0.9] * 4, "B": [0.1] * 4}, names=("N", "CA"))[0] == "T"


def test_modified_residues_are_their_parents_and_ligands_are_none(pdb):
    x = pdb.coords(8)
    rows = pdb.chain("A", 8)
    for i, kind in ((1, "MSE"), (2, "SEP"), (3, "QQQ"), (4, "ZZZ")):
        rows[i] = pdb.residue(x[i], kind, "A", i + 1, het=True)
    rows.append(pdb.residue(x[0] + 50, "GLU", "A", 90, het=True))  # an amino acid in the solvent
    rows.append(pdb.residue(x[0] + 99, "QQQ", "A", 91, het=True))
    modres = "MODRES 1ABC QQQ A    4  TRP  SOMETHING\n"
    (chain,) = read(modres + pdb.text(rows[:9])).chains
    assert chain.sequence[1:5] == "MSWX"
    assert len(chain) == 8


def test_missing_oxygens_are_built_where_they_were(pdb):
    rows = pdb.chain("A", 12)
    (known,) = read(pdb.text(rows)).chains
    (built,) = read(pdb.text([[line for line in r if line[13] != "O"] for r in rows])).chains
    apart = np.linalg.norm(known.coords - built.coords, axis=-1)
    assert apart[:, :3].max() == 0
    assert apart[:-1].max() < 0.01
    bond = np.linalg.norm(built.coords[:, 3] - built.coords[:, 2], axis=-1)
    np.testing.assert_allclose(bond, 1.229, atol=1e-3)


def test_files_folders_and_archives_hold_the_same(pdb, tmp_path):
    texts = {f"{k}.pdb": pdb.text(pdb.chain("A", 10, seed=k)).encode() for k in range(4)}
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    packers = [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress)]
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:xz") as tar:
        for (name, data), (suffix, pack) in zip(texts.items(), packers, strict=True):
            place = folder / ("deep" if suffix == ".xz" else "")
            (place / f"{name}{suffix}").write_bytes(pack(data))
            info = tarfile.TarInfo(f"some/where/{name}{suffix}")
            info.size = len(pack(data))
            tar.addfile(info, io.BytesIO(pack(data)))
        link = tarfile.TarInfo("link.pdb")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    (folder / "notes.txt").write_text("no structure")
    (folder / "._0.pdb").write_bytes(b"\0\5\26\7")  # what a Mac leaves in archives
    (tmp_path / "in.tar.xz").write_bytes(stream.getvalue())
    known = {parse(Piece(k, k, v)).chains[0].sequence for k, v in texts.items()}
    before = sorted(tmp_path.rglob("*"))
    for source in (folder, tmp_path / "in.tar.xz"):
        found = list(read_structures(source))
        assert {s.chains[0].sequence for s in found} == known
        assert all(not s.left_out for s in found)
    assert sorted(tmp_path.rglob("*")) == before


def bad_files(pdb):
    good = pdb.text(pdb.chain("A", 10)).replace("END\n", "")
    b = pdb.chain("B", 10, seed=1, far=60)
    whole = pdb.text(b)
    trace = pdb.text([[row[1]] for row in b])
    nan = whole.replace(b[3][1][30:38], "     nan", 1)
    letters = whole.replace(b[3][1][30:38], "  12,345", 1)
    bases = pdb.text([[pdb.line("P", "DA", "B", 1, (60, 60, 60))]])
    water = pdb.text([[pdb.line("O", "HOH", "B", 1, (60, 60, 60), het=True)]])
    side = pdb.text([[pdb.line("N", "ALA", "B", 1, (60, 60, 60))]])
    cut = whole[: whole.index(b[-1][2]) + 45]
    shift = whole.replace(b[0][0][:26], f"{b[0][0][:22]}   x", 1)
    seqres = "SEQRES   1 B   10  ALA GLY\n"
    return {
        "CA only": good + trace,
        "NaN": good + nan,
        "no number": good + letters,
        "nucleic acid": good + bases,
        "water": good + water,
        "pieces": good + side,
        "cut": good + cut,
        "shifted": good + shift,
        "empty": seqres + good,
    }


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("CA only", "CA atoms only"),
        ("NaN", "nan, "),
        ("no number", "12,345"),
        ("nucleic acid", "nucleic acid"),
        ("water", "no protein: HOH"),
        ("pieces", "no residue has its N, CA and C"),
        ("cut", "cut off before its coordinates end: copy"),
        ("shifted", "are not a number and coordinates"),
        ("empty", "it is empty"),
    ],
)
def test_a_bad_chain_is_one_line_and_the_others_are_served(kind, why, pdb):
    structure = read(bad_files(pdb)[kind])
    assert [c.chains for c in structure.chains] == [["A"]]
    assert len(structure.chains[0]) == 10
    (line,) = structure.left_out
    assert line.startswith("1abc.pdb, chain B: ")
    assert why in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it is empty"),
        (b"\n  \n", "it is empty"),
        (b"<html>404 not found</html>", "no PDB or mmCIF"),
        (b"\x80\x04\x95\x10pickle", "no PDB or mmCIF"),
        ("ATOM".encode("utf-16"), "no text"),
        (b"\x1f\x8b\x08 this is not gzip", "cannot be unpacked"),
        (b"data_x\nloop_\n_atom_site.id\n1\n", "no PDB or mmCIF"),
        (b"data_x\n_title 'open\n", "no well-formed mmCIF"),
        (b"ATOM      1  N   ALA A   1      11.10", "cut off"),
    ],
)
def test_a_bad_file_is_one_line(data, why, tmp_path):
    structure = read(data, "bad.pdb")
    assert structure.chains == []
    (line,) = structure.left_out
    assert line.startswith("bad.pdb: ")
    assert why in line
    path = tmp_path / "bad.pdb"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"bad\.pdb"):
        read_structure(path)


def test_what_is_not_there_is_told(tmp_path):
    for path in (tmp_path / "no.pdb", tmp_path / "no.tar.gz"):
        with pytest.raises(InputError, match="No such file"):
            list(read_structures(path))
    with pytest.raises(InputError, match="holds no structures"):
        list(read_structures(tmp_path))
    with pytest.raises(InputError, match="name one file"):
        read_structure(tmp_path)
    (tmp_path / "bad.tar.xz").write_bytes(b"no archive")
    (structure,) = read_structures(tmp_path / "bad.tar.xz")
    assert "cannot be read on" in structure.left_out[0]


def test_files_cut_or_garbled_anywhere_never_raise(pdb):
    """Cut after any byte, the first chain is served as soon as it is whole."""
    first = pdb.text(pdb.chain("A", 6)).replace("END\n", "")
    text = first + pdb.text(pdb.chain("B", 6, seed=1, far=60))
    for at in range(0, len(text), 7):
        structure = read(text[:at])
        assert len(structure.left_out) <= 1
        if at > len(first) + 81:
            assert len(structure.chains[0]) == 6
    rng = np.random.default_rng(0)
    for _ in range(100):
        data = bytearray(text.encode())
        for at in rng.integers(0, len(data), 20):
            data[at] = rng.integers(1, 256)
        structure = read(bytes(data))
        assert all("\n" not in line for line in structure.left_out)


def test_a_cut_mmcif_keeps_its_other_chains(pdb, tmp_path):
    head = "data_x\nloop_\n" + "".join(
        f"_atom_site.{k}\n"
        for k in (
            "group_PDB",
            "label_atom_id",
            "label_comp_id",
            "auth_asym_id",
            "auth_seq_id",
            "Cartn_x",
            "Cartn_y",
            "Cartn_z",
            "pdbx_PDB_model_num",
        )
    )
    rows = [
        f"ATOM {name} ALA {chain} {i + 1} {' '.join(map(str, pdb.coords(5)[i, k]))} 1\n"
        for chain in ("A", "B1")
        for i in range(5)
        for k, name in enumerate(("N", "CA", "C", "O"))
    ]
    whole = read(head + "".join(rows), "x.cif")
    assert [(c.chains, len(c)) for c in whole.chains] == [(["A"], 5), (["B1"], 5)]
    cut = read((head + "".join(rows))[:-8], "x.cif")
    assert [(c.chains, len(c)) for c in cut.chains] == [(["A"], 5)]
    assert "chain B1: atom 40 is cut off" in cut.left_out[0]


def test_atoms_that_are_there_twice_are_told(pdb):
    rows = pdb.chain("A", 10)
    structure = read(pdb.text(rows, rows))
    assert len(structure.chains[0]) == 10
    assert "it has 40 atoms twice" in structure.left_out[0]


def test_names_and_remarks(pdb):
    remark = "REMARK 999 INPUT  A  16  35"
    structure = read(f"{remark}\n" + pdb.text(pdb.chain("A", 5)), "pdb1abc.ent.gz")
    assert structure.remarks == [remark]
    assert structure.name == "1abc"
    for name, known in (("2h0q_B.pdb", "2h0q_B"), ("x.pdb1", "x_B"), ("a.b.cif.gz", "a.b_B")):
        assert read(pdb.text(pdb.chain("B", 5)), name).chains[0].name == known
