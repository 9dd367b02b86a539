"""What is written reads back: atoms in order, bonds, charges, stereo, coordinates, properties."""

import gzip
import io
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from sciffusion.domains.molecule.chem import parse_smiles
from sciffusion.domains.molecule.readers import read_molecules
from sciffusion.domains.molecule.writers import FORMATS, file_name, format_of, pdb, sdf, write, xyz
from sciffusion.errors import InputError

SMILES = [
    "CC(=O)Nc1ccc(O)cc1",
    "C[C@H](N)C(=O)O/N=C/C",
    "[13CH3][C@@H]([2H])F",
    "C[N+](C)(C)CC(=O)[O-]",
    "C[CH]C",
    "CC(=O)[O-].[Na+]",
    "O=[N+]([O-])c1ccc2[nH]ccc2c1",
    "[H][H]",
    "[Cl-]",
    "O=S(=O)(N)c1ccc(cc1)P(=O)(O)O",
]
HOSTILE = ["paracetamol", "α-ö name", "$$$$", 'a\\b "c" \' <x>', "../../etc/passwd", "x" * 300]


def conformers(smiles, n=3, name="m"):
    mol = parse_smiles(smiles)
    mol.SetProp("_Name", name)
    rdDistGeom.EmbedMultipleConfs(mol, n, randomSeed=2)
    for k, conformer in enumerate(mol.GetConformers()):
        conformer.SetIntProp("conformer", k + 1)
        conformer.SetProp("SMILES", smiles)
        conformer.SetDoubleProp("energy_kcal_per_mol", -1.5 * k)
        conformer.SetProp("energy_method", "MMFF94s")
    return mol


def read_sdf(text):
    supplier = Chem.SDMolSupplier()
    supplier.SetData(text, removeHs=False)
    return list(supplier)


def atoms(mol):
    return [
        (a.GetAtomicNum(), a.GetFormalCharge(), a.GetIsotope(), a.GetNumRadicalElectrons())
        for a in mol.GetAtoms()
    ]


def bonds(mol):
    mol = Chem.Mol(mol)
    Chem.Kekulize(mol, clearAromaticFlags=True)
    return {
        (min(e), max(e), b.GetBondType())
        for b in mol.GetBonds()
        if (e := (b.GetBeginAtomIdx(), b.GetEndAtomIdx()))
    }


@pytest.mark.parametrize("smiles", SMILES)
def test_sdf(smiles):
    mol = conformers(smiles)
    back = read_sdf(sdf(mol))
    assert len(back) == 3
    for k, (found, conformer) in enumerate(zip(back, mol.GetConformers(), strict=True)):
        assert found.GetProp("_Name") == "m"
        assert atoms(found) == atoms(mol)
        assert bonds(found) == bonds(mol)
        np.testing.assert_allclose(
            found.GetConformer().GetPositions(), conformer.GetPositions(), atol=1e-4
        )
        assert Chem.MolToSmiles(Chem.RemoveHs(found)) == Chem.CanonSmiles(smiles)
        assert found.GetProp("SMILES") == smiles
        assert found.GetIntProp("conformer") == k + 1
        assert found.GetDoubleProp("energy_kcal_per_mol") == -1.5 * k
        assert found.GetProp("energy_method") == "MMFF94s"


def test_open_stereo_is_that_of_each_conformer():
    one = conformers("CC=CC(F)Cl", 20)
    back = read_sdf(sdf(one))
    found = {Chem.MolToSmiles(Chem.RemoveHs(m)) for m in back}
    assert len(found) == 4
    for mol in back:
        assert not any(b.GetStereo() == Chem.BondStereo.STEREOANY for b in mol.GetBonds())
    assert Chem.MolToSmiles(Chem.RemoveHs(one)) == "CC=CC(F)Cl"  # left as it was


def test_large_molecules():
    mol = Chem.AddHs(Chem.MolFromSmiles("C" * 340))
    mol.SetProp("_Name", "chain")
    conformer = Chem.Conformer(mol.GetNumAtoms())
    conformer.SetPositions(np.random.default_rng(0).normal(size=(mol.GetNumAtoms(), 3)))
    mol.AddConformer(conformer)
    assert mol.GetNumAtoms() > 999
    text = sdf(mol)
    assert "V3000" in text
    assert atoms(read_sdf(text)[0]) == atoms(mol)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names(name):
    mols = [conformers("CO", 2, name), conformers("CN", 1, "next")]
    text = "".join(map(sdf, mols))
    back = read_sdf(text)
    assert [Chem.MolToSmiles(Chem.RemoveHs(m)) for m in back] == ["CO", "CO", "CN"]
    assert back[0].GetProp("_Name") == name.replace("$$$$", "$$$")
    assert len("".join(map(xyz, mols)).splitlines()) == 2 * 8 + 9


