import json
import re
from dataclasses import replace

import numpy as np
from rdkit import Chem
from rdkit.Chem import AllChem

from sciffusion.domains.molecule.chem import record_of
from sciffusion.domains.molecule.graph import Record
from sciffusion.domains.molecule.report import ensembles, sections
from sciffusion.viz.report import Report


def record(smiles, conformers=4, name=""):
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMultipleConfs(mol, conformers, randomSeed=11)
    return record_of([Chem.Mol(mol, confId=c.GetId()) for c in mol.GetConformers()], name)


def turned(coords):
    """Rigidly moved, as a set, to another place."""
    q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    return coords @ (q * np.linalg.det(q)) + 50


def positions(view):
    mols = [Chem.MolFromMolBlock(text, False, False) for text in view.models]
    return np.stack([m.GetConformer().GetPositions() for m in mols])


def figures(page):
    return [json.loads(s) for s in re.findall(r'application/json">(.*?)</script>', page.html())]


def test_a_reference_lies_where_its_conformer_lies():
    one = record("CC(=O)NCCO")
    moved = replace(one, coords=turned(one.coords))
    generated, reference = ensembles(one, moved)
    assert (generated.title, reference.title) == ("Generated", "References")
    np.testing.assert_allclose(positions(generated), positions(reference), atol=2e-3)
    assert generated.reach == reference.reach


def test_references_in_another_order_of_atoms_are_shown_too():
    one = record("OCCN")
    generated, reference = ensembles(one, record("NCCO", 2))
    assert (len(generated.models), len(reference.models)) == (4, 2)


def test_conformers_come_by_energy_and_the_highest_is_among_the_few_shown():
    one = replace(record("CCCCO", 6), energy=np.array([5.0, -1, 3, np.nan, 0, 2]))
    (shown,) = ensembles(one, conformers=3)
    assert shown.names[0] == "+0.0 kcal/mol"
    assert len(shown.models) == 3
    values = [float(n.split()[0]) for n in shown.names if n]
    assert values == sorted(values)
    (everything,) = ensembles(one)
    assert everything.names == [f"+{e:.1f} kcal/mol" for e in (0, 1, 3, 4, 6)] + [""]
    assert "3 of 6 conformers, within 6.0 kcal/mol" in shown.note


def test_a_page_shows_each_molecule_beside_its_own_references():
    names = ["ethanol", "", "alanine"]
    smiles = ["CCO", "CCN", "C[C@H](N)C(=O)O"]
    generated = [record(s, 2, n) for s, n in zip(smiles, names, strict=True)]
    references = [record(s, 3, n) for s, n in zip(smiles, names, strict=True)][::-1]
    page = sections(Report("t"), generated, references)
    shown = figures(page)
    assert [[len(v["models"]) for v in views] for views in shown] == [[2, 3]] * 3
    for views, one in zip(shown, generated, strict=True):
        for text in (m for v in views for m in v["models"]):
            mol = Chem.MolFromMolBlock(text, False, False)
            assert [a.GetAtomicNum() for a in mol.GetAtoms()] == one.graph.z.tolist()
    assert "<h3>ethanol</h3>" in page.html()
    assert "<h3>CCN</h3>" in page.html()
    assert len(figures(sections(Report("t"), generated, molecules=2))) == 2


def test_what_is_not_finite_or_not_there_costs_nothing_else():
    good = record("CCO", 3, "good")
    broken = replace(good, coords=np.where(np.arange(3)[:, None, None] == 1, np.nan, good.coords))
    (shown,) = ensembles(broken)
    assert len(shown.models) == 2
    empty = Record(replace(good.graph, name="empty"), good.coords[:0])
    page = sections(Report("t"), [empty, good], [empty])
    assert "empty: no conformers" in page.html()
    assert len(figures(page)) == 1
