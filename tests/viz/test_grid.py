import io

import numpy as np
import pytest
from PIL import Image

from sciffusion.errors import InputError
from sciffusion.viz.grid import GAP, PAPER, image_grid, picture_grid, png_bytes, save_grid


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("labels", [(), ("first", "second")])
def test_every_pixel_can_be_read_back(channels, labels):
    x = np.random.default_rng(0).integers(0, 256, size=(5, 8, 6, channels), dtype=np.uint8)
    sheet = np.asarray(Image.open(io.BytesIO(png_bytes(image_grid(x, 3, labels, scale=4)))))
    left = sheet.shape[1] - 3 * (6 * 4 + GAP)  # images are flush with the right side
    for i, image in enumerate(x):
        row, column = divmod(i, 3)
        top, begin = GAP + row * (8 * 4 + GAP), left + column * (6 * 4 + GAP)
        cell = sheet[top : top + 32, begin : begin + 24]
        np.testing.assert_array_equal(
            cell, np.broadcast_to(image, (8, 6, 3)).repeat(4, 0).repeat(4, 1)
        )
    if labels:
        assert (sheet[:, : left - GAP] < 128).any(axis=(1, 2)).sum() > 10  # ink


def test_tiny_images_are_enlarged_and_large_ones_left():
    tiny = image_grid(np.zeros((4, 8, 8, 1), np.uint8))
    large = image_grid(np.zeros((4, 64, 64, 1), np.uint8))
    assert tiny.size == large.size == (2 * 66 + GAP, 2 * 66 + GAP)


def test_transparency_shows_a_checkerboard_that_is_not_the_image():
    x = np.zeros((2, 32, 32, 4), np.uint8)
    x[1, ..., 3] = 255  # black and opaque beside black and clear
    sheet = np.asarray(image_grid(x, scale=1))
    clear, opaque = sheet[GAP : GAP + 32, GAP : GAP + 32], sheet[GAP : GAP + 32, -32 - GAP : -GAP]
    assert len(np.unique(clear)) == 2
    assert (opaque == 0).all()


def test_gaps_are_paper():
    sheet = np.asarray(image_grid(np.zeros((4, 8, 8, 3), np.uint8), 2, scale=1))
    assert (sheet[: GAP + 8 + GAP, GAP + 8 : GAP + 8 + GAP] == PAPER).all()


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((2, 8, 8, 1)),
        np.zeros((2, 8, 8), np.uint8),
        np.zeros((2, 8, 8, 2), np.uint8),
        np.zeros((0, 8, 8, 1), np.uint8),
    ],
)
def test_refuses_what_is_not_images(x):
    with pytest.raises(InputError, match="a grid needs uint8 images"):
        image_grid(x)


def test_refuses_labels_that_do_not_match():
    with pytest.raises(InputError, match="1 labels for 2 rows"):
        image_grid(np.zeros((4, 8, 8, 1), np.uint8), 2, ["a"])


def test_saves_whole_and_names_a_bad_path(tmp_path):
    grid = image_grid(np.zeros((1, 8, 8, 1), np.uint8))
    assert Image.open(save_grid(tmp_path / "a" / "g.png", grid)).size == grid.size
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["g.png"]
    with pytest.raises(InputError, match="Is a directory"):
        save_grid(tmp_path / "a", grid)
    with pytest.raises(InputError, match=r"Not a directory|File exists"):
        save_grid(tmp_path / "a" / "g.png" / "h.png", grid)


def test_a_grid_shows_every_picture_in_its_place():
    rng = np.random.default_rng(2)
    pictures = [
        Image.fromarray(rng.integers(0, 256, (20, 30, 4), dtype=np.uint8)) for _ in range(5)
    ]
    white = Image.new("RGBA", (30, 20), "white")
    sheet = picture_grid(pictures, columns=2)
    assert sheet.size == (60, 60)
    for i, picture in enumerate(pictures):
        x, y = i % 2 * 30, i // 2 * 20
        part = np.asarray(sheet.crop((x, y, x + 30, y + 20)), int)
        expected = np.asarray(Image.alpha_composite(white, picture).convert("RGB"), int)
        assert np.abs(part - expected).max() <= 1
    labelled = picture_grid(pictures, 2, ["a name far too long for such a cell"] * 5)
    assert np.asarray(labelled)[20:40, :30].min() < 100  # ink under the first one
    assert labelled.height > sheet.height


def test_pictures_and_labels_must_fit():
    with pytest.raises(InputError, match="without pictures"):
        picture_grid([])
    with pytest.raises(InputError, match="2 labels for 1"):
        picture_grid([Image.new("RGBA", (4, 3))], labels=["a", "b"])