@pytest.mark.parametrize("smiles", SMILES)
def test_xyz(smiles):
    read = pytest.importorskip("ase.io").read
    mol = conformers(smiles, name='a\\b "c"')
    frames = read(io.StringIO(xyz(mol)), index=":", format="extxyz")
    assert len(frames) == 3
    for k, (frame, conformer) in enumerate(zip(frames, mol.GetConformers(), strict=True)):
        assert frame.numbers.tolist() == [a.GetAtomicNum() for a in mol.GetAtoms()]
        np.testing.assert_allclose(frame.positions, conformer.GetPositions(), atol=1e-7)
        assert frame.info["name"] == 'a\\b "c"'
        assert frame.info["SMILES"] == smiles
        assert frame.info["energy_kcal_per_mol"] == pytest.approx(-1.5 * k)


def test_xyz_tells_the_charge(tmp_path):
    """Else the bonds of an ion could not be read back."""
    path = tmp_path / "ions.xyz"
    path.write_text("".join(map(xyz, map(conformers, ["C[NH3+]", "CC(=O)[O-]", "[Cl-]", "CCO"]))))
    found = [Chem.MolToSmiles(Chem.RemoveHs(entry.mol)) for entry in read_molecules(path)]
    assert found == ["C[NH3+]"] * 3 + ["CC(=O)[O-]"] * 3 + ["[Cl-]"] * 3 + ["CCO"] * 3


@pytest.mark.parametrize("smiles", [s for s in SMILES if "." not in s])
def test_pdb(smiles):
    mol = conformers(smiles)
    text = pdb(mol)
    assert text.count("MODEL ") == text.count("ENDMDL") == 3
    found = Chem.MolFromPDBBlock(text, removeHs=False, sanitize=False, proximityBonding=False)
    assert found.GetNumConformers() == 3
    assert [a.GetAtomicNum() for a in found.GetAtoms()] == [
        a.GetAtomicNum() for a in mol.GetAtoms()
    ]
    pairs = lambda m: {tuple(sorted((i, j))) for i, j, _ in bonds_as_they_are(m)}  # noqa: E731
    assert pairs(found) == pairs(mol)


def bonds_as_they_are(mol):
    return [(b.GetBeginAtomIdx(), b.GetEndAtomIdx(), b.GetBondType()) for b in mol.GetBonds()]


@pytest.mark.parametrize("suffix", [*FORMATS, *(f"{s}.gz" for s in FORMATS), ".SDF"])
def test_files_may_be_joined(suffix, tmp_path):
    mols = [conformers("CO", 2, "a"), conformers("CN", 1, "b")]
    out = tmp_path / f"x{suffix}"
    write(mols, str(out))
    form = format_of(str(out))
    pieces = b"".join(form.data([mol]) for mol in mols)
    opened = gzip.decompress if suffix.endswith(".gz") else bytes
    assert opened(out.read_bytes()) == opened(pieces)


def test_a_folder(tmp_path):
    mols = [conformers("CO", 2, name) for name in HOSTILE]
    write(mols, f"{tmp_path / 'out'}/")
    files = list((tmp_path / "out").iterdir())
    assert len(files) == len(HOSTILE)
    assert all(len(list(Chem.SDMolSupplier(str(f)))) == 2 for f in files)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_file_names_are_safe_and_differ():
    names = [*HOSTILE, "a/b", "a_b", "a b", ".", "..", "con\0", "x" * 301]
    found = [file_name(name) for name in names]
    assert len(set(found)) == len(names)
    for name in found:
        assert Path(name).name == name
        assert not name.startswith(".")
        assert len(name.encode()) < 200


@pytest.mark.parametrize("out", ["x.mol2", "x", "x.gz", "x.sdf.xz", "sdf"])
def test_unknown_formats(out):
    with pytest.raises(InputError, match=r"\.sdf, \.sdf\.gz, \.xyz"):
        format_of(out)
