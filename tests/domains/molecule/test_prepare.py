"""Stores: what goes in comes out, however it was computed; what does not come in is told."""

import csv
import hashlib
import io
import json
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import yaml
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from sciffusion import prepare as entry
from sciffusion import resources
from sciffusion.domains.molecule import deposits, prepare, shards
from sciffusion.domains.molecule.chem import ENERGY, from_smiles, parse_smiles, to_mol
from sciffusion.domains.molecule.prepare import Source
from sciffusion.domains.molecule.shards import Recipe
from sciffusion.domains.molecule.stereo import bonds_kept, obeys
from sciffusion.domains.molecule.store import read_store
from sciffusion.errors import InputError

DRUGS = [
    "CC(=O)Nc1ccc(O)cc1",
    "C[C@H](N)C(O)=O",
    "OC(=O)/C=C/C(O)=O",
    "C[C@H]1CC[C@@H](C)CC1",
    "C[N+](C)(C)CC([O-])=O",
    "ClCCBr",
]


def embedded(smiles, n=1, seed=7):
    mol = parse_smiles(smiles)
    assert len(rdDistGeom.EmbedMultipleConfs(mol, n, randomSeed=seed)) == n
    return [Chem.Mol(mol, False, c.GetId()) for c in mol.GetConformers()]


def block(mol, name, energy=None):
    mol = Chem.Mol(mol)
    mol.SetProp("_Name", name)
    field = "" if energy is None else f">  <{ENERGY}>\n{energy}\n\n"
    return Chem.MolToMolBlock(mol) + field + "$$$$\n"


@pytest.fixture(scope="module")
def ensembles():
    """An SDF of six molecules, three conformers each."""
    text = ""
    for k, smiles in enumerate(DRUGS):
        for j, mol in enumerate(embedded(smiles, 3)):
            text += block(mol, f"drug{k}", -10.0 * k - j)
    return text


@pytest.fixture
def sdf(tmp_path, ensembles):
    path = tmp_path / "in.sdf"
    path.write_text(ensembles)
    return path


def store(path, out, workers=1, **settings):
    notes = prepare.prepare(Source([path]), out, Recipe(**settings), workers)
    return list(read_store(out)), notes


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_what_goes_in_comes_out(sdf, tmp_path):
    records, notes = store(sdf, tmp_path / "out")
    assert [r.graph.name for r in records] == [f"drug{k}" for k in range(6)]
    assert [r.graph.smiles for r in records] == [Chem.CanonSmiles(s) for s in DRUGS]
    for k, (record, smiles) in enumerate(zip(records, DRUGS, strict=True)):
        known = [m.GetConformer().GetPositions() for m in embedded(smiles, 3)]
        assert np.allclose(record.coords, known, atol=1e-4)
        assert record.energy.tolist() == [-10.0 * k, -10.0 * k - 1, -10.0 * k - 2]
        assert obeys(record.coords, record.graph).all()
        assert "in.sdf, record" in record.source
    assert (notes.read, notes.molecules, notes.conformers, notes.left_out) == (18, 6, 18, [])
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["files"][0]["sha256"] == hashlib.sha256(sdf.read_bytes()).hexdigest()
    assert card["elements"] == {"Br": 1, "C": 6, "Cl": 1, "H": 6, "N": 3, "O": 4}
    assert sum(card["heavy"].values()) == card["molecules"] == 6
    assert card["charge"] == {"0": 6}


