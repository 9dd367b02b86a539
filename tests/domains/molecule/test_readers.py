"""Files of molecules, good and bad: every record is a molecule or one line that says why not."""

import bz2
import gzip
import io
import lzma
import sys

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdDepictor, rdDistGeom

from sciffusion.domains.molecule import readers
from sciffusion.domains.molecule.chem import from_mol, parse_smiles
from sciffusion.domains.molecule.readers import read_molecules, split
from sciffusion.errors import InputError


def mol_of(smiles, seed=7):
    mol = parse_smiles(smiles)
    assert rdDistGeom.EmbedMolecule(mol, randomSeed=seed) == 0
    return mol


def sdf(mol, name="", **fields):
    mol = Chem.Mol(mol)
    mol.SetProp("_Name", name)
    text = Chem.MolToMolBlock(mol)
    for key, value in fields.items():
        text += f">  <{key}>  (1) \n{value}\n\n"
    return text + "$$$$\n"


def xyz(mol, comment=""):
    return Chem.MolToXYZBlock(mol).replace("\n\n", f"\n{comment}\n", 1)


@pytest.fixture
def write(tmp_path):
    def put(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return put


def smiles_of(entry):
    return Chem.MolToSmiles(Chem.RemoveHs(entry.mol))


ETHANOL, FLUORO = "CCO", "C[C@H](O)F"


@pytest.mark.parametrize("end", ["", ".gz", ".xz", ".bz2"])
@pytest.mark.parametrize("kind", ["sdf", "xyz", "smi"])
def test_each_kind_plain_and_compressed(write, kind, end):
    mols = [mol_of(ETHANOL), mol_of(FLUORO)]
    text = {
        "sdf": "".join(sdf(m, f"n{k}") for k, m in enumerate(mols)),
        "xyz": "".join(xyz(m) for m in mols),
        "smi": f"{ETHANOL} n0\n{FLUORO}\tn1\n".replace("\t", " "),
    }[kind]
    pack = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}[end]
    entries = list(read_molecules(write(f"a.{kind}{end}", pack(text.encode()))))
    assert [smiles_of(e) for e in entries] == [Chem.CanonSmiles(s) for s in (ETHANOL, FLUORO)]
    assert all(e.error is None and not any(a.GetTotalNumHs() for a in e.mol.GetAtoms())
               for e in entries)  # fmt: skip
    assert len({e.where for e in entries}) == 2
    if kind != "xyz":
        assert [e.name for e in entries] == ["n0", "n1"]
    if kind != "smi":
        for entry, mol in zip(entries, mols, strict=True):
            known = mol.GetConformer().GetPositions()
            assert np.allclose(entry.mol.GetConformer().GetPositions(), known, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.smi", "CCO spirit of wine\n\n# a comment\nC\n"),
        ("a.smi", "SMILES Name\nCCO spirit of wine\nC\n"),
        ("a.txt", "CCO\tspirit of wine\nC\t\n"),
        ("a.csv", 'id,mass,SMILES\n"spirit of wine",46,CCO\n,16,C\n'),
        ("a.csv", "spirit of wine,CCO\n,C\n"),
        ("a.csv", "CCO,spirit of wine\nC,\n"),
        ("a.csv", "name;SMILES\nspirit of wine;CCO\n;C\n"),
        ("a.tsv", "name\tcanonical_smiles\r\nspirit of wine\tCCO\r\n\tC\r\n"),
        ("a.smi", "\ufeffCCO spirit of wine\nC"),
    ],
)
def test_tables_of_smiles(write, name, text):
    entries = list(read_molecules(write(name, text)))
    assert [(smiles_of(e), e.name) for e in entries] == [("CCO", "spirit of wine"), ("C", "")]


