import io
import json
import re
import time

import numpy as np
import pytest
from PIL import Image

from sciffusion.errors import InputError
from sciffusion.viz.molecules import Frame
from sciffusion.viz.proteins import CHAINS, FOLD, RAINBOW, Trace, backbone_picture
from sciffusion.viz.raster import Raster
from sciffusion.viz.report import Report
from sciffusion.viz.ribbon import ribbon
from sciffusion.viz.view3d import backbone_view

ACROSS, _, UP = np.eye(3)
AS_IT_LIES = Frame(np.eye(3), np.zeros(3), (20.0, 20.0), 25.0)


def helix(n):
    """CA of an alpha helix along x: 1.5 Angstrom and 100 degrees a residue, right-handed."""
    turn = np.radians(100) * np.arange(n)
    return np.stack([1.5 * (np.arange(n) - n / 2), 2.3 * np.cos(turn), 2.3 * np.sin(turn)], -1)


def strand(n):
    """CA of a strand along x whose pleat points at the eye."""
    i = np.arange(n)
    return np.stack([3.3 * (i - (n - 1) / 2), 0.0 * i, 0.95 * (-1.0) ** i], -1)


def pdb(ca, codes=None, chain=None):
    """As text, with atoms about each CA so that a cartoon can be drawn."""
    chain = np.full(len(ca), "A") if chain is None else chain
    codes = np.zeros(len(ca), int) if codes is None else codes
    lines = []
    for code, head in ((1, "HELIX    1   1"), (2, "SHEET    1   1 1")):
        rows = np.flatnonzero(codes == code) + 1
        gap = " " if code == 1 else ""
        for a, b in [(rows.min(), rows.max())] if len(rows) else []:
            lines.append(f"{head} GLY A{gap}{a:4d}  GLY A{gap}{b:4d}  1")
    ahead = np.gradient(ca, axis=0)
    ahead /= np.linalg.norm(ahead, axis=-1, keepdims=True)
    side = np.cross(ahead, np.roll(ahead, 1, axis=0) + UP * 1e-3)
    for i, x in enumerate(ca):
        atoms = {"N": x - ahead[i], "CA": x, "C": x + ahead[i], "O": x + ahead[i] + side[i]}
        for name, (a, b, c) in atoms.items():
            lines.append(
                f"ATOM  {len(lines):5d}  {name:<3} GLY {chain[i]}{i + 1:4d}    "
                f"{a:8.3f}{b:8.3f}{c:8.3f}  1.00  0.00          {name[0]:>2}  "
            )
    return "\n".join([*lines, "END", ""])


def solid(picture):
    return np.asarray(picture)[..., 3] > 127


def rigid(rng):
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return q * np.linalg.det(q)


def test_a_mesh_covers_the_area_that_geometry_says_and_hides_what_is_behind():
    tetrahedron = np.array([[-2, -2, -1], [2, -2, -1], [0, 2, -1], [0, 0, 3.0]])
    faces = np.array([[0, 1, 3], [1, 2, 3], [2, 0, 3], [0, 2, 1]])
    colours = np.repeat([[0, 0, 1.0]], 4, 0)
    raster = Raster(200, 200, 40)
    raster.mesh(tetrahedron, tetrahedron, colours, faces)
    raster.sphere([0, 0, 0], 0.3, (1, 0, 0))  # inside
    raster.sphere([1.8, 1.8, 0], 0.15, (1, 0, 0))  # beside
    rgb = np.asarray(raster.image(), int)
    blue = (rgb[..., 2] > rgb[..., 0]) & (rgb[..., 3] > 127)
    red = (rgb[..., 0] > rgb[..., 2] + 40) & (rgb[..., 3] > 127)
    assert blue.sum() / 40**2 == pytest.approx(4 * 4 / 2, rel=0.06)
    rows, columns = np.nonzero(red)
    assert rows.size
    assert rows.max() < 40  # y goes up: the ball beside lies above
    assert columns.min() > 160