def test_processes_do_not_matter(sdf, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "RECORDS", 4)
    store(sdf, tmp_path / "one", 1)
    store(sdf, tmp_path / "two", 2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert len(list((tmp_path / "one").glob("part-*"))) > 2


def test_a_stopped_preparation_goes_on_and_ends_the_same(sdf, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "RECORDS", 4)
    store(sdf, tmp_path / "whole")
    done = []

    def killed(job):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(job)
        return shards.work(job)

    monkeypatch.setattr(prepare, "work", killed)
    with pytest.raises(KeyboardInterrupt):
        store(sdf, tmp_path / "out")
    assert not (tmp_path / "out" / "card.json").exists()
    again = []
    monkeypatch.setattr(prepare, "work", lambda job: (again.append(job), shards.work(job))[1])
    store(sdf, tmp_path / "out")
    assert {job.shard for job in again}.isdisjoint({job.shard for job in done})
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    monkeypatch.setattr(prepare, "work", None)  # a third call has nothing to do
    records, notes = store(sdf, tmp_path / "out")
    assert (len(records), notes.molecules) == (6, 6)


def test_another_input_does_not_mix_in(sdf, tmp_path, monkeypatch):
    store(sdf, tmp_path / "out")
    with pytest.raises(InputError, match="max_heavy: None, now 5"):
        store(sdf, tmp_path / "out", max_heavy=5)
    sdf.write_text(sdf.read_text() + block(*embedded("CCO"), "more"))
    with pytest.raises(InputError, match="other files"):
        store(sdf, tmp_path / "out")
    monkeypatch.setattr(prepare, "work", lambda job: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        store(sdf, tmp_path / "half")
    with pytest.raises(InputError, match="seed: 0, now 1"):
        store(sdf, tmp_path / "half", seed=1)


def test_what_is_left_out_has_a_line_each(sdf, tmp_path):
    """Bad records, unwanted ones and broken bonds, each by its record; the rest comes in."""
    broken = embedded("CCO")[0]
    broken.GetConformer().SetAtomPosition(0, (9.0, 9.0, 9.0))
    text = sdf.read_text()
    bad = text[: text.index("$$$$")].replace("M  END", "")
    sdf.write_text(bad + "$$$$\n" + block(broken, "broken") + text + text[:500])
    records, notes = store(sdf, tmp_path / "out", elements=("H", "C", "N", "O"), max_heavy=8)
    assert [r.graph.name for r in records] == ["drug1", "drug2", "drug3", "drug4"]
    lines = (tmp_path / "out" / "left_out.txt").read_text().splitlines()
    assert lines == notes.left_out
    assert len(lines) == 1 + 1 + 3 + 3 + 1
    found = [
        ("record 1 (", "cut off"),
        ("record 2 (", "broken: bond 1-2 is broken"),
        *[(f"record {k} (", "11 heavy atoms") for k in (3, 4, 5)],
        *[(f"record {k} (", "Br, Cl") for k in (18, 19, 20)],
        ("record 21 (", "cut off"),
    ]
    for line, (where, why) in zip(lines, found, strict=True):
        assert where in line
        assert why in line


def test_nothing_usable_is_an_error_and_leaves_nothing(tmp_path):
    path = tmp_path / "in.smi"
    path.write_text("C1CC one\nQ two\n")
    with pytest.raises(InputError, match=r"no molecule .*in\.smi, line 1: one: SMILES 'C1CC'"):
        store(path, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize("first", ["", "# a note\n", "C1CC\n"])
def test_a_mended_file_can_follow_one_that_held_nothing(first, tmp_path):
    path, out = tmp_path / "a.smi", tmp_path / "out"
    path.write_text(first)
    with pytest.raises(InputError):
        store(path, out, conformers=0)
    path.write_text("CCO\n")
    records, _ = store(path, out, conformers=0)
    assert [r.graph.smiles for r in records] == ["CCO"]


def test_energies_are_numbers_or_none(tmp_path):
    path, (mol,) = tmp_path / "a.sdf", embedded("CCO")
    path.write_text("".join(block(mol, f"m{k}", e) for k, e in enumerate(["inf", "x", -1.5])))
    records, _ = store(path, tmp_path / "out")
    np.testing.assert_array_equal([r.energy[0] for r in records], [np.nan, np.nan, -1.5])


def test_salts_in_smiles_are_left_out_with_the_reason(tmp_path):
    path = tmp_path / "a.smi"
    path.write_text("CC(=O)[O-].[Na+] acetate\nCCO ethanol\n")
    records, notes = store(path, tmp_path / "out", conformers=1)
    assert [r.graph.name for r in records] == ["ethanol"]
    assert "line 1: acetate: it is several molecules" in notes.left_out[0]


@pytest.mark.parametrize("smiles", DRUGS)
def test_conformers_in_another_order_of_atoms_are_put_in_order(smiles, tmp_path):
    mols = embedded(smiles, 3)
    rng = np.random.default_rng(0)
    shuffled = [mols[0]]
    for mol in mols[1:]:
        order = rng.permutation(mol.GetNumAtoms()).tolist()
        shuffled.append(Chem.RenumberAtoms(mol, order))
    path = tmp_path / "in.sdf"
    path.write_text("".join(block(m, "x") for m in shuffled))
    (record,), _ = store(path, tmp_path / "out")
    assert len(record.coords) == 3
    assert bonds_kept(record.coords, record.graph).all()
    assert obeys(record.coords, record.graph).all()
    for x, mol in zip(record.coords, mols, strict=True):  # the same points under the same elements
        known = mol.GetConformer().GetPositions()
        nearest = np.linalg.norm(x[:, None] - known, axis=-1).argmin(1)
        assert sorted(nearest) == list(range(len(x)))
        elements = np.array([a.GetAtomicNum() for a in mol.GetAtoms()])
        assert (elements[nearest] == record.graph.z).all()


def test_the_hands_of_a_symmetric_ring_are_one_molecule(tmp_path):
    """Mirrored under the same numbers, cis-1,4-dimethylcyclohexane is itself; alanine is not."""
    path = tmp_path / "in.sdf"
    for smiles, count in (("C[C@H]1CC[C@@H](C)CC1", 1), ("C[C@H](N)C(O)=O", 2)):
        (one,) = embedded(smiles)
        other = Chem.Mol(one)
        other.GetConformer().SetPositions(one.GetConformer().GetPositions() * [1, 1, -1])
        path.write_text(block(one, "x") + block(other, "x"))
        records, _ = store(path, tmp_path / f"apart{count}")
        assert len(records) == count
        assert len({r.graph.smiles for r in records}) == count
        assert all(obeys(r.coords, r.graph).all() for r in records)
    (record,), _ = store(path, tmp_path / "together", isomers="together")
    assert record.coords.shape[0] == 2
    assert record.graph.tetra_sign.tolist() == [0]
    assert record.graph.smiles == "CC(N)C(=O)O"


def test_groups_by_name_or_by_bonds(tmp_path):
    a, b = embedded("CCO", 2), embedded("COC", 1)
    path = tmp_path / "in.sdf"
    path.write_text(block(a[0], "conf1") + block(a[1], "conf2") + block(b[0], "conf3"))
    records, _ = store(path, tmp_path / "names")
    assert [len(r.coords) for r in records] == [1, 1, 1]
    records, _ = store(path, tmp_path / "bonds", group="smiles")
    assert [(r.graph.smiles, len(r.coords)) for r in records] == [("CCO", 2), ("COC", 1)]
    path.write_text(block(a[0], "same") + block(a[1], "same") + block(b[0], "same"))
    records, _ = store(path, tmp_path / "shared")
    assert [(r.graph.smiles, len(r.coords)) for r in records] == [("CCO", 2), ("COC", 1)]
    path.write_text("".join(block(m, "") for m in a))
    assert len(store(path, tmp_path / "nameless")[0]) == 2


def test_smiles_are_given_conformers(tmp_path):
    path = tmp_path / "in.csv"
    path.write_text("name,smiles\nalanine,C[C@H](N)C(O)=O\nopen,CCC(C)(F)Cl\nhexane,CCCCCC\n")
    records, notes = store(path, tmp_path / "out", conformers=4)
    assert {r.graph.name for r in records} == {"alanine", "open", "hexane"}
    for record in records:
        assert 1 <= len(record.coords) <= 4
        assert obeys(record.coords, record.graph).all()
        assert np.isfinite(record.energy).all()
        assert (np.diff(record.energy) >= 0).all()
    assert len([r for r in records if r.graph.name == "alanine"]) == 1
    assert all(r.graph.tetra_sign.all() for r in records)  # open ones come out as either
    more, _ = store(path, tmp_path / "more", conformers=4, seed=1)
    assert not np.allclose(more[0].coords[0], records[0].coords[0])
    graphs, _ = store(path, tmp_path / "graphs", conformers=0)
    assert [r.coords.shape[0] for r in graphs] == [0, 0, 0]
    assert graphs[1].graph.tetra_sign.tolist() == [0]
    assert notes.read == 3


def test_a_folder_of_xyz_and_several_files(tmp_path, sdf):
    folder = tmp_path / "xyz"
    folder.mkdir()
    (folder / "ethanol.xyz").write_text("".join(Chem.MolToXYZBlock(m) for m in embedded("CCO", 2)))
    (folder / "acid.xyz").write_text(Chem.MolToXYZBlock(embedded("CC(O)=O")[0]))
    notes = prepare.prepare(Source([folder, sdf]), tmp_path / "out", Recipe(), 1)
    records = list(read_store(tmp_path / "out"))
    found = {r.graph.name: (r.graph.smiles, len(r.coords)) for r in records}
    assert found["ethanol"] == ("CCO", 2)
    assert found["acid"] == ("CC(=O)O", 1)
    assert notes.molecules == 8


def qm9_text(smiles, index=1):
    (mol,) = embedded(smiles)
    x, n = mol.GetConformer().GetPositions(), mol.GetNumAtoms()
    numbers = "\t".join(str(float(k)) for k in range(15))
    symbols = [atom.GetSymbol() for atom in mol.GetAtoms()]
    rows = [
        f"{symbol}\t{p[0]:.8f}\t{p[1]:.6f}\t{p[2]:.6f}\t-0.5"
        for symbol, p in zip(symbols, x, strict=True)
    ]
    rows[0] = rows[0].replace(f"{x[0][0]:.8f}", f"{x[0][0] * 1e5:.4f}*^-5")
    lines = [str(n), f"gdb {index}\t{numbers}", *rows, "1.0\t2.0", f"{smiles}\t{smiles}\t", "InChI"]
    return "\n".join(lines) + "\n"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def served(tmp_path):
    """A folder on a local server: (folder, address)."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def published(monkeypatch, tmp_path, name, address, data):
    """A card of a data set that lies on the local server."""
    card = {"address": address, "checksum": f"sha256:{hashlib.sha256(data).hexdigest()}"}
    path = tmp_path / "datasets" / name / "card.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(card))
    monkeypatch.setattr(resources, "path", lambda kind, part="": tmp_path / kind / part)


def archive(files, mode):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def test_qm9_is_fetched_and_read(served, tmp_path, monkeypatch):
    smiles = ["CCO", "N#CC=O", "C[C@H](O)C#C", "[NH3+]CC([O-])=O"]
    files = {f"dsgdb9nsd_{k:06d}.xyz": qm9_text(s, k).encode() for k, s in enumerate(smiles)}
    files["dsgdb9nsd_000004.xyz"] = qm9_text("CCO", 4).replace("CCO", "COC").encode()
    files["dsgdb9nsd_000005.xyz"] = b"nonsense"
    data = archive(files, "w:bz2")
    (served[0] / "3195389").write_bytes(data)
    published(monkeypatch, tmp_path, "qm9", f"{served[1]}/3195389", data)
    source = deposits.deposit("qm9", tmp_path / "cache")
    notes = prepare.prepare(source, tmp_path / "out", Recipe(), 1)
    records = list(read_store(tmp_path / "out"))
    assert [r.graph.smiles for r in records] == [Chem.CanonSmiles(s) for s in smiles]
    assert records[0].graph.name == "dsgdb9nsd_000000"
    assert records[0].energy[0] == pytest.approx(10 * 627.509474)  # the 11th number, Hartree
    assert np.allclose(
        records[0].coords[0], embedded("CCO")[0].GetConformer().GetPositions(), atol=1e-4
    )
    assert len(notes.left_out) == 2
    assert "not those of COC" in notes.left_out[0]
    assert "laid out" in notes.left_out[1]


def test_geom_is_read_without_pickles(tmp_path):
    msgpack = pytest.importorskip("msgpack")

    def molecule(smiles, n):
        frames = embedded(smiles, n)
        rows = [
            [[float(a.GetAtomicNum()), *map(float, p)] for a, p in
             zip(mol.GetAtoms(), mol.GetConformer().GetPositions(), strict=True)]
            for mol in frames
        ]  # fmt: skip
        return {"conformers": [{"xyz": r, "totalenergy": -float(k)} for k, r in enumerate(rows)]}

    maps = [{s: molecule(s, 3) for s in DRUGS[:2]}, {DRUGS[4]: molecule(DRUGS[4], 2)}]
    maps[1][DRUGS[4]]["conformers"][1]["xyz"][0][1] += 7.0  # an atom that has left
    path = tmp_path / "crude.msgpack.tar.gz"
    packed = b"".join(msgpack.packb(m) for m in maps)
    path.write_bytes(archive({"crude.msgpack": packed}, "w:gz"))
    notes = prepare.prepare(Source([path], deposits.cut_geom), tmp_path / "out", Recipe(), 1)
    records = list(read_store(tmp_path / "out"))
    assert [r.graph.name for r in records] == [DRUGS[0], DRUGS[1], DRUGS[4]]
    assert [len(r.coords) for r in records] == [3, 3, 1]
    assert records[0].energy.tolist() == pytest.approx([0, -627.509474, -2 * 627.509474])
    assert len(notes.left_out) == 1


def test_cards_tell_where_data_sets_come_from():
    for name in ("qm9", "geom_qm9", "geom_drugs"):
        card = yaml.safe_load(resources.path("datasets", f"{name}/card.yaml").read_text())
        assert card["address"].startswith("https://")
        assert card["checksum"].startswith("md5:")
        assert {"licence", "source", "splits"} <= set(card)
    with pytest.raises(InputError, match="QCArchive"):
        deposits.deposit("openff", None)
    with pytest.raises(InputError, match="not known"):
        deposits.deposit("qm10", None)


def test_the_embedded_molecules_are_well_formed():
    with resources.path("datasets", "molecules/molecules.csv").open() as file:
        rows = list(csv.DictReader(file))
    graphs = [from_smiles(row["smiles"], row["name"]) for row in rows]
    assert len(rows) >= 300
    assert len({g.smiles for g in graphs}) == len({g.name for g in graphs}) == len(rows)
    elements = {a.GetSymbol() for g in graphs for a in to_mol(g).GetAtoms()}
    assert elements == {"H", "C", "N", "O", "F", "P", "S", "Cl", "Br"}
    assert max(int(g.heavy.sum()) for g in graphs) <= 60
    fixed = [g for g in graphs if g.tetra_sign.any() or g.ez_sign.any()]
    assert len(fixed) > 100


def test_the_embedded_store_is_made_once(tmp_path, monkeypatch):
    listed = tmp_path / "molecules.csv"
    listed.write_text("name,smiles\nwater,O\nethanol,CCO\n")
    monkeypatch.setattr(resources, "path", lambda kind, name="": listed)
    first = prepare.embedded_store(tmp_path / "cache")
    assert {r.graph.name for r in read_store(first)} == {"water", "ethanol"}
    monkeypatch.setattr(prepare, "work", None)
    assert prepare.embedded_store(tmp_path / "cache") == first
    listed.write_text("name,smiles\nmethane,C\n")
    monkeypatch.setattr(prepare, "work", shards.work)
    assert prepare.embedded_store(tmp_path / "cache") != first


def test_the_command(sdf, tmp_path, capsys):
    entry.main(["domain=molecule", f"input={sdf}", f"out={tmp_path / 'o=u,t'}", "workers=1"])
    said = capsys.readouterr().out
    assert "6 molecules with 18 conformers; 0 of 18 records left out" in said
    assert len(list(read_store(tmp_path / "o=u,t"))) == 6


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give the domain"),
        (["domain=moleculs"], "did you mean molecule?"),
        (["domain=molecule"], "input=FILE or dataset=NAME"),
        (["domain=molecule", "input=a.sdf", "dataset=qm9"], "one of the two"),
        (["domain=molecule", "input=a.sdf"], "out=DIR"),
        (["domain=molecule", "input=nowhere.sdf", "out=OUT"], "nowhere.sdf"),
        (["domain=molecule", "input=-", "out=OUT"], "save it as a file"),
        (["domain=molecule", "input=IN", "out=/dev/full/x"], "/dev/full/x"),
        (["domain=molecule", "input=IN", "out=IN"], "in.sdf"),
        (["domain=molecule", "input=IN", "out=OUT", "workers=0"], "workers"),
        (["domain=molecule", "input=IN", "out=OUT", "conformers=-1"], "conformers"),
        (["domain=molecule", "input=IN", "out=OUT", "group=size"], "group=size"),
        (["domain=molecule", "input=IN", "out=OUT", "isomers=all"], "isomers=all"),
        (["domain=molecule", "input=IN", "out=OUT", "max_heavy=0"], "max_heavy"),
        (["domain=molecule", "input=IN", "out=OUT", "max_heavy=x"], "max_heavy"),
        (["domain=molecule", "input=IN", "out=OUT", "elements=[C,Qq]"], "'Qq' is no element"),
        (["domain=molecule", "input=IN", "out=OUT", "worker=2"], "did you mean workers?"),
        (["domain=molecule", "dataset=qm10"], "qm10"),
    ],
)
def test_wrong_commands_are_one_line(arguments, says, sdf, tmp_path, capsys):
    arguments = [
        a.replace("=IN", f"={sdf}").replace("=OUT", f"={tmp_path / 'out'}") for a in arguments
    ]
    with pytest.raises(SystemExit) as leave:
        entry.cli(arguments)
    err = capsys.readouterr().err
    assert leave.value.code == 2
    assert err.count("\n") == 1
    assert says in err
    assert not list(tmp_path.rglob("part-*"))
