import errno
import os

import pytest

from sciffusion.atomic import atomic_path
from sciffusion.errors import InputError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_appears_whole_with_its_suffix_and_in_a_new_folder(tmp_path):
    final = tmp_path / "new" / "table.csv"
    with atomic_path(final) as path:
        assert path.suffix == ".csv"
        path.write_text("a,b\n")
        assert not final.exists()
    assert final.read_text() == "a,b\n"
    assert names(final.parent) == ["table.csv"]


@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt()])
def test_failure_leaves_the_old_file_and_no_other(tmp_path, error):
    final = tmp_path / "x.bin"
    final.write_bytes(b"old")

    def write():
        with atomic_path(final) as path:
            path.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert final.read_bytes() == b"old"
    assert names(tmp_path) == ["x.bin"]


def test_a_full_disk_is_one_line_that_names_the_path(tmp_path):
    final = tmp_path / "x.bin"
    final.write_bytes(b"old")

    def write():
        with atomic_path(final) as path:
            os.symlink("/dev/full", path)  # every write there fails as on a full disk
            path.write_bytes(b"new")

    with pytest.raises(InputError, match="No space left") as caught:
        write()
    assert str(final) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert final.read_bytes() == b"old"
    assert names(tmp_path) == ["x.bin"]


def test_never_replaces_a_directory_or_a_device(tmp_path):
    with pytest.raises(InputError, match="name a file, not a directory"), atomic_path(tmp_path):
        pytest.fail("the block must not run")
    with pytest.raises(InputError, match="/dev/full"), atomic_path("/dev/full"):
        pytest.fail("the block must not run")


def test_a_file_in_place_of_a_folder_is_named(tmp_path):
    file = tmp_path / "f"
    file.write_text("")
    for final in (file / "x", file / "g" / "x"):
        with pytest.raises(InputError, match="a part of the path is a file"), atomic_path(final):
            pytest.fail("the block must not run")


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with atomic_path(tmp_path / "link") as path:
        path.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_errors_about_other_things_pass_through(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "x"):
        (tmp_path / "missing source").read_bytes()
    with pytest.raises(ConnectionResetError), atomic_path(tmp_path / "x"):
        raise ConnectionResetError(errno.ECONNRESET, "reset")
    with pytest.raises(PermissionError), atomic_path(tmp_path / "x"):
        raise PermissionError(errno.EACCES, "no", "/elsewhere/source")
    assert names(tmp_path) == []