@pytest.mark.parametrize("codes", [0, 1, 2])
def test_a_ribbon_is_closed_and_its_normals_point_outward(codes):
    surface = ribbon(helix(12), np.full(12, codes))
    corners = surface.points[surface.faces]
    # a closed surface: the areas of its faces, as vectors, add up to nothing
    areas = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    agrees = np.sign((areas * surface.normals[surface.faces].sum(1)).sum(-1))
    outward = areas * agrees[:, None]
    assert np.abs(outward.sum(0)).max() < 0.02 * np.abs(areas).sum()
    volume = (outward * corners.mean(1)).sum() / 6
    assert volume > 0  # by Gauss, where normals point out of the body
    assert np.isfinite(surface.points).all()
    np.testing.assert_allclose(np.linalg.norm(surface.normals, axis=-1), 1)


def test_a_ribbon_turns_with_its_trace():
    rng = np.random.default_rng(0)
    ca, codes = (
        np.concatenate([helix(9), strand(6) + 25 * ACROSS + 3 * UP]),
        np.r_[[1] * 9, [2] * 6],
    )
    turn = rigid(rng)
    a, b = ribbon(ca, codes), ribbon(ca @ turn + 4, codes)
    np.testing.assert_allclose(a.points @ turn + 4, b.points, atol=1e-8)
    np.testing.assert_allclose(a.normals @ turn, b.normals, atol=1e-8)


def test_strands_are_wide_across_and_thin_along_their_pleat_and_end_in_a_head():
    ca = strand(9)
    tube, band = (ribbon(ca, np.full(9, code)).points for code in (0, 2))
    width = np.ptp(band[:, 1])
    middle = np.abs(band[:, 0]) < 8  # the ends keep their pleat
    depth = np.ptp(band[middle, 2])
    assert width > 3 * depth
    assert width > 4 * np.ptp(tube, axis=0)[1]
    # the widest place is near the C-terminus, behind it a point
    at = band[np.abs(band[:, 1]).argmax(), 0]
    assert 0.6 < (at - ca[0, 0]) / np.ptp(ca[:, 0]) < 0.95
    tip = np.abs(band[band[:, 0] > ca[-1, 0] - 0.2, 1]).max()
    assert tip < 0.3 * width


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_shortest_chains_are_drawn(n):
    for ca in (strand(n), helix(n), np.arange(n)[:, None] * [3.8, 0, 0]):  # a straight line too
        assert solid(backbone_picture(ca, np.full(n, 2))).any()


def test_a_picture_is_of_the_trace_whichever_way_it_was_put_down():
    rng = np.random.default_rng(1)
    ca = np.concatenate([helix(14), helix(10)[:, [1, 0, 2]] * [1, -1, 1] + [16, 9, 2]])
    codes = np.full(len(ca), 1)
    one = backbone_picture(ca, codes, size=(150, 120))
    other = backbone_picture(ca @ rigid(rng) + 50, codes, size=(150, 120))
    # a frame may look from the other side: each axis is found up to its sign
    found = [np.asarray(one, int)[..., 3]]
    ways = [found[0], found[0][::-1], found[0][:, ::-1], found[0][::-1, ::-1]]
    apart = min(np.abs(np.asarray(other, int)[..., 3] - way).mean() for way in ways)
    assert apart < 0.15 * np.mean(found[0])


