import io

import numpy as np
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from sciffusion.domains.protein import plots
from sciffusion.domains.protein.backbone import Backbone
from sciffusion.domains.protein.geometry import build
from sciffusion.errors import InputError
from sciffusion.viz.curves import figure_bytes

SETS = (plots.ramachandran_plot, plots.ca_map_plot, plots.radius_plot, plots.content_plot)


def helix(length, phi=-63.0):
    return Backbone.of(build(*(np.radians(np.full(length, a)) for a in (phi, -42.0, 180.0))))


SPOILT = Backbone.of(np.full((30, 4, 3), np.nan))


@pytest.mark.parametrize("plot", SETS)
def test_figures_are_pictures_the_same_every_time(plot):
    samples, references = [helix(20), SPOILT, helix(33)], [helix(25, -65.0)]
    one = figure_bytes(plot(samples, references))
    assert Image.open(io.BytesIO(one)).size[0] > 500
    assert one == figure_bytes(plot(samples, references))
    assert figure_bytes(plot(samples))
    assert plt.get_fignums() == []
    with pytest.raises(InputError, match="no sample is finite"):
        plot([SPOILT], references)


def test_densities_stand_side_by_side_on_one_scale():
    figure = plots.ramachandran_plot([helix(20), SPOILT], [helix(30), helix(40)])
    own, real = figure.axes[:2]
    assert own.get_title(loc="left") == "samples (1)"
    assert real.get_title(loc="left") == "real chains (2)"
    meshes = [axes.collections[0] for axes in (own, real)]
    assert meshes[0].norm.vmax == meshes[1].norm.vmax
    peak = meshes[0].get_array()  # all in the one bin of a helix: phi -63, psi -42
    row, column = np.argwhere(~np.ma.getmaskarray(peak))[0]
    assert (row, column) == ((-42 + 180) // 10, (-63 + 180) // 10)
    assert peak.max() == pytest.approx(36 * 36)


def test_points_lie_at_length_and_radius_and_the_law_between_them():
    axes = plots.radius_plot([helix(20)], [helix(50)]).axes[0]
    real, own = axes.collections
    assert own.get_offsets()[0, 0] == 20
    assert real.get_offsets()[0, 0] == 50
    across, law = axes.lines[0].get_data()
    assert (across[0], across[-1]) == (20, 50)
    assert law[-1] == pytest.approx(2.2 * 50**0.38)
    torn = Backbone.of(helix(30).coords * 20)
    assert plots.radius_plot([torn]).axes[0].get_yscale() == "log"


def test_novelty_shares_sum_to_one():
    novelty = np.random.default_rng(0).uniform(0.3, 1.0, 40)
    axes = plots.novelty_plot(novelty, novelty[:5]).axes[0]
    assert axes.get_legend() is not None
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["held-out chains (5)", "samples (40)"]
    for patch in axes.patches:
        assert patch.get_path().vertices[:, 1].max() <= 1
    assert figure_bytes(plots.novelty_plot(novelty))
    with pytest.raises(InputError, match="not measured"):
        plots.novelty_plot(np.zeros(0))
