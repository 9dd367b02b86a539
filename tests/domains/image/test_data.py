import io
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from sciffusion.domains.image import folder as folder_module
from sciffusion.domains.image.data import (
    Cifar10,
    Digits,
    ImageDataset,
    ImageFolder,
    Npz,
    augment,
    to_model,
    to_uint8,
)
from sciffusion.errors import InputError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SCIFFUSION_CACHE", str(tmp_path / "cache"))


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array, **options).save(path)


@pytest.fixture
def photos(tmp_path):
    """Two classes of ten 6 x 6 colour images."""
    root = tmp_path / "photos"
    for c in ("ant", "bee"):
        for i in range(10):
            save(root / c / f"{i}.png", pixels(6, 6, 3, seed=i + 100 * (c == "bee")))
    return root


# Pixels and batches


def test_pixels_survive_the_model_range():
    x = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    y = to_model(x)
    assert (y.min(), y.max()) == (-1, 1)
    assert torch.equal(to_uint8(y).permute(0, 3, 1, 2), x)
    assert to_uint8(torch.tensor([[[[-5.0, 5.0]]]])).flatten().tolist() == [0, 255]


def test_gathered_batches_are_the_items():
    images = Digits().load().test
    data = ImageDataset(images)
    batch = data.gather([5, 0, 5])
    for row, i in enumerate([5, 0, 5]):
        assert torch.equal(batch["x"][row], data[i]["x"])
        assert batch["label"][row] == data[i]["label"] == images.label[i]
    [loaded] = DataLoader(data, batch_size=len(data), collate_fn=lambda b: b)
    assert torch.equal(loaded["x"].permute(0, 2, 3, 1), torch.from_numpy(images.x))


# Augmentation


def test_augmentation_depends_on_its_numbers_alone():
    x, u = torch.from_numpy(pixels(5, 3, 6, 7)), torch.rand(5, 3)
    once = augment(x, u, hflip=True, shift=2)
    alone = torch.cat([augment(x[i : i + 1], u[i : i + 1], True, 2) for i in range(5)])
    assert torch.equal(once, alone)
    assert torch.equal(augment(x, u), x)


def test_flip_mirrors_half_of_the_numbers():
    x = torch.from_numpy(pixels(2, 1, 4, 5))
    flipped = augment(x, torch.tensor([[0.2, 0.5, 0.5], [0.8, 0.5, 0.5]]), hflip=True)
    assert torch.equal(flipped[0], x[0].flip(-1))
    assert torch.equal(flipped[1], x[1])


def test_shifts_reach_both_ends_and_reflect():
    x = torch.arange(5.0).reshape(1, 1, 1, 5).expand(1, 1, 5, 5)
    for u, expected in ((0.0, [2, 3, 4, 3, 2]), (0.5, [0, 1, 2, 3, 4]), (0.999, [2, 1, 0, 1, 2])):
        moved = augment(x, torch.tensor([[0.9, 0.5, u]]), shift=2)
        assert moved[0, 0, 0].tolist() == expected
        turned = augment(x.mT, torch.tensor([[0.9, u, 0.5]]), shift=2)
        assert turned[0, 0, :, 0].tolist() == expected


def test_a_shift_beyond_the_image_is_refused():
    with pytest.raises(ValueError, match="shift=4"):
        augment(torch.zeros(1, 1, 4, 8), torch.rand(1, 3), shift=4)


# Digits and CIFAR-10


def test_digits_are_the_scans_split_by_class():
    from sklearn.datasets import load_digits

    train, test = Digits().load()
    both = np.concatenate([train.x, test.x])[..., 0]
    raw = np.rint(both * (16 / 255)).reshape(-1, 64)
    published = load_digits().data
    assert sorted(map(bytes, raw.astype(np.uint8))) == sorted(
        map(bytes, published.astype(np.uint8))
    )
    counts = np.bincount(train.label) + np.bincount(test.label)
    assert (abs(np.bincount(test.label) / counts - 0.2) < 0.01).all()


