"""A folder of images, or an archive of one: a class a sub-folder, decoded once and kept.

`train/` and `test/` at the top are the splits; without them a fixed share of each class, chosen by
hashes of the file names, is for testing. Archives are read, never extracted.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import UInt8
from rich.progress import track

from sciffusion.atomic import atomic_path
from sciffusion.domains.image.decode import SUFFIXES, decode, with_channels
from sciffusion.domains.image.imageset import Splits, split, stratified_test
from sciffusion.errors import InputError
from sciffusion.resources import cache_dir

Files = dict[str, bytes]
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".zip")


@dataclass(frozen=True)
class ImageFolder:
    """Images in files.

    Args:
        root: a folder, or a .tar(.gz, .xz, .bz2) or .zip of one.
        size: pixels of a side to resize and crop to; None demands that all are alike.
        test_fraction: of each class, where there are no train/ and test/.
        channels: 1, 3 or 4; None takes what the files have, which must be alike.
        name: for reports; None means the folder's.
    """

    root: str | os.PathLike[str]
    size: int | None = None
    test_fraction: float = 0.1
    channels: int | None = None
    name: str | None = None

    def load(self) -> Splits:
        """The two sets, decoded in parallel the first time and from the cache afterwards.

        Raises:
            InputError: nothing there, an unreadable image, images of mixed sizes or channels, or
                a folder that cannot be split.
        """
        root = Path(self.root)
        if self.channels not in (None, 1, 3, 4):
            raise InputError(f"channels={self.channels} is not 1, 3 or 4")
        if not root.exists():
            raise InputError(f"{root} does not exist: check data.root")
        if root.is_file() and not root.name.lower().endswith(ARCHIVES):
            raise InputError(f"{root} is neither a folder nor one of {', '.join(ARCHIVES)}")
        kept = cache_dir() / "images" / f"{self._fingerprint(root)}.npz"
        names, x = self._kept(kept) or self._decoded(root, kept)
        return self._splits(root, names, x)

    def _fingerprint(self, root: Path) -> str:
        """What the decoded pixels depend on: where, which files, when changed, and options."""
        stats = [root] if root.is_file() else _image_paths(root)
        lines = [f"{p}\t{p.stat().st_mtime_ns}\t{p.stat().st_size}" for p in stats]
        text = "\n".join([str(root.resolve()), f"{self.size} {self.channels} v1", *lines])
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    @staticmethod
    def _kept(path: Path) -> tuple[list[str], UInt8[np.ndarray, "n h w c"]] | None:
        try:
            with np.load(path, allow_pickle=False) as file:
                return file["names"].tolist(), file["x"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return None  # not there, or damaged: decode again

    def _decoded(self, root: Path, kept: Path) -> tuple[list[str], UInt8[np.ndarray, "n h w c"]]:
        files = _read_archive(root) if root.is_file() else _read_folder(root)
        if not files:
            raise InputError(f"{root} holds no images ({', '.join(sorted(SUFFIXES))})")
        names = sorted(files)
        with ThreadPoolExecutor() as pool:  # PIL decodes outside the interpreter's lock
            arrays = pool.map(lambda n: decode(files[n], self.size, f"{root}: {n}"), names)
            label = f"decoding {root.name}"
            images = list(track(arrays, label, total=len(names), transient=True))
        x = self._stack(root, names, images)
        with atomic_path(kept) as temporary:
            np.savez(temporary, names=np.array(names), x=x)
        return names, x

    def _stack(
        self, root: Path, names: list[str], images: list[UInt8[np.ndarray, "_ _ _"]]
    ) -> UInt8[np.ndarray, "n h w c"]:
        channels = images[0].shape[-1] if self.channels is None else self.channels
        for i, (name, image) in enumerate(zip(names, images, strict=True)):
            if self.channels is None and image.shape[-1] != channels:
                raise InputError(
                    f"{root}: {names[0]} has {channels} channels but {name} has "
                    f"{image.shape[-1]}: pass data.channels=1, 3 or 4"
                )
            if image.shape[:2] != images[0].shape[:2]:
                (h0, w0), (h, w) = images[0].shape[:2], image.shape[:2]
                raise InputError(
                    f"{root}: {names[0]} is {w0} x {h0} pixels but {name} is {w} x {h}: "
                    "pass data.size=N to resize"
                )
            images[i] = with_channels(image, channels, f"{root}: {name}")
        return np.stack(images)

    def _splits(self, root: Path, names: list[str], x: UInt8[np.ndarray, "n h w c"]) -> Splits:
        parts = [PurePosixPath(name).parts for name in names]
        tops = {p[0] for p in parts if len(p) > 1}
        test = None
        if tops & {"train", "test"}:
            if tops != {"train", "test"} or any(len(p) == 1 for p in parts):
                raise InputError(
                    f"{root} must hold both train/ and test/ and no images beside them, "
                    f"but holds {', '.join(sorted({p[0] for p in parts})[:5])}"
                )
            test = np.array([p[0] == "test" for p in parts])
            parts = [p[1:] for p in parts]
        loose = [name for name, p in zip(names, parts, strict=True) if len(p) == 1]
        label, classes = None, None
        if loose and len(loose) < len(parts):
            raise InputError(f"{root}: {loose[0]} lies beside class folders: move it into one")
        if not loose:
            classes, label = np.unique([p[0] for p in parts], return_inverse=True)
            classes = classes.tolist()
        if test is None:
            test = stratified_test(names, label, self.test_fraction, str(root), classes)
        elif label is not None and (odd := set(label[test]) - set(label[~test])):
            raise InputError(f"{root}: class {classes[min(odd)]} is in test/ but not in train/")
        name = self.name or root.name.split(".")[0]
        return split(x, label, test, classes, name)


def _is_image(name: str) -> bool:
    parts = PurePosixPath(name).parts
    hidden = any(p.startswith(".") or p == "__MACOSX" for p in parts)
    return PurePosixPath(name).suffix.lower() in SUFFIXES and not hidden


def _image_paths(root: Path) -> list[Path]:
    found = (p for p in root.rglob("*") if _is_image(p.relative_to(root).as_posix()))
    return sorted(p for p in found if p.is_file())


def _read_folder(root: Path) -> Files:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in _image_paths(root)}


def _read_archive(path: Path) -> Files:
    try:
        if path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as file:
                names = [n for n in file.namelist() if not n.endswith("/")]
                found = {n: file.read(n) for n in _safe(names, path) if _is_image(n)}
        else:
            with tarfile.open(path) as file:  # in order: seeking in a compressed file is slow
                found = {}
                for member in file:
                    [name] = _safe([member.name], path)
                    if member.isfile() and _is_image(name):
                        found[name] = file.extractfile(member).read()
    except (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError) as error:
        raise InputError(f"{path} is no readable archive ({error}): make it again") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: an encrypted zip
        raise InputError(f"{path} cannot be read ({error})") from error
    return _without_top(found)


def _safe(names: Iterable[str], path: Path) -> list[str]:
    names = [n.removeprefix("./") for n in names]
    for n in names:
        if n.startswith("/") or ".." in PurePosixPath(n).parts:
            raise InputError(f"{path}: member {n!r} points outside the archive: make it again")
    return names


def _without_top(files: Files) -> Files:
    """Drop the one folder that many archives wrap everything in."""
    tops = {name.split("/", 1)[0] for name in files}
    if len(tops) != 1 or tops & {"train", "test"} or any("/" not in n for n in files):
        return files
    return {name.split("/", 1)[1]: data for name, data in files.items()}
