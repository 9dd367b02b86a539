import hashlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rdkit import Chem
from rdkit.Chem import AllChem

import sciffusion.viz
from sciffusion.errors import InputError
from sciffusion.viz.report import Report
from sciffusion.viz.view3d import View, conformer_view, molblock

VENDOR = Path(sciffusion.viz.__file__).parent / "vendor"
EVIL = "</script><script>alert(1)</script><!-- & \"'"


def molecule(smiles, conformers=1):
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMultipleConfs(mol, conformers, randomSeed=5)
    coords = np.stack([c.GetPositions() for c in mol.GetConformers()])
    z = np.array([a.GetAtomicNum() for a in mol.GetAtoms()])
    bonds = np.array([(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds()])
    orders = [4 if b.GetIsAromatic() else int(b.GetBondTypeAsDouble()) for b in mol.GetBonds()]
    return mol, coords, z, bonds.reshape(-1, 2), np.array(orders, int)


def view(smiles="CC(=O)NCCO", conformers=3, **words):
    _, coords, z, bonds, orders = molecule(smiles, conformers)
    return conformer_view(coords, z, bonds, orders, **words)


def scripts(html):
    return re.findall(r"<script[^>]*>(.*?)</script>", html, re.S)


@pytest.mark.parametrize("smiles", ["Clc1ccc(Br)cc1C#N", "[Na+].[O-]S(=O)(=O)C=C", "[He]"])
def test_a_molfile_says_what_the_arrays_say(smiles):
    mol, coords, z, bonds, orders = molecule(smiles)
    back = Chem.MolFromMolBlock(molblock(coords[0], z, bonds, orders), False, False)
    assert [a.GetAtomicNum() for a in back.GetAtoms()] == z.tolist()
    assert [b.GetBondType() for b in back.GetBonds()] == [b.GetBondType() for b in mol.GetBonds()]
    ends = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in back.GetBonds()]
    assert ends == list(map(tuple, bonds))
    np.testing.assert_allclose(back.GetConformer().GetPositions(), coords[0], atol=6e-4)


def test_models_come_through_whole_whatever_they_say():
    still = Image.new("RGBA", (4, 3))
    evil = View([EVIL, "b"], still, names=[EVIL, ""], title=EVIL, note=EVIL)
    html = Report("t").add_structure(evil, heading=EVIL, caption=EVIL).html()
    data = [json.loads(s) for s in scripts(html) if s.startswith("[")]
    assert data[0][0]["models"] == [EVIL, "b"]
    assert data[0][0]["names"] == [EVIL, ""]
    assert "<script>alert" not in html
    assert html.count("&lt;script&gt;alert(1)") >= 4


def test_conformers_keep_their_shape_and_share_a_frame():
    _, coords, z, bonds, orders = molecule("C[C@H](N)C(=O)O", 2)
    one = conformer_view(coords, z, bonds, orders)
    for text, x in zip(one.models, coords, strict=True):
        shown = Chem.MolFromMolBlock(text, False, False).GetConformer().GetPositions()
        # a proper rotation: all distances and the hand of the centre stay
        a, b = (np.linalg.norm(p[:, None] - p, axis=-1) for p in (shown, x))
        np.testing.assert_allclose(a, b, atol=5e-3)
        hands = [np.linalg.det(p[:3] - p[3]) for p in (shown, x)]
        assert np.sign(hands[0]) == np.sign(hands[1])
        assert np.abs(shown[:, 0]).max() < one.reach


def test_the_library_is_in_a_page_once_and_only_where_it_is_needed():
    library = (VENDOR / "3Dmol-2.5.5.min.js").read_text()
    two = Report("t").add_structure(view()).add_structure(view("O"), view("N")).html()
    assert two.count(library) == 1
    assert (VENDOR / "LICENSE.txt").read_text() in two
    assert library not in Report("t").add_text("x").html()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', two)[1]
    assert policy.startswith("default-src 'none';")
    assert "eval" not in policy
    assert "http" not in policy


def test_the_library_is_the_file_that_its_note_names():
    (stated,) = re.findall(r"sha256 ([0-9a-f]{64})", (VENDOR / "README.md").read_text())
    found = hashlib.sha256((VENDOR / "3Dmol-2.5.5.min.js").read_bytes()).hexdigest()
    assert found == stated


def test_refuses_views_that_do_not_fit():
    still = Image.new("RGB", (4, 3))
    with pytest.raises(InputError, match="without models"):
        View([], still)
    with pytest.raises(InputError, match="2 names for 1 models"):
        View(["x"], still, names=["a", "b"])
    with pytest.raises(InputError, match="kind 'cif'"):
        View(["x"], still, kind="cif")
    with pytest.raises(InputError, match="without views"):
        Report("t").add_structure()
    with pytest.raises(InputError, match="neither PNG"):
        Report("t").add_structure(View(["x"], b"GIF89a"))


