"""Image data sets that are arrays already: handwritten digits, CIFAR-10, and any .npz file."""

from __future__ import annotations

import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from sciffusion.data.download import download
from sciffusion.domains.image.imageset import (
    ImageSet,
    Splits,
    grouped_test,
    split,
    stratified_test,
)
from sciffusion.errors import InputError
from sciffusion.resources import cache_dir


@dataclass(frozen=True)
class Digits:
    """1,797 scans of handwritten digits, 8 x 8, real (Alpaydin & Kaynak 1998, by scikit-learn).

    Pixels v = 0..16 become round(v 255/16); round(u 16/255) gives them back exactly. A fifth of
    each class, chosen by hashes of the record numbers with seed 0, is for testing.
    """

    name: str = "digits"

    def load(self) -> Splits:
        """The two sets; nothing is downloaded."""
        from sklearn.datasets import load_digits  # takes a second to import

        images, label = load_digits(return_X_y=True)
        x = np.rint(images.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
        keys = [str(i) for i in range(len(x))]
        test = stratified_test(keys, label, 0.2, self.name)
        return split(x, label, test, [str(d) for d in range(10)], self.name)


CIFAR10_CLASSES = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
]
CIFAR10_FOLDER = "cifar-10-batches-bin"
CIFAR10_RECORD = 1 + 3 * 32 * 32


@dataclass(frozen=True)
class Cifar10:
    """60,000 colour photographs, 32 x 32, of ten classes (Krizhevsky 2009), the binary version.

    Args:
        root: holds cifar-10-binary.tar.gz or cifar-10-batches-bin/; None means the cache.
        download: fetch the archive where neither is there.
        url: of the archive.
        checksum: of the archive.
        name: for reports.
    """

    root: str | os.PathLike[str] | None = None
    download: bool = True
    url: str = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    checksum: str = "md5:c32a1d4ab5d03f1284b67883e8d87530"
    name: str = "cifar10"

    def load(self) -> Splits:
        """The two published sets.

        Raises:
            InputError: not there and not to be downloaded, or a file of a wrong size.
        """
        root = cache_dir() / "cifar10" if self.root is None else Path(self.root)
        folder, archive = root / CIFAR10_FOLDER, root / Path(self.url).name
        if folder.is_dir():
            return self._splits(lambda name: _read(folder / name), folder)
        if not archive.exists() and not self.download:
            raise InputError(
                f"{root} holds neither {archive.name} nor {CIFAR10_FOLDER}/: "
                "put one there or allow download=true"
            )
        archive = download(self.url, root, self.checksum)
        try:
            with tarfile.open(archive) as tar:
                return self._splits(lambda name: _member(tar, f"{CIFAR10_FOLDER}/{name}"), archive)
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise InputError(f"{archive} is no readable archive ({error}): remove it") from error

    def _splits(self, read: Callable[[str], bytes | None], where: Path) -> Splits:
        def part(names: list[str], suffix: str) -> ImageSet:
            batches = [_records(read(n), f"{where}: {CIFAR10_FOLDER}/{n}") for n in names]
            x, label = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
            return ImageSet(x, label, CIFAR10_CLASSES, f"{self.name}/{suffix}")

        train = [f"data_batch_{i}.bin" for i in range(1, 6)]
        return Splits(part(train, "train"), part(["test_batch.bin"], "test"))


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _member(tar: tarfile.TarFile, name: str) -> bytes | None:
    try:
        stream = tar.extractfile(name)  # only read, by its exact name: nothing lands on disk
    except KeyError:
        return None
    return None if stream is None else stream.read()


def _records(
    data: bytes | None, where: str
) -> tuple[UInt8[np.ndarray, "n 32 32 3"], Int[np.ndarray, " n"]]:
    if data is None:
        raise InputError(f"{where} is missing: remove the incomplete copy and download it again")
    if not data or len(data) % CIFAR10_RECORD:
        raise InputError(
            f"{where} has {len(data)} bytes, not a multiple of {CIFAR10_RECORD}: "
            "it is truncated or not the binary version; download it again"
        )
    rows = np.frombuffer(data, np.uint8).reshape(-1, CIFAR10_RECORD)
    label = rows[:, 0].astype(np.int64)
    if label.max() > 9:
        first = int(np.argmax(label > 9))
        raise InputError(f"{where}, record {first}: class {label[first]} is not 0..9; wrong file")
    x = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(x), label