def test_colours_tell_ends_structure_and_chains():
    ca = np.concatenate([strand(6), strand(6) + np.array([0, 9, 0])])
    chain = np.repeat(["A", "B"], 6)
    codes = np.r_[[0] * 3, [1] * 6, [2] * 3]
    trace = Trace.of(ca, codes, chain)

    def hexes(how):
        rows = (trace.colours(how) * 255).round().astype(int)
        return ["#{:02x}{:02x}{:02x}".format(*row) for row in rows]

    assert [hexes("rainbow")[i] for i in (0, 5, 6, 11)] == [RAINBOW[0], RAINBOW[-1]] * 2
    assert hexes("secondary") == [FOLD[code] for code in codes]
    assert hexes("chain") == [CHAINS[0]] * 6 + [CHAINS[1]] * 6
    # and they lie where their residues lie
    picture = backbone_picture(ca, codes, chain, colour="rainbow", view=AS_IT_LIES, scale=6)
    for k, channel in ((0, 2), (5, 0), (6, 2), (11, 0)):
        x, y = 150 + 6 * ca[k, 0] * 0.98, 130 - 6 * ca[k, 1]
        assert np.argmax(picture.getpixel((int(x), int(y)))[:3]) == channel


def test_what_is_apart_is_not_joined():
    ca = strand(8)
    gap = ca + np.where(np.arange(8) < 4, -6, 6)[:, None] * [1, 0, 0]
    joined, broken, ends = (
        solid(backbone_picture(x, None, chain, view=AS_IT_LIES, scale=5))
        for x, chain in ((ca, None), (gap, None), (ca, np.repeat(["A", "B"], 4)))
    )
    middle = slice(145, 155)
    assert joined[:, middle].any()
    assert not broken[:, middle].any()
    assert not ends[:, middle].any()
    dots = backbone_picture(np.random.default_rng(0).normal(size=(30, 3)) * 40)
    assert solid(dots).any()


def test_a_picture_takes_no_time():
    rng = np.random.default_rng(0)
    ca = np.cumsum(rng.normal(size=(128, 3)) * 2, 0)
    ca = ca[0] + 3.8 * np.cumsum(np.diff(ca, axis=0, prepend=0) / 3.8, 0)
    backbone_picture(ca, np.full(128, 1))
    start = time.process_time()
    backbone_picture(ca, np.full(128, 1))
    assert time.process_time() - start < 1.0  # 0.1 to 0.2 s; a slow machine is no failure


def test_what_cannot_be_drawn_is_refused():
    ca = strand(5)
    for words, match in [
        ((np.zeros((0, 3)),), "cannot be drawn"),
        ((ca[:, :2],), "cannot be drawn"),
        ((ca, np.zeros(4)), "4 codes"),
        ((ca, None, ["A"]), "1 names of chains"),
        ((ca, np.full(5, 3)), "0, 1 and 2"),
        ((np.where(ca > 5, np.nan, ca),), "not finite"),
    ]:
        with pytest.raises(InputError, match=match):
            backbone_picture(*words)
    with pytest.raises(InputError, match="without CA"):
        backbone_view(["HEADER\nEND\n"])


def test_a_trace_is_read_from_text():
    ca = np.concatenate([helix(8), helix(8) + 14 * ACROSS])
    codes = np.r_[[1] * 8, [0] * 3, [2] * 5]
    found = Trace.read(pdb(ca, codes))
    np.testing.assert_allclose(found.ca, ca, atol=6e-4)
    assert found.codes.tolist() == codes.tolist()
    assert set(found.chain) == {"A"}


def test_a_view_moves_all_models_rigidly_into_one_frame():
    ca = helix(15) @ rigid(np.random.default_rng(3)) + 20
    whole = backbone_view([pdb(ca), pdb(ca + 5 * UP)], colours=["#112233", "#445566"])
    one, two = (Trace.read(text).ca for text in whole.models)
    for found in (one, two):
        apart = [np.linalg.norm(x[:, None] - x, axis=-1) for x in (found, ca)]
        np.testing.assert_allclose(*apart, atol=5e-3)
        hand = [np.linalg.det(x[1:4] - x[0]) for x in (found, ca)]
        assert np.sign(hand[0]) == np.sign(hand[1])
        assert np.abs(found[:, 0]).max() < whole.reach
    assert np.linalg.norm(two - one, axis=-1) == pytest.approx(5, abs=5e-3)
    assert whole.models[0].count(" CA ") * 4 == whole.models[0].count("ATOM")
    trace = backbone_view([pdb(ca)], "trace")
    assert trace.models[0].count("ATOM") == len(ca)
    assert backbone_view([pdb(ca)], reach=40.0).reach == 40