class Stage:
    """A frame of the page, as a person sees it."""

    def __init__(self, page, k):
        self.page, self.query = page, f"document.querySelectorAll('.stage')[{k}]"

    @property
    def box(self):
        names = ("x", "y", "width", "height")
        script = f"JSON.stringify({self.query}.getBoundingClientRect())"
        box = json.loads(self.page.run(script))
        return {name: box[name] for name in names}

    def seen(self):
        """Its pixels, without the border and the ring of focus."""
        box = self.box
        scrolled = self.page.run("window.scrollY")
        inner = {"x": box["x"] + 4, "y": box["y"] + scrolled + 4, "scale": 1}
        inner |= {"width": box["width"] - 8, "height": box["height"] - 8}
        with Image.open(io.BytesIO(self.page.picture(clip=inner))) as picture:
            return np.asarray(picture.convert("RGB"), int)

    def drag(self, dx, dy):
        box = self.box
        self.page.drag(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, dx, dy)


def changed(a, b):
    """Share of pixels that differ clearly."""
    return (np.abs(a - b).max(-1) > 40).mean()


def ink(x):
    """Share of pixels that are not ground."""
    return changed(x, x[:1, :1])


@pytest.mark.slow
def test_in_a_browser_a_molecule_turns_and_nothing_is_fetched(browser, tmp_path):
    names = ["first", "second", "third"]
    pair = view(names=names, title="Generated"), view(conformers=2, title="References")
    path = Report("t").add_structure(*pair, caption="both").write(tmp_path / "r.html")
    page = browser()
    page.open(path)
    page.wait("document.querySelector('.views.live')")
    left, right = Stage(page, 0), Stage(page, 1)
    before, beside = left.seen(), right.seen()
    assert ink(before) > 0.01

    left.drag(90, 30)
    assert changed(before, left.seen()) > 0.01
    assert changed(beside, right.seen()) > 0.01  # it turns along
    turned = left.seen()
    page.key("ArrowRight")
    assert changed(turned, left.seen()) > 0.005
    page.key("0")
    assert changed(before, left.seen()) < 0.001  # back home

    slider = "document.querySelector('.view input[type=range]')"
    page.run(f"{slider}.focus()")
    page.key("ArrowRight")
    said = page.run("document.querySelector('.view output').textContent")
    assert "1 of 3" in said
    assert "first" in said
    single = left.seen()
    assert 0 < ink(single) < ink(before)  # one conformer covers less than three
    page.run("document.querySelector('.hint input').click()")
    assert ink(left.seen()) > ink(single)  # with all its hydrogens, more

    page.call("Emulation.setEmulatedMedia", media="print")
    shown = "[...document.querySelectorAll('.stage img, .stage canvas, .bar')].map(e => "
    shown += "getComputedStyle(e).display !== 'none' && getComputedStyle(e).visibility)"
    assert page.run(shown) == ["visible", False, False] * 2
    for sent in page.told("Network.requestWillBeSent"):
        assert sent["request"]["url"].startswith(("data:", path.as_uri()))
    assert not page.told("Runtime.exceptionThrown")
    assert not [e for e in page.told("Log.entryAdded") if e["entry"]["level"] == "error"]


@pytest.mark.slow
def test_in_the_dark_the_ground_is_dark(browser, tmp_path):
    path = Report("t").add_structure(view(conformers=1)).write(tmp_path / "r.html")
    page = browser()
    page.call(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}]
    )
    page.open(path)
    page.wait("document.querySelector('.views.live')")
    dark = Stage(page, 0).seen()
    assert dark[0, 0].max() < 60
    assert ink(dark) > 0.01
    page.call("Emulation.setEmulatedMedia", features=[])
    light = Stage(page, 0).seen()
    assert light[0, 0].min() > 240
    assert ink(light) > 0.01


@pytest.mark.slow
def test_more_viewers_than_a_browser_has_contexts_all_show(browser, tmp_path):
    report, one = Report("t"), view("CCO", 1)
    for _ in range(20):
        report.add_structure(one)
    page = browser()
    small = {"width": 320, "height": 400, "deviceScaleFactor": 1, "mobile": False}
    page.call("Emulation.setDeviceMetricsOverride", **small)
    page.open(report.write(tmp_path / "r.html"))
    for k in range(20):
        page.run(f"document.querySelectorAll('.stage')[{k}].scrollIntoView()")
        page.wait(f"document.querySelectorAll('.views')[{k}].matches('.live')")
    for k in (0, 10, 19):  # the first ones have not been lost to the last
        page.run(f"document.querySelectorAll('.stage')[{k}].scrollIntoView()")
        stage = Stage(page, k)
        before = stage.seen()
        assert ink(before) > 0.01
        stage.drag(60, 60)
        assert changed(before, stage.seen()) > 0.005


@pytest.mark.slow
def test_without_webgl_the_still_picture_stays(browser, tmp_path):
    path = Report("t").add_structure(view()).write(tmp_path / "r.html")
    page = browser()
    kinds = "[OffscreenCanvas, HTMLCanvasElement]"
    page.call(
        "Page.addScriptToEvaluateOnNewDocument",
        source=f"for (const kind of {kinds}) kind.prototype.getContext = () => null;",
    )
    page.open(path)
    page.wait("document.querySelector('.views.still')")
    assert not page.run("document.querySelectorAll('.stage canvas, .views.live').length")
    assert ink(Stage(page, 0).seen()) > 0.01
    assert not page.told("Runtime.exceptionThrown")
