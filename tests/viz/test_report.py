import base64
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from sciffusion.errors import InputError
from sciffusion.metrics.table import Row, Table
from sciffusion.viz.curves import curves, figure_bytes
from sciffusion.viz.grid import image_grid
from sciffusion.viz.report import Report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
EVIL = '<script>alert(1)</script> & "quotes" \''
FETCHING = ("src", "href", "srcset", "data", "action", "poster", "background")


class Page(HTMLParser):
    """Tags with their attributes, and the text outside style and script."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] not in ("style", "script"):
            self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def frames(n):
    rng = np.random.default_rng(0)
    return [image_grid(rng.integers(0, 256, (4, 8, 8, 1), dtype=np.uint8)) for _ in range(n)]


@pytest.fixture
def report():
    svg = figure_bytes(curves({"step": [0, 1], "loss": [2.0, 1.0]}, ["loss"]), "svg")
    return (
        Report(f"Run {EVIL}")
        .add_keyvalues({EVIL: EVIL})
        .add_section(EVIL)
        .add_text(f"{EVIL}\n\nsecond")
        .add_table(Table(EVIL, [Row(EVIL, 1.5, note=EVIL)]))
        .add_figure(svg, EVIL)
        .add_frames(frames(5), EVIL)
        .add_code(f"model: {EVIL}", EVIL)
    )


def assert_offline(html):
    for _, attrs in Page(html).tags:
        for name in FETCHING:
            assert (attrs.get(name) or "data:").startswith("data:")
    style = "".join(re.findall(r"<style>(.*?)</style>", html, re.S))
    assert "url(" not in style
    assert "@import" not in style
    assert not Page(html).all("link")


def test_text_is_text_and_nothing_points_outside(report):
    html = report.html()
    assert_offline(html)
    page = Page(html)
    assert len(page.all("script")) == 1
    assert page.text.count(EVIL) >= 10  # everything came through, as text
    assert "default-src 'none'" in page.all("meta")[2]["content"]


def test_pictures_come_back_as_they_went_in():
    rng = np.random.default_rng(1)
    picture = Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8))
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG")
    html = Report("t").add_figure(picture).add_figure(jpeg.getvalue()).html()
    sources = [image["src"].split(",", 1) for image in Page(html).all("img")]
    assert [head for head, _ in sources] == ["data:image/png;base64", "data:image/jpeg;base64"]
    decoded = [base64.b64decode(body) for _, body in sources]
    np.testing.assert_array_equal(Image.open(io.BytesIO(decoded[0])), picture)
    assert decoded[1] == jpeg.getvalue()


def test_refuses_what_is_no_picture_and_no_trajectory():
    with pytest.raises(InputError, match="neither PNG, JPEG nor SVG"):
        Report("t").add_figure(b"GIF89a")
    with pytest.raises(InputError, match="without frames"):
        Report("t").add_frames([])


def test_is_written_whole_and_names_a_bad_path(report, tmp_path):
    path = report.write(tmp_path / "run" / "report.html")
    assert path.read_text(encoding="utf-8") == report.html()
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    with pytest.raises(InputError, match="Is a directory"):
        report.write(tmp_path)


def test_a_name_that_is_not_unicode_costs_one_character_only(tmp_path):
    path = Report("t").add_text("file \udcff.png").write(tmp_path / "r.html")
    assert "file ?.png" in path.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine to render the page")
def test_in_a_browser_the_slider_runs_and_nothing_is_fetched(report, tmp_path):
    path = report.write(tmp_path / "report.html")
    command = [
        CHROMIUM,
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--log-net-log={tmp_path / 'net.json'}",
        *("--dump-dom", path.as_uri()),
    ]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    page = Page(dom)
    player = next(d for d in page.all("div") if "player" in d.get("class", ""))
    assert "ready" in player["class"].split()
    assert "5 of 5" in page.text
    shown = [i for i in page.all("img") if i["alt"].startswith("frame") and "hidden" not in i]
    assert [image["alt"] for image in shown] == ["frame 5"]
    assert_offline(dom)
    fetched = re.findall(r'"url":"(https?://[^"]*)"', (tmp_path / "net.json").read_text())
    assert not [url for url in fetched if "google" not in url]  # Chromium's own errands aside
