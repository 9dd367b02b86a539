"""What is written reads back, by Biopython and by our own readers: all that names and places it."""

import gzip
import io
from dataclasses import replace

import numpy as np
import pytest
from Bio.PDB import MMCIFParser, PDBParser
from Bio.PDB.MMCIF2Dict import MMCIF2Dict

from sciffusion.domains.protein.backbone import Backbone
from sciffusion.domains.protein.geometry import build
from sciffusion.domains.protein.layout import codes_of
from sciffusion.domains.protein.readers import read_structure
from sciffusion.domains.protein.structure import from_structure, to_structure
from sciffusion.domains.protein.writers import cif_text, pdb_text, write_backbone
from sciffusion.errors import InputError

TEXTS = {"pdb": pdb_text, "cif": cif_text}


def fold(*parts):
    """Coordinates of helices (H), strands (E) and loops (L), each so many residues long."""
    angles = {"H": (-62, -42), "E": (-120, 130), "L": (70, 30)}
    phi, psi = np.radians([angles[kind] for kind, n in parts for _ in range(n)]).T
    return build(phi, psi, np.full(len(phi), np.pi))


def dimer():
    """Two chains, a gap, insertion codes, negative numbers and every kind of residue."""
    x = fold(("H", 12), ("L", 3), ("E", 8))
    both = np.concatenate([x, x + 30])
    one = Backbone.of(both, "ACDEFGHIKLMNPQRSTVWYACD" * 2, [23, 23], "a dimer")
    number = np.concatenate([np.arange(-3, 20), np.arange(101, 124)])
    number[10:23] += 50
    insertion = one.insertion.copy()
    number[30:33], insertion[31:33] = number[30], ["A", "B"]
    chain = np.where(one.chain == "A", "H", "b")
    return replace(one, chain=chain, number=number, insertion=insertion)


def parsed(text, kind):
    parser = {"pdb": PDBParser, "cif": MMCIFParser}[kind](QUIET=True)
    return parser.get_structure("x", io.StringIO(text))


def b_factors(model):
    return [[atom.bfactor for atom in residue] for residue in model.get_residues()]


def same(found, expected, atol=6e-4):
    np.testing.assert_allclose(found.coords, expected.coords, atol=atol)
    assert found.sequence == expected.sequence
    for what in ("chain", "number", "insertion"):
        assert getattr(found, what).tolist() == getattr(expected, what).tolist()