def cifar_file(n, seed):
    x, label = pixels(n, 32, 32, 3, seed=seed), np.arange(n, dtype=np.uint8) % 10
    planes = x.transpose(0, 3, 1, 2).reshape(n, -1)
    return x, label, np.concatenate([label[:, None], planes], axis=1).tobytes()


@pytest.fixture
def cifar(tmp_path):
    root = tmp_path / "cifar"
    inside = root / "cifar-10-batches-bin"
    inside.mkdir(parents=True)
    for i, name in enumerate([*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"]):
        (inside / name).write_bytes(cifar_file(12, i)[2])
    return root


def test_cifar_records_are_label_then_three_planes(cifar):
    train, test = Cifar10(cifar).load()
    assert train.x.shape == (60, 32, 32, 3)
    x, label, _ = cifar_file(12, 5)
    assert np.array_equal(test.x, x)
    assert np.array_equal(test.label, label)


def test_cifar_downloads_and_reads_the_archive(cifar, tmp_path, served):
    import hashlib

    archive = served.folder / "tiny.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(cifar / "cifar-10-batches-bin", "cifar-10-batches-bin")
    checksum = "md5:" + hashlib.md5(archive.read_bytes()).hexdigest()
    source = Cifar10(tmp_path / "new", url=f"{served.url}/tiny.tar.gz", checksum=checksum)
    loaded = source.load()
    assert np.array_equal(loaded.train.x, Cifar10(cifar).load().train.x)
    served.close()
    assert np.array_equal(source.load().test.x, loaded.test.x)


@pytest.fixture
def served(tmp_path):
    """A folder served on localhost."""
    import functools
    import threading
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
    from types import SimpleNamespace

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def close():
        if thread.is_alive():
            server.shutdown()
            thread.join()
            server.server_close()

    yield SimpleNamespace(folder=folder, url=f"http://127.0.0.1:{server.server_port}", close=close)
    close()


def test_cifar_problems_are_named(cifar, tmp_path):
    with pytest.raises(InputError, match="holds neither"):
        Cifar10(tmp_path / "none", download=False).load()
    batch = cifar / "cifar-10-batches-bin" / "data_batch_2.bin"
    good = batch.read_bytes()
    batch.write_bytes(good[:-1])
    with pytest.raises(InputError, match=r"data_batch_2\.bin has 36875 bytes"):
        Cifar10(cifar).load()
    batch.write_bytes(good[: 3 * 3073] + b"\x0a" + good[3 * 3073 + 1 :])
    with pytest.raises(InputError, match=r"record 3: class 10"):
        Cifar10(cifar).load()
    batch.unlink()
    with pytest.raises(InputError, match=r"data_batch_2\.bin is missing"):
        Cifar10(cifar).load()


# Folders and archives


def contents(splits):
    return [{x.tobytes() for x in part.x} for part in splits]


def test_folder_splits_every_class_once_and_always_alike(photos):
    splits = ImageFolder(photos, test_fraction=0.3).load()
    train, test = contents(splits)
    assert splits.train.classes == ["ant", "bee"]
    assert np.bincount(splits.test.label).tolist() == [3, 3]
    assert not train & test
    assert len(train | test) == 20
    assert contents(ImageFolder(photos, test_fraction=0.3).load()) == [train, test]
    bee = {pixels(6, 6, 3, seed=100 + i).tobytes() for i in range(10)}
    for part in splits:
        assert [x.tobytes() in bee for x in part.x] == (part.label == 1).tolist()


def test_the_second_reading_does_not_decode(photos, monkeypatch):
    first = contents(ImageFolder(photos).load())

    def fail(*args):
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "decode", fail)
        assert contents(ImageFolder(photos).load()) == first
    save(photos / "ant" / "0.png", pixels(6, 6, 3, seed=999))
    assert contents(ImageFolder(photos).load()) != first


def test_a_damaged_cache_is_made_again(photos, tmp_path):
    first = contents(ImageFolder(photos).load())
    [kept] = (tmp_path / "cache" / "images").iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    assert contents(ImageFolder(photos).load()) == first


@pytest.mark.parametrize("suffix", ["tar.xz", "tar.gz", "zip"])
def test_archives_give_what_the_folder_gives(photos, tmp_path, suffix):
    archive = tmp_path / f"photos.{suffix}"
    paths = sorted(p for p in photos.rglob("*.png"))
    if suffix == "zip":
        with zipfile.ZipFile(archive, "w") as file:
            for p in paths:
                file.write(p, p.relative_to(photos.parent))
    else:
        with tarfile.open(archive, f"w:{suffix[4:]}") as file:
            file.add(photos, "photos")
    assert contents(ImageFolder(archive).load()) == contents(ImageFolder(photos).load())


def test_members_outside_the_archive_are_refused(photos, tmp_path):
    archive = tmp_path / "bad.tar"
    with tarfile.open(archive, "w") as file:
        file.add(photos / "ant" / "0.png", "../outside.png")
    with pytest.raises(InputError, match="outside the archive"):
        ImageFolder(archive).load()
    archive.write_bytes(b"not an archive" * 100)
    with pytest.raises(InputError, match="no readable archive"):
        ImageFolder(archive).load()


def test_train_and_test_folders_are_the_splits(photos, tmp_path):
    root = tmp_path / "split"
    root.mkdir()
    photos.rename(root / "train")
    save(root / "test" / "bee" / "0.png", pixels(6, 6, 3, seed=7))
    splits = ImageFolder(root).load()
    assert (len(splits.train), splits.test.label.tolist()) == (20, [1])
    save(root / "test" / "cow" / "0.png", pixels(6, 6, 3))
    with pytest.raises(InputError, match="class cow is in test/"):
        ImageFolder(root).load()


def test_a_flat_folder_is_unlabelled(tmp_path):
    for i in range(4):
        save(tmp_path / "flat" / f"{i}.png", pixels(5, 5, seed=i))
    splits = ImageFolder(tmp_path / "flat", test_fraction=0.5).load()
    assert splits.train.label is None
    assert splits.train.x.shape == (2, 5, 5, 1)


def test_lossless_conversions_only(photos):
    grey = pixels(6, 6)
    save(photos / "ant" / "grey.png", grey)
    Image.fromarray(grey).convert("P").save(photos / "ant" / "palette.png")
    with pytest.raises(InputError, match=r"has 1 channels|has 3 channels"):
        ImageFolder(photos).load()
    train, test = contents(ImageFolder(photos, channels=3).load())
    assert np.repeat(grey[..., None], 3, -1).tobytes() in train | test
    with pytest.raises(InputError, match="is in colour"):
        ImageFolder(photos, channels=1).load()
    save(photos / "ant" / "glass.png", pixels(6, 6, 4))
    with pytest.raises(InputError, match=r"glass\.png is partly transparent"):
        ImageFolder(photos, channels=3).load()


def test_size_resizes_and_crops(photos):
    save(photos / "ant" / "wide.png", np.full((8, 20, 3), 77, np.uint8))
    with pytest.raises(InputError, match=r"6 x 6 .*wide\.png is 20 x 8.*data\.size=N"):
        ImageFolder(photos).load()
    splits = ImageFolder(photos, size=4).load()
    assert splits.train.x.shape[1:] == (4, 4, 3)
    assert np.full((4, 4, 3), 77, np.uint8).tobytes() in contents(splits)[0] | contents(splits)[1]


def cmyk(path):
    Image.new("CMYK", (6, 6)).save(path.with_suffix(".jpg"))


def deep(path):
    Image.fromarray(np.full((6, 6), 40000, np.uint16)).save(path)


def truncated(path):
    out = io.BytesIO()
    Image.fromarray(pixels(60, 60, 3)).save(out, "PNG")
    path.write_bytes(out.getvalue()[:2000])


def text(path):
    path.write_text("hello")


@pytest.mark.parametrize(
    ("write", "reason"),
    [(cmyk, "CMYK"), (deep, "mode I;16"), (truncated, "cannot be read"), (text, "cannot be read")],
)
def test_unfit_images_are_named_with_the_reason(photos, write, reason):
    write(photos / "bee" / "odd.png")
    with pytest.raises(InputError, match=rf"bee/odd.*{reason}") as error:
        ImageFolder(photos).load()
    assert "\n" not in str(error.value)


def test_unfit_folders_are_named(photos, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        ImageFolder(tmp_path / "none").load()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no images"):
        ImageFolder(tmp_path / "empty").load()
    save(photos / "cow" / "only.png", pixels(6, 6, 3))
    with pytest.raises(InputError, match=r"class cow has a single image \(cow/only\.png\)"):
        ImageFolder(photos).load()
    save(photos / "loose.png", pixels(6, 6, 3))
    with pytest.raises(InputError, match=r"loose\.png lies beside class folders"):
        ImageFolder(photos).load()
    save(photos / "train" / "0.png", pixels(6, 6, 3))
    with pytest.raises(InputError, match="both train/ and test/"):
        ImageFolder(photos).load()


# .npz files


def npz(tmp_path, **arrays):
    np.savez(tmp_path / "data.npz", **arrays)
    return tmp_path / "data.npz"


def test_npz_float_ranges_are_read_and_noted(tmp_path):
    raw = pixels(40, 4, 4, 3)
    for x, span in ((raw / 255, "[0, 1]"), (raw / 127.5 - 1, "[-1, 1]")):
        splits = Npz(npz(tmp_path, x=x.astype(np.float32))).load()
        assert span in splits.train.note
        joined = {i.tobytes() for part in splits for i in part.x}
        assert joined == {i.tobytes() for i in raw}


def test_npz_groups_stay_together(tmp_path):
    group = np.repeat(np.arange(20), 5)
    x = np.broadcast_to(group.astype(np.uint8)[:, None, None], (100, 4, 4))
    source = Npz(npz(tmp_path, x=x, image=group), group_key="image", test_fraction=0.3)
    train, test = (set(part.x[:, 0, 0, 0]) for part in source.load())
    assert not train & test
    assert len(test) == 6


def test_npz_splits_and_labels_are_taken(tmp_path):
    label = np.array([7, 2, 7, 2, 9, 9])
    which = np.array(["train", "train", "test", "test", "train", "test"])
    path = npz(tmp_path, x=pixels(6, 4, 4), label=label, split=which)
    train, test = Npz(path, split_key="split").load()
    assert train.classes == ["2", "7", "9"]
    assert train.label.tolist() == [1, 0, 2]
    assert test.label.tolist() == [1, 0, 2]
    assert train.label.dtype == np.int64


GOOD = pixels(6, 4, 4)
HOLED = np.where(np.arange(6)[:, None, None] == 3, np.nan, GOOD / 255)


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"y": GOOD}, "no array 'x'"),
        ({"x": HOLED}, "record 3: NaN"),
        ({"x": np.where(np.isnan(HOLED), np.inf, HOLED)}, "record 3: NaN or infinite"),
        ({"x": GOOD * 1.0}, "record 0: values from"),
        ({"x": GOOD[0]}, "shape"),
        ({"x": pixels(6, 3, 8, 8)}, "shape"),
        ({"x": GOOD[:0]}, "not empty"),
        ({"x": GOOD.astype(np.int64)}, "int64"),
        ({"x": np.array([{}], dtype=object)}, "without objects"),
        ({"x": GOOD, "label": np.zeros(5, int)}, "one label an image"),
        ({"x": GOOD, "label": np.array([0, 0, 1, 1, -1, 0])}, "record 4: label -1"),
        ({"x": GOOD, "label": np.zeros(6)}, "float64"),
        ({"x": GOOD, "label": np.array([0, 0, 0, 0, 0, 1])}, "class 1 has a single image"),
    ],
)
def test_unfit_arrays_are_named(tmp_path, arrays, reason):
    with pytest.raises(InputError, match=reason) as error:
        Npz(npz(tmp_path, **arrays)).load()
    assert "data.npz" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04broken", b"\x80\x04N."])
def test_other_files_are_no_npz(tmp_path, content):
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"data\.npz"):
        Npz(path).load()
