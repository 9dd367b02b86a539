import json
import re
from dataclasses import replace

import numpy as np
import pytest

from sciffusion.domains.protein.backbone import CA, Backbone
from sciffusion.domains.protein.geometry import build
from sciffusion.domains.protein.report import movie, pairs, sections, sheet, variation_view
from sciffusion.errors import InputError
from sciffusion.viz.proteins import Trace
from sciffusion.viz.report import Report


def fold(n, name="", seed=0):
    rng = np.random.default_rng(seed)
    kinds = np.radians([(-62, -42), (-120, 130)])[rng.integers(0, 2, n // 10 + 1).repeat(10)[:n]]
    return Backbone.of(build(*kinds.T, np.full(n, np.pi)), name=name)


def rigid(seed=0):
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.linalg.det(q)


def figures(page):
    return [json.loads(s) for s in re.findall(r'application/json">(.*?)</script>', page.html())]


def distances(x):
    return np.linalg.norm(x[:, None] - x, axis=-1)


def test_samples_stand_beside_chains_of_like_length_at_one_scale():
    samples = [fold(30, "a"), fold(50, "b"), fold(31, "c")]
    references = [fold(n, f"r{n}", 1) for n in (52, 29, 33, 90)]
    found = pairs(samples, references)
    assert [[v.title for v in views] for views in found] == [
        ["a", "Real: r29"], ["b", "Real: r52"], ["c", "Real: r33"],
    ]  # fmt: skip
    for views, sample in zip(found, samples, strict=True):
        assert views[0].reach == views[1].reach
        ca = Trace.read(views[0].models[0]).ca
        np.testing.assert_allclose(distances(ca), distances(sample.coords[:, CA]), atol=5e-3)
        assert views[0].note.startswith(f"{len(sample)} residues, ")
    assert [len(views) for views in pairs(samples)] == [1, 1, 1]


def test_a_movie_ends_in_the_fold_lies_still_and_stays_in_sight():
    sample = fold(40)
    rng = np.random.default_rng(1)
    levels = np.geomspace(2000, 0.01, 60)  # wider than a PDB file holds, at first
    frames = [
        (sample.coords + rng.normal(size=sample.coords.shape) * s) @ rigid(k) + 9 * k
        for k, s in enumerate(levels)
    ]
    frames[30][:] = np.nan  # costs nothing else
    film, end = movie(frames, sample)
    assert film.movie
    assert len(film.models) == 40
    assert film.names[-1] == "step 58 of 58"
    shown = [Trace.read(text).ca for text in film.models]
    np.testing.assert_allclose(distances(shown[-1]), distances(sample.coords[:, CA]), atol=0.2)
    # the sampler turned every frame; shown, the last ones hardly move
    assert np.abs(shown[-1] - shown[-2]).max() < 0.3
    size = [np.sqrt(((x - x.mean(0)) ** 2).sum(-1).mean()) for x in shown]
    assert max(size) < 1.4 * size[-1]
    assert Trace.read(end.models[0]).ca == pytest.approx(shown[-1], abs=0.01)
    assert end.reach == film.reach
    assert movie([np.full((5, 4, 3), np.nan)]) == []


def test_variations_lie_over_their_origin():
    origin = fold(40, "native")
    moved = [replace(origin, coords=(origin.coords @ rigid(k)) - 30) for k in range(3)]
    view = variation_view(moved, origin)
    first, *others = (Trace.read(text).ca for text in view.models)
    for other in others:
        np.testing.assert_allclose(other, first, atol=3e-3)
    assert view.names == ["origin", *["0.0 Å from it"] * 3]
    assert len(set(view.colours)) == 4
    with pytest.raises(InputError, match="30 residues is no variation of native"):
        variation_view([fold(30)], origin)


def test_a_page_shows_what_can_be_shown():
    samples = [fold(30 + k, f"s{k}", k) for k in range(3)]
    broken = replace(samples[1], coords=samples[1].coords * np.nan)
    frames = [samples[0].coords * k for k in (5, 3, 1)]
    page = sections(Report("t"), [samples[0], broken, samples[2]], [fold(35)], frames, shown=1)
    found = figures(page)
    assert [[len(v["models"]) for v in views] for views in found] == [[1, 1], [3, 1]]
    assert "1 of 3 samples cannot be shown" in page.html()
    assert "<h2>Denoising</h2>" in page.html()
    assert page.html().count('alt="2 samples') == 1
    varied = figures(sections(Report("t"), samples[:1], origin=samples[0], shown=0))
    assert [[len(v["models"]) for v in views] for views in varied] == [[2]]
    empty = sections(Report("t"), [broken])
    assert figures(empty) == []
    assert "1 of 1 samples cannot be shown" in empty.html()


def test_whatever_chains_are_called_they_can_be_shown():
    one = fold(40)
    names = np.repeat(["heavy", "light", "α", ""], 10)
    odd = replace(one, chain=names, number=one.number + 12345, coords=one.coords + 20000)
    ((view,),) = pairs([odd])
    assert list(dict.fromkeys(Trace.read(view.models[0]).chain)) == ["A", "B", "C", "D"]
    few, many = sheet([odd] * 2), sheet([odd] * 9)
    assert few.width < many.width
    assert many.height > 2 * few.height