@dataclass(frozen=True)
class Npz:
    """Images in an .npz file.

    `x` is (N, H, W) or (N, H, W, C) with C from 1 to 4; uint8, or float in [0, 1] (or [-1, 1] if
    anything is negative; the set's `note` says which was assumed).

    Args:
        path: of the file.
        key: name of the images in it.
        label_key: name of integer classes, read if there; other labels than 0..K-1 are renumbered
            and keep their numbers as names.
        group_key: name of an array whose equal values must stay in one split.
        split_key: name of an array of "train" and "test".
        test_fraction: of the images, unless `split_key` says.
        name: for reports; None means the file's.
    """

    path: str | os.PathLike[str]
    key: str = "x"
    label_key: str = "label"
    group_key: str | None = None
    split_key: str | None = None
    test_fraction: float = 0.1
    name: str | None = None

    def load(self) -> Splits:
        """The two sets.

        Raises:
            InputError: not an .npz, a missing or unfit array, NaN, or labels that do not fit.
        """
        wanted = [k for k in (self.key, self.group_key, self.split_key) if k is not None]
        arrays = _load_npz(Path(self.path), wanted, self.label_key)
        x, note = _pixels(arrays[self.key], f"{self.path}: {self.key}")
        label, classes = None, None
        if self.label_key in arrays:
            where = f"{self.path}: {self.label_key}"
            label, classes = _labels(arrays[self.label_key], len(x), where)
        for key in wanted[1:]:
            if arrays[key].shape != (len(x),):
                raise InputError(
                    f"{self.path}: {key} has shape {arrays[key].shape}, expected ({len(x)},)"
                )
        if self.split_key is not None:
            test = _test_rows(arrays[self.split_key], f"{self.path}: {self.split_key}")
        elif self.group_key is not None:
            test = grouped_test(arrays[self.group_key], self.test_fraction, str(self.path))
        else:
            keys = [str(i) for i in range(len(x))]
            test = stratified_test(keys, label, self.test_fraction, str(self.path), classes)
        return split(x, label, test, classes, self.name or Path(self.path).stem, note)


def _load_npz(path: Path, wanted: list[str], optional: str) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise InputError(f"{path} does not exist: check data.path")
    try:
        with np.load(path, allow_pickle=False) as file:
            if isinstance(file, np.ndarray):
                raise InputError(f"{path} is a single array: save it with np.savez(path, x=...)")
            if missing := [k for k in wanted if k not in file]:
                there = ", ".join(file.files)
                raise InputError(f"{path} has no array {missing[0]!r}: choose one of {there}")
            return {k: file[k] for k in [*wanted, optional] if k in file}
    except InputError:
        raise
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path} cannot be read as plain arrays ({reason}): save it with np.savez, "
            "without objects"
        ) from error


def _pixels(x: np.ndarray, where: str) -> tuple[UInt8[np.ndarray, "n h w c"], str]:
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4 or not 1 <= x.shape[-1] <= 4 or 0 in x.shape:
        raise InputError(
            f"{where} has shape {x.shape}: it must be (N, H, W) or (N, H, W, C), C from 1 to 4, "
            "and not empty"
        )
    if x.dtype == np.uint8:
        return x, ""
    if x.dtype.kind != "f":
        raise InputError(f"{where} is {x.dtype}: save uint8 (0..255) or float in [0, 1] or [-1, 1]")
    low, high = (f(axis=(1, 2, 3)) for f in (x.min, x.max))  # NaN and infinities survive these
    if len(bad := np.flatnonzero(~np.isfinite(low + high))):
        raise InputError(f"{where}, record {bad[0]}: NaN or infinite pixels; repair or remove it")
    floor = -1.0 if low.min() < 0 else 0.0
    if len(bad := np.flatnonzero((low < floor) | (high > 1))):
        i = bad[0]
        raise InputError(
            f"{where}, record {i}: values from {low[i]:g} to {high[i]:g}; "
            "floats must lie in [0, 1] or [-1, 1]: rescale them"
        )
    unit = (x - floor) / (1 - floor)
    return np.rint(unit * 255).astype(np.uint8), f"float pixels were taken to span [{floor:g}, 1]"


def _labels(label: np.ndarray, n: int, where: str) -> tuple[Int[np.ndarray, " n"], list[str]]:
    if label.shape != (n,):
        raise InputError(f"{where} has shape {label.shape}, expected ({n},): one label an image")
    if label.dtype.kind not in "iu":
        raise InputError(f"{where} is {label.dtype}: labels must be integers")
    if label.min() < 0:
        i = int(np.argmax(label < 0))
        raise InputError(f"{where}, record {i}: label {label[i]} is negative; use 0 and up")
    values, contiguous = np.unique(label, return_inverse=True)
    return contiguous.astype(np.int64), [str(v) for v in values]


def _test_rows(names: np.ndarray, where: str) -> np.ndarray:
    if len(bad := np.flatnonzero(~np.isin(names, ["train", "test"]))):
        raise InputError(f'{where}, record {bad[0]}: {names[bad[0]]!r} is not "train" or "test"')
    test = names == "test"
    if test.all() or not test.any():
        raise InputError(f'{where}: all records are "{names[0]}"; both splits are needed')
    return test