@pytest.mark.parametrize("code", ["utf-8", "utf-8-sig", "latin-1"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"])
@pytest.mark.parametrize("kind", ["smi", "csv", "sdf"])
def test_any_line_end_and_any_code_page(write, kind, end, code):
    """What other systems' programs write is read; names keep their letters."""
    text = {
        "smi": "CCO éthanol\n\nCCO ß\n",
        "csv": "SMILES;Name\nCCO;éthanol\nCCO;ß\n",
        "sdf": sdf(mol_of(ETHANOL), "éthanol", note="x") + sdf(mol_of(ETHANOL), "ß"),
    }[kind]
    entries = list(read_molecules(write(f"a.{kind}", text.replace("\n", end).encode(code))))
    assert [(e.error, e.name) for e in entries] == [(None, "éthanol"), (None, "ß")]
    assert {smiles_of(e) for e in entries} == {ETHANOL}


@pytest.mark.parametrize("name", ["a.smi", "a.csv", "a.sdf", "a.xyz"])
@pytest.mark.parametrize("data", ["CCO a\nC b\n".encode("utf-16"), gzip.compress(bytes(99))])
def test_what_is_no_text_is_one_line(write, name, data):
    (entry,) = read_molecules(write(name, data))
    assert "no text" in entry.error


def test_commas_in_names_part_no_columns(write):
    (entry,) = read_molecules(write("a.smi", "CCN(CC)CC N,N-diethylethanamine\n"))
    assert entry.name == "N,N-diethylethanamine"


def test_bad_lines_say_where_and_the_rest_goes_on(write):
    lines = ["CCO one", "C1CC two", "CC(C)(C)(C)C three", "", "* four", "[Fe] five", "N six"]
    path = write("a.smi", "\n".join(lines))
    entries = list(read_molecules(path))
    assert [e.name for e in entries if e.error is None] == ["one", "four", "five", "six"]
    bad = [e for e in entries if e.error]
    assert [e.where for e in bad] == [f"{path}, line 2", f"{path}, line 3"]
    assert "parsed" in bad[0].error
    assert "valence" in bad[1].error
    assert all("\n" not in e.error for e in bad)


def far(mol):
    mol = Chem.Mol(mol)
    mol.GetConformer().SetAtomPosition(2, (0.0, 300.0, 0.0))
    return mol


def drawn(mol):
    mol = Chem.Mol(mol)
    rdDepictor.Compute2DCoords(mol)
    return mol


def in_one_place(mol):
    mol = Chem.Mol(mol)
    mol.GetConformer().SetPositions(np.zeros((mol.GetNumAtoms(), 3)))
    return mol


GOOD = sdf(mol_of(FLUORO), "good")
ATOM = GOOD.split("\n")[4]
BAD = {
    "not numbers": GOOD.replace(ATOM, "       nan" + ATOM[10:]),
    "fewer atoms": GOOD.replace(ATOM + "\n", ""),
    "M  END": GOOD.replace("M  END", ""),
    "300 A": sdf(far(mol_of(FLUORO))),
    "flat drawing": sdf(drawn(mol_of(FLUORO))),
    "one place": sdf(in_one_place(mol_of(FLUORO))),
    "hydrogens are missing": sdf(Chem.RemoveHs(mol_of(FLUORO))),
    "no atoms": sdf(Chem.Mol()),
    "valence": sdf(Chem.MolFromSmiles("C(C)(C)(C)(C)C", sanitize=False)),
    "garbled": "what\nis\nthis\nnoise here\nM  END\n$$$$\n",
}


@pytest.mark.parametrize("says", BAD)
def test_a_bad_record_among_good_ones(write, says):
    path = write("a.sdf", GOOD + BAD[says] + GOOD)
    entries = list(read_molecules(path, need_3d=True))
    assert [e.error is None for e in entries] == [True, False, True]
    assert says in entries[1].error
    line = GOOD.count("\n") + 1
    assert entries[1].where == f"{path}, record 2 (line {line})"


def test_a_drawing_will_do_where_no_coordinates_are_needed(write):
    path = write("a.sdf", sdf(drawn(Chem.MolFromSmiles(FLUORO))))
    (entry,) = read_molecules(path)
    assert smiles_of(entry) == Chem.CanonSmiles(FLUORO)
    assert entry.mol.GetNumAtoms() == 9


def test_fields_without_a_name_are_passed_over(write):
    record = GOOD.replace("$$$$", ">  <>\n1\n\n>  25\n2\n\n>  <note>\n3\n\n$$$$")
    (entry,) = read_molecules(write("a.sdf", record))
    assert entry.error is None
    assert entry.mol.GetProp("note") == "3"


def test_fields_come_with_the_molecule(write):
    path = write("a.sdf", sdf(mol_of(ETHANOL), "x", energy="-1.5", note="two words"))
    (entry,) = read_molecules(path)
    assert entry.mol.GetProp("note") == "two words"
    assert entry.mol.GetDoubleProp("energy") == -1.5


@pytest.mark.parametrize("kept", [0.2, 0.6, 0.97])
def test_a_truncated_file_keeps_what_is_whole(write, kept):
    last = sdf(mol_of(ETHANOL), "last", energy="-123.25")
    path = write("a.sdf", GOOD + last[: int(kept * len(last))])
    entries = list(read_molecules(path, need_3d=True))
    assert [e.name for e in entries if e.error is None] == ["good"]
    assert "cut off" in entries[1].error


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_a_truncated_archive_keeps_what_is_whole(write, pack):
    suffix = "gz" if pack is gzip.compress else "xz"
    text = "".join(sdf(mol_of(FLUORO, k + 1), f"m{k}") for k in range(200))
    whole = pack(text.encode())
    entries = list(read_molecules(write(f"a.sdf.{suffix}", whole[: len(whole) * 2 // 3])))
    assert "cannot be read on" in entries[-1].error
    assert all(e.error is None for e in entries[:-1])
    assert 10 < len(entries) < 200


def test_a_file_that_is_no_archive(write):
    (entry,) = read_molecules(write("a.sdf.gz", b"no archive"))
    assert "cannot be read on" in entry.error


def test_xyz_charges_are_said_or_given(write):
    ion = mol_of("C[NH3+]")
    path = write("a.xyz", xyz(ion, "charge=1") + xyz(ion))
    said, given = read_molecules(path, charge=1)
    assert smiles_of(said) == smiles_of(given) == "C[NH3+]"
    entries = list(read_molecules(path))
    assert smiles_of(entries[0]) == "C[NH3+]"


def test_xyz_trouble(write):
    good = xyz(mol_of(ETHANOL))
    cut = "\n".join(good.split("\n")[:5])
    for bad, says in (
        (good.replace("C ", "Q ", 1), "cannot be read"),
        (good.replace(good.split()[2], "nan", 1), "finite"),
        (cut, "cut off"),
        ("no number\n", "number of atoms"),
        ("²\n", "number of atoms"),
        ("9" * 30 + "\n", "number of atoms"),
    ):
        entries = list(read_molecules(write("a.xyz", good + bad)))
        assert [e.error is None for e in entries] == [True, False]
        assert says in entries[1].error


def test_an_atom_alone_is_a_molecule(write):
    (entry,) = read_molecules(write("a.xyz", "1\nhelium\nHe 0 0 0\n"))
    assert from_mol(entry.mol).smiles == "[He]"


def test_a_folder_of_xyz_files(write, tmp_path):
    write("many/b.xyz", xyz(mol_of(FLUORO)))
    write("many/a.xyz", xyz(mol_of(ETHANOL)))
    write("many/c.xyz", "")
    write("many/notes.md", "not a molecule")
    entries = list(read_molecules(tmp_path / "many"))
    assert [e.name for e in entries] == ["a", "b", ""]
    assert [smiles_of(e) for e in entries[:2]] == ["CCO", Chem.CanonSmiles(FLUORO)]
    assert "empty" in entries[2].error


@pytest.mark.parametrize(
    ("text", "count"), [("CCO one\nC two\n", 2), (GOOD + GOOD, 2), (xyz(mol_of(ETHANOL)), 1)]
)
def test_standard_input(monkeypatch, text, count):
    stream = io.TextIOWrapper(io.BytesIO(text.encode()))
    monkeypatch.setattr(sys, "stdin", stream)
    entries = list(read_molecules("-"))
    assert [e.error for e in entries] == [None] * count
    assert entries[0].where.startswith("stdin, ")


def test_what_cannot_be_read_at_all(write, tmp_path):
    for path, says in (
        (tmp_path / "nowhere.sdf", "nowhere.sdf"),
        (write("a.docx", "CCO"), "no known kind"),
        (write("a.smi", ""), "empty"),
        (write("folder/notes.md", "").parent, "no .xyz"),
    ):
        with pytest.raises(InputError, match=says):
            list(read_molecules(path))


def test_records_come_one_by_one(write, monkeypatch):
    """A file larger than memory is no trouble: nothing beyond the asked-for record is read."""
    path = write("a.smi", "CCO\n" * 200_000)
    pieces = split(path)
    for _ in range(3):
        assert next(pieces).position < 100_000
    monkeypatch.setattr(readers, "LONGEST", 5000)
    path = write("a.sdf", GOOD + "noise\n" * 3000 + "$$$$\n" + GOOD)
    entries = list(read_molecules(path))
    assert [e.error is None for e in entries] == [True, False, True]
    assert "longer" in entries[1].error


def test_extensions_of_smiles_are_not_taken_for_a_name(tmp_path):
    path = tmp_path / "list.smi"
    path.write_text("CCO a\nC[C@H](F)[C@@H](Cl)O |&1:1,3| b\nCCN |c\n")
    good, extended, named = read_molecules(path)
    assert (good.name, named.name) == ("a", "|c")
    assert extended.mol is None
    assert "line 2" in extended.where
    assert "CXSMILES" in extended.error