def test_a_movie_says_so_in_the_page():
    frames = [pdb(helix(10) * k) for k in (3, 2, 1)]
    film = backbone_view(frames, "trace", movie=True, title="film")
    html = Report("t").add_structure(film).html()
    (slider,) = re.findall(r'<input type="range"[^>]*>', html)
    assert 'min="1" max="3" value="3"' in slider
    assert html.count('<button type="button">play</button>') == 1
    (data,) = (json.loads(s) for s in re.findall(r'application/json">(.*?)</script>', html))
    assert len(data[0]["models"]) == 3
    assert "button type" not in Report("t").add_structure(backbone_view(frames)).html()


def pixels(page, k):
    box = json.loads(
        page.run(
            f"JSON.stringify(document.querySelectorAll('.stage')[{k}].getBoundingClientRect())"
        )
    )
    inner = {"x": box["x"] + 4, "y": box["y"] + page.run("scrollY") + 4, "scale": 1}
    inner |= {"width": box["width"] - 8, "height": box["height"] - 8}
    with Image.open(io.BytesIO(page.picture(clip=inner))) as picture:
        return np.asarray(picture.convert("RGB"), int), box


def changed(a, b):
    return (np.abs(a - b).max(-1) > 40).mean()


@pytest.mark.slow
def test_in_a_browser_a_cartoon_turns_and_a_movie_plays(browser, tmp_path):
    codes = np.r_[[1] * 14, [0] * 3, [2] * 7]
    ca = np.concatenate([helix(14), [[12, 5, 0], [12, 8, 2], [10, 10, 0]]])
    ca = np.concatenate([ca, strand(7) * [-1, 1, 1] + [-1, 12, 0]])
    rng = np.random.default_rng(0)
    frames = [pdb(ca + s * rng.normal(size=ca.shape), codes) for s in (9, 3, 1, 0)]
    views = (
        backbone_view([pdb(ca, codes)], paint="secondary", title="fold"),
        backbone_view(frames, "trace", movie=True, names=["9", "3", "1", "0"], title="film"),
    )
    path = Report("t").add_structure(*views).write(tmp_path / "r.html")
    page = browser()
    page.open(path)
    page.wait("document.querySelector('.views.live')")
    fold, box = pixels(page, 0)
    ground = fold[:1, :1]
    assert changed(fold, ground) > 0.02
    # helices are redder than they are green or blue, strands have little blue
    shown = fold[np.abs(fold - ground).max(-1) > 60]
    r, g, b = shown.T
    assert ((r > 1.4 * g) & (b > g)).mean() > 0.1
    assert ((r > 1.5 * b) & (g > 1.3 * b)).mean() > 0.05

    page.drag(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, 90, 40)
    assert changed(fold, pixels(page, 0)[0]) > 0.01

    last, _ = pixels(page, 1)
    said = "document.querySelector('.bar output').textContent"
    button = "document.querySelector('.bar button')"
    assert page.run(said) == "4 of 4 · 0"
    page.run(f"{button}.click()")
    assert page.run(said) == "1 of 4 · 9"
    first, _ = pixels(page, 1)
    assert changed(first, first[:1, :1]) > 0.02  # noise is joined too
    assert changed(first, last) > 0.02
    page.wait(f"{said} === '4 of 4 · 0' && {button}.textContent === 'play'")
    assert changed(pixels(page, 1)[0], last) < 0.005
    page.run(f"{button}.click(); {button}.click()")  # stops where it is
    assert page.run(f"{button}.textContent") == "play"
    for sent in page.told("Network.requestWillBeSent"):
        assert sent["request"]["url"].startswith(("data:", path.as_uri()))
    assert not page.told("Runtime.exceptionThrown")
    assert not [e for e in page.told("Log.entryAdded") if e["entry"]["level"] == "error"]
