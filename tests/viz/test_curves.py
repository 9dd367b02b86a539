import numpy as np
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from sciffusion.errors import InputError
from sciffusion.viz.curves import curves, figure_bytes, read_columns, running_mean, save_curves


def test_reads_what_a_csv_logger_writes(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,train/loss,val/loss\n0,9,0.5,\n0,9,,0.7\n1,19,nan,0.6\n")
    got = read_columns(path)
    np.testing.assert_array_equal(got["step"], [9, 9, 19])
    np.testing.assert_array_equal(got["val/loss"], [np.nan, 0.7, 0.6])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows"),
        ("step,loss\n", "no rows"),
        ("step,loss\n1,2\n2\n", "line 3: 1 cells"),
        ("step,loss\n1,2\n2,x\n", "line 3, column 'loss': 'x'"),
    ],
)
def test_names_the_line_that_is_wrong(tmp_path, text, message):
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_columns(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        read_columns(tmp_path / "nowhere.csv")


def test_running_mean_keeps_a_constant_and_the_middle_of_a_line_and_quiets_noise():
    np.testing.assert_allclose(running_mean(np.full(200, 3.0)), 3)
    line = np.arange(500.0)
    np.testing.assert_allclose(running_mean(line)[20:-20], line[20:-20])
    noise = np.random.default_rng(0).normal(size=5000)
    assert running_mean(noise).std() == pytest.approx(1 / np.sqrt(201), rel=0.3)


def test_axis_is_logarithmic_only_where_values_allow_and_ask_for_it():
    step = np.arange(100)
    for values, scale in (
        (np.geomspace(1, 1e-3, 100), "log"),
        (np.linspace(1, 2, 100), "linear"),
        (np.linspace(-1, 100, 100), "linear"),
    ):
        figure = curves({"step": step, "loss": values}, ["loss"])
        assert figure.axes[0].get_yscale() == scale


def test_raw_numbers_stand_behind_the_smoothed_ones():
    raw = np.random.default_rng(0).normal(size=300)
    raw[7] = np.nan
    lines = curves({"step": np.arange(300), "loss": raw}, ["loss"]).axes[0].lines
    assert len(lines[0].get_ydata()) == 299
    assert lines[1].get_ydata().std() < lines[0].get_ydata().std() / 2


def test_writes_png_and_svg_alike_every_time_without_global_figures(tmp_path):
    columns = {"step": [0, 1, 2], "loss": [3.0, 2.0, 1.5]}
    assert Image.open(save_curves(tmp_path / "c.png", curves(columns, ["loss"]))).size[0] > 500
    assert save_curves(tmp_path / "c.svg", curves(columns, ["loss"])).read_bytes()[:5] == b"<?xml"
    assert figure_bytes(curves(columns, ["loss"])) == figure_bytes(curves(columns, ["loss"]))
    assert plt.get_fignums() == []
    with pytest.raises(InputError, match=r"\.png or \.svg"):
        save_curves(tmp_path / "c.pdf", curves(columns, ["loss"]))


def test_names_a_missing_or_an_empty_column():
    with pytest.raises(InputError, match="no column 'acc'; there are: step, loss"):
        curves({"step": [1], "loss": [1]}, ["acc"])
    with pytest.raises(InputError, match="no finite number"):
        curves({"step": [1], "loss": [float("nan")]}, ["loss"])