@pytest.mark.parametrize("kind", TEXTS)
def test_biopython_reads_back_what_was_written(kind):
    one = dimer()
    b = np.linspace(-5, 99.5, len(one)).round(2)
    structure = parsed(TEXTS[kind](one, b), kind)
    same(from_structure(structure), one)
    for found, expected in zip(b_factors(structure[0]), b, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    for atom in structure.get_atoms():
        assert atom.element == atom.name[0]
        assert atom.occupancy == 1
        assert atom.get_fullname().strip() in ("N", "CA", "C", "O")


@pytest.mark.parametrize("suffix", [".pdb", ".cif", ".pdb.gz", ".cif.gz", ".PDB"])
def test_files_read_back_by_our_own_reader(suffix, tmp_path):
    one = replace(dimer(), insertion=np.full(46, ""), number=np.r_[1:24, 1:24])
    path = write_backbone(tmp_path / "out" / f"x{suffix}", one, remarks=["made for a test"])
    assert [p.name for p in path.parent.iterdir()] == [f"x{suffix}"]
    chains = read_structure(path).chains
    assert len(chains) == 2
    for found, rows in zip(chains, (slice(23), slice(23, None)), strict=True):
        same(found, one[rows])
    again = write_backbone(tmp_path / f"again{suffix}", one, remarks=["made for a test"])
    if suffix.endswith("gz"):
        assert gzip.decompress(path.read_bytes()) == gzip.decompress(again.read_bytes())
    assert path.read_bytes() == again.read_bytes()  # no time of day in it


@pytest.mark.parametrize("kind", TEXTS)
def test_a_trajectory_is_a_file_of_models(kind):
    one = dimer()
    models = [replace(one, coords=one.coords + k) for k in range(3)]
    b = np.arange(3)[:, None] + np.zeros(len(one))
    structure = parsed(TEXTS[kind](models, b), kind)
    assert len(structure) == 3
    for k, model in enumerate(models):
        same(from_structure(structure, k), model)
        assert set(map(tuple, b_factors(structure[k]))) == {(k,) * 4}


def test_every_line_of_a_pdb_file_keeps_its_columns():
    one = dimer()
    lines = pdb_text([one, one], remarks=["é" * 200, "", "two\nlines"]).splitlines()
    assert max(map(len, lines)) <= 80
    assert "\n".join(lines).isascii()
    kinds = [line[:6].strip() for line in lines]
    assert kinds.count("TER") == 4  # each chain of each model
    assert kinds.count("MODEL") == kinds.count("ENDMDL") == 2
    assert lines[-1] == "END"
    atoms = [line for line in lines if line.startswith(("ATOM", "TER"))]
    half = len(atoms) // 2
    assert [int(line[6:11]) for line in atoms[:half]] == list(range(1, half + 1))
    remarks = [line for line in lines if line.startswith("REMARK")]
    assert all(line.startswith("REMARK   6") for line in remarks)
    assert "two lines" in remarks[-1]


def records(text):
    """(code, chain, first, last) as the columns of HELIX and SHEET say (wwPDB format 3.3)."""
    found = []
    for s in text.splitlines():
        if s.startswith("HELIX"):
            assert int(s[71:76]) == int(s[33:37]) - int(s[21:25]) + 1
            assert s[38:40] == " 1"  # right-handed alpha
            found.append((1, s[19], int(s[21:25]), s[31], int(s[33:37])))
        elif s.startswith("SHEET"):
            found.append((2, s[21], int(s[22:26]), s[32], int(s[33:37])))
    return found


def ranges(text):
    """The same of struct_conf and struct_sheet_range."""
    table = MMCIF2Dict(io.StringIO(text))
    found = []
    for code, category in ((1, "struct_conf"), (2, "struct_sheet_range")):
        names = [f"{end}_auth_{w}" for end in ("beg", "end") for w in ("asym_id", "seq_id")]
        columns = [table.get(f"_{category}.{name}", []) for name in names]
        rows = zip(*columns, strict=True)
        found += [(code, a, int(first), b, int(last)) for a, first, b, last in rows]
    return found


@pytest.mark.parametrize("read", [(pdb_text, records), (cif_text, ranges)])
def test_helices_and_strands_stand_where_the_codes_say(read):
    write, told = read
    one = Backbone.of(dimer().coords, lengths=[23, 23])
    codes = np.zeros(46, int)
    codes[2:9], codes[14:20], codes[20:26] = 1, 2, 1  # the last goes on in chain B: two helices
    assert sorted(told(write(one, secondary=codes))) == [
        (1, "A", 3, "A", 9), (1, "A", 21, "A", 23), (1, "B", 1, "B", 3), (2, "A", 15, "A", 20),
    ]  # fmt: skip
    assert told(write(one, secondary=np.zeros(46, int))) == []


def test_by_default_secondary_structure_is_read_off():
    one = Backbone.of(fold(("H", 14), ("L", 4), ("E", 9)))
    found = records(pdb_text(one))
    assert {code for code, *_ in found} == {1, 2}
    drawn = np.zeros(len(one), int)
    for code, _, first, _, last in found:
        drawn[first - 1 : last] = code
    np.testing.assert_array_equal(drawn, codes_of(one))
    noise = replace(one, coords=np.random.default_rng(0).normal(size=one.coords.shape) * 20)
    assert records(pdb_text([noise, one])) == found  # of a trajectory, the end tells


@pytest.mark.parametrize("kind", TEXTS)
def test_residues_of_no_kind_are_glycine_or_what_one_asks_for(kind):
    one = Backbone.of(fold(("H", 6)), "XXAXX?")
    names = [r.get_resname() for r in parsed(TEXTS[kind](one), kind).get_residues()]
    assert names == ["GLY", "GLY", "ALA", "GLY", "GLY", "GLY"]
    back = from_structure(parsed(TEXTS[kind](one, unknown="UNK"), kind))
    assert back.sequence == "XXAXXX"


def test_what_no_pdb_holds_is_sent_to_cif():
    one = dimer()
    far, long = replace(one, coords=one.coords + 12000), replace(one, number=one.number + 9990)
    wide = replace(one, chain=np.where(one.chain == "H", "Heavy", "b'\" x"))
    hot = np.full(len(one), 1000.0)
    for bad, b, match in [
        (far, None, "coordinates 1.* Angstrom"),
        (replace(one, coords=-far.coords), None, "coordinates -"),
        (long, None, "residues 99.. to"),
        (wide, None, "Heavy"),
        (one, hot, "B-factors 1000.00"),
    ]:
        with pytest.raises(InputError, match=match) as caught:
            pdb_text(bad, b)
        assert "write .cif instead" in str(caught.value)
        assert "\n" not in str(caught.value)
        back = parsed(cif_text(bad, b), "cif")
        same(from_structure(back), bad, atol=2e-3)  # Biopython holds float32
    with pytest.raises(InputError, match="most is 99999"):
        pdb_text(Backbone.of(np.zeros((25_000, 4, 3))), secondary=np.zeros(25_000, int))


def test_coordinates_at_the_edge_of_the_columns():
    one = Backbone.of(fold(("H", 5)))
    x = one.coords.copy()
    x[0, 0] = -999.9994, 9999.9994, 0
    found = from_structure(parsed(pdb_text(replace(one, coords=x)), "pdb"))
    np.testing.assert_allclose(found.coords[0, 0], [-999.999, 9999.999, 0], atol=1e-3)
    for edge in (-999.9996, 9999.9996):
        x[0, 0, 0] = edge
        with pytest.raises(InputError, match=r"write \.cif instead"):
            pdb_text(replace(one, coords=x))


@pytest.mark.parametrize(
    "name", ["1abc_A", "", "a b", "data_x", "it's \"5'\" long", "_x", "α", "'"]
)
def test_any_name_is_a_title(name):
    one = replace(dimer(), name=name)
    table = MMCIF2Dict(io.StringIO(cif_text(one, remarks=[name, "x"])))
    if name:
        assert table["_struct.title"] == [name]
        assert table["_pdbx_database_remark.text"] == [name, "x"]
    assert len(parsed(pdb_text(one), "pdb")) == 1


def test_a_structure_is_what_a_parser_makes_of_the_file():
    one = dimer()
    b = np.arange(len(one)) / 2
    made, read = to_structure(one, b), parsed(pdb_text(one, b), "pdb")
    for a, c in zip(made.get_atoms(), read.get_atoms(), strict=True):
        assert a.full_id[1:] == c.full_id[1:]
        assert (a.element, a.bfactor, a.occupancy) == (c.element, c.bfactor, c.occupancy)
        assert a.serial_number <= c.serial_number  # a file counts TER too
        np.testing.assert_allclose(a.coord, c.coord, atol=6e-4)
    same(from_structure(made), one, atol=1e-5)
    models = to_structure([one, replace(one, coords=one.coords + 1)])
    np.testing.assert_allclose(
        from_structure(models, 1).coords, from_structure(models).coords + 1, atol=1e-4
    )


def test_residues_without_a_whole_backbone_are_left_out():
    structure = to_structure(dimer())
    first = next(structure.get_residues())
    first.detach_child("O")
    same(from_structure(structure), dimer()[1:], atol=1e-5)
    for residue in structure.get_residues():
        residue.resname = "MSE"
    assert set(from_structure(structure).sequence) == {"M"}
    with pytest.raises(InputError, match="model 1 of 1"):
        from_structure(structure, 1)


def test_what_cannot_be_written_is_refused_in_one_line(tmp_path):
    one = dimer()
    nan = one.coords.copy()
    nan[7, 2] = np.nan
    mixed = replace(one, chain=np.array(["A", "B"] * 23))
    for words, match in [
        (([],), "no residues"),
        ((one[:0],), "no residues"),
        (([one, one[1:]],), "model 2 has other residues"),
        ((replace(one, coords=nan),), "residue 8 of model 1"),
        ((mixed,), "a chain in two parts"),
        ((one, np.zeros(3)), "B-factors of shape"),
        ((one, np.full(46, np.inf)), "B-factors"),
        ((one, None, np.zeros(3, int)), "secondary structure of shape"),
        ((one, None, np.full(46, 7)), "0, 1 or 2"),
    ]:
        path = tmp_path / "x.pdb"
        path.write_text("before")
        with pytest.raises(InputError, match=match):
            write_backbone(path, *words)
        assert path.read_text() == "before"
    for name in ("x.xyz", "x", "pdb", "x.pdb.xz"):
        with pytest.raises(InputError, match=r"\.pdb, \.pdb\.gz, \.cif, \.cif\.gz"):
            write_backbone(tmp_path / name, one)
    assert [p.name for p in tmp_path.iterdir()] == ["x.pdb"]
